"""RunCardDelegate: one run as a card: dot, name, algorithm and environment, state, rate, returns, progress."""

from typing import Any

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPainter, QPen
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from runlane.gui.controls_view import draw_sparkline
from runlane.gui.run_entry import RunEntry
from runlane.gui.run_model import RunRole
from runlane.gui.run_text import NOT_KEPT, UNKNOWN, rate_text, return_text
from runlane.gui.run_warning import NOTHING_RECORDED
from runlane.gui.tokens import Tokens

CARD_HEIGHT = 68
GAP = 6
RADIUS = 10
INSET = 12
TEXT_LEFT = 30
SPARK = QSize(74, 26)
BOLD_FAMILIES = ["Inter Semi Bold", "Inter"]  # Qt's own font database makes a family of each weight


def state_color(state: str, tokens: Tokens) -> str:
    """Colour of a run's state, in lists and panels alike."""
    return {
        "running": tokens.good,
        "stalled": tokens.warn,
        "failed": tokens.bad,
        "killed": tokens.bad,
        "lost": tokens.bad,
    }.get(state, tokens.faint)


def state_role(state: str) -> str:
    """The same as a state of the style sheet."""
    return {"running": "good", "stalled": "warn", "failed": "bad", "killed": "bad", "lost": "bad"}.get(state, "idle")


def rate_words(entry: RunEntry) -> str:
    """What a card says of a run's rate."""
    if entry.warning:
        return NOTHING_RECORDED
    if not entry.is_kept:
        return NOT_KEPT
    return f"{rate_text(entry.step_rate_hz)} steps/s" if entry.state == "running" else UNKNOWN


class RunCardDelegate(QStyledItemDelegate):
    """Paints; the model knows. All cards have one height, so a list of ten thousand is laid out at once."""

    def __init__(self, tokens: Tokens, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.tokens = tokens

    def sizeHint(  # noqa: N802  Qt's name
        self,
        option: QStyleOptionViewItem,  # noqa: ARG002
        index: QModelIndex | QPersistentModelIndex,  # noqa: ARG002
    ) -> QSize:
        """The height of a card and the gap below it."""
        return QSize(200, CARD_HEIGHT + GAP)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Draw one run."""
        entry = index.data(RunRole.ENTRY)
        if not isinstance(entry, RunEntry):
            return
        flags, area, font = _known(option)
        box = QRectF(area.adjusted(0, 0, -1, -GAP)).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._paint_box(painter, box, flags)
        self._paint_words(painter, box, entry, font)
        self._paint_figures(painter, box, entry, font)
        painter.restore()

    def _paint_box(self, painter: QPainter, box: QRectF, flags: QStyle.StateFlag) -> None:
        tokens = self.tokens
        is_selected = bool(flags & QStyle.StateFlag.State_Selected)
        is_hovered = bool(flags & QStyle.StateFlag.State_MouseOver)
        fill = tokens.selected if is_selected else tokens.raised if is_hovered else tokens.card
        painter.setPen(QPen(QColor(tokens.accent if is_selected else tokens.border), 1))
        painter.setBrush(QColor(fill))
        painter.drawRoundedRect(box, RADIUS, RADIUS)

    def _paint_words(self, painter: QPainter, box: QRectF, entry: RunEntry, font: QFont) -> None:
        tokens = self.tokens
        color = QColor(state_color(entry.state, tokens))
        halo = QColor(color)
        halo.setAlpha(70)
        painter.setPen(Qt.PenStyle.NoPen)
        center = QPointF(box.left() + 17, box.top() + 18)
        for brush, radius in ((halo, 6.5), (color, 4.0)):
            painter.setBrush(brush)
            painter.drawEllipse(center, radius, radius)
        left = box.left() + TEXT_LEFT
        room = box.width() - TEXT_LEFT - INSET - SPARK.width() - 6
        rate = rate_words(entry)
        whole = box.width() - TEXT_LEFT - INSET
        _draw(painter, _sized(font, 13, QFont.Weight.DemiBold), tokens.text, entry.title, left, box.top() + 22, room)
        _draw(painter, _sized(font, 12), tokens.muted, entry.subtitle, left, box.top() + 39, room)
        small = _sized(font, 11, QFont.Weight.DemiBold)
        used = _draw(painter, small, color.name(), entry.state, left, box.top() + 55, whole)
        place, color_of_rate = left + max(56, used + 10), tokens.warn if entry.warning else tokens.muted
        weight = QFont.Weight.DemiBold if entry.warning else QFont.Weight.Normal
        room = box.right() - INSET - place if entry.warning else 100
        _draw(painter, _sized(font, 11, weight), color_of_rate, rate, place, box.top() + 55, room)

    def _paint_figures(self, painter: QPainter, box: QRectF, entry: RunEntry, font: QFont) -> None:
        tokens = self.tokens
        right = box.right() - INSET
        color = QColor(tokens.series[entry.color_index % len(tokens.series)])
        draw_sparkline(
            painter, QRectF(right - SPARK.width(), box.top() + 9, SPARK.width(), SPARK.height()), entry.sparkline, color
        )
        bold = _sized(font, 13, QFont.Weight.DemiBold)
        painter.setFont(bold)
        text = return_text(entry.mean_return)
        width = painter.fontMetrics().horizontalAdvance(text)
        has_return = entry.mean_return is not None
        if entry.warning:  # its place is taken
            text = ""
        _draw(
            painter, bold, tokens.text if has_return else tokens.faint, text, right - width, box.top() + 54, width + 1
        )
        progress = entry.progress
        if progress is not None:
            line = QRectF(box.left() + INSET, box.bottom() - 4.5, box.width() - 2 * INSET, 2)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(tokens.border))
            painter.drawRoundedRect(line, 1, 1)
            line.setWidth(max(2.0, line.width() * progress))
            painter.setBrush(QColor(state_color(entry.state, tokens)))
            painter.drawRoundedRect(line, 1, 1)


def _known(option: QStyleOptionViewItem) -> tuple[QStyle.StateFlag, QRect, QFont]:
    # PySide's own annotations do not list the attributes of a style option.
    known: Any = option
    return known.state, known.rect, known.font


def _sized(font: QFont, pixels: int, weight: QFont.Weight = QFont.Weight.Normal) -> QFont:
    found = QFont(font)
    if weight == QFont.Weight.DemiBold:
        found.setFamilies(BOLD_FAMILIES)
    found.setPixelSize(pixels)
    found.setWeight(weight)
    return found


def _draw(painter: QPainter, font: QFont, color: str, text: str, x: float, baseline: float, room: float) -> float:
    """One line, cut with … to fit; returns its width."""
    painter.setFont(font)
    painter.setPen(QColor(color))
    metrics = painter.fontMetrics()
    shown = metrics.elidedText(text, Qt.TextElideMode.ElideRight, max(10, int(room)))
    painter.drawText(QPointF(x, baseline), shown)
    return float(metrics.horizontalAdvance(shown))
