"""Time as an argument: actors get a `Clock`, tests move a fake one."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two times: one for durations, one for display and for numbers that must not restart."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never steps; only differences mean anything."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 UTC; for display, never for order or time-outs."""
        ...


class SystemClock:
    """The real clocks of this machine."""

    def monotonic_s(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """Nanoseconds of `time.time_ns`."""
        return time.time_ns()
