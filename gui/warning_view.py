"""WarningBanner: nothing is recorded of the selected run, and the lines that mend it. It goes as soon as steps come."""

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from runlane.gui.controls_view import IconButton, Label
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.run_menu_view import copy_text
from runlane.gui.run_warning import RunWarning, parse_warning
from runlane.gui.tokens import Tokens

SHOW_S = 0.25
WIDE_FROM = 620


class WarningBanner(QFrame):
    """Shows itself when the selected run has such a warning, and hides itself when it has none any more."""

    def __init__(
        self,
        controller: LiveTelemetryController,
        tokens: Tokens,
        parent: QWidget | None = None,
        *,
        is_short: bool = False,
    ) -> None:
        """`is_short`: the headline, and a button that copies the lines."""
        super().__init__(parent)
        self.setProperty("role", "warning")
        self.setVisible(False)
        self._controller, self._is_short = controller, is_short
        self._text = ""
        self._next_s = 0.0
        self.headline = Label("", "heading")
        self.headline.setWordWrap(True)
        self.headline.show_text("", "warn")
        self.before, self.after = Label("", "caption"), Label("", "caption")
        for label in (self.before, self.after):
            label.setWordWrap(True)
        self.code = Label("", "command")
        self.code.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.code.setWordWrap(True)
        self.copy = IconButton("copy", "Copy the lines", tokens)
        self.copy.clicked.connect(lambda: copy_text(self.code.whole_text))
        self.copy_button = QPushButton("Copy the lines to add")
        self.copy_button.clicked.connect(lambda: copy_text(self.code.whole_text))
        words = QVBoxLayout()
        words.setSpacing(4)
        words.addWidget(self.headline)
        words.addWidget(self.before)
        words.addWidget(self.copy_button)
        self.copy_button.setVisible(is_short)
        words.addStretch(1)
        lines = QHBoxLayout()
        lines.setSpacing(6)
        lines.addWidget(self.code, 1)
        lines.addWidget(self.copy, 0, Qt.AlignmentFlag.AlignTop)
        self._columns = QBoxLayout(QBoxLayout.Direction.TopToBottom, self)
        self._columns.setContentsMargins(12, 10, 10, 10)
        self._columns.setSpacing(8)
        self._columns.addLayout(words, 2)
        right = QVBoxLayout()
        right.setSpacing(6)
        right.addLayout(lines)
        right.addWidget(self.after)
        right.addStretch(1)
        self._columns.addLayout(right, 3)
        for widget in (self.code, self.copy):
            widget.setVisible(not is_short)
        controller.ticked.connect(self._on_tick)
        controller.selection_changed.connect(self._on_selected)
        self._on_selected(controller.selected)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours; the style sheet does the rest."""
        self.copy.set_tokens(tokens)

    def _on_tick(self, now_s: float) -> None:
        if now_s >= self._next_s:
            self._next_s = now_s + SHOW_S
            self._on_selected(self._controller.selected)

    def _on_selected(self, run: str) -> None:
        entry = self._controller.runs.entry(run)
        text = "" if entry is None else entry.warning
        if text != self._text:
            self._text = text
            if text:
                self._show(parse_warning(text))
        if self.isHidden() == bool(text):
            self.setVisible(bool(text))

    def _show(self, warning: RunWarning) -> None:
        self.headline.show_text(warning.headline)
        for label, text in ((self.before, warning.before), (self.after, warning.after)):
            label.show_text(text)
            label.setVisible(bool(text) and not self._is_short)
        self.code.show_text(warning.code)
        self.copy_button.setToolTip(warning.code)
        self.setAccessibleName(warning.headline)
        self.setAccessibleDescription(f"{warning.before} {warning.code} {warning.after}")

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """Words and lines side by side where there is room."""
        super().resizeEvent(event)
        is_wide = self.width() >= WIDE_FROM
        direction = QBoxLayout.Direction.LeftToRight if is_wide else QBoxLayout.Direction.TopToBottom
        if self._columns.direction() != direction:
            self._columns.setDirection(direction)
