"""What the store knows about runs and streams: who writes, as which incarnation, and how a run ended.

The rules, in the order of commits:

1. A run begins `running` with its first stream. A stream's `running` record opens an ended run again, unless
   that stream has ended: so a resume opens it, and a record that comes late does not.
2. A proxy says in a stream of its own how its worker ended; that ends the worker's streams too.
3. `failed`, `killed` and `stopped` end the run at once; the last of them stands.
4. `finished` ends the run when no other stream of it is running, and hides nothing of rule 3.

Every function runs inside the store's transaction, and once per record: the store asks the record's key first.
"""

import json
from typing import Any

import apsw
import msgspec

from runlane.actors.record_rows import INT64, json_text
from runlane.actors.sql import Connection
from runlane.actors.topology import proxy_name
from runlane.config.errors import StoreError, WireError
from runlane.transport.messages import StepSchema, StreamInfo
from runlane.transport.records import RunRecord

_EXIT_CODES = range(-(1 << 31), 1 << 31)

_OPEN_RUN = """
INSERT INTO runs (run, name, state, started_ns, host, pid) VALUES (?, ?, 'running', ?, ?, ?)
ON CONFLICT DO UPDATE SET
  name = iif(excluded.name = '', name, excluded.name), started_ns = min(started_ns, excluded.started_ns)
"""
_OPEN_STREAM = """
INSERT INTO streams (stream, run, worker, incarnation, host, pid, started_ns, schemas)
SELECT ?1, ?2, ?3, 1 + coalesce(max(incarnation), 0), ?4, ?5, ?6, ?7 FROM streams WHERE run = ?2 AND worker = ?3
RETURNING stream_no
"""
_RESUME_RUN = """
UPDATE runs SET state = 'running', ended_ns = NULL, exit_code = NULL, error = NULL, host = s.host, pid = s.pid
  FROM streams AS s WHERE s.stream_no = ? AND runs.run = s.run AND runs.state <> 'running'
"""
_END_STREAMS = """
UPDATE streams SET state = ?3, ended_ns = ?4
 WHERE stream_no = ?1 OR (run = ?2 AND coalesce(state, 'running') = 'running' AND (?5 || worker) =
                          (SELECT worker FROM streams WHERE stream_no = ?1))
"""
_END_RUN = """
UPDATE runs SET
  state = iif(?2 = 'finished' AND state <> 'running', state, ?2), ended_ns = max(coalesce(ended_ns, ?3), ?3),
  exit_code = coalesce(?4, exit_code), error = coalesce(?5, error)
 WHERE run = ?1
   AND NOT (?2 = 'finished' AND EXISTS (SELECT 1 FROM streams WHERE run = ?1 AND state = 'running'))
"""


def open_stream(connection: Connection, info: StreamInfo) -> int:
    """Number of the stream, assigned when it is new; its schemas are kept up to date.

    Raises `WireError` on an info that cannot be stored.
    """
    known = connection.execute("SELECT stream_no, schemas FROM streams WHERE stream = ?", (info.stream,)).fetchall()
    if known:
        stream_no, schemas = known[0]
        _add_schemas(connection, stream_no, schemas, info.schemas)
        return int(stream_no)
    if info.started_ns not in INT64 or info.pid not in INT64:
        raise WireError("invalid", f"stream {info.stream}: pid {info.pid} or started_ns {info.started_ns}")
    connection.execute(_OPEN_RUN, (info.run, info.run_name, info.started_ns, info.host, info.pid))
    values = (info.stream, info.run, info.worker, info.host, info.pid, info.started_ns, _schemas_text(info.schemas))
    try:
        return int(connection.execute(_OPEN_STREAM, values).get)
    except apsw.ConstraintError as error:
        raise StoreError(f"no stream number is left ({error}); set db_writer.database to a new file") from error


def apply_run_record(connection: Connection, stream_no: int, record: RunRecord) -> None:
    """Bring `runs` and `streams` up to date with a run record that was not applied before."""
    find = "SELECT run, state FROM streams WHERE stream_no = ?"
    ((run, state),) = connection.execute(find, (stream_no,)).fetchall()
    _add_facts(connection, run, record.facts)
    if record.state == "running":
        if state is None:
            connection.execute("UPDATE streams SET state = 'running' WHERE stream_no = ?", (stream_no,))
            connection.execute(_RESUME_RUN, (stream_no,))
        return
    t_ns = int(record.t_ns)
    connection.execute(_END_STREAMS, (stream_no, run, record.state, t_ns, proxy_name("")))
    code, error = _exit_code(record.facts.get("exit_code")), _text(record.facts.get("error")) or None
    connection.execute(_END_RUN, (run, record.state, t_ns, code, error))


def _add_facts(connection: Connection, run: str, facts: dict[str, Any]) -> None:
    known: dict[str, Any] = json.loads(connection.execute("SELECT facts FROM runs WHERE run = ?", (run,)).get)
    config = facts.get("config")
    connection.execute(
        "UPDATE runs SET facts = ?, command = coalesce(?, command), config = coalesce(?, config) WHERE run = ?",
        (json_text(known | facts), _text(facts.get("command")), None if config is None else json_text(config), run),
    )


def _add_schemas(connection: Connection, stream_no: int, known: str, schemas: list[StepSchema]) -> None:
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
    return value if value is None or isinstance(value, str) else json_text(value)
