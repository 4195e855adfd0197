"""Ledger: the accounts of all subscribers in a mapped file, so that they survive a `kill -9` of their router.

The pages are the kernel's; a killed process loses nothing it has written there. A slot of 512 bytes an account:

     0            8         16                  80              96              160           192        352      512
    +------------+---------+-------------------+---------------+---------------+-------------+----------+---------+
    | version u64| used u64| subscriber, UTF-8 | stream, raw   | run, UTF-8    | zero        | copy 0   | copy 1  |
    +------------+---------+-------------------+---------------+---------------+-------------+----------+---------+

A copy is 20 words u64: published, delivered, first_seq, last_seq, delivered_seq, base (i64), then dropped records in
the order of `REASONS`. The version's lowest bit says which copy is valid: the other one is written first, then the
version, in one aligned store. So an account is always whole, as it was before or after a turn of the router.
What was queued is not written: it is what the rest leaves over.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from runlane.transport.queue import ROUTER_RESTART, SUBSCRIBER_RESTART, Account

FILE = "router.ledger"
# The order is that of the words in the file. A reason that is not here would be counted as "other".
REASONS = (
    "drop_oldest",
    "drop_newest",
    "superseded",
    "stale",
    SUBSCRIBER_RESTART,
    "subscriber_left",
    "router_stopped",
    ROUTER_RESTART,
    "unreadable",
    "other",
)
_NOTHING_DROPPED = [0] * len(REASONS)
SLOT_BYTES = 512
FIRST_SLOTS = 256
MAX_SLOTS = 1 << 16

_MAGIC = b"RLLEDG\x00\x01"
_VERSION, _USED, _NAME, _STREAM, _RUN = 0, 8, 16, 80, 96
_COPIES = (192, 352)
_WORDS = struct.Struct(f"<5Qq{len(REASONS)}Q")
_TEXTS = struct.Struct("<64s16s64s")


class Saved(NamedTuple):
    """One account as a router before this one left it."""

    subscriber: str
    stream: bytes
    run: str
    account: Account


class Ledger:
    """The file of one router. When it cannot grow, later accounts are not kept, and `is_complete` says so."""

    def __init__(self, path: Path) -> None:
        """Map the file, made anew where there is none or a damaged one. Raises `OSError`."""
        self.is_complete = True
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(self._fd).st_size
            if size < SLOT_BYTES or size % SLOT_BYTES or os.pread(self._fd, len(_MAGIC), 0) != _MAGIC:
                os.ftruncate(self._fd, 0)
                size = (1 + FIRST_SLOTS) * SLOT_BYTES
            os.posix_fallocate(self._fd, 0, size)  # a full disk is an error here, and not a SIGBUS later
            self._map(size)
            self._view[: len(_MAGIC)] = _MAGIC
        except BaseException:
            os.close(self._fd)
            raise
        self._slots: dict[tuple[str, bytes], int] = {}
        self._free: list[int] = []
        for slot in range(self._count, 0, -1):
            if self._words[slot * SLOT_BYTES // 8 + _USED // 8] != 1:
                self._free.append(slot)

    def _map(self, size: int) -> None:
        self._view = mmap.mmap(self._fd, size)
        self._words = memoryview(self._view).cast("Q")
        self._count = size // SLOT_BYTES - 1

    def read(self) -> Iterator[Saved]:
        """What a router before this one left."""
        for slot in range(1, self._count + 1):
            at = slot * SLOT_BYTES
            if self._words[(at + _USED) // 8] != 1:
                continue
            copy = _COPIES[self._words[(at + _VERSION) // 8] & 1]
            published, delivered, first, last, delivered_seq, base, *dropped = _WORDS.unpack_from(self._view, at + copy)
            name, stream, run = _TEXTS.unpack_from(self._view, at + _NAME)
            account = Account(
                published=published,
                delivered=delivered,
                dropped={reason: records for reason, records in zip(REASONS, dropped, strict=True) if records},
                first_seq=first,
                last_seq=last,
                delivered_seq=delivered_seq,
                base=base,
            )
            account.queued = account.balance
            if account.queued < 0:  # what a power failure may leave
                self._words[(at + _USED) // 8] = 0
                self._free.append(slot)
                continue
            saved = Saved(_text(name), stream, _text(run), account)
            self._slots[saved.subscriber, stream] = slot
            yield saved

    def write(self, subscriber: str, stream: bytes, run: str, account: Account) -> None:
        """Note an account as it is now."""
        slot = self._slots.get((subscriber, stream))
        is_new = slot is None
        if slot is None:
            slot = self._take_slot()
            if slot is None:
                return
            self._slots[subscriber, stream] = slot
        at = slot * SLOT_BYTES
        if is_new:
            _TEXTS.pack_into(self._view, at + _NAME, subscriber.encode()[:64], stream, run.encode()[:64])
        version = self._words[at // 8]
        dropped = _NOTHING_DROPPED
        if account.dropped:
            dropped = [account.dropped.get(reason, 0) for reason in REASONS]
            dropped[-1] += sum([records for reason, records in account.dropped.items() if reason not in REASONS])
        _WORDS.pack_into(
            self._view,
            at + _COPIES[(version + 1) & 1],
            account.published,
            account.delivered,
            account.first_seq,
            account.last_seq,
            account.delivered_seq,
            account.base,
            *dropped,
        )
        self._words[at // 8] = version + 1
        if is_new:
            self._words[(at + _USED) // 8] = 1

    def forget(self, subscriber: str, stream: bytes) -> None:
        """Let the place of an account go."""
        slot = self._slots.pop((subscriber, stream), None)
        if slot is not None:
            self._words[(slot * SLOT_BYTES + _USED) // 8] = 0
            self._free.append(slot)

    def _take_slot(self) -> int | None:
        if not self._free:
            self._grow()
        return self._free.pop() if self._free else None

    def _grow(self) -> None:
        before, count = self._count, min(MAX_SLOTS, max(FIRST_SLOTS, 2 * self._count))
        try:
            os.posix_fallocate(self._fd, 0, (1 + count) * SLOT_BYTES)
        except OSError:
            count = before
        self.is_complete = count > before
        if count > before:
            self._unmap()
            self._map((1 + count) * SLOT_BYTES)
            self._free += range(count, before, -1)

    def _unmap(self) -> None:
        self._words.release()
        self._view.close()

    def close(self, *, is_over: bool) -> None:
        """Unmap; remove the file when there is nothing in it that a later router could need."""
        self._unmap()
        os.close(self._fd)
        if is_over:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()


def restore(saved: Account, *, is_block: bool) -> int:
    """Make an account that a dead router left true for its successor; returns the records now counted as dropped.

    What waited in a lossy queue died with it. What a `block` subscriber had not committed is sent again, and counts
    when it comes.
    """
    queued, saved.queued = saved.queued, 0
    if is_block:
        saved.published -= queued
        saved.last_seq = max(saved.delivered_seq, saved.first_seq)
        return 0
    if queued:
        saved.dropped[ROUTER_RESTART] = saved.dropped.get(ROUTER_RESTART, 0) + queued
    return queued


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")
