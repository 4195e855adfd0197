"""BusBatch: one batch on its way to all subscribers, and what becomes an entry of each one's queue. No sockets."""

from collections.abc import Sequence
from typing import NamedTuple

from runlane.transport.queue import Entry
from runlane.transport.slicing import after_seq
from runlane.transport.wire import KIND_NUMBER, BatchHeader, Frame, Section, encode_header

# Rare, and missed dearly: they have a lane of their own in every lossy queue.
VITAL = frozenset(KIND_NUMBER[kind] for kind in ("run", "episode", "log", "drop"))
_NONE: tuple[int, ...] = ()
_FIRST = (0,)


class Share(NamedTuple):
    """What of a batch everybody gets who asked for the same kinds: indexes of sections, and their frames."""

    wanted: Sequence[int]
    vital: Sequence[int]
    frames: list[Frame]
    records: int
    section_bits: int
    size_bytes: int


class BusBatch:
    """One batch on its way to all subscribers; what is the same for many of them is worked out once."""

    __slots__ = ("_shares", "bodies", "head", "header", "last_seq", "now_s")

    def __init__(self, header: BatchHeader, head: Frame, bodies: Sequence[Frame], now_s: float) -> None:
        self.header = header
        self.last_seq = header.last_seq
        self.head = head
        self.bodies = bodies
        self.now_s = now_s
        self._shares: dict[frozenset[int], Share] = {}

    def share(self, kinds: frozenset[int]) -> Share:
        """The part that holds these kinds."""
        sections, bodies = self.header.sections, self.bodies
        if len(sections) == 1:  # as most batches are under load
            section = sections[0]
            if section.kind not in kinds:
                return Share(_NONE, _NONE, [self.head], 0, 0, len(self.head))
            size_bytes = len(self.head) + section.size_bytes
            vital = _FIRST if section.kind in VITAL else _NONE
            return Share(_FIRST, vital, [self.head, bodies[0]], section.records, 1, size_bytes)
        found = self._shares.get(kinds)
        if found is None:
            wanted = [index for index, section in enumerate(sections) if section.kind in kinds]
            rare = [index for index in wanted if sections[index].kind in VITAL]
            frames = [self.head, *[bodies[index] for index in wanted]]
            records = sum([sections[index].records for index in wanted])
            section_bits = sum([1 << index for index in wanted])
            found = self._shares[kinds] = Share(wanted, rare, frames, records, section_bits, sum(map(len, frames)))
        return found

    def entry(self, share: Share) -> Entry:
        """An entry of one queue for that part."""
        header = self.header
        key = (header.stream, header.sections[share.wanted[0]].kind if share.wanted else 0)
        return Entry(
            header.stream,
            self.last_seq,
            share.records,
            share.section_bits,
            share.frames,
            key,
            share.size_bytes,
            False,  # by position, because each name costs
            self.now_s,
        )

    def part_entry(self, section: Section, body: Frame, known_seq: int) -> Entry:
        """An entry with a header of its own, for rows that are no whole section. All are after `known_seq`."""
        header = self.header
        first_seq = max(header.first_seq, known_seq + 1)
        head = encode_header(header.stream, first_seq, section.records, header.closed_ns, [section])
        return Entry(
            stream=header.stream,
            last_seq=self.last_seq,
            records=section.records,
            section_bits=1,
            frames=[head, body],
            size_bytes=len(head) + len(body),
            key=(),
            accepted_s=self.now_s,
        )

    def records_after(self, wanted: Sequence[int], seq: int) -> int:
        """How many records of the wanted sections are beyond a seq. Raises `WireError` where nobody can say."""
        parts = [after_seq(self.header.sections[index], self.bodies[index], seq) for index in wanted]
        return sum(part[0].records for part in parts if part is not None)
