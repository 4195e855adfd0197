"""Encoding batches of records at their source: once, in the worker or whoever has records of its own."""

from collections.abc import Mapping, Sequence

import msgspec

from runlane.transport.records import Record
from runlane.transport.wire import KIND_NUMBER, Section, encode_header, pack


def encode_records_batch(
    stream: str, first_seq: int, closed_ns: int, records: Mapping[str, Sequence[Record]]
) -> tuple[bytes, ...]:
    """Header and bodies of a batch without steps. The records' seqs must be first_seq … without a hole."""
    sections: list[Section] = []
    bodies: list[bytes] = []
    for kind, rows in records.items():
        body = pack([msgspec.structs.astuple(row) for row in rows])
        sections.append(Section(KIND_NUMBER[kind], 0, len(rows), len(body)))
        bodies.append(body)
    count = sum(section.records for section in sections)
    return encode_header(bytes.fromhex(stream), first_seq, count, closed_ns, sections), *bodies
