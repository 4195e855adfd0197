"""What the store knows about runs and streams: who writes, as which incarnation, and how a run ended.

The rules, in the order of commits. A stream or run that is `running` or `stalled` is alive.

1. A run begins `running` with its first stream. A stream's `running` record opens an ended run again, unless
   that stream has ended: so a resume opens it, and a record that comes late does not.
2. A proxy says in a stream of its own how its worker ended; that ends the worker's living streams too. If it
   names one `stream` in its facts, only that one ends, and the run with it when no other stream of it is alive.
3. `failed`, `killed` and `stopped` end the run at once; the last of them stands.
4. `finished` ends the run when no other stream of it is alive, and hides nothing of rule 3.
5. A proxy's `stalled` makes its worker's running streams stalled, its `running` the reverse. A living run is
   stalled while one of its streams is. Neither touches what has ended.
6. A stream that resumes an earlier incarnation ends it, `killed`, where nobody has said how it ended. From then
   on no report of the earlier one ends the run.

7. A command that ends with exit code 0 has finished, though processes it had started were killed: streams of its
   worker, or of parts of it (`worker-1`). Their own states say so.

Nothing is refused because a step went backwards: who resumes may go on from any step. That nobody is heard of any
more is not written here, because nobody is left to write it: readers derive it from `streams.seen_ns`.

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
INSERT INTO streams (stream, run, worker, incarnation, host, pid, started_ns, schemas, forked_from)
SELECT ?1, ?2, ?3, 1 + coalesce(max(incarnation), 0), ?4, ?5, ?6, ?7, nullif(?8, '')
  FROM streams WHERE run = ?2 AND worker = ?3
RETURNING stream_no
"""
_RESUME_STREAM = """
UPDATE streams SET resumed_step = coalesce(?2, resumed_step), resumed_from = coalesce(resumed_from, (
  SELECT e.stream FROM streams AS e
   WHERE e.run = streams.run AND e.worker = streams.worker AND e.incarnation < streams.incarnation
     AND e.forked_from IS NULL AND (e.host, e.pid) <> (streams.host, streams.pid)
   ORDER BY e.incarnation DESC LIMIT 1))
 WHERE stream_no = ?1
"""
_END_RESUMED = """
UPDATE streams SET state = 'killed', ended_ns = coalesce(seen_ns, started_ns)
 WHERE stream = (SELECT resumed_from FROM streams WHERE stream_no = ?)
   AND coalesce(state, 'running') IN ('running', 'stalled')
"""
_RESUME_RUN = """
UPDATE runs SET state = 'running', ended_ns = NULL, exit_code = NULL, error = NULL, host = s.host, pid = s.pid
  FROM streams AS s WHERE s.stream_no = ? AND runs.run = s.run AND runs.state NOT IN ('running', 'stalled')
"""
_TURN_STREAMS = """
UPDATE streams SET state = ?4
 WHERE run = ?2 AND state = ?3
   AND (stream_no = ?1 OR (?5 || worker) = (SELECT worker FROM streams WHERE stream_no = ?1))
"""
_TURN_RUN = """
UPDATE runs SET
  state = iif(EXISTS (SELECT 1 FROM streams WHERE run = ?1 AND state = 'stalled'), 'stalled', 'running')
 WHERE run = ?1 AND state IN ('running', 'stalled')
"""
_END_STREAMS = """
UPDATE streams SET state = ?3, ended_ns = ?4
 WHERE stream_no = ?1 OR (run = ?2 AND coalesce(state, 'running') IN ('running', 'stalled') AND (?5 || worker) =
                          (SELECT worker FROM streams WHERE stream_no = ?1))
"""
_END_STREAM = """
UPDATE streams SET state = ?2, ended_ns = ?3
 WHERE stream = ?1 AND coalesce(state, 'running') IN ('running', 'stalled') RETURNING stream_no, run
"""
_END_RUN = """
UPDATE runs SET
  state = iif(?2 = 'finished' AND state NOT IN ('running', 'stalled'), state, ?2),
  ended_ns = max(coalesce(ended_ns, ?3), ?3), exit_code = coalesce(?4, exit_code), error = coalesce(?5, error)
 WHERE run = ?1
   AND NOT (?6 AND EXISTS (SELECT 1 FROM streams WHERE run = ?1 AND state IN ('running', 'stalled')))
   AND NOT EXISTS (SELECT 1 FROM streams AS r JOIN streams AS e ON r.resumed_from = e.stream
                    WHERE r.run = ?1 AND e.run = ?1 AND e.stream_no = ?7)
"""
_FORGIVE_PARTS = """
UPDATE runs SET state = 'finished'
 WHERE run = ?1 AND state = 'killed' AND exit_code = 0
   AND NOT EXISTS (SELECT 1 FROM streams WHERE run = ?1 AND state IN ('failed', 'killed', 'stopped')
                    AND worker NOT IN (?2, ?3 || ?2) AND substr(worker, 1, length(?2) + 1) <> ?2 || '-'
                    AND substr(worker, 1, length(?3 || ?2) + 1) <> ?3 || ?2 || '-')
"""


def open_stream(connection: Connection, info: StreamInfo) -> int:
    """Number of the stream, assigned when it is new; its schemas, and what it resumes, are kept up to date.

    Raises `WireError` on an info that cannot be stored.
    """
    known = connection.execute("SELECT stream_no, schemas FROM streams WHERE stream = ?", (info.stream,)).fetchall()
    if known:
        stream_no, schemas = int(known[0][0]), str(known[0][1])
        _add_schemas(connection, stream_no, schemas, info.schemas)
    else:
        stream_no = _insert_stream(connection, info)
    if info.is_resumed:
        connection.execute(_RESUME_STREAM, (stream_no, info.resumed_step))
        connection.execute(_END_RESUMED, (stream_no,))
        connection.execute(_TURN_RUN, (info.run,))
    return stream_no


def _insert_stream(connection: Connection, info: StreamInfo) -> int:
    if info.started_ns not in INT64 or info.pid not in INT64:
        raise WireError("invalid", f"stream {info.stream}: pid {info.pid} or started_ns {info.started_ns}")
    connection.execute(_OPEN_RUN, (info.run, info.run_name, info.started_ns, info.host, info.pid))
    who = (info.stream, info.run, info.worker, info.host, info.pid, info.started_ns)
    try:
        return int(connection.execute(_OPEN_STREAM, (*who, _schemas_text(info.schemas), info.forked_from)).get)
    except apsw.ConstraintError as error:
        raise StoreError(f"no stream number is left ({error}); set db_writer.database to a new file") from error


def apply_run_record(connection: Connection, stream_no: int, record: RunRecord) -> None:
    """Bring `runs` and `streams` up to date with a run record that was not applied before."""
    find = "SELECT run, worker, state FROM streams WHERE stream_no = ?"
    ((run, worker, state),) = connection.execute(find, (stream_no,)).fetchall()
    is_proxy = str(worker).startswith(proxy_name(""))
    ended = record.facts.get("stream") if is_proxy else None
    if record.state in ("running", "stalled"):
        if not is_proxy:
            _add_facts(connection, run, record.facts)
        _turn(connection, stream_no, run, record, is_first=state is None and not is_proxy)
    elif isinstance(ended, str):
        _end_one(connection, ended, record)
    else:
        _add_facts(connection, run, record.facts)
        connection.execute(_END_STREAMS, (stream_no, run, record.state, int(record.t_ns), proxy_name("")))
        _end_run(connection, run, record, stream_no, needs_all=record.state == "finished")
        if is_proxy and record.facts.get("exit_code") == 0:
            prefix = proxy_name("")
            connection.execute(_FORGIVE_PARTS, (run, str(worker).removeprefix(prefix), prefix))


def _turn(connection: Connection, stream_no: int, run: str, record: RunRecord, *, is_first: bool) -> None:
    """A word about who is alive: by the stream itself, or by the proxy of its worker."""
    if is_first:  # of a stream's own words; what comes late finds a state
        connection.execute("UPDATE streams SET state = ? WHERE stream_no = ?", (record.state, stream_no))
        connection.execute(_RESUME_RUN, (stream_no,))
    before = "stalled" if record.state == "running" else "running"
    connection.execute(_TURN_STREAMS, (stream_no, run, before, record.state, proxy_name("")))
    connection.execute(_TURN_RUN, (run,))


def _end_one(connection: Connection, stream: str, record: RunRecord) -> None:
    """A proxy's word that one stream has ended, whose process nobody could ask."""
    ended = connection.execute(_END_STREAM, (stream, record.state, int(record.t_ns))).fetchall()
    for stream_no, run in ended:
        _end_run(connection, run, record, stream_no, needs_all=True)


def _end_run(connection: Connection, run: str, record: RunRecord, stream_no: int, *, needs_all: bool) -> None:
    """End the run by rules 2 to 4 and 6; `needs_all`: only if no stream of it is alive."""
    code, error = _exit_code(record.facts.get("exit_code")), _text(record.facts.get("error")) or None
    connection.execute(_END_RUN, (run, record.state, int(record.t_ns), code, error, needs_all, stream_no))
    connection.execute(_TURN_RUN, (run,))


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
