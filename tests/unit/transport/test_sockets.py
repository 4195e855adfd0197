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
    receive_frames,
    request,
    send_control,
)
from runlane.transport.testing import until
from runlane.transport.wire import MAX_BODY_BYTES

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


def test_rejections_are_counted_by_reason() -> None:
    """Each reason has its own count, and the total is their sum."""
    rejections = Rejections({})
    assert [rejections.count(WireError(reason)) for reason in ("short", "magic", "short")] == [1, 1, 2]
    assert rejections.by_reason == {"short": 2, "magic": 1}
    assert rejections.total == 3
