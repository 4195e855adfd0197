"""A database that takes nothing for a while, as on a full disk: how often that was tried, told often enough to be
noticed and seldom enough for hours of it.
"""

from runlane.config import log_ids
from runlane.transport.log import log_event

RETRY_S = 0.5
LOG_S = 10.0


class Outage:
    """Tries that failed in a row. Time is an argument, in monotonic seconds."""

    def __init__(self) -> None:
        """All is well."""
        self.attempts = 0
        self._since_s = 0.0
        self._log_at_s = 0.0
        self._retry_at_s = 0.0

    def is_over_at(self, now_s: float) -> bool:
        """Whether to try: all is well, or the pause after the last failure is over."""
        return self.pause_s(now_s) <= 0.0

    def pause_s(self, now_s: float) -> float:
        """How long to wait before the next try."""
        return max(0.0, self._retry_at_s - now_s)

    def fail(self, now_s: float, rows: int, error: Exception) -> None:
        """A try failed; `rows` wait for the next."""
        if not self.attempts:
            self._since_s = self._log_at_s = now_s
        self.attempts += 1
        self._retry_at_s = now_s + RETRY_S
        if now_s >= self._log_at_s:
            self._log_at_s = now_s + LOG_S
            seconds = now_s - self._since_s
            log_event(log_ids.DURABLE_RETRY, rows=rows, attempts=self.attempts, seconds=seconds, error=str(error))

    def end(self, now_s: float) -> None:
        """A try succeeded."""
        if self.attempts:
            log_event(log_ids.DURABLE_RECOVERED, attempts=self.attempts, seconds=now_s - self._since_s)
            self.attempts = 0
            self._retry_at_s = 0.0
