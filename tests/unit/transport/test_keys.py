"""CURVE keys: made once, never overwritten; a known client gets through, nobody else does."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from runlane.config.errors import EndpointError
from runlane.config.settings import TransportSettings
from runlane.transport.keys import create_keys, stop_authenticator
from runlane.transport.messages import StatusRequest
from runlane.transport.sockets import Context, Socket, bind_router, bound_endpoint, connect_dealer
from runlane.transport.testing import DEADLINE_S, until
from runlane.transport.wire import encode_control

HELLO = encode_control(StatusRequest())
REFUSALS = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def _transport(keys_dir: Path | None) -> TransportSettings:
    return TransportSettings(kind="tcp", keys_dir=None if keys_dir is None else str(keys_dir))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A keys directory as `runlane keys` makes it."""
    create_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def server(keys: Path) -> Iterator[Socket]:
    """A ROUTER on TCP loopback that asks for keys."""
    context: Context = zmq.Context()
    socket = bind_router(context, "tcp://127.0.0.1:*", 8, _transport(keys))
    yield socket
    stop_authenticator(context)
    context.destroy(linger=0)


@pytest.fixture
def context() -> Iterator[Context]:
    """What a client makes its sockets in."""
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def _is_refused(context: Context, server: Socket, client_keys: Path | None) -> bool:
    """Connect with these keys and wait for the handshake's end; True when it failed and nothing arrived.

    The server is watched, from before there is a client: a client that was refused may not try again.
    """
    with (
        server.get_monitor_socket(REFUSALS | zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor,
        connect_dealer(context, bound_endpoint(server), 8, _transport(client_keys)) as client,
    ):
        assert monitor.poll(int(DEADLINE_S * 1000)), "the handshake did not end"
        event = recv_monitor_message(monitor)["event"]
        server.disable_monitor()
        return bool(event & REFUSALS) and not client.poll(0, zmq.POLLOUT) and not server.poll(0)


def test_an_authorised_client_gets_through(server: Socket, context: Context, keys: Path) -> None:
    """With the keys of the directory, over TCP on loopback, both ways."""
    with connect_dealer(context, bound_endpoint(server), 8, _transport(keys)) as client:
        client.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1000))
        client.send(HELLO)
        assert server.poll(int(DEADLINE_S * 1000))
        peer, frame = server.recv_multipart()
        assert frame == HELLO
        server.send_multipart([peer, b"answer"])
        assert client.poll(int(DEADLINE_S * 1000))
        assert client.recv() == b"answer"


def test_an_unknown_key_is_refused(server: Socket, context: Context, keys: Path, tmp_path: Path) -> None:
    """CURVE alone would let anyone in who knows the server's public key; the allow-list does not."""
    create_keys(tmp_path / "stranger")
    shutil.copy(keys / "server.key", tmp_path / "stranger" / "server.key")
    assert _is_refused(context, server, tmp_path / "stranger")


def test_a_client_that_takes_another_for_the_server_is_refused(
    server: Socket, context: Context, keys: Path, tmp_path: Path
) -> None:
    """The server proves itself: a client with another server's public key ends the handshake."""
    create_keys(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "server.key", keys / "server.key")
    assert _is_refused(context, server, keys)


def test_a_client_without_keys_is_refused(server: Socket, context: Context) -> None:
    """Plain text does not get in."""
    assert _is_refused(context, server, None)


def test_every_socket_of_a_context_asks_for_keys(keys: Path, context: Context) -> None:
    """The second server socket of a context is guarded by the same answerer as the first."""
    guarded: Context = zmq.Context()
    with (
        bind_router(guarded, "tcp://127.0.0.1:*", 8, _transport(keys)),
        bind_router(guarded, "tcp://127.0.0.1:*", 8, _transport(keys)) as second,
    ):
        assert _is_refused(context, second, None)
        with connect_dealer(context, bound_endpoint(second), 8, _transport(keys)) as client:
            until(lambda: bool(client.poll(20, zmq.POLLOUT)))
        stop_authenticator(guarded)
    guarded.term()


def test_stopping_an_answerer_that_never_was_is_harmless(context: Context) -> None:
    """A graph without keys stops like one with keys."""
    stop_authenticator(context)


# ---- the directory ---------------------------------------------------------------------------------------


def test_keys_are_private(tmp_path: Path) -> None:
    """Directories 700, secret keys 600; the client's public key is authorised."""
    made = create_keys(tmp_path / "keys")
    assert [str(path.relative_to(tmp_path / "keys")) for path in made] == [
        "authorized/client.key",
        "client.key",
        "client.key_secret",
        "server.key",
        "server.key_secret",
    ]
    assert {path.stat().st_mode & 0o777 for path in made if path.suffix == ".key_secret"} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys", made[0].parent)} == {0o700}
    assert made[0].read_bytes() == made[1].read_bytes()


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    """A directory that holds anything is refused and left as it is."""
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(EndpointError, match="is not empty"):
        create_keys(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_keys_may_be_made_in_an_empty_directory(tmp_path: Path) -> None:
    """It need not be new, only empty."""
    assert len(create_keys(tmp_path)) == 5


@pytest.mark.parametrize("spoil", ["missing", "public", "text"])
def test_a_key_that_cannot_be_used_names_its_file_and_the_remedy(spoil: str, keys: Path, context: Context) -> None:
    """Absent, without its secret half, or no key at all: EndpointError, and no socket is left open."""
    for name in ("server.key_secret", "client.key_secret"):
        if spoil == "missing":
            (keys / name).unlink()
        elif spoil == "public":
            shutil.copy(keys / "server.key", keys / name)
        else:
            (keys / name).write_text("nothing")
    with pytest.raises(EndpointError, match=r"server\.key_secret.*runlane keys"):
        bind_router(context, "tcp://127.0.0.1:*", 8, _transport(keys))
    with pytest.raises(EndpointError, match=r"client\.key_secret.*runlane keys"):
        connect_dealer(context, "tcp://127.0.0.1:1", 8, _transport(keys))
