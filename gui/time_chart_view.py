"""TimeChart: one figure over the last minutes, painted from arrays: a line, a soft shade, a threshold, a cursor.

At most two points for each pixel are drawn, so 10,000 values cost what 600 do. Painted only when told of other values.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetricsF,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QHBoxLayout, QWidget

from runlane.gui.controls_view import Card, Label
from runlane.gui.tokens import Tokens
from runlane.gui.trace import WINDOW_S

Floats = NDArray[np.float64]

LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 24.0
AXIS_PIXELS = 11
TICK_PIXELS = 46  # about so far from one line of the grid to the next
NOTHING = "\u2013"
NEAR = 6.0  # a threshold above so many times the largest value is told, not drawn: the line would lie flat below it


def scale_of(values: Floats, threshold: float | None) -> tuple[float, float]:
    """Lowest and highest value of the axis: from 0, or from where the line begins where it is far from 0."""
    known = values[np.isfinite(values)]
    most = float(known.max()) if len(known) else 0.0
    least = float(known.min()) if len(known) else 0.0
    if threshold is not None and threshold <= max(most, threshold / 1e9) * NEAR:
        most = max(most, threshold)
    low = least - 0.15 * (most - least) if most > least > 0.6 * most else min(0.0, least)
    if most - low < 1e-9:
        return low, low + max(4.0, abs(low))
    return low, most + 0.06 * (most - low)


def ticks_of(low: float, high: float, most: int) -> list[float]:
    """Round values between two others, at most so many."""
    rough = (high - low) / max(1, most)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step) * step
    return [first + step * number for number in range(int((high - first) / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number on an axis or beside a chart: at most five characters or so."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g} M"
    if size >= 1e5:
        return f"{value / 1e3:.4g} k"
    if size >= 10 or value == round(value):
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.2g}" if size < 1 else f"{value:.1f}"


def thin(x: Floats, y: Floats, columns: int) -> tuple[Floats, Floats]:
    """Of the points in each of so many columns the lowest and the highest, in their order. NaN stay where they are."""
    if len(x) <= 2 * columns or columns < 1:
        return x, y
    column = ((x - x[0]) / max(float(x[-1] - x[0]), 1e-9) * (columns - 1)).astype(np.int64)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(x))
    kept: list[int] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        part = y[start:end]
        if np.isnan(part).all():
            kept.append(start)
        else:
            kept += sorted({start + int(np.nanargmin(part)), start + int(np.nanargmax(part))})
    return x[kept], y[kept]


def shade_below(x: Floats, y: Floats, box: QRectF, color: QColor, ratio: float) -> tuple[float, QImage]:
    """A picture of the area between a line and the bottom of `box`, paler downwards, and where its left edge goes.

    Made column by column, at `ratio` pixels each: a polygon of a line that trembles costs Qt twenty times as much.
    """
    left = max(float(x[0]), box.left())
    width = max(1, round((min(float(x[-1]), box.right()) - left) * ratio))
    height = max(1, round(box.height() * ratio))
    tops = (np.interp(left + (np.arange(width) + 0.5) / ratio, x, y) - box.top()) * ratio
    alpha = np.linspace(110, 18, height)
    parts = [np.round(value * alpha / 255).astype(np.uint32) for value in (color.red(), color.green(), color.blue())]
    rows = np.round(alpha).astype(np.uint32) << 24 | parts[0] << 16 | parts[1] << 8 | parts[2]
    pixels = np.where(np.arange(height)[:, None] >= tops[None, :], rows[:, None], np.uint32(0))
    data = np.ascontiguousarray(pixels, np.uint32).tobytes()
    image = QImage(data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()
    image.setDevicePixelRatio(ratio)
    return left, image


def _x(seconds: float, box: QRectF) -> float:
    return box.right() + seconds * box.width() / WINDOW_S


def _y(value: float, box: QRectF, low: float, high: float) -> float:
    return box.bottom() - (value - low) * box.height() / (high - low)


class TimeChart(QWidget):
    """The chart alone. Seconds are negative, 0 is now."""

    def __init__(self, tokens: Tokens, color: str, unit: str = "", parent: QWidget | None = None) -> None:
        """`color` is a key of `Tokens.series`, as a number in text; `unit` follows values under the cursor."""
        super().__init__(parent)
        self._tokens = tokens
        self._series = int(color)
        self._unit = unit
        self._seconds = self._values = np.empty(0)
        self._threshold: float | None = None
        self._cursor: float | None = None
        self.setMinimumSize(160, 96)
        self.setMouseTracking(True)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._tokens = tokens
        self.update()

    def show_values(self, seconds: Floats, values: Floats, threshold: float | None = None) -> None:
        """Draw others."""
        if len(seconds) or len(self._seconds) or threshold != self._threshold:
            self._seconds, self._values, self._threshold = seconds, values, threshold
            self.update()

    @property
    def is_threshold_drawn(self) -> bool:
        """Whether the threshold lies on the axis."""
        return self._threshold is not None and self._threshold <= scale_of(self._values, self._threshold)[1]

    # ---- Qt ----

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        """Move the cursor."""
        self._cursor = event.position().x()
        self.update()

    def leaveEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """No cursor."""
        super().leaveEvent(event)
        self._cursor = None
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802  Qt's name
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = QFont(self.font())
        font.setPixelSize(AXIS_PIXELS)
        painter.setFont(font)
        box = QRectF(LEFT, TOP, max(1.0, self.width() - LEFT - RIGHT), max(1.0, self.height() - TOP - BOTTOM))
        low, high = scale_of(self._values, self._threshold)
        self._paint_axes(painter, box, low, high)
        if len(self._seconds):
            self._paint_line(painter, box, low, high)
        else:
            painter.setPen(QColor(self._tokens.faint))
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, "no figures yet")
        self._paint_threshold(painter, box, low, high)
        self._paint_cursor(painter, box, low, high)
        painter.end()

    def _paint_axes(self, painter: QPainter, box: QRectF, low: float, high: float) -> None:
        faint, grid = QColor(self._tokens.faint), QPen(QColor(self._tokens.grid), 1.0)
        for value in ticks_of(low, high, max(2, int(box.height() / TICK_PIXELS))):
            y = _y(value, box, low, high)
            painter.setPen(grid)
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
            painter.setPen(faint)
            where = QRectF(0, y - 8, LEFT - 8, 16)
            painter.drawText(where, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, short(value))
        painter.setPen(faint)
        for seconds in (-200.0, -100.0) if box.width() < 420 else (-240.0, -180.0, -120.0, -60.0):
            x = _x(seconds, box)
            where = QRectF(x - 40, box.bottom() + 6, 80, 16)
            painter.drawText(where, Qt.AlignmentFlag.AlignCenter, f"{seconds:.0f} s".replace("-", "\u2212"))
        where = QRectF(box.right() - 60, box.bottom() + 6, 60, 16)
        painter.drawText(where, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, "now")

    def _paint_line(self, painter: QPainter, box: QRectF, low: float, high: float) -> None:
        x = box.right() + self._seconds * (box.width() / WINDOW_S)
        y = box.bottom() - (self._values - low) * (box.height() / (high - low))
        x, y = thin(x, y, int(box.width()))
        color = QColor(self._tokens.series[self._series % len(self._tokens.series)])
        painter.save()
        painter.setClipRect(box.adjusted(0, -2, 0, 2))
        for part in np.split(np.arange(len(x)), np.flatnonzero(np.isnan(y))):
            known = part[np.isfinite(y[part])]
            if not len(known):
                continue
            part_x, part_y = x[known], y[known]
            if len(known) == 1:
                part_x, part_y = np.append(part_x, part_x + 1.5), np.append(part_y, part_y)
            left, shade = shade_below(part_x, part_y, box, color, self.devicePixelRatioF())
            painter.drawImage(QPointF(left, box.top()), shade)
            points = [QPointF(*pair) for pair in zip(part_x.tolist(), part_y.tolist(), strict=True)]
            # A polyline of this width costs Qt fifteen times as much: it works out where every two pieces meet.
            painter.setPen(QPen(color, 1.5))
            painter.drawLines([QLineF(*pair) for pair in pairwise(points)])
        painter.restore()

    def _paint_threshold(self, painter: QPainter, box: QRectF, low: float, high: float) -> None:
        if self._threshold is None or not low <= self._threshold <= high:
            return
        pen = QPen(QColor(self._tokens.warn), 1.0, Qt.PenStyle.DashLine)
        painter.setPen(pen)
        y = _y(self._threshold, box, low, high)
        painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))

    def _paint_cursor(self, painter: QPainter, box: QRectF, low: float, high: float) -> None:
        """The value nearest to the mouse."""
        if self._cursor is None or not len(self._seconds):
            return
        wanted = (self._cursor - box.right()) * WINDOW_S / box.width()
        at = int(np.abs(self._seconds - wanted).argmin())
        value = float(self._values[at])
        if not math.isfinite(value):
            return
        point = QPointF(_x(float(self._seconds[at]), box), _y(value, box, low, high))
        painter.setPen(QPen(QColor(self._tokens.strong_border), 1.0))
        painter.drawLine(QPointF(point.x(), box.top()), QPointF(point.x(), box.bottom()))
        text = f"{short(value)} {self._unit}".rstrip() + f" · {-self._seconds[at]:.0f} s ago"
        width = QFontMetricsF(painter.font()).horizontalAdvance(text) + 14
        left = min(max(point.x() - width / 2, box.left()), box.right() - width)
        where = QRectF(left, box.top(), width, 20)
        painter.setBrush(QColor(self._tokens.raised))
        painter.drawRoundedRect(where, 5, 5)
        painter.setPen(QColor(self._tokens.text))
        painter.drawText(where, Qt.AlignmentFlag.AlignCenter, text)
        painter.setPen(QPen(QColor(self._tokens.card), 1.5))
        painter.setBrush(QColor(self._tokens.series[self._series % len(self._tokens.series)]))
        painter.drawEllipse(point, 4, 4)


class TimeChartCard(Card):
    """A card with a title, the newest value and the chart."""

    def __init__(self, title: str, color: str, unit: str, tip: str, tokens: Tokens) -> None:
        super().__init__(title)
        self._title = title
        self._unit = unit
        self._value = Label(NOTHING, "value")
        self._note = Label("", "faint")
        figures = QHBoxLayout()
        figures.setSpacing(5)
        figures.addWidget(self._value, 0, Qt.AlignmentFlag.AlignBaseline)
        figures.addWidget(self._note, 0, Qt.AlignmentFlag.AlignBaseline)
        self.header.addLayout(figures)
        self.chart = TimeChart(tokens, color, unit, self)
        self.body.addWidget(self.chart, 1)
        self.setToolTip(tip)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self.chart.set_tokens(tokens)

    def show_trace(
        self, seconds: Floats, values: Floats, newest: float | None, threshold: float | None, limit_text: str = ""
    ) -> None:
        """Show values, the newest as text; amber above the threshold. `limit_text` is shown where it is not drawn."""
        self.chart.show_values(seconds, values, threshold)
        is_over = newest is not None and threshold is not None and newest > threshold
        self._value.show_text(NOTHING if newest is None else short(newest), "warn" if is_over else "")
        note = self._unit if newest is not None else ""
        if limit_text and not self.chart.is_threshold_drawn:
            note = f"{note} {limit_text}".strip()
        self._note.show_text(note)
        said = "no value" if newest is None else f"{short(newest)} {self._unit}".strip()
        self.setAccessibleDescription(f"{said}, over the last five minutes")
