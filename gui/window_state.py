"""What the window remembers from one time to the next: place, page, look. Kept in the user's config folder."""

import os
from pathlib import Path

from PySide6.QtCore import QByteArray, QSettings

FILE = Path("runlane") / "window.ini"


def default_path() -> Path:
    """Where desktops keep such things: `$XDG_CONFIG_HOME/runlane/window.ini`, by default below `~/.config`."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(configured) if configured else Path.home() / ".config") / FILE


class WindowState:
    """Values by name. A file that cannot be read or written is no matter: then nothing is remembered."""

    def __init__(self, path: Path) -> None:
        self._settings = QSettings(str(path), QSettings.Format.IniFormat)

    def text(self, name: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        """A remembered text; the default where there is none, or none that is allowed."""
        value = str(self._settings.value(name, default))
        return value if not allowed or value in allowed else default

    def data(self, name: str) -> QByteArray:
        """Remembered bytes, as of a geometry; empty where there are none."""
        value = self._settings.value(name)
        return value if isinstance(value, QByteArray) else QByteArray()

    def remember(self, **values: str | QByteArray) -> None:
        """Write values down."""
        for name, value in values.items():
            self._settings.setValue(name, value)
        self._settings.sync()
