"""LoopWatch: how late the event loop comes to its ticks. No Qt; time is an argument."""

from collections import deque

KEPT = 300  # ticks: ten seconds at 30 Hz


class LoopWatch:
    """Lateness of a timer, over the newest ticks."""

    def __init__(self, period_s: float) -> None:
        """`period_s` is the timer's."""
        self._period_s = period_s
        self._late_s: deque[float] = deque(maxlen=KEPT)
        self._last_s: float | None = None

    def tick(self, now_s: float) -> None:
        """The timer came, at `now_s` (monotonic)."""
        if self._last_s is not None:
            self._late_s.append(max(0.0, now_s - self._last_s - self._period_s))
        self._last_s = now_s

    def late_ms(self, share: float) -> float:
        """The lateness that `share` of the ticks did not exceed, in milliseconds; 0 before there are two."""
        if not self._late_s:
            return 0.0
        ordered = sorted(self._late_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
