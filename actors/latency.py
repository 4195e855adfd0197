"""Latency: how long deliveries took, as a histogram of fixed size over the last two intervals."""

from bisect import bisect_left

INTERVAL_S = 10.0
# Upper bounds in seconds, two to each doubling: 10 µs to 95 minutes. A percentile is told as its bucket's bound.
BOUNDS_S = [1e-5 * 2 ** (step / 2) for step in range(60)]


class Latency:
    """Counts durations. What is older than two intervals is forgotten."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._now = [0] * (len(BOUNDS_S) + 1)
        self._before = list(self._now)
        self._turn_s = 0.0

    def add(self, duration_s: float, now_s: float) -> None:
        """Count one. Time is an argument."""
        self._turn(now_s)
        self._now[bisect_left(BOUNDS_S, duration_s)] += 1

    def percentile_s(self, percent: float, now_s: float) -> float | None:
        """The duration that `percent` of them did not exceed, within its bucket's width; None where there is none."""
        self._turn(now_s)
        counts = [now + before for now, before in zip(self._now, self._before, strict=True)]
        wanted = sum(counts) * percent / 100
        passed = 0
        for count, bound_s in zip(counts, [*BOUNDS_S, float("inf")], strict=True):
            passed += count
            if count and passed >= wanted:
                return bound_s
        return None

    def _turn(self, now_s: float) -> None:
        if now_s - self._turn_s < INTERVAL_S:
            return
        is_next = now_s - self._turn_s < 2 * INTERVAL_S
        self._before = self._now if is_next else [0] * len(self._now)
        self._now = [0] * len(self._before)
        self._turn_s = self._turn_s + INTERVAL_S if is_next else now_s
