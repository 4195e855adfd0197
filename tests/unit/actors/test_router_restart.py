"""A router is killed and another takes its place: every account is still closed, and nothing is given or told twice."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from unit.actors.router_rig import RouterRig, heard

from runlane.config.names import KINDS
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy, Settings
from runlane.transport.messages import (
    Accounts,
    AccountsRequest,
    GraphMetrics,
    RouterBye,
    SubscriberAccount,
    SubscriberBye,
    SubscriberHello,
    SubscriberLease,
    SubscriberRefused,
)
from runlane.transport.queue import ROUTER_RESTART, Account
from runlane.transport.testing import FakeClock, FakeSource, FakeSubscriber, make_batch, until
from runlane.transport.wire import encode_control, pack, unpack

BLOCK = QueuePolicy("block")
LOSSY = QueuePolicy("drop_oldest", MAX_BATCH_RECORDS)


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RouterRig]:
    """A router without declared subscribers."""
    rig = RouterRig(msgspec.structs.replace(settings, subscribers={}), clock)
    yield rig
    rig.close()


def _account(rig: RouterRig, name: str, source: FakeSource) -> Account:
    account = rig.router.bus.account_of(name, bytes.fromhex(source.info.stream))
    assert account is not None
    assert account.balance == 0
    return account


def _crash_with_a_lossy_subscriber(rig: RouterRig) -> tuple[FakeSource, FakeSubscriber]:
    """It was given five batches of ten, echoed two, and two more waited. A `block` one committed nothing."""
    source, gui = rig.source(), rig.subscriber("gui", LOSSY, window=5)
    rig.subscriber("keeper", BLOCK)
    for index in range(7):
        rig.publish(source, 1 + 10 * index, 10)
    until(lambda: len(gui.deliveries) == 5, rig.turn)
    gui.echo(gui.deliveries[1].number)
    until(lambda: _account(rig, "gui", source).delivered == 20, rig.turn)
    rig.crash()
    return source, gui


# ---- lossy -----------------------------------------------------------------------------------------------


def test_what_a_lossy_queue_held_is_counted_as_lost_by_the_restart(rig: RouterRig) -> None:
    """Waiting or under way: nobody can say whether it was read."""
    source, _ = _crash_with_a_lossy_subscriber(rig)
    account = _account(rig, "gui", source)
    assert (account.published, account.delivered, account.dropped) == (70, 20, {ROUTER_RESTART: 50})
    assert (account.last_seq, account.delivered_seq) == (70, 20)


def test_what_the_same_process_says_it_received_is_delivered(rig: RouterRig) -> None:
    """It had read the three batches whose echo the dead router never heard."""
    source, gui = _crash_with_a_lossy_subscriber(rig)
    rig.rejoin(gui, LOSSY, {source.info.stream: 50})
    account = _account(rig, "gui", source)
    assert (account.published, account.delivered, account.dropped) == (70, 50, {ROUTER_RESTART: 20})


@pytest.mark.parametrize("received", [71, 1 << 62, 19, 0])
def test_an_absurd_figure_is_not_believed(rig: RouterRig, received: int) -> None:
    """More than was published, or less than it echoed; it is let in all the same."""
    source, gui = _crash_with_a_lossy_subscriber(rig)
    rig.rejoin(gui, LOSSY, {source.info.stream: received, "f" * 32: 5})
    account = _account(rig, "gui", source)
    assert (account.delivered, account.dropped) == (20, {ROUTER_RESTART: 50})


def test_another_process_of_the_name_is_not_believed(rig: RouterRig) -> None:
    """It cannot have received anything from the dead router."""
    source, _ = _crash_with_a_lossy_subscriber(rig)
    second = FakeSubscriber(rig.settings, "gui", instance="2")
    rig.subscribers.append(second)
    rig.rejoin(second, LOSSY, {source.info.stream: 50})
    account = _account(rig, "gui", source)
    assert (account.delivered, account.dropped) == (20, {ROUTER_RESTART: 50})
    assert account.base + 50 == account.delivered  # what it is given from here on is what counts as received


def test_batches_sent_again_are_not_given_again_and_counted_once(rig: RouterRig) -> None:
    """All of them, since nothing was acked; and cut in other places than before."""
    source, gui = _crash_with_a_lossy_subscriber(rig)
    rig.rejoin(gui, LOSSY, {source.info.stream: 50})
    gui.deliveries.clear()
    rig.resume(source)
    for index in range(8):
        rig.publish(source, 1 + 15 * index, 15)
    until(lambda: len(gui.seqs) == 50, rig.turn)
    gui.echo()
    until(lambda: not _account(rig, "gui", source).queued, rig.turn)
    assert gui.seqs == list(range(71, 121))
    account = _account(rig, "gui", source)
    assert (account.published, account.delivered, account.dropped) == (120, 100, {ROUTER_RESTART: 20})


def test_one_that_slept_past_its_lease_and_woke_is_believed_like_one_whose_router_died(rig: RouterRig) -> None:
    """It reads what lay in its socket before it notices; the same counts mean the same to every router after."""
    source, gui = rig.source(), rig.subscriber("gui", LOSSY, window=5)
    for index in range(7):
        rig.publish(source, 1 + 10 * index, 10)
    until(lambda: len(gui.deliveries) == 5, rig.turn)
    assert gui.data is not None
    gui.data.close(0)  # its connection ends as the router sees it
    gui.data = None
    until(lambda: not rig.bus_subscriber("gui").is_live, rig.turn)
    rig.clock.move(rig.settings.router.lease_s + 0.5)
    until(lambda: "gui" not in rig.router.bus.subscribers, rig.turn)
    assert _account(rig, "gui", source).dropped == {"subscriber_restart": 50, "subscriber_left": 20}
    rig.rejoin(gui, LOSSY, {source.info.stream: 50})
    assert _account(rig, "gui", source).dropped == {"subscriber_left": 20}
    rig.publish(source, 71, 10)
    until(lambda: len(gui.deliveries) == 6, rig.turn)
    rig.crash()
    assert _account(rig, "gui", source).dropped == {"subscriber_left": 20, ROUTER_RESTART: 10}
    rig.rejoin(gui, LOSSY, {source.info.stream: 60})
    account = _account(rig, "gui", source)
    assert (account.published, account.delivered, account.dropped) == (80, 60, {"subscriber_left": 20})


def test_a_subscriber_that_does_not_come_back_keeps_its_account(rig: RouterRig) -> None:
    """Its place is given up after the lease; what it lost stays told."""
    source, _ = _crash_with_a_lossy_subscriber(rig)
    rig.clock.move(rig.settings.router.lease_s + 0.5)
    until(lambda: "gui" not in rig.router.bus.subscribers, rig.turn)
    assert _account(rig, "gui", source).dropped == {ROUTER_RESTART: 50}


def test_a_second_crash_loses_no_account(rig: RouterRig) -> None:
    """What the first successor took up is in its own files."""
    source, gui = _crash_with_a_lossy_subscriber(rig)
    rig.crash()
    assert _account(rig, "gui", source).dropped == {ROUTER_RESTART: 50}
    rig.rejoin(gui, LOSSY, {source.info.stream: 50})
    rig.turn()
    rig.crash()
    assert (_account(rig, "gui", source).delivered, _account(rig, "gui", source).balance) == (50, 0)


# ---- block -----------------------------------------------------------------------------------------------


def test_a_block_subscriber_loses_nothing_and_each_record_counts_once(rig: RouterRig) -> None:
    """What it had not committed is sent again, by its source."""
    source, keeper = rig.source(), rig.subscriber("keeper", BLOCK)
    for first_seq in (1, 11, 21):
        rig.publish(source, first_seq, 10)
    until(lambda: len(keeper.deliveries) == 3, rig.turn)
    keeper.echo(keeper.deliveries[0].number)
    until(lambda: source.acked_seq == 10, rig.turn)
    rig.crash()
    assert _account(rig, "keeper", source).published == 10
    rig.rejoin(keeper, BLOCK)
    rig.resume(source, oldest_seq=11)
    keeper.deliveries.clear()
    rig.publish(source, 11, 30)
    until(lambda: keeper.seqs == list(range(11, 41)), rig.turn)
    keeper.echo()
    until(lambda: source.acked_seq == 40, rig.turn)
    account = _account(rig, "keeper", source)
    assert (account.published, account.delivered, account.dropped) == (40, 40, {})


def test_a_block_subscriber_that_may_come_back_holds_back_acks(rig: RouterRig) -> None:
    """For its lease, as if it were there; then it has left, and nobody waits any longer."""
    source, _ = rig.source(), rig.subscriber("keeper", BLOCK)
    rig.publish(source, 1, 10)
    rig.crash()
    rig.resume(source)
    rig.publish(source, 1, 10)
    rig.clock.move(rig.settings.router.lease_s * 0.9)
    rig.settle()
    assert source.acked_seq == 0
    rig.clock.move(rig.settings.router.lease_s * 0.2)
    until(lambda: source.acked_seq == 10, rig.turn)
    assert _account(rig, "keeper", source).dropped == {"subscriber_left": 10}


def test_a_subscriber_that_came_back_is_not_waited_for_any_longer(rig: RouterRig) -> None:
    """The end of the wait is not the end of its place."""
    source, keeper = rig.source(), rig.subscriber("keeper", BLOCK)
    rig.crash()
    rig.rejoin(keeper, BLOCK)
    rig.resume(source)
    rig.clock.move(rig.settings.router.lease_s + 0.5)
    rig.settle()
    assert rig.bus_subscriber("keeper").is_live
    rig.publish(source, 1, 10)
    until(lambda: keeper.seqs == list(range(1, 11)), rig.turn)


def test_a_goodbye_to_the_successor_ends_the_wait(rig: RouterRig) -> None:
    """Acks go on at once, and the end of its lease finds nobody."""
    source, keeper = rig.source(), rig.subscriber("keeper", BLOCK)
    rig.crash()
    rig.resume(source)
    rig.publish(source, 1, 10)
    goodbye = SubscriberBye(name="keeper", instance="1")
    # Again and again: what is said before ZeroMQ has seen the end of the connection goes to the router that is gone.
    until(lambda: source.acked_seq == 10, lambda: keeper.say(goodbye), rig.turn)
    rig.clock.move(rig.settings.router.lease_s + 0.5)
    rig.settle()
    assert not rig.router.bus.subscribers


# ---- an ordered end --------------------------------------------------------------------------------------


def test_an_ordered_end_leaves_nothing_to_take_up(rig: RouterRig, run_dir: Path) -> None:
    """Final accounts reach every subscriber before the goodbye, and the files are gone."""
    source, gui, keeper = rig.source(), rig.subscriber("gui", LOSSY, window=1), rig.subscriber("keeper", BLOCK)
    rig.publish(source, 1, 10)
    rig.publish(source, 11, 10)
    until(lambda: bool(gui.deliveries), rig.turn)
    rig.router.on_close()
    assert list(run_dir.iterdir()) == []
    goodbye = RouterBye(router=rig.router.router_id)
    for subscriber in (gui, keeper):
        until(lambda end=subscriber: goodbye in end.announced, subscriber.listen)
        assert subscriber.announced[-1] == goodbye
        last = subscriber.announced[-2]
        assert isinstance(last, Accounts)
        assert [account.subscriber for account in last.accounts] == [subscriber.name]
    (final,) = [last for last in gui.announced if isinstance(last, Accounts)]
    expected = ({"router_stopped": 20}, 20, 0, 0)
    found = final.accounts[0]
    assert (found.dropped, found.published, found.delivered, found.queued) == expected
    rig.start()
    assert not rig.router.bus.past


# ---- accounts told ---------------------------------------------------------------------------------------


def _told(end: FakeSubscriber) -> dict[str, SubscriberAccount]:
    """By subscriber, the last account of each that a `block` subscriber heard among its deliveries."""
    messages = [message for message in end.announced if isinstance(message, Accounts)]
    return {account.subscriber: account for message in messages for account in message.accounts}


@pytest.mark.parametrize(("name", "expected"), [("", ["gui", "keeper"]), ("gui", ["gui"]), ("nobody", [])])
def test_anyone_may_ask_for_accounts(rig: RouterRig, name: str, expected: list[str]) -> None:
    """Of one subscriber or of all; the answer says when it is whole."""
    source = rig.source()
    rig.subscriber("gui", LOSSY)
    rig.subscriber("keeper", BLOCK)
    rig.publish(source, 1, 10)
    asker = FakeSubscriber(rig.settings, "asker")
    rig.subscribers.append(asker)
    asker.say(AccountsRequest(name=name))
    until(lambda: bool(asker.heard), rig.turn)
    (answer,) = heard(asker, Accounts)
    assert answer.is_last
    assert sorted(account.subscriber for account in answer.accounts) == expected
    for account in answer.accounts:
        assert (account.stream, account.run, account.published) == (source.info.stream, "run", 10)
        assert account.published == account.delivered + account.queued + sum(account.dropped.values())


def test_accounts_reach_who_stores_them_after_report_s(rig: RouterRig) -> None:
    """Not before, and not a lossy subscriber; figures of the graph go the same way."""
    source, gui, keeper = rig.source(), rig.subscriber("gui", LOSSY), rig.subscriber("keeper", BLOCK)
    rig.clock.move(rig.settings.router.report_s)
    rig.settle()
    rig.publish(source, 1, 10)
    rig.settle()
    assert _told(keeper)["gui"].published == 0
    rig.clock.move(rig.settings.router.report_s)
    until(lambda: _told(keeper)["gui"].published == 10, rig.turn)
    assert _told(gui) == {}
    rig.clock.move(rig.settings.router.metrics_s)
    until(lambda: any(isinstance(message, GraphMetrics) for message in keeper.announced), rig.turn)


def test_who_stores_accounts_is_told_those_of_before_the_crash(rig: RouterRig) -> None:
    """All of them, when it joins again, also of a subscriber that is not back."""
    source, _ = _crash_with_a_lossy_subscriber(rig)
    keeper = next(end for end in rig.subscribers if end.name == "keeper")
    rig.rejoin(keeper, BLOCK)
    rig.clock.move(rig.settings.router.report_s)
    keeper.announced.clear()
    until(lambda: "gui" in _told(keeper), rig.turn)
    assert _told(keeper)["gui"].dropped == {ROUTER_RESTART: 50}
    assert _told(keeper)["gui"].stream == source.info.stream


# ---- nonsense --------------------------------------------------------------------------------------------


def _hello(**changes: object) -> bytes:
    """A hello with fields that our own classes would not make."""
    plain = unpack(encode_control(SubscriberHello(name="odd", instance="1", kinds=list(KINDS)))[4:])
    return b"RL\x01C" + pack({**plain, **changes})


absurd_hellos: list[dict[str, object]] = [
    {"policy": {"overflow": "drop_oldest", "max_queue": 1}},
    {"policy": {"overflow": "latest", "max_queue": 5_000}},
    {"policy": {"overflow": "block", "max_age_ms": 5.0}},
    {"policy": {"overflow": "drop_oldest", "key": "env"}},
    {"policy": {"overflow": "sometimes"}},
    {"policy": {"overflow": "drop_oldest", "max_age_ms": -1.0}},
    {"window": 0},
    {"window": 1 << 40},
    {"decimate": 0},
    {"received": {"no stream": 1}},
    {"received": {"a" * 32: -1}},
]


@pytest.mark.parametrize("changes", absurd_hellos, ids=str)
def test_an_absurd_hello_is_counted_and_affects_nobody(rig: RouterRig, changes: dict[str, object]) -> None:
    """It has no place, and whoever is there is served as before."""
    source, keeper = rig.source(), rig.subscriber("keeper", BLOCK)
    odd = FakeSubscriber(rig.settings, "odd")
    rig.subscribers.append(odd)
    odd.control.send(_hello(**changes))
    until(lambda: rig.router.rejections.total == 1, rig.turn)
    assert rig.router.rejections.by_reason == {"invalid": 1}
    assert list(rig.router.bus.subscribers) == ["keeper"]
    rig.publish(source, 1, 3)
    until(lambda: keeper.seqs == [1, 2, 3], rig.turn)


def test_a_decimation_that_contradicts_the_policy_is_refused_with_the_reason(rig: RouterRig) -> None:
    """For good: `block` misses no step, so none may be left out."""
    odd = FakeSubscriber(rig.settings, "odd")
    rig.subscribers.append(odd)
    odd.say(SubscriberHello(name="odd", instance="1", kinds=list(KINDS), policy=BLOCK, decimate=5))
    until(lambda: bool(odd.heard), rig.turn)
    (refused,) = heard(odd, SubscriberRefused)
    assert refused.is_final
    assert "decimate" in refused.reason
    assert not rig.router.bus.subscribers


def test_an_echo_from_the_future_moves_no_account(rig: RouterRig) -> None:
    """Refused and counted, whatever was taken up from the router before."""
    source, gui = _crash_with_a_lossy_subscriber(rig)
    rig.rejoin(gui, LOSSY)
    rig.resume(source)
    rig.publish(source, 1, 80)
    until(lambda: gui.seqs[-1:] == [80], rig.turn)
    gui.echo(gui.deliveries[-1].number + 1)
    until(lambda: rig.router.rejections.by_reason == {"echo": 1}, rig.turn)
    account = _account(rig, "gui", source)
    assert (account.delivered, account.queued) == (20, 10)


def test_a_body_that_cannot_be_parted_is_counted_and_acked_like_any_other(rig: RouterRig) -> None:
    """The one that wanted a part goes without; the durable path has it."""
    source, keeper = rig.source(), rig.subscriber("keeper", BLOCK)
    part = FakeSubscriber(rig.settings, "part")
    rig.subscribers.append(part)
    part.say(SubscriberHello(name="part", instance="1", kinds=list(KINDS), decimate=2, policy=LOSSY))
    until(lambda: part.is_welcome and rig.bus_subscriber("part").is_live, rig.turn)
    head, body = make_batch(source.info, 1, step=3).frames
    odd = bytearray(head)
    odd[48 + 8] += 1  # the section's size: one byte more than three rows
    source.send(bytes(odd), bytes(body) + b"\x00")
    until(lambda: bool(keeper.deliveries), rig.turn)
    assert rig.router.rejections.by_reason == {"rows": 1}
    keeper.echo()
    until(lambda: source.acked_seq == 3, rig.turn)


def test_a_connection_that_breaks_and_comes_back_by_itself_is_made_anew(rig: RouterRig) -> None:
    """What was on its way is queued again for a `block` subscriber: no echo of a later delivery acks over it."""
    source, keeper = rig.source(), rig.subscriber("keeper", BLOCK)
    rig.publish(source, 1, 10)
    until(lambda: len(keeper.deliveries) == 1, rig.turn)
    assert keeper.data is not None
    keeper.data.send(b"\x00")  # as ZeroMQ tells it: the subscription ends, and begins again at once
    keeper.data.send(b"\x01")
    rig.publish(source, 11, 10)
    rig.settle()
    assert not rig.bus_subscriber("keeper").is_live
    assert keeper.seqs == list(range(1, 11))
    keeper.say(SubscriberLease(name="keeper", instance=keeper.instance))
    until(lambda: bool(heard(keeper, SubscriberRefused)), rig.turn)
    rig.rejoin(keeper, BLOCK)
    until(lambda: keeper.seqs[10:] == list(range(1, 21)), rig.turn)
    keeper.echo()
    until(lambda: source.acked_seq == 20, rig.turn)
