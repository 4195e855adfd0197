"""What the store knows about runs and streams: who writes, as which incarnation, and how a run ended.

The rules, in the order of commits:

1. A new stream makes its run `running`, also a run that had ended: that is a resume.
2. A `running` record adds facts and changes no state, so that one which comes late cannot undo an end.
3. An end of a stream whose worker has a newer one says nothing about the run any more.
4. `failed`, `killed` and `stopped` end the run at once; the last of them stands.
5. `finished` ends the run when no other worker's newest stream is running, and hides nothing of rule 4.

Every function runs inside the store's transaction. Applying a record twice is kept out by its key (`run_rows`).
"""

import json
from typing import Any

import apsw
import msgspec

from runlane.actors.record_rows import INT64, json_text
from runlane.config.errors import StoreError, WireError
from runlane.transport.messages import StepSchema, StreamInfo
from runlane.transport.records import RunRecord

MAX_STREAMS = (1 << 23) - 1
_EXIT_CODES = range(-(1 << 31), 1 << 31)

_OPEN_RUN = """
INSERT INTO runs (run, name, state, started_ns, host, pid) VALUES (?, ?, 'running', ?, ?, ?)
ON CONFLICT DO UPDATE SET
  name = iif(excluded.name = '', name, excluded.name), state = 'running', ended_ns = NULL, exit_code = NULL,
  error = NULL, started_ns = min(started_ns, excluded.started_ns), host = excluded.host, pid = excluded.pid
"""
_OPEN_STREAM = """
INSERT INTO streams (stream, run, worker, incarnation, host, pid, started_ns, schemas)
SELECT ?1, ?2, ?3, 1 + coalesce(max(incarnation), 0), ?4, ?5, ?6, ?7 FROM streams WHERE run = ?2 AND worker = ?3
RETURNING stream_no
"""
_OTHERS_RUNNING = """
SELECT EXISTS (
  SELECT 1 FROM streams AS mine JOIN streams AS other ON other.run = mine.run AND other.worker <> mine.worker
   WHERE mine.stream_no = ? AND other.state = 'running' AND other.incarnation =
         (SELECT max(incarnation) FROM streams WHERE run = other.run AND worker = other.worker))
"""
_IS_SUPERSEDED = """
SELECT EXISTS (
  SELECT 1 FROM streams AS mine JOIN streams AS newer USING (run, worker)
   WHERE mine.stream_no = ? AND newer.incarnation > mine.incarnation)
"""
_END_RUN = """
UPDATE runs SET
  state = iif(?2 = 'finished' AND state <> 'running', state, ?2), ended_ns = max(coalesce(ended_ns, ?3), ?3),
  exit_code = coalesce(?4, exit_code), error = coalesce(?5, error)
 WHERE run = ?1
"""


def open_stream(connection: apsw.Connection, info: StreamInfo) -> int:
    """Number of the stream, assigned when it is new; its schemas are kept up to date.

    Raises `WireError` on an info that cannot be stored.
    """
    known = connection.execute("SELECT stream_no, schemas FROM streams WHERE stream = ?", (info.stream,)).fetchall()
    if known:
        (stream_no, schemas) = known[0]
        _add_schemas(connection, stream_no, schemas, info.schemas)
        return int(stream_no)
    if info.started_ns not in INT64 or info.pid not in INT64:
        raise WireError("invalid", f"stream {info.stream}: pid {info.pid} or started_ns {info.started_ns}")
    connection.execute(_OPEN_RUN, (info.run, info.run_name, info.started_ns, info.host, info.pid))
    values = (info.stream, info.run, info.worker, info.host, info.pid, info.started_ns, _schemas_text(info.schemas))
    try:
        return int(connection.execute(_OPEN_STREAM, values).get)
    except apsw.ConstraintError as error:
        raise StoreError(f"{MAX_STREAMS} streams are in this database; set db_writer.database to a new one") from error


def apply_run_record(connection: apsw.Connection, stream_no: int, record: RunRecord) -> None:
    """Bring `runs` and `streams` up to date with a run record that was not applied before."""
    run = connection.execute("SELECT run FROM streams WHERE stream_no = ?", (stream_no,)).get
    _add_facts(connection, run, record.facts)
    if record.state == "running":
        return
    ended = (record.state, int(record.t_ns), stream_no)
    connection.execute("UPDATE streams SET state = ?, ended_ns = ? WHERE stream_no = ?", ended)
    if connection.execute(_IS_SUPERSEDED, (stream_no,)).get:
        return
    if record.state == "finished" and connection.execute(_OTHERS_RUNNING, (stream_no,)).get:
        return
    code, error = _exit_code(record.facts.get("exit_code")), _text(record.facts.get("error"))
    connection.execute(_END_RUN, (run, record.state, int(record.t_ns), code, error))


def _add_facts(connection: apsw.Connection, run: str, facts: dict[str, Any]) -> None:
    known: dict[str, Any] = json.loads(connection.execute("SELECT facts FROM runs WHERE run = ?", (run,)).get)
    config = facts.get("config")
    connection.execute(
        "UPDATE runs SET facts = ?, command = coalesce(?, command), config = coalesce(?, config) WHERE run = ?",
        (json_text(known | facts), _text(facts.get("command")), None if config is None else json_text(config), run),
    )


def _add_schemas(connection: apsw.Connection, stream_no: int, known: str, schemas: list[StepSchema]) -> None:
    """A hello may be older than the newest one, so schemas are added and never taken away."""
    merged = {schema.schema_id: schema for schema in (*msgspec.json.decode(known, type=list[StepSchema]), *schemas)}
    text = _schemas_text([merged[schema_id] for schema_id in sorted(merged)])
    if text != known:
        connection.execute("UPDATE streams SET schemas = ? WHERE stream_no = ?", (text, stream_no))


def _schemas_text(schemas: list[StepSchema]) -> str:
    return msgspec.json.encode(schemas).decode()


def _exit_code(value: object) -> int | None:
    return value if isinstance(value, int) and value in _EXIT_CODES else None


def _text(value: object) -> str | None:
    """A text as it is, a list of words as one line, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    return json_text(value)
