"""NeedsNote: whether what a kind of worker needs is here, and the command that mends it, ready to be copied."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from runlane.gui.controls_view import IconButton, Label
from runlane.gui.interpreter_probe import Need
from runlane.gui.run_menu_view import copy_text
from runlane.gui.tokens import Tokens


class NeedsNote(QWidget):
    """A line in the colour of its news; below it a command, where there is one."""

    def __init__(self, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.line = Label("", "caption")
        self.line.setWordWrap(True)
        self.line.setAccessibleName("What this kind of worker needs")
        self.command = Label("", "command")
        self.command.setWordWrap(True)
        self.command.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.copy = IconButton("copy", "Copy the command that installs it", tokens)
        self.copy.clicked.connect(lambda: copy_text(self.command.whole_text))
        self._mend = QWidget()
        row = QHBoxLayout(self._mend)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.command, 1)
        row.addWidget(self.copy, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.line)
        column.addWidget(self._mend)
        self.show_text("", "")

    def show_text(self, text: str, state: str) -> None:
        """A line that asks for nothing."""
        self.line.show_text(text, state)
        self.line.setVisible(bool(text))
        self._mend.setVisible(False)

    def show_need(self, need: Need) -> None:
        """What is missing, and its remedy."""
        self.show_text(need.reason[:1].upper() + need.reason[1:] + ".", "warn")
        self.command.show_text(need.remedy)
        self._mend.setVisible(bool(need.remedy))

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        self.copy.set_tokens(tokens)
