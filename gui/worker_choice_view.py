"""WorkerChoice: the shipped worker types, and one's own script."""

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from runlane.gui.controls_view import Label, Segments
from runlane.gui.launch_plan import WORKER_TYPES
from runlane.gui.tokens import Tokens

SCRIPT = "script"
ABOUT_SCRIPT = "Any command. What it records with runlane.workers.wrap(env) or attach() becomes a run."


class WorkerChoice(QWidget):
    """`chosen` carries the key of a worker type, or `script`."""

    chosen = Signal(str)

    def __init__(self, tokens: Tokens, parent: QWidget | None = None) -> None:  # noqa: ARG002  as every control
        super().__init__(parent)
        self._about = {kind.key: kind.about for kind in WORKER_TYPES} | {SCRIPT: ABOUT_SCRIPT}
        choices = [(kind.key, kind.label, kind.about) for kind in WORKER_TYPES]
        self.segments = Segments([*choices, (SCRIPT, "My script", ABOUT_SCRIPT)], "What to run")
        self._note = Label("", "muted")
        self._note.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        line = QHBoxLayout()
        line.addWidget(self.segments)
        line.addStretch(1)
        column.addLayout(line)
        column.addWidget(self._note)
        self.segments.chosen.connect(self._on_chosen)
        self.choose(WORKER_TYPES[0].key)

    @property
    def key(self) -> str:
        """What is chosen."""
        return self.segments.key

    def choose(self, key: str) -> None:
        """Choose, as a click would."""
        self.segments.choose(key)
        self._on_chosen(key)

    def _on_chosen(self, key: str) -> None:
        self._note.show_text(self._about[key])
        self.chosen.emit(key)
