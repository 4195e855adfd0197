"""BusReader: the window's place on the RunBus (the fast path), read by a thread of its own into a bounded mailbox.

Nothing is dropped here. When the window is behind, the mailbox is full, and the thread reads no further: then the
router's queue for us fills, and its policy drops and counts, as for every subscriber. No Qt.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

from runlane.config.errors import RunlaneError
from runlane.config.names import GUI, KINDS
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.record_batch import RecordBatch
from runlane.transport.subscriber import Subscriber

FAST_PATH = QueuePolicy("drop_oldest", 65_536)
MAILBOX_RECORDS = 65_536
POLL_S = 0.2
RETRY_S = 1.0
MAX_WINDOWS = 16
CLOSE_S = 3.0
IMAGE_KINDS = [kind for kind in KINDS if kind != "info"]


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """Figures of the reader, in records. `waiting` are in the mailbox; `dropped` by the router, by reason."""

    name: str
    is_joined: bool
    received: int
    waiting: int
    peak: int
    dropped: dict[str, int]
    problem: str


class BusReader:
    """Owns the subscriber. `take` and `statistics` are the window's; everything else happens in the thread."""

    def __init__(self, settings: Settings, kinds: list[str] | None = None) -> None:
        """Nothing is read before `start`."""
        self._settings = settings
        self._kinds = IMAGE_KINDS if kinds is None else kinds
        self._mailbox: deque[RecordBatch] = deque()
        self._lock = threading.Condition()
        self._records = self._peak = self._received = 0
        self._is_stopping = False
        self._is_joined = False
        self._name = GUI
        self._problem = ""
        self._dropped: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="runlane-fast-path", daemon=True)

    def start(self) -> None:
        """Join, and go on joining whenever a graph comes."""
        self._thread.start()

    def take(self, most_records: int) -> list[RecordBatch]:
        """Batches in order, of about so many records; the rest waits."""
        found: list[RecordBatch] = []
        with self._lock:
            while self._mailbox and most_records > 0:
                batch = self._mailbox.popleft()
                self._records -= len(batch)
                most_records -= len(batch)
                found.append(batch)
            if found:
                self._lock.notify()
        return found

    def statistics(self) -> BusStatistics:
        """How it stands."""
        with self._lock:
            return BusStatistics(
                self._name,
                self._is_joined,
                self._received,
                self._records,
                self._peak,
                dict(self._dropped),
                self._problem,
            )

    def stop(self) -> bool:
        """Leave the bus. False when the thread does not end in time."""
        with self._lock:
            self._is_stopping = True
            self._lock.notify()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        return not self._thread.is_alive()

    # ---- the thread ----

    def _run(self) -> None:
        number = 1
        while not self._is_stopping:
            name = GUI if number == 1 else f"{GUI}-{number}"
            try:
                self._read_as(name)
            except RunlaneError as error:  # as when another window has this name
                self._note(is_joined=False, problem=str(error))
                number = number % MAX_WINDOWS + 1
            if not self._is_stopping:
                with self._lock:
                    self._lock.wait(RETRY_S if number == 1 else 0.05)

    def _read_as(self, name: str) -> None:
        policy = None if name in self._settings.subscribers else FAST_PATH
        with Subscriber(name, kinds=self._kinds, policy=policy, window=64, settings=self._settings) as subscriber:
            self._name = name
            next_s = 0.0
            while not self._is_stopping:
                batches = subscriber.poll(POLL_S)
                self._put(batches)
                now_s = time.monotonic()
                if now_s >= next_s:
                    next_s = now_s + 1.0
                    subscriber.accounts(0.0)  # asks; the answer is there next time
                    self._note(is_joined=subscriber.is_joined, dropped=subscriber.dropped)
                if subscriber.is_over:
                    self._note(is_joined=False)
                    return

    def _put(self, batches: list[RecordBatch]) -> None:
        with self._lock:
            for batch in batches:
                self._mailbox.append(batch)
                self._records += len(batch)
                self._received += len(batch)
            self._peak = max(self._peak, self._records)
            while self._records > MAILBOX_RECORDS and not self._is_stopping:
                self._lock.wait(0.5)  # the lease is marked by the next `poll`

    def _note(self, *, is_joined: bool, dropped: dict[str, int] | None = None, problem: str = "") -> None:
        with self._lock:
            self._is_joined, self._problem = is_joined, problem
            if dropped is not None:
                self._dropped = dropped
