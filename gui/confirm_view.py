"""ConfirmDialog: asks before something is lost, without holding up anything else."""

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from runlane.gui.controls_view import Label

WIDTH = 420


class ConfirmDialog(QDialog):
    """A question, what is lost, and two buttons; `Escape` and Return mean no."""

    def __init__(self, title: str, lines: list[str], verb: str, parent: QWidget) -> None:
        """`verb` stands on the button that does it."""
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setModal(False)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH)
        column = QVBoxLayout(self)
        column.setContentsMargins(20, 18, 20, 16)
        column.setSpacing(10)
        heading = Label(title, "title")
        heading.setWordWrap(True)
        column.addWidget(heading)
        for line in lines:
            label = Label(line, "muted")
            label.setWordWrap(True)
            column.addWidget(label)
        self.yes = QPushButton(verb)
        self.yes.setProperty("role", "danger")
        self.yes.setAutoDefault(False)
        self.yes.clicked.connect(self.accept)
        self.no = QPushButton("Cancel")
        self.no.setDefault(True)
        self.no.clicked.connect(self.reject)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.no)
        buttons.addWidget(self.yes)
        column.addSpacing(6)
        column.addLayout(buttons)
        self.setAccessibleName(title)
        self.setAccessibleDescription(" ".join(lines))


def confirm(parent: QWidget, title: str, lines: list[str], verb: str, action: Callable[[], object]) -> ConfirmDialog:
    """Ask over the window of `parent`, and return at once; `action` is called when the answer is yes."""
    dialog = ConfirmDialog(title, lines, verb, parent.window())
    dialog.accepted.connect(action)
    dialog.open()
    dialog.no.setFocus()
    return dialog
