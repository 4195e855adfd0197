"""Relay: one stream on its way from its worker's journal to the router.

Live batches go on as they come. Whatever did not come, because nobody was here, the window was full or the worker
is dead, is read from the journal, which also is the only place that must not lose anything. Holds a bounded window
in memory, tells the journal's head what is acked, and removes what is no longer needed.
"""

import contextlib
import itertools
import shutil
from collections import deque
from pathlib import Path

from runlane.config import log_ids
from runlane.config.errors import JournalError
from runlane.config.settings import Settings
from runlane.transport.ack import AckWindow, Batch
from runlane.transport.clock import Clock
from runlane.transport.endpoint import RoleLock
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import HEAD_FILE, READER_ROLE, segment_numbers, segment_path
from runlane.transport.journal_reader import JournalDamageError, JournalReader, first_seq_of, has_begun
from runlane.transport.log import log_event
from runlane.transport.messages import ControlMessage, StreamAck, StreamInfo, StreamNack, StreamRefused, StreamWelcome
from runlane.transport.stream_sender import Send, StreamSender

ALIVE_LOOK_S = 0.25
REMOVE_S = 0.2
# How long what is published may be under way before it is read from the journal instead.
LIVE_PATIENCE_S = 0.03
FILL_BURST = 64
DAMAGED_SUFFIX = ".damaged"


class Relay:
    """One stream. Made by whoever holds the right to drain its journal; raises `JournalError`, `EndpointError`."""

    def __init__(self, directory: Path, info: StreamInfo | None, settings: Settings, send: Send, clock: Clock) -> None:
        """`info` is the worker's own word if it has said hello, else it is read from the journal."""
        self.directory = directory
        self.clock = clock
        self._lock = RoleLock(directory, READER_ROLE)
        try:
            self.head = JournalHead.open(directory)
        except (JournalError, OSError) as error:
            self._lock.release()
            raise JournalError(f"{directory}: {error}") from None
        self._reader = JournalReader(directory)
        acked = self.head.acked
        try:
            self._reader.seek(acked + 1)
        except (JournalError, OSError) as error:
            if info is None:
                # Then what lies before it is damage, and is told as such.
                info = self._info_of_newest() or self.head.info
            if info is None:
                self._let_go()
                raise JournalError(f"{error}") from None
        found = info or self._reader.info
        if found is None:
            self._let_go()
            raise JournalError(f"{directory}: the journal says nothing of its stream")
        self.window = AckWindow(settings.proxy.outbox_bytes, acked + 1)
        self.sender = StreamSender(found, self.window, send)
        self.sender.high_seq = lambda: self.head.published
        self.damage: JournalDamageError | None = None
        self.dead_since_s: float | None = None
        self.end_seq: int | None = None  # of the own record that told this stream's end
        self.is_refused = False
        self._is_read = False
        self._live: deque[Batch] = deque()
        self._live_bytes = 0
        self._lag_since_s: float | None = None
        self._next_alive_look_s = 0.0
        self._next_remove_s = 0.0
        self._has_acked = False

    def _info_of_newest(self) -> StreamInfo | None:
        with contextlib.suppress(JournalError, OSError):
            self._reader.seek_newest()
        return self._reader.info

    @property
    def info(self) -> StreamInfo:
        """The stream as announced last."""
        return self.sender.info

    @property
    def is_closed(self) -> bool:
        """Whether the worker said that nothing follows; how it ended is then its own last record."""
        return self.head.closed > 0

    @property
    def is_done(self) -> bool:
        """Whether nothing will come any more and all of it is acked."""
        return self._is_read and self.window.oldest_seq > self.window.last_seq

    @property
    def pending_records(self) -> int:
        """Records that are in the journal, as far as published, and not acked."""
        return max(self.head.published, self.window.last_seq) - self.window.oldest_seq + 1

    # ---- in

    def on_hello(self, info: StreamInfo) -> None:
        """The worker's own word on its stream, or the journal's."""
        self.sender.info = info.with_schemas_of(self.sender.info)

    def on_live(self, batch: Batch) -> None:
        """A batch as it comes. Too many waiting: the journal has it, too."""
        if self._live_bytes + batch.size_bytes <= self.window.max_bytes:
            self._live.append(batch)
            self._live_bytes += batch.size_bytes

    def advance(self, now_s: float) -> None:
        """Look at the worker, fill the window, send."""
        if now_s >= self._next_alive_look_s and self.dead_since_s is None:
            self._next_alive_look_s = now_s + ALIVE_LOOK_S
            if not self.head.is_writer_alive:
                self.dead_since_s = now_s
                log_event(log_ids.PROXY_WORKER_GONE, stream=self.info.stream, worker=self.info.worker)
        if self.sender.receiver and not self.is_refused:
            self._fill(now_s)
        self.sender.pump(now_s)
        if self._has_acked and now_s >= self._next_remove_s:
            self._remove_acked(now_s)

    def _fill(self, now_s: float) -> None:
        for _ in range(FILL_BURST):
            if self.window.is_full or self._is_read:
                return
            batch = self._next(now_s)
            if batch is None:
                return
            self.window.append(batch)

    def _next(self, now_s: float) -> Batch | None:
        next_seq = self.window.last_seq + 1
        while self._live and self._live[0].first_seq <= next_seq:
            batch = self._live.popleft()
            self._live_bytes -= batch.size_bytes
            if batch.first_seq == next_seq:
                self._lag_since_s = None
                return batch
        closed = self.head.closed
        if closed and next_seq > closed:
            self._is_read = True
            return None
        published = self.head.published
        if published < next_seq and self.dead_since_s is None:
            self._lag_since_s = None
            return None
        if not (self._live or closed or self.dead_since_s is not None):
            self._lag_since_s = now_s if self._lag_since_s is None else self._lag_since_s
            if now_s - self._lag_since_s < LIVE_PATIENCE_S:
                return None
        return self._read(next_seq, published)

    def _read(self, next_seq: int, published: int) -> Batch | None:
        try:
            if self._reader.next_seq != next_seq:
                self._reader.seek(next_seq)
                if next_seq < self._reader.next_seq <= self.head.acked + 1:
                    self._begin_anew()
                    return None
                if self._reader.next_seq > next_seq:
                    problem = f"the journal begins with seq {self._reader.next_seq}"
                    raise JournalDamageError(self.directory, next_seq, self._reader.next_seq - 1, problem)
            read = self._reader.read if self.dead_since_s is None else self._reader.read_final
            # It may stand before `next_seq` when the router has more than a power cut has left of the journal.
            batch = read(published, self.clock.wall_ns()) if self._reader.next_seq == next_seq else None
        except JournalDamageError as damage:
            self._on_damage(damage)
            return None
        except (JournalError, OSError) as error:
            if published or has_begun(self.directory):
                self._on_damage(JournalDamageError(self.directory, next_seq, published, str(error)))
            else:  # the disk was full from the start, or the kill came before the first record
                self._is_read = True
            return None
        if self._reader.info is not None:
            self.on_hello(self._reader.info)
        if batch is None and self.dead_since_s is not None:
            self._is_read = True
            if self._reader.is_torn:
                log_event(log_ids.JOURNAL_TORN, stream=self.info.stream, seq=self._reader.next_seq)
        return batch

    def _begin_anew(self) -> None:
        """The router wants what is committed and deleted: it heard a hello from before that ack."""
        self.window.reset(self.head.acked + 1)
        self.sender.begin_anew()

    def _on_damage(self, damage: JournalDamageError) -> None:
        self.damage = damage
        self._is_read = True
        log_event(log_ids.JOURNAL_DAMAGED, stream=self.info.stream, error=str(damage))

    # ---- out

    def on_message(self, message: ControlMessage, now_s: float) -> int:
        """The router's word on this stream; returns how many records it acked."""
        before = self.window.oldest_seq
        if isinstance(message, StreamRefused):
            self.is_refused = True
            log_event(log_ids.PROXY_STREAM_REFUSED, stream=message.stream, reason=message.reason)
            return 0
        if isinstance(message, StreamWelcome | StreamNack) and message.expected_seq:
            expected = message.expected_seq
            if not self.window.base_seq < expected <= self.window.last_seq + 1:
                # It has more than our journal's acks say, or is new and needs what only the journal still has.
                self.window.reset(expected)
                self._is_read, self.damage = False, None
        if self.sender.on_message(message, now_s):
            records = self.window.last_seq - self.window.sent_seq
            log_event(log_ids.PROXY_REWOUND, stream=self.info.stream, records=records)
        acked = self.window.oldest_seq - before
        if acked and isinstance(message, StreamAck):
            self.head.acked = self.window.oldest_seq - 1
            self._has_acked = True
        return acked

    def _remove_acked(self, now_s: float) -> None:
        """Delete segments whose every record is committed."""
        self._has_acked = False
        self._next_remove_s = now_s + REMOVE_S
        acked = self.head.acked
        numbers = segment_numbers(self.directory)
        for number, following in itertools.pairwise(numbers):
            if not 0 < first_seq_of(segment_path(self.directory, following)) <= acked + 1:
                return
            segment_path(self.directory, number).unlink(missing_ok=True)

    # ---- the end

    def untold_drops(self) -> dict[str, int]:
        """Records the worker dropped and could not tell any more, by kind."""
        return self.head.untold(self.window.last_seq)

    def finish(self) -> None:
        """All is committed: remove the journal. A damaged one is kept beside the others, and not tried again."""
        self._reader.close()
        self.head.close()
        if self.damage is None:
            log_event(log_ids.JOURNAL_DRAINED, stream=self.info.stream, last_seq=self.window.last_seq)
            remove_journal(self.directory)
            self._lock.release()
            with contextlib.suppress(OSError):
                self.directory.rmdir()
        else:
            self._lock.release()
            set_aside(self.directory)

    def close(self) -> None:
        """Let the journal go as it is; its next reader goes on from the last ack."""
        self._let_go()

    def _let_go(self) -> None:
        self._reader.close()
        self.head.close()
        self._lock.release()


def set_aside(directory: Path) -> None:
    """Keep a damaged journal under another name, where nobody tries to drain it again."""
    kept = directory.with_name(directory.name + DAMAGED_SUFFIX)
    shutil.rmtree(kept, ignore_errors=True)
    with contextlib.suppress(OSError):
        directory.rename(kept)


def remove_journal(directory: Path) -> None:
    """Delete a journal's files, the head last: without it nobody would know that the segments are committed."""
    for number in segment_numbers(directory):
        segment_path(directory, number).unlink(missing_ok=True)
    for path in directory.glob(f"{HEAD_FILE}*"):
        path.unlink(missing_ok=True)
