"""MainWindow: the pages and what stands around them. It wires; views show, models know."""

from typing import Protocol, cast

from PySide6.QtCore import QByteArray, QEvent, Qt
from PySide6.QtGui import QCloseEvent, QHideEvent, QKeySequence, QResizeEvent, QShortcut, QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QMainWindow, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from runlane.gui.events_view import EventsCard
from runlane.gui.frame_view import Navigation, StatusBar, TopBar
from runlane.gui.health_view import HealthCard, HealthView
from runlane.gui.launch_form_view import LaunchFormView
from runlane.gui.live_page_view import LivePage
from runlane.gui.live_telemetry_controller import TICK_MS, LiveTelemetryController
from runlane.gui.log_view import LogView
from runlane.gui.loop_watch import LoopWatch
from runlane.gui.run_details_view import RunDetailsView, RunPanel
from runlane.gui.run_list_view import RunListView
from runlane.gui.telemetry_mode import TelemetryModeControl, TelemetryModeState
from runlane.gui.telemetry_view import TelemetryView
from runlane.gui.theme import CHOICES, Theme
from runlane.gui.tokens import Tokens
from runlane.gui.window_state import WindowState

PAGES = (
    ("live", "Live", "live"),
    ("telemetry", "Telemetry", "telemetry"),
    ("runs", "Runs", "runs"),
    ("launch", "Launch", "launch"),
    ("system", "System", "system"),
    ("log", "Log", "columns"),
)
LIST_WIDTH = 268
SIDE_WIDTH = 300
# Narrower than this the cards at the right go: pages need the room more.
SIDE_FROM_WIDTH = 1320
LIST_FROM_WIDTH = 1040
BARS_S = 0.25


class Page(Protocol):
    """What the window asks of every page."""

    def set_active(self, is_active: bool) -> None:
        """Work, or rest."""
        ...

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        ...

    def cleanup(self) -> None:
        """Release everything; idempotent."""
        ...


class MainWindow(QMainWindow):
    """One window on one graph. `shut_down` ends everything it began; closing the window calls it."""

    def __init__(self, controller: LiveTelemetryController, theme: Theme, state: WindowState) -> None:
        """The controller is not started here."""
        super().__init__()
        self.controller, self.theme, self._state = controller, theme, state
        self._loop = LoopWatch(TICK_MS / 1000)
        self._next_bars_s = 0.0
        self._received = (0.0, 0)
        self._is_down = False
        self.mode_state = TelemetryModeState(self)
        tokens = theme.tokens
        self.setWindowTitle("runlane")
        self.setMinimumSize(860, 560)
        self._make_pages(tokens)
        self._make_frame(tokens)
        self._make_shortcuts()
        self._connect()
        self.open_page(state.text("page", "live", tuple(key for key, _, _ in PAGES)))
        geometry = state.data("geometry")
        if geometry.isEmpty() or not self.restoreGeometry(geometry):
            self.resize(1480, 900)

    # ---- parts ----

    def _make_pages(self, tokens: Tokens) -> None:
        controller = self.controller
        self.live = LivePage(controller, tokens)
        self.telemetry = TelemetryView(controller, tokens)
        self.details = RunDetailsView(controller, tokens)
        self.launch = LaunchFormView(controller, tokens, self.mode_state)
        self.health = HealthView(controller, tokens)
        self.log = LogView(controller, tokens)
        self.pages: dict[str, Page] = {
            "live": self.live,
            "telemetry": self.telemetry,
            "runs": self.details,
            "launch": self.launch,
            "system": self.health,
            "log": self.log,
        }
        self._stack = QStackedWidget()
        for page in (self.live, self.telemetry, self.details, self.launch, self.health, self.log):
            self._stack.addWidget(page)

    def _make_frame(self, tokens: Tokens) -> None:
        self.mode_control = TelemetryModeControl(self.controller, tokens, self.mode_state)
        self.top_bar = TopBar(tokens, self.mode_control)
        self.navigation = Navigation(PAGES, tokens)
        self.status_bar = StatusBar()
        self.run_list = RunListView(self.controller, tokens)
        self.run_list.setFixedWidth(LIST_WIDTH)
        self.run_panel = RunPanel(self.controller, tokens)
        self.health_card = HealthCard(self.controller, tokens)
        self.events_card = EventsCard(self.controller, tokens)
        self._side = self._make_side()
        middle = QHBoxLayout()
        middle.setContentsMargins(0, 0, 0, 0)
        middle.setSpacing(0)
        inner = QHBoxLayout()
        inner.setContentsMargins(10, 10, 10, 10)
        inner.setSpacing(10)
        for widget, stretch in ((self.run_list, 0), (self._stack, 1), (self._side, 0)):
            inner.addWidget(widget, stretch)
        middle.addWidget(self.navigation)
        middle.addLayout(inner, 1)
        whole = QWidget()
        whole.setProperty("role", "page")
        whole.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.top_bar)
        column.addLayout(middle, 1)
        column.addWidget(self.status_bar)
        self.setCentralWidget(whole)

    def _make_side(self) -> QScrollArea:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        for card in (self.run_panel, self.health_card):
            column.addWidget(card)
        column.addWidget(self.events_card, 1)
        area = QScrollArea()
        area.setWidget(inside)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFixedWidth(SIDE_WIDTH)
        area.setAccessibleName("Selected run, health and events")
        return area

    def _make_shortcuts(self) -> None:
        def on(keys: str, action: object) -> None:
            QShortcut(QKeySequence(keys), self).activated.connect(action)

        for number, (key, _, _) in enumerate(PAGES, 1):
            on(f"Ctrl+{number}", lambda key=key: self.open_page(key))
        on("Ctrl+F", self.run_list.focus_search)
        on("Ctrl+D", self.theme.toggle)
        on("Ctrl+N", lambda: self.open_page("launch"))
        on("Ctrl+Q", self.close)
        on("F11", self._toggle_full_screen)

    def _connect(self) -> None:
        controller = self.controller
        self.navigation.chosen.connect(self.open_page)
        self.top_bar.search_asked.connect(self.run_list.focus_search)
        self.top_bar.theme_asked.connect(self.theme.toggle)
        self.top_bar.launch_asked.connect(lambda: self.open_page("launch"))
        self.top_bar.events_asked.connect(self._show_events)
        self.live.wall.selected_lane.connect(self._on_lane)
        self.run_panel.snapshot_asked.connect(self._snapshot)
        self.theme.changed.connect(self.set_tokens)
        controller.ticked.connect(self._on_tick)

    # ---- what is shown ----

    @property
    def page(self) -> str:
        """Key of the open page."""
        return PAGES[self._stack.currentIndex()][0]

    def open_page(self, key: str) -> None:
        """Show a page; only it works from now on."""
        self._stack.setCurrentIndex([known for known, _, _ in PAGES].index(key))
        self.navigation.choose(key)
        self._wake_page()

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw everything in the colours of a scheme. The style sheet and palette are the application's."""
        for page in self.pages.values():
            page.set_tokens(tokens)
        for part in (self.top_bar, self.navigation, self.mode_control, self.run_list):
            part.set_tokens(tokens)
        for card in (self.run_panel, self.health_card, self.events_card):
            card.set_tokens(tokens)

    def _wake_page(self) -> None:
        is_shown = self.isVisible() and not self.isMinimized()
        for key, page in self.pages.items():
            page.set_active(is_shown and key == self.page)

    def _show_events(self) -> None:
        self.events_card.mark_seen()
        self.open_page("system")

    def _on_lane(self, run: str, _worker: str) -> None:
        self.controller.select(run)

    def _snapshot(self) -> None:
        self.open_page("live")
        if not self.live.wall.snapshot_of(self.controller.selected):
            entry = self.controller.runs.entry(self.controller.selected)
            name = "the selected run" if entry is None else entry.name or entry.run
            self.controller.note = f"no picture of {name}: it shows no frames here"

    def _toggle_full_screen(self) -> None:
        self.setWindowState(self.windowState() ^ Qt.WindowState.WindowFullScreen)

    # ---- the tick ----

    def _on_tick(self, now_s: float) -> None:
        self._loop.tick(now_s)
        if now_s < self._next_bars_s:
            return
        self._next_bars_s = now_s + BARS_S
        lane = self.live.wall.figures()
        self.controller.health.set_lane(lane, now_s)
        self.controller.health.set_loop(self._loop.late_ms(0.99), float(cast("float", lane.get("fps", 0.0))), now_s)
        self._show_bars(now_s, lane)

    def _show_bars(self, now_s: float, lane: dict[str, object]) -> None:
        controller = self.controller
        counts: dict[str, int] = {}
        for entry in controller.runs.entries():
            counts[entry.state] = counts.get(entry.state, 0) + 1
        shown = [
            f"{counts[state]:,} {state}" for state in ("running", "stalled", "failed", "lost") if counts.get(state)
        ]
        self.top_bar.show_summary(" · ".join(shown) or "nothing is running")
        self.top_bar.show_unseen(self.events_card.unseen, self.theme.tokens)
        bar, bus = self.status_bar, controller.bus_statistics()
        is_joined = bus is not None and bus.is_joined
        bar.show_item("bus", "● RunBus connected" if is_joined else "● no graph", "good" if is_joined else "idle")
        if bus is not None:
            then_s, then = self._received
            rate = (bus.received - then) / (now_s - then_s) if then_s else 0.0
            if now_s - then_s >= 1.0:
                self._received = (now_s, bus.received)
                bar.show_item("rate", f"{max(0.0, rate):,.0f} records/s")
        attached, of = (lane.get("attached", 0), lane.get("lanes", 0)) if self.page == "live" else (0, 0)
        bar.show_item("lane", f"● fast lane {attached} of {of}" if of else "", "good" if attached == of else "warn")
        fps = float(cast("float", lane.get("fps", 0.0)))
        shown_fps = f"{fps:.0f} fps · " if of else ""
        bar.show_item("loop", f"{shown_fps}loop p99 {self._loop.late_ms(0.99):.0f} ms")
        for key, text, item_state in controller.health.summary():
            bar.show_item(key, text, item_state, is_right=True)
        bar.show_item("store", controller.store_problem.split(";")[0], "warn", is_right=True)
        bar.show_item("note", controller.note, "warn", is_right=True)

    # ---- life ----

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """Give the page the room that there is."""
        super().resizeEvent(event)
        self._side.setVisible(self.width() >= SIDE_FROM_WIDTH)
        self.run_list.setVisible(self.width() >= LIST_FROM_WIDTH)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802  Qt's name
        """The page works again."""
        super().showEvent(event)
        self._wake_page()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802  Qt's name
        """Nobody looks: nothing is rendered for us."""
        super().hideEvent(event)
        self._wake_page()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """Minimised is hidden, too."""
        super().changeEvent(event)
        if hasattr(self, "_stack"):
            self._wake_page()

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802  Qt's name
        """Remember where we were, and end."""
        self.shut_down()
        super().closeEvent(event)

    def shut_down(self) -> None:
        """Release leases, stop timers and threads. Again: nothing."""
        if self._is_down:
            return
        self._is_down = True
        geometry: QByteArray = self.saveGeometry()
        choice = self.theme.choice if self.theme.choice in CHOICES else "system"
        self._state.remember(geometry=geometry, page=self.page, theme=choice)
        for page in self.pages.values():
            page.set_active(False)
            page.cleanup()
        self.controller.stop()
