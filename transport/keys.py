"""CURVE keys for TCP: the server proves itself, the traffic is encrypted, and only known clients get in.

CURVE alone does not check who the client is (libzmq#915), so the server side also answers ZAP requests with
an allow-list. A keys directory is made by `runlane keys DIR`; copy it to every host of the graph:

    keys/server.key_secret     the server's pair         (head host only)
    keys/server.key            the server's public key   (every host)
    keys/client.key_secret     this client's pair        (every host that connects)
    keys/authorized/*.key      public keys of clients that may connect (head host only)
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import zmq

from runlane.config.errors import EndpointError
from runlane.config.settings import TransportSettings

Context = zmq.Context[zmq.Socket[bytes]]

if TYPE_CHECKING:  # importing it loads asyncio, which no process without keys needs
    from zmq.auth.thread import ThreadAuthenticator

_authenticators: "dict[int, ThreadAuthenticator]" = {}


def create_keys(directory: Path) -> list[Path]:
    """Make a server pair and one authorised client pair; raises `EndpointError` rather than overwrite."""
    import zmq.auth

    if directory.exists() and any(directory.iterdir()):
        raise EndpointError(f"{directory} is not empty; give a new directory, so that no key is overwritten")
    authorized = directory / "authorized"
    authorized.mkdir(mode=0o700, parents=True)
    directory.chmod(0o700)
    for name in ("server", "client"):
        zmq.auth.create_certificates(directory, name)  # pyright: ignore[reportUnknownMemberType]
        (directory / f"{name}.key_secret").chmod(0o600)
    public = directory / "client.key"
    (authorized / "client.key").write_bytes(public.read_bytes())
    return sorted(path for path in directory.rglob("*") if path.is_file())


def apply_server_keys(socket: zmq.Socket[bytes], transport: TransportSettings) -> None:
    """Make a socket about to be bound accept only authorised clients. Without keys: loopback, no keys."""
    if transport.keys_dir is None:
        return
    directory = Path(transport.keys_dir)
    public, secret = _load(directory / "server.key_secret")
    _authenticate(cast("Context", socket.context), directory / "authorized")  # pyright: ignore[reportUnknownMemberType]
    socket.curve_publickey = public
    socket.curve_secretkey = secret
    socket.curve_server = True
    socket.zap_domain = b"runlane"


def apply_client_keys(socket: zmq.Socket[bytes], transport: TransportSettings) -> None:
    """Make a socket about to connect prove itself and know its server."""
    if transport.keys_dir is None:
        return
    directory = Path(transport.keys_dir)
    socket.curve_publickey, socket.curve_secretkey = _load(directory / "client.key_secret")
    socket.curve_serverkey = _load(directory / "server.key", needs_secret=False)[0]


def _load(path: Path, *, needs_secret: bool = True) -> tuple[bytes, bytes]:
    import zmq.auth

    try:
        public, secret = zmq.auth.load_certificate(path)  # pyright: ignore[reportUnknownMemberType]
    except (OSError, ValueError) as error:
        raise EndpointError(f"no key in {path} ({error}); make keys with `runlane keys {path.parent}`") from None
    if needs_secret and secret is None:
        raise EndpointError(f"{path} holds no secret key; make keys with `runlane keys {path.parent}`")
    return public, secret or b""


def _authenticate(context: Context, authorized: Path) -> None:
    """One ZAP answerer per context; it must live as long as the context's sockets."""
    if id(context) in _authenticators:
        return
    from zmq.auth.thread import ThreadAuthenticator

    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve(  # pyright: ignore[reportUnknownMemberType]
        domain="runlane", location=str(authorized)
    )
    _authenticators[id(context)] = authenticator


def stop_authenticator(context: Context) -> None:
    """End the ZAP answerer of a context, before the context is terminated."""
    authenticator = _authenticators.pop(id(context), None)
    if authenticator is not None:
        authenticator.stop()
