"""The window's icons: strokes on a 24 by 24 grid, drawn in any colour at any size."""

from functools import lru_cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

_STROKES = {
    "live": "M4 5h16v11H4z M9 20h6 M12 16v4 M10.5 8.2v4.6l4-2.3z",
    "telemetry": "M4 4v16h16 M7 15l4-5 3 3 5-7",
    "runs": "M8 6h12 M8 12h12 M8 18h12 M4 6h.01 M4 12h.01 M4 18h.01",
    "system": "M3 12h4l2-6 4 12 2.5-8 1.5 2h4",
    "launch": "M5 19l3-1 9-9c2-2 2.500-4.500 2-5-.5-.5-3 0-5 2l-9 9z M9 8H5l-2 3 3 1 M16 15v4l-3 2-1-3",
    "settings": "M4 7h9 M17 7h3 M4 17h3 M11 17h9 M15 5v4 M9 15v4",
    "search": "M11 4a7 7 0 1 0 0 14a7 7 0 1 0 0-14z M16 16l4.500 4.500",
    "moon": "M20 14.500A8 8 0 0 1 9.500 4a8 8 0 1 0 10.500 10.500z",
    "sun": "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.400 1.400 M17.600 17.600L19 19"
    " M5 19l1.400-1.400 M17.600 6.400L19 5",
    "bell": "M6 16V11a6 6 0 0 1 12 0v5l1.500 2h-15z M10 20.500h4",
    "plus": "M12 5v14 M5 12h14",
    "pause": "M9 6v12 M15 6v12",
    "play": "M8 5l11 7-11 7z",
    "stop": "M7 7h10v10H7z",
    "kill": "M6 6l12 12 M18 6L6 18",
    "delete": "M5 7h14 M9 7V4.500h6V7 M7 7l1 13h8l1-13 M10.500 11v5 M13.500 11v5",
    "camera": "M4 8h3.500L9 5.500h6L16.500 8H20v11H4z M12 10a3.200 3.200 0 1 0 0 6.400a3.200 3.200 0 1 0 0-6.400z",
    "grid": "M4 4h7v7H4z M13 4h7v7h-7z M4 13h7v7H4z M13 13h7v7h-7z",
    "full": "M4 9V4h5 M15 4h5v5 M20 15v5h-5 M9 20H4v-5",
    "copy": "M9 9h11v11H9z M5 15H4V4h11v1",
    "export": "M12 15V4 M8 7.500L12 3.500l4 4 M5 12v8h14v-8",
    "filter": "M4 6h16 M7 12h10 M10 18h4",
    "columns": "M4 5h16v14H4z M9.300 5v14 M14.700 5v14",
    "folder": "M3 6h6l2 2.500h10V19H3z",
    "close": "M6 6l12 12 M18 6L6 18",
    "warning": "M12 4l9 16H3z M12 10v4.500 M12 17.500h.01",
    "check": "M5 12.500l4.500 4.500L19 7",
    "zoom": "M11 4a7 7 0 1 0 0 14a7 7 0 1 0 0-14z M16 16l4.500 4.500 M11 8v6 M8 11h6",
    "reset": "M4 12a8 8 0 1 0 2.500-5.800 M4 4v4.500h4.500",
    "tag": "M4 4h8l8 8-8 8-8-8z M8 8h.01",
}
NAMES = tuple(_STROKES)
_TEMPLATE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="{color}" stroke-width="1.700" '
    'stroke-linecap="round" stroke-linejoin="round"><path d="{path}"/></svg>'
)


@lru_cache(maxsize=256)
def pixmap(name: str, color: str, size: int, ratio: float = 1.0) -> QPixmap:
    """An icon of `size` device-independent pixels; `ratio` is the screen's. Raises `KeyError` on an unknown name."""
    renderer = QSvgRenderer(QByteArray(_TEMPLATE.format(color=color, path=_STROKES[name]).encode()))
    found = QPixmap(round(size * ratio), round(size * ratio))
    found.fill(Qt.GlobalColor.transparent)
    painter = QPainter(found)
    renderer.render(painter, QRectF(found.rect()))
    painter.end()
    found.setDevicePixelRatio(ratio)
    return found


def icon(name: str, color: str, checked_color: str | None = None) -> QIcon:
    """An icon for buttons, with another colour while they are checked."""
    found = QIcon()
    for ratio in (1.0, 2.0, 3.0):
        found.addPixmap(pixmap(name, color, 20, ratio), QIcon.Mode.Normal, QIcon.State.Off)
        if checked_color is not None:
            found.addPixmap(pixmap(name, checked_color, 20, ratio), QIcon.Mode.Normal, QIcon.State.On)
    return found
