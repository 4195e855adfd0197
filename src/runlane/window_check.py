"""Whether a window can be opened on this machine, found out before Qt is asked: Qt itself would abort the process."""

import ctypes
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence

from runlane.config.errors import WindowError

INSTALL = 'pip install "runlane[gui]"'
# What Qt loads of the system, and the Debian packages it comes in.
WINDOW_LIBRARIES = {
    "libglib-2.0.so.0": "libglib2.0-0",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libfontconfig.so.1": "libfontconfig1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
X11_PREFIXES = ("libxcb-", "libxkbcommon-x11")


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
    missing = missing_libraries(has_display=platform == "xcb" or not environment.get("WAYLAND_DISPLAY"))
    if missing:
        raise WindowError(f"Qt needs {', '.join(missing)}, or it aborts; {apt_command(missing)}")


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


def missing_libraries(*, has_display: bool, is_there: Callable[[str], bool] | None = None) -> list[str]:
    """Sonames that Qt would not find: of those it loads everywhere, and with an X11 display of more."""
    look = is_there or is_loadable
    wanted = [name for name in WINDOW_LIBRARIES if has_display or not name.startswith(X11_PREFIXES)]
    return [name for name in wanted if not look(name)]


def apt_command(missing: Sequence[str]) -> str:
    """What installs these on Debian and Ubuntu."""
    return "sudo apt-get install " + " ".join(dict.fromkeys(WINDOW_LIBRARIES[name] for name in missing))


def is_loadable(soname: str) -> bool:
    """Whether the system's loader finds a library. It stays loaded, which harms nobody: none of these is Qt's."""
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True
