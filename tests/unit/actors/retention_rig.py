"""What the tests of retention share: runs with rows of every kind, limits, and what is left of a stream."""

from typing import Any

from unit.actors.store_rig import VECTOR, ask, info, open_stream, put, put_steps

from runlane.actors.retention import Retention
from runlane.actors.store import Store
from runlane.config.settings import RetentionSettings
from runlane.transport.records import (
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Record,
    RunRecord,
    RunState,
)
from runlane.transport.testing import FakeClock

TABLES = ("step_rows", "vector_step_rows", "info_rows", "log_rows", "metric_rows", "episode_rows", "episode_rollups")
STEPS = 40
LAST_SEQ = 200


def records() -> dict[str, list[Record]]:
    """Some of each kind but step, with seqs behind those of the steps."""
    return {
        "episode": [EpisodeRecord(seq, seq, 0, seq, 1.0, 1, "terminated", 0.1) for seq in range(101, 121)],
        "metric": [MetricRecord(131, 1, "loss", 0.5, 1)],
        "log": [LogRecord(132, 1, "info", "hello")],
        "info": [InfoRecord(133, 1, 0, {"a": 1}), InfoRecord(134, 2, 0, {"a": 2})],
        "drop": [DropRecord(135, 1, "step", "outbox_full", 3)],
    }


def add_run(store: Store, number: int, ended_ns: int | None, run: str = "", state: RunState = "finished") -> int:
    """A run `R1`, `R2` … with rows of every kind; ended, unless told otherwise."""
    stream_no = open_stream(store, info(number, run or f"R{number}", worker=f"w{number}", started_ns=number))
    put_steps(store, stream_no, range(1, STEPS + 1))
    put_steps(store, stream_no, range(60, 65), VECTOR)
    for kind, found in records().items():
        put(store, stream_no, kind, *found)
    put(store, stream_no, "run", RunRecord(LAST_SEQ - 1, 1, "running", {}))
    if ended_ns is not None:
        put(store, stream_no, "run", RunRecord(LAST_SEQ, ended_ns, state, {}))
    store.begin()
    store.advance(stream_no, LAST_SEQ)
    store.commit()
    return stream_no


def retention(store: Store, clock: FakeClock | None = None, **limits: Any) -> Retention:
    return Retention(store, RetentionSettings(**limits), clock or FakeClock())


def work(of: Retention) -> int:
    """Let it do all there is to do now; returns in how many calls."""
    calls = 0
    of.do_work(is_idle=True)
    while of.has_work:
        of.do_work(is_idle=True)
        calls += 1
        assert calls < 10_000
    return calls


def left(store: Store, stream_no: int) -> dict[str, int]:
    """Rows of a stream by table."""
    found: dict[str, int] = {}
    for table in TABLES:
        key = {"info_rows": "step_id >> 40", "episode_rollups": "stream_no"}.get(table, "id >> 40")
        found[table] = ask(store, f"SELECT count(*) FROM {table} WHERE {key} = {stream_no}")[0][0]  # noqa: S608
    return found


FULL = dict(zip(TABLES, (STEPS, 5, 2, 1, 1, 20, 2), strict=True))
EMPTY = dict.fromkeys(TABLES, 0)
THINNED = EMPTY | {"episode_rows": 20, "episode_rollups": 2}


def grow(store: Store, stream_no: int, rows: int) -> None:
    put_steps(store, stream_no, range(1_000, 1_000 + rows), t_ns=range(1 << 60, (1 << 60) + rows), reward=0.1)
