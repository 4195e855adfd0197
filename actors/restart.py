"""Who is started again, when, and when to give up. No process, no clock of its own.

Words and rules are OTP's: https://www.erlang.org/doc/system/sup_princ.html
"""

from collections import deque

from runlane.config.settings import Restart


def should_restart(restart: Restart, exit_code: int) -> bool:
    """A permanent child always, a transient one after any exit but 0, a temporary one never."""
    if restart == "permanent":
        return True
    return restart == "transient" and exit_code != 0


class RestartIntensity:
    """At most `max_restarts` of one child within `period_s` (OTP's MaxR in MaxT)."""

    def __init__(self, max_restarts: int, period_s: float) -> None:
        self.max_restarts = max_restarts
        self.period_s = period_s
        self._times_s: deque[float] = deque()

    def allows(self, now_s: float) -> bool:
        """Count a restart at `now_s`; False when it is one too many, so the supervisor must give up."""
        while self._times_s and now_s - self._times_s[0] >= self.period_s:
            self._times_s.popleft()
        self._times_s.append(now_s)
        return len(self._times_s) <= self.max_restarts


class BackOff:
    """How long to wait before a restart: not at all, then `backoff_s`, doubling up to `backoff_max_s`.

    A child that had no restart for `quiet_s` is believed healthy again: the next restart comes at once.
    """

    def __init__(self, backoff_s: float, backoff_max_s: float, quiet_s: float) -> None:
        self._first_s = min(backoff_s, backoff_max_s)
        self._max_s = backoff_max_s
        self._quiet_s = quiet_s
        self._next_s = 0.0
        self._last_s: float | None = None

    def next_delay_s(self, now_s: float) -> float:
        """Seconds to wait before the restart asked for at `now_s`."""
        if self._last_s is None or now_s - self._last_s >= self._quiet_s:
            self._next_s = 0.0
        self._last_s = now_s
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, self._max_s) or self._first_s
        return delay_s
