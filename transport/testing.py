"""Fakes of the boundaries in this folder, for tests alone: running code never imports this file.

`FakeClock` moves by hand, `FakeSend` stands for a socket. `FakeSource`, `FakeSubscriber`, `FakeReceiver` and
`FakeProxy` are the far ends of real sockets, moved by hand too, so that a test decides what arrives, when, and in
what shape.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from runlane.config.names import CONTROL_SOCKET, KINDS
from runlane.config.settings import QueuePolicy, Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.ack import Batch, IngressGate, Verdict
from runlane.transport.endpoint import endpoint_of, unlink_socket
from runlane.transport.identity import new_stream_id
from runlane.transport.journal_head import JournalHead
from runlane.transport.messages import (
    ControlMessage,
    StepField,
    StepSchema,
    StreamAck,
    StreamBye,
    StreamHello,
    StreamInfo,
    StreamMode,
    StreamNack,
    StreamWelcome,
    SubscriberHello,
    SubscriberWelcome,
)
from runlane.transport.sockets import (
    Context,
    Socket,
    bind_router,
    connect_dealer,
    connect_xsub,
    receive_frames,
    send_control,
)
from runlane.transport.wire import (
    KIND_NUMBER,
    BatchHeader,
    Delivery,
    Frame,
    Section,
    decode_control,
    decode_delivery,
    decode_header,
    decode_packed,
    encode_control,
    encode_echo,
    encode_header,
    is_control,
)

DEADLINE_S = 10.0
SEQ_ONLY = StepSchema(schema_id=0, fields=[StepField("seq", "<u8")])


def until(is_met: Callable[[], bool], *turns: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Take turns until the condition is met; raises `TimeoutError` at the deadline. Each turn waits a little."""
    end_s = time.monotonic() + deadline_s
    while not is_met():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not met within {deadline_s} s")
        for turn in turns:
            turn()


# ---- time and values -------------------------------------------------------------------------------------


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_s: float = 1_000.0, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        """Any start will do: only differences mean anything."""
        self._now_s = now_s
        self._wall_ns = wall_ns

    def monotonic_s(self) -> float:
        """Seconds, as moved."""
        return self._now_s

    def wall_ns(self) -> int:
        """Nanoseconds, as moved."""
        return self._wall_ns

    def move(self, seconds: float) -> None:
        """Let both times pass."""
        self._now_s += seconds
        self._wall_ns += int(seconds * 1e9)


def make_info(worker: str = "worker", pid: int = 1, schemas: Sequence[StepSchema] = (SEQ_ONLY,)) -> StreamInfo:
    """A stream nobody else has. Its step rows hold their seq and nothing more."""
    return StreamInfo(
        stream=new_stream_id(), run="run", worker=worker, host="host", pid=pid, started_ns=1, schemas=list(schemas)
    )


def make_batch(info: StreamInfo, first_seq: int, **records: int) -> Batch:
    """A batch with so many records of each kind. A section's body is the seqs of its records, 8 bytes each."""
    sections: list[Section] = []
    bodies: list[bytes] = []
    seq = first_seq
    for kind, count in records.items():
        bodies.append(struct.pack(f"<{count}Q", *range(seq, seq + count)))
        sections.append(Section(KIND_NUMBER[kind], 0, count, len(bodies[-1])))
        seq += count
    head = encode_header(bytes.fromhex(info.stream), first_seq, seq - first_seq, 0, sections)
    return Batch(first_seq, seq - 1, (head, *bodies), len(head) + sum(map(len, bodies)))


def seqs_of(*bodies: Frame | None) -> list[int]:
    """Seqs in bodies that `make_batch` made."""
    return [seq for body in bodies if body is not None for (seq,) in struct.iter_unpack("<Q", body)]


class FakeSend:
    """The `send` of a `StreamSender`, in memory. Takes messages while there is `room`, as a socket does."""

    def __init__(self, room: int = 1 << 30) -> None:
        """`room` 0 is a peer that is not there."""
        self.room = room
        self.said: list[ControlMessage | BatchHeader] = []

    def __call__(self, frames: Sequence[Frame]) -> bool:
        """Take one message, or refuse it."""
        if self.room <= 0:
            return False
        self.room -= 1
        self.said.append(decode_control(frames[0]) if is_control(frames[0]) else decode_header(frames[0]))
        return True

    def take(self) -> list[ControlMessage | BatchHeader]:
        """What was said since the last call."""
        said, self.said = self.said, []
        return said


# ---- far ends of real sockets ----------------------------------------------------------------------------


class _FarEnd:
    """Owns a context and closes all of it."""

    def __init__(self) -> None:
        self.context: Context = zmq.Context()

    def close(self) -> None:
        """Close every socket at once."""
        self.context.destroy(linger=0)


class FakeSource(_FarEnd):
    """Sender of one stream on a DEALER: says what the test tells it to, keeps what it hears."""

    def __init__(self, settings: Settings, endpoint: str, info: StreamInfo) -> None:
        """Connecting waits for nothing; the first send waits until somebody is there."""
        super().__init__()
        self.info = info
        self.heard: list[ControlMessage] = []
        self.socket: Socket = connect_dealer(self.context, endpoint, 100, settings.transport)
        self.socket.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1000))

    def hello(self, oldest_seq: int = 1, sent_seq: int = 0) -> None:
        """Introduce the stream."""
        self.say(StreamHello(info=self.info, oldest_seq=oldest_seq, sent_seq=sent_seq))

    def bye(self) -> None:
        """End the stream."""
        self.say(StreamBye(stream=self.info.stream))

    def say(self, message: ControlMessage) -> None:
        """Send one control message."""
        self.socket.send(encode_control(message))

    def send(self, *frames: Frame) -> None:
        """Send any frames: a batch's, or garbage."""
        self.socket.send_multipart(frames)

    def listen(self) -> None:
        """Keep what was answered meanwhile."""
        while (frames := receive_frames(self.socket)) is not None:
            self.heard.append(decode_control(frames[0]))

    @property
    def acked_seq(self) -> int:
        """The newest ack heard, 0 before any."""
        return max((message.seq for message in self.heard if isinstance(message, StreamAck)), default=0)


class FakeSubscriber(_FarEnd):
    """A subscriber's two sockets. Echoes only what the test tells it to, so it can be slow, dead or wrong."""

    def __init__(self, settings: Settings, name: str, instance: str = "1") -> None:
        """Another `instance` is another process of the same name."""
        super().__init__()
        self.name = name
        self.instance = instance
        self.heard: list[ControlMessage] = []
        self.deliveries: list[Delivery] = []
        self.announced: list[ControlMessage] = []
        self.data: Socket | None = None
        self._settings = settings
        self.control: Socket = connect_dealer(
            self.context, endpoint_of(settings, CONTROL_SOCKET), 8, settings.transport
        )
        self.control.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1000))

    def hello(self, policy: QueuePolicy | None = None, kinds: Sequence[str] = KINDS, window: int = 16) -> None:
        """Ask to join."""
        self.say(
            SubscriberHello(name=self.name, instance=self.instance, kinds=list(kinds), policy=policy, window=window)
        )

    def say(self, message: ControlMessage) -> None:
        """Send one control message."""
        self.control.send(encode_control(message))

    def listen(self) -> None:
        """Keep answers and deliveries that are there; a welcome connects the data socket."""
        while (frames := receive_frames(self.control)) is not None:
            message = decode_control(frames[0])
            self.heard.append(message)
            if isinstance(message, SubscriberWelcome):
                self.data = connect_xsub(self.context, message.endpoint, message.window, self._settings.transport)
        while self.data is not None and (frames := receive_frames(self.data)) is not None:
            if is_control(frames[0]):
                self.announced.append(decode_control(frames[0]))
            else:
                self.deliveries.append(decode_delivery(frames))

    def echo(self, number: int | None = None) -> None:
        """Consumed, or committed, up to this number; by default all that was delivered."""
        self.send(encode_echo(self.deliveries[-1].number if number is None else number))

    def send(self, *frames: Frame) -> None:
        """Send any frames upstream."""
        if self.data is not None:
            self.data.send_multipart(frames)

    @property
    def is_welcome(self) -> bool:
        """Whether the router has let it in."""
        return self.data is not None

    @property
    def seqs(self) -> list[int]:
        """Seqs of all records delivered so far."""
        return [seq for delivery in self.deliveries for seq in seqs_of(*delivery.bodies)]


class FakeReceiver(_FarEnd):
    """Receiver of any number of streams on a ROUTER: welcomes them, keeps what is new, acks while `is_acking`."""

    def __init__(self, settings: Settings, endpoint: str, *, is_acking: bool = True) -> None:
        """Binds at once."""
        super().__init__()
        self.is_acking = is_acking
        self.infos: dict[str, StreamInfo] = {}
        self.batches: dict[str, list[tuple[BatchHeader, list[bytes]]]] = {}
        self.ended: set[str] = set()
        self.largest_body = 0
        self._gates: dict[str, IngressGate] = {}
        self._peers: set[bytes] = set()
        self._outgoing: deque[Frame] = deque()
        self._endpoint = endpoint
        self.socket: Socket = bind_router(self.context, endpoint, 1000, settings.transport)

    def turn(self) -> None:
        """Wait a moment for a message, then take in all that are there."""
        while self._outgoing:
            frame = self._outgoing.popleft()
            for peer in self._peers:
                self.socket.send_multipart([peer, frame])
        if not self.socket.poll(5):
            return
        while (frames := receive_frames(self.socket)) is not None:
            self._peers.add(frames[0])
            if is_control(frames[1]):
                self._on_control(frames[0], decode_control(frames[1]))
            else:
                self._on_batch(frames[0], decode_header(frames[1]), frames[2:])

    def send_to_all(self, frame: Frame) -> None:
        """Send a frame, perhaps garbage, to every sender, at the next turn: the socket is that thread's."""
        self._outgoing.append(frame)

    def close(self) -> None:
        """Close and remove the socket's file."""
        super().close()
        unlink_socket(self._endpoint)

    def _on_control(self, peer: bytes, message: ControlMessage) -> None:
        if isinstance(message, StreamHello):
            stream = message.info.stream
            self.infos[stream] = message.info
            gate = self._gates.setdefault(stream, IngressGate(message.oldest_seq))
            welcome = StreamWelcome(
                stream=stream, receiver="fake", expected_seq=gate.expected_seq, sent_seq=message.sent_seq
            )
            send_control(self.socket, welcome, peer)
            self._ack(peer, stream)
        elif isinstance(message, StreamBye):
            self.ended.add(message.stream)

    def _on_batch(self, peer: bytes, header: BatchHeader, bodies: list[bytes]) -> None:
        stream = header.stream.hex()
        gate = self._gates.get(stream)
        if gate is None:
            send_control(self.socket, StreamNack(stream=stream, expected_seq=0), peer)
        elif gate.accept(header.first_seq, header.last_seq) is Verdict.NEW:
            self.batches.setdefault(stream, []).append((header, bodies))
            self.largest_body = max(self.largest_body, *map(len, bodies))
        if gate is not None:
            self._ack(peer, stream)

    def _ack(self, peer: bytes, stream: str) -> None:
        if self.is_acking:
            send_control(self.socket, StreamAck(stream=stream, seq=self._gates[stream].expected_seq - 1), peer)


class FakeProxy(_FarEnd):
    """A proxy as workers see it: welcomes streams, keeps the live batches that come, acks in the journals' heads.

    Removes nothing, so that a test can read a journal from its first record on.
    """

    def __init__(self, settings: Settings, endpoint: str, *, is_acking: bool = True) -> None:
        """Binds at once."""
        super().__init__()
        self.is_acking = is_acking
        self.infos: dict[str, StreamInfo] = {}
        self.journals: dict[str, Path] = {}
        self.batches: dict[str, list[tuple[BatchHeader, list[bytes]]]] = {}
        self.ended: set[str] = set()
        self.modes: dict[str, TelemetryMode] = {}
        self.frames = 0
        self._heads: dict[str, JournalHead] = {}
        self._outgoing: deque[Frame] = deque()
        self._peers: set[bytes] = set()
        self._endpoint = endpoint
        self.socket: Socket = bind_router(self.context, endpoint, 1000, settings.transport)

    def turn(self) -> None:
        """Wait a moment for a message, take in all that are there, ack what is published."""
        while self._outgoing:
            frame = self._outgoing.popleft()
            for peer in self._peers:
                self.socket.send_multipart([peer, frame])
        if self.socket.poll(2):
            while (frames := receive_frames(self.socket)) is not None:
                self._on_frames(*frames)
        for head in self._heads.values():
            if self.is_acking and head.acked < head.published:
                head.acked = head.published

    def _on_frames(self, peer: bytes, frame: bytes) -> None:
        self._peers.add(peer)
        if is_control(frame):
            self._on_control(peer, decode_control(frame))
            return
        self.frames += 1
        for header, frames in decode_packed(frame):
            self.batches.setdefault(header.stream.hex(), []).append((header, [bytes(body) for body in frames[1:]]))

    def _on_control(self, peer: bytes, message: ControlMessage) -> None:
        if isinstance(message, StreamHello):
            stream = message.info.stream
            self.journals[stream] = Path(message.journal)
            if stream not in self._heads:
                self._heads[stream] = JournalHead.open(self.journals[stream])
            self.infos[stream] = message.info  # the last one, because it is what others wait for
            welcome = StreamWelcome(
                stream=stream, receiver="fake", expected_seq=message.sent_seq + 1, sent_seq=message.sent_seq
            )
            send_control(self.socket, welcome, peer)
        elif isinstance(message, StreamMode):
            self.modes[message.stream] = message.mode
        elif isinstance(message, StreamBye):
            self.ended.add(message.stream)

    def ack(self, stream: str, seq: int) -> None:
        """Commit a stream up to `seq`, whatever `is_acking` says."""
        self._heads[stream].acked = seq

    def send_to_all(self, frame: Frame) -> None:
        """Send a frame, perhaps garbage, to every worker, at the next turn: the socket is that thread's."""
        self._outgoing.append(frame)

    def close(self) -> None:
        """Close and remove the socket's file."""
        for head in self._heads.values():
            head.close()
        super().close()
        unlink_socket(self._endpoint)
