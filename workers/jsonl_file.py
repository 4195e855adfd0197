"""LineFile: the file a program appends lines to, read in chunks of whole lines from any offset.

Holds no state that a kill could lose: `offset` is the bridge's to keep. Space that is read can be given back.
"""

import contextlib
import ctypes
import errno
import os
from pathlib import Path

from runlane.config import log_ids
from runlane.transport.log import log_event
from runlane.workers.jsonl_lines import MAX_LINE_BYTES, Line, huge_line, last_line, lines_of

CHUNK_BYTES = 256 << 10
# Less is not worth a call to the file system.
GIVE_BACK_BYTES = 1 << 20
BLOCK_BYTES = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class LineFile:
    """One file. `offset` is where the next line begins; `huge` the beginning of one that is being passed over."""

    def __init__(self, path: Path, offset: int = 0, huge: bytes | None = None) -> None:
        """Nothing is opened before `read`, so that the program may make the file itself."""
        self.path = path
        self.offset: int = offset
        self.start: int = offset
        self.huge: bytes | None = huge
        self.identity = (0, 0)
        self.end: int | None = None
        self._fd = -1
        self._window = CHUNK_BYTES
        self._seen_bytes = -1
        self._given_back = 0
        self._can_give_back = True

    def open(self) -> bool:
        """Open the file if it is there; whether it is. A file that was made anew is read from its beginning."""
        if self._fd >= 0:
            return True
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:  # readable is enough, but for giving space back
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        found = os.fstat(self._fd)
        identity = (found.st_dev, found.st_ino)
        if self.identity not in ((0, 0), identity):
            self._begin_again(0)
        self.identity = identity
        return True

    def end_here(self) -> None:
        """The program has ended: what others write behind what is there now is not read."""
        self.end = max(self.offset, os.fstat(self._fd).st_size) if self.open() else 0

    def read(self, most: int = 0) -> list[Line] | None:
        """The next whole lines, `most` of them if given; None when there are none yet.

        They began at `start`, and `offset` is behind them.
        """
        if not self.open():
            return None
        size = self._size()
        if size < self.offset:
            log_event(log_ids.JSONL_TRUNCATED, path=self.path, offset=0)
            self._begin_again(0)
        if size == self._seen_bytes or self.offset == self.end:
            self._follow()
            return None
        self.start = self.offset
        while True:
            data = os.pread(self._fd, self._most(self._window), self.offset)
            end = data.rfind(b"\n") + 1 if self.huge is None else data.find(b"\n") + 1
            if end:
                break
            if self.huge is None and len(data) > MAX_LINE_BYTES:
                self.huge = data[:BLOCK_BYTES]
                self._window = CHUNK_BYTES
            elif self.huge is not None and data:
                self.offset += len(data)
                return []  # so that the bridge keeps where we are
            elif len(data) < self._window:
                self._seen_bytes = size
                return None
            else:
                self._window = min(2 * self._window, MAX_LINE_BYTES + 1)
        self._window = CHUNK_BYTES
        if self.huge is None:
            end = _end_of(data, most) if most else end
            self.offset += end
            return lines_of(data[:end])
        self.offset += end
        beginning, self.huge = self.huge, None
        return [huge_line(beginning)]

    def read_last(self) -> list[Line]:
        """What stands behind the last whole line, once nobody writes any more."""
        rest = os.pread(self._fd, self._most(MAX_LINE_BYTES), self.offset) if self.open() else b""
        self.start = self.offset
        self.offset += len(rest)
        if self.huge is not None:
            beginning, self.huge = self.huge, None
            return [huge_line(beginning)]
        found = last_line(rest)
        return [] if found is None else [found]

    def _size(self) -> int:
        size = os.fstat(self._fd).st_size
        return size if self.end is None else min(max(size, self.offset), self.end)

    def _most(self, count: int) -> int:
        return count if self.end is None else min(count, max(0, self.end - self.offset))

    def _follow(self) -> None:
        """Nothing new: look whether the program has put another file in this one's place."""
        if self.end is not None:
            return
        with contextlib.suppress(FileNotFoundError):
            found = self.path.stat()
            if (found.st_dev, found.st_ino) != self.identity:
                log_event(log_ids.JSONL_TRUNCATED, path=self.path, offset=0)
                self.close()
                self._begin_again(0)
                self.open()

    def _begin_again(self, offset: int) -> None:
        self.offset, self.huge, self.identity = offset, None, (0, 0)
        self._seen_bytes, self._window, self._given_back = -1, CHUNK_BYTES, 0

    def give_back(self) -> None:
        """Make a hole of what is before `offset`: the file keeps its size, and takes no more room."""
        end = self.offset - self.offset % BLOCK_BYTES
        if not self._can_give_back or self._fd < 0 or end - self._given_back < GIVE_BACK_BYTES:
            return
        if _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, self._given_back, end - self._given_back):
            self._given_back = end
        else:
            self._can_give_back = False
            log_event(log_ids.JSONL_KEPT, path=self.path, error=os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _end_of(data: bytes, most: int) -> int:
    """Where the `most`-th line ends that means something, or the last whole one."""
    end = 0
    while most and (behind := data.find(b"\n", end) + 1):
        most -= len(lines_of(data[end:behind]))
        end = behind
    return end


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """The system's own call, which Python has only without `mode`. False, with errno, where it cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is None:
        ctypes.set_errno(errno.ENOSYS)
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return int(call(fd, mode, offset, length)) == 0
