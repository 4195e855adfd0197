"""Outbox: what a training process has sealed and not yet seen committed, and the thread that sends it.

The training thread only hands over sealed batches; encoding, sending, acks and resends happen here. Bounded
by bytes. The thread is a daemon: it can delay nothing but `close`, and that only up to its deadline.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from runlane.config import log_ids
from runlane.config.errors import WireError
from runlane.config.names import SUPERVISOR
from runlane.config.settings import Settings
from runlane.transport.ack import AckWindow, Batch
from runlane.transport.endpoint import is_endpoint_alive, is_role_alive
from runlane.transport.log import log_event
from runlane.transport.messages import StreamAck, StreamInfo, StreamNack, StreamWelcome
from runlane.transport.records import Record
from runlane.transport.sockets import Context, Rejections, connect_dealer, poll_events, receive_frames
from runlane.transport.stream_sender import StreamSender
from runlane.transport.wire import KIND_NUMBER, STEP, Frame, Section, decode_control, encode_header, pack

SOCKET_HWM = 64
BYE_S = 0.2
LOOK_S = 0.5
ABANDONED_S = 5.0


class Sealed(NamedTuple):
    """A batch whose content is final, not yet encoded. `rows` step rows lie packed in `step_body`."""

    first_seq: int
    record_count: int
    closed_ns: int
    schema_id: int
    rows: int
    step_body: bytes
    records: dict[str, list[Record]]


def encode(stream: bytes, sealed: Sealed) -> Batch:
    """Encode a sealed batch, once: what is sent is also what is stored and what is resent."""
    sections: list[Section] = []
    bodies: list[bytes] = []
    if sealed.rows:
        sections.append(Section(STEP, sealed.schema_id, sealed.rows, len(sealed.step_body)))
        bodies.append(sealed.step_body)
    for kind, rows in sealed.records.items():
        body = pack([msgspec.structs.astuple(row) for row in rows])
        sections.append(Section(KIND_NUMBER[kind], 0, len(rows), len(body)))
        bodies.append(body)
    head = encode_header(stream, sealed.first_seq, sealed.record_count, sealed.closed_ns, sections)
    last_seq = sealed.first_seq + sealed.record_count - 1
    return Batch(sealed.first_seq, last_seq, (head, *bodies), len(head) + sum(map(len, bodies)))


class Outbox:
    """Sealed batches in, committed acks back. One instance per stream."""

    def __init__(
        self,
        info: StreamInfo,
        endpoint: str,
        settings: Settings,
        on_tick: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        """`on_tick` is called every `batch_age_ms`, so the owner can seal; `on_room` after acks freed memory."""
        self.stream = bytes.fromhex(info.stream)
        self.window = AckWindow(settings.session.outbox_bytes)
        self.sender = StreamSender(info, self.window, self._send)
        self.rejections = Rejections({})
        self._endpoint = endpoint
        self._settings = settings
        self._on_tick = on_tick
        self._on_room = on_room
        # Filled by the owner under its lock, emptied by the thread: both ends of a deque need no lock.
        self.sealed: deque[Sealed] = deque()
        self._deadline_s: float | None = None
        self._next_look_s = 0.0
        self._alone_since_s: float | None = None
        self._ended = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._thread = threading.Thread(target=self._run, name=f"runlane-outbox-{info.worker}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def announce(self, info: StreamInfo) -> None:
        """The stream has new step schemas; takes effect before the next batch is sent."""
        self.sender.info = info

    @property
    def is_full(self) -> bool:
        """Whether no further batch may be put."""
        return self.held_bytes >= self.window.max_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes put and not yet committed."""
        return self.window.size_bytes + sum(len(sealed.step_body) for sealed in list(self.sealed))

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

    @property
    def has_ended(self) -> bool:
        """Whether the thread is over, so that nothing will be sent any more."""
        return self._ended.is_set()

    @property
    def pending_records(self) -> int:
        """Records put and not yet committed."""
        return self.window.pending_records + sum(sealed.record_count for sealed in list(self.sealed))

    def close(self, deadline_s: float) -> bool:
        """Send the rest and wait for its acks at most until `deadline_s` (monotonic); True when all is acked."""
        self._deadline_s = deadline_s
        self.wake()
        self._ended.wait(max(0.0, deadline_s - time.monotonic()) + 1.0)
        return not self.pending_records

    def wake(self) -> None:
        """Let the thread look at `sealed` now."""
        try:
            os.write(self._wake_write, b"!")
        except (BlockingIOError, OSError):  # full: the thread is about to look anyway; closed: it has ended
            return

    # ---- the thread ----

    def _run(self) -> None:
        context: Context = zmq.Context()
        try:
            with connect_dealer(context, self._endpoint, SOCKET_HWM, self._settings.transport) as self._socket:
                self._work()
                self._ended.set()
                self._socket.close(int(BYE_S * 1000))
        except Exception as error:  # whatever it is: training goes on, without us
            log_event(log_ids.WORKER_FAULT, where="outbox", error=f"{type(error).__name__}: {error}", count=1)
        finally:
            self._ended.set()
            context.term()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        tick_s = self._settings.session.batch_age_ms / 1000
        next_tick_s = time.monotonic() + tick_s
        while not self._is_over():
            if self._wake_read in poll_events(poller, max(0.001, next_tick_s - time.monotonic())):
                os.read(self._wake_read, 4096)
            if time.monotonic() >= next_tick_s:
                self._on_tick()
                next_tick_s = time.monotonic() + tick_s
            self._turn()

    def _turn(self) -> None:
        before = self.window.oldest_seq
        self._read_answers()
        while self.sealed:
            sealed = self.sealed[0]
            self.window.append(encode(self.stream, sealed))
            self.sealed.popleft()
        self.sender.pump(time.monotonic())
        if self.window.oldest_seq != before:
            self._on_room()

    def _is_over(self) -> bool:
        if self._deadline_s is None:
            return False
        if not self.sealed and not self.window.pending_records:
            # All is committed. The goodbye only spares the proxy a look at our pid, so it is not waited for long.
            self._deadline_s = min(self._deadline_s, time.monotonic() + BYE_S)
            if self.sender.say_bye():
                return True
        return time.monotonic() > self._deadline_s

    def _send(self, frames: Sequence[Frame]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _read_answers(self) -> None:
        while (frames := receive_frames(self._socket)) is not None:
            try:
                message = decode_control(frames[0])
                if not isinstance(message, StreamAck | StreamNack | StreamWelcome):
                    raise WireError("unexpected", type(message).__name__)
            except WireError as error:
                self.rejections.count(error)
                continue
            if message.stream == self.sender.info.stream:
                self.sender.on_message(message, time.monotonic())
