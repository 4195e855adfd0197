"""Records of every kind but step → SQL values, one INSERT per kind.

Values are converted here even where the record's type promises them: a NumPy scalar that slipped in would be
stored as a BLOB, silently.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from runlane.actors.rollups import EPISODE_SQL
from runlane.actors.sql import SqlRow
from runlane.config.errors import WireError
from runlane.transport.records import (
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Record,
    RunRecord,
)
from runlane.transport.row_key import SEQ_BITS, SEQ_MASK
from runlane.transport.wire import plain

INT64 = range(-(1 << 63), 1 << 63)
_JSON = msgspec.json.Encoder()


class RowKind(NamedTuple):
    """How one kind is stored: the statement, and what turns a record of a stream into its values."""

    sql: str
    values: Callable[[Any, int], SqlRow]


def row_id(stream_no: int, seq: int) -> int:
    """The packed key of a record; raises `WireError` on a seq that does not fit."""
    if not 1 <= seq <= SEQ_MASK:
        raise WireError("seq", f"{seq} is not within 1 … {SEQ_MASK}")
    return stream_no << SEQ_BITS | seq


def json_text(value: object) -> str:
    """JSON as SQLite reads it: NaN is null, infinity 9e999, an integer beyond 64 bits text."""
    return _JSON.encode(_json_value(value)).decode()


def rows_of(kind: str, records: list[Record], stream_no: int) -> list[SqlRow]:
    """Values of all records, or none: raises `WireError` on the first that cannot be stored."""
    try:
        return [ROW_KINDS[kind].values(record, stream_no) for record in records]
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise WireError("invalid", f"{kind}: {error}") from error


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | str | bytes | bytearray):
        return value
    if isinstance(value, int):
        return int(value) if value in INT64 else str(value)
    if isinstance(value, float):
        if math.isinf(value):
            return msgspec.Raw(b"9e999" if value > 0 else b"-9e999")
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in cast("Sequence[object]", value)]
    return _json_value(plain(value))


def _integer(value: int) -> int:
    number = int(value)
    if number not in INT64:
        raise OverflowError(f"{number} does not fit 64 bits")
    return number


def _info(info: dict[str, Any] | None) -> str | None:
    return json_text(info) if info else None


def _episode(record: EpisodeRecord, stream_no: int) -> SqlRow:
    return (
        row_id(stream_no, record.seq),
        _integer(record.t_ns),
        _integer(record.env_index),
        _integer(record.episode),
        float(record.episode_return),
        _integer(record.length),
        record.outcome,
        float(record.duration_s),
        _info(record.info),
    )


def _metric(record: MetricRecord, stream_no: int) -> SqlRow:
    key = row_id(stream_no, record.seq)
    return key, _integer(record.t_ns), record.name, _integer(record.step), float(record.value)


def _log(record: LogRecord, stream_no: int) -> SqlRow:
    return row_id(stream_no, record.seq), _integer(record.t_ns), record.level, record.text


def _run(record: RunRecord, stream_no: int) -> SqlRow:
    return row_id(stream_no, record.seq), _integer(record.t_ns), record.state, json_text(record.facts)


def _info_row(record: InfoRecord, stream_no: int) -> SqlRow:
    step_id = row_id(stream_no, record.step_seq)
    return step_id, _integer(record.env_index), row_id(0, record.seq), json_text(record.info)


def _drop(record: DropRecord, stream_no: int) -> SqlRow:
    seq = row_id(0, record.seq)
    return stream_no, "source", seq, record.kind, seq, _integer(record.t_ns), record.reason, _integer(record.records)


DROP_SQL = "INSERT OR IGNORE INTO drop_rows VALUES (?,?,?,?,?,?,?,?)"

ROW_KINDS: dict[str, RowKind] = {
    "episode": RowKind(EPISODE_SQL, _episode),
    "metric": RowKind("INSERT OR IGNORE INTO metric_rows VALUES (?,?,?,?,?)", _metric),
    "log": RowKind("INSERT OR IGNORE INTO log_rows VALUES (?,?,?,?)", _log),
    "run": RowKind("INSERT OR IGNORE INTO run_rows VALUES (?,?,?,?)", _run),
    "drop": RowKind(DROP_SQL, _drop),
    # A second info record of one step adds to the first; one that comes again is older than what is there.
    "info": RowKind(
        "INSERT INTO info_rows VALUES (?,?,?,?) ON CONFLICT DO UPDATE"
        " SET seq = excluded.seq, info = json_patch(info, excluded.info) WHERE excluded.seq > seq",
        _info_row,
    ),
}
