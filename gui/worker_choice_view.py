"""WorkerChoice: the shipped worker types, and one's own script."""

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QButtonGroup, QGridLayout, QPushButton, QVBoxLayout, QWidget

from runlane.gui.controls_view import Label, set_property
from runlane.gui.interpreter_probe import Need
from runlane.gui.tokens import Tokens
from runlane.gui.worker_type import WORKER_TYPES

SCRIPT = "script"
ABOUT_SCRIPT = (
    "Any command. Environments that a Python script makes are recorded without an edit; "
    "any other program writes JSON lines."
)
COLUMNS = 4


class WorkerChoice(QWidget):
    """`chosen` carries the key of a worker type, or `script`. What cannot run here is marked, and can be looked at."""

    chosen = Signal(str)

    def __init__(self, tokens: Tokens, parent: QWidget | None = None) -> None:  # noqa: ARG002  as every control
        super().__init__(parent)
        self._about = {kind.key: kind.about for kind in WORKER_TYPES} | {SCRIPT: ABOUT_SCRIPT}
        self._labels = {kind.key: kind.label for kind in WORKER_TYPES} | {SCRIPT: "My script"}
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        self.buttons: dict[str, QPushButton] = {}
        self.setAccessibleName("What to run")
        grid = QGridLayout()
        grid.setSpacing(6)
        for number, (key, label) in enumerate(self._labels.items()):
            button = QPushButton(label)
            button.setCheckable(True)
            button.setProperty("role", "choice")
            button.setToolTip(self._about[key])
            button.setAccessibleName(f"What to run: {label}")
            button.clicked.connect(lambda _checked=False, key=key: self._on_chosen(key))
            self._group.addButton(button)
            self.buttons[key] = button
            grid.addWidget(button, number // COLUMNS, number % COLUMNS)
        self._note = Label("", "muted")
        self._note.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addLayout(grid)
        column.addWidget(self._note)
        self.choose(WORKER_TYPES[0].key)

    @property
    def key(self) -> str:
        """What is chosen."""
        return next(key for key, button in self.buttons.items() if button.isChecked())

    def choose(self, key: str) -> None:
        """Choose, as a click would."""
        self.buttons[key].setChecked(True)
        self._on_chosen(key)

    def mark(self, key: str, need: Need | None) -> None:
        """Show that a kind lacks something here, or no longer."""
        is_lacking = need is not None and not need.is_met
        set_property(self.buttons[key], "lacks", "yes" if is_lacking else "no")
        reason = f"\nNot now: {need.reason}." if need is not None and is_lacking else ""
        self.buttons[key].setToolTip(self._about[key] + reason)
        self.buttons[key].setAccessibleDescription(reason.strip())

    def _on_chosen(self, key: str) -> None:
        self._note.show_text(self._about[key])
        self.chosen.emit(key)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802  Qt's name
        """Arrows go to the neighbour."""
        keys = list(self.buttons)
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1, Qt.Key.Key_Up: -COLUMNS, Qt.Key.Key_Down: COLUMNS}
        step = steps.get(Qt.Key(event.key()))
        if step is None:
            super().keyPressEvent(event)
            return
        wanted = keys[(keys.index(self.key) + step) % len(keys)]
        self.buttons[wanted].setFocus()
        self.choose(wanted)
