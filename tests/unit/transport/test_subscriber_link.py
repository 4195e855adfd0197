"""SubscriberLink against a router that the test moves by hand: joins, stays through restarts, gives up in time."""

import os
import socket as host_socket
from collections.abc import Iterator

import pytest
import zmq

from runlane.config.errors import SubscriberRefusedError
from runlane.config.names import CONTROL_SOCKET, KINDS
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.endpoint import endpoint_of, ipc_endpoint, make_run_dir, unlink_socket
from runlane.transport.messages import (
    ControlMessage,
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
from runlane.transport.sockets import Context, Socket, bind_router, bind_xpub, receive_frames, send_control
from runlane.transport.subscriber_link import LEASE_S, REFUSAL_PATIENCE_S, SubscriberLink
from runlane.transport.testing import FakeClock, make_batch, make_info, until
from runlane.transport.wire import decode_control, decode_echo, encode_control, encode_delivery_prefix


class FakeRouter:
    """The router's control and egress sockets. Answers only when the test says so."""

    def __init__(self, settings: Settings, serial: int = 1) -> None:
        """Another `serial` is another router process: its egress lies elsewhere."""
        make_run_dir(settings)
        self.heard: list[ControlMessage] = []
        self.upstream: list[bytes] = []
        self._peer = b""
        self._context: Context = zmq.Context()
        self._endpoints = [endpoint_of(settings, CONTROL_SOCKET), ipc_endpoint(settings, f"router+gui-{serial}")]
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

    def welcome(self, window: int = 7) -> None:
        """Let the subscriber in."""
        welcome = SubscriberWelcome(
            name="gui",
            router="r",
            endpoint=self._endpoints[1],
            policy=QueuePolicy(),
            window=window,
            first_number=0,
        )
        self.answer(welcome)

    def send(self, *frames: bytes) -> None:
        """Send downstream."""
        self._egress.send_multipart(frames)

    def deliver(self, info: StreamInfo, number: int) -> None:
        """Send a delivery of one batch of one record."""
        self.send(encode_delivery_prefix(number, 1), *map(bytes, make_batch(info, number, log=1).frames))

    def close(self) -> None:
        """Go without a word."""
        self._context.destroy(linger=0)
        for endpoint in self._endpoints:
            unlink_socket(endpoint)


class Rig:
    """A link, its router and the clock they share."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self.settings = settings
        self.clock = clock
        self.router = FakeRouter(settings)
        self.link = SubscriberLink(settings, "gui", ["episode"], QueuePolicy("latest"), 4, clock)

    def turn(self) -> None:
        """A little time passes, and both do what is due."""
        self.clock.move(0.05)
        self.link.wait(0.005)
        self.router.turn()

    def hear(self, kind: type[ControlMessage], count: int = 1) -> None:
        """Go on until the router has heard so many messages of a kind."""
        until(lambda: sum(isinstance(message, kind) for message in self.router.heard) >= count, self.turn)

    def join(self) -> None:
        """Let the link in and wait for its data socket."""
        self.hear(SubscriberHello)
        self.router.welcome()
        until(lambda: self.router.is_subscribed, self.turn)

    def restart_router(self) -> None:
        """A new router process in the place of the old one, which said nothing."""
        self.router.close()
        self.router = FakeRouter(self.settings, serial=2)

    def close(self) -> None:
        """Both ends."""
        self.link.close()
        self.router.close()


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[Rig]:
    """A link that has not spoken yet."""
    rig = Rig(settings, clock)
    yield rig
    rig.close()


def test_the_hello_says_who_and_what(rig: Rig) -> None:
    """Name, kinds, policy, window and process; and it is repeated until somebody answers."""
    rig.hear(SubscriberHello, 2)
    first, second = rig.router.heard[:2]
    assert isinstance(first, SubscriberHello)
    assert first == second
    assert (first.name, first.kinds, first.policy, first.window) == ("gui", ["episode"], QueuePolicy("latest"), 4)
    assert (first.pid, first.host) == (os.getpid(), host_socket.gethostname())
    assert not rig.link.is_joined


def test_a_welcome_joins(rig: Rig) -> None:
    """The window is the router's, the epoch counts welcomes."""
    rig.join()
    assert rig.link.is_joined
    assert (rig.link.window, rig.link.epoch) == (7, 1)


def test_deliveries_come_in_order_behind_what_announces_them(rig: Rig) -> None:
    """An announcement is taken in on the way, so the stream is known when its first delivery is seen."""
    rig.join()
    info = make_info()
    rig.router.send(encode_control(StreamOpened(info=info)))
    rig.router.deliver(info, 1)
    rig.router.deliver(info, 2)
    found: list[int] = []

    def receive() -> None:
        rig.turn()
        while (delivery := rig.link.receive()) is not None:
            assert rig.link.streams[delivery.header.stream] == info
            found.append(delivery.number)

    until(lambda: len(found) == 2, receive)
    assert found == [1, 2]
    assert rig.link.receive() is None


def test_an_echo_reaches_the_router(rig: Rig) -> None:
    """Upstream, on the socket of the deliveries."""
    rig.join()
    rig.link.echo(77, epoch=1)
    until(lambda: rig.router.echoes == [77], rig.turn)


def test_an_echo_of_a_former_epoch_is_dropped(rig: Rig) -> None:
    """It would mean nothing, or the wrong batch, to a new router."""
    rig.join()
    rig.router.welcome()
    until(lambda: rig.link.epoch == 2, rig.turn)
    rig.link.echo(1, epoch=1)
    rig.link.echo(2, epoch=2)
    until(lambda: 2 in rig.router.echoes, rig.turn)
    assert rig.router.echoes == [2]


def test_an_echo_before_any_welcome_is_dropped(rig: Rig) -> None:
    """There is nobody to send it to, and it is no error."""
    rig.link.echo(1, epoch=0)


def test_a_lease_is_kept(rig: Rig) -> None:
    """One every LEASE_S, by the link's own clock, with the instance of the hello."""
    rig.join()
    began_s = rig.clock.monotonic_s()
    rig.hear(SubscriberLease, 3)
    assert rig.clock.monotonic_s() - began_s >= 2 * LEASE_S
    hello = rig.router.heard[0]
    assert isinstance(hello, SubscriberHello)
    leases = {message for message in rig.router.heard if isinstance(message, SubscriberLease)}
    assert leases == {SubscriberLease(name="gui", instance=hello.instance)}


def test_a_router_that_does_not_know_us_is_said_hello_again(rig: Rig) -> None:
    """A new router answers the lease with a refusal that is not final: join it, in a new epoch."""
    rig.join()
    rig.restart_router()
    rig.hear(SubscriberLease)
    rig.router.answer(SubscriberRefused(name="gui", reason="unknown to this router", is_final=False))
    until(lambda: not rig.link.is_joined, rig.turn)
    rig.join()
    assert (rig.link.is_joined, rig.link.epoch) == (True, 2)


def test_streams_of_a_former_router_are_forgotten(rig: Rig) -> None:
    """The new one announces again what it delivers."""
    rig.join()
    rig.router.send(encode_control(StreamOpened(info=make_info())))
    until(lambda: len(rig.link.streams) == 1, rig.turn, rig.link.receive)
    rig.router.welcome()
    until(lambda: rig.link.epoch == 2, rig.turn)
    assert rig.link.streams == {}


def test_who_is_alive_is_passed_over_by_who_does_not_ask(rig: Rig) -> None:
    """It is neither a delivery nor an error; who asks gets the streams in the order of deliveries."""
    rig.join()
    heard: list[list[str]] = []
    rig.router.send(encode_control(StreamsAlive(streams=["a" * 32])))
    rig.router.send(encode_control(StreamOpened(info=make_info())))
    until(lambda: len(rig.link.streams) == 1, rig.turn, rig.link.receive)
    rig.link.on_streams_alive = heard.append
    rig.router.send(encode_control(StreamsAlive(streams=["b" * 32])))
    until(lambda: bool(heard), rig.turn, rig.link.receive)
    assert heard == [["b" * 32]]
    assert not rig.link.rejections.by_reason


def test_a_routers_goodbye_ends_the_membership(rig: Rig) -> None:
    """It is heard in the order of deliveries, and the next hello begins anew."""
    rig.join()
    rig.router.send(encode_control(RouterBye(router="r")))
    until(lambda: rig.link.router_said_bye, rig.turn, rig.link.receive)
    assert not rig.link.is_joined
    rig.hear(SubscriberHello, 2)
    rig.router.welcome()
    until(lambda: rig.link.is_joined, rig.turn)
    assert not rig.link.router_said_bye


def test_a_final_refusal_is_raised_with_its_reason(rig: Rig) -> None:
    """Asking again would be useless."""
    rig.hear(SubscriberHello)
    rig.router.answer(SubscriberRefused(name="gui", reason="another policy"))
    with pytest.raises(SubscriberRefusedError, match="refused subscriber gui: another policy"):
        until(lambda: False, rig.turn)


def test_a_refusal_that_may_pass_is_borne_for_a_while(rig: Rig) -> None:
    """The name may be free again in a moment; after REFUSAL_PATIENCE_S of refusals it is raised."""
    rig.hear(SubscriberHello)
    began_s = rig.clock.monotonic_s()

    def refuse() -> None:
        if any(isinstance(message, SubscriberHello) for message in rig.router.heard):
            rig.router.heard.clear()
            rig.router.answer(SubscriberRefused(name="gui", reason="connected already", is_final=False))

    with pytest.raises(SubscriberRefusedError, match="connected already"):
        until(lambda: False, rig.turn, refuse)
    assert rig.clock.monotonic_s() - began_s > REFUSAL_PATIENCE_S


def test_garbage_is_counted_and_survived(rig: Rig) -> None:
    """On either socket: counted by reason, and what follows is received."""
    rig.join()
    rig.router.answer_raw(b"garbage")
    rig.router.send(b"garbage", b"more")
    rig.router.send(encode_delivery_prefix(1, 1), b"RL\x09B")
    rig.router.send(b"RL\x01C\xc1")
    rig.router.deliver(make_info(), 5)
    found: list[int] = []

    def receive() -> None:
        rig.turn()
        if (delivery := rig.link.receive()) is not None:
            found.append(delivery.number)

    until(lambda: found == [5] and rig.link.rejections.total == 4, receive)
    assert rig.link.rejections.by_reason == {"magic": 2, "version": 1, "msgpack": 1}


def test_a_watched_descriptor_ends_the_wait(rig: Rig) -> None:
    """So that a lifeline or a signal is not seen late: with no word due for an hour, the wait ends at once."""
    rig.join()
    rig.clock.move(-3_600)
    read, write = os.pipe()
    try:
        rig.link.watch(read)
        os.write(write, b"!")
        rig.link.wait(3_600)
    finally:
        os.close(read)
        os.close(write)


def test_leaving_is_said(settings: Settings, clock: FakeClock) -> None:
    """A subscriber that closes gives its place back at once; one that never joined has nothing to give."""
    rig = Rig(settings, clock)
    rig.join()
    rig.link.close()
    until(lambda: isinstance(rig.router.heard[-1], SubscriberBye), rig.router.turn)
    rig.router.close()
    SubscriberLink(settings, "gui", list(KINDS), None, 4, clock).close()
