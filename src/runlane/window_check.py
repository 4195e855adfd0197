"""Whether a window can be opened on this machine, found out before Qt is asked: Qt itself would abort the process."""

import ctypes
import importlib.util
import sys
from collections.abc import Mapping

from runlane.config.errors import WindowError

INSTALL = 'pip install "runlane[gui]"'
CURSOR_LIBRARY = "libxcb-cursor.so.0"


def check_window(environment: Mapping[str, str]) -> None:
    """Raise `WindowError` with a remedy where no window can be opened."""
    for module in ("PySide6", "pyqtgraph"):
        if importlib.util.find_spec(module) is None:
            raise WindowError(f"the window needs {module}, which is not installed: {INSTALL}")
    platform = environment.get("QT_QPA_PLATFORM", "")
    if sys.platform != "linux" or platform not in ("", "xcb"):
        return
    if not has_display(environment):
        raise WindowError(
            "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set); watch in the terminal with "
            "`runlane watch`, or forward a display, as with `ssh -X`"
        )
    if (platform == "xcb" or not environment.get("WAYLAND_DISPLAY")) and not _is_loadable(CURSOR_LIBRARY):
        raise WindowError(f"{CURSOR_LIBRARY} is missing, without which Qt aborts: sudo apt-get install libxcb-cursor0")


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether somebody could see a window."""
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def can_open(environment: Mapping[str, str]) -> bool:
    """Whether a window can be opened for somebody to see."""
    try:
        check_window(environment)
    except WindowError:
        return False
    return has_display(environment)


def _is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
