"""The router counts what is no message of ours, by reason and whoever sent it, and goes on serving everybody."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from unit.actors.router_rig import RouterRig, heard

from runlane.actors.router import RouterActor
from runlane.config.errors import EndpointError
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy, Settings, TransportSettings
from runlane.transport.endpoint import endpoint_of
from runlane.transport.keys import create_keys
from runlane.transport.messages import StatusRequest, SubscriberWelcome
from runlane.transport.sockets import Context, bind_router
from runlane.transport.testing import FakeClock, FakeSource, FakeSubscriber, make_batch, make_info, until
from runlane.transport.wire import (
    MAX_BODY_BYTES,
    MAX_CONTROL_BYTES,
    Section,
    encode_control,
    encode_delivery_prefix,
    encode_echo,
    encode_header,
)

BLOCK = QueuePolicy("block")
INFO = make_info()
KEY = bytes.fromhex(INFO.stream)
WHOLE = make_batch(INFO, 1, step=2)
NEWER = b"RL\x02C\x80"
OVERSIZED_CONTROL = b"RL\x01C" + bytes(MAX_CONTROL_BYTES)
TOO_MANY = MAX_BATCH_RECORDS + 1
LARGE = encode_header(KEY, 1, 1, 0, [Section(4, 0, 1, MAX_BODY_BYTES + 1)])


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RouterRig]:
    """A router without declared subscribers."""
    rig = RouterRig(msgspec.structs.replace(settings, subscribers={}), clock)
    yield rig
    rig.close()


def _still_serves(rig: RouterRig) -> None:
    """A new source and a new subscriber meet, and the ack comes back."""
    source, subscriber = rig.source(), rig.subscriber("later", BLOCK)
    rig.publish(source, 1, 3)
    until(lambda: subscriber.seqs == [1, 2, 3], rig.turn)
    subscriber.echo()
    until(lambda: source.acked_seq == 3, rig.turn)


ingress_faults: list[tuple[list[bytes], str]] = [
    ([b""], "short"),
    ([b"garbage"], "magic"),
    ([b"garbage", b"more", b""], "magic"),
    ([NEWER], "version"),
    ([b"RL\x02B" + bytes(44), b"body"], "version"),
    ([OVERSIZED_CONTROL], "oversized"),
    ([LARGE, bytes(MAX_BODY_BYTES + 1)], "oversized"),
    ([b"RL\x01C\xc1"], "msgpack"),
    ([b"RL\x01C\x80"], "invalid"),
    ([encode_control(StatusRequest())], "unexpected"),
    ([encode_control(StatusRequest()), b"more"], "frames"),
    ([encode_echo(1)], "type"),
    ([encode_delivery_prefix(1, 1), *map(bytes, WHOLE.frames)], "type"),
    ([bytes(WHOLE.frames[0])], "size"),
    ([*map(bytes, WHOLE.frames), b"one too many"], "size"),
    ([bytes(WHOLE.frames[0]), b"cut"], "size"),
    ([encode_header(KEY, 1, TOO_MANY, 0, [Section(1, 0, TOO_MANY, 4)]), b"body"], "count"),
]


@pytest.mark.parametrize(("frames", "reason"), ingress_faults, ids=range(len(ingress_faults)))
def test_faults_at_ingress_are_counted_and_survived(rig: RouterRig, frames: list[bytes], reason: str) -> None:
    """Garbage, an unknown version, too much, too little: one count by its reason, and nobody notices."""
    stranger = FakeSource(rig.settings, endpoint_of(rig.settings, INGRESS_SOCKET), INFO)
    rig.sources.append(stranger)
    stranger.send(*frames)
    until(lambda: rig.router.rejections.total == 1, rig.turn)
    assert rig.router.rejections.by_reason == {reason: 1}
    assert rig.router.statistics()["rejected"] == {reason: 1}
    _still_serves(rig)


def test_a_batch_that_is_half_new_reaches_nobody(rig: RouterRig) -> None:
    """Counted as an overlap; what follows in order is taken."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1, 3)
    source.send(*make_batch(source.info, 2, step=5).frames)
    rig.publish(source, 4, 2)
    until(lambda: subscriber.seqs == [1, 2, 3, 4, 5], rig.turn)
    assert rig.router.rejections.by_reason == {"overlap": 1}


control_faults: list[tuple[list[bytes], str]] = [
    ([b""], "short"),
    ([b"garbage"], "magic"),
    ([NEWER], "version"),
    ([OVERSIZED_CONTROL], "oversized"),
    ([encode_control(StatusRequest())], "unexpected"),
    ([encode_control(StatusRequest()), b"more"], "frames"),
    (list(map(bytes, WHOLE.frames[:1])), "type"),
]


@pytest.mark.parametrize(("frames", "reason"), control_faults, ids=range(len(control_faults)))
def test_faults_at_control_are_counted_and_survived(rig: RouterRig, frames: list[bytes], reason: str) -> None:
    """The same where subscribers join."""
    stranger = FakeSubscriber(rig.settings, "stranger")
    rig.subscribers.append(stranger)
    stranger.control.send_multipart(frames)
    until(lambda: rig.router.rejections.total == 1, rig.turn)
    assert rig.router.rejections.by_reason == {reason: 1}
    _still_serves(rig)


egress_faults: list[tuple[list[bytes], str]] = [
    ([b"garbage"], "magic"),
    ([b"RL\x02E12345678"], "version"),
    ([b"RL\x01E" + bytes(2 << 20)], "type"),
    ([OVERSIZED_CONTROL], "type"),
    ([encode_echo(1 << 63)], "echo"),
]


@pytest.mark.parametrize(("frames", "reason"), egress_faults, ids=range(len(egress_faults)))
def test_faults_at_egress_are_counted_and_survived(rig: RouterRig, frames: list[bytes], reason: str) -> None:
    """A subscriber that echoes nonsense, or the future, moves no ack and is still served."""
    source, subscriber = rig.source(), rig.subscriber("odd", BLOCK)
    rig.publish(source, 1, 2)
    subscriber.send(*frames)
    until(lambda: rig.router.rejections.total == 1, rig.turn)
    assert rig.router.rejections.by_reason == {reason: 1}
    rig.publish(source, 3, 1)
    until(lambda: subscriber.seqs == [1, 2, 3], rig.turn)
    assert source.acked_seq == 0
    subscriber.echo()
    until(lambda: source.acked_seq == 3, rig.turn)
    assert rig.bus_subscriber("odd").queue.statistics().delivered == 3


def test_a_flood_of_garbage_lets_others_through(rig: RouterRig) -> None:
    """A turn takes a bounded burst, so control and echoes have theirs."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    stranger = FakeSource(rig.settings, endpoint_of(rig.settings, INGRESS_SOCKET), INFO)
    rig.sources.append(stranger)
    for _ in range(90):
        stranger.send(b"garbage")
    rig.publish(source, 1)
    until(lambda: subscriber.seqs == [1], rig.turn)
    until(lambda: rig.router.rejections.by_reason == {"magic": 90}, rig.turn)


def test_a_peer_that_vanishes_before_its_answer_is_survived(rig: RouterRig) -> None:
    """An answer to nobody is dropped."""
    for _ in range(5):
        source = FakeSource(rig.settings, endpoint_of(rig.settings, INGRESS_SOCKET), make_info())
        source.hello()
        source.socket.close(1_000)
        source.close()
    until(lambda: len(rig.router.bus.streams) == 5, rig.turn)
    _still_serves(rig)


def test_an_ack_that_finds_no_peer_is_said_again_at_the_next_hello(rig: RouterRig) -> None:
    """The proxy was away when its batch was committed; its hello brings the ack."""
    source, subscriber = rig.source(), rig.subscriber("a", BLOCK)
    rig.publish(source, 1)
    until(lambda: subscriber.seqs == [1], rig.turn)
    source.close()
    rig.sources.clear()
    subscriber.echo()
    rig.settle()
    again = rig.source(source.info)
    until(lambda: again.acked_seq == 1, rig.turn)


# ---- TCP -------------------------------------------------------------------------------------------------


def _free_port() -> int:
    """A port with two free ones behind it, as the fixed roles need."""
    with zmq.Context() as context:
        while True:
            with context.socket(zmq.ROUTER) as probe:
                port = probe.bind_to_random_port("tcp://127.0.0.1", 20_000, 60_000)
            try:
                with context.socket(zmq.ROUTER) as first, context.socket(zmq.ROUTER) as second:
                    first.bind(f"tcp://127.0.0.1:{port + 1}")
                    second.bind(f"tcp://127.0.0.1:{port + 2}")
            except zmq.ZMQError:
                continue
            return port


@pytest.mark.parametrize("with_keys", [False, True])
def test_a_router_serves_over_tcp(settings: Settings, clock: FakeClock, with_keys: bool) -> None:
    """The same on loopback ports, with keys and without; and it ends, answerer and all."""
    keys_dir = None
    if with_keys:
        keys_dir = f"{settings.data_dir}-keys"
        create_keys(Path(keys_dir))
    transport = TransportSettings(kind="tcp", port=_free_port(), run_dir=settings.transport.run_dir, keys_dir=keys_dir)
    rig = RouterRig(msgspec.structs.replace(settings, subscribers={}, transport=transport), clock)
    try:
        _still_serves(rig)
        assert heard(rig.subscribers[0], SubscriberWelcome)[0].endpoint.startswith("tcp://127.0.0.1:")
    finally:
        rig.close()


def test_a_router_whose_port_is_taken_says_so_and_ends(settings: Settings, clock: FakeClock) -> None:
    """An error of ours, and nothing is left open."""
    transport = TransportSettings(kind="tcp", port=_free_port(), run_dir=settings.transport.run_dir)
    chosen = msgspec.structs.replace(settings, transport=transport)
    context: Context = zmq.Context()
    with context, bind_router(context, f"tcp://127.0.0.1:{transport.port + 2}", 1, transport):
        router = RouterActor(chosen, clock)
        with pytest.raises(EndpointError, match="is another graph running there"):
            router.on_start()
        router.on_close()
