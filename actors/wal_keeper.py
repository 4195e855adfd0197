"""When the write-ahead log is moved into the database, so that it neither grows without end nor costs a commit.

Only the writing connection has one. A reader inside a query pins the log: a PASSIVE checkpoint then moves what
it can and waits for nobody; above the limit a TRUNCATE waits for readers a moment, and a blocked one is counted.
"""

from typing import Any

import apsw

from runlane.actors.sql import Connection
from runlane.actors.store_file import BUSY_MS

CHECKPOINT_PAGES = 4_000  # between two checkpoints, 16 MB of log
TRUNCATE_WAIT_MS = 100


class WalKeeper:
    """Checkpoints of one writing connection. `blocked` counts those a reader kept from emptying the log."""

    def __init__(self, connection: Connection, limit_bytes: int) -> None:
        self.checkpoints = 0
        self.blocked = 0
        self.failed = 0
        self._connection = connection
        self._limit_pages = max(1, limit_bytes // connection.pragma("page_size"))
        self._interval = min(CHECKPOINT_PAGES, self._limit_pages)
        self._pages = 0  # in the log, as of the last commit
        self._done_at = 0  # as of the last checkpoint
        connection.set_wal_hook(self._on_commit)

    def _on_commit(self, _connection: Any, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def after_commit(self) -> None:
        """Checkpoint if it is time. Never raises: the commit before it stands, whatever becomes of this."""
        if self._pages < self._done_at:  # the log began anew
            self._done_at = 0
        if self._pages - self._done_at < self._interval:
            return
        self._done_at = self._pages
        self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        if self._pages > self._limit_pages:
            self.truncate()

    def truncate(self) -> None:
        """Move the whole log and cut its file to nothing, if readers let us within a moment."""
        self._connection.set_busy_timeout(TRUNCATE_WAIT_MS)
        if self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
            self._done_at = 0
        self._connection.set_busy_timeout(BUSY_MS)

    def _checkpoint(self, mode: int) -> bool:
        try:
            self._connection.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.LockedError):
            self.blocked += 1
            return False
        except apsw.Error:  # a full disk, which the next commit reports
            self.failed += 1
            return False
        self.checkpoints += 1
        return True
