"""The recorder with real rings, moved by hand: its bus is a list, and its clock stands still until it is moved."""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from runlane.actors import recorder, video_file
from runlane.actors.recorder import EpisodeBatch, RecorderActor
from runlane.config.errors import VideoError
from runlane.config.settings import Settings
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.messages import StreamInfo
from runlane.transport.records import EpisodeRecord, Outcome, Record
from runlane.transport.ring_layout import Hud, RingInfo
from runlane.transport.testing import FakeClock

STREAM = "ab" * 16
OTHER = "cd" * 16
FRAME_S = 0.05


class FakeBatch:
    """Episode records of a stream."""

    def __init__(self, stream: str, records: list[Record]) -> None:
        self.info = StreamInfo(stream=stream, run="r", worker="w", host="h", pid=1, started_ns=1)
        self.records = records


class FakeBus:
    """Hands out what the test put into it; its `poll` never waits."""

    def __init__(self) -> None:
        self.waiting: list[FakeBatch] = []
        self.is_closed = False

    def poll(self, timeout_s: float) -> list[EpisodeBatch]:
        assert timeout_s >= 0
        found, self.waiting = self.waiting, []
        return list(found)

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """A recorder, its clock, its bus, and the workers' rings."""

    def __init__(self, settings: Settings, clock: FakeClock, **changed: Any) -> None:
        rule = msgspec.structs.replace(settings.recorder, **{"keep": "all", "fps": 1 / FRAME_S, **changed})
        self.settings = msgspec.structs.replace(settings, recorder=rule)
        self.clock = clock
        self.videos = Path(settings.data_dir) / "videos"
        self.run_dir = Path(str(settings.transport.run_dir))
        self.writers: dict[str, FastLaneWriter] = {}
        self.seq = 0
        self.begin()

    def begin(self) -> None:
        """A new recorder process."""
        self.bus = FakeBus()
        self.actor = RecorderActor(self.settings, self.clock, lambda _: self.bus)
        self.actor.on_start()

    def writer(self, stream: str = STREAM) -> FastLaneWriter:
        """The ring of a stream."""
        if stream not in self.writers:
            self.run_dir.mkdir(exist_ok=True)
            info = RingInfo(run="run-1", worker="w", stream=stream, run_name="walk")
            self.writers[stream] = FastLaneWriter(self.run_dir, info)
            self.turn(recorder.LOOK_S)
        return self.writers[stream]

    def turn(self, seconds: float = FRAME_S) -> None:
        """Time passes, and the recorder works once."""
        self.clock.move(seconds)
        self.actor.do_work(0.0)

    def show(self, episode: int, step: int, *, side: int = 16, stream: str = STREAM, **changed: Any) -> None:
        """A worker shows a step, and the recorder sees it."""
        writer = self.writer(stream)
        self.seq += 1
        now_ns = int(self.clock.monotonic_s() * 1e9)
        hud = Hud(self.seq, now_ns, now_ns, episode + (step << 32), episode_return=float(step))
        writer.publish(np.full((side, side, 3), 99, np.uint8), hud._replace(**changed))
        self.turn()

    def play(self, episode: int, episode_return: float | None = None, frames: int = 2, **changed: Any) -> None:
        """An episode from its first frame to its last; then its record comes, unless it was lost."""
        for step in range(1, frames + 1):
            self.show(episode, step, **changed)
        if episode_return is not None:
            self.tell(episode, episode_return)

    def tell(self, episode: int, episode_return: float, outcome: Outcome = "terminated") -> None:
        """The record of an episode."""
        record = EpisodeRecord(1, 1, 0, episode, episode_return, 2, outcome, 1.0)
        self.bus.waiting.append(FakeBatch(STREAM, [record]))

    def stop(self) -> None:
        """An ordered stop."""
        self.actor.request_stop()
        self.turn()
        assert self.actor.is_drained()
        self.actor.on_close()

    def files(self) -> list[str]:
        """What lies below the directory of all videos, without the streams' names."""
        return sorted(path.name for path in self.videos.rglob("*") if path.is_file())

    def stored(self) -> list[str]:
        """Names of finished videos, each with its sidecar."""
        found = self.files()
        videos = sorted(name.removesuffix(".mp4") for name in found if name.endswith(".mp4"))
        assert sorted(name.removesuffix(".json") for name in found if name.endswith(".json")) == videos
        return videos

    def sidecar(self, name: str, stream: str = STREAM) -> dict[str, Any]:
        """What stands beside a video."""
        found = json.loads((self.videos / stream / f"{name}.json").read_text())
        assert isinstance(found, dict)
        return found  # pyright: ignore[reportUnknownVariableType]

    def close(self) -> None:
        """The end, whatever happened."""
        self.actor.on_close()
        for writer in self.writers.values():
            writer.close()


@contextmanager
def bench(settings: Settings, clock: FakeClock, **changed: Any) -> Generator[Bench]:
    """A bench that is cleared away."""
    made = Bench(settings, clock, **changed)
    try:
        yield made
    finally:
        made.close()


def test_frames_are_cut_into_episodes(settings: Settings, clock: FakeClock) -> None:
    """A video ends with the first frame of the next episode; the running one has no name yet."""
    with bench(settings, clock) as b:
        b.play(1, frames=3)
        b.play(2)
        assert b.files() == ["0-00000001.json", "0-00000001.mp4", "0-00000002.mp4.part"]
        found = b.sidecar("0-00000001")
        assert (found["step_seq"], found["step"], found["is_whole"]) == ([1, 2, 3], [1, 2, 3], True)
        assert (found["worker"], found["run_name"], found["stream"]) == ("w", "walk", STREAM)


def test_a_ring_that_comes_later_is_recorded_beside_the_first(settings: Settings, clock: FakeClock) -> None:
    """Each stream has a directory of its own."""
    with bench(settings, clock) as b:
        b.play(1)
        b.play(1, stream=OTHER)
        b.play(2)
        b.play(2, stream=OTHER)
        assert [b.sidecar("0-00000001", stream)["frames"] for stream in (STREAM, OTHER)] == [2, 2]


def test_the_recorder_asks_for_frames_and_gives_its_lease_back(settings: Settings, clock: FakeClock) -> None:
    """While it runs the worker renders at its rate, and at nobody's afterwards."""
    with bench(settings, clock) as b:
        writer = b.writer()
        wanted = writer.wanted(int(clock.monotonic_s() * 1e9))
        assert wanted is not None
        assert wanted.rate_hz == pytest.approx(20.0)
        b.stop()
        assert writer.wanted(int(clock.monotonic_s() * 1e9)) is None


def test_frames_that_come_too_quickly_are_passed_over(settings: Settings, clock: FakeClock) -> None:
    """Nothing waits for its turn: of what was shown since the last look the newest is taken."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        for step in range(2, 30):
            b.writer().publish(np.zeros((16, 16, 3), np.uint8), Hud(step, place=1 + (step << 32)))
        b.turn()
        b.stop()
        assert b.sidecar("0-00000001")["step"] == [1, 29]
        assert b.actor.statistics()["frames"] == 2


def test_a_worker_that_shows_more_is_read_no_oftener_than_asked(settings: Settings, clock: FakeClock) -> None:
    """Another viewer may have asked for more."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        before = b.actor.statistics()["frames"]
        for step in range(2, 12):
            b.writer().publish(np.zeros((16, 16, 3), np.uint8), Hud(step, place=1 + (step << 32)))
            b.turn(FRAME_S / 10)
        assert b.actor.statistics()["frames"] - before <= 2


def test_another_size_begins_another_part(settings: Settings, clock: FakeClock) -> None:
    """Of the same episode, whose end only the last part has."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        b.show(1, 2, side=32)
        b.show(2, 1, side=32)
        assert b.stored() == ["0-00000001", "0-00000001-2"]
        assert [b.sidecar(name)["is_whole"] for name in b.stored()] == [False, True]
        assert [b.sidecar(name)["width"] for name in b.stored()] == [16, 32]


def test_another_environment_begins_another_video(settings: Settings, clock: FakeClock) -> None:
    """Its episode goes on unseen, so what was seen of it is not whole."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        b.show(1, 1, env_index=3)
        b.stop()
        assert b.stored() == ["0-00000001", "3-00000001"]
        assert not b.sidecar("0-00000001")["is_whole"]


def test_a_result_stands_in_the_sidecar_whenever_it_comes(settings: Settings, clock: FakeClock) -> None:
    """Before the video's end or after it; without one the last frame's return stands there, and says so."""
    with bench(settings, clock) as b:
        b.play(1, 50.0)
        b.show(2, 1)
        b.show(3, 1)
        assert b.sidecar("0-00000002")["return_source"] == "frame"
        b.tell(2, 60.0)
        b.turn()
        b.stop()
        found = [b.sidecar(f"0-0000000{episode}") for episode in (1, 2, 3)]
        assert [one["return_source"] for one in found] == ["bus", "bus", "frame"]
        assert [one["episode_return"] for one in found] == [50.0, 60.0, 1.0]
        assert [one["outcome"] for one in found] == ["terminated", "terminated", None]


def test_a_result_may_come_before_the_first_frame(settings: Settings, clock: FakeClock) -> None:
    """Of a short episode whose only frame was read late."""
    with bench(settings, clock) as b:
        b.tell(1, 50.0)
        b.turn()
        b.play(1)
        b.play(2)
        assert b.sidecar("0-00000001")["episode_return"] == 50.0


def test_only_the_newest_results_are_remembered(
    settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most are of episodes that nobody saw."""
    monkeypatch.setattr(recorder, "MAX_RESULTS", 2)
    with bench(settings, clock) as b:
        for episode in (1, 2, 3):
            b.tell(episode, 50.0)
        b.turn()
        for episode in (1, 2, 3):
            b.play(episode)
        b.stop()
        sources = [b.sidecar(f"0-0000000{episode}")["return_source"] for episode in (1, 2, 3)]
        assert sources == ["frame", "bus", "bus"]


def test_an_ended_episode_is_finished_though_nothing_follows(settings: Settings, clock: FakeClock) -> None:
    """A worker that learns between episodes shows nothing for a while."""
    with bench(settings, clock) as b:
        b.play(1, 5.0)
        b.turn()
        assert b.stored() == []
        b.turn(recorder.QUIET_S + 0.1)
        assert b.stored() == ["0-00000001"]
        assert b.sidecar("0-00000001")["is_whole"]


def test_a_stop_finishes_the_running_episode(settings: Settings, clock: FakeClock) -> None:
    """With what was shown last; marked, because its end was not seen."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        b.writer().publish(np.zeros((16, 16, 3), np.uint8), Hud(2, place=1 + (2 << 32)))
        b.stop()
        assert b.files() == ["0-00000001.json", "0-00000001.mp4"]
        assert (b.sidecar("0-00000001")["step"], b.sidecar("0-00000001")["is_whole"]) == ([1, 2], False)


def test_a_worker_that_is_gone_has_its_video_finished(settings: Settings, clock: FakeClock) -> None:
    """Its last frame included; a record that comes later still makes it whole."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        b.writer().publish(np.zeros((16, 16, 3), np.uint8), Hud(2, place=1 + (2 << 32)))
        b.writers.pop(STREAM).close()
        b.turn()
        b.turn(recorder.LOOK_S)
        assert b.sidecar("0-00000001")["step"] == [1, 2]
        assert not b.sidecar("0-00000001")["is_whole"]
        assert b.actor.statistics()["rings"] == 0
        b.tell(1, 2.0)
        b.turn()
        assert b.sidecar("0-00000001")["is_whole"]


def test_an_episode_that_was_cut_off_is_not_whole(settings: Settings, clock: FakeClock) -> None:
    """Though another one follows: its record says that it was abandoned."""
    with bench(settings, clock) as b:
        b.play(1)
        b.tell(1, 2.0, "abandoned")
        b.play(2)
        b.play(3)
        b.tell(2, 2.0, "abandoned")
        b.turn()
        assert [b.sidecar(name)["is_whole"] for name in b.stored()] == [False, False]


def test_only_the_last_episodes_stay(settings: Settings, clock: FakeClock) -> None:
    """Pairs go together."""
    with bench(settings, clock, keep="last", keep_count=2) as b:
        for episode in range(1, 6):
            b.play(episode)
        assert b.stored() == ["0-00000003", "0-00000004"]
        assert b.actor.statistics()["removed"] == 2


def test_unwanted_episodes_are_not_encoded(settings: Settings, clock: FakeClock) -> None:
    """Of "every" third one nothing is done for the others."""
    with bench(settings, clock, keep="every", keep_count=3) as b:
        for episode in range(1, 8):
            b.play(episode)
        assert b.stored() == ["0-00000003", "0-00000006"]
        assert b.actor.statistics()["frames"] == 4


def test_the_best_stay_by_what_the_bus_says(settings: Settings, clock: FakeClock) -> None:
    """Whatever the frames' HUD said."""
    with bench(settings, clock, keep="best", keep_count=2) as b:
        for episode, episode_return in enumerate((3.0, 9.0, 1.0, 7.0), 1):
            b.play(episode, episode_return)
        b.turn(recorder.QUIET_S + 0.1)
        assert b.stored() == ["0-00000002", "0-00000004"]


def test_a_lost_record_is_waited_for_and_then_replaced_by_the_hud(settings: Settings, clock: FakeClock) -> None:
    """Until then the episode stays beside the best."""
    with bench(settings, clock, keep="best", keep_count=1) as b:
        b.play(1, frames=4)
        b.play(2, 3.0)
        b.play(3, 1.0)
        b.show(4, 1)
        assert b.stored() == ["0-00000001", "0-00000002"]
        b.turn(recorder.RESULT_S)
        assert b.stored() == ["0-00000001"]
        assert b.sidecar("0-00000001")["return_source"] == "frame"


def test_the_budget_takes_the_oldest_and_is_known_again_after_a_restart(settings: Settings, clock: FakeClock) -> None:
    """Sizes and order come from the sidecars."""
    with bench(settings, clock) as b:
        for episode in range(1, 6):
            b.play(episode)
        b.stop()
        assert len(b.stored()) == 5
        size = sum(path.stat().st_size for path in b.videos.rglob("0-*"))
        assert b.actor.statistics()["bytes"] == size
        rule = msgspec.structs.replace(b.settings.recorder, max_bytes=size - 1)
        b.settings = msgspec.structs.replace(b.settings, recorder=rule)
        b.begin()
        assert b.stored() == [f"0-0000000{episode}" for episode in range(2, 6)]


def test_what_a_killed_recorder_left_is_removed_and_the_episode_goes_on(settings: Settings, clock: FakeClock) -> None:
    """Under the same name, because the dead one's never had it."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        part = b.videos / STREAM / "0-00000001.mp4.part"
        left = part.read_bytes()
        b.actor.on_close()
        part.write_bytes(left)
        b.begin()
        assert b.files() == []
        b.turn(recorder.LOOK_S)
        b.show(1, 2)
        b.show(2, 1)
        assert b.stored() == ["0-00000001"]
        assert b.sidecar("0-00000001")["step"][-1] == 2


def test_after_an_ordered_restart_the_episode_has_another_part(settings: Settings, clock: FakeClock) -> None:
    """The first one stays as it is."""
    with bench(settings, clock) as b:
        b.show(1, 1)
        b.stop()
        b.begin()
        b.turn(recorder.LOOK_S)
        b.show(1, 2)
        b.show(2, 1)
        assert b.stored() == ["0-00000001", "0-00000001-2"]


def test_a_full_disk_costs_the_video_and_not_the_recorder(
    settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on a while later."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with bench(settings, clock) as b:
        b.show(1, 1)
        with monkeypatch.context() as patched:
            patched.setattr(video_file.VideoFile, "add", fail)
            b.show(1, 2)
        assert (b.files(), b.actor.statistics()["failed"]) == ([], 1)
        b.show(1, 3)
        assert b.files() == []
        b.turn(recorder.RETRY_S)
        b.show(1, 4)
        b.stop()
        assert b.sidecar("0-00000001")["step"] == [4]


def test_a_long_episode_is_cut_into_parts(
    settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one that never ends does not grow for ever, and falls under the budget."""
    monkeypatch.setattr(recorder, "MAX_FRAMES", 3)
    with bench(settings, clock) as b:
        b.play(1, frames=7)
        assert b.stored() == ["0-00000001", "0-00000001-2"]


def test_what_is_not_recorded_is_kept_under_its_rings_name(settings: Settings, clock: FakeClock) -> None:
    """Without a stream there are no seqs and no results, and nothing to wait for."""
    with bench(settings, clock, keep="best", keep_count=1) as b:
        for episode, frames in ((1, 2), (2, 5), (3, 3), (4, 1)):
            b.play(episode, frames=frames, stream="", step_seq=0)
        assert b.stored() == ["0-00000002"]
        found = b.sidecar("0-00000002", b.writer("").path.name)
        assert (found["stream"], found["step_seq"]) == ("", [0] * 5)


def test_many_short_episodes_do_not_fill_the_log(
    settings: Settings, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line a second of each kind, which counts the others."""
    caplog.set_level("INFO", "runlane")
    with bench(settings, clock, keep="last", keep_count=1) as b:
        for episode in range(1, 31):  # a second and a half
            b.play(episode, frames=1)
        lines = [record.getMessage() for record in caplog.records]
        for log_id in ("FASTLANE_RECORDED", "FASTLANE_VIDEO_REMOVED"):
            found = [line for line in lines if line.startswith(log_id)]
            assert len(found) == 2
            assert found[0].endswith("others=0")
            assert int(found[1].rpartition("=")[2]) > 15


def test_two_recorders_do_not_share_a_directory(settings: Settings, clock: FakeClock) -> None:
    """Each would remove the other's running videos."""
    with bench(settings, clock) as b:
        second = RecorderActor(b.settings, clock, lambda _: FakeBus())
        with pytest.raises(VideoError, match="another recorder"):
            second.on_start()
        second.on_close()


def test_the_bus_is_left_at_the_end(settings: Settings, clock: FakeClock) -> None:
    """Its place in the router is free again."""
    with bench(settings, clock) as b:
        b.stop()
        assert b.bus.is_closed


def test_videos_of_a_deleted_run_are_let_go(settings: Settings, clock: FakeClock) -> None:
    """Whoever removes a stream's directory beside us: its videos do not count for the budget any more."""
    with bench(settings, clock) as b:
        b.play(1, 5.0)
        b.play(2, 5.0)
        b.stop()
        b.begin()
        held = b.actor.statistics()
        assert (held["videos"], held["bytes"] > 0) == (2, True)
        shutil.rmtree(b.videos / STREAM)
        b.turn(recorder.SHELF_LOOK_S)
        left = b.actor.statistics()
        assert (left["videos"], left["bytes"], left["removed"]) == (0, 0, 0)
