"""JournalReader: a journal's records as batches, in order, from any seq that is still there.

Three use it: the worker's own flusher, its proxy after a gap or a restart, and whoever recovers what dead
processes left. While the writer lives, only what it has published is read. After its death everything whole is
read, each record against its check: a record torn by the kill ends the journal, anything else that is wrong is
damage, and is told.
"""

import mmap
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runlane.config.errors import JournalError, WireError
from runlane.config.names import KINDS
from runlane.config.settings import MAX_BATCH_RECORDS
from runlane.transport.ack import Batch
from runlane.transport.journal_layout import (
    END,
    INFO,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    ROW_OFFSET,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_segment_header,
    record_check,
    segment_numbers,
    segment_path,
)
from runlane.transport.messages import StreamInfo
from runlane.transport.wire import STEP, Section, array_header, encode_header, unpack

if TYPE_CHECKING:
    import numpy as np

# A batch stays well below what a frame may hold (`wire.MAX_BODY_BYTES`), but for one single larger record.
MAX_BATCH_BYTES = 4 << 20
PAGE_BYTES = 4096


class JournalDamageError(JournalError):
    """From `seq` on the journal cannot be read, though records were there. `last_seq` is the newest one known of."""

    def __init__(self, path: Path, seq: int, last_seq: int, problem: str) -> None:
        """`path` names the file, `seq` the first record that is lost."""
        self.path = path
        self.seq = seq
        self.last_seq = max(seq, last_seq)
        self.problem = problem
        lost = f"seq {seq} to {last_seq}" if last_seq > seq else f"seq {seq} and what may follow it"
        super().__init__(f"{path}: {problem}; everything before seq {seq} is whole, {lost} cannot be read")


class _Record(NamedTuple):
    """The header of the record at the reader's place."""

    length: int
    kind: int
    schema_id: int


class JournalReader:
    """Reads one journal: a directory of segments, or a single segment file. Not thread safe, writes nothing."""

    def __init__(self, source: Path) -> None:
        """Nothing is opened before `seek`."""
        self.source = source
        self.info: StreamInfo | None = None
        self.next_seq = 0
        self.is_torn = False
        self._number = 0
        self._offset = 0
        self._map: mmap.mmap | None = None
        self._view = memoryview(b"")
        self._published = 0
        self._is_final = False

    # ---- place

    def seek(self, seq: int) -> None:
        """Stand before the record `seq`, or before the oldest one left where that is newer: see `next_seq`.

        Raises `JournalError` when there is no readable segment.
        """
        if self._map is not None and self.next_seq <= seq and not self._is_later(seq):
            self._skip_to(seq)  # further on in the segment that is open
            return
        self.close()
        numbers = self._numbers()
        problem = f"{self.source}: no segment with records"
        for number in reversed(numbers):
            try:
                header = self._open(number)
            except (JournalError, FileNotFoundError) as error:
                problem = str(error)  # an older one may do; reading on from there will meet this one again
                continue
            if header is not None and (header.first_seq <= seq or number == numbers[0]):
                self.next_seq = header.first_seq
                self._skip_to(seq)
                return
        raise JournalError(problem)

    def seek_newest(self) -> None:
        """Stand before the first record of the newest segment, passing over all before it."""
        self.seek(max(map(self._first_seq, self._numbers()), default=0))

    def _skip_to(self, seq: int) -> None:
        """Pass over records that are committed already: whether they are whole does not matter any more."""
        published, is_final = self._published, self._is_final
        self._published, self._is_final = seq - 1, False
        try:
            while self.next_seq < seq:
                try:
                    record = self._peek()
                    if record is None:
                        break
                    count = self._count(record, seq - self.next_seq)
                except JournalDamageError:
                    place = self._find(seq)
                    if place < 0:
                        raise
                    self._offset, self.next_seq = place, seq
                    break
                self._offset += count * record.length
                self.next_seq += count
        finally:
            self._published, self._is_final = published, is_final

    def close(self) -> None:
        """Let the segment go. `seek` opens again."""
        self._view.release()
        self._view = memoryview(b"")
        if self._map is not None:
            self._map.close()
            self._map = None

    # ---- records

    def read(self, published: int, closed_ns: int, most: int = MAX_BATCH_RECORDS) -> Batch | None:
        """The next batch up to seq `published`, encoded as it is sent; None when there is none.

        Raises `JournalDamageError` when the next record should be there and is not whole.
        """
        self._published, self._is_final = published, False
        return self._read(closed_ns, most)

    def read_final(self, published: int, closed_ns: int, most: int = MAX_BATCH_RECORDS) -> Batch | None:
        """As `read`, of a journal whose writer is dead: up to its last whole record, with every check."""
        self._published, self._is_final = published, True
        return self._read(closed_ns, most)

    def _read(self, closed_ns: int, most: int) -> Batch | None:
        first_seq = self.next_seq
        rows: list[bytes] = []
        row_count = size = schema_id = 0
        others: dict[int, list[bytes]] = {}
        try:
            while self.next_seq - first_seq < most:
                record = self._peek()
                if record is None or (record.kind == STEP and rows and record.schema_id != schema_id):
                    break
                fitting = (MAX_BATCH_BYTES - size) // record.length
                if not fitting and size:
                    break
                count = self._count(record, min(most - (self.next_seq - first_seq), max(1, fitting)))
                start, end = self._offset, self._offset + count * record.length
                if record.kind == STEP:
                    rows.append(_rows(self._view[start:end], record.length))
                    row_count += count
                    schema_id = record.schema_id
                else:
                    others.setdefault(record.kind, []).append(bytes(self._view[start + RECORD_HEADER_BYTES : end]))
                self._offset = end
                self.next_seq += count
                size += end - start
        except JournalDamageError:
            if self.next_seq == first_seq:
                raise  # otherwise first what was read before it; the next call meets it again
        if self.next_seq == first_seq or self.info is None:
            return None
        return self._batch(first_seq, closed_ns, (schema_id, row_count, rows), others)

    def _batch(
        self, first_seq: int, closed_ns: int, steps: tuple[int, int, list[bytes]], others: dict[int, list[bytes]]
    ) -> Batch:
        assert self.info is not None  # noqa: S101  `_read` looked
        schema_id, row_count, rows = steps
        sections: list[Section] = []
        bodies: list[bytes] = []
        if row_count:
            body = b"".join(rows)
            sections.append(Section(STEP, schema_id, row_count, len(body)))
            bodies.append(body)
        for kind, payloads in others.items():
            body = array_header(len(payloads)) + b"".join(payloads)
            sections.append(Section(kind, 0, len(payloads), len(body)))
            bodies.append(body)
        last_seq = self.next_seq - 1
        stream = bytes.fromhex(self.info.stream)
        head = encode_header(stream, first_seq, last_seq - first_seq + 1, closed_ns, sections)
        return Batch(first_seq, last_seq, (head, *bodies), len(head) + sum(map(len, bodies)))

    # ---- inside

    def _peek(self) -> _Record | None:
        """Header of the next record, once the journal's own records before it are dealt with; None for none yet."""
        while True:
            if not self._is_final and self.next_seq > self._published:
                return None
            if self._map is None and not self._open_next():
                return None
            if self._offset + RECORD_HEADER_BYTES > len(self._view):
                self._at_invalid("the file ends before its last record")
                return None
            _, length, kind, schema_id, seq = RECORD_HEADER.unpack_from(self._view, self._offset)
            if length == 0:
                self._at_invalid("nothing is written where a record must be")
                return None
            if length < RECORD_HEADER_BYTES or self._offset + length > len(self._view):
                self._at_invalid(f"a record of {length} bytes does not fit")
                return None
            is_own = kind in (INFO, END)
            if (is_own or self._is_final) and not record_check(self._view, self._offset, length):
                self._at_invalid("a record's check does not fit")
                return None
            if is_own:
                self._take_own(kind, length)
            elif kind > len(KINDS) or seq != self.next_seq:
                self._at_invalid(f"a record of kind {kind} with seq {seq} where seq {self.next_seq} must be")
                return None
            else:
                return _Record(length, kind, schema_id)

    def _take_own(self, kind: int, length: int) -> None:
        if kind == INFO:
            payload = self._view[self._offset + RECORD_HEADER_BYTES : self._offset + length]
            try:
                self.info = msgspec.convert(unpack(payload), StreamInfo)
            except (msgspec.ValidationError, WireError) as error:
                raise JournalError(f"{segment_path(self.source, self._number)}: the stream's info: {error}") from None
            finally:
                payload.release()
            self._offset += length
        else:
            self.close()
            self._number += 1

    def _count(self, record: _Record, most: int) -> int:
        """How many records like the next one follow each other without a gap, itself included; at most `most`."""
        if record.kind != STEP:
            return 1
        most = min(most, (len(self._view) - self._offset) // record.length)
        if not self._is_final:
            most = min(most, self._published - self.next_seq + 1)
        import numpy as np  # here, so that a proxy that has nothing to catch up with starts without it

        found = np.frombuffer(self._view, _row_dtype(record.length), most, self._offset)
        heads = found["head"]
        is_like = heads == heads[0]
        if self._is_final:
            is_like &= found["seq"] == np.arange(self.next_seq, self.next_seq + most, dtype=np.uint64)
        # The first that is unlike; 0 when all are like the first, which is always like itself.
        count = int(is_like.argmin()) or most
        if self._is_final:
            for index in range(1, count):
                if not record_check(self._view, self._offset + index * record.length, record.length):
                    return index
        return count

    def _at_invalid(self, problem: str) -> None:
        """No whole record is here: the end of what a dead writer wrote, or damage."""
        path = self._path(self._number)
        if self._published >= self.next_seq:
            found = self._find(self.next_seq + 1) if self._is_final else -1
            last_seq = self._last_whole(found) if found >= 0 else 0
            raise JournalDamageError(path, self.next_seq, max(last_seq, self._published), problem)
        found = self._find(self.next_seq + 1)
        if found >= 0:
            raise JournalDamageError(path, self.next_seq, self._last_whole(found), problem)
        later = [number for number in self._numbers() if number > self._number and self._first_seq(number)]
        if later:
            last_seq = self._first_seq(later[-1])
            raise JournalDamageError(path, self.next_seq, last_seq, problem)
        self.is_torn = self.is_torn or any(self._view[self._offset : self._offset + PAGE_BYTES])

    def _find(self, seq: int) -> int:
        """Offset of a whole record `seq` further on in this segment; -1 when there is none."""
        if self._map is None:
            return -1
        pattern = struct.pack("<Q", seq)
        at = self._map.find(pattern, self._offset + ROW_OFFSET)
        while at >= 0:
            start = at - ROW_OFFSET
            if start + RECORD_HEADER_BYTES <= len(self._view):
                _, length, kind, _, _ = RECORD_HEADER.unpack_from(self._view, start)
                is_possible = RECORD_HEADER_BYTES <= length <= len(self._view) - start and 0 < kind <= len(KINDS)
                if is_possible and record_check(self._view, start, length):
                    return start
            at = self._map.find(pattern, at + 1)
        return -1

    def _last_whole(self, offset: int) -> int:
        """Seq of the last of the whole records that follow each other from here in this segment."""
        last_seq = 0
        while offset + RECORD_HEADER_BYTES <= len(self._view):
            _, length, kind, _, seq = RECORD_HEADER.unpack_from(self._view, offset)
            is_possible = RECORD_HEADER_BYTES <= length <= len(self._view) - offset
            if not is_possible or not record_check(self._view, offset, length):
                break
            last_seq = seq if 0 < kind <= len(KINDS) else last_seq
            offset += length
        return last_seq

    # ---- files

    def _numbers(self) -> list[int]:
        if self.source.is_dir():
            return segment_numbers(self.source)
        return [self._number or 1]

    def _path(self, number: int) -> Path:
        return segment_path(self.source, number) if self.source.is_dir() else self.source

    def _open_next(self) -> bool:
        """Open the segment that follows; False when it is not there yet, or a spare."""
        if not self.source.is_dir():
            return False
        try:
            header = self._open(self._number)
        except FileNotFoundError:
            header = None
        except JournalError as error:
            raise JournalDamageError(self._path(self._number), self.next_seq, self._published, str(error)) from None
        if header is None:
            later = [number for number in self._numbers() if number > self._number]
            if later or self._published >= self.next_seq:
                problem = "the segment is missing"
                raise JournalDamageError(self._path(self._number), self.next_seq, self._published, problem)
            return False
        if header.first_seq != self.next_seq:
            problem = f"the segment begins with seq {header.first_seq}"
            raise JournalDamageError(self._path(self._number), self.next_seq, header.first_seq, problem)
        return True

    def _open(self, number: int) -> SegmentHeader | None:
        """Map a segment and stand before its first record; None for a spare. Raises `JournalError`."""
        path = self._path(number)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < SEGMENT_HEADER_BYTES:
                raise JournalError(f"{path}: too short to be a segment of a runlane journal")
            found = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        try:
            header = decode_segment_header(found[:SEGMENT_HEADER_BYTES])
        except JournalError as error:
            found.close()
            raise JournalError(f"{path}: {error}") from None
        if not header.first_seq:
            found.close()
            return None
        self.close()
        self._map, self._view = found, memoryview(found)
        self._number, self._offset = header.number, SEGMENT_HEADER_BYTES
        self._take_first_info()
        return header

    def _take_first_info(self) -> None:
        """The stream's info stands at the start of every segment, written a moment after the header."""
        if len(self._view) >= self._offset + RECORD_HEADER_BYTES:
            _, length, kind, _, _ = RECORD_HEADER.unpack_from(self._view, self._offset)
            is_whole = RECORD_HEADER_BYTES < length <= len(self._view) - self._offset
            if kind == INFO and is_whole and record_check(self._view, self._offset, length):
                self._take_own(kind, length)

    def _is_later(self, seq: int) -> bool:
        """Whether a record lies in a segment after the open one. Those between may be deleted already."""
        return any(0 < self._first_seq(number) <= seq for number in self._numbers() if number > self._number)

    def _first_seq(self, number: int) -> int:
        """First seq of a segment, 0 when it holds nothing or cannot be read."""
        return first_seq_of(self._path(number))


def first_seq_of(path: Path) -> int:
    """First seq of a segment file; 0 when it is a spare, damaged, or gone."""
    try:
        with path.open("rb") as file:
            return decode_segment_header(file.read(SEGMENT_HEADER_BYTES)).first_seq
    except (OSError, JournalError):
        return 0


def has_begun(directory: Path) -> bool:
    """Whether a journal may hold records: a spare segment, or one that a kill left half made, never did."""
    return any(_has_begun(segment_path(directory, number)) for number in segment_numbers(directory))


def _has_begun(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            data = file.read(PAGE_BYTES)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return decode_segment_header(data).first_seq > 0
    except JournalError:
        return any(data)


@lru_cache(maxsize=64)
def _row_dtype(length: int) -> "np.dtype[np.void]":
    import numpy as np

    fields: Any = {
        "names": ["head", "seq", "row"],
        "formats": ["<u8", "<u8", f"V{length - ROW_OFFSET}"],
        "offsets": [4, ROW_OFFSET, ROW_OFFSET],
        "itemsize": length,
    }
    found: np.dtype[np.void] = np.dtype(fields)
    return found


def _rows(records: memoryview, length: int) -> bytes:
    """The rows of step records of one length, without what precedes them."""
    import numpy as np

    body: bytes = np.frombuffer(records, _row_dtype(length))["row"].tobytes()
    return body
