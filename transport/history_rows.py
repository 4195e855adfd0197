"""Stored rows → records and columns, as they were on the wire. The other direction is the DB writer's.

Steps are read from the tables behind the views, which the schema's page describes too: the views take a vector step
apart, and here it is one row again. SQLite has no NaN, so NULL is NaN where a float belongs.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from runlane.config.errors import StoreError
from runlane.transport.columns import StepColumns, step_dtype
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.records import (
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Record,
    RunRecord,
)
from runlane.transport.row_key import SEQ_BITS

_SCALAR_STEPS = """
SELECT id & 1099511627775, t_ns, 0, episode, step, env_index, flags, reward, action, observation
  FROM step_rows WHERE id BETWEEN ? AND ? ORDER BY id
"""
_VECTOR_STEPS = """
SELECT id & 1099511627775, t_ns, env_count, episode, step, NULL, flags, reward, action, observation
  FROM vector_step_rows WHERE id BETWEEN ? AND ? ORDER BY id
"""
_COLUMNS = ("seq", "t_ns", "env_count", "episode", "step", "env_index", "flags", "reward", "action", "observation")
_SEQ, _ENV_COUNT, _ACTION, _OBSERVATION = 0, 2, 8, 9

Row = tuple[Any, ...]


class Group(NamedTuple):
    """Records of one kind that make one batch."""

    first_seq: int
    content: "list[Record] | StepColumns"
    schema_id: int = 0


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _episode(row: Row) -> Record:
    seq, t_ns, env_index, episode, episode_return, length, outcome, duration_s, info = row
    found = None if info is None else json.loads(info)
    return EpisodeRecord(seq, t_ns, env_index, episode, _nan(episode_return), length, outcome, _nan(duration_s), found)


def _metric(row: Row) -> Record:
    seq, t_ns, name, value, step = row
    return MetricRecord(seq, t_ns, name, _nan(value), step)


def _log(row: Row) -> Record:
    return LogRecord(*row)


def _run(row: Row) -> Record:
    seq, t_ns, state, facts = row
    return RunRecord(seq, t_ns, state, json.loads(facts))


def _drop(row: Row) -> Record:
    return DropRecord(*row)


def _info(row: Row) -> Record:
    seq, step_seq, env_index, info = row
    return InfoRecord(seq, step_seq, env_index, json.loads(info))


class StoredKind(NamedTuple):
    """How one kind is read: a query between two keys, and what makes a record of a row, its seq first."""

    sql: str
    record: Callable[[Row], Record]

    def read(
        self, connection: sqlite3.Connection, stream_no: int, first_seq: int, last_seq: int, until_seq: int
    ) -> list[Group]:
        """One group of the records of a stretch of seqs, or none. No record beyond `until_seq` is among them."""
        base = stream_no << SEQ_BITS
        rows = connection.execute(self.sql, (base | first_seq, base | last_seq)).fetchall()
        # Info is kept under its step, and its own seq lies behind that one's.
        records = [self.record(row) for row in rows if row[0] <= until_seq]
        return [Group(records[0].seq, records)] if records else []


STORED: dict[str, StoredKind] = {
    "episode": StoredKind(
        "SELECT id & 1099511627775, t_ns, env_index, episode, episode_return, length, outcome, duration_s, info"
        " FROM episode_rows WHERE id BETWEEN ? AND ? ORDER BY id",
        _episode,
    ),
    "metric": StoredKind(
        "SELECT id & 1099511627775, t_ns, name, value, step FROM metric_rows WHERE id BETWEEN ? AND ? ORDER BY id",
        _metric,
    ),
    "log": StoredKind(
        "SELECT id & 1099511627775, t_ns, level, text FROM log_rows WHERE id BETWEEN ? AND ? ORDER BY id",
        _log,
    ),
    "run": StoredKind(
        "SELECT id & 1099511627775, t_ns, state, facts FROM run_rows WHERE id BETWEEN ? AND ? ORDER BY id",
        _run,
    ),
    "drop": StoredKind(
        "SELECT first_seq, t_ns, kind, reason, records FROM drop_rows"
        " WHERE noted_by = 'source' AND stream_no = ?1 >> 40"
        " AND first_seq BETWEEN ?1 & 1099511627775 AND ?2 & 1099511627775 ORDER BY first_seq",
        _drop,
    ),
    "info": StoredKind(
        "SELECT seq, step_id & 1099511627775, env_index, info"
        " FROM info_rows WHERE step_id BETWEEN ? AND ? ORDER BY seq",
        _info,
    ),
}


class StoredSteps(NamedTuple):
    """Step rows of a stretch of seqs, in seq order, and the layouts their stream announced."""

    rows: list[Row]
    schemas: Sequence[StepSchema]

    def every_nth(self, n: int, passed: int) -> tuple[list[Group], int]:
        """Every n-th row, when `passed` rows of the stream came before; and how many have passed then."""
        kept = self.rows[-passed % n :: n]
        return list(self._groups(kept)), passed + len(self.rows)

    def _groups(self, rows: list[Row]) -> Iterator[Group]:
        for schema_id, found in groupby(rows, lambda row: self._schema_of(row).schema_id):
            alike = list(found)
            yield Group(alike[0][_SEQ], _columns(alike, self._schema_of(alike[0])), schema_id)

    def _schema_of(self, row: Row) -> StepSchema:
        """The newest layout the row fits: the database does not say which one it came in."""
        known = [schema for schema in self.schemas if schema.env_count == row[_ENV_COUNT]]
        fitting = known if len(known) == 1 else [schema for schema in known if _fits(schema, row)]
        if not fitting:
            raise StoreError(f"step row with seq {row[_SEQ]} fits no schema that its stream announced")
        return fitting[-1]


def read_steps(
    connection: sqlite3.Connection, stream_no: int, first_seq: int, last_seq: int, schemas: Sequence[StepSchema]
) -> StoredSteps:
    """Step rows of one stream with seqs between the two."""
    keys = (stream_no << SEQ_BITS | first_seq, stream_no << SEQ_BITS | last_seq)
    scalar: list[Row] = connection.execute(_SCALAR_STEPS, keys).fetchall()
    vector: list[Row] = connection.execute(_VECTOR_STEPS, keys).fetchall()
    return StoredSteps(sorted(scalar + vector, key=lambda row: row[_SEQ]) if vector else scalar, schemas)


def _fits(schema: StepSchema, row: Row) -> bool:
    fields = {field.name: field for field in schema.fields}
    for name, value in (("action", row[_ACTION]), ("observation", row[_OBSERVATION])):
        field = fields.get(name)
        if field is None:
            if value is not None:
                return False
        elif isinstance(value, bytes):
            if not _is_packed(schema, field) or len(value) != field.count * np.dtype(field.code).itemsize:
                return False
        elif _is_packed(schema, field) or (value is None and "f" not in field.code):
            return False
    return True


def _is_packed(schema: StepSchema, field: StepField) -> bool:
    """Whether the values of one row lie in a BLOB."""
    return field.name in ("action", "observation") and field.count > schema.env_count


def _columns(rows: list[Row], schema: StepSchema) -> StepColumns:
    """The rows as the source packed them. A column that the database does not keep is zero."""
    columns = np.zeros(len(rows), step_dtype(schema))
    values = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    for field in schema.fields:
        if field.name not in values:
            continue
        stored = values[field.name]
        if _is_packed(schema, field):
            columns[field.name] = np.frombuffer(b"".join(stored), field.code).reshape(len(rows), field.count)
        elif field.count:
            columns[field.name] = [[_number(value, field) for value in json.loads(text)] for text in stored]
        else:
            columns[field.name] = [_number(value, field) for value in stored]
    return columns


def _number(value: Any, field: StepField) -> Any:
    if value is None:
        return float("nan") if "f" in field.code else 0
    return int(value) if isinstance(value, str) else value  # text: an unsigned integer beyond SQLite's 64 bits
