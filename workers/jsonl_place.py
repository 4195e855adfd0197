"""Place: how far a bridge is, kept where `kill -9` leaves it: a small mapped file beside the spool.

     0          4           8              16             24
    +----------+-----------+--------------+--------------+
    | "RLJP"   | version   | cell u64     | is_done u64  |   cell: 0 none yet, 1 or 2: the one that holds
    +----------+-----------+--------------+--------------+
    cell 1 at 4096, cell 2 at 4096 + CELL_BYTES:
     0              8            16             24            32          40          48
    +--------------+------------+--------------+-------------+-----------+-----------+---------------+
    | offset u64   | seq u64    | progress u64 | is_extra    | is_kept   | length u64| state         |
    +--------------+------------+--------------+-------------+-----------+-----------+---------------+

A cell says: the line at `offset` of the spool comes next, and `seq` is the newest record of the stream that `state`
names. `progress` goes on from there with every line: lines since `offset` in the upper 24 bits, records since `seq` in
the lower 40, one aligned store, made after the records of that line are in the journal. So a kill leaves at most one
line in doubt, and the journal of the dead bridge says how many of its records are there.

`is_extra` is set while records are written that come from no line (a switch of the telemetry mode): what the journal
has beyond `progress` is then not a line's. `is_kept` 0: the mode keeps no records, so none of them is a line's either.

One writer, the bridge that holds the spool's lock. A new cell is written beside the one that holds, and then `cell`
is stored.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

import msgspec

from runlane.config.errors import SpoolError

VERSION = 1
CELL_BYTES = 1 << 20
FIRST_CELL = 4096
FILE_BYTES = FIRST_CELL + 2 * CELL_BYTES
LINE_SHIFT = 40

_HEADER = struct.Struct("<4sI")
_MAGIC = b"RLJP"
# Indices of 8-byte words.
_CELL, _DONE = 1, 2
_OFFSET, _SEQ, _PROGRESS, _EXTRA, _KEPT, _LENGTH = range(6)
_STATE_OFFSET = 48


class RunningEpisode(msgspec.Struct, array_like=True):
    """One environment's running episode, as in an `EpisodeTracker`."""

    episode: int
    step: int
    episode_return: float
    started_ns: int


class BridgeState(msgspec.Struct, kw_only=True):
    """What a new bridge has to know of the one before, beside its place.

    `done` records of the line that comes next are recorded already, and `trackers` are as after them. `huge` is the
    beginning of a line of which the rest is being passed over. `not_taken` counts lines by sort. `is_closing`: all
    lines are recorded, and running episodes are being given up.
    """

    stream: str = ""
    file: tuple[int, int] = (0, 0)
    trackers: dict[int, RunningEpisode] = {}
    env_steps: int = 0
    action_is_float: bool = False
    observation_is_float: bool = False
    not_taken: dict[str, int] = {}
    huge: bytes | None = None
    done: int = 0
    is_closing: bool = False


class Found(NamedTuple):
    """Where the bridge before came to: `lines` after `offset`, with the record `seq` as the last one of them.

    `is_sure` False: records beyond `seq` are not those of a line.
    """

    offset: int
    lines: int
    seq: int
    is_sure: bool
    state: BridgeState


class Place:
    """The mapped file. `words[progress_at]` is the bridge's to store after each line."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. Raises `SpoolError` when it is something else, `OSError` without room."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, FILE_BYTES)  # a full disk is an error here and not a SIGBUS later
            self._map = mmap.mmap(fd, FILE_BYTES)
        finally:
            os.close(fd)
        magic, version = _HEADER.unpack_from(self._map)
        if magic == bytes(4):
            self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, VERSION)
        elif (magic, version) != (_MAGIC, VERSION):
            self._map.close()
            raise SpoolError(f"{path}: version {version} of {magic!r}; this runlane reads {VERSION} of {_MAGIC!r}")
        self.words = memoryview(self._map).cast("Q")
        self.progress_at = self._at(self.words[_CELL] or 1) + _PROGRESS
        self.base_seq = 0

    def find(self) -> Found | None:
        """Where the bridge before came to; None for the first one. Raises `SpoolError`."""
        cell = self.words[_CELL]
        if not cell:
            return None
        at = self._at(cell)
        start = at * 8 + _STATE_OFFSET
        progress, seq = self.words[at + _PROGRESS], self.words[at + _SEQ]
        try:
            state = msgspec.msgpack.decode(self._map[start : start + self.words[at + _LENGTH]], type=BridgeState)
        except msgspec.DecodeError as error:
            raise SpoolError(f"the place of a spool is damaged: {error}") from None
        is_sure = bool(self.words[at + _KEPT]) and not self.words[at + _EXTRA]
        newest = seq + (progress & (1 << LINE_SHIFT) - 1)
        return Found(self.words[at + _OFFSET], progress >> LINE_SHIFT, newest, is_sure, state)

    def set(self, offset: int, seq: int, state: BridgeState, *, is_kept: bool) -> None:
        """The line at `offset` comes next, `seq` is the newest record. Raises `SpoolError` for a large state."""
        packed = msgspec.msgpack.encode(state)
        if len(packed) > CELL_BYTES - _STATE_OFFSET:
            raise SpoolError(f"the state of a bridge has {len(packed)} bytes, {CELL_BYTES} are the most")
        words = self.words
        cell = 2 if words[_CELL] == 1 else 1
        at = self._at(cell)
        words[at + _OFFSET], words[at + _SEQ] = offset, seq
        words[at + _PROGRESS], words[at + _EXTRA], words[at + _KEPT] = 0, 0, int(is_kept)
        words[at + _LENGTH] = len(packed)
        start = at * 8 + _STATE_OFFSET
        self._map[start : start + len(packed)] = packed
        words[_CELL] = cell  # last: until here the other one holds
        self.progress_at, self.base_seq = at + _PROGRESS, seq

    def begin_extra(self) -> None:
        """Records that come from no line follow, until the next `set`."""
        self.words[self.progress_at - _PROGRESS + _EXTRA] = 1

    @property
    def is_done(self) -> bool:
        """Whether every line is recorded and the session is closed: only the removal is left."""
        return bool(self.words[_DONE])

    def set_done(self) -> None:
        """Nothing is left to record."""
        self.words[_DONE] = 1

    def close(self) -> None:
        """Unmap."""
        self.words.release()
        self._map.close()

    @staticmethod
    def _at(cell: int) -> int:
        """Index of a cell's first word."""
        return (FIRST_CELL + (cell - 1) * CELL_BYTES) // 8
