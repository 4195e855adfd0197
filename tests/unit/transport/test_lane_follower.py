"""LaneFollower: one viewer's view of one worker, over all its rings. Time is moved by hand."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.transport.lane_rig import frame, seen, show

from runlane.config import log_ids
from runlane.config.log_ids import LogId
from runlane.transport import ring_files
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.lane_follower import LAG_TOLD_NS, LOOK_NS, LaneFollower
from runlane.transport.lease import LEASE_NS, Wanted
from runlane.transport.ring_layout import CLOSED, Geometry, RingInfo

NOW_NS = 7_000_000_000_000
SECOND_NS = 1_000_000_000
RUN = "01kb0a1b2c3d4e5f6g7h8j9kmn"


class Rig:
    """Workers and viewers of one run directory, and a clock."""

    def __init__(self, run_dir: Path, log: pytest.LogCaptureFixture) -> None:
        self.run_dir = run_dir
        self.now_ns = NOW_NS
        self._log = log
        self._open: list[FastLaneWriter | LaneFollower] = []

    def worker(self, worker: str = "worker", run: str = RUN, run_name: str = "walk", slots: int = 4) -> FastLaneWriter:
        """A living worker's ring."""
        info = RingInfo(run=run, worker=worker, run_name=run_name)
        self._open.append(writer := FastLaneWriter(self.run_dir, info, FastLaneConfig(slots)))
        return writer

    def viewer(self, run: str = "", worker: str = "", rate_hz: float = 30.0) -> LaneFollower:
        """A viewer that has not looked yet."""
        self._open.append(follower := LaneFollower(self.run_dir, run, worker, rate_hz=rate_hz, viewer="test"))
        return follower

    def look(self, follower: LaneFollower, after_ns: int = LOOK_NS) -> bool:
        """Let time pass, and poll."""
        self.now_ns += after_ns
        return follower.poll(self.now_ns)

    def told(self, log_id: LogId) -> list[str]:
        """Lines of a log id so far."""
        return [line for line in self._log.messages if line.startswith(f"{log_id.name} ")]

    def close(self) -> None:
        """Everybody goes."""
        for closable in self._open:
            closable.close()
        ring_files.sweep_rings(self.run_dir)


@pytest.fixture
def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    """Nobody is there yet."""
    caplog.set_level(logging.INFO, "runlane")
    rig = Rig(tmp_path, caplog)
    yield rig
    rig.close()


def read(follower: LaneFollower) -> int | None:
    """Number of the frame that is read now."""
    return None if follower.reader is None else seen(follower.reader)


# ---- finding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "worker", "expected"),
    [
        ("", "", "two"),
        (RUN, "", "one"),
        (RUN[:6], "", "one"),
        ("walk", "", "one"),
        ("", "two", "two"),
        ("run", "two", "two"),
        ("wal", "", None),
        ("walk", "two", None),
        ("x" + RUN, "", None),
        (RUN, "One", None),
    ],
)
def test_a_ring_is_found_by_run_and_worker(rig: Rig, run: str, worker: str, expected: str | None) -> None:
    """A run by its id, the beginning of it or its name, a worker by its name; nothing said means the newest."""
    rig.worker("one")
    rig.worker("two", "02runofanother", "run")
    follower = rig.viewer(run, worker)
    assert rig.look(follower) is False
    assert (None if follower.info is None else follower.info.worker) == expected


def test_a_viewer_may_be_there_before_its_worker(rig: Rig) -> None:
    """It looks four times a second, and has nothing until then."""
    follower = rig.viewer()
    assert not rig.look(follower)
    assert (follower.info, follower.geometry, follower.read(), follower.read_into(bytearray(1))) == (None,) * 4
    show(rig.worker(), 1)
    assert not rig.look(follower, LOOK_NS - 1)
    assert rig.look(follower, 1)
    assert read(follower) == 1
    assert follower.geometry == Geometry(5, 4, 3)
    assert not rig.look(follower)
    assert follower.reconnects == 0


def test_frames_are_read_as_from_a_reader(rig: Rig) -> None:
    """Into a buffer of one's own, or a new one."""
    writer, follower = rig.worker(), rig.viewer()
    show(writer, 1)
    rig.look(follower)
    buffer = bytearray(60)
    assert follower.read_into(buffer) is not None
    assert set(buffer) == {1}
    writer.publish(frame(2))
    found = follower.read()
    assert found is not None
    assert set(found[1]) == {2}


def test_slots_that_found_no_room_in_shared_memory_are_found(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The head lies there, the slots in the run directory."""
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(ring_files, "SHARED_MEMORY", memory)
    writer, follower = rig.worker(), rig.viewer()
    memory.joinpath(f"{writer.path.name}.1").mkdir()  # in the way, as a full memory would be
    show(writer, 1)
    assert rig.run_dir.joinpath(f"{writer.path.name}.1").is_file()
    assert rig.look(follower)
    assert read(follower) == 1


def test_a_ring_that_is_gone_between_finding_and_attaching_is_looked_for_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no error."""
    writer, follower = rig.worker(), rig.viewer()
    [found] = ring_files.find_rings(rig.run_dir)
    writer.close()
    with monkeypatch.context() as patch:
        patch.setattr("runlane.transport.lane_follower.find_rings", lambda _: [found])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        assert not rig.look(follower)
    rig.worker()
    rig.look(follower)
    assert (follower.info is not None, follower.reconnects) == (True, 0)


# ---- one ring after the other ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_viewer_goes_over_to_the_next_ring(rig: Rig, ending: str) -> None:
    """When its worker has ended in order or died: at once when there is one, else as soon as it comes."""
    follower = rig.viewer()
    for round_number in range(1, 4):
        writer = rig.worker()
        show(writer, round_number)
        assert rig.look(follower)
        assert read(follower) == round_number
        assert (follower.reconnects, len(rig.told(log_ids.FASTLANE_CONNECTED))) == (round_number - 1, round_number)
        if ending == "closed":
            writer.close()
        else:
            writer.forget()  # what is left of one that was killed: the files, and no lock
        if round_number == 2:
            assert not rig.look(follower)
            assert follower.info is None
            assert len(rig.told(log_ids.FASTLANE_DISCONNECTED)) == 2
    assert not rig.look(follower)
    assert len(rig.told(log_ids.FASTLANE_DISCONNECTED)) == 3


def test_the_last_frame_of_a_dead_worker_is_still_seen(rig: Rig) -> None:
    """It is news until the next look."""
    writer, follower = rig.worker(), rig.viewer()
    show(writer, 1)
    assert rig.look(follower)
    assert read(follower) == 1
    show(writer, 2)
    writer.close()
    assert rig.look(follower)
    assert read(follower) == 2
    assert not rig.look(follower)
    assert follower.info is None


@pytest.mark.parametrize("kind", ["not read", "half written", "no slots"])
def test_a_last_frame_that_is_not_read_keeps_nobody(rig: Rig, kind: str) -> None:
    """Because nobody wants it, or because nobody can: the viewer goes over to the next ring all the same."""
    writer, follower = rig.worker(slots=1), rig.viewer()
    rig.look(follower)
    show(writer, 1)
    if kind != "no slots":
        assert read(follower) == 1
        show(writer, 2)
    if kind == "half written":
        writer._words[writer._slots[0][0]] = 3  # pyright: ignore[reportPrivateUsage]
    writer.forget()
    ring_files.sweep_rings(rig.run_dir)
    second = rig.worker()
    for _ in range(2):
        rig.look(follower)
        if kind != "not read":
            assert read(follower) is None
    assert follower.reader is not None
    assert follower.reader.path == second.path
    assert follower.reconnects == 1
    assert len(rig.told(log_ids.FASTLANE_DISCONNECTED)) == 1


def test_a_ring_that_is_being_closed_is_not_taken(rig: Rig) -> None:
    """Its worker still has the lock, and has said that nothing follows."""
    writer, follower = rig.worker(), rig.viewer()
    writer._head[CLOSED] = 1  # pyright: ignore[reportPrivateUsage]
    rig.look(follower)
    assert (follower.info, rig.told(log_ids.FASTLANE_CONNECTED)) == (None, [])


def test_what_is_logged_says_whose_ring_it_is(rig: Rig) -> None:
    """And which viewer's; with the mark of all lines of the fast lane."""
    writer, follower = rig.worker(), rig.viewer()
    rig.look(follower)
    [line] = rig.told(log_ids.FASTLANE_CONNECTED)
    assert "[FASTLANE]" in line
    assert line.endswith(f"viewer=test ring={writer.path.name} run={RUN} worker=worker")
    writer.close()
    rig.look(follower)
    [line] = rig.told(log_ids.FASTLANE_DISCONNECTED)
    assert line.endswith(f"viewer=test ring={writer.path.name}")


# ---- leases ----------------------------------------------------------------------------------------------


def test_a_viewer_that_polls_is_rendered_for(rig: Rig) -> None:
    """At its rate, until it stops or closes."""
    writer, follower = rig.worker(), rig.viewer(rate_hz=12.0)
    show(writer, 1)
    for _ in range(20):
        rig.look(follower, 100_000_000)
        assert writer.wanted(rig.now_ns) == Wanted(12.0, 0, 0, 1)
    assert writer.wanted(rig.now_ns + LEASE_NS) is None
    follower.close()
    follower.close()
    assert writer.wanted(rig.now_ns) is None


def test_a_viewer_without_a_rate_only_looks_on(rig: Rig) -> None:
    """It takes no lease, sees what others had rendered, and is not told that it is slow."""
    writer, follower = rig.worker(), rig.viewer(rate_hz=0)
    for number in range(1, 200):
        show(writer, 2 * number, 2 * number + 1)
        assert rig.look(follower)
        assert writer.wanted(rig.now_ns) is None
    assert read(follower) == 399
    assert rig.told(log_ids.FASTLANE_READER_LAG) == []


def test_one_environment_is_asked_for_at_once(rig: Rig) -> None:
    """And given back at once; also of the next ring."""
    writer, follower = rig.worker(), rig.viewer()
    follower.promote(2)
    rig.look(follower)
    assert writer.wanted(rig.now_ns) == Wanted(30.0, 2, 0, 1)
    follower.promote(0)
    rig.look(follower, 1)
    assert writer.wanted(rig.now_ns) == Wanted(30.0, 0, 0, 1)


# ---- figures ---------------------------------------------------------------------------------------------


def watch(rig: Rig, writer: FastLaneWriter, follower: LaneFollower, published_hz: int, read_hz: int) -> None:
    """A bit more than ten seconds of a worker and a viewer at these rates."""
    number = writer.frames
    for step in range(12 * published_hz):
        number += 1
        show(writer, number)
        rig.look(follower, SECOND_NS // published_hz)
        if step * read_hz // published_hz != (step + 1) * read_hz // published_hz:
            assert read(follower) == number


def test_frames_per_second_are_those_that_were_read(rig: Rig) -> None:
    """And none without a ring."""
    writer, follower = rig.worker(), rig.viewer()
    watch(rig, writer, follower, 40, 20)
    assert follower.fps == pytest.approx(20.0, abs=1.5)
    writer.close()
    rig.look(follower)
    rig.look(follower)
    assert follower.fps == 0.0


@pytest.mark.parametrize(
    ("rate_hz", "published_hz", "read_hz", "is_told"),
    [(30.0, 30, 30, False), (30.0, 30, 20, False), (30.0, 30, 10, True), (5.0, 50, 5, False), (5.0, 50, 2, True)],
)
def test_a_viewer_that_sees_too_little_is_told_every_ten_seconds(
    rig: Rig, rate_hz: float, published_hz: int, read_hz: int, is_told: bool
) -> None:
    """Less than half of the frames, and of what it asked for: who asked for few, beside others, is not slow."""
    writer, follower = rig.worker(), rig.viewer(rate_hz=rate_hz)
    watch(rig, writer, follower, published_hz, read_hz)
    lines = rig.told(log_ids.FASTLANE_READER_LAG)
    assert len(lines) == is_told
    assert all("viewer=test" in line and "lapped=" in line and "age_ms=" in line for line in lines)
    assert 10 * SECOND_NS == LAG_TOLD_NS
