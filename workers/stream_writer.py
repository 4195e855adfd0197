"""StreamWriter: records into one stream, under one lock, with the rule for a full outbox. Base of the session.

A record gets its seq under the lock and goes into the batch being filled. A full batch, or one as old as
`batch_age_ms`, goes to the outbox. When the outbox is full the chosen rule applies: `block` waits,
`drop_newest` gives the record no seq and counts it in a `drop` record.
"""

import os
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from runlane.config import log_ids
from runlane.config.settings import Settings
from runlane.transport.identity import new_stream_id
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import DropRecord, Record
from runlane.transport.wire import MAX_BODY_BYTES
from runlane.workers.batch_builder import BatchBuilder
from runlane.workers.outbox import Outbox
from runlane.workers.step_layout import StepLayout, VectorLayout


class NoRoomError(Exception):
    """The outbox is full and the rule is not to wait: the record gets no seq, and was counted. Never leaves here."""


class StreamWriter:
    """One stream's lock, batch and outbox. The methods with an underscore are for the session, with the lock held."""

    def __init__(self, info: StreamInfo, endpoint: str, settings: Settings) -> None:
        """Open the stream; its outbox connects to `endpoint` in a thread of its own."""
        self.faults = 0
        self.dropped: dict[str, int] = {}
        self._settings = settings
        self._endpoint = endpoint
        self._is_closed = False
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._open(info)

    def _open(self, info: StreamInfo) -> None:
        """Start a stream with nothing in it."""
        self.info = info
        self._unreported: dict[str, int] = {}
        self._is_forked = False
        self._wait_until_s = float("inf")
        self._is_wait_logged = False
        self._batch = BatchBuilder(self._settings.session.batch_records)
        self._outbox = Outbox(info, self._endpoint, self._settings, self._seal_old, self._on_room)
        self._outbox.start()

    # ---- records ----

    def _add(self, kind: str, make: Callable[[int], Record]) -> None:
        try:
            with self._lock:
                self._append(kind, make)
        except NoRoomError:
            return
        except Exception as error:
            self._fault(kind, error)

    def _append(self, kind: str, make: Callable[[int], Record]) -> None:
        batch = self._batch
        if batch.is_full:
            batch = self._make_room(kind)
        batch.append(kind, make)

    # ---- batches ----

    def _use(self, layout: StepLayout | VectorLayout) -> None:
        """Write rows in a new layout from here on: a batch holds rows of one layout."""
        if layout.row_bytes > MAX_BODY_BYTES:
            raise ValueError(f"one step of {layout.row_bytes} bytes, a frame holds {MAX_BODY_BYTES}")
        self._seal()
        if self._batch.use(layout):
            self.info = msgspec.structs.replace(self.info, schemas=list(self._batch.schemas))
            self._outbox.announce(self.info)

    def _make_room(self, kind: str) -> BatchBuilder:
        """The batch is full, or not ours: seal it, wait, or give up the record. Returns the one to fill."""
        if self._is_forked:
            self._reopen()
        if self._outbox.is_full:
            self._wait_for_room(kind)
        if self._is_closed:
            raise RuntimeError("the session is closed")
        self._seal()
        self._report_drops()
        return self._batch

    def _wait_for_room(self, kind: str) -> None:
        is_block = self._settings.session.overflow == "block"
        if is_block and not self._is_wait_logged:
            self._is_wait_logged = True
            log_event(log_ids.WORKER_BLOCKED, worker=self.info.worker, bytes=self._outbox.held_bytes)
        while self._outbox.is_full and time.monotonic() < self._wait_until_s:
            if not is_block or self._outbox.has_ended or self._outbox.is_abandoned(time.monotonic()):
                break  # nobody is left who could make room: training goes on, and the loss is counted
            self._room.wait(0.1)
        if self._outbox.is_full:
            if not self.dropped:
                log_event(log_ids.WORKER_DROPPED, worker=self.info.worker, kind=kind)
            self.dropped[kind] = self.dropped.get(kind, 0) + 1
            self._unreported[kind] = self._unreported.get(kind, 0) + 1
            raise NoRoomError

    def _report_drops(self) -> None:
        """Tell of what was dropped, now that there is room in an empty batch."""
        while self._unreported:
            kind, records = self._unreported.popitem()
            self._batch.append("drop", partial(_drop_record, kind, records))

    def _seal(self) -> None:
        """Hand the batch over, whatever it holds."""
        is_full = self._batch.is_full
        if self._batch.take(self._outbox.sealed) and is_full:
            self._outbox.wake()

    def _seal_rest(self) -> None:
        """The last batches of a stream that is being closed."""
        self._is_closed = True
        self._seal()
        self._report_drops()
        self._seal()
        self._batch.end()

    # ---- called by the outbox thread ----------------------------------------------------------------------

    def _seal_old(self) -> None:
        """Nothing waits longer than one tick, also while training calls nothing for seconds."""
        if self._batch.count and not self._outbox.is_full:
            with self._lock:
                self._seal()

    def _on_room(self) -> None:
        with self._lock:
            self._room.notify_all()

    # ---- faults and forks ----

    def _fault(self, where: str, error: Exception) -> None:
        self.faults += 1
        if self.faults == 1:
            log_event(log_ids.WORKER_FAULT, where=where, error=f"{type(error).__name__}: {error}", count=1)

    def _mark_forked(self) -> None:
        """In a forked child: the lock may be held by a thread that is not here, the socket is the parent's."""
        self._is_forked = True
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._batch = BatchBuilder(0)  # full at once, so the first record comes to `_make_room`

    def _reopen(self) -> None:
        """A forked child that records becomes a stream of its own."""
        self._open(
            msgspec.structs.replace(
                self.info, stream=new_stream_id(), pid=os.getpid(), started_ns=time.time_ns(), schemas=[]
            )
        )


def _drop_record(kind: str, records: int, seq: int) -> DropRecord:
    return DropRecord(seq, time.time_ns(), kind, "outbox_full", records)
