"""Retention takes what the settings name out of ended runs, in small pieces, on record, for good; and nothing else."""

# States and pages are set and asked on the writing connection:
# pyright: reportPrivateUsage=false

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from unit.actors.retention_rig import (
    EMPTY,
    FULL,
    LAST_SEQ,
    STEPS,
    THINNED,
    add_run,
    grow,
    left,
    records,
    retention,
    work,
)
from unit.actors.store_rig import VECTOR, ask, counters, info, open_stream, put, put_steps

from runlane.actors.retention import CHECK_S, DAY_NS
from runlane.actors.store import Store
from runlane.actors.store_reader import list_runs
from runlane.config.settings import DbWriterSettings
from runlane.transport.records import EpisodeRecord, RunRecord
from runlane.transport.testing import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runlane.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path, DbWriterSettings(synchronous="NORMAL"))) as opened:
        yield opened


# ---- which rows --------------------------------------------------------------------------------------------


def test_without_a_limit_nothing_goes(store: Store) -> None:
    """Everything is kept, and nobody looks."""
    add_run(store, 1, 10)
    assert work(retention(store)) == 0
    assert left(store, 1) == FULL


def test_the_newest_ended_runs_are_kept(store: Store) -> None:
    """By their ends, not their beginnings; of older ones nothing is left but what was said about them."""
    for number, ended_ns in ((1, 50), (2, 10), (3, 40), (4, 20)):
        add_run(store, number, ended_ns)
    work(retention(store, max_runs=2))
    assert [left(store, number) for number in (1, 2, 3, 4)] == [FULL, EMPTY, FULL, EMPTY]
    assert [row.run for row in list_runs(store.path)] == ["R3", "R1"]
    assert ask(store, "SELECT run FROM removed_runs ORDER BY run") == [("R2",), ("R4",)]
    assert ask(store, "SELECT count(*) FROM runs") == [(4,)]
    assert ask(store, "SELECT count(*) FROM drops WHERE run = 'R2'") == [(1,)]
    assert ask(store, "SELECT state FROM run_states WHERE run = 'R2'") == [("running",), ("finished",)]


@pytest.mark.parametrize("state", ["running", "stalled"])
def test_a_run_that_has_not_ended_is_never_touched(store: Store, state: str) -> None:
    """Whatever the limits; and it does not count among the ended ones that are kept."""
    add_run(store, 1, None)
    store.begin()
    store._connection.execute("UPDATE runs SET state = ?", (state,))
    store._connection.execute("UPDATE streams SET state = ?", (state,))
    store.commit()
    add_run(store, 2, 5)
    clock = FakeClock()
    for limits in ({"max_runs": 1}, {"max_age_days": 1e-9}, {"max_bytes": 1 << 20}):
        work(retention(store, clock, **limits))
    assert left(store, 1) == FULL


def test_a_failed_run_whose_other_worker_goes_on_is_not_touched(store: Store) -> None:
    """It ends at once by name, but there are rows still to come."""
    add_run(store, 1, None, run="R")
    add_run(store, 2, 10, run="R", state="failed")
    assert ask(store, "SELECT state FROM runs") == [("failed",)]
    add_run(store, 3, 20)
    work(retention(store, max_runs=1))
    assert left(store, 1) == left(store, 2) == FULL
    put(store, 1, "run", RunRecord(LAST_SEQ + 1, 15, "finished", {}))
    work(retention(store, max_runs=1))
    assert left(store, 1) == left(store, 2) == EMPTY


def test_a_proxy_that_reported_only_about_others_does_not_keep_a_run(store: Store) -> None:
    """Its stream has no state of its own, and never will."""
    add_run(store, 1, 10, run="R")
    open_stream(store, info(2, "R", worker="proxy-w1"))
    add_run(store, 3, 20)
    work(retention(store, max_runs=1))
    assert left(store, 1) == EMPTY
    assert [row.run for row in list_runs(store.path)] == ["R3"]


def test_age_takes_the_classes_of_old_runs(store: Store) -> None:
    """Episodes stay, and so does what ended since."""
    clock = FakeClock()
    add_run(store, 1, clock.wall_ns() - 3 * DAY_NS)
    add_run(store, 2, clock.wall_ns() - 1 * DAY_NS)
    work(retention(store, clock, max_age_days=2))
    assert (left(store, 1), left(store, 2)) == (THINNED, FULL)
    assert [row.run for row in list_runs(store.path)] == ["R2", "R1"]
    assert list_runs(store.path)[1].mean_return == 1.0


def test_only_the_classes_named_go(store: Store) -> None:
    """And in the order in which they are named."""
    clock = FakeClock()
    add_run(store, 1, 1)
    work(retention(store, clock, max_age_days=1, classes=["log", "info"]))
    assert left(store, 1) == FULL | {"log_rows": 0, "info_rows": 0}


def test_size_takes_steps_of_the_oldest_run_first_and_stops_in_time(store: Store) -> None:
    """What was begun is finished; the next run keeps its steps once there is room."""
    for number in (1, 2, 3):
        add_run(store, number, number)
        grow(store, number, 20_000)
    used = store.removals.used_bytes()
    work(retention(store, max_bytes=used - 200_000))
    assert [left(store, number)["step_rows"] for number in (1, 2, 3)] == [0, STEPS + 20_000, STEPS + 20_000]
    assert left(store, 1) == FULL | {"step_rows": 0, "vector_step_rows": 0}
    assert store.removals.used_bytes() < used - 200_000


def test_size_takes_whole_runs_when_no_class_is_left(store: Store) -> None:
    """The oldest one, and only as many as are needed."""
    for number in (1, 2):
        add_run(store, number, number)
        put(
            store,
            number,
            "episode",
            *(EpisodeRecord(seq, 1, 0, 1, 1.0, 1, "terminated", 0.1) for seq in range(1000, 16000)),
        )
        store.begin()
        store.advance(number, 16_000)
        store.commit()
    work(retention(store, max_bytes=store.removals.used_bytes() * 2 // 3))
    assert (left(store, 1), left(store, 2)["episode_rows"]) == (EMPTY, 15_020)
    assert ask(store, "SELECT run, reason, sum(rows) FROM retention WHERE class = 'episode'") == [
        ("R1", "max_bytes", 15_020)
    ]


def test_a_database_that_cannot_shrink_says_so_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Loudly, because the budget is not kept; again only after it was."""
    add_run(store, 1, None)
    grow(store, 1, 40_000)
    clock = FakeClock()
    with caplog.at_level(logging.INFO, "runlane"):
        over = retention(store, clock, max_bytes=1 << 20)
        for _ in range(3):
            work(over)
            clock.move(10 * CHECK_S)
    assert [line.split()[0] for line in caplog.messages] == ["DURABLE_OVER_BUDGET"]


# ---- the account -------------------------------------------------------------------------------------------


def test_what_is_removed_is_counted_and_the_counters_stay(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Rows by stream, class and reason; `streams` still says what was stored."""
    add_run(store, 1, 10)
    before = counters(store)
    clock = FakeClock()
    with caplog.at_level(logging.INFO, "runlane"):
        done = retention(store, clock, max_age_days=1)
        work(done)
    found = ask(store, "SELECT run, worker, class, reason, last_seq, rows, t_ns FROM retention")
    kept = ("max_age_days", LAST_SEQ)
    expected = {"info": 2, "log": 1, "metric": 1, "step": STEPS + 5}
    assert found == [("R1", "w1", name, *kept, rows, clock.wall_ns()) for name, rows in expected.items()]
    assert counters(store) == before
    assert done.removed_rows == sum(expected.values())
    shown = [message for message in caplog.messages if message.startswith("DURABLE_PRUNED")]
    assert shown[0] == f"DURABLE_PRUNED run=R1 record_class=step rows={STEPS + 5} reason=max_age_days"
    assert len(shown) == len(expected)


def test_what_was_removed_does_not_come_back(store: Store, path: Path) -> None:
    """A resend of any kind is refused by its seq, from memory, and after the writer was opened anew."""
    stream_no = add_run(store, 1, 10)
    work(retention(store, max_runs=1))
    add_run(store, 2, 20)
    work(retention(store, max_runs=1))
    before = counters(store)

    def resend(to: Store) -> None:
        assert put_steps(to, stream_no, range(1, STEPS + 1)) == 0
        assert put_steps(to, stream_no, range(60, 65), VECTOR) == 0
        for kind, found in records().items():
            assert put(to, stream_no, kind, *found) == 0
        assert left(to, stream_no) == EMPTY
        assert counters(to) == before

    resend(store)
    store.close()
    with closing(Store(path, DbWriterSettings())) as again:
        resend(again)
        assert again.statistics().resent_rows > STEPS


def test_a_batch_that_straddles_keeps_what_is_new(store: Store) -> None:
    """A proxy may cut its batches anew: of one that begins before the watermark the rest is stored."""
    stream_no = add_run(store, 1, 10)
    work(retention(store, FakeClock(), max_age_days=1))
    assert put_steps(store, stream_no, range(LAST_SEQ - 10, LAST_SEQ + 11)) == 10
    assert left(store, stream_no)["step_rows"] == 10


def test_late_records_bring_their_run_back_and_are_counted_again(store: Store) -> None:
    """Rows above the watermark are stored as ever; the next look takes them, and adds to the account."""
    stream_no = add_run(store, 1, 10)
    add_run(store, 2, 20)
    work(retention(store, max_runs=1))
    put_steps(store, stream_no, range(LAST_SEQ + 1, LAST_SEQ + 4))
    late = [EpisodeRecord(seq, 1, 0, seq, 1.0, 1, "terminated", 0.1) for seq in range(LAST_SEQ + 10, LAST_SEQ + 30)]
    put(store, stream_no, "episode", *late)
    store.begin()
    store.advance(stream_no, LAST_SEQ + 30)
    store.commit()
    assert [row.run for row in list_runs(store.path)] == ["R2", "R1"]
    work(retention(store, max_runs=1))
    assert left(store, stream_no) == EMPTY
    assert ask(
        store, "SELECT class, rows, last_seq FROM retention WHERE run = 'R1' AND class IN ('episode', 'step')"
    ) == [
        ("episode", 40, LAST_SEQ + 30),
        ("step", STEPS + 5 + 3, LAST_SEQ + 30),
    ]


def test_a_resumed_run_is_listed_again(store: Store) -> None:
    """With its new rows, and with counters that say what both incarnations stored."""
    add_run(store, 1, 10)
    add_run(store, 2, 20)
    work(retention(store, max_runs=1))
    second = open_stream(store, info(3, "R1", worker="w1"))
    put(store, second, "run", RunRecord(1, 30, "running", {}))
    put_steps(store, second, range(2, 12))
    found = {row.run: row for row in list_runs(store.path)}
    assert found["R1"].steps == STEPS + 10 + 10
    work(retention(store, max_runs=1))
    assert left(store, second)["step_rows"] == 10


def test_a_bucket_begun_before_a_removal_counts_only_what_came_after(store: Store) -> None:
    """Rollups stay what `episode_rows` holds, also where a removal cut a bucket in two."""
    stream_no = add_run(store, 1, 10)
    add_run(store, 2, 20)
    work(retention(store, max_runs=1))
    late = EpisodeRecord(LAST_SEQ + 10, 5, 0, 1, 7.0, 3, "terminated", 0.1)
    put(store, stream_no, "episode", late)
    found = ask(store, f"SELECT level, bucket, episodes, sum_return FROM episode_rollups WHERE stream_no = {stream_no}")  # noqa: S608
    assert found == [(4, 1, 1, 7.0)]
