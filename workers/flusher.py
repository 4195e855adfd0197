"""Flusher: sends a journal's new records to the proxy, as they lie in the journal.

What it sends may be lost without harm: the proxy finds the gap and reads the journal itself. So nothing waits here
for an answer, and training never waits for it. It publishes how far the journal may be read, sends, makes the next
segment ahead of its time, and at the end watches the acks up to the deadline of `close`. All this in turns, which one
thread makes for all streams of the process.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from runlane.config.errors import JournalError, WireError
from runlane.config.names import SUPERVISOR
from runlane.config.settings import MAX_BATCH_RECORDS, Settings
from runlane.transport.ack import Batch
from runlane.transport.endpoint import is_endpoint_alive, is_role_alive
from runlane.transport.journal_reader import JournalReader
from runlane.transport.messages import StreamBye, StreamHello, StreamMode
from runlane.transport.sockets import Socket, connect_dealer, has_message, receive_frames, send_frames
from runlane.transport.wire import decode_control, encode_control, encode_packed
from runlane.workers.journal_writer import JournalWriter
from runlane.workers.mode_switch import ModeSwitch
from runlane.workers.shared_context import give_back_context, take_context
from runlane.workers.shared_thread import SharedThread

# Every turn takes the interpreter from training. With so many seconds of rest for each of its own the thread takes
# less than 1.6 %, however many streams it serves; a batch that is full is sent all the same.
REST = 64.0
SOCKET_HWM = 16
HELLO_S = 0.5
LISTEN_S = 0.05  # a look costs the training thread its turn with the interpreter
BYE_S = 0.2
LOOK_S = 0.5
ABANDONED_S = 5.0
# One frame to the proxy; what is further behind than a few of them the proxy reads by itself.
MAX_PACKED_BATCHES = 64
MAX_PACKED_BYTES = 4 << 20
MAX_BEHIND_BATCHES = 64

_THREAD = SharedThread("flusher", REST)


class Flusher:
    """One stream's turns. They read `journal.seq` and the files, and write the head's `published` word."""

    def __init__(
        self, journal: JournalWriter, endpoint: str, settings: Settings, switch: ModeSwitch | None = None
    ) -> None:
        """Nothing runs before `start`. What the proxy asks for goes to `switch`."""
        self.is_closing = False
        self.interval_s = settings.session.batch_age_ms / 1000
        self._switch = switch
        self._told_mode = ""
        self._next_listen_s = 0.0
        self._journal = journal
        self._endpoint = endpoint
        self._settings = settings
        self._reader: JournalReader | None = None
        self._deadline_s: float | None = None
        self._next_hello_s = 0.0
        self._told_schemas = -1
        self._next_look_s = 0.0
        self._alone_since_s: float | None = None
        self._has_more = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to send."""
        _THREAD.serve(self)

    def wake(self) -> None:
        """A batch is full: look now."""
        _THREAD.wake()

    def close(self, deadline_s: float) -> None:
        """Send the rest and watch its acks, at most until `deadline_s` (monotonic)."""
        self._deadline_s = deadline_s
        self.is_closing = True
        _THREAD.wake()
        self._ended.wait(max(0.0, deadline_s - time.monotonic()) + 1.0)

    @property
    def has_ended(self) -> bool:
        """Whether no turn follows, so that nothing will be published any more."""
        return self._ended.is_set()

    def is_abandoned(self, now_s: float) -> bool:
        """Whether there has been neither proxy nor supervisor for a while, so that no room will be made.

        A restart takes them away for a moment only. Asked while training waits, so it looks twice a second.
        """
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_S
            if self._has_graph():
                self._alone_since_s = None
            elif self._alone_since_s is None:
                self._alone_since_s = now_s
        return self._alone_since_s is not None and now_s - self._alone_since_s > ABANDONED_S

    def _has_graph(self) -> bool:
        directory = Path(self._endpoint.removeprefix("ipc://")).parent
        return is_endpoint_alive(self._endpoint) or is_role_alive(directory, SUPERVISOR)

    # ---- in the thread ----

    def turns(self) -> Iterator[bool]:
        """All of them, from the connection to the last ack. The socket is this generator's, and so the thread's."""
        context = take_context()
        try:
            with connect_dealer(context, self._endpoint, SOCKET_HWM, self._settings.transport) as socket:
                while not self._turn(socket, time.monotonic()):
                    yield self._has_more
                self._ended.set()
                socket.close(int(BYE_S * 1000))
        finally:
            if self._reader is not None:
                self._reader.close()
            give_back_context()

    def end(self) -> None:
        """Let `close` return, and nobody wait for room."""
        self._ended.set()

    def _turn(self, socket: Socket, now_s: float) -> bool:
        """True when it was the last one."""
        deadline_s = self._deadline_s  # set before our look at the journal, so that look is the last one needed
        if now_s >= self._next_listen_s:
            self._listen(socket, now_s)
        self._flush(socket, now_s)
        return deadline_s is not None and self._is_over(socket, deadline_s, now_s)

    def _is_over(self, socket: Socket, deadline_s: float, now_s: float) -> bool:
        if self._journal.acked_seq < self._journal.seq:
            return now_s > deadline_s
        send_frames(socket, [encode_control(StreamBye(stream=self._journal.info.stream))])
        return True

    def _listen(self, socket: Socket, now_s: float) -> None:
        """The proxy's word on our mode; its other answers only keep the connection's window open."""
        self._next_listen_s = now_s + LISTEN_S
        while has_message(socket) and (frames := receive_frames(socket)) is not None:
            with contextlib.suppress(WireError):
                message = decode_control(frames[0])
                if self._switch is not None and isinstance(message, StreamMode):
                    self._switch.want(message.mode)
        if self._switch is not None:
            self._switch.look()
            if self._switch.in_force != self._told_mode:
                self._next_hello_s = 0.0

    def _flush(self, socket: Socket, now_s: float) -> None:
        """Publish what is there and send it; what the socket does not take now is left to the journal."""
        journal = self._journal
        head = journal.head
        if head is None:  # the disk has been full from the start
            return
        seq = journal.seq
        is_new = seq != head.published
        if is_new:
            head.published = seq
        if now_s >= self._next_hello_s or self._told_schemas < len(journal.info.schemas):
            self._hello(socket, now_s)
        if is_new or self._has_more:
            self._has_more = False
            # The socket took no hello: rows of a shape nobody has heard of are better read from the journal. And far
            # behind, the proxy reads it by itself, at no cost to training.
            is_known = self._told_schemas >= len(journal.info.schemas)
            if is_known and seq - head.acked <= MAX_BEHIND_BATCHES * journal.wake_every:
                self._send(socket, seq)
        if is_new:
            journal.make_spare()

    def _send(self, socket: Socket, seq: int) -> None:
        batches = self._batches(seq)
        if batches:
            send_frames(socket, [encode_packed([batch.frames for batch in batches])])
            self._has_more = batches[-1].last_seq < seq

    def _hello(self, socket: Socket, now_s: float) -> None:
        info = self._journal.info  # read once: the session may announce a schema at any moment
        hello = StreamHello(
            info=info,
            oldest_seq=self._journal.acked_seq + 1,
            sent_seq=self._journal.seq,
            journal=str(self._journal.directory),
        )
        if send_frames(socket, [encode_control(hello)]):
            self._told_schemas = len(info.schemas)
            self._tell_mode(socket)
        self._next_hello_s = now_s + HELLO_S

    def _tell_mode(self, socket: Socket) -> None:
        """With each hello: a proxy may be new, and the word before may have been lost with its predecessor."""
        if self._switch is not None:
            mode = self._switch.in_force
            if send_frames(socket, [encode_control(StreamMode(stream=self._journal.info.stream, mode=mode))]):
                self._told_mode = mode

    def _batches(self, seq: int) -> list[Batch]:
        """New records up to `seq` as batches; with too many behind, the oldest are passed over."""
        found: list[Batch] = []
        size = 0
        try:
            reader = self._reader
            if reader is None:
                reader = self._reader = JournalReader(self._journal.directory)
                reader.seek(1)
            if seq - reader.next_seq > MAX_BEHIND_BATCHES * self._journal.wake_every:
                reader.seek_newest()
            while reader.next_seq <= seq and len(found) < MAX_PACKED_BATCHES and size < MAX_PACKED_BYTES:
                # All that is there, not only what woke us: a busy worker's batches are large, and hops pay by batch.
                batch = reader.read(seq, time.time_ns(), MAX_BATCH_RECORDS)
                if batch is None:
                    break
                found.append(batch)
                size += batch.size_bytes
        except (JournalError, OSError):  # the proxy was quicker, and has deleted what we stood in
            if self._reader is not None:
                self._reader.close()
            self._reader = None
            with contextlib.suppress(JournalError, OSError):
                self._reader = _newest(self._journal.directory)
        return found


def _newest(directory: Path) -> JournalReader:
    reader = JournalReader(directory)
    reader.seek_newest()
    return reader


os.register_at_fork(after_in_child=_THREAD.forget)
