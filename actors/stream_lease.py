"""Which streams still have somebody who could write them: their proxies say hello every half second. No sockets.

Owned by the router. Time in which it did not listen, because a `block` queue was full, counts for nobody.
"""

from collections.abc import Iterable, Iterator

ALIVE_S = 1.0
# Keeps a message far below `wire.MAX_CONTROL_BYTES`: 34 bytes a stream.
MAX_STREAMS = 4_096


class StreamLeases:
    """When each stream was last heard of, in seconds of listening."""

    def __init__(self, lease_s: float) -> None:
        """A stream silent for longer than `lease_s` is not alive."""
        self._lease_s = lease_s
        self._heard_s: dict[bytes, float] = {}
        self._deaf_s = 0.0
        self._turn_s: float | None = None
        self._due_s = 0.0

    def turn(self, now_s: float, *, is_listening: bool) -> bool:
        """Let time pass; whether it is time to tell who is alive."""
        if self._turn_s is not None and not is_listening:
            self._deaf_s += now_s - self._turn_s
        self._turn_s = now_s
        if now_s < self._due_s:
            return False
        self._due_s = now_s + ALIVE_S
        return True

    def hear(self, key: bytes, now_s: float) -> None:
        """Somebody who could write this stream spoke."""
        self._heard_s[key] = now_s - self._deaf_s

    def alive(self, open_streams: Iterable[bytes], now_s: float) -> Iterator[list[str]]:
        """Ids of the open streams heard of within the lease, in lists of at most `MAX_STREAMS`."""
        since_s = now_s - self._deaf_s - self._lease_s
        heard_s = {key: self._heard_s[key] for key in open_streams if key in self._heard_s}
        self._heard_s = heard_s  # closed streams are forgotten
        ids = [key.hex() for key, at_s in heard_s.items() if at_s >= since_s]
        for start in range(0, len(ids), MAX_STREAMS):
            yield ids[start : start + MAX_STREAMS]
