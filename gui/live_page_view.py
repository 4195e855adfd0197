"""LivePage: the wall, and below it three curves of the selected run."""

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QSplitter, QVBoxLayout, QWidget

from runlane.gui.live_strip_view import LiveStrip
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.live_view import LiveView
from runlane.gui.tokens import Tokens
from runlane.gui.warning_view import WarningBanner

STRIP_FROM_HEIGHT = 680
DESCRIBE_S = 0.5


class LivePage(QWidget):
    """What somebody sees who opens the window."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.wall = LiveView(controller.run_dir, tokens, controller.settings.fast_lane.max_fps)
        self.strip = LiveStrip(controller, tokens)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        splitter.setHandleWidth(10)
        for widget in (self.wall, self.strip):
            splitter.addWidget(widget)
        splitter.setStretchFactor(0, 1)
        splitter.setSizes([640, 190])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        self.warning = WarningBanner(controller, tokens)
        layout.addWidget(self.warning)
        layout.addWidget(splitter, 1)
        self._is_active = False
        self._controller = controller
        self._next_s = 0.0
        controller.selection_changed.connect(self._on_selection)
        controller.ticked.connect(self._on_tick)

    def _on_tick(self, now_s: float) -> None:
        if self._is_active and now_s >= self._next_s:
            self._next_s = now_s + DESCRIBE_S
            self.wall.describe(self._environment_of, self._is_dark)

    def _is_dark(self, run: str) -> bool:
        entry = self._controller.runs.entry(run)
        return entry is not None and entry.telemetry_mode == "durable_only"

    def _environment_of(self, run: str) -> str:
        entry = self._controller.runs.entry(run)
        return "" if entry is None else entry.env_id

    def _on_selection(self, run: str) -> None:
        """Put the wall's keyboard on the run's tile, unless it is on one of them."""
        lanes = self.wall.lanes
        current = lanes[self.wall.current].run if self.wall.current < len(lanes) else ""
        lane = next((lane for lane in lanes if lane.run == run), None)
        if lane is not None and current != run:
            self.wall.select(*lane.key)

    def set_active(self, is_active: bool) -> None:
        """Leases are held and curves drawn only while somebody looks."""
        self._is_active = is_active
        self.wall.set_active(is_active)
        self.strip.set_active(is_active and self.strip.isVisible())

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        self.warning.set_tokens(tokens)
        self.wall.set_tokens(tokens)
        self.strip.set_tokens(tokens)

    def cleanup(self) -> None:
        """Release leases and timers."""
        self.wall.cleanup()
        self.strip.cleanup()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """On a low screen the pictures need all the room."""
        super().resizeEvent(event)
        self.strip.setVisible(self.height() >= STRIP_FROM_HEIGHT)
        self.strip.set_active(self._is_active and self.height() >= STRIP_FROM_HEIGHT)
