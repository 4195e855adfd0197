"""FastLaneWriter: the one writer of a ring. It never waits, for no reader and for no lock.

`publish` is one copy of the pixels and little more: see `benchmarks/bench_fast_lane.py`. What it stores, in which
order, and why a reader can trust it, is drawn in `ring_layout.py`.
"""

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runlane.config.errors import FastLaneError
from runlane.transport.lease import Wanted, wanted
from runlane.transport.ring_files import make_file, make_head, remove_ring, ring_directories
from runlane.transport.ring_layout import (
    CHECK_OFFSET,
    CLOSED,
    FIELDS,
    FIELDS_OFFSET,
    GENERATION,
    HEAD,
    HEAD_BYTES,
    SLOT_HEADER_BYTES,
    Geometry,
    HeadHeader,
    Hud,
    RingInfo,
    SlotsHeader,
    check_of,
    encode_head,
    encode_slots,
    is_ordered,
    slots_header,
)

MAX_SLOTS = 64
_put_fields = FIELDS.pack_into
_NO_HUD = Hud()
_REFUSED = (BufferError, IndexError, OverflowError, TypeError, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class FastLaneConfig:
    """How a ring is made: `slots` frames fit into it; `is_checked` None decides by the processor.

    With one slot almost every read at full speed finds the frame being written over; with four, one in a hundred.
    """

    slots: int = 4
    is_checked: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no ring has."""
        if not 0 < self.slots <= MAX_SLOTS:
            raise FastLaneError(f"slots = {self.slots}: a ring has 1 to {MAX_SLOTS}; choose 4")


@dataclass(frozen=True, slots=True)
class WriterMetrics:
    """Figures of a writer: frames published, their bytes, the generation in use and its slots."""

    frames: int
    bytes: int
    generation: int
    slots: int
    geometry: Geometry | None


class FastLaneWriter:
    """A ring, from its making to its removal. For one thread."""

    def __init__(
        self,
        run_dir: Path,
        info: RingInfo,
        config: FastLaneConfig | None = None,
        directories: Sequence[Path] | None = None,
    ) -> None:
        """Make the head; slots come with the first frame. Raises `FastLaneError` where there is no room.

        `directories` are tried in order; None: shared memory, then the run directory.
        """
        self.info = info
        self.config = config or FastLaneConfig()
        self.frames = 0
        self.notes: list[str] = []  # what the newest generation gave up to find room, for the log
        self._directories = ring_directories(run_dir) if directories is None else tuple(directories)
        is_checked = self.config.is_checked
        self._is_checked = not is_ordered() if is_checked is None else is_checked
        self._pid = os.getpid()
        header = encode_head(HeadHeader(self._pid, started_ticks(self._pid), time.time_ns()), info)
        self._fd, self.path = make_head(run_dir, self._directories)
        try:
            self._head_map = mmap.mmap(self._fd, HEAD_BYTES)
            self._head_map[8:HEAD_BYTES] = header[8:]
            self._head_map[:8] = header[:8]  # the magic last: nobody reads half a head
        except BaseException:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            raise
        # Slots never lie before their head, see `ring_files`.
        self._directories = self._directories[self._directories.index(self.path.parent) :]
        self._head = memoryview(self._head_map).cast("Q")
        self._header: SlotsHeader | None = None
        self._shape: tuple[int, ...] | None = None
        self._map: Any = None  # mmap.mmap once there are slots; so is the rest
        self._words: Any = None
        self._slots: list[tuple[int, int, slice]] = []
        self._slot_count = 1
        self._bytes_before = self._frames_before = 0  # of earlier generations
        self._is_closed = False

    # ---- frames ----

    def publish(self, frame: Any, hud: tuple[Any, ...] = _NO_HUD) -> None:
        """Copy a frame into the ring, as the newest one.

        `frame` is an array or memoryview of uint8 of shape (height, width) or (height, width, 1, 3 or 4), in C order;
        `hud` the fields of a `Hud`. Raises `FastLaneError` for anything else, and where there is no room for a frame
        of this size; readers then keep the frame before.
        """
        try:
            shape = frame.shape
        except AttributeError:
            raise FastLaneError(f"a frame of type {type(frame).__name__}: give an array of uint8") from None
        if shape != self._shape:
            self._resize(shape)
        number = self.frames + 1
        word, fields, pixels = self._slots[number % self._slot_count]
        self._words[word] = number  # from here on no reader believes this slot
        try:
            _put_fields(self._map, fields, *hud)
            self._map[pixels] = frame
        except _REFUSED as error:
            raise FastLaneError(f"a frame must be uint8 in C order, its HUD ten numbers: {error}") from None
        if self._is_checked:
            self._put_check(word, frame)
        self.frames = number
        self._head[HEAD] = number

    def _put_check(self, word: int, frame: Any) -> None:
        start = word * 8
        self._words[word + CHECK_OFFSET // 8] = check_of(self._map[start : start + CHECK_OFFSET], frame)

    def _resize(self, shape: tuple[int, ...]) -> None:
        """Begin a generation for frames of this shape."""
        if self._is_closed:
            raise FastLaneError(f"ring {self.path.name} is closed")
        geometry = geometry_of(shape)
        before = self.metrics()
        self._bytes_before, self._frames_before = before.bytes, before.frames
        header = slots_header(before.generation + 1, 1, geometry, is_checked=False)
        self._close_slots()
        fd, self._header = self._make_slots(header)
        try:
            self._map = mmap.mmap(fd, self._header.file_bytes)
        finally:
            os.close(fd)
        first = encode_slots(self._header)
        self._map[: len(first)] = first
        self._words = memoryview(self._map).cast("Q")
        self._slots = [self._slot(self._header, index) for index in range(self._header.slots)]
        self._slot_count = self._header.slots
        self._shape = tuple(shape)
        self._head[GENERATION] = self._header.generation

    @staticmethod
    def _slot(header: SlotsHeader, index: int) -> tuple[int, int, slice]:
        """Index of its number's word, offset of its fields, place of its pixels."""
        start = header.slot_offset(index)
        pixels = start + SLOT_HEADER_BYTES
        return start // 8, start + FIELDS_OFFSET, slice(pixels, pixels + header.geometry.frame_bytes)

    def _make_slots(self, header: SlotsHeader) -> tuple[int, SlotsHeader]:
        """Make the slots file where there is room, with fewer slots rather than none."""
        problem = ""
        self.notes.clear()
        counts = [self.config.slots, *(count for count in (2, 1) if count < self.config.slots)]
        for count in counts:
            wanted_header = slots_header(header.generation, count, header.geometry, is_checked=self._is_checked)
            for directory in self._directories:
                path = directory / f"{self.path.name}.{header.generation}"
                try:
                    fd = make_file(path, wanted_header.file_bytes)
                except OSError as error:
                    problem = f"{directory}: {error.strerror or error}"
                    self.notes.append(f"no room for {count} slots of {header.geometry.frame_bytes} bytes in {problem}")
                else:
                    return fd, wanted_header
        raise FastLaneError(
            f"no room for one frame of {header.geometry.frame_bytes} bytes in {problem}; free some space there, "
            "or start the container with --shm-size=1g"
        )

    # ---- viewers ----

    def wanted(self, now_ns: int) -> Wanted | None:
        """What viewers ask for now (monotonic nanoseconds); None while nobody watches."""
        return wanted(self._head, now_ns)

    def metrics(self) -> WriterMetrics:
        """Figures so far."""
        header = self._header
        if header is None:
            return WriterMetrics(self.frames, 0, 0, 0, None)
        size = self._bytes_before + (self.frames - self._frames_before) * header.geometry.frame_bytes
        return WriterMetrics(self.frames, size, header.generation, header.slots, header.geometry)

    # ---- the end ----

    def close(self) -> None:
        """Say that nothing follows, and remove the ring; who has it open still reads the last frame. Again: nothing."""
        if self._is_closed:
            return
        if self._pid != os.getpid():
            self.forget()
            return
        self._head[CLOSED] = 1
        remove_ring(self.path, self._directories)
        self.forget()

    def forget(self) -> None:
        """Let go without removing anything, as a forked child has to: the ring is its parent's."""
        if self._is_closed:
            return
        self._is_closed = True
        self._unmap()
        self._head.release()
        self._head_map.close()
        os.close(self._fd)  # the lock is of the open file, which a parent still has

    def _unmap(self) -> None:
        if self._words is not None:
            self._words.release()
        if self._map is not None:
            self._map.close()
        self._words = self._map = None
        self._slots = []
        self._shape = None

    def _close_slots(self) -> None:
        """Remove the generation in use; who has it open keeps it until the next frame."""
        self._unmap()
        if self._header is not None:
            for directory in self._directories:
                with contextlib.suppress(OSError):
                    (directory / f"{self.path.name}.{self._header.generation}").unlink(missing_ok=True)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            self.close()


def geometry_of(shape: tuple[int, ...]) -> Geometry:
    """Size of a frame by the shape of its array. Raises `FastLaneError` for a shape no frame has."""
    if len(shape) == 2:
        return Geometry(shape[1], shape[0], 1)
    if len(shape) == 3:
        return Geometry(shape[1], shape[0], shape[2])
    raise FastLaneError(f"a frame of shape {tuple(shape)}: give (height, width) or (height, width, channels)")


def started_ticks(pid: int) -> int:
    """When a process started, in the kernel's ticks since boot; 0 where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
