"""PlotCanvas: the one file that speaks to pyqtgraph, which has no types. Lines, bands, axes and a cross hair.

Ranges are set by us and nowhere else: pyqtgraph's own looks at every point of every line, at every change.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, Signal
from PySide6.QtGui import QBrush, QColor, QFont, QLinearGradient, QPainterPath, QPen
from PySide6.QtWidgets import QGraphicsPathItem, QVBoxLayout, QWidget

from runlane.gui.plot_lines import Line
from runlane.gui.series import Floats
from runlane.gui.tokens import Tokens

LEFT_AXIS_PX = 46
BOTTOM_AXIS_PX = 22
AXIS_FONT_PX = 11
FAINT_ALPHA = 85
STRONG_PX = 1.0  # 1.6 looks better, and holds the loop for twice as long
FILL_ALPHA = 60
BAND_ALPHA = 45

Ticks = Callable[[float, float], str]  # value and spacing to text

pg: Any = importlib.import_module("pyqtgraph")


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line as it is drawn. A faint one is what was measured, a strong one what was made of it."""

    line: Line
    color: str
    is_faint: bool = False


@dataclass(frozen=True, slots=True)
class Shade:
    """An area between two lines; with a gradient it fades downwards."""

    x: Floats
    low: Floats
    high: Floats
    color: str
    is_gradient: bool = False


class PlotCanvas(QWidget):
    """Owned by the Qt thread. `moved` carries the x range that the user wants; `hovered` an x, or None."""

    moved = Signal(float, float)
    reset = Signal()
    hovered = Signal(object)

    def __init__(self, tokens: Tokens, ticks_x: Ticks, ticks_y: Ticks, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._plot = pg.PlotWidget(self)
        layout.addWidget(self._plot)
        self._plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._plot.setFrameShape(self._plot.Shape.NoFrame)
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        # We say when to paint: the scene would paint twice for each change.
        self._plot.setViewportUpdateMode(self._plot.ViewportUpdateMode.NoViewportUpdate)
        self._box: Any = self._plot.getViewBox()
        self._box.setMouseEnabled(x=True, y=False)
        self._box.disableAutoRange()
        self._box.setDefaultPadding(0.0)
        self._axes: dict[str, Any] = {side: self._plot.getAxis(side) for side in ("left", "bottom")}
        self._set_axes(ticks_x, ticks_y)
        self._curves: list[Any] = []
        self._areas: list[QGraphicsPathItem] = []
        self._cross = pg.InfiniteLine(angle=90, movable=False)
        self._cross.setVisible(False)
        self._box.addItem(self._cross, ignoreBounds=True)
        self._box.sigRangeChangedManually.connect(self._on_moved)
        scene = self._plot.scene()
        scene.sigMouseMoved.connect(self._on_mouse)
        scene.sigMouseClicked.connect(self._on_click)
        self._plot.viewport().installEventFilter(self)
        self.set_tokens(tokens)

    def _set_axes(self, ticks_x: Ticks, ticks_y: Ticks) -> None:
        font = QFont(self.font())
        font.setPixelSize(AXIS_FONT_PX)
        for side, ticks in (("left", ticks_y), ("bottom", ticks_x)):
            axis = self._axes[side]
            axis.enableAutoSIPrefix(False)
            axis.setStyle(tickLength=0, tickTextOffset=6, tickFont=font, maxTickLevel=0, autoExpandTextSpace=False)
            axis.tickStrings = _texts_by(ticks)
            axis.setZValue(-1000)  # the grid lies below the lines
        self._axes["left"].setWidth(LEFT_AXIS_PX)
        self._axes["bottom"].setHeight(BOTTOM_AXIS_PX)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme; lines get theirs with the next `draw`."""
        self._plot.setBackground(tokens.card)
        for side, axis in self._axes.items():
            axis.setPen(QPen(Qt.PenStyle.NoPen))
            axis.setTextPen(tokens.faint)
            # An opaque colour of the tokens: alpha over the card would be another one.
            axis.setTickPen(_pen(tokens.grid))
            axis.setGrid(255 if side == "left" else False)
        self._cross.setPen(_pen(tokens.strong_border))

    def set_ranges(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Show this stretch. Nothing happens when it is shown already."""
        if list(x) != self._box.viewRange()[0] or list(y) != self._box.viewRange()[1]:
            self._box.setRange(xRange=_wide(x), yRange=_wide(y), padding=0, disableAutoRange=True)

    @property
    def range_x(self) -> tuple[float, float]:
        """What of x is shown."""
        low, high = self._box.viewRange()[0]
        return float(low), float(high)

    @property
    def pixels(self) -> int:
        """Width of the picture."""
        return max(16, self.width() - LEFT_AXIS_PX)

    def draw(self, strokes: Sequence[Stroke], shades: Sequence[Shade], bottom: float) -> None:
        """Draw these and nothing else; faint lines first. `bottom` is where gradients end."""
        ordered = sorted(strokes, key=lambda stroke: not stroke.is_faint)
        for number, stroke in enumerate(ordered):
            if number == len(self._curves):
                curve = pg.PlotCurveItem(antialias=True)
                self._box.addItem(curve, ignoreBounds=True)
                self._curves.append(curve)
            self._draw_line(self._curves[number], stroke)
        for curve in self._curves[len(ordered) :]:
            curve.setVisible(False)
        for number, shade in enumerate(shades):
            if number == len(self._areas):
                area = QGraphicsPathItem()
                area.setPen(QPen(Qt.PenStyle.NoPen))
                area.setZValue(-10)
                self._box.addItem(area, ignoreBounds=True)
                self._areas.append(area)
            self._draw_shade(self._areas[number], shade, bottom)
        for area in self._areas[len(shades) :]:
            area.setVisible(False)
        self._plot.viewport().update()

    def show_cross(self, x: float | None) -> None:
        """The line under the mouse."""
        self._cross.setVisible(x is not None)
        if x is not None:
            self._cross.setValue(x)
        self._plot.viewport().update()

    def lines(self) -> list[tuple[Floats, Floats, bool]]:
        """What is drawn now, as x, y and whether it is faint; for tests and for who cannot see."""
        return [(*curve.getData(), curve.zValue() < 0) for curve in self._curves if curve.isVisible()]

    def cleanup(self) -> None:
        """Let go of pyqtgraph's things, in the order they like."""
        self._plot.viewport().removeEventFilter(self)
        self._plot.close()

    # ---- events ----

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """The mouse has left."""
        if event.type() == QEvent.Type.Leave:
            self.hovered.emit(None)
        return super().eventFilter(watched, event)

    def _on_moved(self, _enabled: object) -> None:
        self.moved.emit(*self.range_x)

    def _on_mouse(self, place: QPointF) -> None:
        is_inside = self._box.sceneBoundingRect().contains(place)
        self.hovered.emit(float(self._box.mapSceneToView(place).x()) if is_inside else None)

    def _on_click(self, event: Any) -> None:
        if event.double():
            event.accept()
            self.reset.emit()

    # ---- drawing ----

    def _draw_line(self, curve: Any, stroke: Stroke) -> None:
        is_finite = bool(np.isfinite(stroke.line.y).all())
        curve.setData(
            stroke.line.x,
            stroke.line.y,
            pen=_pen(stroke.color, FAINT_ALPHA) if stroke.is_faint else _pen(stroke.color, 255, STRONG_PX),
            connect="all" if is_finite else "finite",
            skipFiniteCheck=is_finite,
        )
        curve.setZValue(-1 if stroke.is_faint else 1)
        curve.setVisible(True)

    def _draw_shade(self, area: QGraphicsPathItem, shade: Shade, bottom: float) -> None:
        known = np.isfinite(shade.low) & np.isfinite(shade.high)
        x, low, high = shade.x[known], shade.low[known], shade.high[known]
        path = QPainterPath()
        if len(x) > 1:
            path = pg.arrayToQPath(np.concatenate((x, x[::-1])), np.concatenate((high, low[::-1])))
        color = QColor(shade.color)
        color.setAlpha(FILL_ALPHA if shade.is_gradient else BAND_ALPHA)
        brush = QBrush(color)
        if shade.is_gradient and len(x):
            gradient = QLinearGradient(0.0, float(high.max()), 0.0, bottom)
            end = QColor(color)
            end.setAlpha(8)
            gradient.setColorAt(0.0, color)
            gradient.setColorAt(1.0, end)
            brush = QBrush(gradient)
        area.setBrush(brush)
        area.setPath(path)
        area.setVisible(True)


def _pen(color: str, alpha: int = 255, width: float = 1.0) -> QPen:
    """As wide at every zoom. Lines wider than 1 are drawn piece by piece, for which there must be few points."""
    shown = QColor(color)
    shown.setAlpha(alpha)
    pen = QPen(shown, width)
    pen.setCosmetic(True)
    return pen


def _wide(low_high: tuple[float, float]) -> tuple[float, float]:
    low, high = low_high
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _texts_by(ticks: Ticks) -> Callable[[Sequence[float], float, float], list[str]]:
    def texts(values: Sequence[float], _scale: float, spacing: float) -> list[str]:
        return [ticks(float(value), float(spacing)) for value in values]

    return texts
