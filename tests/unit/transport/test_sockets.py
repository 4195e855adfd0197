"""Sockets: every kind is bounded, closes at once, and an endpoint that cannot be is an error of ours."""

from collections.abc import Callable, Iterator

import pytest
import zmq

from runlane.config.errors import EndpointError, WireError
from runlane.config.settings import TransportSettings
from runlane.transport.messages import StatusRequest
from runlane.transport.sockets import (
    MAX_FRAME_BYTES,
    Context,
    Rejections,
    Socket,
    bind_router,
    bind_xpub,
    bound_endpoint,
    connect_dealer,
    connect_xsub,
    receive_batch,
    receive_frames,
    request,
    send_control,
    send_frames,
)
from runlane.transport.testing import until
from runlane.transport.wire import MAX_BODY_BYTES, Frame

Make = Callable[[Context, str, int, TransportSettings], Socket]
TCP = TransportSettings(kind="tcp")


@pytest.fixture
def context() -> Iterator[Context]:
    """Sockets of a test live here."""
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.mark.parametrize(
    ("make", "endpoint"),
    [
        (bind_router, "tcp://127.0.0.1:*"),
        (bind_xpub, "tcp://127.0.0.1:*"),
        (connect_dealer, "tcp://127.0.0.1:1"),
        (connect_xsub, "tcp://127.0.0.1:1"),
    ],
)
def test_every_socket_is_bounded(make: Make, endpoint: str, context: Context) -> None:
    """No infinite linger, no unlimited queue, no unlimited message; a dead peer is noticed."""
    with make(context, endpoint, 5, TCP) as socket:
        assert socket.getsockopt(zmq.LINGER) == 0
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            assert 5 <= int(socket.getsockopt(option)) <= 5 + 16
        assert MAX_BODY_BYTES < int(socket.getsockopt(zmq.MAXMSGSIZE)) <= MAX_FRAME_BYTES
        assert int(socket.getsockopt(zmq.HEARTBEAT_IVL)) > 0


def test_a_dealer_hoards_nothing_for_a_peer_that_is_not_there(context: Context) -> None:
    """What cannot be sent stays with the caller, who knows how to resend it."""
    with connect_dealer(context, "tcp://127.0.0.1:1", 5, TCP) as socket:
        assert send_control(socket, StatusRequest()) is False


def test_an_unanswered_request_ends_in_time(context: Context) -> None:
    """None, not a hang: the deadline covers sending and receiving."""
    with connect_dealer(context, "tcp://127.0.0.1:1", 5, TCP) as socket:
        assert request(socket, StatusRequest(), 0.02) is None
    with (
        bind_router(context, "tcp://127.0.0.1:*", 5, TCP) as silent,
        connect_dealer(context, bound_endpoint(silent), 5, TCP) as socket,
    ):
        until(lambda: bool(socket.poll(20, zmq.POLLOUT)))
        assert request(socket, StatusRequest(), 0.02) is None


def test_a_port_in_use_is_an_error_of_ours(context: Context) -> None:
    """It names the endpoint and what may be there."""
    with (
        bind_router(context, "tcp://127.0.0.1:*", 5, TCP) as first,
        pytest.raises(EndpointError, match="is another graph running there"),
    ):
        bind_router(context, bound_endpoint(first), 5, TCP)


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://", "carrier-pigeon://roof", ""])
def test_an_endpoint_that_cannot_be_is_an_error_of_ours(endpoint: str, context: Context) -> None:
    """A variable from outside may hold anything; the socket is closed and the error names the text."""
    with pytest.raises(EndpointError, match="cannot connect"):
        connect_dealer(context, endpoint, 5, TCP)


def test_receiving_never_waits(context: Context) -> None:
    """None where there is nothing."""
    with bind_router(context, "tcp://127.0.0.1:*", 5, TCP) as socket:
        assert receive_frames(socket) is None


def _received(socket: Socket) -> list[Frame]:
    """The next message of a batch, waited for."""
    found: list[list[Frame] | None] = []
    until(lambda: bool(found and found[-1]), lambda: found.append(receive_batch(socket) if socket.poll(20) else None))
    return found[-1] or []


def test_a_message_arrives_frame_by_frame_as_it_was_sent(context: Context) -> None:
    """Empty, small, large, a part of something larger; whether it is sent on from where it was received or not."""
    whole = memoryview(bytes(range(256)) * 200)
    frames: list[Frame] = [b"head", b"", whole, whole[1_000:40_000], bytearray(b"tail" * 5_000)]
    with (
        bind_router(context, "tcp://127.0.0.1:*", 5, TCP) as far,
        connect_dealer(context, bound_endpoint(far), 5, TCP) as near,
    ):
        until(lambda: send_frames(near, frames))
        peer, *found = _received(far)
        assert list(map(bytes, found)) == list(map(bytes, frames))
        assert send_frames(far, [peer, *found, found[2][5:20_000]])
        assert list(map(bytes, _received(near))) == list(map(bytes, [*frames, whole[5:20_000]]))


def test_only_large_frames_are_views_of_the_message(context: Context) -> None:
    """A view is passed on without a copy, and cannot be written; a small one would hold a whole buffer in memory."""
    with (
        bind_router(context, "tcp://127.0.0.1:*", 5, TCP) as far,
        connect_dealer(context, bound_endpoint(far), 5, TCP) as near,
    ):
        until(lambda: send_frames(near, [b"head", bytes(8_192), bytes(8_193)]))
        *small, large = _received(far)
        assert [type(frame) for frame in small] == [bytes] * 3
        assert isinstance(large, memoryview)
        assert (large.readonly, type(large.obj)) == (True, zmq.Frame)
        until(lambda: send_frames(near, [b"head", bytes(8_193)]))
        assert far.poll(5_000)
        assert list(map(type, receive_frames(far) or [])) == [bytes] * 3


def test_what_does_not_go_out_stays_whole(context: Context) -> None:
    """A full window refuses the message before its first frame; those before it are not disturbed."""
    with (
        bind_router(context, "tcp://127.0.0.1:*", 5, TCP) as far,
        connect_dealer(context, bound_endpoint(far), 5, TCP) as near,
    ):
        body = bytes(1 << 20)
        until(lambda: send_frames(near, [b"0", body]))
        sent = 1
        while send_frames(near, [str(sent).encode(), body]):
            sent += 1
        heads = [bytes(_received(far)[1]) for _ in range(sent)]
        assert heads == [str(number).encode() for number in range(sent)]
        assert receive_batch(far) is None


def test_rejections_are_counted_by_reason() -> None:
    """Each reason has its own count, and the total is their sum."""
    rejections = Rejections({})
    assert [rejections.count(WireError(reason)) for reason in ("short", "magic", "short")] == [1, 1, 2]
    assert rejections.by_reason == {"short": 2, "magic": 1}
    assert rejections.total == 3
