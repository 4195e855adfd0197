"""FastLaneReader: one of any number of passive readers of a ring. It sees the newest frame, and never a torn one.

The slots are mapped read-only, so that no reader can harm what another one sees; in the head it writes its own lease
and nothing else. What it gives out is a copy: no view of shared memory ever leaves.
"""

import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from runlane.config.errors import FastLaneError
from runlane.transport.lease import Lease
from runlane.transport.ring_files import is_locked, open_head, open_slots, ring_directories
from runlane.transport.ring_layout import (
    CHECK_OFFSET,
    CLOSED,
    FIELDS,
    FIELDS_OFFSET,
    GENERATION,
    HEAD,
    HEAD_BYTES,
    SLOT_HEADER_BYTES,
    SLOTS_HEADER_BYTES,
    Geometry,
    Hud,
    SlotsHeader,
    check_of_copy,
    decode_head,
    decode_slots,
)

ATTEMPTS = 3
_UNMAPPED = -1
_take_fields = FIELDS.unpack_from
_new = cast("Callable[[type[Hud], tuple[Any, ...]], Hud]", vars(tuple)["__new__"])  # `Hud._make` takes twice as long


@dataclass(frozen=True, slots=True)
class FastLaneMetrics:
    """Figures of a reader.

    `frames` were read. `lapped` were published and not seen, because newer ones were there: that is how a ring works.
    `torn` copies were thrown away, because the writer had begun to write over them. `lag_frames` is how many frames
    behind the newest the last one read is now; `age_ms` how old it is, None before the first.
    """

    frames: int
    lapped: int
    torn: int
    lag_frames: int
    age_ms: float | None


class FastLaneReader:
    """An attached ring. For one thread. Raises `FastLaneError` where there is none."""

    def __init__(self, head: Path, directories: Sequence[Path] | None = None) -> None:
        """`head` is the path of a ring's head, as of `find_rings`. Frames from before are news once."""
        self.path = head
        self.frames = self.torn = 0
        self._directories = ring_directories(head.parent) if directories is None else tuple(directories)
        self._fd = open_head(head)
        try:
            self.header, self.info = decode_head(os.pread(self._fd, HEAD_BYTES, 0))
            self._head_map = mmap.mmap(self._fd, HEAD_BYTES)
        except BaseException:
            os.close(self._fd)
            raise
        self._head = memoryview(self._head_map).cast("Q")
        self.lease = Lease(self._head)
        self._last = self._before = 0  # numbers of the newest frame read, and of the one before the first read
        self._newest_hud = Hud()
        self._generation: int = _UNMAPPED
        self._header: Any = None
        self._map: Any = None  # mmap.mmap once there are slots; so is the rest
        self._view: Any = None
        self._words: Any = None
        self._slots: list[tuple[int, int, memoryview]] = []
        self._slot_count, self._is_plain = 1, True
        self._buffer: Any = None
        self._pixels: Any = None
        self._is_closed = False

    # ---- the ring ----

    @property
    def is_writer_alive(self) -> bool:
        """Whether the process that made the ring lives and has not closed it."""
        return not self._head[CLOSED] and is_locked(self._fd)

    @property
    def lapped(self) -> int:
        """Frames that were published since the first one read, and not seen, because newer ones were there."""
        return self._last - self._before - self.frames

    @property
    def has_news(self) -> bool:
        """Whether a frame was published since the last one read."""
        return self._head[HEAD] != self._last

    @property
    def geometry(self) -> Geometry | None:
        """Size of the frames; None before the first. A later frame may have another one."""
        self._follow()
        return None if self._header is None else self._header.geometry

    def _follow(self) -> bool:
        """Map the generation in use, if it is another one. False when there is none, or it is gone already."""
        generation = self._head[GENERATION]
        if generation == self._generation:
            return True
        self._unmap()
        if not generation:
            return False
        try:
            fd = open_slots(self.path, generation, self._directories)
        except FastLaneError:  # the writer is at its next generation by now, or has removed the ring
            return False
        try:
            size = os.fstat(fd).st_size
            header = decode_slots(os.pread(fd, SLOTS_HEADER_BYTES, 0), size)
            if header.generation != generation:
                raise FastLaneError(f"the slots {self.path.name}.{generation} say generation {header.generation}")
            self._map = mmap.mmap(fd, header.file_bytes, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        self._slots = [self._slot(header, self._view, index) for index in range(header.slots)]
        self._slot_count, self._is_plain = header.slots, not header.is_checked
        self._header, self._generation = header, generation
        return True

    @staticmethod
    def _slot(header: SlotsHeader, view: memoryview, index: int) -> tuple[int, int, memoryview]:
        """Index of its number's word, offset of its fields, its pixels."""
        start = header.slot_offset(index)
        pixels = start + SLOT_HEADER_BYTES
        return start // 8, start + FIELDS_OFFSET, view[pixels : pixels + header.geometry.frame_bytes]

    # ---- frames ----

    def read_into(self, buffer: Any) -> Hud | None:
        """Copy the newest frame into `buffer` and return its HUD; None when there is nothing newer than the last.

        `buffer` is anything writable of exactly `geometry.frame_bytes` bytes in C order, as a bytearray or an array
        of uint8. After None its contents are of no use. Raises `FastLaneError` where the frame does not fit.
        """
        head = self._head
        newest = head[HEAD]
        if newest == self._last:
            return None
        if buffer is self._buffer and self._is_plain and head[GENERATION] == self._generation:
            # As `_copy`, in the case that nearly every frame is: a call less, a loop less.
            word, fields, source = self._slots[newest % self._slot_count]
            words = self._words
            if words[word] == newest:
                hud = _new(Hud, _take_fields(self._map, fields))
                self._pixels[:] = source
                if words[word] == newest:
                    self._last, self._newest_hud = newest, hud
                    self.frames += 1
                    return hud
        if head[GENERATION] != self._generation and not self._follow():
            return None
        found = self._copy(newest, self._pixels if buffer is self._buffer else self._target(buffer))
        if found is None and not self._last:
            self._drop_target()  # the first frame read is one that `_copy` has read: `lapped` counts from it
        return found

    def read(self) -> tuple[Hud, bytearray] | None:
        """The newest frame in bytes of its own; None when there is nothing newer than the last."""
        newest = self._head[HEAD]
        if newest == self._last or not self._follow():
            return None
        pixels = bytearray(self._header.geometry.frame_bytes)
        with memoryview(pixels) as view:
            hud = self._copy(newest, view)
        return None if hud is None else (hud, pixels)

    def _copy(self, newest: int, pixels: memoryview) -> Hud | None:
        """Copy frame `newest` of the slots that are mapped, or a newer one of them."""
        head = self._head
        words = self._words
        for _ in range(ATTEMPTS):
            word, fields, source = self._slots[newest % self._slot_count]
            if words[word] == newest:
                hud = _new(Hud, _take_fields(self._map, fields))
                pixels[:] = source
                if words[word] == newest and (self._is_plain or self._fits(word, newest, hud, pixels)):
                    if not self._last:
                        self._before = newest - 1
                    self._last, self._newest_hud = newest, hud
                    self.frames += 1
                    return hud
                self.torn += 1
            elif words[word] < newest:
                return None  # frames have changed their size, and none of the new one is there yet
            newest = head[HEAD]
            if head[GENERATION] != self._generation:
                return None  # that number is none of these slots'
        return None

    def _target(self, buffer: Any) -> memoryview:
        """The buffer as bytes, remembered: a reader has one for all its frames, or few."""
        self._drop_target()
        try:
            view = memoryview(buffer).cast("B")
        except TypeError as error:
            raise FastLaneError(f"a frame cannot be copied into {type(buffer).__name__}: {error}") from None
        if view.readonly:
            raise FastLaneError(f"a frame cannot be copied into {type(buffer).__name__}, which is read-only")
        if view.nbytes != self._header.geometry.frame_bytes:
            raise self._unfit(view)
        self._buffer, self._pixels = buffer, view
        return view

    def _unfit(self, view: memoryview) -> FastLaneError:
        return FastLaneError(
            f"a buffer of {view.nbytes} bytes for a frame of {self.geometry}: look at `geometry` first"
        )

    def _fits(self, word: int, number: int, hud: Hud, pixels: memoryview) -> bool:
        check: int = self._words[word + CHECK_OFFSET // 8]
        return check_of_copy(number, hud, pixels) == check

    # ---- viewers ----

    def watch(self, now_ns: int, rate_hz: float, tile: int = 0) -> None:
        """Mark our lease, so that the worker renders for us. To be called often; marks twice a second."""
        self.lease.mark(now_ns, rate_hz, tile=tile, seen=self._last)

    def metrics(self, now_ns: int) -> FastLaneMetrics:
        """Figures so far; `now_ns` is monotonic."""
        mono_ns = self._newest_hud.mono_ns
        age_ms = (now_ns - mono_ns) / 1e6 if mono_ns else None
        lag = self._head[HEAD] - self._last if self._last else 0
        return FastLaneMetrics(self.frames, self.lapped, self.torn, lag, age_ms)

    # ---- the end ----

    def close(self) -> None:
        """Give the lease back and let go; the ring stays as it is. Again: nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.lease.release()
        self._unmap()
        self._head.release()
        self._head_map.close()
        os.close(self._fd)

    def _drop_target(self) -> None:
        if self._pixels is not None:
            self._pixels.release()
        self._buffer = self._pixels = None

    def _unmap(self) -> None:
        self._drop_target()
        for _, _, pixels in self._slots:
            pixels.release()
        self._slots = []
        for view in (self._words, self._view):
            if view is not None:
                view.release()
        if self._map is not None:
            self._map.close()
        self._map = self._view = self._words = None
        self._header, self._generation = None, _UNMAPPED
