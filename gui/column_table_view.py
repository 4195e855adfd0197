"""ColumnTableView: a table that paints its visible rows in one go, from columns. 30 times a second if it must.

A QTableView is asked for every cell, seven times over, and costs five times as much.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from PySide6.QtCore import QPoint, QRect, Qt, Signal
from PySide6.QtGui import (
    QAction,
    QColor,
    QFontMetrics,
    QGuiApplication,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QMenu, QWidget

from runlane.gui.column_ring import ColumnRing, Rows
from runlane.gui.shown_rows import Ids, ShownRows
from runlane.gui.table_columns import Column, parse_filter
from runlane.gui.table_export import COPIED_AT_ONCE, MAX_COPIED, as_tsv
from runlane.gui.tokens import Tokens

ROW_PX = 25
HEADER_PX = 30
CELL_PX = 10
NO_IDS: Ids = np.zeros(0, np.int64)


class ColumnTableView(QAbstractScrollArea):
    """Newest first, followed until the user scrolls away, selects, or holds it. Owned by the Qt thread."""

    following_changed = Signal(bool)
    filtered = Signal(str)
    """The filter was set; carries what of it was not understood."""
    copying = Signal(object)
    """More rows are to be copied than our thread has time for: whoever listens makes the text in another."""
    copied = Signal(int)
    """So many rows are on the clipboard."""

    def __init__(
        self, name: str, ring: ColumnRing, columns: Sequence[Column], tokens: Tokens, parent: QWidget | None = None
    ) -> None:
        """`name` is read out to who cannot see it, and names its export."""
        super().__init__(parent)
        self.name = name
        self.setAccessibleName(name)
        self.columns = list(columns)
        self.shown = ShownRows(ring, columns)
        self.empty_text = ""
        self.problem = ""
        self._tokens = tokens
        self._hidden = {column.key for column in columns if not column.is_shown}
        self._selected: Ids = NO_IDS
        self._current = -1  # id of the row the keyboard is at
        self._anchor = -1
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setViewportMargins(0, HEADER_PX, 0, 0)
        self._header = _Header(self)
        self.setCornerWidget(QWidget())
        self.verticalScrollBar().valueChanged.connect(self._on_scroll)
        self.horizontalScrollBar().valueChanged.connect(self._repaint)
        self.viewport().setMouseTracking(False)

    # ---- what is shown ----

    def refresh(self) -> bool:
        """Look at the ring again; whether something had to be painted."""
        if not self.shown.refresh():
            return False
        self._fit()
        self._repaint()
        return True

    def set_empty_text(self, text: str) -> None:
        """What stands in the place of rows while there are none."""
        if text != self.empty_text:
            self.empty_text = text
            self._repaint()

    def set_filter(self, text: str) -> str:
        """Show the rows for which every word holds; returns what was not understood, which is left out."""
        parsed = parse_filter(text, self.columns)
        self.shown.set_filter(parsed)
        self.problem = parsed.problem
        self._fit()
        self._repaint()
        self.filtered.emit(parsed.problem)
        return parsed.problem

    def sort_by(self, key: str, *, is_descending: bool = True) -> None:
        """Sort by a column; an empty key is newest first again."""
        self.shown.sort(key, is_descending=is_descending)
        self._repaint()

    def click_header(self, key: str) -> None:
        """Sort by this column downwards, then upwards, then not."""
        shown = self.shown
        if shown.sorted_by != key:
            self.sort_by(key)
        elif shown.is_descending:
            self.sort_by(key, is_descending=False)
        else:
            self.sort_by("")

    @property
    def visible_columns(self) -> list[Column]:
        """Those that are not hidden, in order."""
        return [column for column in self.columns if column.key not in self._hidden]

    def show_column(self, key: str, *, is_shown: bool) -> None:
        """Show a column, or hide it; the last one stays."""
        hidden = self._hidden - {key} if is_shown else self._hidden | {key}
        if len(hidden) < len(self.columns):
            self._hidden = hidden
            self._fit()
            self._repaint()

    def columns_menu(self, parent: QWidget) -> QMenu:
        """A menu of check marks, one per column."""
        menu = QMenu(parent)
        for column in self.columns:
            action = QAction(column.title, menu)
            action.setCheckable(True)
            action.setChecked(column.key not in self._hidden)
            action.toggled.connect(partial(self._on_column, column.key))
            menu.addAction(action)
        return menu

    def _on_column(self, key: str, is_shown: bool) -> None:
        self.show_column(key, is_shown=is_shown)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._tokens = tokens
        self._repaint()

    # ---- following ----

    @property
    def is_following(self) -> bool:
        """Whether the newest rows are shown as they come."""
        return not self.shown.is_held

    def hold(self) -> None:
        """Keep the rows as they are, to be read."""
        if self.is_following:
            self.shown.hold()
            self._fit()
            self.following_changed.emit(False)

    def follow(self) -> None:
        """Go to the newest and go on with them."""
        self.shown.follow()
        self._fit()
        self.verticalScrollBar().setValue(0)
        self._repaint()
        self.following_changed.emit(True)

    # ---- selection ----

    @property
    def selected_ids(self) -> Ids:
        """Ids of the rows that are selected, in no order."""
        return self._selected

    def select(self, first: int, last: int) -> None:
        """Select the rows at places `first` to `last`, as they are shown now; and hold them."""
        count = len(self.shown)
        if not count:
            return
        first, last = max(0, min(first, count - 1)), max(0, min(last, count - 1))
        self.hold()
        self._selected = self.shown.ids(min(first, last), max(first, last) + 1)
        self._anchor, self._current = (int(self.shown.ids(place, place + 1)[0]) for place in (first, last))
        self._reveal(last)
        self._repaint()

    def chosen_rows(self) -> Rows:
        """The selection; everything shown when nothing is selected."""
        shown = self.shown
        return shown.of_ids(self._selected) if len(self._selected) else shown.rows(0, len(shown))

    def copy(self) -> None:
        """Put the selection on the clipboard, tab-separated; everything shown when nothing is selected.

        Many rows are given to `copying` instead.
        """
        rows = self.chosen_rows()[:MAX_COPIED]
        if len(rows) > COPIED_AT_ONCE:
            self.copying.emit(rows)
            return
        QGuiApplication.clipboard().setText(as_tsv(rows, self.visible_columns))
        self.copied.emit(len(rows))

    # ---- events ----

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """More rows, or fewer."""
        super().resizeEvent(event)
        self._header.setGeometry(0, 0, self.viewport().width(), HEADER_PX)
        self._fit()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802  Qt's name
        """Rows by the arrows, with shift a range; Ctrl+A, Ctrl+C; Escape follows again."""
        page = max(1, self.viewport().height() // ROW_PX - 1)
        at = self.shown.place_of(self._current) if self._current >= 0 else -1
        places = {
            Qt.Key.Key_Down: at + 1,
            Qt.Key.Key_Up: max(0, at - 1),
            Qt.Key.Key_PageDown: at + page,
            Qt.Key.Key_PageUp: max(0, at - page),
            Qt.Key.Key_Home: 0,
            Qt.Key.Key_End: len(self.shown) - 1,
        }
        key = Qt.Key(event.key())
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        elif event.matches(QKeySequence.StandardKey.SelectAll):
            self.select(0, len(self.shown) - 1)
        elif key == Qt.Key.Key_Escape:
            self._selected = NO_IDS
            self.follow()
        elif key in places:
            is_range = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            start = self.shown.place_of(self._anchor) if is_range and self._anchor >= 0 else -1
            self._go(places[key], start)
        else:
            super().keyPressEvent(event)

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        """Select a row; with shift a range, with Ctrl one more or one less."""
        place = self._place_at(event.position().toPoint())
        if event.button() != Qt.MouseButton.LeftButton or not 0 <= place < len(self.shown):
            return
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier and self._anchor >= 0:
            self._go(place, self.shown.place_of(self._anchor))
        elif event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            chosen = self.shown.ids(place, place + 1)
            before = self._selected
            self.select(place, place)
            self._selected = np.setxor1d(before, chosen)
        else:
            self.select(place, place)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        """Select what is dragged over."""
        if event.buttons() & Qt.MouseButton.LeftButton and self._anchor >= 0:
            place = max(0, min(self._place_at(event.position().toPoint()), len(self.shown) - 1))
            self._go(place, self.shown.place_of(self._anchor))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802  Qt's name
        """Draw what is visible, column by column."""
        painter = QPainter(self.viewport())
        painter.setFont(self.font())
        top, offset = divmod(self.verticalScrollBar().value(), ROW_PX)
        bottom = top + self.viewport().height() // ROW_PX + 2
        rows = self.shown.rows(top, bottom)
        if not len(rows):
            self._paint_empty(painter)
        else:
            self._paint_rows(painter, rows, top, -offset)
        painter.end()

    # ---- painting ----

    def _paint_empty(self, painter: QPainter) -> None:
        painter.setPen(QColor(self._tokens.muted))
        text = "No row matches the filter." if self.shown.filter and len(self.shown.ring) else self.empty_text
        where = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
        painter.drawText(self.viewport().rect().adjusted(20, 0, -20, 0), where, text)

    def _paint_rows(self, painter: QPainter, rows: Rows, top: int, y: int) -> None:
        tokens, width = self._tokens, max(self.viewport().width(), self._content_width())
        ids = self.shown.ids(top, top + len(rows))
        selected = np.isin(ids, self._selected) if len(self._selected) else np.zeros(len(rows), np.bool_)
        stripe, chosen = QColor(tokens.stripe), QColor(tokens.selected)
        for number in range(len(rows)):
            box = QRect(0, y + number * ROW_PX, width, ROW_PX)
            if selected[number]:
                painter.fillRect(box, chosen)
            elif ids[number] % 2:  # by the row, not by its place: stripes move with the rows
                painter.fillRect(box, stripe)
            if ids[number] == self._current and self.hasFocus():
                painter.setPen(QPen(QColor(tokens.accent)))
                painter.drawRect(QRect(0, box.y(), self.viewport().width() - 1, ROW_PX - 1))
        for column, x, wide in self.column_boxes():
            if x + wide > 0 and x < self.viewport().width():
                self._paint_column(painter, column, rows, QRect(x, y, wide, ROW_PX))

    def _paint_column(self, painter: QPainter, column: Column, rows: Rows, box: QRect) -> None:
        tokens, metrics = self._tokens, self.fontMetrics()
        tones = column.tones(rows)
        plain = QColor(tokens.muted if column.is_faint else tokens.text)
        inner = box.adjusted(CELL_PX, 0, -CELL_PX, 0)
        baseline = (ROW_PX + metrics.ascent() - metrics.descent()) // 2
        painter.setPen(plain)
        for number, text in enumerate(column.texts(rows)):
            if not text:
                continue
            if tones:
                painter.setPen(QColor(str(getattr(tokens, tones[number]))) if tones[number] else plain)
            x, shown = _fitted(text, inner, metrics, is_right=not column.is_text)
            painter.drawText(x, inner.y() + number * ROW_PX + baseline, shown)

    # ---- places ----

    def column_boxes(self) -> list[tuple[Column, int, int]]:
        """Visible columns with left edge and width, in the viewport; they share the room that is left."""
        columns = self.visible_columns
        content = self._content_width()
        spare = max(0, min(self.viewport().width() - content, content // 2))
        x = -self.horizontalScrollBar().value()
        found: list[tuple[Column, int, int]] = []
        for column in columns:
            wide = column.width + spare * column.width // content
            found.append((column, x, wide))
            x += wide
        return found

    def _content_width(self) -> int:
        return sum(column.width for column in self.visible_columns)

    def _fit(self) -> None:
        """Tell the scroll bars how much there is."""
        height = self.viewport().height()
        bar = self.verticalScrollBar()
        bar.setRange(0, max(0, len(self.shown) * ROW_PX - height))
        bar.setPageStep(height)
        bar.setSingleStep(ROW_PX)
        across = self.horizontalScrollBar()
        across.setRange(0, max(0, self._content_width() - self.viewport().width()))
        across.setPageStep(self.viewport().width())

    def _place_at(self, point: QPoint) -> int:
        return (point.y() + self.verticalScrollBar().value()) // ROW_PX

    def _go(self, place: int, start: int = -1) -> None:
        self.select(start if start >= 0 else place, place)

    def _reveal(self, place: int) -> None:
        bar, height = self.verticalScrollBar(), self.viewport().height()
        if place * ROW_PX < bar.value():
            bar.setValue(place * ROW_PX)
        elif (place + 1) * ROW_PX > bar.value() + height:
            bar.setValue((place + 1) * ROW_PX - height)

    def _on_scroll(self, value: int) -> None:
        if value > 0:
            self.hold()
        elif not len(self._selected) and not self.is_following:
            self.follow()
        self._repaint()

    def _repaint(self) -> None:
        self.viewport().update()
        self._header.update()

    def paint_header(self, painter: QPainter) -> None:
        """Titles, and an arrow at the one that is sorted by."""
        tokens, metrics = self._tokens, self._header.fontMetrics()
        baseline = (HEADER_PX + metrics.ascent() - metrics.descent()) // 2
        for column, x, wide in self.column_boxes():
            is_sorted = column.key == self.shown.sorted_by
            arrow = ("↓ " if self.shown.is_descending else "↑ ") if is_sorted else ""
            painter.setPen(QColor(tokens.accent if is_sorted else tokens.muted))
            inner = QRect(x + CELL_PX, 0, wide - 2 * CELL_PX, HEADER_PX)
            left, text = _fitted(arrow + column.title, inner, metrics, is_right=not column.is_text)
            painter.drawText(left, baseline, text)
        painter.setPen(QColor(tokens.border))
        painter.drawLine(0, HEADER_PX - 1, self._header.width(), HEADER_PX - 1)


class _Header(QWidget):
    """The titles. A click sorts."""

    def __init__(self, table: ColumnTableView) -> None:
        super().__init__(table)
        self._table = table
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip("Click to sort, again to turn it round, again for newest first")
        self.setAccessibleName(f"{table.name}: columns")

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802  Qt's name
        painter = QPainter(self)
        self._table.paint_header(painter)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        at = event.position().toPoint().x()
        for column, x, wide in self._table.column_boxes():
            if x <= at < x + wide:
                self._table.click_header(column.key)
                return


def _fitted(text: str, box: QRect, metrics: QFontMetrics, *, is_right: bool) -> tuple[int, str]:
    """Where a text begins, and the text, cut if it must be."""
    wide = metrics.horizontalAdvance(text)
    if wide > box.width():
        text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, box.width())
        wide = metrics.horizontalAdvance(text)
    return (box.x() + box.width() - wide if is_right else box.x()), text
