"""Who could still write a stream is known from what its proxy says, and told to whom it concerns."""

from collections.abc import Iterator

import pytest
from unit.actors.router_rig import RouterRig

from runlane.actors.stream_lease import ALIVE_S, MAX_STREAMS, StreamLeases
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy, Settings
from runlane.transport.messages import StreamsAlive
from runlane.transport.testing import FakeClock, FakeSource, FakeSubscriber, until
from runlane.transport.wire import MAX_CONTROL_BYTES, encode_control

BLOCK = QueuePolicy("block", MAX_BATCH_RECORDS)
A, B = b"a" * 16, b"b" * 16


def alive(leases: StreamLeases, now_s: float, *keys: bytes) -> list[str]:
    return [stream for streams in leases.alive(keys, now_s) for stream in streams]


def test_a_stream_is_alive_for_a_lease_after_its_last_word() -> None:
    """Each by itself; one that closed, or never spoke, is not listed."""
    leases = StreamLeases(3.0)
    leases.hear(A, 10.0)
    leases.hear(B, 11.0)
    assert alive(leases, 13.0, A, B) == [A.hex(), B.hex()]
    assert alive(leases, 13.5, A, B) == [B.hex()]
    assert alive(leases, 13.5, A) == []
    assert alive(leases, 13.5, A, B) == []


def test_time_without_listening_counts_for_nobody() -> None:
    """A full `block` queue stops the router's ears; nobody dies of that."""
    leases = StreamLeases(3.0)
    leases.turn(0.0, is_listening=True)
    leases.hear(A, 0.0)
    leases.turn(60.0, is_listening=False)
    assert alive(leases, 63.0, A) == [A.hex()]
    assert alive(leases, 63.1, A) == []


def test_it_is_time_to_tell_once_a_second() -> None:
    """However often the router turns."""
    leases = StreamLeases(3.0)
    turns = [leases.turn(number * ALIVE_S / 4, is_listening=True) for number in range(9)]
    assert turns == [True, False, False, False, True, False, False, False, True]


def test_many_streams_come_in_messages_of_bounded_size() -> None:
    """Far below what a control frame may hold."""
    leases = StreamLeases(3.0)
    keys = [number.to_bytes(16, "big") for number in range(MAX_STREAMS + 1)]
    for key in keys:
        leases.hear(key, 0.0)
    sizes = [len(encode_control(StreamsAlive(streams=streams))) for streams in leases.alive(keys, 1.0)]
    assert len(sizes) == 2
    assert max(sizes) < MAX_CONTROL_BYTES / 4


# ---- in the router ---------------------------------------------------------------------------------------


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RouterRig]:
    """A router, and whoever talks to it."""
    rig = RouterRig(settings.__class__(data_dir=settings.data_dir, transport=settings.transport), clock)
    yield rig
    rig.close()


def told(subscriber: FakeSubscriber) -> list[list[str]]:
    return [message.streams for message in subscriber.announced if isinstance(message, StreamsAlive)]


def next_word(rig: RouterRig, subscriber: FakeSubscriber) -> list[str]:
    """What the subscriber hears a second later."""
    before = len(told(subscriber))
    rig.clock.move(ALIVE_S)
    until(lambda: len(told(subscriber)) > before, rig.turn)
    return told(subscriber)[-1]


def test_block_subscribers_hear_every_second_who_is_alive(rig: RouterRig) -> None:
    """A hello or a batch is a word; a stream silent for the lease is left out, and lossy subscribers hear nothing."""
    durable, viewer = rig.subscriber("durable", BLOCK), rig.subscriber("viewer")
    first, second = rig.source(), rig.source()
    streams = [source.info.stream for source in (first, second)]
    assert next_word(rig, durable) == streams
    rig.clock.move(rig.settings.router.lease_s - 1.5 * ALIVE_S)
    rig.publish(second, 1)
    rig.settle()  # the word that was due before the batch has arrived
    assert next_word(rig, durable) == [streams[1]]
    assert _says_hello(rig, first, durable) == streams
    assert not told(viewer)


def _says_hello(rig: RouterRig, source: FakeSource, subscriber: FakeSubscriber) -> list[str]:
    heard = len(source.heard)
    source.hello()
    until(lambda: len(source.heard) > heard, rig.turn)
    return next_word(rig, subscriber)


def test_a_subscriber_that_reads_nothing_holds_nobody_up(rig: RouterRig) -> None:
    """Its pipe fills with words about who is alive; they are left out, and deliveries to others go on."""
    rig.source()
    deaf = FakeSubscriber(rig.settings, "deaf")
    rig.subscribers.append(deaf)
    deaf.hello(BLOCK, window=1)
    until(lambda: deaf.is_welcome and rig.bus_subscriber("deaf").is_live, rig.turn)
    rig.subscribers.remove(deaf)
    viewer = rig.subscriber("viewer")
    for _ in range(200):
        rig.clock.move(ALIVE_S)
        rig.router.do_work(0.0)
    rig.publish(rig.source(), 1)
    until(lambda: bool(viewer.deliveries), rig.turn)
    deaf.close()
