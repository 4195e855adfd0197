"""The few controls every page is made of: card, segments, icon button, meter, figure, empty state, sparkline."""

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent, QPen, QPolygonF, QResizeEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from runlane.gui import icons
from runlane.gui.tokens import Tokens

ICON_SIZE = QSize(20, 20)


def set_property(widget: QWidget, name: str, value: object) -> None:
    """Set a property the style sheet asks for, and let it look again, if it is another value."""
    if widget.property(name) != value:
        widget.setProperty(name, value)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def clear_layout(layout: QLayout) -> None:
    """Remove everything from a layout, and delete it."""
    while (item := layout.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.setParent(None)
            widget.deleteLater()


class Label(QLabel):
    """Text with a role of the style sheet; it is set again only when it has changed. `is_elided`: cut with … to fit."""

    def __init__(
        self, text: str = "", role: str = "", parent: QWidget | None = None, *, is_elided: bool = False
    ) -> None:
        """Plain text always: names may hold anything."""
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._is_elided = is_elided
        self._whole = ""
        if role:
            self.setProperty("role", role)
        if is_elided:
            self.setMinimumWidth(24)
            self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.show_text(text)

    def show_text(self, text: str, state: str | None = None) -> None:
        """Set the text and, if given, its `state` (good, warn, bad, human, idle, or empty)."""
        if text != self._whole:
            self._whole = text
            self._fit()
        if state is not None:
            set_property(self, "state", state)

    @property
    def whole_text(self) -> str:
        """The text as it was given."""
        return self._whole

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """Cut again."""
        super().resizeEvent(event)
        if self._is_elided:
            self._fit()

    def _fit(self) -> None:
        shown = self._whole
        if self._is_elided and self.width() > 0:
            shown = self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideRight, max(20, self.width()))
            self.setToolTip(self._whole if shown != self._whole else "")
        if self.text() != shown:
            self.setText(shown)


class Card(QFrame):
    """A rounded box with a heading, something at its right, and a body."""

    def __init__(self, title: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "card")
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(12, 10, 12, 12)
        self.body.setSpacing(6)
        self.heading = Label(title, "heading", is_elided=True)
        self.header = QHBoxLayout()
        self.header.setSpacing(8)
        self.header.addWidget(self.heading, 1)
        if title:
            self.body.addLayout(self.header)
            self.setAccessibleName(title)


class IconButton(QToolButton):
    """A square button with an icon. Its tool tip is also its accessible name."""

    def __init__(self, icon_name: str, tip: str, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._icon_name = icon_name
        self.setProperty("role", "icon")
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setIconSize(ICON_SIZE)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.set_tokens(tokens)

    def set_icon(self, icon_name: str, tokens: Tokens) -> None:
        """Another picture, as for pause and play."""
        if icon_name != self._icon_name:
            self._icon_name = icon_name
            self.set_tokens(tokens)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self.setIcon(icons.icon(self._icon_name, tokens.text, tokens.accent))


class Segments(QWidget):
    """One choice of a few, side by side. `chosen` carries the key."""

    chosen = Signal(str)

    def __init__(self, choices: Sequence[tuple[str, str, str]], name: str, parent: QWidget | None = None) -> None:
        """`choices` are key, text and tool tip; `name` is read out to who cannot see them."""
        super().__init__(parent)
        self.setAccessibleName(name)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        self._buttons: dict[str, QPushButton] = {}
        for number, (key, text, tip) in enumerate(choices):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setProperty("role", "segment")
            place = "first" if number == 0 else "last" if number == len(choices) - 1 else "middle"
            button.setProperty("place", place)
            button.setToolTip(tip)
            button.setAccessibleName(f"{name}: {text}")
            button.clicked.connect(lambda _checked=False, key=key: self.chosen.emit(key))
            self._group.addButton(button)
            self._buttons[key] = button
            layout.addWidget(button)

    @property
    def key(self) -> str:
        """What is chosen; empty while nothing is."""
        return next((key for key, button in self._buttons.items() if button.isChecked()), "")

    def choose(self, key: str) -> None:
        """Show a choice; tells nobody."""
        if key in self._buttons:
            self._buttons[key].setChecked(True)

    def set_enabled(self, key: str, is_enabled: bool, tip: str | None = None) -> None:
        """Offer a choice, or not."""
        self._buttons[key].setEnabled(is_enabled)
        if tip is not None:
            self._buttons[key].setToolTip(tip)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802  Qt's name
        """Left and right go to the neighbour."""
        keys = list(self._buttons)
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        if step is None or self.key not in keys:
            super().keyPressEvent(event)
            return
        wanted = keys[(keys.index(self.key) + step) % len(keys)]
        self._buttons[wanted].setFocus()
        self._buttons[wanted].click()


class Figure(QWidget):
    """A caption, a value below it, and maybe a note."""

    def __init__(self, caption: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self._value = Label("-", "value")
        self._note = Label("", "faint", is_elided=True)
        for label in (Label(caption, "caption"), self._value, self._note):
            layout.addWidget(label)
        self.setAccessibleName(caption)

    def show_value(self, value: str, note: str = "", state: str = "") -> None:
        """Set what is shown."""
        self._value.show_text(value, state)
        self._note.show_text(note)
        self.setAccessibleDescription(f"{value} {note}".strip())


class Meter(QWidget):
    """A named share as a bar with its figures; turns amber and red as it fills."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        line = QHBoxLayout()
        self._value = Label("-", "number")
        line.addWidget(Label(name, is_elided=True), 1)
        line.addWidget(self._value)
        layout.addLayout(line)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setRange(0, 1000)
        self._bar.setAccessibleName(name)
        layout.addWidget(self._bar)

    def show_share(self, share: float, text: str, warn: float = 0.5, bad: float = 0.9) -> None:
        """`share` is 0 to 1; above `warn` and `bad` it changes its colour."""
        state = "bad" if share >= bad else "warn" if share >= warn else "good"
        self._value.show_text(text, "" if state == "good" else state)
        value = max(0, min(1000, round(1000 * share)))
        if self._bar.value() != value:
            self._bar.setValue(value)
        set_property(self._bar, "state", state)


class EmptyState(QWidget):
    """What a page shows while it has nothing: what to do about it, with a command that can be copied."""

    def __init__(self, title: str, hint: str, command: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setSpacing(8)
        layout.addStretch(1)
        for text, role in ((title, "title"), (hint, "muted")):
            label = Label(text, role)
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
            label.setWordWrap(True)
            layout.addWidget(label)
        if command:
            shown = Label(command, "number")
            shown.setAlignment(Qt.AlignmentFlag.AlignCenter)
            shown.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )
            layout.addWidget(shown)
        layout.addStretch(1)
        self.setAccessibleName(f"{title} {hint} {command}".strip())


class Sparkline(QWidget):
    """A curve without axes, in the colour given. NaN leaves a gap."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._values: list[float] = []
        self._color = QColor()
        self.setMinimumSize(48, 20)

    def show_values(self, values: Sequence[float], color: str) -> None:
        """Draw other values, oldest first."""
        if list(values) != self._values or QColor(color) != self._color:
            self._values, self._color = list(values), QColor(color)
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802  Qt's name
        """Draw."""
        painter = QPainter(self)
        draw_sparkline(painter, self.rect().toRectF(), self._values, self._color)
        painter.end()


def draw_sparkline(painter: QPainter, box: QRectF, values: Sequence[float], color: QColor) -> None:
    """A curve with a shade below it, into `box`. Draws nothing for fewer than two numbers."""
    known = [(index, value) for index, value in enumerate(values) if value == value and abs(value) != float("inf")]
    if len(known) < 2:
        return
    least, most = min(value for _, value in known), max(value for _, value in known)
    span, last = (most - least) or 1.0, max(1, len(values) - 1)
    bottom = box.bottom() - 2
    points = [
        QPointF(box.left() + 1 + (box.width() - 2) * index / last, bottom - (box.height() - 4) * (value - least) / span)
        for index, value in known
    ]
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    shade = QColor(color)
    shade.setAlpha(46)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(shade)
    painter.drawPolygon(
        QPolygonF([QPointF(points[0].x(), box.bottom()), *points, QPointF(points[-1].x(), box.bottom())])
    )
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(color, 1.5))
    painter.drawPolyline(QPolygonF(points))
