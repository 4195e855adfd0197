"""LogView: the page "Log". Lines of the actors' files and of the workers, newest at the bottom, filtered."""

import time
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QKeyEvent, QKeySequence, QPainter, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QStackedWidget,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from runlane.config.log_ids import REGISTRY
from runlane.gui.controls_view import Card, EmptyState, IconButton, Label
from runlane.gui.health_asker import ask_log
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.log_model import KEPT_LINES, LEVELS, LogFilter, LogLine, rank_of
from runlane.gui.tokens import Tokens

READ_S = 1.0
SHOW_S = 0.25
ROW_HEIGHT = 22
PADDING = 8
NARROW = 700
LINE_ROLE = Qt.ItemDataRole.UserRole
_LEVEL_COLORS = ("faint", "muted", "warn", "bad")

_SHORT_LEVELS = {"WARNING": "WARN", "CRITICAL": "CRIT"}

_Index = QModelIndex | QPersistentModelIndex


class _Lines(QAbstractListModel):
    """The lines that pass the filter, at most as many as the model keeps."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.lines: list[LogLine] = []

    def append(self, lines: Sequence[LogLine]) -> None:
        if not lines:
            return
        first = len(self.lines)
        self.beginInsertRows(QModelIndex(), first, first + len(lines) - 1)
        self.lines += lines
        self.endInsertRows()
        spare = len(self.lines) - KEPT_LINES
        if spare > 0:
            self.beginRemoveRows(QModelIndex(), 0, spare - 1)
            del self.lines[:spare]
            self.endRemoveRows()

    def replace(self, lines: Sequence[LogLine]) -> None:
        self.beginResetModel()
        self.lines = list(lines)
        self.endResetModel()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008, N802  Qt's
        return 0 if parent.isValid() else len(self.lines)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        line = self.lines[index.row()]
        if role == LINE_ROLE:
            return line
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return line.plain
        if role == Qt.ItemDataRole.ToolTipRole:
            known = REGISTRY.get(line.log_id)
            return f"{line.plain}\n\n{line.log_id}: {known.meaning}" if known is not None else line.plain
        return None


class _LineDelegate(QStyledItemDelegate):
    """Paints a line in columns: time, level, process, log id, text. Columns are as wide as what they hold."""

    def __init__(self, tokens: Tokens, parent: QWidget) -> None:
        super().__init__(parent)
        self.tokens = tokens
        # Widest process name, log id, time and level so far, in pixels.
        self.with_process = self.with_id = self.with_clock = self.with_level = 0

    def widen(self, lines: Sequence[LogLine], font: QFont) -> None:
        """Make room for what these lines hold."""
        metrics = QFontMetrics(font)
        advance = metrics.horizontalAdvance
        self.with_process = max([self.with_process, *(advance(text) for text in {line.process for line in lines})])
        self.with_id = max([self.with_id, *(advance(text) for text in {line.log_id for line in lines})])
        self.with_level = max(advance(text) for text in ("DEBUG", "ERROR", "WARN")) + 2
        # Digits differ in width where a metric does not know the font's feature for figures of one width.
        self.with_clock = max(advance(f"{d}{d}:{d}{d}:{d}{d}.{d}{d}{d}") for d in "0123456789") + 2

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:  # noqa: ARG002, N802  Qt's name
        return QSize(200, ROW_HEIGHT)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        line: LogLine = index.data(LINE_ROLE)
        tokens, box = self.tokens, QRect(option.rect)
        state: QStyle.StateFlag = option.state
        if state & QStyle.StateFlag.State_Selected:
            painter.fillRect(box, QColor(tokens.selected))
        elif state & QStyle.StateFlag.State_MouseOver:
            painter.fillRect(box, QColor(tokens.stripe))
        painter.setFont(option.font)
        metrics = painter.fontMetrics()
        rank = rank_of(line.level)
        level: str = getattr(tokens, _LEVEL_COLORS[rank])
        left, right = box.left() + PADDING, box.right() - PADDING
        # Where there is little room, the text needs it more than thousandths of a second do.
        is_narrow = box.width() < NARROW
        clock, word = _clock(line.t_s), _SHORT_LEVELS.get(line.level, line.level[:5])
        columns = (
            (clock[:8], self.with_clock * 8 // 12 + 2, tokens.faint)
            if is_narrow
            else (clock, self.with_clock, tokens.faint),
            (word[:1], metrics.horizontalAdvance("W") + 2, level) if is_narrow else (word, self.with_level, level),
            (line.process, min(self.with_process, box.width() // 5), tokens.muted),
            (line.log_id, min(self.with_id, box.width() // 3), tokens.accent),
        )
        for text, width, color in columns:
            if not width:
                continue
            painter.setPen(QColor(color))
            shown = metrics.elidedText(text, Qt.TextElideMode.ElideMiddle, width)
            painter.drawText(QRect(left, box.top(), width, box.height()), Qt.AlignmentFlag.AlignVCenter, shown)
            left += width + 12
        painter.setPen(QColor(tokens.text if rank < 2 else level))
        shown = metrics.elidedText(line.text, Qt.TextElideMode.ElideRight, max(0, right - left))
        painter.drawText(QRect(left, box.top(), right - left, box.height()), Qt.AlignmentFlag.AlignVCenter, shown)


class _LineList(QListView):
    """Ctrl+C copies the selected lines, whole. Where the newest line was in view it stays so, whatever the size."""

    @property
    def is_at_end(self) -> bool:
        """Whether the newest line is in view."""
        bar = self.verticalScrollBar()
        return bar.value() >= bar.maximum() - 2

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        was_at_end = self.is_at_end
        super().resizeEvent(event)
        if was_at_end:
            self.scrollToBottom()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802  Qt's name
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        else:
            super().keyPressEvent(event)

    def copy(self) -> int:
        """Copy the selected lines, or all that are shown where none is; returns their count."""
        rows = sorted(index.row() for index in self.selectionModel().selectedIndexes())
        model = self.model()
        rows = rows or list(range(model.rowCount()))
        QApplication.clipboard().setText("\n".join(str(model.index(row, 0).data()) for row in rows))
        return len(rows)


class LogView(QWidget):
    """Reads files and shows lines while it is active; the model goes on to collect the workers' lines."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._model = controller.health.log
        self._is_active = self._is_paused = False
        self._shown = 0  # number of the newest line that was looked at
        self._generation = 0
        self._next_read_s = self._next_show_s = 0.0
        self._tokens = tokens
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        self.search = self._make_search()
        layout.addLayout(self._make_header(tokens))
        layout.addLayout(self._make_filters())
        self._lines = _Lines(self)
        self._delegate = _LineDelegate(tokens, self)
        self.list = _LineList()
        self.list.setModel(self._lines)
        self.list.setItemDelegate(self._delegate)
        self.list.setUniformItemSizes(True)
        self.list.setMouseTracking(True)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setAccessibleName("Log lines, newest at the bottom")
        self._stack = QStackedWidget()
        card = Card()
        card.body.setContentsMargins(4, 8, 4, 8)
        card.body.addWidget(self.list)
        self._stack.addWidget(
            EmptyState(
                "No log lines yet", "They come with a graph, and from workers that log. Start one:", "runlane up"
            )
        )
        self._stack.addWidget(EmptyState("No line passes the filter", "Choose another level, log id or process."))
        self._stack.addWidget(card)
        layout.addWidget(self._stack, 1)
        self.setAccessibleName("Log")
        controller.ticked.connect(self._on_tick)

    # ---- parts ----

    def _make_header(self, tokens: Tokens) -> QHBoxLayout:
        header = QHBoxLayout()
        header.setSpacing(8)
        self._counts = Label("", "caption", is_elided=True)
        self._pause = IconButton("pause", "Hold the list; lines go on to be collected", tokens)
        self._pause.setCheckable(True)
        self._pause.toggled.connect(self.set_paused)
        self._copy = IconButton("copy", "Copy the selected lines, or all that are shown", tokens)
        self._copy.clicked.connect(self._copy_lines)
        header.addWidget(Label("Log", "title"))
        header.addWidget(self._counts, 3)
        header.addWidget(self.search, 4)
        header.addWidget(self._pause)
        header.addWidget(self._copy)
        return header

    def _make_search(self) -> QLineEdit:
        search = QLineEdit()
        search.setPlaceholderText("Search in lines")
        search.setAccessibleName("Search in log lines")
        search.setClearButtonEnabled(True)
        search.textChanged.connect(self.show_anew)
        return search

    def _make_filters(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        self.levels = _combo("Least level", [("", level) for level in LEVELS])
        self.log_ids = _combo("Log id", [("All log ids", ""), *((name, name) for name in REGISTRY)])
        for number, log_id in enumerate(REGISTRY.values(), 1):
            self.log_ids.setItemData(number, log_id.meaning, Qt.ItemDataRole.ToolTipRole)
        self.processes = _combo("Process", [("All processes", "")])
        self.runs = _combo("Run", [("All runs", "")])
        self.levels.setCurrentText("INFO")
        for combo, stretch in ((self.levels, 1), (self.log_ids, 2), (self.processes, 2), (self.runs, 2)):
            row.addWidget(combo, stretch)
            combo.currentIndexChanged.connect(self.show_anew)
        return row

    # ---- what is asked of it ----

    @property
    def filter(self) -> LogFilter:
        """What is shown."""
        return LogFilter(
            log_id=str(self.log_ids.currentData()),
            level=str(self.levels.currentData()),
            process=str(self.processes.currentData()),
            run=str(self.runs.currentData()),
            text=self.search.text().strip(),
        )

    @property
    def lines(self) -> list[LogLine]:
        """The lines that are shown, oldest first."""
        return self._lines.lines

    def set_active(self, is_active: bool) -> None:
        """Read and show, or rest while another page is open."""
        self._is_active = is_active
        if is_active:
            self._show_new()

    def cleanup(self) -> None:
        """Rest for ever. Again: nothing."""
        self._is_active = False

    def set_paused(self, is_paused: bool) -> None:
        """Hold what is shown."""
        self._is_paused = is_paused
        self._pause.setChecked(is_paused)
        self._pause.set_icon("play" if is_paused else "pause", self._tokens)
        self._show_new()

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._tokens = self._delegate.tokens = tokens
        self._pause.set_tokens(tokens)
        self._copy.set_tokens(tokens)
        self.list.viewport().update()

    def show_anew(self) -> None:
        """Look at every line again, as after a change of the filter. The newest come into view."""
        lines = self._model.since(0, self.filter)
        self._shown, self._generation = self._model.total, self._model.generation
        self._delegate.widen(lines, self.list.font())
        self._lines.replace(lines)
        self.list.scrollToBottom()
        self._show_counts()

    def _copy_lines(self) -> None:
        self.list.copy()

    # ---- the tick ----

    def _on_tick(self, now_s: float) -> None:
        if not self._is_active:
            return
        if now_s >= self._next_read_s:
            self._next_read_s = now_s + READ_S
            ask_log(self._controller)
        if now_s >= self._next_show_s:
            self._next_show_s = now_s + SHOW_S
            self._show_new()

    def _show_new(self) -> None:
        if self._is_paused:
            self._show_counts()
            return
        model = self._model
        if model.total == self._shown and model.generation == self._generation:
            return
        self._offer()
        if model.generation != self._generation:
            self.show_anew()
            return
        is_following = self.list.is_at_end
        lines = model.since(self._shown, self.filter)
        self._shown = model.total
        self._delegate.widen(lines, self.list.font())
        self._lines.append(lines)
        if is_following:
            self.list.scrollToBottom()
        self._show_counts()

    def _offer(self) -> None:
        """Offer processes and runs that are new among the lines."""
        _add_choices(self.processes, [(process, process) for process in self._model.processes])
        _add_choices(self.runs, [(name, run) for run, name in self._model.runs])

    def _show_counts(self) -> None:
        shown, known = len(self._lines.lines), len(self._model.lines)
        self._stack.setCurrentIndex(2 if shown else 1 if known else 0)
        words = [f"{shown:,} of {known:,} lines"]
        lost = self._model.total - known
        if lost:
            words.append(f"{lost:,} older ones are only in the files")
        left_out = self._model.tail.left_out
        if left_out:
            words.append(f"{left_out:,} older files are not read")
        if self._is_paused:
            words.append(f"held, {self._model.total - self._shown:,} new")
        self._counts.show_text(" · ".join(words), "warn" if self._is_paused else "")


def _clock(t_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(t_s)) + f".{int(t_s % 1 * 1000):03d}"


def _combo(name: str, choices: Sequence[tuple[str, str]]) -> QComboBox:
    """A box of texts and keys; an empty text is its key."""
    box = QComboBox()
    box.setAccessibleName(name)
    box.setToolTip(name)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(7)
    box.view().setTextElideMode(Qt.TextElideMode.ElideRight)
    for text, key in choices:
        box.addItem(text or key, key)
    box.setMaxVisibleItems(20)
    return box


def _add_choices(box: QComboBox, choices: Sequence[tuple[str, str]]) -> None:
    for text, key in choices:
        if box.findData(key) < 0:
            box.addItem(text, key)
