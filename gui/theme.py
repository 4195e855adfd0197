"""Theme: the tokens in force, as palette, style sheet and fonts. Follows the system until somebody chooses.

`setColorScheme(Dark)` alone changes nothing where there is no desktop, so the whole look is ours: Fusion, this
palette, this style sheet.
"""

from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QPalette

from runlane.gui.tokens import Scheme, Tokens, tokens_of

Choice = Literal["system", "dark", "light"]
CHOICES: tuple[Choice, ...] = ("system", "dark", "light")
FONT_FILES = ("Inter-Regular.otf", "Inter-Medium.otf", "Inter-SemiBold.otf")
FONT_FAMILY = "Inter"
FONT_PIXELS = 13


class Theme(QObject):
    """One look for the whole window. `changed` carries the tokens."""

    changed = Signal(object)

    def __init__(self, choice: Choice = "system", parent: QObject | None = None) -> None:
        """Needs a QGuiApplication."""
        super().__init__(parent)
        self.choice: Choice = choice
        self.tokens = tokens_of(self._scheme())
        hints = QGuiApplication.styleHints()
        hints.colorSchemeChanged.connect(self._on_system)

    def choose(self, choice: Choice) -> None:
        """Follow the system, or not."""
        self.choice = choice
        self._on_system()

    def toggle(self) -> None:
        """The other scheme, whatever the system says."""
        self.choose("light" if self.tokens.scheme == "dark" else "dark")

    def _scheme(self) -> Scheme:
        if self.choice != "system":
            return self.choice
        # Unknown, as without a desktop, is dark: frames look best on it.
        return "light" if QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Light else "dark"

    def _on_system(self) -> None:
        tokens = tokens_of(self._scheme())
        if tokens is not self.tokens:
            self.tokens = tokens
            self.changed.emit(tokens)


def load_fonts() -> QFont:
    """Register the shipped font and return it in the window's size; the system's where it cannot be read."""
    for name in FONT_FILES:
        QFontDatabase.addApplicationFontFromData((Path(__file__).parent / name).read_bytes())
    font = QFont(FONT_FAMILY)
    font.setPixelSize(FONT_PIXELS)
    font.setFeature(QFont.Tag.fromString("tnum"), 1)  # figures that change must not dance
    return font


def palette_of(tokens: Tokens) -> QPalette:
    """What widgets without a rule of their own use."""
    roles = {
        QPalette.ColorRole.Window: tokens.window,
        QPalette.ColorRole.WindowText: tokens.text,
        QPalette.ColorRole.Base: tokens.card,
        QPalette.ColorRole.AlternateBase: tokens.stripe,
        QPalette.ColorRole.Text: tokens.text,
        QPalette.ColorRole.Button: tokens.raised,
        QPalette.ColorRole.ButtonText: tokens.text,
        QPalette.ColorRole.BrightText: tokens.text,
        QPalette.ColorRole.Highlight: tokens.accent,
        QPalette.ColorRole.HighlightedText: tokens.accent_text,
        QPalette.ColorRole.ToolTipBase: tokens.raised,
        QPalette.ColorRole.ToolTipText: tokens.text,
        QPalette.ColorRole.PlaceholderText: tokens.faint,
        QPalette.ColorRole.Link: tokens.accent,
    }
    palette = QPalette()
    for role, color in roles.items():
        palette.setColor(role, QColor(color))
    for role in (QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText, QPalette.ColorRole.WindowText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(tokens.faint))
    return palette


def style_sheet(tokens: Tokens) -> str:
    """The rules of every control, by object name and by the property `role`."""
    folder = Path(__file__).parent
    text = (folder / "theme.qss").read_text("utf-8")
    text = text.replace("@arrow", (folder / f"arrow-{tokens.scheme}.svg").as_posix())
    for name, value in tokens.as_qml().items():
        text = text.replace(f"@{name};", f"{value};").replace(f"@{name} ", f"{value} ")
    return text
