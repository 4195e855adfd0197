"""FakeRouter: the router's end of a subscriber's two sockets, moved by hand."""

import zmq

from runlane.config.names import CONTROL_SOCKET
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.endpoint import endpoint_of, ipc_endpoint, make_run_dir, unlink_socket
from runlane.transport.messages import ControlMessage, RouterBye, StreamInfo, SubscriberWelcome
from runlane.transport.sockets import Context, Socket, bind_router, bind_xpub, receive_frames, send_control
from runlane.transport.testing import make_batch
from runlane.transport.wire import decode_control, decode_echo, encode_control, encode_delivery_prefix


class FakeRouter:
    """The router's control and egress sockets. Answers only when the test says so."""

    def __init__(self, settings: Settings, serial: int = 1, name: str = "gui") -> None:
        """Another `serial` is another router process: its egress lies elsewhere."""
        self.name = name
        make_run_dir(settings)
        self.heard: list[ControlMessage] = []
        self.upstream: list[bytes] = []
        self._peer = b""
        self._context: Context = zmq.Context()
        self._endpoints = [endpoint_of(settings, CONTROL_SOCKET), ipc_endpoint(settings, f"router+{name}-{serial}")]
        self._control: Socket = bind_router(self._context, self._endpoints[0], 100, settings.transport)
        self._egress: Socket = bind_xpub(self._context, self._endpoints[1], 100, settings.transport)

    def turn(self) -> None:
        """Take in what was said."""
        while (frames := receive_frames(self._control)) is not None:
            self._peer = frames[0]
            self.heard.append(decode_control(frames[1]))
        while (frames := receive_frames(self._egress)) is not None:
            self.upstream.append(frames[0])

    @property
    def is_subscribed(self) -> bool:
        """Whether a data socket is connected."""
        return b"\x01" in self.upstream

    @property
    def echoes(self) -> list[int]:
        """Numbers echoed so far."""
        return [decode_echo(frame) for frame in self.upstream if frame not in (b"\x00", b"\x01")]

    def answer(self, message: ControlMessage) -> None:
        """Say something on the control socket."""
        assert send_control(self._control, message, self._peer)

    def answer_raw(self, frame: bytes) -> None:
        """Say garbage on the control socket."""
        self._control.send_multipart([self._peer, frame])

    def welcome(self, window: int = 7, watermarks: dict[str, int] | None = None) -> None:
        """Let the subscriber in."""
        welcome = SubscriberWelcome(
            name=self.name,
            router="r",
            endpoint=self._endpoints[1],
            policy=QueuePolicy(),
            window=window,
            first_number=0,
            watermarks=watermarks or {},
        )
        self.answer(welcome)

    def send(self, *frames: bytes) -> None:
        """Send downstream."""
        self._egress.send_multipart(frames)

    def announce(self, message: ControlMessage) -> None:
        """Say something in the order of deliveries."""
        self.send(encode_control(message))

    def deliver(self, info: StreamInfo, number: int, first_seq: int | None = None, **records: int) -> None:
        """Send a delivery of one batch, by default of one record."""
        batch = make_batch(info, first_seq or number, **(records or {"log": 1}))
        bits = (1 << len(batch.frames) - 1) - 1
        self.send(encode_delivery_prefix(number, bits), *map(bytes, batch.frames))

    def announce_bye(self) -> None:
        """Say goodbye."""
        self.announce(RouterBye(router="r"))

    def is_heard(self, kind: type[ControlMessage], count: int = 1) -> bool:
        """Whether so many messages of a kind were said to it."""
        return sum(isinstance(message, kind) for message in self.heard) >= count

    def close(self) -> None:
        """Go without a word."""
        self._context.destroy(linger=0)
        for endpoint in self._endpoints:
            unlink_socket(endpoint)
