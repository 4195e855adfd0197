"""FastLaneTab: the live wall as a widget. One QQuickWidget for all tiles: each more would render a scene of its own."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QEvent, QObject, QSize, Qt, QUrl, Signal
from PySide6.QtGui import QCloseEvent, QColor, QHideEvent, QImage, QPaintEvent, QResizeEvent, QShowEvent
from PySide6.QtQuick import QQuickWindow
from PySide6.QtQuickWidgets import QQuickWidget
from PySide6.QtWidgets import QVBoxLayout, QWidget

from runlane.config.errors import RunlaneError
from runlane.gui.fast_lane_item import register_item
from runlane.gui.lane_clock import LaneClock
from runlane.gui.lane_tile import LaneTile
from runlane.gui.lane_wall import NONE, GridMode, LaneWall
from runlane.gui.presenters import LaneChoice
from runlane.gui.scene_graph import SOFTWARE
from runlane.gui.tokens import DARK, Tokens

SCENE = Path(__file__).with_name("FastLaneView.qml")
LEAST = (240, 180)
USUAL = QSize(960, 640)
TIP = "{name}\n{title} · {subtitle}\nEnter or double click: full size · Space: pause · S: snapshot"


def tokens_for_qml(tokens: Tokens) -> dict[str, object]:
    """The look as QML has it. What lies over a picture is light on dark in every scheme, as pictures are."""
    over = {"overlayText": DARK.text, "overlayWarn": DARK.warn, "overlayMuted": DARK.strong_border}
    return {**tokens.as_qml(), **over}


class _Scene(QQuickWidget):
    """Says when it has painted: what was fetched for that paint is on screen then."""

    clock: LaneClock

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setResizeMode(QQuickWidget.ResizeMode.SizeRootObjectToView)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self._is_software = QQuickWindow.sceneGraphBackend() == SOFTWARE

    def render_now(self) -> None:
        """Render what is due without the 5 ms that a QQuickWidget waits for more of it: as a resize does.

        For the software renderer alone; elsewhere a resize renders what was synchronised before.
        """
        if self._is_software:
            self.resizeEvent(QResizeEvent(self.size(), self.size()))
            self.repaint()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        super().paintEvent(event)
        self.clock.note_painted(time.monotonic_ns())


class FastLaneTab(QWidget):
    """A wall of lanes. It holds leases only while it is shown, and gives everything back in `cleanup`."""

    promoted = Signal(int)
    """Index of the tile at full size, -1 for the grid."""
    chosen = Signal(int)
    """Index of the tile that somebody went to or clicked."""
    selected = Signal(int)
    """Index of the tile the keyboard acts on."""
    paused = Signal(bool)
    snapshot_taken = Signal(object)
    """QImage of the size the worker renders at."""
    rings_found = Signal(object)
    """list[FoundRing], oldest first, whenever rings came or went."""

    def __init__(self, run_dir: Path, tokens: Tokens, *, max_fps: float, parent: QWidget | None = None) -> None:
        """`run_dir` is where rings are looked for; `max_fps` bounds what is asked of each worker.

        `choose_backend` is to be called before the first of these.
        """
        super().__init__(parent)
        self._run_dir = run_dir
        self._is_active, self._is_closed = True, False
        self.scene = _Scene(self)  # the first child is deleted first: its bindings need the others
        self.wall = LaneWall(self, max_fps=max_fps)
        self.clock = self.scene.clock = LaneClock(run_dir, time.monotonic_ns, self)
        register_item()
        self.scene.setAccessibleName("Live wall")
        self.set_tokens(tokens)
        self.scene.rootContext().setContextProperty("wall", self.wall)
        self.scene.setSource(QUrl.fromLocalFile(str(SCENE)))
        if self.scene.status() is not QQuickWidget.Status.Ready:
            problems = "; ".join(error.toString() for error in self.scene.errors())
            raise RunlaneError(f"the live wall's scene cannot be loaded: {problems}")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.scene)
        self.setFocusProxy(self.scene)
        self.setMinimumSize(*LEAST)
        self._connect()

    def _connect(self) -> None:
        wall = self.wall
        wall.visible_changed.connect(self._watch)
        wall.promoted_changed.connect(self._on_promoted)
        wall.current_changed.connect(self._on_current)
        wall.chosen.connect(self._on_chosen)
        wall.paused_changed.connect(self._on_paused)
        wall.snapshot_wanted.connect(self.snapshot)
        wall.hovered.connect(self._on_hovered)
        self.clock.rings_found.connect(self.rings_found)
        self.clock.asked.connect(self.scene.render_now)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Room for six tiles; a scene has no size of its own."""
        return USUAL

    # ---- what is shown ----

    def set_lanes(self, lanes: Sequence[LaneChoice]) -> None:
        """Show these, in this order. A lane that was there keeps its picture."""
        if self._is_closed:
            return
        self.wall.set_lanes(lanes)
        self.clock.set_tiles(self.wall.tiles)
        self._watch()

    def set_grid(self, mode: GridMode) -> None:
        """`auto`, `1`, `2x2`, `3x2`, `3x3` or `4x4`."""
        self.wall.set_mode(mode)

    def promote(self, index: int | None) -> None:
        """Show one tile at full size; None: the grid again."""
        self.wall.promote(NONE if index is None else index)

    def promote_env(self, index: int, env_tile: int) -> None:
        """Ask for environment `env_tile` (from 1) of a vector environment alone; 0: for what its worker shows."""
        self.wall.tiles[index].consumer.promote_env(env_tile)

    def set_paused(self, is_paused: bool) -> None:
        """Hold all pictures; nothing is asked of workers meanwhile."""
        self.wall.set_paused(is_paused)

    def set_active(self, is_active: bool) -> None:
        """Whether the page is in use. A page that is not holds no lease, and its timer stands still."""
        self._is_active = is_active
        self._watch()

    def set_tokens(self, tokens: Tokens) -> None:
        """Another look, at once."""
        self.scene.rootContext().setContextProperty("tokens", tokens_for_qml(tokens))
        self.scene.setClearColor(QColor(tokens.window))
        self.scene.update()

    def snapshot(self, index: int) -> QImage | None:
        """The picture of a tile as its worker made it, and the signal of it; None before its first frame."""
        image = self.wall.tiles[index].consumer.image if 0 <= index < len(self.wall.tiles) else None
        if image is None:
            return None
        taken = image.copy()
        self.snapshot_taken.emit(taken)
        return taken

    def figures(self) -> dict[str, Any]:
        """For the status bar, health and benchmarks.

        `fps` is what one attached lane shows on average and `fps_total` what all show. `age_p50_ms` and `age_p99_ms`
        are ages at paint over the last 600 frames, None before the first. `shown`, `skipped` (published, but newer
        ones were there) and `torn` (copies thrown away) are totals; `attached` of `lanes` have a ring. `silent_s` are
        pairs of a watched lane's title and the seconds that its worker owes us a frame.
        """
        now_ns = time.monotonic_ns()
        tiles = self.wall.tiles
        found = [tile.consumer.metrics(now_ns) for tile in tiles]
        attached = sum(tile.consumer.is_attached for tile in tiles)
        return {
            "fps": self.clock.fps / attached if attached else 0.0,
            "fps_total": self.clock.fps,
            "shown": self.clock.shown,
            "age_p50_ms": self.clock.age_ms(0.5),
            "age_p99_ms": self.clock.age_ms(0.99),
            "skipped": sum(metrics.lapped for metrics in found),
            "torn": sum(metrics.torn for metrics in found),
            "attached": attached,
            "lanes": len(found),
            "silent_s": [
                (tile.choice.title, tile.consumer.silent_ns(now_ns) / 1e9)
                for tile in tiles
                if tile.consumer.is_attached and tile.consumer.hud is not None and not tile.is_dark
            ],
        }

    # ---- leases ----

    def _watch(self) -> None:
        """Lease what can be seen, and nothing else."""
        if self._is_closed:
            return
        is_shown = self._is_active and self.isVisible() and not self.window().isMinimized()
        rate_hz = self.wall.rate_hz()
        for index, tile in enumerate(self.wall.tiles):
            consumer = tile.consumer
            is_seen = is_shown and self.wall.is_seen(index)
            if is_seen and not consumer.is_started:
                consumer.start(self._run_dir, *tile.choice.key)
            consumer.set_rate(rate_hz)
            consumer.set_watching(is_seen)
        self.clock.set_running(is_shown)
        self.clock.look_again()

    def _on_promoted(self) -> None:
        self.promoted.emit(self.wall.promoted_index)

    def _on_current(self) -> None:
        self.selected.emit(self.wall.current_index)

    def _on_chosen(self, index: int) -> None:
        self.chosen.emit(index)

    def _on_paused(self) -> None:
        self.paused.emit(self.wall.is_paused)

    def _on_hovered(self, index: int) -> None:
        tile: LaneTile | None = self.wall.tiles[index] if 0 <= index < len(self.wall.tiles) else None
        choice = None if tile is None else tile.choice
        tip = "" if choice is None else TIP.format(name=choice.name, title=choice.title, subtitle=choice.subtitle)
        self.scene.setToolTip(tip)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802
        """Watch again, and hear of it when the window we are in now is minimised."""
        super().showEvent(event)
        self.window().installEventFilter(self)  # twice is once
        self._watch()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """A minimised window hides its parts on most platforms, and not on all."""
        if event.type() is QEvent.Type.WindowStateChange:
            self._watch()
        return super().eventFilter(watched, event)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802
        """Another page, a minimised window: nothing is asked of workers for what nobody sees."""
        super().hideEvent(event)
        self._watch()

    # ---- the end ----

    def cleanup(self) -> None:
        """Stop the timer, give leases, rings and buffers back. Again: nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.window().removeEventFilter(self)
        self.clock.set_running(False)
        self.clock.set_tiles([])
        self.scene.setSource(QUrl())
        for tile in self.wall.tiles:
            tile.consumer.stop()

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """A closed tab is done with."""
        self.cleanup()
        super().closeEvent(event)
