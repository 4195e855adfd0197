"""The reader's side of a log that is too large: a query begun before the writer asked ends with an error.

Loss of a query is normal here, and said; the alternative is a log that grows until the disk is full.
"""

import os
from pathlib import Path
from typing import Any

import apsw

from runlane.actors.sql import Connection
from runlane.config.errors import StoreError
from runlane.config.names import YIELD_SUFFIX
from runlane.transport.clock import Clock

LOOK_S = 0.25
LOOK_STEPS = 4_000  # of SQLite's machine between two looks at the clock, some 0.1 ms


class YieldWatch:
    """Ends a reading connection's query when the DB writer asked for its log after the query, or its transaction,
    began. A transaction that does nothing is not ended: the next statement in it is.
    """

    def __init__(self, connection: Connection, path: Path, clock: Clock) -> None:
        """Installs itself; lives as long as the connection."""
        self._path = path
        self._marker = yield_marker(path)
        self._clock = clock
        self._began_at = 0  # the request that was known when the transaction began
        self._look_at_s = 0.0
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, self._on_statement)
        connection.set_progress_handler(self._on_steps, LOOK_STEPS)

    def _on_statement(self, event: dict[str, Any]) -> None:
        if not event["trigger"] and not event["connection"].in_transaction:
            self._began_at = self._request()
            self._look_at_s = self._clock.monotonic_s() + LOOK_S

    def _on_steps(self) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s < self._look_at_s:
            return False
        self._look_at_s = now_s + LOOK_S
        if self._request() in (0, self._began_at):
            return False
        raise StoreError(
            f"{self._path}: this query was ended, because it kept the write-ahead log from being emptied beyond "
            "db_writer.wal_limit_bytes; ask for less at a time, or query a copy of the file"
        )

    def _request(self) -> int:
        """The newest request as a number, 0 for none."""
        try:
            return os.stat(self._marker).st_mtime_ns  # noqa: PTH116  ten times a second and for every statement
        except OSError:
            return 0


def yield_marker(path: Path) -> Path:
    """The file beside a database whose change of time asks readers to end what they began before."""
    return path.with_name(path.name + YIELD_SUFFIX)
