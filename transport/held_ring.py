"""A ring held for an engine: a program of another language that draws, and need not make a ring by itself.

Three processes meet in its head, of which two may be one. The *holder* starts the engine: it makes and locks the head,
lets the engine inherit the lock, and removes the ring once the engine has ended. The *engine* says that it can draw,
and stores the frames: it looks at two words, and at no lease. The *asker* has the engine's session: it says whose ring
it is, so that viewers see it, looks at their leases, and stores what the engine is asked for. An asker that died asks
for nothing a second later, and the next one goes on. The bytes are in `ring_layout.py`.
"""

import contextlib
import mmap
import os
import struct
import sys
from pathlib import Path

from runlane.config import log_ids
from runlane.config.errors import FastLaneError
from runlane.config.names import ENV_DISABLED, ENV_RING, ENV_RUN_DIR
from runlane.config.settings import Settings
from runlane.transport.endpoint import run_dir_of
from runlane.transport.fast_lane_writer import WriterMetrics
from runlane.transport.lease import MAX_RATE_HZ, Wanted, wanted
from runlane.transport.log import log_event
from runlane.transport.ring_files import make_head, open_head, open_slots, remove_ring, ring_directories
from runlane.transport.ring_layout import (
    ASKED,
    CLOSED,
    ENGINE,
    GENERATION,
    HEAD,
    HEAD_BYTES,
    INFO_OFFSET,
    LOOKED,
    SLOTS_HEADER_BYTES,
    HeadHeader,
    RingInfo,
    SlotsHeader,
    decode_slots,
    encode_head,
)


class HeldRing:
    """The holder's side: a head that has a name and a lock, and says nothing yet. For one thread."""

    def __init__(self, run_dir: Path) -> None:
        """Raises `FastLaneError` where there is no room for a head."""
        self._run_dir = run_dir
        self._directories = ring_directories(run_dir)
        self.fd, self.path = make_head(run_dir, self._directories)
        self._is_closed = False

    def environment(self) -> dict[str, str]:
        """What the engine has to find in its environment. It also has to inherit `fd`, and with it the lock."""
        return {ENV_RING: str(self.path), ENV_RUN_DIR: str(self._run_dir)}

    def close(self) -> None:
        """The engine has ended: remove the ring; who has it open still reads the last frame. Again: nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            os.pwrite(self.fd, (1).to_bytes(8, sys.byteorder), CLOSED * 8)
        remove_ring(self.path, self._directories)
        os.close(self.fd)

    def forget(self) -> None:
        """Know nothing of the ring any more, as where its descriptor was closed by somebody else."""
        self._is_closed = True


def ring_for_engine(settings: Settings) -> HeldRing | None:
    """A ring for an engine that is about to be started; None where nothing shall be shown, or there is no room."""
    is_shown = settings.fast_lane.enabled and settings.fast_lane.video_mode != "off"
    if not is_shown or os.environ.get(ENV_DISABLED) == "1":
        return None
    try:
        return HeldRing(run_dir_of(settings))
    except (FastLaneError, OSError) as error:
        log_event(log_ids.FASTLANE_WRITER_ERROR, where="open", error=str(error))
        return None


def engine_of(head: Path) -> int:
    """Pid of the engine that has said it can draw into a held ring; 0 while none has. Raises `OSError`."""
    fd = os.open(head, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return int.from_bytes(os.pread(fd, 8, ENGINE * 8), sys.byteorder)
    finally:
        os.close(fd)


class RingAsker:
    """The asker's side of a held ring. For one thread. As far as its session sees it is the ring's writer."""

    def __init__(self, head: Path, run_dir: Path, header: HeadHeader, info: RingInfo) -> None:
        """Say whose ring it is: from here on viewers see it. Raises `FastLaneError` where it is gone."""
        self.path, self.info = head, info
        self._directories = ring_directories(run_dir)
        first = encode_head(header, info)
        fd = open_head(head)
        try:
            self._map = mmap.mmap(fd, HEAD_BYTES)
        finally:
            os.close(fd)
        self._words = memoryview(self._map).cast("Q")
        self._words[ASKED] = 0
        self._map[8 : GENERATION * 8] = first[8 : GENERATION * 8]
        self._map[INFO_OFFSET:HEAD_BYTES] = first[INFO_OFFSET:]
        self._map[:8] = first[:8]  # the magic last: nobody reads half a head
        self._header: SlotsHeader | None = None
        self._is_closed = False

    def wanted(self, now_ns: int) -> Wanted | None:
        """What viewers ask for now (monotonic nanoseconds); None while nobody watches."""
        return wanted(self._words, now_ns)

    def ask(self, rate_hz: float, now_ns: int) -> None:
        """Ask the engine for so many frames a second, 0 for none. Holds for a second."""
        self._words[ASKED] = round(min(rate_hz, MAX_RATE_HZ) * 1000)
        self._words[LOOKED] = now_ns

    @property
    def frames(self) -> int:
        """Frames the engine has published."""
        return self._words[HEAD]

    def metrics(self) -> WriterMetrics:
        """Figures so far. `bytes` are as if all frames had the size of the newest."""
        generation = self._words[GENERATION]
        if generation and (self._header is None or self._header.generation != generation):
            with contextlib.suppress(FastLaneError, OSError, struct.error):
                fd = open_slots(self.path, generation, self._directories)
                try:
                    self._header = decode_slots(os.pread(fd, SLOTS_HEADER_BYTES, 0), os.fstat(fd).st_size)
                finally:
                    os.close(fd)
        header, frames = self._header, self.frames
        if header is None:
            return WriterMetrics(frames, 0, generation, 0, None)
        size = frames * header.geometry.frame_bytes
        return WriterMetrics(frames, size, generation, header.slots, header.geometry)

    def close(self) -> None:
        """Ask for nothing any more. The ring is its holder's to remove."""
        if not self._is_closed:
            self._words[ASKED] = 0
        self.forget()

    def forget(self) -> None:
        """Let go of the ring as it is, as a forked child has to."""
        if not self._is_closed:
            self._is_closed = True
            self._words.release()
            self._map.close()
