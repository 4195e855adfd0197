"""Rows are removed in small pieces between commits, each whole or not at all; what was begun is finished."""

# States and pages are set and asked on the writing connection:
# pyright: reportPrivateUsage=false

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.actors.retention_rig import FULL, STEPS, THINNED, add_run, grow, left, retention, work
from unit.actors.store_rig import SCHEMA, ask, body, info, open_stream, put, put_steps

from runlane.actors.removal import CLASSES, Removal
from runlane.actors.retention import BUSY_S, CHECK_S, MAX_PIECE_ROWS, MIN_PIECE_ROWS, PIECE_S, Retention
from runlane.actors.store import Store
from runlane.actors.store_file import StoreFullError
from runlane.config.settings import DbWriterSettings, RetentionSettings
from runlane.transport.records import RunRecord
from runlane.transport.testing import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runlane.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path, DbWriterSettings(synchronous="NORMAL"))) as opened:
        yield opened


def test_a_piece_is_bounded(store: Store) -> None:
    """Each call is one transaction of at most so many rows, whatever is to be done."""
    add_run(store, 1, 10)
    grow(store, 1, 10_000)
    removal = Removal("R1", 10, "step", "max_runs")
    pieces: list[tuple[int, bool]] = []
    while not pieces or not pieces[-1][1]:
        pieces.append(store.remove(removal, 1_000, 7))
    assert [rows for rows, _ in pieces] == [1_000] * 10 + [45]
    assert ask(store, "SELECT rows, is_done, t_ns FROM retention_rows") == [(10_045, 1, 7)]


def test_streams_without_rows_cost_pieces_too(store: Store) -> None:
    """A run of a thousand workers is not one transaction."""
    store.begin()
    for number in range(1, 101):
        store.open_stream(info(number, "R", worker=f"w{number}"))
    store.commit()
    store.begin()
    store._connection.execute("UPDATE runs SET state = 'finished', ended_ns = 10")
    store._connection.execute("UPDATE streams SET state = 'finished', last_seq = 9")
    store.commit()
    removal = Removal("R", 10, "log", "max_runs")
    assert store.remove(removal, 320, 7) == (0, False)
    assert ask(store, "SELECT count(*) FROM retention_rows") == [(20,)]
    calls = 1
    while not store.remove(removal, 320, 7)[1]:
        calls += 1
    assert calls in (4, 5)
    assert ask(store, "SELECT count(*), sum(is_done), sum(rows) FROM retention_rows") == [(100, 100, 0)]
    assert ask(store, "SELECT count(*) FROM retention") == [(0,)]


class SlowStore:
    """Stands before a store and lets every removal take as long as its rows say."""

    def __init__(self, store: Store, clock: FakeClock, s_per_row: float) -> None:
        self.asked: list[int] = []
        self.path, self.removals = store.path, store.removals
        self._store, self._clock, self._s_per_row = store, clock, s_per_row

    def remove(self, removal: Removal, most_rows: int, t_ns: int) -> tuple[int, bool]:
        rows, is_done = self._store.remove(removal, most_rows, t_ns)
        self.asked.append(most_rows)
        self._clock.move(rows * self._s_per_row)
        return rows, is_done


@pytest.mark.parametrize(("s_per_row", "settled"), [(1e-6, MAX_PIECE_ROWS), (1e-5, 1_000), (1.0, MIN_PIECE_ROWS)])
def test_a_piece_takes_about_as_long_whatever_a_row_weighs(store: Store, s_per_row: float, settled: int) -> None:
    """Rows of a megabyte and of fifty bytes: the number of rows follows the time the last piece took."""
    add_run(store, 1, 10)
    grow(store, 1, 20_000)
    clock = FakeClock()
    slow: Any = SlowStore(store, clock, s_per_row)
    paced = Retention(slow, RetentionSettings(max_age_days=1e-9, classes=["step"]), clock)
    work(paced)
    asked = slow.asked[4:-2]
    assert all(0.5 * settled <= rows <= 2 * settled for rows in asked), asked
    assert s_per_row > 1e-5 or max(asked) * s_per_row <= 2 * PIECE_S


def test_a_busy_writer_does_a_piece_now_and_then(store: Store) -> None:
    """While records come, at most one piece in a fifth of a second; an idle one goes on at once."""
    add_run(store, 1, 10)
    grow(store, 1, 50_000)
    clock = FakeClock()
    busy = retention(store, clock, max_age_days=1e-9, classes=["step"])
    busy.do_work(is_idle=False)
    assert busy.has_work
    busy.do_work(is_idle=False)
    first = busy.removed_rows
    assert first > 0
    for _ in range(10):
        clock.move(BUSY_S / 11)
        busy.do_work(is_idle=False)
    assert busy.removed_rows == first
    clock.move(BUSY_S)
    busy.do_work(is_idle=False)
    assert busy.removed_rows > first
    second = busy.removed_rows
    busy.do_work(is_idle=True)
    assert busy.removed_rows > second


def test_a_look_that_finds_nothing_is_not_repeated_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor soon, where it took long: looking may not cost the writer its time."""
    add_run(store, 1, 10)
    clock = FakeClock()
    looks: list[float] = []

    def used_bytes() -> int:
        looks.append(clock.monotonic_s())
        clock.move(0.5)
        return 0

    monkeypatch.setattr(store.removals, "used_bytes", used_bytes)
    quiet = retention(store, clock, max_bytes=1 << 30)
    for _ in range(100):
        quiet.do_work(is_idle=True)
        clock.move(CHECK_S)
    assert 4 <= len(looks) <= 6
    assert not quiet.has_work


def test_a_removal_that_was_interrupted_is_finished(store: Store, path: Path) -> None:
    """By the next writer, also where the limit alone would no longer ask for it."""
    for number in (1, 2):
        add_run(store, number, number)
        grow(store, number, 20_000)
    limit = store.removals.used_bytes() - 100_000
    begun = retention(store, max_bytes=limit)
    for _ in range(4):
        begun.do_work(is_idle=True)
    assert 0 < left(store, 1)["step_rows"] < 20_000
    store.close()
    with closing(Store(path, DbWriterSettings())) as again:
        work(retention(again, max_bytes=1 << 40))
        assert left(again, 1)["step_rows"] == 0
        assert left(again, 2)["step_rows"] == 20_000 + STEPS
        assert ask(again, "SELECT sum(rows) FROM retention") == [(20_000 + STEPS + 5,)]


def test_a_run_that_goes_on_again_keeps_what_it_still_has(store: Store) -> None:
    """Between two pieces it was resumed: the removal ends there."""
    add_run(store, 1, 10)
    grow(store, 1, 20_000)
    clock = FakeClock()
    begun = retention(store, clock, max_age_days=1e-9, classes=["step"])
    for _ in range(3):
        begun.do_work(is_idle=True)
    second = open_stream(store, info(2, "R1", worker="w1"))
    put(store, second, "run", RunRecord(1, 30, "running", {}))
    rows = left(store, 1)["step_rows"]
    assert 0 < rows < 20_000
    work(begun)
    assert left(store, 1)["step_rows"] == rows
    put(store, second, "run", RunRecord(2, 40, "finished", {}))
    clock.move(2 * CHECK_S)
    work(begun)
    assert left(store, 1)["step_rows"] == 0


def test_a_run_that_ended_anew_is_judged_anew(store: Store) -> None:
    """What was wanted of it when it had ended before no longer counts."""
    add_run(store, 1, 10)
    stale = Removal("R1", 9, "step", "max_runs")
    assert store.remove(stale, 1_000, 7) == (0, True)
    assert left(store, 1) == FULL


def test_a_failed_removal_changes_nothing_and_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full, say: rows and account are as before, the writer goes on, and later it works."""
    add_run(store, 1, 10)
    clock = FakeClock()
    tried = retention(store, clock, max_age_days=1e-9)
    piece = store.removals.piece

    def fail(*values: Any) -> tuple[int, bool]:
        piece(*values)
        raise StoreFullError("no room")

    monkeypatch.setattr(store.removals, "piece", fail)
    with caplog.at_level(logging.INFO, "runlane"):
        work(tried)
    assert [line.split()[0] for line in caplog.messages] == ["DURABLE_PRUNE_FAILED"]
    assert left(store, 1) == FULL
    assert ask(store, "SELECT count(*) FROM retention_rows") == [(0,)]
    assert put_steps(store, 1, range(1, STEPS + 1)) == 0
    monkeypatch.undo()
    clock.move(CHECK_S)
    work(tried)
    assert left(store, 1) == THINNED


def test_removing_does_not_disturb_what_is_written(store: Store) -> None:
    """Pieces between the commits of a run that goes on: all of its rows are there."""
    add_run(store, 1, 10)
    grow(store, 1, 5_000)
    live = open_stream(store, info(2))
    clock = FakeClock()
    beside = retention(store, clock, max_age_days=1e-9)
    for first in range(1, 5_000, 100):
        store.begin()
        store.insert_steps(live, SCHEMA, *body(range(first, first + 100)))
        store.advance(live, first + 99)
        store.commit()
        beside.do_work(is_idle=True)
    work(beside)
    assert ask(store, "SELECT count(*), min(seq), max(seq) FROM steps WHERE run = 'R'") == [(5_000, 1, 5_000)]
    assert left(store, 1) == THINNED
    assert ask(store, "PRAGMA integrity_check") == [("ok",)]


def test_freed_pages_are_used_again(store: Store) -> None:
    """The file does not shrink, and does not grow either while there is room in it."""
    add_run(store, 1, 10)
    grow(store, 1, 40_000)
    work(retention(store, FakeClock(), max_age_days=1e-9))
    pages = store._connection.pragma("page_count")
    assert store._connection.pragma("freelist_count") > pages // 2
    grow(store, open_stream(store, info(2)), 30_000)
    assert store._connection.pragma("page_count") == pages


def test_every_class_has_its_place_in_the_order() -> None:
    """Episodes last: a run counts as removed when they are gone."""
    assert CLASSES[-1] == "episode"
    assert set(CLASSES) == {*RetentionSettings().classes, "episode"}
