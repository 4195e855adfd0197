"""FigureTable: a small table of figures, a few dozen rows, that changes a few times a second. Rows can be copied."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor, QKeyEvent, QKeySequence
from PySide6.QtWidgets import QAbstractItemView, QApplication, QHeaderView, QSizePolicy, QTableView, QWidget

from runlane.gui.health_rows import Text
from runlane.gui.tokens import Tokens

ROW_HEIGHT = 28
HEADER_HEIGHT = 30
SCROLL_BAR = 12
SPARE = 4

_Index = QModelIndex | QPersistentModelIndex


class Column(NamedTuple):
    """A heading, what it means, and whether its cells are numbers, which stand at the right.

    `is_spare`: hidden, from the right, while there is no room for all.
    """

    title: str
    tip: str
    is_number: bool = True
    is_spare: bool = False


Row = Sequence[Text]


class _Rows(QAbstractTableModel):
    """The rows as they are now. Only cells that differ are told as changed."""

    def __init__(self, columns: Sequence[Column], tokens: Tokens, parent: QWidget) -> None:
        super().__init__(parent)
        self.columns = columns
        self.tokens = tokens
        self.rows: list[Row] = []

    def show(self, rows: Sequence[Row]) -> None:
        before, after = len(self.rows), len(rows)
        if after < before:
            self.beginRemoveRows(QModelIndex(), after, before - 1)
            del self.rows[after:]
            self.endRemoveRows()
        for number, row in enumerate(rows[:before]):
            if self.rows[number] != row:
                self.rows[number] = row
                self.dataChanged.emit(self.index(number, 0), self.index(number, len(self.columns) - 1))
        if after > before:
            self.beginInsertRows(QModelIndex(), before, after - 1)
            self.rows += rows[before:]
            self.endInsertRows()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008, N802  Qt's
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008, N802  Qt's
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        cell = self.rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return cell.text
        if role == Qt.ItemDataRole.ToolTipRole:
            return cell.tip or None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if self.columns[index.column()].is_number else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ForegroundRole and cell.state:
            return QColor(getattr(self.tokens, "faint" if cell.state == "idle" else cell.state))
        return None

    def headerData(  # noqa: N802  Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        column = self.columns[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return column.tip
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column.is_number else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None


class FigureTable(QTableView):
    """As high as its rows. The first column takes the room that is left; Ctrl+C copies the selected rows."""

    def __init__(self, name: str, columns: Sequence[Column], tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows = _Rows(columns, tokens, self)
        self._seen_texts: list[int] = []
        self._widths: dict[int, int] = {}  # of each column, as its cells need
        self.setModel(self._rows)
        self.setAccessibleName(name)
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.setWordWrap(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setFixedHeight(HEADER_HEIGHT)
        header.setMinimumSectionSize(48)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(False)
        self._fit_height()

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._rows.tokens = tokens
        self.viewport().update()

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Show others; the selection stays with its row's number."""
        count = len(self._rows.rows)
        self._rows.show(rows)
        widths = [max((len(row[column].text) for row in rows), default=0) for column in range(len(self._rows.columns))]
        if widths != self._seen_texts:  # measuring cells is dear, and rarely needed: figures keep their length
            self._seen_texts = widths
            self._fit_columns()
        if len(rows) != count:
            self._fit_height()

    def text(self, row: int, column: int) -> str:
        """What stands in a cell."""
        return self._rows.rows[row][column].text

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._rows.rows)

    def resizeEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Give the first column what is left."""
        super().resizeEvent(event)
        self._stretch_first()
        self._fit_height()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802  Qt's name
        """Copy."""
        if not event.matches(QKeySequence.StandardKey.Copy):
            super().keyPressEvent(event)
            return
        rows = sorted({index.row() for index in self.selectionModel().selectedRows()})
        lines = [[column.title for column in self._rows.columns]]
        lines += [[cell.text for cell in self._rows.rows[row]] for row in rows]
        QApplication.clipboard().setText("\n".join("\t".join(line) for line in lines))

    def _fit_columns(self) -> None:
        header = self.horizontalHeader()
        for number in range(len(self._rows.columns)):
            self.setColumnHidden(number, False)
            width = max(self.sizeHintForColumn(number), header.sectionSizeHint(number)) + SPARE
            self._widths[number] = width
            self.setColumnWidth(number, width)
        self._stretch_first()
        self._fit_height()

    def _stretch_first(self) -> None:
        room = self.viewport().width()
        least = max(self.sizeHintForColumn(0), self.horizontalHeader().sectionSizeHint(0)) + SPARE
        others = {number: self._widths.get(number, 0) for number in range(1, len(self._rows.columns))}
        shown = sum(others.values())
        for number in reversed(others):
            is_hidden = self._rows.columns[number].is_spare and least + shown > room
            shown -= others[number] * is_hidden
            if is_hidden != self.isColumnHidden(number):
                self.setColumnHidden(number, is_hidden)
        self.setColumnWidth(0, max(least, room - shown))

    def _fit_height(self) -> None:
        width = self.horizontalHeader().length()
        bar = SCROLL_BAR if width > self.viewport().width() + 1 else 0
        height = HEADER_HEIGHT + ROW_HEIGHT * max(1, len(self._rows.rows)) + bar + 2
        if height != self.height() or self.minimumHeight() != height:
            self.setFixedHeight(height)
