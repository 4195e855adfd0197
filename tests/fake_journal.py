"""FakeJournal: a worker's journal without the worker, for tests of whoever reads one."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from runlane.transport.columns import decode_records
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import (
    END,
    INFO,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_record,
    encode_segment_header,
    segment_path,
)
from runlane.transport.messages import StreamInfo
from runlane.transport.records import LogRecord, Record
from runlane.transport.testing import make_batch, seqs_of
from runlane.transport.wire import KIND_NUMBER, STEP, BatchHeader, Frame, encode_packed, pack


class FakeJournal:
    """Writes a journal record by record, in segments as long as the test wants them.

    Its step rows are of the schema `SEQ_ONLY`. The lock of its head is this process's own and so says nothing here.
    """

    def __init__(self, parent: Path, info: StreamInfo, segment_bytes: int = 1 << 16) -> None:
        """Begin the first segment."""
        self.info = info
        self.directory = parent / info.stream
        self.directory.mkdir(parents=True)
        self.head = JournalHead.make(self.directory, bytes.fromhex(info.stream), 1)
        self.seq = 0
        self._segment_bytes = segment_bytes
        self._number = 0
        self._offset = 0
        self._fd = -1
        self.rotate()

    @property
    def segments(self) -> list[Path]:
        """Every segment begun so far."""
        return [segment_path(self.directory, number) for number in range(1, self._number + 1)]

    def rotate(self) -> None:
        """Go on in a new segment."""
        if self._fd >= 0:
            self._put(encode_record(END, 0, self.seq, b""))
            os.close(self._fd)
        self._number += 1
        self._fd = os.open(segment_path(self.directory, self._number), os.O_RDWR | os.O_CREAT)
        os.ftruncate(self._fd, self._segment_bytes)
        self._offset = SEGMENT_HEADER_BYTES
        self._put(encode_record(INFO, 0, self.seq, pack(msgspec.to_builtins(self.info))))
        header = SegmentHeader(bytes.fromhex(self.info.stream), self._number, self.seq + 1)
        os.pwrite(self._fd, encode_segment_header(header), 0)

    def _put(self, record: bytes) -> None:
        os.pwrite(self._fd, record, self._offset)
        self._offset += len(record)

    def steps(self, count: int = 1, *, is_published: bool = True) -> None:
        """Append step rows."""
        for _ in range(count):
            self._append("step", b"")
        if is_published:
            self.head.published = self.seq

    def record(self, kind: str, make: Callable[[int], Record]) -> None:
        """Append and publish a record of another kind."""
        self._append(kind, pack(msgspec.structs.astuple(make(self.seq + 1))))
        self.head.published = self.seq

    def log(self, text: str) -> None:
        """Append and publish a line of text."""
        self.record("log", lambda seq: LogRecord(seq, 0, "info", text))

    def _append(self, kind: str, payload: bytes) -> None:
        if self._offset + 2 * RECORD_HEADER_BYTES + len(payload) > self._segment_bytes:
            self.rotate()
        self.seq += 1
        self._put(encode_record(KIND_NUMBER[kind], 0, self.seq, payload))

    def tear(self, count: int = 10) -> None:
        """Begin another record, and be killed after `count` bytes of it."""
        os.pwrite(self._fd, encode_record(STEP, 0, self.seq + 1, b"")[:count], self._offset)

    def finish(self) -> None:
        """The worker's own word that nothing follows."""
        self.head.closed = self.seq

    def live(self, first_seq: int, count: int) -> bytes:
        """A packed frame of step rows, as the worker's flusher sends it."""
        return encode_packed([make_batch(self.info, first_seq, step=count).frames])

    def close(self) -> None:
        """Let the files go."""
        self.head.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def flip(path: Path, offset: int, mask: int = 1) -> None:
    """Change bits of one byte of a file, where it lies."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def record_seqs(header: BatchHeader, bodies: list[Frame]) -> list[int]:
    """Seqs of all records of a batch of a `FakeJournal`, in their order."""
    found: list[int] = []
    for section, body in zip(header.sections, bodies, strict=True):
        found += seqs_of(body) if section.kind == STEP else [record.seq for record in decode_records(body, section)]
    return sorted(found)
