"""The application around the window: look, scene graph, signals, order of shutdown."""

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from PySide6.QtCore import QTimer, qInstallMessageHandler
from PySide6.QtWidgets import QApplication, QStyleFactory

from runlane.config.settings import Settings
from runlane.gui import icons
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.main_window import MainWindow
from runlane.gui.scene_graph import choose_backend
from runlane.gui.store_source import StoreSource
from runlane.gui.theme import CHOICES, Choice, Theme, load_fonts, palette_of, style_sheet
from runlane.gui.tokens import Tokens
from runlane.gui.window_state import WindowState, default_path

# A thread that reads batches hands the interpreter over this often; Python's 5 ms would be a late frame.
SWITCH_INTERVAL_S = 0.0005
_CHATTER = ("propagateSizeHints", "XDG_RUNTIME_DIR")


class Application:
    """One QApplication with our look, and one window."""

    def __init__(
        self, settings: Settings, store: StoreSource, state_path: Path | None = None, options: Sequence[str] = ()
    ) -> None:
        """Raises nothing: what is missing on this machine was found out before (`src/runlane/window.py`)."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        existing = QApplication.instance()
        self.qt = existing if isinstance(existing, QApplication) else QApplication(["runlane"])
        self.qt.setApplicationName("runlane")
        self.qt.setDesktopFileName("runlane")
        self.backend = choose_backend()
        self.state = WindowState(state_path or default_path())
        self.qt.setStyle(QStyleFactory.create("Fusion"))
        self.qt.setFont(load_fonts())
        choice: Choice = next(known for known in CHOICES if known == self.state.text("theme", "system", CHOICES))
        self.theme = Theme(choice)
        self._dress(self.theme.tokens)
        self.theme.changed.connect(self._dress)
        self.controller = LiveTelemetryController(settings, store, options=options)
        self.window = MainWindow(self.controller, self.theme, self.state)

    def _dress(self, tokens: Tokens) -> None:
        self.qt.setPalette(palette_of(tokens))
        self.qt.setStyleSheet(style_sheet(tokens))
        self.qt.setWindowIcon(icons.icon("live", tokens.accent))

    def run(self, wanted_run: str = "") -> int:
        """Show the window until it is closed, or SIGINT or SIGTERM comes: 0, 130 or 0."""
        with _stopped_by_signals(self) as stopped:
            self.controller.start(wanted_run)
            self.window.show()
            if not stopped:
                self.qt.exec()
            self.window.shut_down()
        return 130 if stopped[:1] == [signal.SIGINT] else 0


@contextmanager
def _stopped_by_signals(application: Application) -> Generator[list[int]]:
    """Python's handlers run at the next tick of the controller, 33 ms at most: a loop in C++ runs none by itself."""
    seen: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        QTimer.singleShot(0, application.qt.quit)  # a signal before the loop runs would be lost by quit() itself

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quiet_qt() -> None:
    """Keep Qt's own chatter about missing desktops out of the terminal; its warnings and errors stay."""

    def handle(_kind: object, _context: object, text: str) -> None:
        if not any(part in text for part in _CHATTER):
            sys.stderr.write(f"qt: {text}\n")

    qInstallMessageHandler(handle)
