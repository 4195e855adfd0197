"""The recovery: drains journals that have no proxy, because it died with the rest or never came.

The supervisor starts it when it finds such journals, `runlane recover` runs it in the foreground for those it is
given. A journal whose worker still lives is drained as long as that worker lives.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq

from runlane.actors.forwarder import Forwarder
from runlane.actors.orphans import is_beyond_reading, journals_dir, mend_head, orphan_directories
from runlane.actors.relay import Relay, set_aside
from runlane.config import log_ids
from runlane.config.errors import JournalError
from runlane.config.names import RECOVERY
from runlane.config.settings import Settings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import RoleLock, make_run_dir
from runlane.transport.journal_layout import SEGMENT_HEADER_BYTES, decode_segment_header, segment_path
from runlane.transport.log import log_event
from runlane.transport.sockets import Context, poll_events

SCAN_S = 0.5
# Nothing found for so long: the process ends, and is started again when there is something.
IDLE_S = 1.5
WORK_S = 0.02


class RecoveryActor:
    """The recovery process."""

    name = RECOVERY

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[Path] | None = None,
        on_done: Callable[[Relay], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`sources` are journals to drain; None: all under the data directory that nobody drains."""
        self.settings = settings
        self.clock = clock or SystemClock()
        self._sources = sources
        self._forwarder = Forwarder(settings, self.clock, exit_patience_s=0.0, on_done=on_done)
        self._next_scan_s = 0.0
        self._idle_since_s: float | None = None
        self._is_finished = False

    def on_start(self) -> None:
        """Connect to the router. The graph has one recovery; one in the foreground may work beside it."""
        self._context: Context = zmq.Context()
        if self._sources is None:
            self._lock = RoleLock(make_run_dir(self.settings), self.name)
        self._socket = self._forwarder.start(self._context)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._scan(self.clock.monotonic_s())

    def do_work(self, timeout_s: float) -> None:
        """One turn: the router's answers, new orphans, what is due to go out."""
        ready = poll_events(self._poller, min(timeout_s, WORK_S) if self._forwarder.relays else min(timeout_s, SCAN_S))
        if self._socket in ready:
            self._forwarder.read_router()
        now_s = self.clock.monotonic_s()
        if now_s >= self._next_scan_s:
            self._scan(now_s)
        self._forwarder.advance(now_s)
        self._look_if_finished(now_s)

    def _scan(self, now_s: float) -> None:
        self._next_scan_s = now_s + SCAN_S
        is_own = self._sources is not None
        found = list(self._sources or ()) if is_own else orphan_directories(journals_dir(self.settings))
        opened: set[Path] = set()
        for directory in found:
            mend_head(directory)
            relay = self._forwarder.open(directory)
            if relay is not None:
                opened.add(directory)
                log_event(log_ids.JOURNAL_ADOPTED, stream=relay.info.stream, worker=relay.info.worker)
            elif not is_own and directory in self._forwarder.unreadable and is_beyond_reading(directory):
                set_aside(directory)
        if is_own:  # what somebody else holds is tried again, until it is gone or free
            done = opened | self._forwarder.unreadable
            self._sources = [path for path in found if path not in done and path.exists()]

    def _look_if_finished(self, now_s: float) -> None:
        if not self._forwarder.is_idle or not self._forwarder.say_bye():
            self._idle_since_s = None
        elif self._sources is not None:
            self._is_finished = not self._sources
        else:
            self._idle_since_s = now_s if self._idle_since_s is None else self._idle_since_s
            self._is_finished = now_s - self._idle_since_s > IDLE_S

    def request_stop(self) -> None:
        """What is not drained by the deadline stays for the next graph."""

    def is_drained(self) -> bool:
        """Whether nothing is left to do."""
        return self._forwarder.is_idle

    @property
    def is_finished(self) -> bool:
        """Whether there has been nothing to drain for a while."""
        return self._is_finished

    @property
    def damaged(self) -> list[str]:
        """What could not be read, one message each."""
        return self._forwarder.damaged

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat."""
        return self._forwarder.statistics()

    def on_close(self) -> None:
        """Let every journal go, with what it still holds."""
        self._forwarder.close()
        if hasattr(self, "_context"):
            self._context.term()
        if hasattr(self, "_lock"):
            self._lock.release()


def journal_of_segment(path: Path, parent: Path) -> Path:
    """A journal made of one segment file alone, copied below `parent`; raises `JournalError` if it is no segment."""
    try:
        data = path.read_bytes()
        header = decode_segment_header(data[:SEGMENT_HEADER_BYTES])
    except (JournalError, OSError) as error:
        raise JournalError(f"{path}: {error}") from None
    if not header.first_seq:
        raise JournalError(f"{path}: a spare segment, nothing was written into it yet")
    directory = Path(tempfile.mkdtemp(dir=parent)) / header.stream.hex()
    directory.mkdir()
    segment_path(directory, header.number).write_bytes(data)
    mend_head(directory)
    return directory
