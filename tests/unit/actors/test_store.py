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
from unit.actors.store_rig import SCHEMA, VECTOR, ask, body, counters, info, open_stream, put, put_steps

from runlane.actors.store import Store
from runlane.actors.store_file import StoreFullError, open_readonly
from runlane.config.errors import StoreError, WireError
from runlane.config.settings import DbWriterSettings
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.records import (
    ABSENT,
    IS_RESET,
    TERMINATED,
    TRUNCATED,
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    RunRecord,
)
from runlane.transport.wire import Section

NAN = float("nan")
INFINITY = float("inf")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "runlane.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path, DbWriterSettings())) as opened:
        yield opened


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


def test_the_observations_of_an_episode_are_one_more_than_its_steps(store: Store) -> None:
    """A reset's row has the one that the episode before ended with; its place is behind the last step."""
    stream_no = open_stream(store)
    observed = StepSchema(3, [*SCHEMA.fields, StepField("observation", "<i8")])
    columns = {"episode": [1, 1, 2, 2, 3], "step": [1, 2, 0, 1, 0], "flags": [0, TERMINATED, IS_RESET, 0, IS_RESET]}
    put(store, stream_no, "episode", EpisodeRecord(3, 0, 0, 1, 1.0, 2, "terminated", 1.0))
    put(store, stream_no, "episode", EpisodeRecord(6, 0, 0, 2, 1.0, 1, "abandoned", 1.0))
    put_steps(store, stream_no, [1, 2, 4, 5, 7], observed, observation=[10, 11, 12, 20, 21], **columns)
    put_steps(store, stream_no, [8])  # a row without one
    found = ask(store, "SELECT seq, episode, step, observation, is_final FROM observations ORDER BY seq")
    assert found == [(1, 1, 1, 10, 0), (2, 1, 2, 11, 0), (4, 1, 3, 12, 1), (5, 2, 1, 20, 0), (7, 2, 2, 21, 1)]
    assert ask(store, "SELECT count(*) FROM steps") == [(4,)]


def test_a_row_of_several_environments_may_be_about_some_of_them(store: Store) -> None:
    """The others are in no view, and counted nowhere; an episode whose record was lost has no length."""
    stream_no = open_stream(store)
    put_steps(store, stream_no, [1], VECTOR, episode=[1, 1], step=[1, 1], flags=[TERMINATED, 0], observation=[10, 20])
    put(store, stream_no, "episode", EpisodeRecord(2, 0, 0, 1, 1.0, 1, "terminated", 1.0))
    put_steps(store, stream_no, [3], VECTOR, episode=[2, 1], flags=[IS_RESET, IS_RESET | ABSENT], observation=[11, 0])
    put_steps(store, stream_no, [4], VECTOR, episode=[2, 1], step=[1, 2], flags=[0, TERMINATED], observation=[30, 21])
    put_steps(store, stream_no, [5], VECTOR, episode=[2, 2], flags=[IS_RESET | ABSENT, IS_RESET], observation=[0, 22])
    found = ask(store, "SELECT env_index, episode, step, observation FROM observations ORDER BY env_index, seq")
    assert found == [(0, 1, 1, 10), (0, 1, 2, 11), (0, 2, 1, 30), (1, 1, 1, 20), (1, 1, 2, 21), (1, 1, None, 22)]
    assert ask(store, "SELECT seq, env_index FROM step_records WHERE is_reset") == [(3, 0), (5, 1)]
    assert counters(store)[0] == 4


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


# ---- streams ------------------------------------------------------------------------------------


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
from runlane.actors.store import Store
from runlane.config.settings import DbWriterSettings
from unit.actors.store_rig import SCHEMA, body, open_stream, put_steps
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
    arguments = [sys.executable, "-c", code, str(path), str(Path(__file__).parents[2])]
    killed = subprocess.run(arguments, check=False, capture_output=True, env=os.environ | {"PYTHONPATH": ""})
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with closing(open_readonly(path)) as reader:  # before any writer repairs it
        assert reader.execute("SELECT count(*), max(seq) FROM steps").fetchall() == [(1000, 1000)]
    with closing(Store(path, DbWriterSettings())) as store:
        assert store.watermark(1) == 1000
        assert put_steps(store, open_stream(store), range(901, 1201)) == 200
        assert counters(store) == (1200, 0, 1, 1200)
        assert ask(store, "PRAGMA integrity_check") == [("ok",)]


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
