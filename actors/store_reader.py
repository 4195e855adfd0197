"""Reading the database from other processes: one short read-only connection per question."""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from runlane.actors.mean_return import mean_return
from runlane.actors.sql import Connection, Cursor, SqlRow, SqlValue
from runlane.actors.store_file import open_readonly, store_errors
from runlane.actors.topology import proxy_name
from runlane.config.errors import StoreError

LOST_NS = 4_000_000_000  # a run nobody was heard of for so long is lost; the view `run_status` says the same

_RUNS = """
SELECT r.run, r.name,
       iif(r.state IN ('running', 'stalled') AND ?2 > coalesce(
             max(s.seen_ns) FILTER (WHERE coalesce(s.state, 'running') IN ('running', 'stalled')), 0),
           'lost', r.state),
       r.started_ns, r.ended_ns, max(s.seen_ns),
       count(DISTINCT s.worker) FILTER (WHERE substr(s.worker, 1, length(?1)) <> ?1),
       coalesce(sum(s.steps), 0), coalesce(sum(s.episodes), 0),
       (SELECT coalesce(sum(d.records), 0) FROM drop_rows AS d
         WHERE d.stream_no IN (SELECT stream_no FROM streams WHERE run = r.run))
  FROM runs AS r LEFT JOIN streams AS s USING (run)
 WHERE r.run NOT IN (SELECT run FROM removed_runs)
 GROUP BY r.run ORDER BY r.started_ns DESC, r.run DESC
"""


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `steps` are environment steps; `mean_return` is over its newest 100 episodes, None without any;
    proxies do not count as workers. `state` is `lost` when the run has not ended and nobody who could write it
    was heard of for 4 s; `seen_ns` is when somebody was, None before the first time.
    """

    run: str
    name: str
    state: str
    started_ns: int
    ended_ns: int | None
    seen_ns: int | None
    workers: int
    steps: int
    episodes: int
    mean_return: float | None
    drops: int


def list_runs(path: Path, now_ns: int | None = None) -> list[RunRow]:
    """Every run that retention has not removed, newest first. Reads counters and newest episodes, never the step rows.

    `now_ns` is the head host's wall clock, by default this host's.
    """
    heard_ns = (time.time_ns() if now_ns is None else now_ns) - LOST_NS
    with _reading(path) as connection:
        connection.execute("BEGIN")  # one moment for all the questions
        return [_run_row(connection, row) for row in connection.execute(_RUNS, (proxy_name(""), heard_ns)).fetchall()]


def query(path: Path, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[SqlRow]]:
    """Column names and all rows of one statement that reads; raises `StoreError` on any other.

    `bindings` are the values of its `?`.
    """
    columns: list[str] = []
    seen: list[str] = []

    def before_each(cursor: Cursor, statement: str, _bindings: object) -> bool:
        if seen:
            raise StoreError("more than one SQL statement; give them one at a time")
        seen.append(statement)
        if not cursor.is_readonly:
            raise _read_only(path)
        columns.extend(name for name, _ in cursor.get_description())
        return True

    with _reading(path) as connection:
        cursor = connection.cursor()
        cursor.exec_trace = before_each
        try:
            rows = cursor.execute(sql, bindings or None).fetchall()
        except apsw.ReadOnlyError as error:
            raise _read_only(path) from error
        except apsw.Error as error:
            raise StoreError(f"SQL: {error}") from error
    if not columns:
        raise StoreError("this SQL has no answer; ask with SELECT")
    return tuple(columns), rows


@contextmanager
def _reading(path: Path) -> Generator[Connection]:
    connection = open_readonly(path)
    try:
        with store_errors(path):
            yield connection
    finally:
        connection.close()


def _read_only(path: Path) -> StoreError:
    return StoreError(f"{path} is read-only here: only the DB writer writes to it")


def _run_row(connection: Connection, row: SqlRow) -> RunRow:
    names = ("run", "name", "state", "started_ns", "ended_ns", "seen_ns", "workers", "steps", "episodes", "drops")
    values = dict(zip(names, row, strict=True)) | {"mean_return": mean_return(connection, str(row[0]))}
    return msgspec.convert(values, RunRow)
