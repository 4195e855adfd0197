"""JournalSync: forces a journal to disk, so that a power cut loses little. `kill -9` loses nothing.

In a thread of its own, which all journals of the process share: a slow disk may hold it up, and nobody else.
"""

import os
import threading
from collections.abc import Iterator

from runlane.config import log_ids
from runlane.transport.log import log_event
from runlane.workers.journal_writer import JournalWriter
from runlane.workers.shared_thread import SharedThread

_THREAD = SharedThread("sync")


class JournalSync:
    """Calls fdatasync on what is new, every `interval_s`; also closes segments that are full, once they are on disk."""

    def __init__(self, journal: JournalWriter, interval_s: float) -> None:
        """Nothing runs before `start`. An interval of 0 never forces anything and only closes."""
        self.syncs = 0
        self.is_closing = False
        self.interval_s = interval_s or 1.0
        self._journal = journal
        self._is_forcing = interval_s > 0
        self._synced_seq = 0
        self._named_number = 0
        self._has_failed = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin."""
        _THREAD.serve(self)

    def close(self) -> None:
        """Force what is new for the last time, now, and end."""
        self.is_closing = True
        _THREAD.wake()
        self._ended.wait()

    # ---- in the thread ----

    def turns(self) -> Iterator[bool]:
        """The first one, as a stream begins, does nothing; the last one comes after the journal's last record."""
        is_last = False
        while not is_last:
            yield False
            is_last = self.is_closing  # looked at before the turn, which then forces all there will ever be
            self._turn()

    def end(self) -> None:
        """Let `close` return."""
        self._ended.set()

    def _turn(self) -> None:
        journal = self._journal
        for _ in range(len(journal.retired)):  # who records faster than the disk takes it fills it up meanwhile
            segment = journal.retired[0]
            self._sync(segment.fd)
            journal.retired.popleft().close()
        seq, segment_now = journal.seq, journal.segment
        if segment_now is not None and seq != self._synced_seq:
            if segment_now.number != self._named_number:
                self._sync_names()
                self._named_number = segment_now.number
            self._sync(segment_now.fd)
            self._synced_seq = seq

    def _sync_names(self) -> None:
        """A new file lasts only when its directory does, and that one's own name."""
        for directory in (self._journal.directory, self._journal.directory.parent):
            try:
                fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # the reader has removed it all
                return
            self._sync(fd)
            os.close(fd)

    def _sync(self, fd: int) -> None:
        if not self._is_forcing:
            return
        try:
            os.fdatasync(fd)
            self.syncs += 1
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                log_event(log_ids.WORKER_FAULT, where="fdatasync", error=str(error), count=1)


os.register_at_fork(after_in_child=_THREAD.forget)
