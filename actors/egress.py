"""Egress: one XPUB per subscriber process, its lease, and the pump from its queue. Owned by the router.

A new hello always gets a new socket at a new endpoint, so echoes and batches meant for a dead process can
never meet its successor.
"""

import time

from runlane.actors.run_bus import RunBus, Subscriber
from runlane.config.errors import WireError
from runlane.config.settings import Settings
from runlane.transport.endpoint import ipc_endpoint, unlink_socket
from runlane.transport.messages import ControlMessage, StreamInfo, StreamOpened
from runlane.transport.sockets import (
    Context,
    Socket,
    bind_xpub,
    bound_endpoint,
    receive_frames,
    send_control,
    send_frames,
)
from runlane.transport.wire import decode_echo, encode_delivery_prefix

RETRY_S = 0.005
_SUBSCRIBED = 1
_UNSUBSCRIBED = 0


class Egress:
    """The way to one subscriber process: socket, liveness, deliveries out, echoes in."""

    def __init__(self, context: Context, settings: Settings, subscriber: Subscriber, serial: int, now_s: float) -> None:
        """Bind a fresh socket for the subscriber's current process."""
        wanted = (
            f"tcp://{settings.transport.host}:*"
            if settings.transport.kind == "tcp"
            else ipc_endpoint(settings, f"router+{subscriber.name}-{serial}")
        )
        self.subscriber = subscriber
        self.socket: Socket = bind_xpub(context, wanted, subscriber.queue.window, settings.transport)
        self.endpoint = bound_endpoint(self.socket)
        self.lease_at_s = now_s
        self.moved_at_s = now_s  # when it last echoed, or had nothing to echo
        self.is_gone = False

    def is_stalled(self, now_s: float, patience_s: float) -> bool:
        """Whether its process is connected and takes nothing: stopped, asleep, or busy with something else."""
        queue = self.subscriber.queue
        if not queue.in_flight_batches:
            self.moved_at_s = now_s
        is_idle = now_s - self.moved_at_s > patience_s
        return self.subscriber.is_live and (is_idle or now_s - self.lease_at_s > patience_s)

    def receive(self, bus: RunBus, now_s: float) -> tuple[set[bytes], list[WireError]]:
        """Read subscriptions and echoes; returns the streams whose ack may move, and what was refused."""
        moved: set[bytes] = set()
        refused: list[WireError] = []
        while (frames := receive_frames(self.socket)) is not None:
            frame = frames[0]
            if len(frames) == 1 and frame[:1] in (b"\x00", b"\x01"):
                self._on_subscription(frame[0])
                continue
            try:
                if len(frames) != 1:
                    raise WireError("frames", f"{len(frames)} in an echo")
                moved |= bus.on_echo(self.subscriber, decode_echo(frame), now_s)
                self.moved_at_s = now_s
            except WireError as error:
                refused.append(error)
        return moved, refused

    def _on_subscription(self, mark: int) -> None:
        # A connection that broke and came back by itself has lost what was on its way, so it is not used again: the
        # next lease is refused, and a hello makes a new one.
        self.is_gone = self.is_gone or mark == _UNSUBSCRIBED
        self.subscriber.is_live = mark == _SUBSCRIBED and not self.is_gone

    def pump(self, streams: dict[bytes, StreamInfo], now_s: float) -> int:
        """Send what the window allows; returns how many deliveries went out."""
        subscriber = self.subscriber
        queue = subscriber.queue
        queue.expire(now_s)
        sent = 0
        while subscriber.is_live and queue.can_send:
            entry = queue.peek()
            info = streams.get(entry.stream)
            if info is not None and not self._tell(entry.stream, info):
                break
            prefix = encode_delivery_prefix(queue.next_number, entry.section_bits)
            if not send_frames(self.socket, [prefix, *entry.frames]):
                break
            queue.mark_sent()
            sent += 1
        return sent

    def _tell(self, stream: bytes, info: StreamInfo) -> bool:
        """Announce a stream that is new or has changed; False when the pipe is full."""
        known = self.subscriber.told_infos.get(stream)
        if known is info:
            return True
        if known != info and not self.send_control(
            StreamOpened(info=info, after_seq=self.subscriber.starts.get(stream, 0))
        ):
            return False
        self.subscriber.told_infos[stream] = info  # a keep-alive brings an equal one: compare it once
        return True

    def send_control(self, message: ControlMessage) -> bool:
        """Send a control message in the order of deliveries; False when the pipe is full."""
        return send_control(self.socket, message)

    def insist(self, message: ControlMessage, until_s: float) -> bool:
        """Send a last word to a process that is there, waiting for room in its pipe until `until_s` (monotonic)."""
        while self.subscriber.is_live:
            if self.send_control(message):
                return True
            if time.monotonic() >= until_s:
                break
            time.sleep(RETRY_S)  # nothing else is left to do
        return False

    def close(self) -> None:
        """Close the socket and remove its file. A last word already sent gets a moment to leave."""
        self.subscriber.is_live = False
        self.subscriber.told_infos.clear()
        self.socket.close(200)
        unlink_socket(self.endpoint)
