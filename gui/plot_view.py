"""PlotView: one figure over steps, episodes or time, of several runs at once: raw and smoothed, mean and band."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPoint, QRect, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from runlane.gui.controls_view import Card, Label
from runlane.gui.figures import axis_number, clock_text, short_number, whole_number
from runlane.gui.plot_canvas_view import PlotCanvas, Shade, Stroke
from runlane.gui.plot_lines import Band, Line, band_of, raw_line, smooth_line, value_range
from runlane.gui.series import Axis, Envelope, Series
from runlane.gui.telemetry_history import RawRows
from runlane.gui.telemetry_model import SeriesKey
from runlane.gui.tokens import Tokens

MAX_CURVES = 24
MANY_AGENTS = 3  # from so many on the curves of one run are one curve, with a band
SETTLE_MS = 250  # of a zoom, before the store is asked
TOP_TIP_PX = 2
MISSED_TIP = (
    "Records of these runs that the window did not get; steps among them are on the axis by estimate.\n"
    "They are in the database: `runlane sql`. Info records, which it does not ask for, may be counted."
)


@dataclass(frozen=True, slots=True)
class PlotCurve:
    """One curve in its colour. Curves of one `group` are drawn as mean ± band, when that is wanted.

    Those of `agents`, the many of one run under one name, are drawn so at all times.
    """

    key: SeriesKey
    label: str
    color: str
    series: Series
    group: str
    agents: str = ""


@dataclass(frozen=True, slots=True)
class PlotChoices:
    """How all plots of a page are drawn. `smoothing` is 0 to 0.99."""

    axis: Axis = "step"
    smoothing: float = 0.6
    is_banded: bool = False


@dataclass(frozen=True, slots=True)
class _Shown:
    """A line that can be pointed at."""

    label: str
    color: str
    line: Line


class Legend(QWidget):
    """Dashes and names in one row; what has no room is counted."""

    def __init__(self, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tokens = tokens
        self._items: list[tuple[str, str]] = []
        font = self.font()
        font.setPixelSize(12)
        self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """One line."""
        return QSize(80, 18)

    def show_items(self, items: list[tuple[str, str]], tokens: Tokens) -> None:
        """Labels and their colours."""
        if items != self._items or tokens is not self._tokens:
            self._items, self._tokens = items, tokens
            self.setToolTip("\n".join(label for label, _ in items))
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802  Qt's name
        """Draw."""
        painter = QPainter(self)
        metrics = self.fontMetrics()
        x, middle = 0, self.height() // 2
        for number, (label, color) in enumerate(self._items):
            left = len(self._items) - number
            more = f"+{left}"
            room = self.width() - x - 14 - (metrics.horizontalAdvance(more) + 14 if left > 1 else 0)
            width = metrics.horizontalAdvance(label)
            if width > room and (number or left > 1) and room < 60:
                painter.setPen(QColor(self._tokens.faint))
                painter.drawText(QRect(x, 0, self.width() - x, self.height()), Qt.AlignmentFlag.AlignVCenter, more)
                break
            painter.fillRect(x, middle - 1, 9, 2, QColor(color))
            painter.setPen(QColor(self._tokens.muted))
            text = metrics.elidedText(label, Qt.TextElideMode.ElideRight, max(0, room))
            painter.drawText(QRect(x + 14, 0, room + 1, self.height()), Qt.AlignmentFlag.AlignVCenter, text)
            x += 14 + min(width, room) + 16
        painter.end()


class PlotView(Card):
    """Draws what it was given by `show`, again whenever `refresh` finds something new.

    `zoomed` carries a range of x that has settled: whoever can load raw rows may answer with `set_raw`.
    """

    zoomed = Signal(float, float)
    unzoomed = Signal()

    def __init__(self, title: str, tokens: Tokens, parent: QWidget | None = None, unit: str = "") -> None:
        super().__init__(title, parent)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setToolTip("")
        self.title = title
        self._tokens = tokens
        self._unit = unit
        self._curves: list[PlotCurve] = []
        self._choices = PlotChoices()
        self._raw: dict[SeriesKey, RawRows] = {}
        self._range_x: tuple[float, float] | None = None  # while zoomed
        self._drawn: object = None
        self._shown: list[_Shown] = []
        self._value = Label("-", "value")
        self._note = Label("", "faint", is_elided=True)
        self._note.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.header.addWidget(self._note, 1)
        self.header.addWidget(self._value)
        self._legend = Legend(tokens)
        self._missed = Label("", "faint")
        self._missed.setToolTip(MISSED_TIP)
        self._missed.hide()
        below = QHBoxLayout()
        below.addWidget(self._legend, 1)
        below.addWidget(self._missed)
        self.body.addLayout(below)
        self.canvas = PlotCanvas(tokens, self._tick_x, axis_number)
        self.body.addWidget(self.canvas, 1)
        self.body.setContentsMargins(12, 8, 10, 4)
        self.body.setSpacing(2)
        self._tip = Label("", parent=self.canvas)
        self._tip.setObjectName("plotTip")
        self._tip.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._tip.hide()
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self._on_settled)
        self.canvas.moved.connect(self.zoom_to)
        self.canvas.reset.connect(self.reset_zoom)
        self.canvas.hovered.connect(self._on_hover)
        self.set_tokens(tokens)

    # ---- what to draw ----

    def show_curves(self, curves: Sequence[PlotCurve], choices: PlotChoices) -> None:
        """Draw other curves, or the same in another way."""
        if choices.axis != self._choices.axis:
            self._range_x, self._raw = None, {}
        self._curves, self._choices = list(curves[:MAX_CURVES]), choices
        self._raw = {key: rows for key, rows in self._raw.items() if key in {curve.key for curve in self._curves}}
        self._drawn = None

    def refresh(self) -> bool:
        """Draw if anything has changed; whether it had."""
        state = (
            [(curve.key, curve.color, curve.series.version) for curve in self._curves],
            self._choices,
            self._range_x,
            self.canvas.size(),
            self._tokens,
            tuple(self._raw),
        )
        if state == self._drawn:
            return False
        self._drawn = state
        self._draw()
        return True

    def set_raw(self, rows: dict[SeriesKey, RawRows]) -> None:
        """Raw rows of the stretch that is zoomed to, in place of the curve."""
        self._raw = rows if self._range_x is not None else {}
        self._drawn = None

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._tokens = tokens
        self.canvas.set_tokens(tokens)
        self._tip.setStyleSheet(
            f"background: {tokens.raised}; color: {tokens.text}; border: 1px solid {tokens.strong_border};"
            " border-radius: 6px; padding: 4px 7px; font-size: 12px;"
        )
        self._drawn = None

    @property
    def curves(self) -> list[PlotCurve]:
        """What it shows."""
        return list(self._curves)

    @property
    def range_x(self) -> tuple[float, float] | None:
        """What it is zoomed to; None while it shows everything."""
        return self._range_x

    @property
    def note(self) -> str:
        """What it says about where its points come from."""
        return self._note.whole_text

    def show_missed(self, records: int) -> None:
        """Say how many records of what is drawn never came; nothing when all did."""
        self._missed.show_text(f"{whole_number(records)} records missed" if records > 0 else "")
        self._missed.setVisible(records > 0)

    @property
    def missed(self) -> str:
        """What it says about records that never came."""
        return self._missed.whole_text

    def cleanup(self) -> None:
        """Stop timers, let go of the canvas."""
        self._settle.stop()
        self.canvas.cleanup()

    # ---- zoom ----

    def zoom_to(self, low: float, high: float) -> None:
        """Show a stretch of x."""
        if high > low and math.isfinite(low) and math.isfinite(high):
            self._range_x = (low, high)
            self._settle.start()
            self.refresh()

    def reset_zoom(self) -> None:
        """Show everything, and follow again."""
        if self._range_x is not None:
            self._range_x, self._raw = None, {}
            self._settle.stop()
            self.unzoomed.emit()
            self.refresh()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802  Qt's name
        """Plus and minus zoom, left and right move, Home shows everything."""
        low, high = self.canvas.range_x
        width = high - low
        ranges = {
            Qt.Key.Key_Plus: (low + width / 4, high - width / 4),
            Qt.Key.Key_Equal: (low + width / 4, high - width / 4),
            Qt.Key.Key_Minus: (low - width / 2, high + width / 2),
            Qt.Key.Key_Left: (low - width / 5, high - width / 5),
            Qt.Key.Key_Right: (low + width / 5, high + width / 5),
        }
        key = Qt.Key(event.key())
        if key in ranges:
            self.zoom_to(*ranges[key])
        elif key == Qt.Key.Key_Home:
            self.reset_zoom()
        else:
            super().keyPressEvent(event)

    def _on_settled(self) -> None:
        if self._range_x is not None:
            self.zoomed.emit(*self._range_x)

    # ---- drawing ----

    def _envelope(self, curve: PlotCurve) -> Envelope:
        raw = self._raw.get(curve.key)
        return curve.series.envelope() if raw is None else raw.envelope

    def _draw(self) -> None:
        axis, pixels = self._choices.axis, self.canvas.pixels
        envelopes = [self._envelope(curve) for curve in self._curves]
        raw = [raw_line(envelope, axis, self._range_x, pixels) for envelope in envelopes]
        smooth = [smooth_line(envelope, axis, self._range_x, pixels, self._choices.smoothing) for envelope in envelopes]
        bands = self._bands(smooth)
        strokes = [Stroke(line, curve.color, is_faint=True) for curve, line in zip(self._curves, raw, strict=True)]
        shades: list[Shade] = []
        self._shown = []
        range_x = self._range_x or _extent(envelopes, axis)
        range_y = value_range([line.inside(range_x) for line in raw])
        for curve, line in zip(self._curves, smooth, strict=True):
            label = self._band_name(curve)
            if not label:
                self._shown.append(_Shown(curve.label, curve.color, line))
            elif label in bands:
                name, band = bands.pop(label)
                self._shown.append(_Shown(name, curve.color, band.mean))
                shades.append(Shade(band.mean.x, band.low, band.high, curve.color))
        if not shades and len(smooth) == 1 and len(smooth[0].x) > 1:
            line = smooth[0]
            shades.append(Shade(line.x, line.y * 0 + range_y[0], line.y, self._curves[0].color, is_gradient=True))
        strokes += [Stroke(shown.line, shown.color) for shown in self._shown]
        self.canvas.set_ranges(range_x, range_y)
        self.canvas.draw(strokes, shades, range_y[0])
        self._tell(envelopes)

    def _band_name(self, curve: PlotCurve) -> str:
        """Which band a curve is a part of; empty where it is a line of its own."""
        return curve.group if self._choices.is_banded else curve.agents

    def _bands(self, smooth: list[Line]) -> dict[str, tuple[str, Band]]:
        """Bands and what they are called, by the name that their curves have in common."""
        found: dict[str, tuple[str, Band]] = {}
        for name in dict.fromkeys(map(self._band_name, self._curves)):
            members = [number for number, curve in enumerate(self._curves) if self._band_name(curve) == name]
            if name:
                band = band_of([smooth[number] for number in members])
                alone = self._curves[members[0]].label
                many = f"{name} ({band.count})" if self._choices.is_banded else f"{name} · mean of {band.count} agents"
                found[name] = (many if len(members) > 1 else alone, band)
        return found

    def _tell(self, envelopes: list[Envelope]) -> None:
        self._legend.show_items([(shown.label, shown.color) for shown in self._shown], self._tokens)
        value = self._shown[0].line.last if self._shown else math.nan
        text = short_number(value)
        self._value.show_text(f"{text} {self._unit}" if self._unit and text != "-" else text)
        self._note.show_text(self._note_text(envelopes))
        self._note.setVisible(bool(self._note.whole_text))  # the title needs the room
        self.setAccessibleDescription(
            ", ".join(f"{shown.label} {short_number(shown.line.last)}" for shown in self._shown)
        )

    def _note_text(self, envelopes: list[Envelope]) -> str:
        if not any(map(len, envelopes)):
            return "nothing yet"
        if self._raw:
            rows = sum(found.rows for found in self._raw.values())
            is_whole = all(found.is_whole for found in self._raw.values())
            return f"{short_number(rows)} rows of the store" + ("" if is_whole else ", min to max")
        per = max(envelope.per_bucket for envelope in envelopes)
        if self._range_x is None or per <= 1:
            return ""
        return f"a point is {short_number(per)} values"

    def _tick_x(self, value: float, spacing: float) -> str:
        return clock_text(value, spacing) if self._choices.axis == "time" else axis_number(value, spacing)

    # ---- pointing ----

    def _on_hover(self, x: float | None) -> None:
        named = [] if x is None else [(shown.line.at(x), shown.label) for shown in self._shown]
        named = sorted((pair for pair in named if not math.isnan(pair[0])), key=lambda pair: -pair[0])
        if x is None or not named:
            self.canvas.show_cross(None)
            self._tip.hide()
            return
        self.canvas.show_cross(x)
        place = {"step": "step", "episode": "episode", "time": ""}[self._choices.axis]
        at = clock_text(x, 1.0) if self._choices.axis == "time" else short_number(round(x))
        self._tip.setText("\n".join([f"{place} {at}".strip(), *(f"{short_number(y)}  {label}" for y, label in named)]))
        self._tip.adjustSize()
        low, high = self.canvas.range_x
        share = (x - low) / (high - low) if high > low else 0.0
        at_px = round(self.canvas.width() - self.canvas.pixels + share * self.canvas.pixels)
        left = at_px + 10 if share < 0.5 else at_px - 10 - self._tip.width()
        self._tip.move(QPoint(max(0, left), TOP_TIP_PX))
        self._tip.show()


def _extent(envelopes: Sequence[Envelope], axis: Axis) -> tuple[float, float]:
    """Least and greatest x of all curves."""
    ends = [envelope.x(axis) for envelope in envelopes if len(envelope)]
    if not ends:
        return 0.0, 1.0
    low, high = min(float(x.min()) for x in ends), max(float(x.max()) for x in ends)
    around = 0.0 if high > low else max(1.0, abs(low) / 10)  # of one point alone the axis has no width of its own
    return low - around, high + around
