"""Whether Qt can be loaded here. Where it cannot, the GUI's tests are left out, and said to be."""

import sys
from importlib.util import find_spec

from runlane.window_check import apt_command, missing_libraries


def _reason() -> str:
    for module in ("PySide6", "pyqtgraph", "pytestqt"):
        if find_spec(module) is None:
            return f"{module} is not installed"
    missing = missing_libraries(has_display=False) if sys.platform == "linux" else []
    return f"Qt needs {', '.join(missing)}: {apt_command(missing)}" if missing else ""


NO_QT = _reason()
"""Why not; empty where it can."""
