"""Trace: a figure over the last minutes, in a ring of fixed size. No Qt; time is an argument."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 300.0
STEP_S = 0.5
LINE_GAP_S = 25.0  # longer without a value is a gap in the line; the store's own figures come every ten seconds

Floats = NDArray[np.float64]


class Trace:
    """Values of the last `WINDOW_S` seconds, at most one each `STEP_S`. One thread owns it.

    Of several values in one step the largest stays, or with `keeps="last"` the newest. NaN interrupts the line.
    """

    def __init__(self, keeps: str = "largest") -> None:
        capacity = round(WINDOW_S / STEP_S) + 1
        self._times = np.full(capacity, -math.inf)
        self._values = np.full(capacity, math.nan)
        self._next = 0  # where the next value goes
        self._count = 0
        self._keeps_last = keeps == "last"

    def __len__(self) -> int:
        return self._count

    @property
    def newest(self) -> float | None:
        """The value that came last; None before the first."""
        return float(self._values[self._next - 1]) if self._count else None

    @property
    def newest_s(self) -> float:
        """When it came; minus infinity before the first."""
        return float(self._times[self._next - 1]) if self._count else -math.inf

    def add(self, value: float, now_s: float) -> None:
        """Take a value. Times never go back; one that does counts as now."""
        if self._count and now_s - self._times[self._next - 1] < STEP_S:
            at = self._next - 1
            before = self._values[at]
            self._values[at] = value if self._keeps_last or math.isnan(before) else max(before, value)
            return
        self._times[self._next], self._values[self._next] = now_s, value
        self._next = (self._next + 1) % len(self._times)
        self._count = min(self._count + 1, len(self._times))

    def fill(self, points: Iterable[tuple[float, float]], now_s: float) -> None:
        """Put what was before the first value in front of it, as from the store: pairs of time and value, rising."""
        seconds, values = self._in_order()
        first_s = float(seconds[0]) if len(seconds) else now_s
        self._next = self._count = 0
        for at_s, value in points:
            if now_s - WINDOW_S <= at_s < first_s:
                self.add(value, at_s)
        for at_s, value in zip(seconds.tolist(), values.tolist(), strict=True):
            self.add(value, at_s)

    def largest(self, now_s: float, over_s: float) -> float | None:
        """The largest value of the last `over_s` seconds; None where there is none."""
        seconds, values = self._in_order()
        recent = values[(seconds >= now_s - over_s) & ~np.isnan(values)]
        return float(recent.max()) if len(recent) else None

    def arrays(self, now_s: float) -> tuple[Floats, Floats]:
        """Seconds before now (negative, rising) and values, both of the window; NaN between what is far apart."""
        seconds, values = self._in_order()
        is_recent = seconds >= now_s - WINDOW_S
        seconds, values = seconds[is_recent] - now_s, values[is_recent]
        holes = np.flatnonzero(np.diff(seconds) > LINE_GAP_S) + 1
        if len(holes):
            seconds = np.insert(seconds, holes, seconds[holes])
            values = np.insert(values, holes, math.nan)
        return seconds, values

    def _in_order(self) -> tuple[Floats, Floats]:
        if self._count < len(self._times):
            return self._times[: self._count].copy(), self._values[: self._count].copy()
        return np.roll(self._times, -self._next), np.roll(self._values, -self._next)
