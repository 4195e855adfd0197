"""One subscriber's connection to the router: hello, lease, deliveries in, echoes out. One thread owns it.

Two sockets: a DEALER for hello and lease, which outlives the router, and an XSUB for deliveries, which is
replaced at every welcome. A delivery belongs to the epoch it came in; an echo of a former epoch is dropped,
because it would mean nothing, or the wrong batch, to a new router.

A new router is told what was received from those before it. So the data socket of a router that is gone is closed
before the hello: a delivery taken from it later would be in nobody's account.
"""

import contextlib
import os
import socket as host_socket
from collections.abc import Callable, Sequence
from itertools import islice

import zmq

from runlane.config import log_ids
from runlane.config.errors import SubscriberRefusedError, WireError
from runlane.config.names import CONTROL_SOCKET
from runlane.config.settings import QueuePolicy, Selection, Settings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import endpoint_of
from runlane.transport.identity import new_stream_id
from runlane.transport.log import log_event
from runlane.transport.messages import (
    Accounts,
    AccountsRequest,
    GraphMetrics,
    RouterBye,
    RunDelete,
    RunDeletion,
    StreamInfo,
    StreamOpened,
    StreamsAlive,
    SubscriberAccount,
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
# Of so many streams, the newest, a hello tells what was received: 45 bytes each, and a control frame ends at 1 MiB.
MAX_RECEIVED_STREAMS = 16_384


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
        *,
        runs: Sequence[str] = (),
        workers: Sequence[str] = (),
        decimate: int = 1,
    ) -> None:
        """Connect the control socket; the hello goes out at the first `wait`.

        `received` counts the records handed on, by stream, over the life of this instance: see `count_received`.
        `watermarks` are of the newest welcome, `accounts` the newest known of this subscriber, by stream.
        `joined_s` is when the router of now welcomed us.
        """
        self.name = name
        self.kinds = kinds
        self.policy = policy
        self.window = window
        self.streams: dict[bytes, StreamInfo] = {}
        self.rejections = Rejections({})
        self.epoch = 0
        self.router_said_bye = False
        self.on_streams_alive: Callable[[list[str]], None] | None = None
        self.on_accounts: Callable[[Accounts], None] | None = None
        self.on_metrics: Callable[[GraphMetrics], None] | None = None
        self.on_run_delete: Callable[[RunDelete], None] | None = None
        self.received: dict[str, int] = {}
        self.watermarks: dict[str, int] = {}
        self.accounts: dict[str, SubscriberAccount] = {}
        self.answers = 0
        self.clock: Clock = clock or SystemClock()
        self.joined_s = self.clock.monotonic_s()
        self._selection = Selection(kinds, list(runs), list(workers), decimate)
        self._settings = settings
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
        self._control_poller.register(thing, zmq.POLLIN)

    def wait(self, timeout_s: float, *, for_data: bool = True) -> None:
        """Keep hello and lease going, then wait for a delivery at most `timeout_s`; or only wait.

        Raises `SubscriberRefusedError` when the router refuses for good.
        """
        self._speak()
        until_word_s = max(0.0, self._next_word_s - self.clock.monotonic_s())
        ready = poll_events(self._poller if for_data else self._control_poller, min(timeout_s, until_word_s))
        if self._control in ready:
            self._listen()

    def _speak(self) -> None:
        now_s = self.clock.monotonic_s()
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
                runs=self._selection.runs,
                workers=self._selection.workers,
                decimate=self._selection.decimate,
                policy=self.policy,
                window=self.window,
                pid=os.getpid(),
                host=host_socket.gethostname(),
                received=self._told(),
            )
            is_sent = send_control(self._control, hello)
            self._has_said_hello = self._has_said_hello or is_sent
            self._next_word_s = now_s + (LEASE_S if is_sent else HELLO_RETRY_S)

    def _told(self) -> dict[str, int]:
        return dict(islice(self.received.items(), max(0, len(self.received) - MAX_RECEIVED_STREAMS), None))

    def count_received(self, delivery: Delivery) -> None:
        """Count a delivery as handed on, whatever becomes of it then: the next router is told so."""
        here = zip(delivery.header.sections, delivery.bodies, strict=True)
        records = sum(section.records for section, body in here if body is not None)
        stream = delivery.header.stream.hex()
        self.received[stream] = self.received.get(stream, 0) + records

    def ask_accounts(self) -> bool:
        """Ask the router for our accounts; `answers` is raised by one when all of them have come. False: not sent."""
        return send_control(self._control, AccountsRequest(name=self.name))

    def answer(self, message: RunDeletion) -> None:
        """Answer a question that the router has passed on. A full pipe loses it; who asked asks again."""
        send_control(self._control, message)

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
            elif isinstance(message, Accounts):
                self._keep_accounts(message)
                self.answers += message.is_last

    def _keep_accounts(self, message: Accounts) -> None:
        for account in message.accounts:
            if account.subscriber == self.name:
                self.accounts[account.stream] = account

    def _join(self, welcome: SubscriberWelcome) -> None:
        self._leave_data()
        self._data = connect_xsub(self._context, welcome.endpoint, welcome.window, self._settings.transport)
        self._poller.register(self._data, zmq.POLLIN)
        self.streams.clear()
        self.watermarks = welcome.watermarks
        self.epoch += 1
        self.window = welcome.window
        self._is_joined = True
        self.joined_s = self.clock.monotonic_s()
        self.router_said_bye = False
        self._refused_since_s = None
        self._next_word_s = self.clock.monotonic_s() + LEASE_S

    def _on_refusal(self, refused: SubscriberRefused) -> None:
        now_s = self.clock.monotonic_s()
        if self._is_joined and not refused.is_final:  # a new router, which does not know us yet
            self._is_joined = False
            self._leave_data()
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
        elif isinstance(message, Accounts):
            self._keep_accounts(message)
            if self.on_accounts is not None:
                self.on_accounts(message)
        elif isinstance(message, GraphMetrics | RunDelete):
            self._hand_on(message)
        elif isinstance(message, RouterBye):
            self.router_said_bye = True
            self._is_joined = False

    def _hand_on(self, message: GraphMetrics | RunDelete) -> None:
        if isinstance(message, RunDelete):
            if self.on_run_delete is not None:
                self.on_run_delete(message)
        elif self.on_metrics is not None:
            self.on_metrics(message)

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
