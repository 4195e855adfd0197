"""Flusher: the thread that sends a journal's new records to the proxy, as they lie in the journal.

What it sends may be lost without harm: the proxy finds the gap and reads the journal itself. So nothing waits here
for an answer, and training never waits for this thread. It publishes how far the journal may be read, sends, makes
the next segment ahead of its time, and at the end watches the acks up to the deadline of `close`.
"""

import contextlib
import threading
import time
from pathlib import Path

from runlane.config import log_ids
from runlane.config.errors import JournalError, WireError
from runlane.config.names import SUPERVISOR
from runlane.config.settings import MAX_BATCH_RECORDS, Settings
from runlane.transport.ack import Batch
from runlane.transport.endpoint import is_endpoint_alive, is_role_alive
from runlane.transport.journal_reader import JournalReader
from runlane.transport.log import log_event
from runlane.transport.messages import StreamBye, StreamHello, StreamMode
from runlane.transport.sockets import Socket, connect_dealer, receive_frames, send_frames
from runlane.transport.wire import decode_control, encode_control, encode_packed
from runlane.workers.journal_writer import JournalWriter
from runlane.workers.mode_switch import ModeSwitch
from runlane.workers.shared_context import give_back_context, take_context

SOCKET_HWM = 16
HELLO_S = 0.5
LISTEN_S = 0.05  # a look costs the training thread its turn with the interpreter
BYE_S = 0.2
LOOK_S = 0.5
ABANDONED_S = 5.0
ACK_LOOK_S = 0.002
# One frame to the proxy; what is further behind than a few of them the proxy reads by itself.
MAX_PACKED_BATCHES = 64
MAX_PACKED_BYTES = 4 << 20
MAX_BEHIND_BATCHES = 64


class Flusher:
    """One stream's thread. Reads `journal.seq` and the files; writes the head's `published` word."""

    def __init__(
        self, journal: JournalWriter, endpoint: str, settings: Settings, switch: ModeSwitch | None = None
    ) -> None:
        """Nothing runs before `start`. What the proxy asks for goes to `switch`."""
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
        self._ended = threading.Event()
        # Held while there is nothing to do. A lock, not a pipe: writing into one lets other threads run in the middle
        # of a turn, where they can only wait (in a tight loop for seconds); and a pipe's number may be another's later.
        self._idle = threading.Lock()
        self._idle.acquire()
        self._thread = threading.Thread(target=self._run, name=f"runlane-flusher-{journal.info.worker}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """A batch is full: look now."""
        with contextlib.suppress(RuntimeError):  # not held: the thread is about to look anyway
            self._idle.release()

    def close(self, deadline_s: float) -> None:
        """Send the rest and watch its acks, at most until `deadline_s` (monotonic)."""
        self._deadline_s = deadline_s
        self.wake()
        self._ended.wait(max(0.0, deadline_s - time.monotonic()) + 1.0)

    @property
    def has_ended(self) -> bool:
        """Whether the thread is over, so that nothing will be published any more."""
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

    # ---- the thread ----

    def _run(self) -> None:
        context = take_context()
        try:
            with connect_dealer(context, self._endpoint, SOCKET_HWM, self._settings.transport) as socket:
                self._work(socket)
                self._ended.set()
                socket.close(int(BYE_S * 1000))
        except Exception as error:  # whatever it is: training goes on; the proxy reads the journal once we are gone
            log_event(log_ids.WORKER_FAULT, where="flusher", error=f"{type(error).__name__}: {error}", count=1)
        finally:
            self._ended.set()
            if self._reader is not None:
                self._reader.close()
            give_back_context()

    def _work(self, socket: Socket) -> None:
        age_s = self._settings.session.batch_age_ms / 1000
        while True:
            deadline_s = self._deadline_s  # set before our look at the journal, so that look is the last one needed
            self._listen(socket)
            self._flush(socket)
            self._journal.make_spare()
            if deadline_s is not None and self._is_over(socket, deadline_s):
                return
            self._idle.acquire(timeout=age_s if deadline_s is None else ACK_LOOK_S)

    def _is_over(self, socket: Socket, deadline_s: float) -> bool:
        if self._journal.acked_seq < self._journal.seq:
            return time.monotonic() > deadline_s
        send_frames(socket, [encode_control(StreamBye(stream=self._journal.info.stream))])
        return True

    def _listen(self, socket: Socket) -> None:
        """The proxy's word on our mode; its other answers only keep the connection's window open."""
        now_s = time.monotonic()
        if now_s < self._next_listen_s:
            return
        self._next_listen_s = now_s + LISTEN_S
        while (frames := receive_frames(socket)) is not None:
            with contextlib.suppress(WireError):
                message = decode_control(frames[0])
                if self._switch is not None and isinstance(message, StreamMode):
                    self._switch.want(message.mode)
        if self._switch is not None:
            self._switch.look()
            if self._switch.in_force != self._told_mode:
                self._next_hello_s = 0.0

    def _flush(self, socket: Socket) -> None:
        """Publish what is there and send it; what the socket does not take now is left to the journal."""
        head = self._journal.head
        if head is None:  # the disk has been full from the start
            return
        seq = self._journal.seq
        is_new = seq != head.published
        head.published = seq
        now_s = time.monotonic()
        if now_s >= self._next_hello_s or self._told_schemas < len(self._journal.info.schemas):
            self._hello(socket, now_s)
        if self._told_schemas < len(self._journal.info.schemas):
            return  # the socket took no hello: rows of a shape nobody has heard of are better read from the journal
        # Far behind, the proxy reads the journal by itself, at no cost to training.
        if is_new and seq - head.acked <= MAX_BEHIND_BATCHES * self._journal.wake_every:
            batches = self._batches(seq)
            if batches:
                send_frames(socket, [encode_packed([batch.frames for batch in batches])])

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
            while len(found) < MAX_PACKED_BATCHES and size < MAX_PACKED_BYTES:
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
