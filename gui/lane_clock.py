"""LaneClock: the one timer of a live wall. It looks for rings, peeks at heads, asks for repaints, and copies nothing.

A timer that copied frames blindly would cost 14 ms of age and a core's share for what nobody sees. This one reads one
word per lane every 4 ms, and each tile fetches the newest frame in the moment it is painted.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from runlane.gui.fast_lane_consumer import LaneState
from runlane.gui.lane_tile import LaneTile
from runlane.transport.ring_files import FoundRing, find_rings

LIVE_MS = 4
IDLE_MS = 100
LOOK_NS = 400_000_000  # for rings that came or went
TEXT_NS = 200_000_000  # for the strings of the tiles
# Between two repaints: of one lane nearly as often as it has frames; of a wall all lanes together, once a frame time.
ONE_GAP_NS = 7_000_000
WALL_GAP_NS = 10_500_000
AGES = 600  # paints that percentiles are taken over


class LaneClock(QObject):
    """Drives the tiles of one wall. For the window's thread; `tick` is a function of the time it is told."""

    rings_found = Signal(object)
    """list[FoundRing], oldest first, whenever rings came or went."""

    asked = Signal()
    """Tiles were asked to repaint: whoever renders may do so now."""

    def __init__(self, run_dir: Path, now_ns: Callable[[], int], parent: QObject | None = None) -> None:
        """`now_ns` is the monotonic clock. Nothing runs before `set_running`."""
        super().__init__(parent)
        self._run_dir, self._now_ns = run_dir, now_ns
        self._tiles: list[LaneTile] = []
        self._rings: list[FoundRing] = []
        self._next_look_ns = self._next_text_ns = self._next_paint_ns = 0
        self._timer = QTimer(self, timerType=Qt.TimerType.PreciseTimer)
        self._timer.setInterval(IDLE_MS)
        self._timer.timeout.connect(self._on_timeout)
        self._ages_ms: deque[float] = deque(maxlen=AGES)
        self._shown = self._shown_before = 0
        self.paints = 0
        self._shown_since_ns = 0
        self.fps = 0.0
        """Frames shown a second, of all lanes together, over the last second."""

    def set_tiles(self, tiles: Sequence[LaneTile]) -> None:
        """Drive these, whether they are watched or not."""
        self._tiles = list(tiles)
        self._next_look_ns = self._next_text_ns = 0

    def set_running(self, is_running: bool) -> None:
        """Start or stop the timer; the leases are their owner's affair."""
        if is_running and not self._timer.isActive():
            self._next_look_ns = self._next_text_ns = 0
            self._timer.start()
        elif not is_running:
            self._timer.stop()

    @property
    def is_running(self) -> bool:
        """Whether the timer runs."""
        return self._timer.isActive()

    @property
    def interval_ms(self) -> int:
        """How often it ticks while it runs."""
        return self._timer.interval()

    def look_again(self) -> None:
        """Take up at the next tick what has changed, as a tile that is visible now."""
        self._next_text_ns = 0
        if self._timer.isActive() and self._timer.interval() != LIVE_MS:
            self._timer.setInterval(LIVE_MS)

    # ---- ticks ----

    def _on_timeout(self) -> None:
        self.tick(self._now_ns())

    def tick(self, now_ns: int) -> None:
        """Look for news, and ask each tile that has some to repaint; all of a wall at once, so that it renders once."""
        if now_ns >= self._next_look_ns:
            self._look(now_ns)
        live = 0
        fresh: list[LaneTile] = []
        for tile in self._tiles:
            consumer = tile.consumer
            if consumer.poll(now_ns, self._rings):
                fresh.append(tile)
            live += consumer.is_attached
        if fresh and now_ns >= self._next_paint_ns:
            self._next_paint_ns = now_ns + (ONE_GAP_NS if live < 2 else WALL_GAP_NS)
            for tile in fresh:
                tile.paint_wanted.emit()
            self.asked.emit()
        if now_ns >= self._next_text_ns:
            self._next_text_ns = now_ns + TEXT_NS
            self._say(now_ns, live)

    def _look(self, now_ns: int) -> None:
        self._next_look_ns = now_ns + LOOK_NS
        rings = find_rings(self._run_dir)
        if [ring.path for ring in rings] != [ring.path for ring in self._rings]:
            self._rings = rings
            self.rings_found.emit(list(rings))

    def _say(self, now_ns: int, live: int) -> None:
        interval = LIVE_MS if live else IDLE_MS
        if self._timer.interval() != interval:
            self._timer.setInterval(interval)
        for tile in self._tiles:
            tile.refresh(now_ns)
        passed_ns = now_ns - self._shown_since_ns
        if passed_ns >= 1_000_000_000:
            self.fps = (self._shown - self._shown_before) * 1e9 / passed_ns
            self._shown_before, self._shown_since_ns = self._shown, now_ns

    # ---- what was painted ----

    def note_painted(self, now_ns: int) -> None:
        """A paint is done. A frame published before anybody watched is shown, and counts for no age."""
        self.paints += 1
        for tile in self._tiles:
            hud = tile.consumer.hud
            if hud is None or hud is tile.painted:
                continue
            tile.painted = hud
            if tile.said["state"] != LaneState.LIVE:
                self._next_text_ns = 0  # a banner is over the picture that has come
            tile.paint_age_ms = (now_ns - hud.mono_ns) / 1e6
            self._shown += 1
            if hud.mono_ns > tile.consumer.since_ns:
                self._ages_ms.append(tile.paint_age_ms)

    @property
    def shown(self) -> int:
        """Frames painted so far."""
        return self._shown

    def age_ms(self, share: float) -> float | None:
        """The age at paint that `share` of the last frames did not exceed, in milliseconds; None before the first."""
        if not self._ages_ms:
            return None
        ages = sorted(self._ages_ms)
        return ages[min(len(ages) - 1, math.ceil(share * len(ages)) - 1)]

    def forget_ages(self) -> None:
        """Begin percentiles anew."""
        self._ages_ms.clear()
