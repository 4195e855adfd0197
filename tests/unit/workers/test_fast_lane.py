"""FastLane: renders when a lease asks for it and it is due, and never disturbs the training."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from runlane.config.settings import FastLaneSettings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport import fast_lane_writer
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.lease import LEASE_NS
from runlane.transport.ring_files import find_rings
from runlane.transport.ring_layout import RingInfo
from runlane.workers.fast_lane import LOOK_NS, NEVER_NS, RETRY_NS, FastLane, NoFastLane
from runlane.workers.shown_step import Standing

START_NS = 1_000_000_000_000
FRAME = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


class FakeSession:
    """Stands where the test says."""

    can_show = True
    telemetry_mode = TelemetryMode.DUAL_PATH

    def __init__(self) -> None:
        self.env_steps = 0
        self.stands = Standing(17, 3 + (5 << 32), 4.5)

    def ring_info(self) -> RingInfo:
        return RingInfo(run="run-1", worker="w")

    def standing(self, env_index: int) -> Standing:
        return self.stands._replace(episode_return=self.stands.episode_return + env_index)

    def rolling_return(self) -> float:
        return 12.25


class LaneRig:
    """A lane, a viewer, and a clock that the test moves."""

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir = run_dir
        self.session = FakeSession()
        self.now_ns = START_NS
        self.renders = 0
        self.reader: FastLaneReader | None = None
        self.lane = self.new_lane()

    def new_lane(self, **changes: Any) -> FastLane:
        settings = msgspec.structs.replace(FastLaneSettings(), **changes)
        self.lane = FastLane(self.session, self.run_dir, settings)
        return self.lane

    def attach(self) -> FastLaneReader:
        """A viewer without a lease."""
        self.step()
        self.now_ns = self.lane.next_ns
        self.reader = FastLaneReader(find_rings(self.run_dir)[0].path)
        return self.reader

    def render(self) -> Any:
        self.renders += 1
        return FRAME

    def step(self, render: Any = None) -> bool:
        """What a session does after a step; whether something was rendered."""
        before = self.renders
        if self.now_ns >= self.lane.next_ns and self.lane.is_due(self.now_ns):
            self.lane.show(render or self.render, reward=1.5)
        return self.renders > before

    def steps(self, count: int, apart_ns: int, rate_hz: float = 0.0) -> int:
        """So many steps; how many of them rendered. With a rate, our viewer keeps its lease meanwhile."""
        rendered = 0
        for _ in range(count):
            if rate_hz:
                assert self.reader is not None
                self.reader.watch(self.now_ns, rate_hz)
            rendered += self.step()
            self.now_ns += apart_ns
        return rendered

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.lane.close()


@pytest.fixture
def rig(run_dir: Path) -> Iterator[LaneRig]:
    rig = LaneRig(run_dir)
    yield rig
    rig.close()


# ---- due -----------------------------------------------------------------------------------------------


def test_without_a_lease_nothing_is_rendered(rig: LaneRig) -> None:
    """A ring is there for viewers to ask, and a look is made every 10 ms and not at every step."""
    reader = rig.attach()
    assert rig.steps(10_000, 100_000) == 0
    assert rig.lane.next_ns - rig.now_ns <= LOOK_NS
    assert (reader.has_news, reader.geometry) == (False, None)


@pytest.mark.parametrize(("rate_hz", "max_fps", "frames"), [(30, 30, 30), (5, 30, 5), (60, 30, 30), (1000, 1000, 100)])
def test_as_many_frames_as_asked_for_and_allowed(rig: LaneRig, rate_hz: float, max_fps: float, frames: int) -> None:
    """In a second of steps 10 ms apart: the viewer's rate, the cap, or one per step."""
    rig.lane.close()
    rig.new_lane(max_fps=float(max_fps))
    rig.attach()
    assert rig.steps(100, 10_000_000, rate_hz) in (frames, frames + 1)


def test_frames_that_were_missed_are_not_made_up_for(rig: LaneRig) -> None:
    """A long pause of the training, as for an update, is followed by one frame and not by a burst."""
    rig.attach()
    assert rig.steps(1, 1, 30.0) == 1
    rig.now_ns += 3_000_000_000
    assert rig.steps(30, 1_000_000, 30.0) == 1


def test_a_lease_is_seen_within_ten_milliseconds_and_so_is_its_end(rig: LaneRig) -> None:
    """Live, in mid-run, on and off and on again."""
    reader = rig.attach()
    for _ in range(2):
        assert rig.steps(1_000, 1_000_000) == 0
        reader.lease.ask_anew()
        reader.watch(rig.now_ns, 30.0)
        assert rig.steps(LOOK_NS // 1_000_000 + 1, 1_000_000) == 1
        reader.lease.release()
        assert rig.steps(1_000, 1_000_000) == 0


def test_a_lease_dies_with_its_viewer(rig: LaneRig) -> None:
    """The last frame is rendered before the last mark has run out."""
    reader = rig.attach()
    reader.watch(rig.now_ns, 30.0)
    marked_ns = rig.now_ns
    rendered = [rig.now_ns for _ in range(3_000) if rig.steps(1, 1_000_000)]
    assert len(rendered) > 10
    assert max(rendered) <= marked_ns + LEASE_NS + 1_000_000


def test_off_makes_no_ring(rig: LaneRig) -> None:
    """`video_mode` off: never due, so no call is made."""
    lane = rig.new_lane(video_mode="off")
    assert lane.next_ns == NEVER_NS
    assert rig.steps(10, LOOK_NS) == 0
    assert find_rings(rig.run_dir) == []


def test_no_fast_lane_is_never_due() -> None:
    """What a detached session has."""
    lane = NoFastLane()
    assert lane.next_ns == NEVER_NS
    assert not lane.is_due(START_NS)
    lane.offer(lambda: 1 / 0, reward=0.0, env_index=0)
    lane.close()


# ---- frames --------------------------------------------------------------------------------------------


def test_frame_and_hud_arrive_together(rig: LaneRig) -> None:
    """As the session says it stands."""
    reader = rig.attach()
    reader.watch(rig.now_ns, 30.0)
    rig.now_ns = rig.lane.next_ns
    assert rig.lane.is_due(rig.now_ns)
    rig.lane.show(rig.render, reward=2.5, env_index=1, tiles=4)
    target = np.zeros_like(FRAME)
    hud = reader.read_into(target)
    assert hud is not None
    assert np.array_equal(target, FRAME)
    assert (hud.step_seq, hud.episode, hud.step, hud.env_index, hud.tile) == (17, 3, 5, 1, 4)
    assert (hud.last_reward, hud.episode_return, hud.rolling_return) == (2.5, 5.5, 12.25)


def test_the_step_rate_is_that_of_the_session(rig: LaneRig) -> None:
    """Over half a second or more."""
    reader = rig.attach()
    for _ in range(200):
        rig.session.env_steps += 7
        rig.steps(1, 10_000_000, 30.0)
    found = reader.read()
    assert found is not None
    assert found[0].step_rate_hz == pytest.approx(700.0, rel=0.05)


@pytest.mark.parametrize(
    "frame",
    [FRAME[::-1], FRAME.astype(np.int64), (FRAME / 255).astype(np.float32), FRAME[:, :, 0] > 4, FRAME.tolist()],
    ids=["not contiguous", "int64", "float", "bool", "list"],
)
def test_whatever_an_environment_draws_is_shown(rig: LaneRig, frame: Any) -> None:
    """Converted where it must be; floats are 0 to 1."""
    reader = rig.attach()
    reader.watch(rig.now_ns, 30.0)
    rig.now_ns = rig.lane.next_ns
    rig.step(lambda: frame)
    found = reader.read()
    assert found is not None
    assert reader.geometry is not None
    seen = np.frombuffer(found[1], np.uint8).reshape(reader.geometry.shape)
    expected = np.asarray(frame)
    expected = expected * 255 if expected.max() <= 1 else expected
    assert np.abs(seen.astype(int) - expected.astype(int)).max() <= 1


def test_nothing_to_show_is_no_fault(rig: LaneRig) -> None:
    """An environment that has not drawn yet gives None."""
    reader = rig.attach()
    reader.watch(rig.now_ns, 30.0)
    rig.now_ns = rig.lane.next_ns
    rig.step(lambda: None)
    assert (rig.lane.skipped, rig.lane.errors, reader.has_news) == (1, 0, False)


@pytest.mark.parametrize("frame", ["text", np.zeros((2, 2, 2)), np.zeros(7), None], ids=str)
def test_a_renderer_that_fails_is_told_once_and_asked_again_later(
    rig: LaneRig, caplog: pytest.LogCaptureFixture, frame: Any
) -> None:
    """Whatever it raises or returns: one line, five seconds of peace, and the session goes on."""

    def render() -> Any:
        if frame is None:
            raise OSError("no GL context")
        return frame

    reader = rig.attach()
    with caplog.at_level(logging.INFO, "runlane"):
        for _ in range(3):
            reader.lease.ask_anew()
            reader.watch(rig.now_ns, 30.0)
            rig.step(render)
            assert rig.lane.next_ns == rig.now_ns + RETRY_NS
            rig.now_ns = rig.lane.next_ns
    assert rig.lane.errors == 3
    assert [record.message.split()[0] for record in caplog.records].count("FASTLANE_WRITER_ERROR") == 1
    assert not reader.has_news


def test_offered_frames_are_taken_when_they_are_due(rig: LaneRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a loop of one's own, as an array or as a function that is called only then."""
    monkeypatch.setattr("runlane.workers.fast_lane.time.monotonic_ns", lambda: rig.now_ns)
    reader = rig.attach()
    rig.lane.offer(rig.render, reward=0.0, env_index=0)
    assert rig.renders == 0
    for frame in (rig.render, FRAME):
        reader.lease.ask_anew()
        reader.watch(rig.now_ns, 30.0)
        rig.now_ns = rig.lane.next_ns
        rig.lane.offer(frame, reward=0.0, env_index=0)
        found = reader.read()
        assert found is not None
        assert found[1] == FRAME.tobytes()
    assert rig.renders == 1


def test_a_viewers_tile_is_known_to_the_environment(rig: LaneRig) -> None:
    """As `wants_tile`, from 1; 0 once nobody asks for one."""
    reader = rig.attach()
    for tile in (3, 0):
        reader.lease.ask_anew()
        reader.watch(rig.now_ns, 30.0, tile)
        rig.now_ns = rig.lane.next_ns
        rig.step()
        assert rig.lane.wants_tile == tile


# ---- figures, ends -------------------------------------------------------------------------------------


def test_its_figures_lie_in_the_run_directory_while_it_lives(rig: LaneRig) -> None:
    """Whole, for whoever scrapes them; gone with the ring."""
    rig.attach()
    rig.steps(300, 10_000_000, 30.0)
    [path] = rig.run_dir.glob("fastlane-*.json")
    assert json.loads(path.read_text())["fps"] == pytest.approx(30, abs=3)
    rig.steps(200, 10_000_000)
    [path] = rig.run_dir.glob("fastlane-*.json")
    assert list(rig.run_dir.iterdir()) == [path]
    found = json.loads(path.read_text())
    assert (found["run"], found["worker"], found["errors"], found["viewers"]) == ("run-1", "w", 0, 0)
    assert found["frames"] == rig.renders
    assert found["bytes"] == rig.renders * FRAME.nbytes
    assert found["fps"] == 0  # nobody watches any more
    assert (found["skipped_unwatched"], found["skipped_rate_capped"]) == (0, 0)  # this session counts no steps
    assert (found["width"], found["height"], found["slots"]) == (6, 4, 4)
    rig.lane.close()
    assert list(rig.run_dir.iterdir()) == []
    assert find_rings(rig.run_dir) == []


def test_being_watched_and_left_is_told(rig: LaneRig, caplog: pytest.LogCaptureFixture) -> None:
    """One line each, with figures every ten seconds between."""
    with caplog.at_level(logging.INFO, "runlane"):
        rig.attach()
        rig.steps(2_100, 10_000_000, 30.0)
        rig.steps(200, 10_000_000)
        rig.lane.close()
    assert [record.message.split()[0] for record in caplog.records] == [
        "FASTLANE_OPENED",
        "FASTLANE_WATCHED",
        "FASTLANE_WRITER_PUBLISH",
        "FASTLANE_WRITER_PUBLISH",
        "FASTLANE_UNWATCHED",
        "FASTLANE_CLOSED",
    ]
    assert all("[FASTLANE]" in record.message for record in caplog.records)


def test_a_viewer_far_behind_is_told(rig: LaneRig, caplog: pytest.LogCaptureFixture) -> None:
    """It holds its lease and reads no more: every ten seconds, with how many frames it is behind."""
    reader = rig.attach()
    rig.steps(2, 50_000_000, 30.0)
    assert reader.read() is not None
    with caplog.at_level(logging.INFO, "runlane"):
        rig.steps(1_100, 10_000_000, 30.0)
    [told] = [record.message for record in caplog.records if "FASTLANE_QUEUE_DEPTH" in record.message]
    assert int(told.split("depth=")[1].split()[0]) > 250


def test_a_ring_that_cannot_be_made_is_told_once(
    rig: LaneRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And tried again: shared memory may have room later."""

    def refuse(*_: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "runlane"):
        patch.setattr("runlane.workers.fast_lane.FastLaneWriter", refuse)
        for _ in range(3):
            assert not rig.step()
            assert rig.lane.next_ns == rig.now_ns + RETRY_NS
            rig.now_ns = rig.lane.next_ns
    assert [record.message.split()[0] for record in caplog.records] == ["FASTLANE_WRITER_ERROR"]
    rig.step()
    assert len(find_rings(rig.run_dir)) == 1


def test_a_forked_child_shows_itself_in_a_ring_of_its_own(rig: LaneRig) -> None:
    """The parent's ring stays as it is, also after the child's end."""
    rig.attach()
    before = find_rings(rig.run_dir)
    pid = os.fork()
    if not pid:
        try:
            rig.step()
            is_right = len(find_rings(rig.run_dir)) == 2
            rig.lane.close()
            os._exit(0 if is_right else 1)
        except BaseException:  # a child of pytest must not go on as pytest
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert find_rings(rig.run_dir) == before


def test_a_ring_that_had_to_be_smaller_is_told(
    rig: LaneRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each size of frames, with what was tried; frames are shown all the same."""
    make = fast_lane_writer.make_file

    def refuse_four(path: Path, size: int) -> int:
        if size > 4_096 + 2 * 256:
            raise OSError(28, "No space left on device")
        return make(path, size)

    monkeypatch.setattr(fast_lane_writer, "make_file", refuse_four)
    reader = rig.attach()
    with caplog.at_level(logging.INFO, "runlane"):
        rig.steps(50, 10_000_000, 30.0)
    [told] = [record.message for record in caplog.records if "FASTLANE_SHORT_OF_MEMORY" in record.message]
    assert "slots=2" in told
    assert "no room for 4 slots" in told
    assert reader.read() is not None


def test_a_look_that_fails_disturbs_nobody(
    rig: LaneRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one at a ring that another thread has closed: told, and tried again in a while."""
    rig.attach()

    def refuse() -> Any:
        raise RuntimeError("somebody else's bug")

    monkeypatch.setattr(rig.session, "ring_info", refuse)
    rig.lane.close()
    lane = rig.new_lane()
    with caplog.at_level(logging.INFO, "runlane"):
        assert not lane.is_due(rig.now_ns)
    assert lane.next_ns == rig.now_ns + RETRY_NS
    assert "somebody else's bug" in caplog.text


def test_a_reward_that_is_no_number_is_no_matter_of_the_trainings(rig: LaneRig) -> None:
    """The frame is not shown."""
    reader = rig.attach()
    reader.watch(rig.now_ns, 30.0)
    rig.now_ns = rig.lane.next_ns
    assert rig.lane.is_due(rig.now_ns)
    rig.lane.show(rig.render, reward=np.zeros(3))
    assert (rig.lane.errors, reader.has_news) == (1, False)


def test_steps_without_a_frame_are_told_by_their_cause(rig: LaneRig) -> None:
    """Nobody watched, or the next frame was not due yet."""
    rig.attach()
    for rate_hz in (0.0, 30.0, 0.0):
        for _ in range(500):
            rig.session.env_steps += 1
            rig.steps(1, 10_000_000, rate_hz)
    figures = rig.lane.figures()
    assert figures["frames"] == rig.renders
    assert figures["skipped_unwatched"] + figures["skipped_rate_capped"] + figures["frames"] == 1_500
    assert 905 <= figures["skipped_unwatched"] <= 965  # the last mark holds for 0.4 to 0.9 s more
