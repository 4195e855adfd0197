"""ShownRows: which rows of a ring a table shows, and in which order: live, filtered, sorted, or held still. No Qt."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runlane.gui.column_ring import ColumnRing, Rows
from runlane.gui.table_columns import Column, RowFilter

Ids = NDArray[np.int64]


class ShownRows:
    """Newest first unless a column is sorted by. Rows have ids, which stay while rows move.

    Without filter and order only the rows asked for are copied; else all rows are, at each `refresh`. While `is_held`
    the rows stay as they were.
    """

    def __init__(self, ring: ColumnRing, columns: Sequence[Column]) -> None:
        self.ring = ring
        self.columns = columns
        self.is_held = False
        self.filter = RowFilter()
        self.sorted_by: str = ""
        self.is_descending = True
        self._seen = -1  # of the ring, at the last refresh
        self._generation = 0
        self._first = 0  # id of the oldest row taken
        self._rows: Rows | None = None  # oldest first; None: look into the ring
        self._order: Ids = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._order) if self._rows is not None else self._seen - self._oldest()

    @property
    def newer(self) -> int:
        """Rows that came since, while these are held."""
        return self.ring.total - self._seen if self.is_held else 0

    def set_filter(self, row_filter: RowFilter) -> None:
        """Show other rows, of the same moment if they are held."""
        self.filter = row_filter
        self._again()

    def sort(self, key: str, *, is_descending: bool) -> None:
        """Sort by a column; an empty key is newest first."""
        self.sorted_by, self.is_descending = key, is_descending
        self._again()

    def hold(self) -> None:
        """Keep the rows as they are, whatever comes."""
        if not self.is_held:
            if self._rows is None:
                self._copy(self._seen)
                self._choose()
            self.is_held = True

    def follow(self) -> None:
        """Go on with the newest."""
        self.is_held = False
        self._seen = -1
        self.refresh()

    def refresh(self) -> bool:
        """Look again; whether there is anything to paint."""
        ring = self.ring
        if self._generation != ring.generation:
            self._generation, self._seen, self.is_held = ring.generation, -1, False
        if self.is_held or self._seen == ring.total:
            return False
        self._seen = ring.total
        if self._is_plain:
            self._rows = None
        else:
            self._copy(ring.total)
            self._choose()
        return True

    @property
    def _is_plain(self) -> bool:
        return not self.filter and not self.sorted_by

    def _oldest(self) -> int:
        return max(self.ring.first, 0) if self._seen >= self.ring.first else self._seen

    def _copy(self, until: int) -> None:
        self._first = self.ring.first
        self._rows = self.ring.part(self._first, until)

    def _again(self) -> None:
        if self.is_held:
            self._choose()
        else:
            self._seen = -1
            self.refresh()

    def _choose(self) -> None:
        """Filter and sort what was copied."""
        rows = self._rows
        if rows is None:
            return
        order = np.arange(len(rows) - 1, -1, -1)
        if self.filter:
            order = order[self.filter.mask(rows)[order]]
        column = next((column for column in self.columns if column.key == self.sorted_by), None)
        if column is not None:
            keys = column.sort_keys(rows)[order]
            known = ~np.isnan(keys)  # what is not known goes last, either way
            keys = -keys if self.is_descending else keys
            order = np.concatenate((order[known][np.argsort(keys[known], kind="stable")], order[~known]))
        self._order = order

    # ---- by place ----

    def rows(self, start: int, stop: int) -> Rows:
        """Rows at places from `start` to before `stop`, as they are shown."""
        if self._rows is not None:
            return self._rows[self._order[start:stop]]
        return self.ring.part(self._seen - stop, self._seen - start)[::-1]

    def ids(self, start: int, stop: int) -> Ids:
        """Their ids."""
        if self._rows is not None:
            return self._order[start:stop] + self._first
        stop = min(stop, len(self))
        return np.arange(self._seen - 1 - start, self._seen - 1 - stop, -1, dtype=np.int64)

    def place_of(self, row_id: int) -> int:
        """Where a row is shown; -1 when it is not."""
        if self._rows is None:
            place = self._seen - 1 - row_id
            return place if 0 <= place < len(self) else -1
        found = np.flatnonzero(self._order == row_id - self._first)
        return int(found[0]) if len(found) else -1

    def of_ids(self, ids: Ids) -> Rows:
        """Rows by id, in the order shown; those that are not shown any more are left out."""
        places = np.isin(self.ids(0, len(self)), ids)
        return self.rows(0, len(self))[places]
