"""Reading the database from other processes: one short read-only connection per question."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from runlane.actors.row_key import SEQ_BITS, SEQ_MASK
from runlane.actors.sql import Connection, Cursor, SqlRow
from runlane.actors.store_file import open_readonly, store_errors
from runlane.actors.topology import proxy_name
from runlane.config.errors import StoreError

MEAN_EPISODES = 100  # the newest of a run that its mean return is taken over

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
         WHERE d.stream_no IN (SELECT stream_no FROM streams WHERE run = r.run)),
       coalesce(group_concat(s.stream_no), '')
  FROM runs AS r LEFT JOIN streams AS s USING (run)
 GROUP BY r.run ORDER BY r.started_ns DESC, r.run DESC
"""
_NEWEST_RETURNS = "SELECT t_ns, episode_return FROM episode_rows WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT ?"


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
    """Every run, newest first. Reads counters and the newest episodes, never the step rows.

    `now_ns` is the head host's wall clock, by default this host's.
    """
    heard_ns = (time.time_ns() if now_ns is None else now_ns) - LOST_NS
    with _reading(path) as connection:
        connection.execute("BEGIN")  # one moment for all the questions
        return [_run_row(connection, row) for row in connection.execute(_RUNS, (proxy_name(""), heard_ns)).fetchall()]


def query(path: Path, sql: str) -> tuple[tuple[str, ...], list[SqlRow]]:
    """Column names and all rows of one statement that reads; raises `StoreError` on any other."""
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
            rows = cursor.execute(sql).fetchall()
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
    *facts, streams = row
    names = ("run", "name", "state", "started_ns", "ended_ns", "seen_ns", "workers", "steps", "episodes", "drops")
    numbers = [int(number) for number in str(streams).split(",") if number]
    values = dict(zip(names, facts, strict=True)) | {"mean_return": _mean_return(connection, numbers)}
    return msgspec.convert(values, RunRow)


def _mean_return(connection: Connection, streams: list[int]) -> float | None:
    """Mean over the newest episodes of all streams together; a NaN return is NULL and not among them."""
    newest: list[tuple[int, float | None]] = []
    for stream_no in streams:
        key = stream_no << SEQ_BITS
        newest += connection.execute(_NEWEST_RETURNS, (key, key | SEQ_MASK, MEAN_EPISODES)).fetchall()
    newest.sort(key=lambda episode: episode[0], reverse=True)
    returns = [value for _, value in newest[:MEAN_EPISODES] if value is not None]
    return sum(returns) / len(returns) if returns else None
