"""Leases: how a viewer says that it is watching, and how a worker knows, by a word in the ring's head each.

A viewer marks its line every 500 ms and says for how long that holds. Nobody waits for anybody: a viewer that stops
or dies stops marking, and within a second nothing is rendered for it any more. Two viewers that take the same line
at the same moment see at their next mark whose it is; a line serves whoever watches, so nothing is lost meanwhile.
"""

import secrets
from typing import NamedTuple

from runlane.transport.ring_layout import LEASE, LEASE_WORDS, LEASES

MARK_S = 0.5
# A mark holds so long: a viewer may be late by 0.4 s, and rendering ends within a second of its death.
LEASE_NS = 900_000_000
# A worker looks at its clock first and at the leases then; a mark made in between is ahead of it. More is no mark.
AHEAD_NS = 2 * LEASE_NS
_VIEWER, _UNTIL, _RATE, _TILE, _SEEN = range(5)
_STARTS = [LEASE + LEASE_WORDS * line for line in range(LEASES)]
MAX_RATE_HZ = 1_000.0


class Wanted(NamedTuple):
    """What the living leases ask for together. `tile` 0: no one environment; `seen` is the least frame number read."""

    rate_hz: float
    tile: int
    seen: int
    viewers: int


def wanted(words: memoryview, now_ns: int) -> Wanted | None:
    """What viewers ask of a ring at `now_ns` (monotonic), by the u64 words of its head; None when nobody watches.

    The highest rate counts, and the tile of whoever names one. A mark that claims to hold for much longer than a
    lease does is none: its writer's clock is not ours.
    """
    rate_mhz = tile = viewers = 0
    seen: int | None = None
    for start in _STARTS:
        if not _lives(words[start + _UNTIL], now_ns):
            continue
        viewers += 1
        rate_mhz = max(rate_mhz, words[start + _RATE])
        tile = words[start + _TILE] or tile
        last = words[start + _SEEN]
        seen = last if seen is None else min(seen, last)
    if not viewers or not rate_mhz:
        return None
    return Wanted(min(rate_mhz / 1000, MAX_RATE_HZ), tile, seen or 0, viewers)


def _lives(until_ns: int, now_ns: int) -> bool:
    return now_ns < until_ns <= now_ns + AHEAD_NS


class Lease:
    """One viewer's line in one ring's head. Time is an argument."""

    def __init__(self, words: memoryview, viewer: int | None = None) -> None:
        """`words` are the head's, writable. Nothing is marked before `mark`."""
        self.viewer = viewer or secrets.randbits(63) + 1
        self._words = words
        self._start: int | None = None
        self._next_ns = 0

    def mark(self, now_ns: int, rate_hz: float, *, tile: int = 0, seen: int = 0) -> None:
        """Say that we watch, at most twice a second; any call in between costs a comparison."""
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + int(MARK_S * 1e9)
        words, start = self._words, self._start
        if start is None or words[start + _VIEWER] != self.viewer:
            start = self._start = self._free_line(now_ns)
            words[start + _VIEWER] = self.viewer
        words[start + _RATE] = round(min(rate_hz, MAX_RATE_HZ) * 1000)
        words[start + _TILE] = tile
        words[start + _SEEN] = seen
        words[start + _UNTIL] = now_ns + LEASE_NS

    def ask_anew(self) -> None:
        """The next `mark` is made at once, as when the rate or the tile has changed."""
        self._next_ns = 0

    def release(self) -> None:
        """We watch no more."""
        if self._start is not None and self._words[self._start + _VIEWER] == self.viewer:
            self._words[self._start + _UNTIL] = 0
        self._start = None
        self._next_ns = 0

    def _free_line(self, now_ns: int) -> int:
        """A line nobody uses; with all in use one that we share, which serves us both as long as either marks it."""
        free = [start for start in _STARTS if not _lives(self._words[start + _UNTIL], now_ns)]
        lines = free or _STARTS
        return lines[self.viewer % len(lines)]
