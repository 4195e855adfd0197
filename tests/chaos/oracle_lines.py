"""The oracle's plain file: what one stream's worker knows to have returned. No code of runlane reads or writes it.

One file per stream, named after it, and one line of 32 bytes per record, appended after the call that made the
record has returned. The page cache keeps what was written when its writer is killed. 32 divides every page, so a
line that a kill cuts off ends the file at a line's border or a little behind it; that rest is passed over.

    0        8            16       24     25        32
    ┌────────┬────────────┬────────┬──────┬─────────┐
    │ seq u64│ time_ns u64│ digest │ kind │ padding │   little endian
    └────────┴────────────┴────────┴──────┴─────────┘

`time_ns` is the monotonic clock of the host, the same in every process. `digest` is the blake2b of the fields.
"""

import hashlib
import os
import struct
import time
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

LINE = struct.Struct("<QQ8sB7x")
SUFFIX = ".lines"
NO_DIGEST = bytes(8)
LONG_BYTES = 256
EXACT_FLOAT = 1 << 53


class Kind(IntEnum):
    """What a line speaks of. From EXTRA on it is no record that the oracle knows the fields of."""

    STEP = 1
    EPISODE = 2
    METRIC = 3
    LOG = 4
    RUN = 5
    INFO = 6
    EXTRA = 7  # a seq that the session took for a record of its own: it must be stored, whatever it is
    DROPPED = 8  # a call returned and its record got no seq: lost; seq is the newest one then
    CLOSED = 9  # close() said that all is committed: everything up to this seq must be stored


class Line(NamedTuple):
    """One line. `digest` says nothing where the fields are not known."""

    seq: int
    time_ns: int
    digest: bytes
    kind: Kind

    @property
    def is_record(self) -> bool:
        """Whether it is a record whose fields the oracle knows."""
        return self.kind < Kind.EXTRA


def digest_of(values: tuple[Any, ...]) -> bytes:
    """Eight bytes that stand for these values: None, int, float, str, bytes, and tuples of them.

    NaN counts as None, because that is what SQLite makes of it, and a whole number as its float where both are exact:
    an action is stored in the type of the row before it where that can hold it.
    """
    return hashlib.blake2b(repr(_plain(values)).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bytes) and len(value) > LONG_BYTES:
        return hashlib.blake2b(value).digest()  # its text would be four times as long
    if isinstance(value, int) and abs(value) <= EXACT_FLOAT:
        return float(value)
    return None if value != value else value  # only NaN differs from itself


class OracleFile:
    """The file of one stream, written by the process whose stream it is, and by nobody else."""

    def __init__(self, directory: Path, stream: str) -> None:
        """Open it for appending."""
        self._fd = os.open(directory / f"{stream}{SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, lines: Iterable[tuple[int, Kind, bytes]]) -> None:
        """Note (seq, kind, digest) of records whose call has returned, in one write."""
        now_ns = time.monotonic_ns()
        os.write(self._fd, b"".join(LINE.pack(seq, now_ns, digest, kind) for seq, kind, digest in lines))


def read_oracle(directory: Path) -> dict[str, list[Line]]:
    """Lines by stream, in the order of writing."""
    found: dict[str, list[Line]] = {}
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        body = path.read_bytes()
        whole = body[: len(body) // LINE.size * LINE.size]
        fields: Iterable[tuple[int, int, bytes, int]] = LINE.iter_unpack(whole)
        found[path.stem] = [Line(seq, time_ns, digest, Kind(kind)) for seq, time_ns, digest, kind in fields]
    return found


def written_bytes(directory: Path) -> int:
    """How much all oracles have written: it grows while a worker records."""
    return sum(path.stat().st_size for path in directory.glob(f"*{SUFFIX}"))
