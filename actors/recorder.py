"""The recorder: stores video of episodes beside the database. A viewer of every ring, and a subscriber of the RunBus.

It copies the newest frame of each ring, encodes it there and then, and looks for the next: what comes meanwhile is
passed over, as a ring allows, so nothing ever waits in a queue. Frames say which episode they belong to; how an episode
ended says its record, which comes some time after its last frame, or is lost: then the last frame's HUD has to do.
"""

import contextlib
import fcntl
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runlane.actors import video_file
from runlane.actors.video_file import MAX_FRAMES, VIDEO_DIR, Pixels, Result, VideoFile
from runlane.actors.video_rules import EpisodeKey, Video, is_wanted, over_budget, surplus
from runlane.config import log_ids
from runlane.config.errors import FastLaneError, VideoError, WireError
from runlane.config.log_ids import LogId
from runlane.config.names import RECORDER
from runlane.config.settings import RecorderSettings, Settings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import data_dir_of, run_dir_of
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import EpisodeRecord, Record
from runlane.transport.ring_files import find_rings, ring_directories
from runlane.transport.ring_layout import Geometry, Hud
from runlane.transport.subscriber import Subscriber

LOOK_S = 0.25
SHELF_LOOK_S = 5.0
# Rings are looked at twice as often as frames are asked for, so that two clocks of one rate do not miss each other;
# and a worker that shows more, for another viewer, is read hardly oftener than asked. A frame that comes early waits in
# the ring: workers step in a rhythm of their own, and show every 20 or 40 ms where 33 are asked for.
LOOKS_PER_FRAME = 2
LEAST_GAP = 0.9
# One turn encodes for so long, then heartbeat and RunBus have theirs.
TURN_S = 0.1
# An ended episode of which nothing more is shown; how long a record may be late; how long a full disk is left alone.
QUIET_S = 1.0
RESULT_S = 10.0
RETRY_S = 5.0
# Where training outruns the frames, each of 30 frames a second may be another episode: not each is worth two lines.
TOLD_S = 1.0
MAX_RESULTS = 16_384
MAX_DELIVERIES = 1_000
_STREAM = re.compile("[0-9a-f]{32}")


class EpisodeBatch(Protocol):
    """What is used of a `RecordBatch`."""

    @property
    def info(self) -> StreamInfo: ...  # noqa: D102
    @property
    def records(self) -> list[Record]: ...  # noqa: D102


class EpisodeBus(Protocol):
    """What is used of a `Subscriber`."""

    def poll(self, timeout_s: float) -> Sequence[EpisodeBatch]: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


def _join(settings: Settings) -> EpisodeBus:
    return Subscriber(RECORDER, kinds=["episode"], settings=settings)


class _Often:
    """A line of the log that would come too often: one a second, which counts the `others` since the one before."""

    def __init__(self, log_id: LogId, clock: Clock) -> None:
        self._log_id, self._clock = log_id, clock
        self._next_s = 0.0
        self._others = 0

    def tell(self, **facts: object) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._next_s:
            self._others += 1
            return
        log_event(self._log_id, **facts, others=self._others)
        self._next_s, self._others = now_s + TOLD_S, 0


class VideoShelf:
    """The finished videos of a data directory: what the rules say is done here. One process at a time has it."""

    def __init__(self, directory: Path, rule: RecorderSettings, clock: Clock) -> None:
        """Take the directory, remove what a killed recorder left. Raises `VideoError` where another one has it."""
        self.directory = directory
        self.size = self.removed = 0
        self._rule = rule
        self._removals = _Often(log_ids.FASTLANE_VIDEO_REMOVED, clock)
        directory.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise VideoError(f"another recorder writes into {directory}") from None
        except OSError:  # a file system without locks: who shares it has to know
            pass
        for name in video_file.sweep(directory):
            log_event(log_ids.FASTLANE_VIDEO_REMOVED, video=name, reason="unfinished")
        self._videos: dict[str, Video] = {}  # oldest first
        self._episodes: dict[tuple[str, int], dict[int, list[Video]]] = {}
        for video in video_file.scan(directory):
            self._add(video)
        self._keep_budget()

    def __len__(self) -> int:
        return len(self._videos)

    def parts(self, key: EpisodeKey) -> list[Video]:
        """Finished videos of an episode."""
        return self._episodes.get((key.folder, key.env_index), {}).get(key.episode, [])

    def put(self, video: Video) -> None:
        """Take a finished video, or another version of it, and remove what the rules do not want any more."""
        before = self._videos.get(video.name)
        if before is None:
            self._add(video)
        else:
            self._videos[video.name] = video
            parts = self.parts(video.key)
            parts[parts.index(before)] = video
        environment = self._episodes[video.key.folder, video.key.env_index]
        for found in surplus(self._rule, (part for parts in environment.values() for part in parts)):
            self._remove(found, f"keep {self._rule.keep} {self._rule.keep_count}")
        self._keep_budget()

    def settle(self, key: EpisodeKey, episode_return: float) -> None:
        """The return of an episode by which it is judged; that of a record overrules an earlier one."""
        for video in list(self.parts(key)):
            if video.name in self._videos:
                self.put(video._replace(episode_return=episode_return))

    def forget_gone(self) -> None:
        """Let go of videos whose stream's directory is gone: the DB writer removes those of a run that is deleted."""
        try:
            there = {entry.name for entry in os.scandir(self.directory)}
        except OSError:
            return
        for video in [video for video in self._videos.values() if video.key.folder not in there]:
            self._forget(video)

    def _add(self, video: Video) -> None:
        self._videos[video.name] = video
        environment = self._episodes.setdefault((video.key.folder, video.key.env_index), {})
        environment.setdefault(video.key.episode, []).append(video)
        self.size += video.size

    def _keep_budget(self) -> None:
        for video in over_budget(self._videos.values(), self.size, self._rule.max_bytes):
            self._remove(video, f"max_bytes {self._rule.max_bytes}")

    def _remove(self, video: Video, reason: str) -> None:
        with contextlib.suppress(OSError):  # left there, it is found at the next start
            video_file.remove(self.directory, video)
        self._removals.tell(video=video.name, reason=reason)
        self._forget(video)
        self.removed += 1

    def _forget(self, video: Video) -> None:
        del self._videos[video.name]
        self.size -= video.size
        environment = self._episodes[video.key.folder, video.key.env_index]
        environment[video.key.episode].remove(video)
        if not environment[video.key.episode]:
            del environment[video.key.episode]

    def close(self) -> None:
        """Let another recorder have it. Again: nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Lane:
    """One ring: its reader, and the video of the episode that it shows."""

    def __init__(self, reader: FastLaneReader) -> None:
        self.reader = reader
        stream = reader.info.stream
        # Without a stream nothing is recorded: the ring's name is as unique, and no result will come.
        self.folder = stream if _STREAM.fullmatch(stream) else reader.path.name
        self.video: VideoFile | None = None
        self.is_parting = False
        self.due_s = self.retry_s = self.shown_s = 0.0
        self.pixels: Pixels = np.empty(0, np.uint8)

    def take(self) -> tuple[Hud, Geometry] | None:
        """Copy the newest frame into `pixels`; None when there is none that was not read yet."""
        reader = self.reader
        try:
            if not reader.has_news or (geometry := reader.geometry) is None:
                return None
            if self.pixels.shape != geometry.shape:
                self.pixels = np.empty(geometry.shape, np.uint8)
            hud = reader.read_into(self.pixels)
        except (FastLaneError, OSError):  # frames have changed their size since, or this ring is damaged
            return None
        return None if hud is None or reader.geometry != geometry else (hud, geometry)

    def key_of(self, hud: Hud) -> EpisodeKey:
        return EpisodeKey(self.folder, hud.env_index, hud.episode)


class RecorderActor:
    """The recorder process."""

    name = RECORDER

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        join: Callable[[Settings], EpisodeBus] | None = None,
    ) -> None:
        """`join` makes the subscriber; a test has its own."""
        self.settings = settings
        self.clock = clock or SystemClock()
        self._rule = settings.recorder
        self._join: Callable[[Settings], EpisodeBus] = join or _join
        self._run_dir = run_dir_of(settings)
        self._lanes: dict[Path, _Lane] = {}
        self._results: OrderedDict[EpisodeKey, Result] = OrderedDict()  # of the newest episodes, seen or not
        self._unsettled: dict[EpisodeKey, tuple[float, float]] = {}  # until when, and the return by the HUD
        self._told = _Often(log_ids.FASTLANE_RECORDED, self.clock)
        self._next_look_s = self._next_turn_s = self._next_shelf_look_s = 0.0
        self._is_stopping = self._is_drained = False
        self._frames = self._lapped = self._recorded = self._failed = 0

    # ---- life ----

    def on_start(self) -> None:
        """Take the videos and subscribe. Raises `VideoError` without PyAV, or beside another recorder."""
        video_file.check_av()
        self._shelf = VideoShelf(data_dir_of(self.settings) / VIDEO_DIR, self._rule, self.clock)
        self._bus = self._join(self.settings)

    def do_work(self, timeout_s: float) -> None:
        """Results of episodes, until the next frames are due; then those frames."""
        wait_s = min(timeout_s, max(0.0, self._next_turn_s - self.clock.monotonic_s()))
        self._take_results(0.0 if self._is_stopping else wait_s)
        now_s = self.clock.monotonic_s()
        if now_s >= self._next_look_s:
            self._look(now_s)
        if now_s >= self._next_turn_s:
            self._next_turn_s = now_s + (1 / (LOOKS_PER_FRAME * self._rule.fps) if self._lanes else LOOK_S)
            self._turn(now_s)
        self._judge(now_s)
        if self._is_stopping and not self._is_drained:
            self._end()

    def request_stop(self) -> None:
        """The running videos end with what is shown now."""
        self._is_stopping = True

    def is_drained(self) -> bool:
        """Whether they are finished."""
        return self._is_drained

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat; `lapped` were shown and not recorded."""
        return {
            "rings": len(self._lanes),
            "frames": self._frames,
            "lapped": self._lapped + sum(lane.reader.lapped for lane in self._lanes.values()),
            "recorded": self._recorded,
            "failed": self._failed,
            "videos": len(self._shelf),
            "bytes": self._shelf.size,
            "removed": self._shelf.removed,
        }

    def on_close(self) -> None:
        """Let every ring and the directory go. After an error the running videos are lost."""
        for lane in self._lanes.values():
            if lane.video is not None:
                lane.video.discard()
            lane.reader.close()
        self._lanes.clear()
        if hasattr(self, "_bus"):
            self._bus.close()
        if hasattr(self, "_shelf"):
            self._shelf.close()

    def _end(self) -> None:
        """What the workers showed last, then the end of all videos: nothing more will be known of them."""
        for _ in range(MAX_DELIVERIES):
            if not self._take_results(0.0):
                break
        for lane in self._lanes.values():
            self._show(lane, self.clock.monotonic_s())
            self._finish(lane)
        for key, (_, seen) in self._unsettled.items():
            self._shelf.settle(key, seen)
        self._unsettled.clear()
        self._is_drained = True

    # ---- rings ----

    def _look(self, now_s: float) -> None:
        """Attach to new rings, let go of those whose worker is gone."""
        self._next_look_s = now_s + LOOK_S
        if now_s >= self._next_shelf_look_s:
            self._next_shelf_look_s = now_s + SHELF_LOOK_S
            self._shelf.forget_gone()
        for path, lane in list(self._lanes.items()):
            if lane.reader.is_writer_alive:
                continue
            if not lane.reader.has_news or lane.is_parting:
                self._finish(lane)
                log_event(log_ids.FASTLANE_DISCONNECTED, viewer=self.name, ring=path.name)
                self._lapped += lane.reader.lapped
                lane.reader.close()
                del self._lanes[path]
            lane.is_parting = True  # its last frame gets until the next look; it may be one that nobody can read
        for ring in find_rings(self._run_dir):
            if ring.path not in self._lanes:
                with contextlib.suppress(FastLaneError, OSError):  # gone in this very moment
                    self._lanes[ring.path] = _Lane(FastLaneReader(ring.path, ring_directories(self._run_dir)))
                    self._next_turn_s = 0.0
                    info = ring.info
                    log_event(
                        log_ids.FASTLANE_CONNECTED,
                        viewer=self.name,
                        ring=ring.path.name,
                        run=info.run,
                        worker=info.worker,
                    )

    def _turn(self, now_s: float) -> None:
        """A frame of each ring that has one; those the time does not suffice for are the first next time."""
        for path, lane in list(self._lanes.items()):
            lane.reader.watch(int(now_s * 1e9), self._rule.fps)
            if self.clock.monotonic_s() - now_s > TURN_S:
                continue
            if now_s >= lane.due_s and self._show(lane, now_s):
                lane.due_s = max(lane.due_s + LEAST_GAP / self._rule.fps, now_s)
                self._lanes[path] = self._lanes.pop(path)  # behind all others
            elif lane.video is not None and now_s - lane.shown_s > QUIET_S and lane.video.key in self._results:
                self._finish(lane)

    def _show(self, lane: _Lane, now_s: float) -> bool:
        """Encode the newest frame, if there is one that was not read yet."""
        taken = lane.take()
        if taken is None:
            return False
        hud, geometry = taken
        key, video = lane.key_of(hud), lane.video
        if video is not None and (video.key, video.geometry, video.tile) != (key, geometry, hud.tile):
            has_ended = video.key.env_index == key.env_index and video.key.episode != key.episode
            self._finish(lane, has_ended=has_ended)
        elif video is not None and video.frames >= MAX_FRAMES:
            self._finish(lane)
        lane.shown_s = now_s
        if is_wanted(self._rule, key.episode) and now_s >= lane.retry_s:
            self._encode(lane, key, hud, geometry)
        return True

    def _encode(self, lane: _Lane, key: EpisodeKey, hud: Hud, geometry: Geometry) -> None:
        try:
            if lane.video is None:
                part = 1 + max((video.part for video in self._shelf.parts(key)), default=0)
                lane.video = VideoFile(self._shelf.directory, key, part, lane.reader.info, hud, geometry)
            lane.video.add(hud, lane.pixels)
        except (OSError, ValueError) as error:
            self._give_up(lane, error)
        else:
            self._frames += 1

    def _finish(self, lane: _Lane, *, has_ended: bool = False) -> None:
        """The running video is whole: its file gets its name, and the rules have their say."""
        video = lane.video
        if video is None:
            return
        result = self._results.get(video.key)
        is_whole = has_ended if result is None else result.is_end
        try:
            done = video.finish(self.clock.wall_ns(), result, is_whole=is_whole)
        except (OSError, ValueError) as error:
            self._give_up(lane, error)
            return
        lane.video = None
        self._recorded += 1
        self._told.tell(video=done.name, frames=video.frames, bytes=done.size, is_whole=is_whole)
        if result is None and lane.reader.info.stream == lane.folder:
            self._unsettled[video.key] = (self.clock.monotonic_s() + RESULT_S, video.last_return)
        elif result is None:
            done = done._replace(episode_return=video.last_return)
        self._shelf.put(done)

    def _give_up(self, lane: _Lane, error: Exception) -> None:
        """A full disk, or a size no encoder takes. Neither is mended by the next frame."""
        name = lane.folder
        if lane.video is not None:
            lane.video.discard()
            name, lane.video = lane.video.name, None
        log_event(log_ids.FASTLANE_VIDEO_FAILED, video=name, error=str(error))
        lane.retry_s = self.clock.monotonic_s() + RETRY_S
        self._failed += 1

    # ---- results ----

    def _take_results(self, timeout_s: float) -> bool:
        """What the RunBus has of ended episodes; False when nothing came."""
        batches = self._bus.poll(timeout_s)
        for batch in batches:
            try:
                records = batch.records
            except WireError:  # what that was the router's other subscribers say
                continue
            for record in records:
                if isinstance(record, EpisodeRecord):
                    self._take(batch.info.stream, record)
        return bool(batches)

    def _take(self, stream: str, record: EpisodeRecord) -> None:
        key = EpisodeKey(stream, record.env_index, record.episode)
        result = Result(record.episode_return, record.length, record.outcome)
        self._results[key] = result
        if len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)
        parts = self._shelf.parts(key)
        for video in parts:
            is_whole = result.is_end and video is parts[-1]
            video_file.set_result(self._shelf.directory, video, result, is_whole=is_whole)
        self._unsettled.pop(key, None)
        self._shelf.settle(key, result.episode_return)

    def _judge(self, now_s: float) -> None:
        """Records that do not come any more are not waited for."""
        while self._unsettled:
            key, (until_s, seen) = next(iter(self._unsettled.items()))
            if now_s < until_s:
                return
            del self._unsettled[key]
            self._shelf.settle(key, seen)
