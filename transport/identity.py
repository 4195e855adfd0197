"""Ids that need no registry: runs sort by time, streams are unique per process life. And the host's name."""

import os

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_run_id(wall_ns: int) -> str:
    """A ULID: 48 bits of milliseconds, then 80 random bits, as 26 lower-case Crockford base32 digits."""
    number = (wall_ns // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def new_stream_id() -> str:
    """16 random bytes as 32 hexadecimal digits."""
    return os.urandom(16).hex()


def host_name() -> str:
    """As `socket.gethostname()`, without importing `socket`."""
    return os.uname().nodename
