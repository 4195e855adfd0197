"""When the write-ahead log is moved into the database, so that it neither grows without end nor costs a commit.

Only the writing connection has one. A reader inside a query pins the log: a PASSIVE checkpoint then moves what
it can and waits for nobody; above the limit a TRUNCATE waits for readers a moment, once. A log that stays pinned
is asked back: our own readers see the marker file and end what they began before it (`reader_yield.py`); of
others we can only say who they are. Commits never wait for any of it.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

from runlane.actors.reader_yield import yield_marker
from runlane.actors.sql import Connection
from runlane.actors.store_file import BUSY_MS
from runlane.config import log_ids
from runlane.transport.clock import Clock
from runlane.transport.log import log_event

CHECKPOINT_PAGES = 4_000  # between two checkpoints, 16 MB of log
TRUNCATE_WAIT_MS = 100
RETRY_S = 0.25  # between two tries to empty a pinned log
ASK_S = 5.0  # between two requests, so what a query gets at least
PATIENCE_S = 1.0  # in which our own readers are gone
PINNED_LOG_S = 10.0

# Bytes of the -shm file that readers lock while they are inside a transaction (sqlite3's wal.c, WAL_READ_LOCK).
_READ_LOCKS = range(123, 128)
_PROC_LOCKS = Path("/proc/locks")


class WalKeeper:
    """Checkpoints of one writing connection. `blocked` counts those a reader kept from emptying the log.

    `requests` counts how often readers were asked to yield; `pinned_by` holds the pids last seen to hold the log.
    """

    def __init__(self, connection: Connection, path: Path, limit_bytes: int, clock: Clock) -> None:
        self.checkpoints = 0
        self.blocked = 0
        self.failed = 0
        self.requests = 0
        self.pinned_by: list[int] = []
        self._connection = connection
        self._clock = clock
        self._path = path
        self._marker = yield_marker(path)
        self._page_bytes = int(connection.pragma("page_size"))
        self._limit_pages = max(1, limit_bytes // self._page_bytes)
        self._interval = min(CHECKPOINT_PAGES, self._limit_pages)
        self._pages = 0  # in the log, as of the last commit
        self._done_at = 0  # as of the last checkpoint
        self._pinned_since_s: float | None = None
        self._retry_at_s = self._ask_at_s = self._log_at_s = 0.0
        self._withdraw()  # what a killed writer left
        connection.set_wal_hook(self._on_commit)

    @property
    def pinned_s(self) -> float:
        """How long readers have kept a log that is too large from being emptied; 0 when they do not."""
        return 0.0 if self._pinned_since_s is None else self._clock.monotonic_s() - self._pinned_since_s

    def _on_commit(self, _connection: Any, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def after_commit(self) -> None:
        """Checkpoint if it is time. Never raises: the commit before it stands, whatever becomes of this."""
        if self._pages < self._done_at:  # the log began anew
            self._done_at = 0
        if self._pages - self._done_at >= self._interval:
            self._done_at = self._pages
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        self.tend()

    def tend(self) -> None:
        """Try to empty a log that is above its limit. Cheap, and worth a call when nothing is committed."""
        if self._pages <= self._limit_pages:
            if self._pinned_since_s is not None:  # it began anew from its head
                self._on_free()
            return
        now_s = self._clock.monotonic_s()
        if self._pinned_since_s is None:
            if not self.truncate(TRUNCATE_WAIT_MS):
                self._pinned_since_s = now_s
                self._retry_at_s = now_s + RETRY_S
                self._ask(now_s)
        elif now_s >= self._retry_at_s and not self.truncate(0):
            self._retry_at_s = now_s + RETRY_S
            self._ask(now_s)
            self._report(now_s)

    def close(self) -> None:
        """Move the whole log and cut its file to nothing, if readers let us within a moment."""
        self.truncate(TRUNCATE_WAIT_MS)
        self._withdraw()

    def truncate(self, wait_ms: int) -> bool:
        """Empty the log, if readers let us within that time; whether they did."""
        self._connection.set_busy_timeout(wait_ms)
        is_done = self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.set_busy_timeout(BUSY_MS)
        if is_done:
            self._pages = self._done_at = 0
            self._on_free()
        return is_done

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

    # ---- asking for it back ------------------------------------------------------------------------------

    def _ask(self, now_s: float) -> None:
        if now_s < self._ask_at_s:
            return
        self._ask_at_s = now_s + ASK_S
        self.requests += 1
        with contextlib.suppress(OSError):  # a full disk: then readers stay
            self._marker.touch()

    def _on_free(self) -> None:
        if self._pinned_since_s is not None:
            self._pinned_since_s = None
            self._ask_at_s = 0.0
            self.pinned_by = []
            self._withdraw()

    def _withdraw(self) -> None:
        with contextlib.suppress(OSError):
            self._marker.unlink(missing_ok=True)

    def _report(self, now_s: float) -> None:
        if self.pinned_s < PATIENCE_S or now_s < self._log_at_s:
            return
        self._log_at_s = now_s + PINNED_LOG_S
        self.pinned_by = log_holders(self._path)
        log_event(
            log_ids.DURABLE_WAL_PINNED,
            wal_bytes=self._pages * self._page_bytes,
            pinned_s=self.pinned_s,
            pids=",".join(map(str, self.pinned_by)) or "unknown",
        )


def log_holders(path: Path) -> list[int]:
    """Pids of other processes that are inside a read of the database; empty where the system does not tell."""
    try:
        inode = path.with_name(f"{path.name}-shm").stat().st_ino
        locks = _PROC_LOCKS.read_text("ascii", "replace")
    except OSError:
        return []
    return sorted(set(_readers(locks.splitlines(), inode)) - {os.getpid()})


def _readers(lines: Iterable[str], inode: int) -> Iterable[int]:
    """Pids of `/proc/locks` that hold a read mark in the file `inode`.

    The device is not compared: on layered file systems `stat` gives another one than the table.
    """
    for line in lines:
        fields = line.split()
        if len(fields) != 8 or fields[1] != "POSIX" or fields[5].rpartition(":")[2] != str(inode):
            continue  # a lock that is waited for has one field more
        pid, first, last = fields[4], fields[6], fields[7]
        is_reading = first.isdecimal() and last.isdecimal() and set(range(int(first), int(last) + 1)) & {*_READ_LOCKS}
        if is_reading and pid.isdecimal() and pid != "0":
            yield int(pid)
