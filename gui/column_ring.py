"""ColumnRing: the newest rows of a table as one structured array of fixed size. And the rows the window keeps."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.void]

STEP_ROW = np.dtype(
    [
        ("seq", "<i8"),
        ("t_ns", "<i8"),
        ("source", "<u4"),  # number in the model's `sources`: run and worker
        ("env_index", "<u4"),
        ("episode", "<u4"),
        ("step", "<u4"),
        ("action", "<f8"),  # the first item, when there are several
        ("action_size", "<u4"),  # 0: not recorded
        ("reward", "<f8"),
        ("return", "<f8"),  # so far in the episode; NaN when its beginning was not seen
        ("flags", "|u1"),
    ]
)
EPISODE_ROW = np.dtype(
    [
        ("seq", "<i8"),
        ("t_ns", "<i8"),
        ("source", "<u4"),
        ("env_index", "<u4"),
        ("episode", "<i8"),
        ("return", "<f8"),
        ("length", "<i8"),
        ("outcome", "|u1"),  # index in OUTCOMES
        ("duration_s", "<f8"),
    ]
)
OUTCOMES = ("terminated", "truncated", "abandoned")


class ColumnRing:
    """Rows are numbered from 0 as they come and keep their number; of them the newest `capacity` are there.

    One thread owns it. `generation` counts removals, after which numbers mean other rows.
    """

    def __init__(self, dtype: "np.dtype[np.void]", capacity: int) -> None:
        self.capacity = capacity
        self.total = 0
        self.generation = 0
        self._rows: Rows = np.zeros(capacity, dtype)
        self._items = self._rows.view(f"V{dtype.itemsize}")  # whole rows: copied in a tenth of the time of fields
        self._first = 0  # number of the oldest row that may be there

    @property
    def first(self) -> int:
        """Number of the oldest row that is there."""
        return max(self._first, self.total - self.capacity)

    def __len__(self) -> int:
        return self.total - self.first

    def add(self, rows: Rows) -> None:
        """Append rows; of more than `capacity` the newest."""
        skipped = max(0, len(rows) - self.capacity)
        self.total += skipped
        rows = rows[skipped:]
        items = np.ascontiguousarray(rows).view(self._items.dtype)
        at = self.total % self.capacity
        head = min(len(rows), self.capacity - at)
        self._items[at : at + head] = items[:head]
        self._items[: len(rows) - head] = items[head:]
        self.total += len(rows)

    def part(self, start: int, stop: int) -> Rows:
        """A copy of the rows numbered from `start` to before `stop`, as far as they are there."""
        start, stop = max(start, self.first), min(stop, self.total)
        if start >= stop:
            return self._rows[:0].copy()
        begin, count = start % self.capacity, stop - start
        head = min(count, self.capacity - begin)
        items = np.concatenate((self._items[begin : begin + head], self._items[: count - head]))
        return items.view(self._rows.dtype)

    def everything(self) -> Rows:
        """A copy of all rows, oldest first."""
        return self.part(self.first, self.total)

    def keep(self, sources: NDArray[np.uint32]) -> None:
        """Remove the rows of all other sources."""
        rows = self.everything()
        rows = rows[np.isin(rows["source"], sources)]
        self._first = self.total
        self.generation += 1
        self.add(rows)
