"""Series: one curve of any length in bounded memory. Neighbours are merged when it is full; spikes survive, exactly.

per = 1   |v|v|v|v|v|v|v|v|          a bucket holds `per` values: least, greatest, sum, and where it ends
per = 2   |vv |vv |vv |vv |          on each axis: environment steps, episodes, wall time
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Axis = Literal["step", "episode", "time"]
AXES: tuple[Axis, ...] = ("step", "episode", "time")

KEPT_POINTS = 2048
_FIRST_POINTS = 64
_STAGED = 256
_COUNT, _KNOWN, _LOW, _HIGH, _SUM, _STEP, _EPISODE, _TIME = range(8)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Buckets in order of time, float64 each, of one length. NaN where a bucket held no number.

    `count` values per bucket; `step`, `episode` and `time` (s since 1970) are those of its last value.
    """

    count: Floats
    low: Floats
    high: Floats
    mean: Floats
    step: Floats
    episode: Floats
    time: Floats

    def x(self, axis: Axis) -> Floats:
        """Where the buckets stand on an axis."""
        return {"step": self.step, "episode": self.episode, "time": self.time}[axis]

    def __len__(self) -> int:
        return len(self.count)

    @property
    def per_bucket(self) -> int:
        """Values in the fullest bucket; 1 means that every value is there by itself."""
        return int(self.count.max()) if len(self) else 0

    def part(self, chosen: NDArray[np.bool_]) -> "Envelope":
        """Some of the buckets."""
        return Envelope(*(getattr(self, name)[chosen] for name in self.__slots__))

    def then(self, later: "Envelope") -> "Envelope":
        """This one, and another behind it."""
        return Envelope(
            *(np.concatenate((getattr(self, name), getattr(later, name))) for name in self.__slots__),
        )


EMPTY = Envelope(*([np.zeros(0)] * 7))


class Series:
    """Owned by the Qt thread. What came before the window opened is `set_history`'s, and stands in front."""

    def __init__(self, points: int = KEPT_POINTS) -> None:
        """`points` is even, so that every bucket has a neighbour."""
        if points < 2 or points % 2:
            raise ValueError(f"points={points} is no even number of at least 2")
        self.version = 0
        self.values = 0
        self.last = float("nan")
        self._points = points
        self._per: int = 1
        self._size = 0
        self._columns: Floats = np.zeros((8, min(points, _FIRST_POINTS)))
        # Values wait here, so that a few at a time cost a copy: value, step, episode, time.
        self._staged: Floats = np.empty((4, _STAGED))
        self._waiting = 0
        self._first_s = float("inf")
        self._history: Envelope | None = None
        self._cache: tuple[int, Envelope] = (-1, EMPTY)

    def add(self, values: Floats, steps: Floats, episodes: Floats, times_s: Floats) -> None:
        """Append values in order, with their place on each axis; arrays of one length."""
        if not len(values):
            return
        if not self.values:
            self._first_s = float(times_s[0])
        self.version += 1
        self.values += len(values)
        self.last = float(values[-1])
        columns = (values, steps, episodes, times_s)
        if len(values) > _STAGED:
            self._flush()
            self._take(np.array(columns, np.float64))
            return
        if self._waiting + len(values) > _STAGED:
            self._flush()
        stop = self._waiting + len(values)
        for row, column in enumerate(columns):
            self._staged[row, self._waiting : stop] = column
        self._waiting = stop

    def add_one(self, value: float, step: float, episode: float, time_s: float) -> None:
        """Append one value."""
        self.add(np.array([value]), np.array([step]), np.array([episode]), np.array([time_s]))

    def shift(self, steps: float, episodes: float) -> None:
        """Move everything that came live: what was before it is now known better."""
        self._flush()
        self._columns[_STEP, : self._size] += steps
        self._columns[_EPISODE, : self._size] += episodes
        self.version += 1

    def set_history(self, history: Envelope) -> None:
        """Put what the store has in front, as far as it was before the first live value."""
        self._history = history.part(history.time < self._first_s)
        self.version += 1

    @property
    def has_history(self) -> bool:
        """Whether the store was asked."""
        return self._history is not None

    def envelope(self) -> Envelope:
        """All of it, oldest first; the same object until something changes."""
        if self._cache[0] != self.version:
            live = self._live()
            self._cache = (self.version, live if self._history is None else self._history.then(live))
        return self._cache[1]

    @property
    def newest(self) -> float:
        """The newest value, of the store's if none came live; NaN for none."""
        if self.values:
            return self.last
        return float(self._history.mean[-1]) if self._history is not None and len(self._history) else float("nan")

    # ---- buckets ----

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, 0
        if waiting:
            self._take(self._staged[:, :waiting])

    def _take(self, columns: Floats) -> None:
        """Put values and their places into buckets, which are merged when there are too many."""
        start, count = 0, columns.shape[1]
        while start < count:
            room = self._room()
            if room == 0:
                self._merge()
                continue
            stop = min(count, start + room)
            self._fold(columns[0, start:stop], columns[1:, start:stop])
            start = stop

    def _live(self) -> Envelope:
        self._flush()
        used = self._columns[:, : self._size]
        known = used[_KNOWN]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(known > 0, used[_SUM] / known, np.nan)
        places = (used[row].copy() for row in (_STEP, _EPISODE, _TIME))
        return Envelope(used[_COUNT].copy(), used[_LOW].copy(), used[_HIGH].copy(), mean, *places)

    def _open(self) -> int:
        """Values that the last bucket still takes."""
        return self._per - int(self._columns[_COUNT, self._size - 1]) if self._size else 0

    def _room(self) -> int:
        return (self._points - self._size) * self._per + self._open()

    def _fold(self, values: Floats, x: Floats) -> None:
        """Put at most `_room` values into buckets."""
        first = min(self._open(), len(values))
        if first:
            self._put(self._size - 1, np.array([0]), values[:first], x[:, :first], is_new=False)
        rest = len(values) - first
        if rest:
            starts = np.arange(0, rest, self._per)
            self._reserve(self._size + len(starts))
            self._put(self._size, starts, values[first:], x[:, first:], is_new=True)
            self._size += len(starts)

    def _put(self, at: int, starts: NDArray[np.int64], values: Floats, x: Floats, *, is_new: bool) -> None:
        columns = self._columns[:, at : at + len(starts)]
        ends = np.append(starts[1:], len(values))
        known = ~np.isnan(values)
        fresh = (
            (ends - starts).astype(np.float64),
            np.add.reduceat(known.astype(np.float64), starts),
            np.fmin.reduceat(values, starts),
            np.fmax.reduceat(values, starts),
            _sums(values, known, starts),
        )
        if is_new:
            for row, column in enumerate(fresh):
                columns[row] = column
        else:
            with np.errstate(invalid="ignore"):
                columns[_COUNT] += fresh[0]
                columns[_KNOWN] += fresh[1]
                columns[_LOW] = np.fmin(columns[_LOW], fresh[2])
                columns[_HIGH] = np.fmax(columns[_HIGH], fresh[3])
                columns[_SUM] += fresh[4]
        columns[_STEP:] = x[:, ends - 1]

    def _reserve(self, size: int) -> None:
        have = self._columns.shape[1]
        if size > have:
            grown = np.zeros((8, min(self._points, max(size, 2 * have))))
            grown[:, : self._size] = self._columns[:, : self._size]
            self._columns = grown

    def _merge(self) -> None:
        """Two full neighbours become one; called only when every bucket is full."""
        left, right = self._columns[:, 0 : self._size : 2], self._columns[:, 1 : self._size : 2]
        merged = np.empty_like(right)
        with np.errstate(invalid="ignore"):
            for row in (_COUNT, _KNOWN, _SUM):
                merged[row] = left[row] + right[row]
        merged[_LOW] = np.fmin(left[_LOW], right[_LOW])
        merged[_HIGH] = np.fmax(left[_HIGH], right[_HIGH])
        merged[_STEP:] = right[_STEP:]
        self._size //= 2
        self._columns[:, : self._size] = merged
        self._per *= 2


def _sums(values: Floats, known: NDArray[np.bool_], starts: NDArray[np.int64]) -> Floats:
    with np.errstate(invalid="ignore"):  # infinities of both signs make a NaN
        return np.add.reduceat(np.where(known, values, 0.0), starts)
