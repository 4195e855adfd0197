"""Figures of the graph over time in the database, bounded by age and by number.

What is too much goes a bite at a time, with the figures that come: a bite is larger than what came, so the table
shrinks to its limits, and small beside the records that share the transaction.
"""

from collections.abc import Sequence

from runlane.actors.sql import Connection, SqlRow

MAX_AGE_NS = 7 * 86_400 * 1_000_000_000
MAX_ROWS = 500_000
MIN_BITE_ROWS = 256
_FOREVER_NS = (1 << 63) - 1

_PUT = "INSERT OR IGNORE INTO graph_metric_rows VALUES (?,?,?,?)"
_REMOVE_OLDEST = """
DELETE FROM graph_metric_rows WHERE (t_ns, source, name) IN
  (SELECT t_ns, source, name FROM graph_metric_rows WHERE t_ns < ? ORDER BY t_ns, source, name LIMIT ?)
"""


class StoreMetrics:
    """Writes figures and removes old ones. Part of the store: `put` runs in the transaction the store opened."""

    def __init__(self, connection: Connection, max_rows: int = MAX_ROWS) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._max_rows = max_rows
        self._rows: int | None = None  # counted once: counting half a million takes a millisecond

    def put(self, rows: Sequence[SqlRow], now_ns: int) -> None:
        """Store rows of time, source, name and value, then remove a bite of what is beyond the limits."""
        if self._rows is None:
            found: int = self._cursor.execute("SELECT count(*) FROM graph_metric_rows").get
            self._rows = found
        before = self._connection.total_changes()
        self._cursor.executemany(_PUT, rows)
        self._rows += self._connection.total_changes() - before
        bite = max(MIN_BITE_ROWS, 2 * len(rows))
        bite -= self._remove_oldest(now_ns - MAX_AGE_NS, bite)
        self._remove_oldest(_FOREVER_NS, min(bite, self._rows - self._max_rows))

    def forget(self) -> None:
        """Count again, after a rollback."""
        self._rows = None

    def _remove_oldest(self, before_ns: int, most: int) -> int:
        if most <= 0 or self._rows is None:
            return 0
        self._cursor.execute(_REMOVE_OLDEST, (before_ns, most))
        removed = self._connection.changes()
        self._rows -= removed
        return removed
