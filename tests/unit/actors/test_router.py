"""The router, moved by hand on real unix sockets: streams in, deliveries out, acks back, nothing lost on the way."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from unit.actors.router_rig import RouterRig, heard

from runlane.actors.router import LAST_WORDS_S, RouterActor
from runlane.config.errors import EndpointError
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy, RouterSettings, Settings, SubscriberSettings
from runlane.transport.endpoint import endpoint_of
from runlane.transport.messages import (
    RouterBye,
    StepSchema,
    StreamAck,
    StreamBye,
    StreamNack,
    StreamOpened,
    StreamWelcome,
    SubscriberBye,
    SubscriberLease,
    SubscriberRefused,
    SubscriberWelcome,
)
from runlane.transport.testing import SEQ_ONLY, FakeClock, FakeSource, FakeSubscriber, make_batch, make_info, until

BLOCK = QueuePolicy("block")
LOSSY = QueuePolicy("drop_oldest", MAX_BATCH_RECORDS)


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RouterRig]:
    """A router without declared subscribers."""
    rig = RouterRig(msgspec.structs.replace(settings, subscribers={}), clock)
    yield rig
    rig.close()


@pytest.fixture
def declared(settings: Settings, clock: FakeClock) -> Iterator[RouterRig]:
    """A router whose settings declare one `block` subscriber, `db_writer`, and a small ingress window."""
    subscribers = {"db_writer": SubscriberSettings(overflow="block", max_queue=MAX_BATCH_RECORDS, window=4)}
    chosen = msgspec.structs.replace(settings, subscribers=subscribers, router=RouterSettings(ingress_hwm=2))
    rig = RouterRig(chosen, clock)
    yield rig
    rig.close()


# ---- streams ---------------------------------------------------------------------------------------------


def test_a_stream_is_welcomed_with_what_is_expected(rig: RouterRig) -> None:
    """The welcome names the router, echoes `sent_seq`, and the ack so far comes with it."""
    source = rig.source(oldest_seq=5)
    (welcome,) = heard(source, StreamWelcome)
    expected = StreamWelcome(stream=source.info.stream, receiver=rig.router.router_id, expected_seq=5, sent_seq=0)
    assert welcome == expected
    until(lambda: bool(heard(source, StreamAck)), rig.turn)
    assert heard(source, StreamAck) == [StreamAck(stream=source.info.stream, seq=4)]


def test_a_batch_goes_in_and_comes_out_and_is_acked(rig: RouterRig) -> None:
    """Source → router → subscriber, whose echo is the ack."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1, 3)
    until(lambda: subscriber.seqs == [1, 2, 3], rig.turn)
    assert source.acked_seq == 0
    subscriber.echo()
    until(lambda: source.acked_seq == 3, rig.turn)


def test_the_header_a_subscriber_reads_is_the_one_the_source_wrote(rig: RouterRig) -> None:
    """Nothing is decoded and encoded again on the way."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    batch = make_batch(source.info, 1, step=2, episode=1, log=4)
    source.send(*batch.frames)
    until(lambda: bool(subscriber.deliveries), rig.turn)
    delivery = subscriber.deliveries[0]
    assert delivery.bodies == batch.frames[1:]
    assert (delivery.header.stream.hex(), delivery.header.records) == (source.info.stream, 7)


def test_a_gap_is_asked_for_once_and_filled(rig: RouterRig) -> None:
    """What comes behind a hole is not taken: the source goes back to the hole."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    batches = [make_batch(source.info, seq, step=2) for seq in (1, 3, 5)]
    for batch in (batches[0], batches[2], batches[2]):
        source.send(*batch.frames)
    until(lambda: bool(heard(source, StreamNack)), rig.turn)
    rig.settle()
    assert heard(source, StreamNack) == [StreamNack(stream=source.info.stream, expected_seq=3)]
    source.send(*batches[1].frames)
    source.send(*batches[2].frames)
    until(lambda: subscriber.seqs == [1, 2, 3, 4, 5, 6], rig.turn)


def test_a_stranger_is_asked_to_say_hello(rig: RouterRig) -> None:
    """A batch of an unknown stream, as after a restart of the router, is answered with seq 0 and not taken."""
    source = FakeSource(rig.settings, endpoint_of(rig.settings, INGRESS_SOCKET), make_info())
    rig.sources.append(source)
    source.send(*make_batch(source.info, 1, step=1).frames)
    until(lambda: bool(source.heard), rig.turn)
    assert source.heard == [StreamNack(stream=source.info.stream, expected_seq=0)]
    assert rig.router.bus.records_in == 0


def test_a_known_stream_at_a_new_address_must_say_hello_first(rig: RouterRig) -> None:
    """A proxy that restarted is heard once it has said where it is; acks go there."""
    old = rig.source()
    rig.publish(old, 1, 2)
    new = FakeSource(rig.settings, endpoint_of(rig.settings, INGRESS_SOCKET), old.info)
    rig.sources.append(new)
    new.send(*make_batch(old.info, 3, step=1).frames)
    until(lambda: bool(new.heard), rig.turn)
    assert new.heard == [StreamNack(stream=old.info.stream, expected_seq=0)]
    new.hello()
    until(lambda: bool(heard(new, StreamWelcome)), rig.turn)
    assert heard(new, StreamWelcome)[0].expected_seq == 3
    rig.publish(new, 3)
    until(lambda: new.acked_seq == 3, rig.turn)


def test_a_duplicate_is_not_delivered_again(rig: RouterRig) -> None:
    """An ack may be lost on the way and the batch be sent again: it is acked again, once delivered."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1)
    source.send(*make_batch(source.info, 1, step=1).frames)
    rig.publish(source, 2)
    until(lambda: subscriber.seqs == [1, 2], rig.turn)
    assert rig.router.bus.duplicates == 1


def test_a_goodbye_closes_the_stream_and_nobody_elses(rig: RouterRig) -> None:
    """Only the stream's own proxy may say it."""
    source, other = rig.source(), rig.source()
    other.say(StreamBye(stream=source.info.stream))
    rig.settle()
    assert len(rig.router.bus.streams) == 2
    source.bye()
    until(lambda: list(rig.router.bus.streams) == [bytes.fromhex(other.info.stream)], rig.turn)


# ---- subscribers -----------------------------------------------------------------------------------------


def test_a_welcome_says_where_how_and_from_which_number(rig: RouterRig) -> None:
    """Endpoint, policy, window; delivery numbers begin at the clock, so that no restart repeats one."""
    subscriber = rig.subscriber("a", LOSSY, window=5)
    (welcome,) = heard(subscriber, SubscriberWelcome)
    assert (welcome.policy, welcome.window, welcome.router) == (LOSSY, 5, rig.router.router_id)
    assert welcome.first_number == rig.clock.wall_ns()
    rig.publish(rig.source(), 1)
    until(lambda: bool(subscriber.deliveries), rig.turn)
    assert subscriber.deliveries[0].number == welcome.first_number + 1


def test_a_stream_is_announced_before_its_first_delivery_and_when_it_grows(rig: RouterRig) -> None:
    """Nobody is sent rows whose layout it was not told."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1)
    rig.publish(source, 2)
    until(lambda: len(subscriber.deliveries) == 2, rig.turn)
    assert subscriber.announced == [StreamOpened(info=source.info)]
    source.info = msgspec.structs.replace(
        source.info, schemas=[SEQ_ONLY, StepSchema(schema_id=1, fields=SEQ_ONLY.fields)]
    )
    source.hello(sent_seq=2)
    rig.publish(source, 3)
    until(lambda: len(subscriber.deliveries) == 3, rig.turn)
    assert subscriber.announced[1:] == [StreamOpened(info=source.info)]


def test_the_window_bounds_what_is_under_way(rig: RouterRig) -> None:
    """A subscriber that echoes nothing gets `window` deliveries and no more; an echo lets the next ones out."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK, window=3)
    for seq in range(1, 8):
        rig.publish(source, seq)
    until(lambda: len(subscriber.deliveries) == 3, rig.turn)
    rig.settle()
    assert subscriber.seqs == [1, 2, 3]
    subscriber.echo(subscriber.deliveries[1].number)
    until(lambda: subscriber.seqs == [1, 2, 3, 4, 5], rig.turn)


def test_a_stopped_lossy_subscriber_costs_nobody_else_anything(rig: RouterRig) -> None:
    """Its queue overflows by its policy, counted; the other gets all and is acked for all."""
    source = rig.source()
    rig.subscriber("stopped", LOSSY, window=1)
    other = rig.subscriber("other", BLOCK)
    for index in range(10):
        rig.publish(source, 1 + 400 * index, 400)
    until(lambda: len(other.seqs) == 4_000, rig.turn)
    other.echo()
    until(lambda: source.acked_seq == 4_000, rig.turn)
    figures = rig.bus_subscriber("stopped").queue.statistics()
    assert (figures.in_flight, figures.depth, figures.dropped) == (400, 800, {"drop_oldest": 2_800})


def test_the_same_name_is_refused_while_the_first_lives(rig: RouterRig) -> None:
    """Not for good: a process just killed may not be known dead yet. The first is not disturbed."""
    source, first = rig.source(), rig.subscriber("a", BLOCK)
    second = FakeSubscriber(rig.settings, "a", instance="2")
    rig.subscribers.append(second)
    second.hello(BLOCK)
    until(lambda: bool(second.heard), rig.turn)
    (refused,) = heard(second, SubscriberRefused)
    assert refused.is_final is False
    assert "connected already" in refused.reason
    rig.publish(source, 1)
    until(lambda: first.seqs == [1], rig.turn)


def test_the_same_name_is_taken_over_from_a_silent_one(rig: RouterRig) -> None:
    """Its lease is over: connected, but no sign of life for `lease_s`."""
    rig.subscriber("a", BLOCK)
    rig.clock.move(rig.settings.router.lease_s + 0.1)
    assert rig.subscriber("a", BLOCK, instance="2").is_welcome


def test_a_lease_keeps_the_name(rig: RouterRig) -> None:
    """A kept lease is echoed, and the name stays taken however long ago the hello was."""
    first = rig.subscriber("a", BLOCK)
    lease = SubscriberLease(name="a", instance="1")
    for count in (1, 2, 3):
        rig.clock.move(rig.settings.router.lease_s * 0.9)
        first.say(lease)
        until(lambda count=count: len(heard(first, SubscriberLease)) == count, rig.turn)
    second = FakeSubscriber(rig.settings, "a", instance="2")
    rig.subscribers.append(second)
    second.hello(BLOCK)
    until(lambda: bool(second.heard), rig.turn)
    assert not second.is_welcome


@pytest.mark.parametrize("lease", [SubscriberLease(name="a", instance="9"), SubscriberLease(name="b", instance="1")])
def test_a_lease_of_nobody_known_is_refused_but_not_for_good(rig: RouterRig, lease: SubscriberLease) -> None:
    """So a subscriber of a former router learns that it must say hello."""
    subscriber = rig.subscriber("a", BLOCK)
    subscriber.say(lease)
    until(lambda: bool(heard(subscriber, SubscriberRefused)), rig.turn)
    assert heard(subscriber, SubscriberRefused)[0].is_final is False


@pytest.mark.parametrize(
    ("name", "kinds", "part"),
    [("a b", ["step"], "plain name"), ("a", ["steps"], "record kind"), ("a", [], "record kind")],
)
def test_an_impossible_hello_is_refused_for_good(rig: RouterRig, name: str, kinds: list[str], part: str) -> None:
    """With the reason, so that the person who wrote it can mend it."""
    subscriber = FakeSubscriber(rig.settings, name)
    rig.subscribers.append(subscriber)
    subscriber.hello(LOSSY, kinds)
    until(lambda: bool(subscriber.heard), rig.turn)
    (refused,) = heard(subscriber, SubscriberRefused)
    assert refused.is_final
    assert part in refused.reason
    assert not rig.router.bus.subscribers


# ---- subscribers that go and come back -------------------------------------------------------------------


def test_a_restarted_block_subscriber_gets_its_unacked_batches_again(rig: RouterRig) -> None:
    """In order and whole; what it had echoed is not sent twice."""
    source, first = rig.source(), rig.subscriber("a", BLOCK, window=3)
    for seq in range(1, 6):
        rig.publish(source, seq)
    until(lambda: first.seqs == [1, 2, 3], rig.turn)
    first.echo(first.deliveries[0].number)
    until(lambda: source.acked_seq == 1, rig.turn)
    first.close()
    rig.subscribers.clear()
    until(lambda: not rig.bus_subscriber("a").is_live, rig.turn)
    second = rig.subscriber("a", BLOCK, instance="2", window=9)
    until(lambda: len(second.deliveries) >= 3, rig.turn)
    second.echo()
    until(lambda: source.acked_seq == 5, rig.turn, second.echo)
    assert second.seqs == [2, 3, 4, 5]
    assert first.announced == [StreamOpened(info=source.info)]
    assert second.announced == [StreamOpened(info=source.info, after_seq=1)]
    assert second.deliveries[0].number > first.deliveries[-1].number
    figures = rig.bus_subscriber("a").queue.statistics()
    assert (figures.published, figures.delivered, figures.dropped) == (5, 5, {})


def test_a_restarted_lossy_subscriber_is_told_what_it_may_have_missed(rig: RouterRig) -> None:
    """Nobody can say whether the dead process read what was under way: it counts as dropped, the rest is kept."""
    source, first = rig.source(), rig.subscriber("a", LOSSY, window=2)
    for seq in range(1, 5):
        rig.publish(source, seq)
    until(lambda: first.seqs == [1, 2], rig.turn)
    first.close()
    rig.subscribers.clear()
    until(lambda: not rig.bus_subscriber("a").is_live, rig.turn)
    second = rig.subscriber("a", LOSSY, instance="2")
    until(lambda: second.seqs == [3, 4], rig.turn)
    figures = rig.bus_subscriber("a").queue.statistics()
    assert (figures.published, figures.in_flight, figures.dropped) == (4, 2, {"subscriber_restart": 2})


def test_a_subscriber_that_leaves_gives_up_its_place(rig: RouterRig) -> None:
    """What waited is counted as dropped; an undeclared `block` subscriber holds no ack up any longer."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK, window=1)
    for seq in range(1, 4):
        rig.publish(source, seq)
    queue = rig.bus_subscriber("a").queue
    subscriber.say(SubscriberBye(name="a", instance="1"))
    until(lambda: not rig.router.bus.subscribers, rig.turn)
    assert queue.statistics().dropped == {"subscriber_left": 3}
    until(lambda: source.acked_seq == 3, rig.turn)


def test_a_goodbye_of_a_former_instance_is_passed_over(rig: RouterRig) -> None:
    """It may arrive after its successor's hello."""
    subscriber = rig.subscriber("a", BLOCK, instance="2")
    subscriber.say(SubscriberBye(name="a", instance="1"))
    rig.settle()
    assert rig.bus_subscriber("a").is_live


def test_an_undeclared_subscriber_that_died_is_forgotten_after_its_lease(rig: RouterRig) -> None:
    """Not before: it may be back in a moment and want what waits."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1)
    subscriber.close()
    rig.subscribers.clear()
    until(lambda: not rig.bus_subscriber("a").is_live, rig.turn)
    rig.clock.move(rig.settings.router.lease_s * 0.9)
    rig.settle()
    assert "a" in rig.router.bus.subscribers
    rig.clock.move(rig.settings.router.lease_s)
    until(lambda: "a" not in rig.router.bus.subscribers, rig.turn)
    until(lambda: source.acked_seq == 1, rig.turn)


# ---- declared subscribers --------------------------------------------------------------------------------


def test_a_declared_subscribers_queue_is_there_before_it_joins(declared: RouterRig) -> None:
    """So nothing meant for the durable path is ever acked without it."""
    source = declared.source()
    declared.publish(source, 1, 5)
    declared.settle()
    assert source.acked_seq == 0
    writer = declared.subscriber("db_writer")
    until(lambda: writer.seqs == [1, 2, 3, 4, 5], declared.turn)
    writer.echo()
    until(lambda: source.acked_seq == 5, declared.turn)


def test_a_declared_subscribers_queue_outlives_its_process(declared: RouterRig) -> None:
    """However long it is away, what waits is kept and unacked."""
    source, writer = declared.source(), declared.subscriber("db_writer")
    declared.publish(source, 1, 5)
    writer.say(SubscriberBye(name="db_writer", instance="1"))
    until(lambda: not declared.bus_subscriber("db_writer").is_live, declared.turn)
    declared.clock.move(3_600)
    declared.settle()
    assert source.acked_seq == 0
    again = declared.subscriber("db_writer", instance="2")
    until(lambda: again.seqs == [1, 2, 3, 4, 5], declared.turn)


def test_a_declared_policy_cannot_be_talked_away(declared: RouterRig) -> None:
    """A hello with another policy is refused for good; with the same, or none, it is let in."""
    rude = FakeSubscriber(declared.settings, "db_writer")
    declared.subscribers.append(rude)
    rude.hello(QueuePolicy("latest"))
    until(lambda: bool(rude.heard), declared.turn)
    (refused,) = heard(rude, SubscriberRefused)
    assert refused.is_final
    assert "declared in the settings" in refused.reason
    polite = declared.subscriber("db_writer", QueuePolicy("block", MAX_BATCH_RECORDS), instance="2", window=99)
    assert heard(polite, SubscriberWelcome)[0].window == 4


# ---- backpressure ----------------------------------------------------------------------------------------


def _fill(source: FakeSource) -> int:
    """Send full batches until the socket takes no more; returns how many records went out."""
    source.socket.setsockopt(zmq.SNDTIMEO, 0)
    sent = 0
    with contextlib.suppress(zmq.Again):
        while True:
            source.send(*make_batch(source.info, sent + 1, step=MAX_BATCH_RECORDS).frames)
            sent += MAX_BATCH_RECORDS
    return sent


def test_a_full_block_queue_stops_ingress_and_it_resumes(declared: RouterRig) -> None:
    """While it is full the router reads no more, so the sender's socket fills; room lets everything through."""
    source = declared.source()
    sent = _fill(source)
    declared.settle()
    assert declared.router.bus.is_blocked
    assert declared.router.bus.records_in == MAX_BATCH_RECORDS < sent
    writer = declared.subscriber("db_writer")

    def resume() -> None:
        declared.turn()
        if writer.deliveries:
            writer.echo()

    until(lambda: source.acked_seq == sent, resume)
    assert writer.seqs == list(range(1, sent + 1))


def test_a_subscriber_can_join_while_ingress_is_stopped(declared: RouterRig) -> None:
    """Otherwise the one that would make room could never come."""
    source = declared.source()
    declared.publish(source, 1)
    declared.settle()
    assert declared.router.statistics()["is_blocked"]
    assert declared.subscriber("db_writer").is_welcome


# ---- life ------------------------------------------------------------------------------------------------


def test_a_second_router_is_refused_and_disturbs_nobody(rig: RouterRig) -> None:
    """Its lock is held: no socket is stolen from the first."""
    source = rig.source()
    second = RouterActor(rig.settings, rig.clock)
    with pytest.raises(EndpointError, match="router is running already"):
        second.on_start()
    second.on_close()
    rig.publish(source, 1)


def test_a_closed_router_leaves_nothing(rig: RouterRig, run_dir: Path) -> None:
    """Every socket file and the lock are gone; a subscriber has heard goodbye behind its last delivery."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1)
    assert len(list(run_dir.iterdir())) == 6
    rig.router.on_close()
    assert list(run_dir.iterdir()) == []
    goodbye = RouterBye(router=rig.router.router_id)
    until(lambda: goodbye in subscriber.announced, subscriber.listen)
    assert subscriber.seqs == [1]
    assert subscriber.announced[-1] == goodbye
    rig.start()


def test_a_new_router_hears_everything_unacked_again(rig: RouterRig) -> None:
    """It knows nobody; a hello with the oldest unacked seq begins the stream there, nothing is asked for twice."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1, 3)
    until(lambda: bool(subscriber.deliveries), rig.turn)
    subscriber.echo()
    until(lambda: source.acked_seq == 3, rig.turn)
    rig.publish(source, 4, 2)
    rig.restart()
    again = rig.subscriber("b", BLOCK)
    source.heard.clear()
    source.hello(oldest_seq=4, sent_seq=5)
    until(lambda: bool(heard(source, StreamWelcome)), rig.turn)
    assert heard(source, StreamWelcome)[0].expected_seq == 4
    rig.publish(source, 4, 2)
    until(lambda: again.seqs == [4, 5], rig.turn)


def test_a_router_drains_when_streams_have_ended_and_the_durable_path_is_empty(declared: RouterRig) -> None:
    """A lossy subscriber's backlog gets a moment, and does not hold up a stop."""
    source, writer = declared.source(), declared.subscriber("db_writer")
    declared.subscriber("gui", LOSSY)
    declared.publish(source, 1)
    declared.router.request_stop()
    until(lambda: bool(writer.deliveries), declared.turn)
    assert not declared.router.is_drained()
    writer.echo()
    until(lambda: source.acked_seq == 1, declared.turn)
    assert not declared.router.is_drained()
    source.bye()
    until(lambda: not declared.router.bus.streams, declared.turn)
    assert not declared.router.is_drained()
    declared.clock.move(LAST_WORDS_S)
    assert declared.router.is_drained()


def test_the_heartbeat_figures_are_plain(rig: RouterRig) -> None:
    """They go through MessagePack as they are."""
    rig.subscriber("a", BLOCK)
    rig.publish(rig.source(), 1)
    figures = rig.router.statistics()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(figures)) == figures
    assert figures["subscribers"]["a"]["is_live"] is True
