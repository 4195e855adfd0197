"""SubscriberLink against a router that the test moves by hand: joins, stays through restarts, gives up in time."""

import os
import socket as host_socket
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
from unit.transport.fake_router import FakeRouter

from runlane.config.errors import SubscriberRefusedError
from runlane.config.names import KINDS
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.messages import (
    Accounts,
    AccountsRequest,
    ControlMessage,
    GraphMetrics,
    RouterBye,
    StreamOpened,
    StreamsAlive,
    SubscriberAccount,
    SubscriberBye,
    SubscriberHello,
    SubscriberLease,
    SubscriberRefused,
)
from runlane.transport.sockets import Socket
from runlane.transport.subscriber_link import LEASE_S, REFUSAL_PATIENCE_S, SubscriberLink
from runlane.transport.testing import FakeClock, make_info, until
from runlane.transport.wire import Delivery, encode_control, encode_delivery_prefix


class Rig:
    """A link, its router and the clock they share."""

    def __init__(self, settings: Settings, clock: FakeClock, **filters: Any) -> None:
        self.settings = settings
        self.clock = clock
        self.router = FakeRouter(settings)
        self.link = SubscriberLink(settings, "gui", ["episode"], QueuePolicy("latest"), 4, clock, **filters)

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


# ---- what is told and counted ----------------------------------------------------------------------------


ACCOUNT = SubscriberAccount("gui", "run", "a" * 32, 9, 6, 1, {"drop_oldest": 2}, 0, 9)


def test_the_hello_says_which_runs_and_workers_and_how_many_steps(settings: Settings, clock: FakeClock) -> None:
    """The router filters by them."""
    rig = Rig(settings, clock, runs=["ppo-*"], workers=["w"], decimate=10)
    rig.hear(SubscriberHello)
    hello = rig.router.heard[0]
    assert isinstance(hello, SubscriberHello)
    assert (hello.runs, hello.workers, hello.decimate, hello.received) == (["ppo-*"], ["w"], 10, {})
    rig.close()


def test_a_new_router_is_told_what_was_received_before_it(rig: Rig) -> None:
    """Per stream, the records counted as handed on; sections that did not come are none."""
    rig.join()
    info = make_info()
    rig.router.deliver(info, 1, step=3, log=2)
    rig.router.deliver(info, 2, first_seq=6)
    taken: list[Delivery] = []

    def take() -> None:
        rig.turn()
        if (delivery := rig.link.receive()) is not None:
            rig.link.count_received(delivery)
            taken.append(delivery)

    until(lambda: len(taken) == 2, take)
    rig.restart_router()
    rig.hear(SubscriberLease)
    rig.router.answer(SubscriberRefused(name="gui", reason="unknown", is_final=False))
    rig.hear(SubscriberHello)
    hello = next(message for message in rig.router.heard if isinstance(message, SubscriberHello))
    assert hello.received == rig.link.received == {info.stream: 6}


def test_a_dead_routers_deliveries_are_not_taken_after_the_counts_were_told(rig: Rig) -> None:
    """When a router does not know us, what waits in the old data socket goes with it, before the next hello."""
    rig.join()
    rig.router.deliver(make_info(), 1)
    data = cast("Socket", vars(rig.link)["_data"])
    until(lambda: bool(data.poll(0)), rig.turn)
    rig.hear(SubscriberLease)
    rig.router.answer(SubscriberRefused(name="gui", reason="unknown", is_final=False))
    until(lambda: not rig.link.is_joined, rig.turn)
    assert rig.link.receive() is None


def test_a_welcome_says_where_deliveries_begin(rig: Rig) -> None:
    """The watermarks are those of the newest welcome."""
    rig.join()
    assert rig.link.watermarks == {}
    rig.router.welcome(watermarks={"a" * 32: 7})
    until(lambda: rig.link.epoch == 2, rig.turn)
    assert rig.link.watermarks == {"a" * 32: 7}


def test_accounts_and_metrics_come_in_the_order_of_deliveries(rig: Rig) -> None:
    """Who asked for them gets them; who did not passes over them; our own accounts are kept in any case."""
    rig.join()
    metrics = GraphMetrics(t_ns=1, values={"router": {"fps": 2.0}})
    accounts = Accounts(router="r", t_ns=1, accounts=[ACCOUNT, msgspec.structs.replace(ACCOUNT, subscriber="other")])
    rig.router.announce(metrics)
    rig.router.announce(accounts)
    until(lambda: bool(rig.link.accounts), rig.turn, rig.link.receive)
    heard: list[object] = []
    rig.link.on_metrics, rig.link.on_accounts = heard.append, heard.append
    rig.router.announce(metrics)
    rig.router.announce(accounts)
    until(lambda: len(heard) == 2, rig.turn, rig.link.receive)
    assert heard == [metrics, accounts]
    assert rig.link.accounts == {ACCOUNT.stream: ACCOUNT}


def test_accounts_are_answered_on_the_control_socket(rig: Rig) -> None:
    """In parts; the answer is there when its last part is."""
    rig.join()
    assert rig.link.ask_accounts()
    rig.hear(AccountsRequest)
    assert AccountsRequest(name="gui") in rig.router.heard
    newer = msgspec.structs.replace(ACCOUNT, delivered=7, queued=0)
    rig.router.answer(Accounts(router="r", t_ns=1, accounts=[ACCOUNT], is_last=False))
    until(lambda: rig.link.accounts == {ACCOUNT.stream: ACCOUNT}, rig.turn)
    assert rig.link.answers == 0
    rig.router.answer(Accounts(router="r", t_ns=1, accounts=[newer]))
    until(lambda: rig.link.answers == 1, rig.turn)
    assert rig.link.accounts == {ACCOUNT.stream: newer}
