"""RunPanel: the selected run in a few figures, and what can be done to it."""

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QProgressBar, QWidget

from runlane.gui.controls_view import Card, Figure, IconButton, Label, set_property
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.run_actions import actions_of
from runlane.gui.run_card_view import state_role
from runlane.gui.run_entry import RunEntry
from runlane.gui.run_menu_view import ask_delete, ask_kill, ask_stop, copy_text, open_data_folder
from runlane.gui.run_text import NOT_KEPT, count_text, duration_text, rate_text, return_text, reward_text
from runlane.gui.tokens import Tokens
from runlane.gui.warning_view import WarningBanner

SHOW_S = 0.2
BAR_STEPS = 1000
BUTTONS = (
    ("stop", "Stop the run: its workers end as by Ctrl-C"),
    ("kill", "Kill the run's workers at once"),
    ("delete", "Delete the run from the database"),
    ("camera", "Snapshot of what its worker shows now"),
    ("folder", "Open the data folder"),
    ("copy", "Copy the run's id"),
)


class RunPanel(Card):
    """A card at the right. It works while it is visible."""

    snapshot_asked = Signal()

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__("No run selected", parent)
        self._controller = controller
        self._actions = actions_of(controller)
        self._next_show_s = 0.0
        self._said: tuple[str, str, str] = ("", "", "")
        self._state = Label("", "caption")
        self.header.addWidget(self._state)
        self._figures = {key: Figure(key) for key in ("last_reward", "rolling_return", "step_rate_hz", "progress")}
        grid = QGridLayout()
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(8)
        for number, figure in enumerate(self._figures.values()):
            grid.addWidget(figure, number // 2, number % 2)
        for column in (0, 1):
            grid.setColumnStretch(column, 1)
        self.warning = WarningBanner(controller, tokens, is_short=True)
        self.body.addWidget(self.warning)
        self.body.addLayout(grid)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setRange(0, BAR_STEPS)
        self._bar.setAccessibleName("Progress")
        self.body.addWidget(self._bar)
        self.body.addSpacing(4)
        self._make_buttons(tokens)
        self.message = Label("", "caption")
        self.message.setWordWrap(True)
        self.message.setAccessibleName("What came of it")
        self.body.addWidget(self.message)
        controller.ticked.connect(self._on_tick)
        controller.selection_changed.connect(self._on_selected)
        self._actions.said.connect(self._on_said)
        self._on_selected(controller.selected)

    def _make_buttons(self, tokens: Tokens) -> None:
        self.buttons = {key: IconButton(key, tip, tokens) for key, tip in BUTTONS}
        row = QHBoxLayout()
        row.setSpacing(6)
        for button in self.buttons.values():
            button.setIconSize(QSize(18, 18))
            row.addWidget(button)
        row.addStretch(1)
        self.body.addLayout(row)
        self.buttons["stop"].clicked.connect(lambda: self._with_entry(ask_stop))
        self.buttons["kill"].clicked.connect(lambda: self._with_entry(ask_kill))
        self.buttons["delete"].clicked.connect(lambda: self._with_entry(ask_delete))
        self.buttons["camera"].clicked.connect(self.snapshot_asked)
        self.buttons["folder"].clicked.connect(lambda: open_data_folder(self._actions, self._controller.selected))
        self.buttons["copy"].clicked.connect(self._copy)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        self.warning.set_tokens(tokens)
        for button in self.buttons.values():
            button.set_tokens(tokens)

    def _with_entry(self, ask: object) -> None:
        entry = self._controller.runs.entry(self._controller.selected)
        if entry is not None and callable(ask):
            ask(self, self._actions, entry)

    def _copy(self) -> None:
        run = self._controller.selected
        if run:
            copy_text(run)
            self._on_said(run, f"copied {run}", "good")

    # ---- what is shown ----

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802  Qt's name
        """Nothing was drawn while nobody looked."""
        super().showEvent(event)
        self._show()

    def _on_tick(self, now_s: float) -> None:
        if self.isVisible() and now_s >= self._next_show_s:
            self._next_show_s = now_s + SHOW_S
            self._show()

    def _on_selected(self, run: str) -> None:
        if run != self._said[0]:
            self._said = (run, "", "")
        self._show()

    def _on_said(self, run: str, text: str, state: str) -> None:
        if run in ("", self._controller.selected):
            self._said = (self._controller.selected, text, state)
            self._show()

    def _show(self) -> None:
        entry = self._controller.runs.entry(self._controller.selected)
        self.message.show_text(self._said[1], self._said[2])
        self.message.setVisible(bool(self._said[1]))
        self._show_buttons(entry)
        if entry is None:
            self.heading.show_text("No run selected")
            self._state.show_text("")
            for figure in self._figures.values():
                figure.show_value("—")
            self._bar.setVisible(False)
            return
        self.heading.show_text(entry.title)
        self.setAccessibleName(f"Selected run {entry.title}, {entry.state}")
        self._state.show_text(f"● {entry.state}", state_role(entry.state))
        self._show_figures(entry)

    def _show_buttons(self, entry: RunEntry | None) -> None:
        is_alive = entry is not None and entry.is_alive
        for key, button in self.buttons.items():
            is_enabled = {"stop": is_alive, "kill": is_alive, "camera": is_alive}.get(key, entry is not None)
            if key == "delete":
                is_enabled = entry is not None and not is_alive
            if button.isEnabled() != is_enabled:
                button.setEnabled(is_enabled)

    def _show_figures(self, entry: RunEntry) -> None:
        reward = entry.last_reward
        is_good = reward is not None and reward > 0
        figures = self._figures
        figures["last_reward"].show_value(
            reward_text(reward), f"{count_text(entry.episodes)} episodes", "good" if is_good else ""
        )
        best = "" if entry.best_return is None else f"best {return_text(entry.best_return)}"
        figures["rolling_return"].show_value(return_text(entry.mean_return), best)
        figures["step_rate_hz"].show_value(
            _rate(entry),
            f"{entry.envs} envs" if entry.envs > 1 else _worker_text(entry),
        )
        figures["progress"].show_value(count_text(entry.steps), _progress_note(entry))
        progress = entry.progress
        self._bar.setVisible(progress is not None)
        if progress is not None:
            value = round(BAR_STEPS * progress)
            if self._bar.value() != value:
                self._bar.setValue(value)
            set_property(self._bar, "state", state_role(entry.state))


def _rate(entry: RunEntry) -> str:
    if not entry.is_kept:
        return NOT_KEPT
    return rate_text(entry.step_rate_hz) if entry.is_alive else "—"


def _worker_text(entry: RunEntry) -> str:
    return f"{entry.workers} agents" if entry.workers > 1 else "1 worker" if entry.workers else ""


def _progress_note(entry: RunEntry) -> str:
    if entry.total_steps is None:
        return "steps"
    left = "" if entry.eta_s is None else f" · {duration_text(entry.eta_s)} left"
    return f"of {count_text(entry.total_steps)}{left}"
