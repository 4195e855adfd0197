"""JournalWriter: appends records to a stream's journal. Gives each its seq. No lock, no thread, no socket.

The session packs step rows itself, with the fields of this class; everything else is appended here. A
KeyboardInterrupt can arrive at any call, so `offset` and `seq` move right after the record is in place, with no
call between: a record is wholly in the journal, or its place is written again. What is in place survives `kill -9`,
because the pages are the kernel's.
"""

import contextlib
import errno
import mmap
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from runlane.config.settings import MAX_BATCH_RECORDS, JournalSettings
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
from runlane.transport.messages import StepSchema, StreamInfo
from runlane.transport.records import DropRecord, Record, pack_record
from runlane.transport.wire import KIND_NUMBER, pack
from runlane.workers.step_layout import StepLayout, VectorLayout

# Every schema of a stream stands in each of its hellos, which a receiver takes up to `wire.MAX_CONTROL_BYTES`.
MAX_SCHEMAS = 1_000
# How soon a segment is tried again after the disk was full.
RETRY_S = 0.25
# What a drop record takes at most; all kinds together must fit before one of them is told.
DROP_BYTES = 128


# What a step needs that changes rarely, so that it is one attribute to read and not eight: the clock, what packs a
# record from byte 4 on, the layout's prefix, what puts check and record into the segment, the segment, the record's
# bytes, dtype and bytes of the observation.
RowKit = tuple[
    Callable[[], int], Callable[..., bytes], bytes, Callable[..., None], mmap.mmap | bytearray, int, Any, int
]


class JournalFullError(Exception):
    """There is no room for another segment. `reason` is `journal_full` (the quota) or `disk_full`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """`detail` is the system's own word."""
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class Segment:
    """One preallocated, mapped file. `last_seq` is known once it has a successor."""

    def __init__(self, directory: Path, stream: bytes, number: int, size: int) -> None:
        """Make the file with all its blocks, so that a full disk is an error here and not a SIGBUS in `step()`.

        Raises `OSError`.
        """
        self.number = number
        self.size = size
        self.last_seq = 0
        self._stream = stream
        path = segment_path(directory, number)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self.fd, 0, size)
            self.view = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            path.unlink()
            raise
        self.view[:SEGMENT_HEADER_BYTES] = self.header(0)

    def header(self, first_seq: int) -> bytes:
        """Its header: with 0 for a spare one, else with the seq its first record will have."""
        header = encode_segment_header(SegmentHeader(self._stream, self.number, first_seq))
        return header.ljust(SEGMENT_HEADER_BYTES, b"\0")

    def close(self) -> None:
        """Unmap. The file stays for its reader, who deletes it."""
        self.view.close()
        with contextlib.suppress(OSError):
            os.close(self.fd)


class JournalWriter:
    """The journal being written. `rotate` may raise `JournalFullError`; nothing else here waits or fails."""

    __slots__ = (
        "_clock",
        "_last_acked",
        "_making",
        "_next_number",
        "_older",
        "_retry_s",
        "_schemas",
        "_settings",
        "directory",
        "head",
        "info",
        "is_held",
        "layout",
        "layouts",
        "offset",
        "other_records",
        "record_bytes",
        "retired",
        "row_kit",
        "segment",
        "seq",
        "spare",
        "stop_offset",
        "view",
        "wake_every",
        "wake_seq",
    )

    def __init__(self, directory: Path, info: StreamInfo, settings: JournalSettings, wake_every: int) -> None:
        """Touches no file before the first `rotate`. `wake_every` is how many records a batch has."""
        self.directory = directory
        self.info = info
        self.head: JournalHead | None = None
        self.segment: Segment | None = None
        self.spare: Segment | None = None
        self.retired: deque[Segment] = deque()
        self.seq = 0
        self.other_records = 0  # of any kind but step
        self.wake_every = min(wake_every, MAX_BATCH_RECORDS)
        self.wake_seq = self.wake_every
        self._settings = settings
        self._making = threading.Lock()
        self._older: deque[Segment] = deque()
        self._next_number = 1
        self._retry_s = 0.0
        self._last_acked = 0
        self._schemas: list[StepSchema] = []
        self.layouts: dict[tuple[object, ...], StepLayout | VectorLayout] = {}
        # What `step()` needs of the segment and the layout in use. `stop_offset`: from here on look at `seq` and room.
        self.view: mmap.mmap | bytearray = bytearray()
        self.offset = 0
        self.stop_offset = -1
        self.is_held = False  # written by the flusher, and by the session in its turn
        self.layout: StepLayout | VectorLayout | None = None
        self.record_bytes = 0
        self._clock: Callable[[], int] = time.time_ns
        self.row_kit = self._kit(None, self.view)

    # ---- records ------------------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """Whether a record of `size` bytes fits into the segment in use."""
        segment = self.segment
        return segment is not None and self.offset + size <= segment.size - RECORD_HEADER_BYTES

    def append(self, kind: str, make: Callable[[int], Record]) -> int:
        """Give the record that `make` builds the next seq. Returns 0, or the bytes it needs where there is no room."""
        seq = self.seq + 1
        record = encode_record(KIND_NUMBER[kind], 0, seq, pack_record(make(seq)))
        size = len(record)
        end = self.offset + size
        if not self.has_room(size):
            return size
        self.view[self.offset : end] = record
        self.offset = end  # no call from here on: see the module's docstring
        self.seq = seq
        self.other_records += 1
        return 0

    def append_row(self, layout: VectorLayout, body: bytes) -> None:
        """Append a row that is packed but for its seq; there is room."""
        seq = self.seq + 1
        record = encode_record(KIND_NUMBER["step"], layout.schema.schema_id, seq, body)
        end = self.offset + len(record)
        self.view[self.offset : end] = record
        self.offset = end
        self.seq = seq

    def use(self, layout: StepLayout | VectorLayout) -> StepLayout | VectorLayout:
        """Write rows in this layout from here on, or in the equal one that was used before; returns which.

        There is room for `info_bytes`. Raises `ValueError` when a stream has too many layouts to announce.
        """
        key = (*layout.schema.fields, layout.schema.env_count)
        known = self.layouts.get(key)
        if known is None:
            if len(self._schemas) >= MAX_SCHEMAS:
                raise ValueError(f"the rows of this stream have more than {MAX_SCHEMAS} shapes")
            self._schemas.append(layout.schema)
            self.info = msgspec.structs.replace(self.info, schemas=list(self._schemas))
            self._append_info()
            known = self.layouts[key] = layout
        kit = self._kit(known, self.view)
        self.layout, self.record_bytes, self.row_kit = known, known.record_bytes, kit
        self.set_stop()
        return known

    @property
    def schema_count(self) -> int:
        """Layouts used so far; the next new one gets this id."""
        return len(self._schemas)

    def info_bytes(self, layout: StepLayout | VectorLayout) -> int:
        """Upper bound of what announcing a layout takes."""
        return RECORD_HEADER_BYTES + len(pack(msgspec.to_builtins(self.info))) + 64 * (len(layout.schema.fields) + 1)

    def _append_info(self) -> None:
        record = encode_record(INFO, 0, self.seq, pack(msgspec.to_builtins(self.info)))
        end = self.offset + len(record)
        self.view[self.offset : end] = record
        self.offset = end

    def _kit(self, layout: StepLayout | VectorLayout | None, view: mmap.mmap | bytearray) -> RowKit:
        """What `step()` packs rows of a layout with, into a segment."""
        if not isinstance(layout, StepLayout):
            return (self._clock, _refuse, b"", struct.pack_into, view, 0, None, 0)
        pack = layout.pack if layout.is_plain or layout.observation_dtype is not None else _refuse
        row = (self._clock, pack, layout.prefix, layout.put, view, layout.record_bytes)
        return (*row, layout.observation_dtype, layout.observation_bytes)

    def set_clock(self, clock: Callable[[], int]) -> None:
        """What `step()` asks for the time from here on, in nanoseconds."""
        self._clock = clock
        self.row_kit = (clock, *self.row_kit[1:])

    def set_stop(self) -> None:
        """Where `step()` has to look again: at the segment's end, or once a batch is full."""
        size = self.record_bytes
        if self.segment is None or not size:
            self.stop_offset = -1
            return
        last = self.segment.size - RECORD_HEADER_BYTES - size + 1
        rows = self.wake_seq - self.seq
        full = self.offset + (rows * size if rows > 0 else size)
        self.stop_offset = min(last, full)
        if self.is_held:  # looked at after the store: `hold` may have come before it
            self.stop_offset = -1

    def hold(self) -> None:
        """Let every step look, until `is_held` is taken back and `set_stop` called. From any thread."""
        self.is_held = True  # before the store, which a `set_stop` under way would overwrite
        self.stop_offset = -1

    # ---- segments -----------------------------------------------------------------------------------------

    def rotate(self, size: int) -> None:
        """Go on in a segment with room for a record of `size` bytes. Raises `JournalFullError`.

        An interrupt anywhere before the switch leaves everything as it was: the next attempt does it again.
        """
        self.stop_offset = -1  # until `set_stop`, also when we are interrupted: `step()` has to look again
        with self._making:  # the flusher may be making the spare
            if self.spare is None or self.spare.size < self._size_for(size):
                self._make(size)
            segment, before = self.spare, self.segment
            assert segment is not None  # noqa: S101  `_make` made it
            header = segment.header(self.seq + 1)
            info = encode_record(INFO, 0, self.seq, pack(msgspec.to_builtins(self.info)))
            end = encode_record(END, 0, self.seq, b"")
            offset, end_offset = SEGMENT_HEADER_BYTES + len(info), self.offset + len(end)
            older = () if before is None else (before,)
            kit = self._kit(self.layout, segment.view)
            # No call from here on: a segment that has begun, and is not the one in use, would be read as what follows.
            if before is not None:
                before.view[self.offset : end_offset] = end
                before.last_seq = self.seq
            segment.view[SEGMENT_HEADER_BYTES:offset] = info
            segment.view[:SEGMENT_HEADER_BYTES] = header  # after what stands behind it
            self.view, self.offset, self.segment, self.spare = segment.view, offset, segment, None
            self.row_kit = kit
            self.stop_offset = -1
            self._next_number += 1
            self._older += older
            self.retired += older
        self.set_stop()

    def make_spare(self) -> None:
        """Make the next segment before it is needed. For the flusher; the session takes it when it is there."""
        segment = self.segment
        if self.spare is not None or segment is None or self.offset * 2 < segment.size:
            return
        with contextlib.suppress(JournalFullError), self._making:
            self._make(0)

    def _size_for(self, size: int) -> int:
        """Bytes of a segment that can hold the stream's info and one record of `size`."""
        own = SEGMENT_HEADER_BYTES + 2 * RECORD_HEADER_BYTES + len(pack(msgspec.to_builtins(self.info)))
        return max(self._settings.segment_bytes, own + size)

    def _make(self, size: int) -> None:
        """Make `spare`, within the quota and the disk's room; raises `JournalFullError`."""
        wanted = self._size_for(size)
        if self.spare is not None:  # too small for what comes now
            spare, self.spare = self.spare, None
            spare.close()
        if self._held_bytes() + wanted > max(self._settings.quota_bytes, wanted):
            raise JournalFullError("journal_full")
        if time.monotonic() < self._retry_s:
            raise JournalFullError("disk_full", "tried a moment ago")
        try:
            self._make_files(wanted)
        except OSError as error:
            self._retry_s = time.monotonic() + RETRY_S
            raise JournalFullError("disk_full", f"{self.directory}: {error.strerror or error}") from None

    def _make_files(self, wanted: int) -> None:
        if self.head is None:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if free_bytes(self.directory) - wanted < self._settings.min_free_bytes:
                raise OSError(errno.ENOSPC, "less free space than journal.min_free_bytes")
            if self.head is None:
                self.head = JournalHead.make(
                    self.directory, bytes.fromhex(self.info.stream), self.info.started_ns, self.info
                )
        except OSError:
            if self.head is None:  # leave nothing half made
                with contextlib.suppress(OSError):
                    self.directory.rmdir()
            raise
        segment_path(self.directory, self._next_number).unlink(missing_ok=True)  # of an attempt that failed
        self.spare = Segment(self.directory, bytes.fromhex(self.info.stream), self._next_number, wanted)

    @property
    def acked_seq(self) -> int:
        """Everything up to here is committed."""
        return self.head.acked if self.head is not None else self._last_acked

    def _held_bytes(self) -> int:
        """Bytes of segments with records that are not committed."""
        acked = self.acked_seq
        while self._older and self._older[0].last_seq <= acked:
            self._older.popleft()
        held = sum(older.size for older in self._older)
        # Once all is committed it is as good as free, or a record as large as the quota would wait for ever.
        return held + (self.segment.size if self.segment is not None and acked < self.seq else 0)

    # ---- drops --------------------------------------------------------------------------------------------

    def tell_drops(self, dropped: dict[str, tuple[int, str]]) -> None:
        """Append a drop record for each kind that lost some, if all fit; those told are taken out of `dropped`."""
        if not self.has_room(DROP_BYTES * len(dropped)):
            return
        for kind, (records, reason) in list(dropped.items()):
            if self.head is not None:
                self.head.begin_to_tell(kind, self.seq + 1)
            drop = (kind, reason, records)
            self.append("drop", lambda seq, drop=drop: DropRecord(seq, time.time_ns(), *drop))  # type: ignore[misc]
            del dropped[kind]  # before any call, or an interrupt would have it told twice
            if self.head is not None:
                self.head.have_told(kind)

    def close(self) -> None:
        """Unmap everything. The files stay until their reader has seen them committed."""
        while self.retired:
            self.retired.popleft().close()
        for segment in (self.segment, self.spare):
            if segment is not None:
                segment.close()
        self.segment = self.spare = None
        self.view, self.stop_offset = bytearray(), -1
        if self.head is not None:
            self._last_acked = self.head.acked
            head, self.head = self.head, None
            head.close()


def _refuse(*_values: object) -> bytes:
    """In place of `pack` where a row needs conversion first."""
    raise TypeError


def free_bytes(directory: Path) -> int:
    """Bytes an ordinary user may still write to the file system of a directory."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
