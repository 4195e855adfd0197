"""The bars around the pages: top bar, navigation, status bar. They show and ask; the main window decides."""

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from runlane.gui import icons
from runlane.gui.controls_view import IconButton, Label, set_property
from runlane.gui.tokens import Tokens

TOP_BAR_HEIGHT = 48
STATUS_BAR_HEIGHT = 26
NAVIGATION_WIDTH = 72


class Mark(QWidget):
    """The sign of runlane: two lanes, the one ahead of the other."""

    def __init__(self, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedSize(22, 22)
        self._color = QColor(tokens.accent)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._color = QColor(tokens.accent)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802  Qt's name
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        for left, top, width, alpha in ((2.0, 4.0, 13.0, 255), (6.0, 12.5, 13.0, 150)):
            color = QColor(self._color)
            color.setAlpha(alpha)
            painter.setBrush(color)
            corners = ((left + 3, top), (left + width + 3, top), (left + width, top + 6), (left, top + 6))
            painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in corners]))
        painter.end()


class TopBar(QWidget):
    """Name, what is going on in a few words, the telemetry mode, and what can be done from anywhere."""

    search_asked = Signal()
    theme_asked = Signal()
    events_asked = Signal()
    launch_asked = Signal()

    def __init__(self, tokens: Tokens, mode_selector: QWidget, parent: QWidget | None = None) -> None:
        """`mode_selector` stands among the controls, never among figures."""
        super().__init__(parent)
        self.setProperty("role", "topbar")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setFixedHeight(TOP_BAR_HEIGHT)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(16, 6, 12, 6)
        layout.setSpacing(8)
        self._mark = Mark(tokens)
        layout.addWidget(self._mark)
        layout.addWidget(Label("runlane", "title"))
        self._summary = Label("", "muted", is_elided=True)
        layout.addSpacing(6)
        layout.addWidget(self._summary, 1)
        layout.addWidget(mode_selector)
        layout.addSpacing(4)
        self._search = IconButton("search", "Search runs (Ctrl+F)", tokens)
        self._theme = IconButton("moon", "Dark or light (Ctrl+D)", tokens)
        self._bell = IconButton("bell", "Events", tokens)
        self._search.clicked.connect(self.search_asked)
        self._theme.clicked.connect(self.theme_asked)
        self._bell.clicked.connect(self.events_asked)
        self._unseen = QLabel("", self._bell)
        self._unseen.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._new = QPushButton("New run")
        self._new.setProperty("role", "primary")
        self._new.setToolTip("Start a training script (Ctrl+N)")
        self._new.clicked.connect(self.launch_asked)
        for button in (self._search, self._theme, self._bell, self._new):
            layout.addWidget(button)
        self.set_tokens(tokens)

    def show_summary(self, text: str) -> None:
        """The line beside the name."""
        self._summary.show_text(text)

    def show_unseen(self, count: int, tokens: Tokens) -> None:
        """A mark on the bell; its tool tip says how many."""
        self._bell.setToolTip(f"Events: {count} new" if count else "Events")
        self._bell.setAccessibleName(self._bell.toolTip())
        self._unseen.setVisible(count > 0)
        if count:
            self._unseen.setStyleSheet(f"background: {tokens.warn}; border-radius: 4px;")
            self._unseen.setGeometry(self._bell.width() - 13, 6, 8, 8)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._mark.set_tokens(tokens)
        for button in (self._search, self._bell):
            button.set_tokens(tokens)
        self._theme.set_icon("moon" if tokens.scheme == "dark" else "sun", tokens)
        self._theme.set_tokens(tokens)
        self._new.setIcon(icons.icon("plus", tokens.accent_text))


class Navigation(QWidget):
    """The pages, by icon and name, top to bottom. `chosen` carries the key."""

    chosen = Signal(str)

    def __init__(self, pages: Sequence[tuple[str, str, str]], tokens: Tokens, parent: QWidget | None = None) -> None:
        """`pages` are key, name and icon; they answer to Ctrl+1, Ctrl+2 and so on."""
        super().__init__(parent)
        self.setProperty("role", "navigation")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setFixedWidth(NAVIGATION_WIDTH)
        self.setAccessibleName("Pages")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(5, 6, 5, 8)
        layout.setSpacing(4)
        self._group = QButtonGroup(self)
        self._buttons: dict[str, tuple[QToolButton, str]] = {}
        for number, (key, name, icon_name) in enumerate(pages, 1):
            button = QToolButton()
            button.setText(name)
            button.setProperty("role", "nav")
            button.setCheckable(True)
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
            button.setIconSize(QSize(20, 20))
            button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.setToolTip(f"{name} (Ctrl+{number})")
            button.setAccessibleName(f"Page {name}")
            button.clicked.connect(lambda _checked=False, key=key: self.chosen.emit(key))
            self._group.addButton(button)
            self._buttons[key] = (button, icon_name)
            layout.addWidget(button)
        layout.addStretch(1)
        self.set_tokens(tokens)

    def choose(self, key: str) -> None:
        """Show which page is open; tells nobody."""
        self._buttons[key][0].setChecked(True)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        for button, icon_name in self._buttons.values():
            button.setIcon(icons.icon(icon_name, tokens.muted, tokens.accent))


class StatusBar(QWidget):
    """One line of figures: what is connected and how the window itself does, at the right the store."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "statusbar")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setFixedHeight(STATUS_BAR_HEIGHT)
        self.setAccessibleName("Status")
        self._layout = QHBoxLayout(self)
        self._layout.setContentsMargins(14, 0, 14, 0)
        self._layout.setSpacing(26)
        self._labels: dict[str, Label] = {}
        self._stretch_at = 0
        self._layout.addStretch(1)

    def show_item(self, key: str, text: str, state: str = "", *, is_right: bool = False) -> None:
        """Set one figure; an empty text hides it."""
        label = self._labels.get(key)
        if label is None:
            if not text:
                return
            label = self._labels[key] = Label("", "caption")
            if is_right:
                self._layout.addWidget(label)
            else:
                self._layout.insertWidget(self._stretch_at, label)
                self._stretch_at += 1
        label.show_text(text)
        set_property(label, "state", state)
        label.setVisible(bool(text))
