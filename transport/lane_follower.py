"""LaneFollower: watches one worker's fast lane over all its rings, through restarts and whatever dies.

What a viewer holds instead of a reader: it finds the ring, attaches, keeps the lease alive, notices that the worker
is gone, and attaches to its next one. Never waits; `poll` is to be called as often as a picture is wanted.
"""

from pathlib import Path
from typing import Any

from runlane.config import log_ids
from runlane.config.errors import FastLaneError
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.log import log_event
from runlane.transport.ring_files import find_rings, newest_ring, ring_directories
from runlane.transport.ring_layout import Geometry, Hud, RingInfo

LOOK_NS = 250_000_000
FPS_NS = 1_000_000_000
LAG_TOLD_NS = 10_000_000_000
# A viewer that sees less of the frames, and less than it asked for, is told about, at most every ten seconds.
SEEN_SHARE = 0.5


class LaneFollower:
    """One viewer's view of one worker. For one thread; times are monotonic nanoseconds, and arguments."""

    def __init__(
        self, run_dir: Path, run: str = "", worker: str = "", *, rate_hz: float = 30.0, viewer: str = "viewer"
    ) -> None:
        """`run` is an id, the beginning of one or a name, `worker` a name; empty means whichever is there.
        Of several rings the newest is followed.

        `rate_hz` 0 only looks at what others have rendered: it takes no lease. `viewer` is our name in the log.
        """
        self.rate_hz = rate_hz
        self.tile = 0
        self.reader: FastLaneReader | None = None
        self.reconnects = 0
        self.fps = 0.0
        self._run_dir, self._run, self._worker, self._viewer = run_dir, run, worker, viewer
        self._next_look_ns = 0
        self._was_attached = self._is_parting = False
        self._fps_since_ns = self._fps_frames = 0
        self._lag_since_ns = self._lag_frames = self._lag_lapped = 0

    @property
    def info(self) -> RingInfo | None:
        """Whose ring we are attached to; None while we are not."""
        return None if self.reader is None else self.reader.info

    @property
    def geometry(self) -> Geometry | None:
        """Size of the frames now; None before the first."""
        return None if self.reader is None else self.reader.geometry

    def poll(self, now_ns: int) -> bool:
        """Attach if need be, keep the lease, and say whether there is a frame that was not read yet."""
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_NS
            self._look(now_ns)
        reader = self.reader
        if reader is None:
            return False
        if self.rate_hz:
            reader.watch(now_ns, self.rate_hz, self.tile)
        return reader.has_news

    def read_into(self, buffer: Any) -> Hud | None:
        """As `FastLaneReader.read_into`; None while there is no ring."""
        return None if self.reader is None else self.reader.read_into(buffer)

    def read(self) -> tuple[Hud, bytearray] | None:
        """As `FastLaneReader.read`; None while there is no ring."""
        return None if self.reader is None else self.reader.read()

    def promote(self, tile: int) -> None:
        """Ask for environment `tile` (from 1) of a vector environment alone; 0: for what the worker shows by itself."""
        self.tile = tile
        if self.reader is not None:
            self.reader.lease.ask_anew()

    def close(self) -> None:
        """Give the lease back."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None
            self.fps = 0.0

    # ---- rings ----

    def _look(self, now_ns: int) -> None:
        if self.reader is not None:
            self._measure(self.reader, now_ns)
            if self.reader.is_writer_alive:
                return
            if self.reader.has_news and not self._is_parting:
                self._is_parting = True  # its last frame is worth seeing until the next look; it may be half written
                return
            log_event(log_ids.FASTLANE_DISCONNECTED, viewer=self._viewer, ring=self.reader.path.name)
            self.close()
        ring = newest_ring(find_rings(self._run_dir), self._run, self._worker)
        if ring is None:
            return
        try:
            self.reader = FastLaneReader(ring.path, ring_directories(self._run_dir))
        except FastLaneError:  # gone in this very moment
            return
        self.reconnects += self._was_attached
        self._was_attached, self._is_parting = True, False
        self._fps_since_ns, self._fps_frames = now_ns, 0
        self._lag_since_ns, self._lag_frames, self._lag_lapped = now_ns, 0, 0
        info = ring.info
        log_event(
            log_ids.FASTLANE_CONNECTED, viewer=self._viewer, ring=ring.path.name, run=info.run, worker=info.worker
        )

    def _measure(self, reader: FastLaneReader, now_ns: int) -> None:
        if now_ns - self._fps_since_ns >= FPS_NS:
            self.fps = (reader.frames - self._fps_frames) * 1e9 / (now_ns - self._fps_since_ns)
            self._fps_since_ns, self._fps_frames = now_ns, reader.frames
        if now_ns - self._lag_since_ns >= LAG_TOLD_NS:
            read, lapped = reader.frames - self._lag_frames, reader.lapped - self._lag_lapped
            asked = self.rate_hz * (now_ns - self._lag_since_ns) / 1e9
            if read < SEEN_SHARE * min(asked, read + lapped):
                found = reader.metrics(now_ns)
                log_event(
                    log_ids.FASTLANE_READER_LAG,
                    viewer=self._viewer,
                    ring=reader.path.name,
                    read=read,
                    lapped=lapped,
                    torn=found.torn,
                    age_ms=found.age_ms,
                )
            self._lag_since_ns, self._lag_frames, self._lag_lapped = now_ns, reader.frames, reader.lapped
