"""FastLaneConsumer: one worker's pictures for the window, copied when they are painted and not before.

It holds a `LaneFollower` only while its tile can be seen and runs, so that a worker renders for nobody else. Pixels go
from the ring into buffers of ours, each wrapped once in a QImage; nothing here draws, and no widget is imported.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from PySide6.QtCore import QMetaMethod, QObject, Signal
from PySide6.QtGui import QImage

from runlane.config.errors import FastLaneError
from runlane.transport.fast_lane_reader import FastLaneMetrics, FastLaneReader
from runlane.transport.lane_follower import LaneFollower
from runlane.transport.ring_files import FoundRing, newest_ring
from runlane.transport.ring_layout import Geometry, Hud

VIEWER = "window"
SILENT_NS = 1_500_000_000  # without a frame so long, though one was asked for
RECONNECT_NS = 10_000_000_000  # a lost ring is expected back so long
BUFFERS = 2  # one may still wait for its upload while the next is filled
_FORMATS = {1: QImage.Format.Format_Grayscale8, 3: QImage.Format.Format_RGB888, 4: QImage.Format.Format_RGBA8888}


class LaneState(StrEnum):
    """What a tile says of its lane."""

    WAITING = "waiting"  # no agent, or no frame of it, yet
    LIVE = "live"
    PAUSED = "paused"  # by the viewer
    STALLED = "stalled"  # the worker lives, and makes no frame that we asked for
    RECONNECTING = "reconnecting"  # its ring is gone, for a moment so far
    ENDED = "ended"  # its ring is gone


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """What belongs to a frame that was fetched. `metrics` are of the lane since `start`; times in milliseconds."""

    hud: Hud
    geometry: Geometry
    metrics: FastLaneMetrics


class FastLaneConsumer(QObject):
    """Follows one worker of one run. For the window's thread; times are monotonic nanoseconds, and arguments.

    Whoever draws calls `poll` often, asks for a repaint when it is true, and calls `fetch` as it paints.
    """

    frame_ready = Signal(object, object)
    """(QImage, ShownFrame) after a fetch, where somebody is connected: a copy, to keep. Not the way to the wall."""

    def __init__(self, parent: QObject | None = None, *, rate_hz: float = 60.0) -> None:
        """`rate_hz` is what is asked of the worker, which has a limit of its own."""
        super().__init__(parent)
        self.image: QImage | None = None
        """The newest frame fetched, in a buffer that is written over by the next fetch but one: copy to keep."""
        self.hud: Hud | None = None
        self.rate_hz = rate_hz
        self._lane: tuple[Path, str, str] | None = None
        self._follower: LaneFollower | None = None
        self._reader: FastLaneReader | None = None
        self._env_tile = 0
        self._is_watching = self._is_paused = False
        self._since_ns = 0  # from when on frames are missed
        self._lost_ns: int | None = None
        self._before = (0, 0, 0)  # frames, lapped and torn of readers that are closed
        self._geometry: Geometry | None = None
        self._buffers: list[bytearray] = []
        self._images: list[QImage] = []
        self._retired: list[bytearray] = []
        self._next = 0
        self._signal = QMetaMethod.fromSignal(self.frame_ready)

    # ---- which lane, and whether it is watched ----

    def start(self, run_dir: Path, run: str, worker: str) -> None:
        """Follow this worker from the next `poll` on; `run` and `worker` as of `LaneFollower`. What was before ends."""
        self.stop()
        self._lane = (run_dir, run, worker)
        self._is_watching = True

    def stop(self) -> None:
        """Give lease, ring and buffers back. Again: nothing."""
        self._release()
        self._lane = self.image = self.hud = self._geometry = self._lost_ns = None
        self._images, self._buffers, self._retired = [], [], []
        self._before = (0, 0, 0)
        self._env_tile = 0
        self._is_watching = False

    def set_watching(self, is_watching: bool) -> None:
        """Whether anybody can see it. Without, the lease is given back at once; the last picture stays."""
        self._is_watching = is_watching and self._lane is not None
        if not self._is_watching:
            self._release()

    def set_paused(self, is_paused: bool) -> None:
        """Hold the picture: no lease, no copies."""
        self._is_paused = is_paused
        if is_paused:
            self._release()

    def set_rate(self, rate_hz: float) -> None:
        """Ask for another rate, in frames a second, above 0."""
        if rate_hz == self.rate_hz:
            return
        self.rate_hz = rate_hz
        if self._follower is not None:
            self._follower.rate_hz = rate_hz
            self._follower.promote(self._env_tile)  # marks the lease anew

    def promote_env(self, tile: int) -> None:
        """Ask for environment `tile` (from 1) of a vector environment alone; 0: for what the worker shows by itself."""
        self._env_tile = tile
        if self._follower is not None:
            self._follower.promote(tile)

    @property
    def is_started(self) -> bool:
        """Whether it has a lane to follow."""
        return self._lane is not None

    @property
    def is_attached(self) -> bool:
        """Whether there is a ring that we hold."""
        return self._reader is not None

    @property
    def is_paused(self) -> bool:
        """Whether the picture is held."""
        return self._is_paused

    @property
    def since_ns(self) -> int:
        """From when on this lane has been watched; what was published earlier is late by no fault of ours."""
        return self._since_ns

    # ---- frames ----

    def poll(self, now_ns: int, rings: list[FoundRing] | None = None) -> bool:
        """Keep lease and ring, and say whether a frame waits to be fetched. Cheap: a tick may call it for each tile.

        `rings` are those that were found last, for the whole wall at once; None lets the lane look for itself.
        """
        if self._lane is None or not self._is_watching or self._is_paused:
            return False
        if self._reader is None and rings is not None and newest_ring(rings, *self._lane[1:]) is None:
            self._note_loss(now_ns)
            return False
        follower = self._follower
        if follower is None:
            follower = LaneFollower(*self._lane, rate_hz=self.rate_hz, viewer=VIEWER)
            follower.tile = self._env_tile
            self._follower, self._since_ns = follower, now_ns
        has_news = follower.poll(now_ns)
        if follower.reader is not self._reader:
            self._count_reader()
            self._reader, self._since_ns = follower.reader, now_ns
        if self._reader is None:
            self._note_loss(now_ns)
        else:
            self._lost_ns = None
        return has_news

    def fetch(self, now_ns: int) -> bool:
        """Copy the newest frame into `image` and `hud`; False when there is nothing newer. To be called at paint."""
        reader = self._reader
        if reader is None:
            return False
        geometry = reader.geometry
        if geometry is None:
            return False
        if geometry != self._geometry:
            self._make_buffers(geometry)
        try:
            hud = reader.read_into(self._buffers[self._next])
        except FastLaneError:  # the size has changed in this very moment: the next paint has it
            return False
        if hud is None:
            return False
        self.image, self.hud = self._images[self._next], hud
        self._next = (self._next + 1) % BUFFERS
        if self.isSignalConnected(self._signal):
            self.frame_ready.emit(self.image.copy(), ShownFrame(hud, geometry, self.metrics(now_ns)))
        return True

    def metrics(self, now_ns: int) -> FastLaneMetrics:
        """Figures since `start`, over all rings of the lane."""
        frames, lapped, torn = self._before
        reader = self._reader
        if reader is None:
            age_ms = None if self.hud is None else (now_ns - self.hud.mono_ns) / 1e6
            return FastLaneMetrics(frames, lapped, torn, 0, age_ms)
        found = reader.metrics(now_ns)
        counts = frames + found.frames, lapped + found.lapped, torn + found.torn
        return FastLaneMetrics(*counts, found.lag_frames, found.age_ms)

    # ---- state ----

    def state(self, now_ns: int) -> LaneState:
        """What the lane is in now. Only what was asked for can be missed: a held or hidden lane is never silent."""
        if self._is_paused:
            return LaneState.PAUSED
        if self._lost_ns is not None:
            return LaneState.RECONNECTING if now_ns - self._lost_ns < RECONNECT_NS else LaneState.ENDED
        if self.hud is None:
            return LaneState.WAITING
        limit_ns = max(SILENT_NS, int(3e9 / self.rate_hz))  # a lane asked for slowly is slow
        is_silent = self._is_watching and self.silent_ns(now_ns) > limit_ns
        return LaneState.STALLED if is_silent else LaneState.LIVE

    def silent_ns(self, now_ns: int) -> int:
        """How long no frame has come that could have, in nanoseconds."""
        last_ns = self.hud.mono_ns if self.hud is not None else 0
        return max(0, now_ns - (last_ns if self._lost_ns is not None else max(last_ns, self._since_ns)))

    # ---- own affairs ----

    def _note_loss(self, now_ns: int) -> None:
        if self._lost_ns is None and self.hud is not None:
            self._lost_ns = now_ns

    def _release(self) -> None:
        self._count_reader()
        if self._follower is not None:
            self._follower.close()
        self._follower = None

    def _count_reader(self) -> None:
        """Remember the figures of a reader that is no more ours; only these outlive its ring."""
        if self._reader is not None:
            frames, lapped, torn = self._before
            reader = self._reader
            self._before = (frames + reader.frames, lapped + reader.lapped, torn + reader.torn)
        self._reader = None

    def _make_buffers(self, geometry: Geometry) -> None:
        width, height, channels = geometry
        self._retired = self._buffers  # what is on screen may not be uploaded yet
        self._buffers = [bytearray(geometry.frame_bytes) for _ in range(BUFFERS)]
        self._images = [QImage(buffer, width, height, width * channels, _FORMATS[channels]) for buffer in self._buffers]
        self._geometry, self._next = geometry, 0
