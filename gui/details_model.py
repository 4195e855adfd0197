"""KeyValueModel: names and values in rows, searched, or compared with another's. And how facts become such rows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

MAX_ROWS = 5_000
MAX_VALUE = 2_000  # characters of one value that are shown; a tool tip has as many
ABSENT = "—"
MARK = "· "  # before what is no setting of the configuration
Index = QModelIndex | QPersistentModelIndex
_NO_INDEX = QModelIndex()
HeaderRole = Qt.ItemDataRole


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested maps as `outer.inner`, sorted by name; everything else as JSON, texts as they are."""
    found: dict[str, str] = {}
    for key in sorted(values, key=str):
        value = values[key]
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(cast("Mapping[str, Any]", value), f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found[name] = text[:MAX_VALUE]
    return found


def _marked(values: Mapping[str, str]) -> dict[str, str]:
    return {f"{MARK}{name}": value for name, value in values.items()}


class TableModel(QAbstractTableModel):
    """Rows of texts below a header; set as a whole, and told only when they differ."""

    def __init__(self, headers: Sequence[str], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._headers = tuple(headers)
        self._shown: list[tuple[str, ...]] = []

    def set_rows(self, rows: Sequence[Sequence[str]], headers: Sequence[str] | None = None) -> None:
        """Show other rows; `headers` where there are other columns, too. Beyond `MAX_ROWS` nothing is shown."""
        new = [tuple(row) for row in rows[:MAX_ROWS]]
        new_headers = self._headers if headers is None else tuple(headers)
        if new_headers == self._headers and len(new) == len(self._shown):
            self._change(new)
            return
        self.beginResetModel()
        self._headers, self._shown = new_headers, new
        self.endResetModel()

    def _change(self, new: list[tuple[str, ...]]) -> None:
        before, self._shown = self._shown, new
        for row, (old, other) in enumerate(zip(before, new, strict=True)):
            if old != other:
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(self._headers) - 1))

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """What is shown."""
        return list(self._shown)

    def rowCount(self, parent: Index = _NO_INDEX) -> int:  # noqa: N802  Qt's name
        """How many rows."""
        return 0 if parent.isValid() else len(self._shown)

    def columnCount(self, parent: Index = _NO_INDEX) -> int:  # noqa: N802  Qt's name
        """How many columns."""
        return 0 if parent.isValid() else len(self._headers)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """One text."""
        if index.isValid() and role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            row = self._shown[index.row()]
            return row[index.column()] if index.column() < len(row) else ""
        return None

    def headerData(  # noqa: N802  Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Name of a column."""
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        is_name = orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole
        return self._headers[section] if is_name and section < len(self._headers) else None


class KeyValueModel(TableModel):
    """Names and values; with another's values only what differs."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(("name", "value"), parent)
        self._values: dict[str, str] = {}
        self._around: dict[str, str] = {}
        self._other: dict[str, str] | None = None
        self._other_name = ""
        self._search = ""

    def set_values(self, values: Mapping[str, Any], around: Mapping[str, Any] | None = None) -> None:
        """Show these. `around` is what is compared, too, and not shown otherwise."""
        self._values, self._around = flat(values), {} if around is None else flat(around)
        self._show()

    def compare(self, other: Mapping[str, Any] | None, name: str = "", around: Mapping[str, Any] | None = None) -> None:
        """Only what differs from `other`'s, side by side; None shows everything again."""
        self._other = None if other is None else _marked(flat({} if around is None else around)) | flat(other)
        self._other_name = name
        self._show()

    def search(self, text: str) -> None:
        """Only rows that hold this text, in a name or a value."""
        self._search = text.strip().lower()
        self._show()

    def _show(self) -> None:
        if self._other is None:
            rows = [(name, value) for name, value in self._values.items()]
            headers: tuple[str, ...] = ("name", "value")
        else:
            values = _marked(self._around) | self._values
            names = sorted(values.keys() | self._other.keys(), key=lambda name: (name.startswith(MARK), name))
            both = [(name, values.get(name, ABSENT), self._other.get(name, ABSENT)) for name in names]
            rows = [row for row in both if row[1] != row[2]]  # type: ignore[misc]
            headers = ("name", "this run", self._other_name)
        self.set_rows([row for row in rows if self._search in "\n".join(row).lower()], headers)
