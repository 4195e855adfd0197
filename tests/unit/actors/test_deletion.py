"""A person deletes a run: all of it goes and nothing comes back. No other run is touched; a kill changes nothing."""

# States are set on the writing connection:
# pyright: reportPrivateUsage=false

import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from fake_journal import FakeJournal
from unit.actors.retention_rig import EMPTY, FULL, LAST_SEQ, STEPS, add_run, grow, left, records, retention, work
from unit.actors.store_rig import ask, info, open_stream, put, put_steps

from runlane.actors.deletion_desk import LISTEN_S, DeletionDesk
from runlane.actors.retention import Retention
from runlane.actors.run_videos import RunVideos
from runlane.actors.store import Store
from runlane.actors.store_reader import list_runs
from runlane.config.settings import DbWriterSettings, RetentionSettings
from runlane.transport.messages import RunDelete, RunDeletion
from runlane.transport.records import EpisodeRecord, RunRecord
from runlane.transport.row_key import SEQ_MASK
from runlane.transport.testing import FakeClock, make_info

VIEWS = ("steps", "step_records", "episodes", "metrics", "logs", "infos")
ROWS = {"step": STEPS + 5, "info": 2, "log": 1, "metric": 1, "episode": 20}
# Deletes R1 in the place of a DB writer that is killed after so many pieces.
KILLED = """
import os, signal, sys
from pathlib import Path
from runlane.actors.retention import Retention
from runlane.actors.store import Store
from runlane.config.settings import DbWriterSettings, RetentionSettings
from runlane.transport.clock import SystemClock
store = Store(Path(sys.argv[1]), DbWriterSettings())
retention = Retention(store, RetentionSettings(), SystemClock())
retention.delete("R1")
for _ in range(int(sys.argv[2])):
    retention.do_work(is_idle=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Desk:
    """A store, what removes from it, and the desk in front; `ask` is what a person does."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.store = Store(path, DbWriterSettings(synchronous="NORMAL"))
        self.videos = path.parent / "videos"
        self.journals = path.parent / "journals"
        videos = RunVideos(self.videos)
        self.retention = Retention(self.store, RetentionSettings(), self.clock, videos)
        self.desk = DeletionDesk(self.store, self.retention, videos, self.journals, self.clock)

    def ask(self, run: str, *, only_ask: bool = False, listened_s: float = math.inf) -> RunDeletion:
        return self.desk.answer(RunDelete(run=run, only_ask=only_ask), listened_s)

    def delete(self, run: str) -> RunDeletion:
        """To the end."""
        assert self.ask(run).refused == ""
        work(self.retention)
        return self.ask(run)

    def add_living(self, number: int, seen_ns: int) -> int:
        """A run that has not ended, of which somebody was heard then."""
        stream_no = add_run(self.store, number, None)
        self.store.begin()
        self.store.note_seen({f"{number:032x}": seen_ns})
        self.store.commit()
        return stream_no

    def listed(self) -> list[str]:
        return [row.run for row in list_runs(self.store.path, self.clock.wall_ns())]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "runlane.db")
    with closing(desk.store):
        yield desk


# ---- what goes -----------------------------------------------------------------------------------------------


def test_everything_of_the_run_goes_and_nothing_of_another(desk: Desk) -> None:
    """Every view is without it; `runlane runs` does not list it; exact counts stay, and so does its line in `runs`."""
    for number in (1, 2):
        add_run(desk.store, number, 10 * number)
    done = desk.delete("R1")
    assert (done.state, done.run, done.rows) == ("removed", "R1", ROWS)
    assert (left(desk.store, 1), left(desk.store, 2)) == (EMPTY, FULL)
    assert desk.listed() == ["R2"]
    for view in VIEWS:
        assert ask(desk.store, f"SELECT DISTINCT run FROM {view}") == [("R2",)], view  # noqa: S608
    assert ask(desk.store, "SELECT run FROM removed_runs") == [("R1",)]
    found = ask(desk.store, "SELECT class, reason, rows FROM retention WHERE run = 'R1'")
    assert sorted(found) == sorted((name, "deleted", rows) for name, rows in ROWS.items())
    assert ask(desk.store, "SELECT state FROM runs WHERE run = 'R1'") == [("finished",)]


def test_the_answer_comes_before_the_work(desk: Desk) -> None:
    """Asked again it says how far it is; a piece takes a bounded number of rows."""
    add_run(desk.store, 1, 10)
    grow(desk.store, 1, 20_000)
    assert desk.ask("R1").state == "removing"
    desk.retention.do_work(is_idle=False)
    half = desk.ask("R1")
    assert half.state == "removing"
    assert 0 < sum(half.rows.values()) <= 5_000
    work(desk.retention)
    assert desk.ask("R1").rows == ROWS | {"step": STEPS + 5 + 20_000}


def test_to_only_ask_removes_nothing(desk: Desk) -> None:
    """It says what would go."""
    add_run(desk.store, 1, 10)
    found = desk.ask("R1", only_ask=True)
    assert (found.state, found.run, found.steps, found.episodes) == ("found", "R1", STEPS + 10, 20)
    assert work(desk.retention) == 0
    assert left(desk.store, 1) == FULL


def test_a_run_is_deleted_before_what_limits_want(desk: Desk) -> None:
    """A person waits for it; what was under way of another run is finished first, as ever."""
    for number in (1, 2, 3):
        add_run(desk.store, number, number)
    limited = retention(desk.store, max_runs=1)
    limited.do_work(is_idle=True)
    limited.delete("R3")
    order: list[str] = []
    while limited.has_work:
        limited.do_work(is_idle=True)
        order = list(dict.fromkeys([*order, *(run for (run,) in ask(desk.store, "SELECT run FROM removed_runs"))]))
    assert order == ["R1", "R3"]
    assert left(desk.store, 2) == FULL  # with R3 gone R2 is the one that is kept
    assert ask(desk.store, "SELECT DISTINCT reason FROM retention WHERE run = 'R3'") == [("deleted",)]


def test_a_run_that_retention_has_thinned_is_deleted_whole(desk: Desk) -> None:
    """What is counted is what the deletion itself has removed."""
    add_run(desk.store, 1, 10)
    work(retention(desk.store, desk.clock, max_age_days=1))
    done = desk.delete("R1")
    assert done.state == "removed"
    assert {name: rows for name, rows in done.rows.items() if rows} == {"episode": 20}
    assert work(desk.retention) == 0


def test_a_run_that_retention_has_removed_needs_no_deletion(desk: Desk) -> None:
    """By its whole id it is known, and nothing is left to do."""
    add_run(desk.store, 1, 10)
    add_run(desk.store, 2, 20)
    work(retention(desk.store, max_runs=1))
    found = desk.ask("R1")
    assert (found.state, found.rows) == ("removed", {})


def test_its_videos_go_and_no_others(desk: Desk) -> None:
    """With their sidecars and what a killed recorder left; a file that is not ours stays."""
    for number in (1, 2):
        add_run(desk.store, number, 10)
        folder = desk.videos / f"{number:032x}"
        folder.mkdir(parents=True)
        for name in ("0-00000001.mp4", "0-00000001.json", "0-00000002.mp4.part"):
            (folder / name).write_bytes(b"x")
    (desk.videos / f"{1:032x}" / "notes.txt").write_bytes(b"mine")
    assert desk.ask("R1", only_ask=True).videos == 1
    assert desk.delete("R1").videos == 0
    assert [path.name for path in (desk.videos / f"{1:032x}").iterdir()] == ["notes.txt"]
    assert len(list((desk.videos / f"{2:032x}").iterdir())) == 3


# ---- which runs ----------------------------------------------------------------------------------------------


def test_a_living_run_is_refused_with_the_remedy(desk: Desk) -> None:
    """Nothing of it goes."""
    desk.add_living(1, desk.clock.wall_ns())
    refused = desk.ask("R1").refused
    assert refused.startswith("run R1 is running; stop it first")
    assert work(desk.retention) == 0
    assert left(desk.store, 1) == FULL


def test_a_failed_run_whose_other_worker_goes_on_is_refused(desk: Desk) -> None:
    """It is over by name only."""
    add_run(desk.store, 1, 10, state="failed")
    open_stream(desk.store, info(2, "R1", worker="other"))
    desk.store.begin()
    desk.store.note_seen({f"{2:032x}": desk.clock.wall_ns()})
    desk.store.commit()
    assert "a worker of it goes on" in desk.ask("R1").refused


def test_a_lost_run_is_deleted_and_ends_thereby(desk: Desk) -> None:
    """Nobody else will ever say how it ended."""
    desk.add_living(1, desk.clock.wall_ns() - 5_000_000_000)
    assert desk.delete("R1").state == "removed"
    assert left(desk.store, 1) == EMPTY
    assert ask(desk.store, "SELECT state FROM runs UNION ALL SELECT state FROM streams") == [("killed",), ("killed",)]


def test_what_was_not_heard_of_for_long_enough_is_not_yet_lost(desk: Desk) -> None:
    """A graph that has just begun has heard of nobody."""
    desk.add_living(1, desk.clock.wall_ns() - 5_000_000_000)
    assert "may be alive or lost; ask again in 2 s" in desk.ask("R1", listened_s=LISTEN_S - 2).refused
    assert desk.ask("R1", listened_s=LISTEN_S).state == "removing"


def test_a_worker_without_a_graph_keeps_its_run(desk: Desk) -> None:
    """Nobody hears of it, and its journal grows."""
    desk.add_living(1, 1)
    journal = FakeJournal(desk.journals, msgspec.structs.replace(make_info("w1"), run="R1"))
    journal.steps(3)
    try:
        assert "has a living worker, w1, which writes its journal; stop it first" in desk.ask("R1").refused
    finally:
        journal.close()


def test_an_ended_run_with_a_living_worker_that_the_store_has_not_seen_is_refused(desk: Desk) -> None:
    """Deleted, the run would refuse all that this worker records. Once it has ended the run may go."""
    add_run(desk.store, 1, 10)
    info_of_other = msgspec.structs.replace(make_info("other"), run="R1")
    journal = FakeJournal(desk.journals, info_of_other)
    journal.steps(3)
    try:
        for only_ask in (True, False):
            refused = desk.ask("R1", only_ask=only_ask).refused
            assert "run R1 has a living worker, other, which writes its journal; stop it first" in refused
        assert work(desk.retention) == 0
        assert left(desk.store, 1) == FULL
    finally:
        journal.close()
    assert desk.delete("R1").state == "removed"


def test_an_ambiguous_name_lists_the_candidates(desk: Desk) -> None:
    """A run that was removed is none of them; the beginning of an id is enough."""
    for number in (1, 2, 3):
        open_stream(desk.store, info(number, f"R{number}", name="ppo"))
        put(desk.store, number, "run", RunRecord(1, 1, "running", {}), RunRecord(2, 5, "finished", {}))
        desk.store.begin()
        desk.store.advance(number, 2)
        desk.store.commit()
    desk.delete("R3")
    assert "2 runs are named 'ppo': R2, R1; give the id" in desk.ask("ppo").refused
    assert "no run 'nobody'" in desk.ask("nobody").refused
    assert desk.delete("R2").state == "removed"
    assert desk.ask("ppo", only_ask=True).run == "R1"
    assert desk.ask("R", only_ask=True).run == "R1"


# ---- nothing comes back --------------------------------------------------------------------------------------


def test_what_is_sent_again_or_late_does_not_come_back(desk: Desk) -> None:
    """Also what is newer than all that was stored: a journal may hold it still. Counters say what was stored once."""
    stream_no = add_run(desk.store, 1, 10)
    desk.delete("R1")
    assert put_steps(desk.store, stream_no, range(1, STEPS + 1)) == 0
    assert put_steps(desk.store, stream_no, range(LAST_SEQ + 1, LAST_SEQ + 50)) == 0
    for kind, found in records().items():
        assert put(desk.store, stream_no, kind, *found) == 0
    late = [EpisodeRecord(seq, 1, 0, seq, 1.0, 1, "terminated", 0.1) for seq in range(300, 320)]
    assert put(desk.store, stream_no, "episode", *late) == 0
    assert left(desk.store, stream_no) == EMPTY
    assert desk.listed() == []


def test_a_stream_that_comes_after_its_run_was_deleted_is_deleted_too(desk: Desk) -> None:
    """If it began before: nobody had drained its journal. And the report of the proxy that does brings nothing back."""
    add_run(desk.store, 1, 10)
    desk.delete("R1")
    before = open_stream(desk.store, info(2, "R1", worker="slow", started_ns=desk.clock.wall_ns() - 1))
    report = open_stream(desk.store, info(3, "R1", worker="proxy-slow", started_ns=desk.clock.wall_ns() + 9))
    assert put_steps(desk.store, before, range(1, 10)) == 0
    put(desk.store, report, "run", RunRecord(1, 1, "killed", {}))
    assert desk.listed() == []


def test_a_resumed_run_begins_anew(desk: Desk) -> None:
    """Who resumes a deleted run wants it, also from a host whose clock is behind; it may be deleted again."""
    add_run(desk.store, 1, 10)
    desk.delete("R1")
    behind_ns = desk.clock.wall_ns() - 60_000_000_000
    again = open_stream(desk.store, info(4, "R1", worker="w1", started_ns=behind_ns, is_resumed=True))
    put(desk.store, again, "run", RunRecord(1, desk.clock.wall_ns(), "running", {}))
    assert put_steps(desk.store, again, range(2, 12)) == 10
    assert desk.listed() == ["R1"]
    other = open_stream(desk.store, info(5, "R1", worker="forked", started_ns=behind_ns))
    assert put_steps(desk.store, other, range(1, 5)) == 4
    put(desk.store, other, "run", RunRecord(5, 1, "running", {}), RunRecord(6, 1, "finished", {}))
    put(desk.store, again, "run", RunRecord(12, desk.clock.wall_ns(), "finished", {}))
    assert desk.delete("R1").rows == ROWS | {"step": STEPS + 5 + 10 + 4}
    assert left(desk.store, again) == left(desk.store, other) == EMPTY


# ---- a kill --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [0, 3, 6])
def test_a_deletion_survives_kill_9(tmp_path: Path, pieces: int) -> None:
    """The next writer goes on by itself, also without a limit; counts are exact, marks are of the greatest seq."""
    path = tmp_path / "runlane.db"
    with closing(Store(path, DbWriterSettings(synchronous="NORMAL"))) as store:
        add_run(store, 1, 10)
        add_run(store, 2, 20)
        grow(store, 1, 3_000)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(pieces)], timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    desk = Desk(path)
    with closing(desk.store):
        assert left(desk.store, 1) != EMPTY
        work(desk.retention)
        assert (left(desk.store, 1), left(desk.store, 2)) == (EMPTY, FULL)
        assert desk.ask("R1").rows == ROWS | {"step": STEPS + 5 + 3_000}
        assert ask(desk.store, "SELECT DISTINCT last_seq, is_done FROM retention_rows") == [(SEQ_MASK, 1)]
