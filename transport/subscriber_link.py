"""One subscriber's connection to the router: hello, lease, deliveries in, echoes out. One thread owns it.

Two sockets: a DEALER for hello and lease, which outlives the router, and an XSUB for deliveries, which is
replaced at every welcome. A delivery belongs to the epoch it came in; an echo of a former epoch is dropped,
because it would mean nothing, or the wrong batch, to a new router.
"""

import contextlib
import os
import socket as host_socket
from collections.abc import Callable

import zmq

from runlane.config import log_ids
from runlane.config.errors import SubscriberRefusedError, WireError
from runlane.config.names import CONTROL_SOCKET
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import endpoint_of
from runlane.transport.identity import new_stream_id
from runlane.transport.log import log_event
from runlane.transport.messages import (
    RouterBye,
    StreamInfo,
    StreamOpened,
    StreamsAlive,
    SubscriberBye,
    SubscriberHello,
    SubscriberLease,
    SubscriberRefused,
    SubscriberWelcome,
)
from runlane.transport.sockets import (
    Context,
    Rejections,
    Socket,
    connect_dealer,
    connect_xsub,
    poll_events,
    receive_batch,
    receive_frames,
    send_control,
)
from runlane.transport.wire import Delivery, Frame, decode_control, decode_delivery, encode_echo, is_control

HELLO_RETRY_S = 0.1
LEASE_S = 0.5
REFUSAL_PATIENCE_S = 5.0


class SubscriberLink:
    """Joins the RunBus under a name and keeps its place there across router restarts."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        kinds: list[str],
        policy: QueuePolicy | None,
        window: int,
        clock: Clock | None = None,
    ) -> None:
        """Connect the control socket; the hello goes out at the first `wait`."""
        self.name = name
        self.kinds = kinds
        self.policy = policy
        self.window = window
        self.streams: dict[bytes, StreamInfo] = {}
        self.rejections = Rejections({})
        self.epoch = 0
        self.router_said_bye = False
        self.on_streams_alive: Callable[[list[str]], None] | None = None
        self._settings = settings
        self._clock = clock or SystemClock()
        self._instance = new_stream_id()
        self._context: Context = zmq.Context()
        self._poller = zmq.Poller()
        self._control: Socket = connect_dealer(
            self._context, endpoint_of(settings, CONTROL_SOCKET), 8, settings.transport
        )
        self._poller.register(self._control, zmq.POLLIN)
        self._control_poller = zmq.Poller()
        self._control_poller.register(self._control, zmq.POLLIN)
        self._data: Socket | None = None
        self._is_joined = False
        self._has_said_hello = False
        self._next_word_s = 0.0
        self._refused_since_s: float | None = None

    @property
    def is_joined(self) -> bool:
        """Whether the router that is there now has welcomed us."""
        return self._is_joined

    def watch(self, thing: int) -> None:
        """Let a file descriptor end `wait` early, too."""
        self._poller.register(thing, zmq.POLLIN)

    def wait(self, timeout_s: float, *, for_data: bool = True) -> None:
        """Keep hello and lease going, then wait for a delivery at most `timeout_s`; or only wait.

        Raises `SubscriberRefusedError` when the router refuses for good.
        """
        self._speak()
        until_word_s = max(0.0, self._next_word_s - self._clock.monotonic_s())
        ready = poll_events(self._poller if for_data else self._control_poller, min(timeout_s, until_word_s))
        if self._control in ready:
            self._listen()

    def _speak(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._next_word_s:
            return
        if self._is_joined:
            send_control(self._control, SubscriberLease(name=self.name, instance=self._instance))
            self._next_word_s = now_s + LEASE_S
        else:
            hello = SubscriberHello(
                name=self.name,
                instance=self._instance,
                kinds=self.kinds,
                policy=self.policy,
                window=self.window,
                pid=os.getpid(),
                host=host_socket.gethostname(),
            )
            is_sent = send_control(self._control, hello)
            self._has_said_hello = self._has_said_hello or is_sent
            self._next_word_s = now_s + (LEASE_S if is_sent else HELLO_RETRY_S)

    def _listen(self) -> None:
        while (frames := receive_frames(self._control)) is not None:
            try:
                message = decode_control(frames[0])
            except WireError as error:
                self.rejections.count(error)
                continue
            if isinstance(message, SubscriberWelcome):
                self._join(message)
            elif isinstance(message, SubscriberRefused):
                self._on_refusal(message)

    def _join(self, welcome: SubscriberWelcome) -> None:
        self._leave_data()
        self._data = connect_xsub(self._context, welcome.endpoint, welcome.window, self._settings.transport)
        self._poller.register(self._data, zmq.POLLIN)
        self.streams.clear()
        self.epoch += 1
        self.window = welcome.window
        self._is_joined = True
        self.router_said_bye = False
        self._refused_since_s = None
        self._next_word_s = self._clock.monotonic_s() + LEASE_S

    def _on_refusal(self, refused: SubscriberRefused) -> None:
        now_s = self._clock.monotonic_s()
        if self._is_joined and not refused.is_final:  # a new router, which does not know us yet
            self._is_joined = False
            self._next_word_s = now_s
            return
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        if refused.is_final or now_s - self._refused_since_s > REFUSAL_PATIENCE_S:
            raise SubscriberRefusedError(f"the router refused subscriber {self.name}: {refused.reason}")
        self._next_word_s = now_s + HELLO_RETRY_S

    def _leave_data(self) -> None:
        if self._data is not None:
            self._poller.unregister(self._data)
            self._data.close(0)
            self._data = None

    def receive(self) -> Delivery | None:
        """The next delivery that is there already, or None. Announcements are taken in on the way."""
        while self._data is not None:
            frames = receive_batch(self._data)
            if frames is None:
                return None
            try:
                if is_control(frames[0]):
                    self._on_announcement(frames[0])
                else:
                    return decode_delivery(frames)
            except WireError as error:
                count = self.rejections.count(error)
                log_event(log_ids.WIRE_REJECTED, place=self.name, reason=error.reason, count=count)
        return None

    def _on_announcement(self, frame: Frame) -> None:
        message = decode_control(frame)
        if isinstance(message, StreamOpened):
            key = bytes.fromhex(message.info.stream)
            self.streams[key] = message.info.with_schemas_of(self.streams.get(key))
        elif isinstance(message, StreamsAlive):
            if self.on_streams_alive is not None:
                self.on_streams_alive(message.streams)
        elif isinstance(message, RouterBye):
            self.router_said_bye = True
            self._is_joined = False

    def echo(self, number: int, epoch: int) -> None:
        """Tell the router that everything up to `number` is consumed, or committed."""
        if epoch != self.epoch or self._data is None:
            return
        with contextlib.suppress(zmq.Again):  # a later echo says the same and more
            self._data.send(encode_echo(number), zmq.NOBLOCK)

    def close(self) -> None:
        """Say goodbye and close; the goodbye gets a moment to leave."""
        if self._has_said_hello:
            send_control(self._control, SubscriberBye(name=self.name, instance=self._instance))
        self._control.close(200)
        self._leave_data()
        self._context.term()
