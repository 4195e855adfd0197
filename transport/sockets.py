"""The few socket kinds we use, each made with linger, high-water marks, heartbeat and size limit set.

One thread owns each socket. ZeroMQ's high-water mark is a window here, never the QoS policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from runlane.config import log_ids
from runlane.config.errors import EndpointError, WireError
from runlane.config.settings import TransportSettings
from runlane.transport.endpoint import unlink_socket
from runlane.transport.keys import apply_client_keys, apply_server_keys, stop_authenticator
from runlane.transport.log import log_event
from runlane.transport.messages import ControlMessage
from runlane.transport.wire import MAX_BODY_BYTES, Frame, decode_control, encode_control

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

HEARTBEAT_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 5_000
RECONNECT_MS = 20
# ZeroMQ cuts a peer that exceeds this. Our own limit lies below, so that what exceeds it can be counted.
MAX_FRAME_BYTES = 4 * MAX_BODY_BYTES
# Announcements share a subscriber's pipe with the deliveries that its window counts.
ANNOUNCE_SLACK = 16
RECONNECT_MAX_MS = 200
# Plain integers: to combine two flags of zmq's, once per frame, takes longer than the rest of a small frame's way.
_NOW = int(zmq.NOBLOCK)
_NOW_AND_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)
# Frames above this are passed on without a copy. ZeroMQ cuts smaller ones out of a buffer of so many bytes, all of
# which a few of them, waiting in a queue, would hold in memory.
_BY_REFERENCE_BYTES = 8_192


@dataclass(slots=True)
class Rejections:
    """Count of frames refused, by the short reason of their `WireError`."""

    by_reason: dict[str, int]

    def reject(self, error: WireError, place: str) -> None:
        """Count a refused frame, and log it at powers of two: a flood of garbage must not flood the log."""
        count = self.count(error)
        if count & (count - 1) == 0:
            log_event(log_ids.WIRE_REJECTED, place=place, reason=error.reason, count=count, detail=error.detail[:120])

    def count(self, error: WireError) -> int:
        """Add one and return how many of this reason there are."""
        self.by_reason[error.reason] = self.by_reason.get(error.reason, 0) + 1
        return self.by_reason[error.reason]

    @property
    def total(self) -> int:
        """All refused frames."""
        return sum(self.by_reason.values())


def _make(context: Context, kind: int, socket_hwm: int) -> Socket:
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, socket_hwm)
    socket.setsockopt(zmq.RCVHWM, socket_hwm)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    return socket


def bind_router(context: Context, endpoint: str, socket_hwm: int, transport: TransportSettings) -> Socket:
    """A ROUTER that many DEALERs talk to. A peer that comes back under its old id takes its place."""
    socket = _make(context, zmq.ROUTER, socket_hwm)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return _bind(socket, endpoint, transport)


def connect_dealer(context: Context, endpoint: str, socket_hwm: int, transport: TransportSettings) -> Socket:
    """A DEALER that never hoards for a peer that is not there: unsent stays with the caller."""
    socket = _make(context, zmq.DEALER, socket_hwm)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    return _connect(socket, endpoint, transport)


def bind_xpub(context: Context, endpoint: str, window: int, transport: TransportSettings) -> Socket:
    """One subscriber's egress: refuses instead of dropping, and lets us see the subscription come and go."""
    socket = _make(context, zmq.XPUB, window + ANNOUNCE_SLACK)
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    return _bind(socket, endpoint, transport)


def connect_xsub(context: Context, endpoint: str, window: int, transport: TransportSettings) -> Socket:
    """The other end: subscribes to all its XPUB sends (the router filters) and echoes upstream."""
    socket = _make(context, zmq.XSUB, window + ANNOUNCE_SLACK)
    _connect(socket, endpoint, transport)
    socket.send(b"\x01")
    return socket


def _bind(socket: Socket, endpoint: str, transport: TransportSettings) -> Socket:
    try:
        unlink_socket(endpoint)
        if endpoint.startswith("tcp://"):
            apply_server_keys(socket, transport)
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise EndpointError(f"cannot bind {endpoint}: {error.strerror}; is another graph running there?") from None
    except BaseException:  # an open socket would keep its context from ending
        socket.close(0)
        raise
    return socket


def _connect(socket: Socket, endpoint: str, transport: TransportSettings) -> Socket:
    try:
        if endpoint.startswith("tcp://"):
            apply_client_keys(socket, transport)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise EndpointError(f"cannot connect to {endpoint}: {error.strerror}") from None
    except BaseException:
        socket.close(0)
        raise
    return socket


def bound_endpoint(socket: Socket) -> str:
    """The endpoint a socket was bound to, with the port the system chose."""
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT))


def send_control(socket: Socket, message: ControlMessage, identity: bytes | None = None) -> bool:
    """Send without waiting; False when the peer is not there or its window is full."""
    frames = [encode_control(message)] if identity is None else [identity, encode_control(message)]
    return send_frames(socket, frames)


def send_frames(socket: Socket, frames: Sequence[Frame]) -> bool:
    """Send a message without waiting; False when the peer is not there or its window is full.

    Of three frames and 46 KB: 14 µs of CPU, where `send_multipart` takes 21. A frame that came from `receive_batch`
    goes on without a copy.
    """
    *before, last = frames
    try:
        for frame in before:
            _send(socket, frame, _NOW_AND_MORE)
        _send(socket, last, _NOW)
    except zmq.Again:
        return False
    return True


def _send(socket: Socket, frame: Frame, flags: int) -> None:
    if isinstance(frame, memoryview) and isinstance(frame.obj, zmq.Frame) and frame.nbytes == len(frame.obj):
        socket.send(frame.obj, flags, copy=False)
    else:
        socket.send(frame, flags)


def receive_frames(socket: Socket) -> list[bytes] | None:
    """All frames of the next message, or None when there is none now."""
    frames = _receive(socket)
    return None if frames is None else [frame.bytes for frame in frames]


def has_message(socket: Socket) -> bool:
    """Whether one has arrived. A third of what it costs to receive none, and keeps the interpreter's lock."""
    return bool(int(socket.getsockopt(_EVENTS)) & _READABLE)


def receive_batch(socket: Socket) -> list[Frame] | None:
    """As `receive_frames`, but of large frames only a view, which `send_frames` passes on without a copy."""
    frames = _receive(socket)
    if frames is None:
        return None
    return [frame.bytes if len(frame) <= _BY_REFERENCE_BYTES else frame.buffer.toreadonly() for frame in frames]


def _receive(socket: Socket) -> list[zmq.Frame] | None:
    """Each frame knows whether more follow; `recv_multipart` asks the socket, 3 µs each time."""
    try:
        frame = socket.recv(_NOW, copy=False)
    except zmq.Again:
        return None
    frames = [frame]
    while frame.more:
        frame = socket.recv(_NOW, copy=False)
        frames.append(frame)
    return frames


def request(socket: Socket, message: ControlMessage, timeout_s: float) -> ControlMessage | None:
    """Send a control message over a DEALER and wait for one answer; None when none came in time."""
    socket.setsockopt(zmq.SNDTIMEO, int(timeout_s * 1000))
    socket.setsockopt(zmq.RCVTIMEO, int(timeout_s * 1000))
    try:
        socket.send(encode_control(message))
        return decode_control(socket.recv())
    except zmq.Again:
        return None


def terminate(context: Context) -> None:
    """End a context whose sockets are closed. Its ZAP answerer, if it has one, must go first."""
    stop_authenticator(context)
    context.term()


def poll_events(poller: zmq.Poller, timeout_s: float) -> dict[Any, int]:
    """Sockets and descriptors that are ready, after at most `timeout_s`."""
    return dict(poller.poll(max(0, int(timeout_s * 1000))))
