"""The store keeps every record exactly once, whatever is resent, rolled back, killed or full."""

# Pragmas of the writing connection are asked and set:
# pyright: reportPrivateUsage=false

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlane.actors import store_file
from runlane.actors.sql import connect
from runlane.actors.store import Store
from runlane.actors.store_file import StoreFullError, file_system_of, open_readonly
from runlane.config.errors import StoreError, WireError
from runlane.config.settings import DbWriterSettings
from runlane.transport.columns import step_dtype
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.records import (
    IS_RESET,
    TERMINATED,
    TRUNCATED,
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    RunRecord,
    RunState,
)
from runlane.transport.wire import Section

SCHEMA = StepSchema(
    1,
    [
        StepField("seq", "<u8"),
        StepField("t_ns", "<i8"),
        StepField("episode", "<u4"),
        StepField("step", "<u4"),
        StepField("env_index", "<u4"),
        StepField("flags", "|u1"),
        StepField("reward", "<f8"),
        StepField("action", "<i8"),
    ],
)
VECTOR = StepSchema(
    2,
    [
        StepField("seq", "<u8"),
        StepField("t_ns", "<i8"),
        StepField("episode", "<u4", 2),
        StepField("step", "<u4", 2),
        StepField("flags", "|u1", 2),
        StepField("reward", "<f8", 2),
        StepField("action", "<f4", 4),
        StepField("observation", "<i8", 2),
    ],
    env_count=2,
)
NAN = float("nan")
INFINITY = float("inf")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "runlane.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path, DbWriterSettings())) as opened:
        yield opened


def info(stream: int = 1, run: str = "R", worker: str = "w", name: str = "", started_ns: int = 100) -> StreamInfo:
    return StreamInfo(
        stream=f"{stream:032x}", run=run, worker=worker, host="h", pid=stream, started_ns=started_ns, run_name=name
    )


def open_stream(store: Store, of: StreamInfo | None = None) -> int:
    store.begin()
    stream_no = store.open_stream(of or info())
    store.commit()
    return stream_no


def body(seqs: Any, schema: StepSchema = SCHEMA, **columns: Any) -> tuple[bytes, Section]:
    packed = np.zeros(len(seqs), step_dtype(schema))
    packed["seq"] = seqs
    for name, values in columns.items():
        packed[name] = values
    return packed.tobytes(), Section(1, schema.schema_id, len(seqs), packed.nbytes)


def put_steps(store: Store, stream_no: int, seqs: Any, schema: StepSchema = SCHEMA, **columns: Any) -> int:
    """One transaction with one step section."""
    store.begin()
    new = store.insert_steps(stream_no, schema, *body(seqs, schema, **columns))
    store.advance(stream_no, int(seqs[-1]))
    store.commit()
    return new


def put(store: Store, stream_no: int, kind: str, *records: Any) -> int:
    store.begin()
    new = store.insert_records(stream_no, kind, list(records))
    store.commit()
    return new


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """Ask on a connection of its own. Never with `sqlite3`: of two SQLite libraries in one process, one closing
    the file drops the locks of the other.
    """
    with closing(open_readonly(store.path)) as connection:
        return connection.execute(sql).fetchall()


def counters(store: Store) -> tuple[Any, ...]:
    return ask(store, "SELECT steps, episodes, first_seq, last_seq FROM streams")[0]


# ---- steps -----------------------------------------------------------------------------------------------


def test_a_step_reads_as_it_was_sent(store: Store) -> None:
    """`steps` shows names, not keys: run, worker, incarnation, stream, seq and the step's own columns."""
    stream_no = open_stream(store)
    columns: dict[str, Any] = {
        "t_ns": 1_500_000_000_123_456_789,
        "episode": 2,
        "step": 3,
        "env_index": 4,
        "reward": 0.5,
        "action": 6,
    }
    assert put_steps(store, stream_no, [9], flags=TRUNCATED, **columns) == 1
    found = ask(store, "SELECT run, worker, incarnation, stream, seq, env_index, episode, step FROM steps")
    assert found == [("R", "w", 1, f"{1:032x}", 9, 4, 2, 3)]
    found = ask(store, "SELECT time, action, reward, terminated, truncated, is_reset, actor, observation FROM steps")
    assert found == [("2017-07-14 02:40:00.123", 6, 0.5, 0, 1, 0, "policy", None)]


def test_a_batch_that_comes_again_changes_nothing(store: Store) -> None:
    """In the same transaction, a later one, or after the writer was restarted: one row per seq, counted once."""
    stream_no = open_stream(store)
    store.begin()
    assert store.insert_steps(stream_no, SCHEMA, *body(range(1, 257))) == 256
    assert store.insert_steps(stream_no, SCHEMA, *body(range(1, 257))) == 0
    store.commit()
    assert put_steps(store, stream_no, range(1, 257)) == 0
    store.close()
    with closing(Store(store.path, DbWriterSettings())) as again:
        assert put_steps(again, open_stream(again), range(1, 257)) == 0
        assert ask(again, "SELECT count(*), count(DISTINCT seq) FROM steps") == [(256, 256)]
        assert counters(again) == (256, 0, 1, 256)
        assert again.statistics().rows["step"] == 0
        assert again.statistics().resent_rows == 256


def test_a_batch_that_overlaps_adds_what_is_new(store: Store) -> None:
    """Rows before, between and after the stored ones are found, in whatever order batches come."""
    stream_no = open_stream(store)
    put_steps(store, stream_no, [10, 11, 12])
    assert put_steps(store, stream_no, [9, 10, 12, 13, 14], reward=1.0) == 3
    assert put_steps(store, stream_no, [1, 2, 3]) == 3
    assert [row[0] for row in ask(store, "SELECT seq FROM steps")] == [1, 2, 3, 9, 10, 11, 12, 13, 14]
    assert ask(store, "SELECT reward FROM steps WHERE seq = 10") == [(0.0,)]
    assert counters(store) == (9, 0, 1, 14)


@pytest.mark.parametrize("rows", [1, 49, 50, 51, 255])
def test_any_number_of_rows_is_committed(store: Store, rows: int) -> None:
    """Rows that fill no whole statement wait for the commit, and are in it."""
    stream_no = open_stream(store)
    put_steps(store, stream_no, range(1, rows + 1))
    assert ask(store, "SELECT count(*), max(seq) FROM steps") == [(rows, rows)]


def test_streams_and_schemas_share_a_transaction(store: Store) -> None:
    """Batches of several streams and layouts in turn end up each in its own stream."""
    first, second = open_stream(store), open_stream(store, info(2, run="S"))
    bare = StepSchema(1, SCHEMA.fields[:2])
    store.begin()
    for seq in range(1, 61):
        store.insert_steps(first, SCHEMA, *body([seq], action=seq))
        store.insert_steps(second, bare, *body([seq], bare))
    store.commit()
    assert ask(store, "SELECT run, count(*), sum(action = seq) FROM steps GROUP BY run") == [
        ("R", 60, 60),
        ("S", 60, None),
    ]


def test_nan_and_infinity_survive(store: Store) -> None:
    """NaN is NULL, both infinities are themselves, in steps, episodes and metrics."""
    stream_no = open_stream(store)
    put_steps(store, stream_no, [1, 2, 3, 4], reward=[NAN, INFINITY, -INFINITY, 1.5])
    assert [row[0] for row in ask(store, "SELECT reward FROM steps")] == [None, INFINITY, -INFINITY, 1.5]
    for seq, value in enumerate((NAN, INFINITY, -INFINITY), start=5):
        put(store, stream_no, "metric", MetricRecord(seq, 0, "m", value, 0))
        put(store, stream_no, "episode", EpisodeRecord(seq, 0, 0, seq, value, 1, "terminated", value))
    assert [row[0] for row in ask(store, "SELECT value FROM metrics")] == [None, INFINITY, -INFINITY]
    assert [row[0] for row in ask(store, "SELECT episode_return FROM episodes")] == [None, INFINITY, -INFINITY]


def test_a_reset_is_kept_but_is_no_step(store: Store) -> None:
    """`steps` and the counter leave resets out, `step_records` shows them."""
    stream_no = open_stream(store)
    put_steps(store, stream_no, [1, 2, 3], flags=[0, TERMINATED, IS_RESET])
    assert ask(store, "SELECT count(*) FROM steps") == [(2,)]
    assert ask(store, "SELECT seq, is_reset FROM step_records") == [(1, 0), (2, 0), (3, 1)]
    assert counters(store)[0] == 2


def test_a_vector_step_reads_as_one_row_per_environment(store: Store) -> None:
    """Key (stream, seq, env_index); values of the right type, as from a scalar environment."""
    stream_no = open_stream(store)
    columns = {"episode": [3, 4], "step": [5, 6], "reward": [INFINITY, NAN], "observation": [7, 8], "t_ns": 9}
    action = np.array([1.0, 2.0, 3.0, 4.0], "<f4")
    put_steps(store, stream_no, [1], VECTOR, action=action, flags=[TERMINATED, 0], **columns)
    put_steps(store, stream_no, [2], VECTOR, flags=[IS_RESET, 0])
    found = ask(store, "SELECT seq, env_index, episode, step, reward, terminated, observation, action FROM steps")
    assert found[0] == (1, 0, 3, 5, INFINITY, 1, 7, action[:2].tobytes())
    assert found[1] == (1, 1, 4, 6, None, 0, 8, action[2:].tobytes())
    assert [row[:2] for row in found[2:]] == [(2, 1)]
    assert counters(store) == (3, 0, 1, 2)
    assert put_steps(store, stream_no, [1, 2], VECTOR) == 0


def test_a_section_that_does_not_fit_is_refused_whole(store: Store) -> None:
    """`WireError`, nothing of it stored, and the transaction goes on with the next."""
    stream_no = open_stream(store)
    store.begin()
    with pytest.raises(WireError):
        store.insert_steps(stream_no, SCHEMA, bytes(10), Section(1, 1, 1, 10))
    with pytest.raises(WireError):
        store.insert_steps(stream_no, SCHEMA, *body([2, 1]))
    with pytest.raises(WireError):
        store.insert_records(stream_no, "metric", [MetricRecord(1, 0, "a", 1.0, 0), MetricRecord(2, 2**63, "b", 1, 0)])
    with pytest.raises(WireError):
        store.insert_records(stream_no, "log", [LogRecord(1 << 40, 0, "info", "far")])
    store.insert_steps(stream_no, SCHEMA, *body([3]))
    store.commit()
    assert ask(store, "SELECT seq FROM steps UNION ALL SELECT seq FROM metrics") == [(3,)]


# ---- other records ---------------------------------------------------------------------------------------


def test_every_kind_is_stored_once(store: Store) -> None:
    """A record of any kind, sent three times, is one row, and is counted as new once."""
    stream_no = open_stream(store)
    records = {
        "episode": EpisodeRecord(1, 10, 0, 4, 21.5, 30, "truncated", 0.25, {"lives": 3}),
        "metric": MetricRecord(2, 11, "loss", 0.5, 7),
        "log": LogRecord(3, 12, "warning", "entropy is low"),
        "run": RunRecord(4, 13, "running", {"seed": 1}),
        "drop": DropRecord(5, 14, "step", "outbox_full", 17),
        "info": InfoRecord(6, 1, 0, {"lives": 3}),
    }
    for kind, record in records.items():
        assert [put(store, stream_no, kind, record) for _ in range(3)] == [1, 0, 0]
    wanted = {
        "SELECT seq, env_index, episode, episode_return, length, outcome, duration_s, t_ns, info FROM episodes": (
            (1, 0, 4, 21.5, 30, "truncated", 0.25, 10, '{"lives":3}')
        ),
        "SELECT seq, name, step, value, t_ns FROM metrics": (2, "loss", 7, 0.5, 11),
        "SELECT seq, level, text FROM logs": (3, "warning", "entropy is low"),
        "SELECT seq, state, facts FROM run_states": (4, "running", '{"seed":1}'),
        "SELECT first_seq, last_seq, noted_by, kind, reason, records FROM drops": (
            (5, 5, "source", "step", "outbox_full", 17)
        ),
        "SELECT seq, step_seq, env_index, info FROM infos": (6, 1, 0, '{"lives":3}'),
    }
    for sql, row in wanted.items():
        assert ask(store, sql) == [row]
    assert counters(store) == (0, 1, 1, 0)
    assert store.statistics().resent_rows == 12


def test_numpy_scalars_become_numbers(store: Store) -> None:
    """np.int64, np.float32 and np.bool_ are stored as numbers and JSON, never as BLOBs."""
    stream_no = open_stream(store)
    metric: Any = MetricRecord(1, np.int64(2), "m", np.float32(0.5), np.int64(3))  # type: ignore[arg-type]
    put(store, stream_no, "metric", metric)
    assert ask(store, "SELECT t_ns, value, step, typeof(value) FROM metrics") == [(2, 0.5, 3, "real")]
    values = {"i": np.int64(1), "f": np.float32(2.5), "b": np.bool_(True), "a": np.arange(2), "d": np.float64(NAN)}
    put(store, stream_no, "info", InfoRecord(2, 1, 0, values))
    assert json.loads(ask(store, "SELECT info FROM infos")[0][0]) == {
        "i": 1,
        "f": 2.5,
        "b": True,
        "a": [0, 1],
        "d": None,
    }


def test_info_may_hold_anything_a_map_can(store: Store) -> None:
    """Infinities, big integers, nesting and text of any script are read back by SQLite's own JSON."""
    stream_no = open_stream(store)
    put(store, stream_no, "info", InfoRecord(1, 1, 0, {"up": INFINITY, "big": 2**70, "deep": {"ß": [None, -INFINITY]}}))
    assert ask(store, "SELECT info ->> '$.up', info ->> '$.big', info ->> '$.deep.ß[1]' FROM infos") == [
        (INFINITY, str(2**70), -INFINITY)
    ]


def test_info_stands_beside_its_step(store: Store) -> None:
    """`steps.info` finds the step by seq and environment, scalar or vector; a second record adds to the first."""
    stream_no = open_stream(store)
    put_steps(store, stream_no, [1, 2], env_index=[3, 0])
    put_steps(store, stream_no, [3], VECTOR)
    more = InfoRecord(6, 3, 1, {"b": 2})
    put(store, stream_no, "info", InfoRecord(4, 1, 3, {"lives": 1}), InfoRecord(5, 3, 1, {"a": 1}), more)
    assert put(store, stream_no, "info", more) == 0
    found = ask(store, "SELECT seq, env_index, info FROM steps")
    assert found == [(1, 3, '{"lives":1}'), (2, 0, None), (3, 0, None), (3, 1, '{"a":1,"b":2}')]


def test_info_costs_nothing_where_it_is_not_asked_for(store: Store) -> None:
    """SQLite leaves the join with `info_rows` out of a query that does not name `info`."""
    plan = "EXPLAIN QUERY PLAN SELECT {} FROM steps WHERE run = 'R'"
    assert not any("info_rows" in row[3] or " i " in row[3] for row in ask(store, plan.format("sum(reward)")))
    assert any(" i " in row[3] for row in ask(store, plan.format("count(info)")))


def test_one_run_is_found_by_its_keys(store: Store) -> None:
    """A query for one run reads that run's range of keys, not the table."""
    for view in ("steps", "episodes", "metrics", "logs"):
        plan = ask(store, f"EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE run = 'R'")  # noqa: S608
        assert not {"SCAN r", "SCAN v", "SCAN s"} & {row[3] for row in plan}


# ---- streams and runs ------------------------------------------------------------------------------------


def test_a_stream_keeps_its_number_and_its_schemas(store: Store) -> None:
    """Hellos come again and out of order; schemas are added, never taken away."""
    store.begin()
    numbers = [
        store.open_stream(
            StreamInfo(stream="a" * 32, run="R", worker="w", host="h", pid=1, started_ns=1, schemas=schemas)
        )
        for schemas in ([SCHEMA], [SCHEMA, VECTOR], [])
    ]
    store.commit()
    assert len(set(numbers)) == 1
    schemas = json.loads(ask(store, "SELECT schemas FROM streams")[0][0])
    assert [(schema["schema_id"], schema["env_count"]) for schema in schemas] == [(1, 0), (2, 2)]


def test_incarnations_count_per_worker(store: Store) -> None:
    """Each new stream of a worker in a run is its next incarnation; others are not counted in."""
    for number, (run, worker) in enumerate([("R", "a"), ("R", "b"), ("R", "a"), ("S", "a")], start=1):
        open_stream(store, info(number, run, worker))
    assert ask(store, "SELECT run, worker, incarnation FROM streams ORDER BY stream_no") == [
        ("R", "a", 1),
        ("R", "b", 1),
        ("R", "a", 2),
        ("S", "a", 1),
    ]


def test_the_watermark_is_committed_with_its_records(store: Store) -> None:
    """It is seen inside the transaction, gone after a rollback, kept after a commit, and never goes back."""
    stream_no = open_stream(store)
    store.begin()
    store.advance(stream_no, 5)
    assert store.watermark(stream_no) == 5
    store.rollback()
    assert store.watermark(stream_no) == 0
    put_steps(store, stream_no, range(1, 8))
    put_steps(store, stream_no, range(1, 4))
    assert store.watermark(stream_no) == 7


def test_what_the_writer_missed_is_noted_once(store: Store) -> None:
    """A gap and two rejected kinds of one batch are three rows, however often they are noted."""
    stream_no = open_stream(store)
    for _ in range(2):
        store.begin()
        store.note_gap(stream_no, 1, 9, 50)
        store.note_reject(stream_no, 10, 19, 51, "step", "rows: 3 bytes", 8)
        store.note_reject(stream_no, 10, 19, 51, "info", "msgpack: no", 2)
        store.commit()
    found = ask(store, "SELECT noted_by, first_seq, last_seq, kind, reason, records FROM drops ORDER BY records")
    assert found == [
        ("db_writer", 10, 19, "info", "msgpack: no", 2),
        ("db_writer", 10, 19, "step", "rows: 3 bytes", 8),
        ("db_writer", 1, 9, "", "gap", 9),
    ]


def say(store: Store, stream_no: int, seq: int, state: RunState, **facts: Any) -> None:
    put(store, stream_no, "run", RunRecord(seq, seq * 10, state, facts))


def run_of(store: Store, columns: str = "state") -> tuple[Any, ...]:
    return ask(store, f"SELECT {columns} FROM runs WHERE run = 'R'")[0]  # noqa: S608


def test_a_run_tells_its_life(store: Store) -> None:
    """Made by the first stream, filled by facts, ended by an end record; all facts stay together."""
    stream_no = open_stream(store, info(name="cartpole"))
    assert run_of(store, "name, state, started_ns, host, pid") == ("cartpole", "running", 100, "h", 1)
    say(store, stream_no, 1, "running", command="python train.py", config={"lr": 0.1}, host="h")
    say(store, stream_no, 2, "failed", error="ValueError: x", exit_code=1)
    found = run_of(store, "state, ended_ns, exit_code, error, command, config ->> '$.lr'")
    assert found == ("failed", 20, 1, "ValueError: x", "python train.py", 0.1)
    facts = {"command": "python train.py", "config": {"lr": 0.1}, "host": "h", "error": "ValueError: x", "exit_code": 1}
    assert json.loads(run_of(store, "facts")[0]) == facts


def test_a_late_running_does_not_undo_an_end(store: Store) -> None:
    """Neither the same record again nor another `running` of a stream that ended changes the state."""
    stream_no = open_stream(store)
    say(store, stream_no, 1, "running")
    say(store, stream_no, 3, "finished", exit_code=0)
    say(store, stream_no, 1, "running")
    say(store, stream_no, 2, "running")
    assert run_of(store, "state, exit_code, ended_ns") == ("finished", 0, 30)


def test_a_new_stream_opens_an_ended_run_again(store: Store) -> None:
    """A resume is running, without the old exit code; its start is still the first one's."""
    first = open_stream(store)
    say(store, first, 1, "running")
    say(store, first, 2, "killed", exit_code=-9)
    second = open_stream(store, info(2, started_ns=900))
    say(store, second, 1, "running")
    assert run_of(store, "state, exit_code, ended_ns, started_ns, pid") == ("running", None, None, 100, 2)
    assert ask(store, "SELECT incarnation, state FROM streams") == [(1, "killed"), (2, "running")]


def test_a_run_is_finished_when_its_last_stream_is(store: Store) -> None:
    """With two workers the first to finish does not end the run."""
    first, second = open_stream(store), open_stream(store, info(2, worker="v"))
    for stream_no in (first, second):
        say(store, stream_no, 1, "running")
    say(store, first, 2, "finished")
    assert run_of(store) == ("running",)
    say(store, second, 3, "finished")
    assert run_of(store, "state, ended_ns") == ("finished", 30)


@pytest.mark.parametrize(
    ("said", "seen", "expected"),
    [
        (None, "finished", "finished"),
        (None, "killed", "killed"),
        ("finished", "finished", "finished"),
        ("finished", "failed", "failed"),
        ("failed", "finished", "failed"),
        ("stopped", "finished", "stopped"),
        ("failed", "failed", "failed"),
    ],
)
def test_a_proxy_ends_the_streams_of_its_worker(
    store: Store, said: RunState | None, seen: RunState, expected: str
) -> None:
    """What the proxy saw ends a worker that said nothing, and hides nothing bad that the worker said."""
    stream_no = open_stream(store)
    say(store, stream_no, 1, "running")
    if said:
        say(store, stream_no, 2, said, error="E" if said == "failed" else "")
    proxy = open_stream(store, info(2, worker="proxy-w"))
    say(store, proxy, 1, seen, exit_code=3)
    assert run_of(store, "state, exit_code, error") == (expected, 3, "E" if said == "failed" else None)
    assert ask(store, "SELECT count(*) FROM streams WHERE state IS NULL OR state = 'running'") == [(0,)]


# ---- transactions ----------------------------------------------------------------------------------------


def test_a_rollback_leaves_no_trace(store: Store) -> None:
    """Rows, counters, streams and figures are as before, and the same records are new when they come again."""
    stream_no = open_stream(store)
    put_steps(store, stream_no, range(1, 11))
    before = store.statistics().rows
    store.begin()
    store.insert_steps(stream_no, SCHEMA, *body(range(11, 100)))
    store.insert_records(stream_no, "episode", [EpisodeRecord(100, 0, 0, 0, 1.0, 1, "terminated", 1.0)])
    store.advance(stream_no, 100)
    store.rollback()
    assert counters(store) == (10, 0, 1, 10)
    assert store.statistics().rows == before
    assert put_steps(store, stream_no, range(5, 100)) == 89
    assert counters(store) == (99, 0, 1, 99)


def test_nothing_is_taken_outside_a_transaction(store: Store) -> None:
    """Else a record would be kept without its watermark."""
    stream_no = open_stream(store)
    calls: list[Callable[[], object]] = [
        lambda: store.open_stream(info(2)),
        lambda: store.insert_steps(stream_no, SCHEMA, *body([1])),
        lambda: store.insert_records(stream_no, "log", [LogRecord(1, 0, "info", "x")]),
        lambda: store.advance(stream_no, 1),
        lambda: store.note_gap(stream_no, 1, 2, 3),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="no transaction"):
            call()


def test_an_unknown_stream_number_cannot_be_committed(store: Store) -> None:
    """Records without a stream could never be read, so the commit fails and all is rolled back."""
    store.begin()
    store.insert_steps(7, SCHEMA, *body([1]))
    with pytest.raises(StoreError, match="no stream number 7"):
        store.commit()
    store.rollback()
    assert ask(store, "SELECT count(*) FROM step_rows") == [(0,)]


def test_a_full_disk_costs_time_but_no_record(store: Store) -> None:
    """`StoreFullError`, a rollback, and once there is room the same batches are stored, each once."""
    stream_no = open_stream(store)
    pages = store._connection.pragma("page_count")
    store._connection.pragma("max_page_count", pages + 2)
    store.begin()
    with pytest.raises(StoreFullError, match="full") as caught:
        store.insert_steps(stream_no, SCHEMA, *body(range(1, 20_000)))
    assert isinstance(caught.value.__cause__, apsw.FullError)
    store.rollback()
    store._connection.pragma("max_page_count", 1 << 30)
    assert put_steps(store, stream_no, range(1, 257)) == 256
    assert counters(store) == (256, 0, 1, 256)


_KILLED_WRITER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import SCHEMA, DbWriterSettings, Store, body, open_stream, put_steps
store = Store(Path(sys.argv[1]), DbWriterSettings())
stream_no = open_stream(store)
put_steps(store, stream_no, range(1, 1001))
store.begin()
for first in range(1001, 200_001, 1000):
    store.insert_steps(stream_no, SCHEMA, *body(range(first, first + 1000)))
store.advance(stream_no, 200_000)
os.kill(os.getpid(), {signal})
"""


def test_a_writer_killed_in_a_transaction_leaves_what_was_committed(path: Path) -> None:
    """After SIGKILL with 199,000 rows under way: the committed 1,000, the watermark, and a sound file."""
    code = _KILLED_WRITER.format(signal=int(signal.SIGKILL))
    arguments = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    killed = subprocess.run(arguments, check=False, capture_output=True, env=os.environ | {"PYTHONPATH": ""})
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with closing(open_readonly(path)) as reader:  # before any writer repairs it
        assert reader.execute("SELECT count(*), max(seq) FROM steps").fetchall() == [(1000, 1000)]
    with closing(Store(path, DbWriterSettings())) as store:
        assert store.watermark(1) == 1000
        assert put_steps(store, open_stream(store), range(901, 1201)) == 200
        assert counters(store) == (1200, 0, 1, 1200)
        assert ask(store, "PRAGMA integrity_check") == [("ok",)]


# ---- the file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("synchronous", "number"), [("FULL", 2), ("NORMAL", 1)])
def test_the_file_is_made_as_the_settings_say(path: Path, synchronous: Any, number: int) -> None:
    """Directories are made; write-ahead log, durability and log limit are set; the version is in the file."""
    with closing(Store(path, DbWriterSettings(synchronous=synchronous, wal_limit_bytes=2 << 20))) as store:
        pragma = store._connection.pragma
        assert (pragma("journal_mode"), pragma("synchronous"), pragma("journal_size_limit")) == ("wal", number, 2 << 20)
        assert (pragma("application_id"), pragma("user_version")) == (0x52554E4C, 1)


def test_closing_leaves_one_file(store: Store) -> None:
    """The log is moved into the database and the lock removed; what was not committed is rolled back."""
    stream_no = open_stream(store)
    store.begin()
    store.insert_steps(stream_no, SCHEMA, *body([1]))
    store.close()
    assert [file.name for file in store.path.parent.iterdir()] == [store.path.name]
    assert ask(store, "SELECT count(*) FROM steps") == [(0,)]


def test_a_second_writer_is_refused(store: Store) -> None:
    """Two writers would each believe their own counters."""
    with pytest.raises(StoreError, match="another writer"):
        Store(store.path, DbWriterSettings())


def _foreign(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE bank (account)")


def _version(version: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with closing(Store(path, DbWriterSettings())):
            pass
        with closing(connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")

    return make


def _text(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (_foreign, "another program"),
        (_version(2), "schema version 2, this runlane knows 1; upgrade runlane"),
        (_version(0), "read it with the runlane that wrote it"),
        (_text, "not a database"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_untouched(path: Path, make: Callable[[Path], None], part: str) -> None:
    """`StoreError` names the file and the remedy; not one byte is changed."""
    path.parent.mkdir()
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=part) as caught:
        Store(path, DbWriterSettings())
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["nfs4", "9p", "fuse.sshfs", "cifs"])
def test_a_network_file_system_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A write-ahead log shared between hosts corrupts, so it is refused before the file is made."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {path.parent} {kind} rw 0 0\n")
    monkeypatch.setattr(store_file, "_PROC_MOUNTS", mounts)
    with pytest.raises(StoreError, match=f"lies on {kind}.*local disk"):
        Store(path, DbWriterSettings())
    assert not path.exists()


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    """The longest mount point above the path counts, of two alike the later, with spaces decoded."""
    mounts = "a / ext4 rw\nb /mnt nfs rw\nc /mnt/my\\040disk xfs rw\nd /mnt nfs4 rw\nshort\n"
    assert file_system_of(Path("/mnt/data/x.db"), mounts) == "nfs4"
    assert file_system_of(Path("/mnt/my disk/x.db"), mounts) == "xfs"
    assert file_system_of(Path("/mntx/x.db"), mounts) == "ext4"


def test_the_log_stays_bounded_and_a_reader_that_holds_it_is_counted(path: Path) -> None:
    """Above the limit the log is cut to nothing; while a reader keeps a transaction it cannot be, and we say so."""
    limit = 1 << 20
    with closing(Store(path, DbWriterSettings(synchronous="NORMAL", wal_limit_bytes=limit))) as store:
        stream_no = open_stream(store)

        def write(first: int) -> None:
            for start in range(first, first + 50_000, 5_000):
                put_steps(store, stream_no, range(start, start + 5_000), reward=0.1, t_ns=1 << 60)

        write(1)
        assert store.statistics().checkpoints > 0
        assert store.statistics().wal_bytes < 2 * limit
        with closing(open_readonly(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM streams").fetchall()
            write(50_001)
            assert store.statistics().checkpoints_blocked > 0
            assert store.statistics().wal_bytes > 2 * limit
        write(100_001)
        assert store.statistics().wal_bytes < 2 * limit
        assert ask(store, "SELECT count(*), max(seq) FROM steps") == [(150_000, 150_000)]


# ---- any history -----------------------------------------------------------------------------------------

ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["scalar", "vector"]), st.integers(1, 2), st.sets(st.integers(1, 40), min_size=1)),
    st.tuples(st.just("episode"), st.integers(1, 2), st.sets(st.integers(41, 60), min_size=1)),
    st.tuples(st.sampled_from(["commit", "rollback", "restart"]), st.just(0), st.just(set[int]())),
)


@settings(deadline=None, max_examples=40)
@given(history=st.lists(ACTIONS, max_size=25))
def test_any_history_of_resends_rollbacks_and_restarts_stores_each_record_once(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int, set[int]]]
) -> None:
    """What was committed first stays, and the counters are what counting the rows gives."""
    store = Store(tmp_path_factory.mktemp("model") / "runlane.db", DbWriterSettings(synchronous="NORMAL"))
    numbers = {number: open_stream(store, info(number)) for number in (1, 2)}
    committed: dict[tuple[int, int], str] = {}
    pending: dict[tuple[int, int], str] = {}
    store.begin()
    for action, number, seqs in [*history, ("commit", 0, set[int]())]:
        if action in ("commit", "rollback", "restart"):
            if action == "commit":
                store.commit()
                committed |= pending
            elif action == "rollback":
                store.rollback()
            else:
                store.close()
                store = Store(store.path, DbWriterSettings(synchronous="NORMAL"))
            pending = {}
            store.begin()
            continue
        fresh = [seq for seq in seqs if (number, seq) not in committed and (number, seq) not in pending]
        if action == "episode":
            records = [EpisodeRecord(seq, 0, 0, seq, 1.0, 1, "terminated", 1.0) for seq in seqs]
            new = store.insert_records(numbers[number], action, [*records])
        else:
            schema = VECTOR if action == "vector" else SCHEMA
            new = store.insert_steps(numbers[number], schema, *body(sorted(seqs), schema))
        assert new == len(fresh)
        pending |= {(number, seq): action for seq in fresh}
    store.rollback()
    weights = {"scalar": 1, "vector": 2, "episode": 0}
    for number, stream_no in numbers.items():
        kinds = [kind for (owner, _), kind in committed.items() if owner == number]
        counted = sum(weights[kind] for kind in kinds), kinds.count("episode")
        assert ask(store, f"SELECT steps, episodes FROM streams WHERE stream_no = {stream_no}") == [counted]  # noqa: S608
        where = f"WHERE stream = '{number:032x}'"
        tables = f"SELECT (SELECT count(*) FROM steps {where}), (SELECT count(*) FROM episodes {where})"  # noqa: S608
        assert ask(store, tables) == [counted]
    store.close()
