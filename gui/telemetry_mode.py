"""The Telemetry Mode: one choice, shown in the launch form and in the control panel, and switched in running workers.

`TelemetryModeState` is the choice. `TelemetryModeSelector`, short, and `TelemetryModeOptions`, in full, show it and let
it be made. `TelemetryModeControl` is the control panel's: it also switches the selected run, and says what is in force
there.
"""

from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QRadioButton, QVBoxLayout, QWidget

from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.controls_view import Label, Segments
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.run_actions import actions_of
from runlane.gui.tokens import Tokens

NOTE_WIDTH = 150
RADIO_INDENT = 24  # a description begins where the label above it does
REFUSAL_S = 12.0  # a refusal stays in sight for so long
TOLD_S = 3.0  # after an answer the proxy's next heartbeats say the same within this
SHORT = {
    TelemetryMode.FAST_LANE_ONLY: "Fast Lane Only",
    TelemetryMode.DUAL_PATH: "Dual Path",
    TelemetryMode.DURABLE_ONLY: "Durable Only",
}

_SHORT_OF = {mode.value: short for mode, short in SHORT.items()}


class TelemetryModeState(QObject):
    """What is chosen. Dual path until somebody chooses otherwise: the default keeps everything."""

    telemetry_mode_changed = Signal(str)
    """The value of a `TelemetryMode`."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._mode = TelemetryMode.DUAL_PATH

    @property
    def mode(self) -> TelemetryMode:
        """The choice."""
        return self._mode

    def choose(self, mode: str) -> None:
        """Make a choice; raises `ValueError` for what is none."""
        wanted = TelemetryMode(mode)
        if wanted is not self._mode:
            self._mode = wanted
            self.telemetry_mode_changed.emit(wanted.value)


class TelemetryModeSelector(QWidget):
    """Three segments. `picked` comes when a person clicks one, also the one that is chosen already."""

    picked = Signal(str)

    def __init__(self, state: TelemetryModeState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        choices = [(mode.value, SHORT[mode], f"{mode.label}\n{mode.description}") for mode in TelemetryMode]
        self.segments = Segments(choices, "Telemetry Mode")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.segments)
        self.segments.choose(state.mode.value)
        self.setAccessibleName("Telemetry Mode")
        self._describe(state.mode.value)
        self.segments.chosen.connect(self._on_chosen)
        state.telemetry_mode_changed.connect(self._on_changed)

    def _on_chosen(self, mode: str) -> None:
        self._state.choose(mode)
        self.picked.emit(mode)

    def _on_changed(self, mode: str) -> None:
        self.segments.choose(mode)
        self._describe(mode)

    def _describe(self, mode: str) -> None:
        chosen = TelemetryMode(mode)
        self.setAccessibleDescription(f"{chosen.label}. {chosen.description}")


class TelemetryModeOptions(QWidget):
    """The three modes by their whole labels, each with what it means below it."""

    def __init__(self, state: TelemetryModeState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.setAccessibleName("Telemetry Mode")
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QRadioButton] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for mode in TelemetryMode:
            button = QRadioButton(mode.label)
            button.setAccessibleName(f"Telemetry Mode: {mode.label}")
            button.setAccessibleDescription(mode.description)
            button.clicked.connect(lambda _checked=False, mode=mode: state.choose(mode.value))
            about = Label(mode.description, "muted")
            about.setWordWrap(True)
            about.setContentsMargins(RADIO_INDENT, 0, 0, 4)
            self._group.addButton(button)
            self.buttons[mode.value] = button
            column.addWidget(button)
            column.addWidget(about)
        self._show(state.mode.value)
        self.setFocusProxy(self.buttons[state.mode.value])
        state.telemetry_mode_changed.connect(self._show)

    @property
    def key(self) -> str:
        """The mode that is shown as chosen."""
        return next((key for key, button in self.buttons.items() if button.isChecked()), "")

    def _show(self, mode: str) -> None:
        self.buttons[mode].setChecked(True)


class TelemetryModeControl(QWidget):
    """In the control panel, for the selected run while it lives; else the choice is for the next one."""

    def __init__(
        self,
        controller: LiveTelemetryController,
        tokens: Tokens,
        state: TelemetryModeState,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._controller = controller
        self._actions = actions_of(controller)
        self._state = state
        self._switching = ""  # the run that is being switched
        self._refusal = ("", "", 0.0)  # run, reason, since when
        self._answered = ("", "", 0.0)  # run, mode, since when
        self._now_s = 0.0
        self.selector = TelemetryModeSelector(state)
        self.note = Label("", "faint", is_elided=True)
        self.note.setAccessibleName("Telemetry Mode in force")
        words = QVBoxLayout()
        words.setContentsMargins(0, 0, 0, 0)
        words.setSpacing(0)
        words.addStretch(1)
        words.addWidget(Label("Telemetry Mode", "caption"))
        words.addWidget(self.note)
        words.addStretch(1)
        words_box = QWidget()
        words_box.setLayout(words)
        words_box.setFixedWidth(NOTE_WIDTH)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(words_box)
        row.addWidget(self.selector)
        self.selector.picked.connect(self._on_picked)
        for signal in (state.telemetry_mode_changed, controller.selection_changed, controller.status_changed):
            signal.connect(self._show)
        controller.ticked.connect(self._on_tick)
        self.set_tokens(tokens)
        self._show()

    def set_tokens(self, tokens: Tokens) -> None:
        """Nothing here has a colour of its own: the style sheet draws it."""

    def _on_tick(self, now_s: float) -> None:
        is_over = bool(self._refusal[1]) and self._now_s < self._refusal[2] + REFUSAL_S <= now_s
        self._now_s = now_s
        if is_over:
            self._refusal = ("", "", 0.0)
            self._show()

    def _on_picked(self, mode: str) -> None:
        run = self._controller.selected
        entry = self._controller.runs.entry(run)
        if entry is None or not entry.is_alive:
            return  # one that lives is asked, whatever its last heartbeat said: that may be of before a switch
        self._switching, self._refusal = run, ("", "", 0.0)
        self._show()

        def done(_answer: Any) -> None:
            self._answered = (run, mode, self._now_s)
            self._end_switch(run)

        def failed(reason: str) -> None:
            self._refusal = (run, " ".join(reason.split()), self._now_s)
            self._end_switch(run)

        self._actions.set_mode(run, TelemetryMode(mode), done, failed)

    def _end_switch(self, run: str) -> None:
        if self._switching == run:
            self._switching = ""
        self._show()

    def _show(self, _cause: object = None) -> None:
        text, state = self._note()
        self.note.show_text(text, state)
        self.note.setAccessibleDescription(text)

    def _note(self) -> tuple[str, str]:
        run = self._controller.selected
        entry = self._controller.runs.entry(run)
        if self._switching and self._switching == run:
            return "switching…", "warn"
        if self._refusal[1] and self._refusal[0] == run:
            return f"refused: {self._refusal[1]}", "bad"
        if entry is None or not entry.is_alive:
            return "for the next run", "idle"
        in_force = entry.telemetry_mode
        if self._answered[0] == run and self._now_s < self._answered[2] + TOLD_S:
            in_force = self._answered[1]
        if not in_force:
            return "not told by this run", "idle"
        if in_force == self._state.mode.value:
            return "in force in this run", "good"
        return f"this run: {_SHORT_OF.get(in_force, in_force)}", "warn"
