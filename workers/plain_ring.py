"""A ring's writer for any Python from 3.6 on: one file, standard library only, to be copied or run where it lies.

For interpreters that cannot import runlane. `docs/reference/ring-layout.md` is the contract; `transport` has the
writer for everybody else. The environment that `runlane run` gives says whose ring it is:

    lane = PlainLane.from_environment()
    ...
    lane.step(reward, is_last)              # what the HUD shows
    lane.offer(lambda: (pixels, width, height, channels))

The picture is asked for only while somebody watches, and no more often than that one wants.
"""

import fcntl
import hashlib
import mmap
import os
import platform
import socket
import struct
import time
import zlib
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

SHARED_MEMORY = "/dev/shm"  # noqa: S108  where POSIX shared memory lies
SLOTS = 4
# Bytes, and indices of 8-byte words, as in the layout's page.
_HEAD_BYTES = _SLOTS_HEADER_BYTES = 4096
_SLOT_HEADER_BYTES, _CHECK_OFFSET, _INFO_OFFSET = 128, 80, 640
_GENERATION, _HEAD, _CLOSED, _LEASE = 8, 9, 10, 16
_LEASES, _LEASE_WORDS = 8, 8
_AHEAD_NS = 1800000000
_HEAD_FIELDS = struct.Struct("@4sH2xQQq")
_SLOTS_FIELDS = struct.Struct("@4sH2xQQQQQQQQ")
_FIELDS = struct.Struct("@QqqQIIdddd")
_RETURNS = 100

Pixels = Union[bytes, bytearray, memoryview]
Picture = Tuple[Any, int, int, int]


def now_ns() -> int:
    """The host's monotonic clock, which viewers' leases are by."""
    return int(time.monotonic() * 1e9)


class PlainRing:
    """A ring, from its making to its removal. For one thread."""

    def __init__(self, run_dir: str, names: Mapping[str, Any], slots: int = SLOTS) -> None:
        """`names` are run, worker, stream, run_name, host and env_count. Raises `OSError` without room."""
        self.frames = 0
        self._slot_count = slots
        self._generation = 0
        self._shape = (0, 0, 0)
        self._is_checked = platform.machine().lower() not in ("x86_64", "amd64", "i686", "i386")
        self._map: Optional[mmap.mmap] = None
        self._words: Any = None
        self._directories = [path for path in (SHARED_MEMORY, run_dir) if os.path.isdir(path)]
        self._fd, self.path = _make_head(run_dir, self._directories)
        self._head_map = mmap.mmap(self._fd, _HEAD_BYTES)
        packed = _pack_map(names)
        self._head_map[_INFO_OFFSET : _INFO_OFFSET + 4 + len(packed)] = struct.pack("@I", len(packed)) + packed
        fields = _HEAD_FIELDS.pack(b"RLFL", 1, os.getpid(), _started_ticks(), int(time.time() * 1e9))
        self._head_map[8 : len(fields)] = fields[8:]
        self._head_map[:8] = fields[:8]  # the magic last: nobody reads half a head
        self._head: Any = memoryview(self._head_map).cast("Q")

    def wanted_hz(self) -> float:
        """Frames a second that the most demanding living viewer wants; 0 while nobody watches."""
        at_ns, most = now_ns(), 0
        for line in range(_LEASES):
            start = _LEASE + line * _LEASE_WORDS
            until_ns, rate_mhz = self._head[start + 1], self._head[start + 2]
            if at_ns < until_ns <= at_ns + _AHEAD_NS:
                most = max(most, rate_mhz)
        return most / 1000.0

    def publish(self, pixels: Pixels, width: int, height: int, channels: int, hud: Tuple[Any, ...]) -> None:
        """Copy a frame into the ring: rows from the top, one byte a channel, no padding.

        `hud` are a slot's ten fields behind its number. Raises `ValueError` for a frame of another size than it says,
        `OSError` where there is no room for one of this size.
        """
        if self._shape != (width, height, channels):
            self._resize(width, height, channels)
        frame = memoryview(pixels).cast("B")
        if len(frame) != width * height * channels:
            raise ValueError(f"a frame of {len(frame)} bytes, not {width} x {height} x {channels}")
        assert self._map is not None  # noqa: S101  `_resize` made it
        number = self.frames + 1
        start = _SLOTS_HEADER_BYTES + number % self._slot_count * self._slot_bytes
        self._words[start // 8] = number  # from here on no reader believes this slot
        _FIELDS.pack_into(self._map, start + 8, *hud)
        self._map[start + _SLOT_HEADER_BYTES : start + _SLOT_HEADER_BYTES + len(frame)] = frame
        if self._is_checked:
            first = zlib.adler32(self._map[start : start + _CHECK_OFFSET])
            self._words[(start + _CHECK_OFFSET) // 8] = zlib.adler32(frame, first)
        self.frames = number
        self._head[_HEAD] = number  # and from here on they look for it

    def _resize(self, width: int, height: int, channels: int) -> None:
        frame_bytes = width * height * channels
        self._slot_bytes = (_SLOT_HEADER_BYTES + frame_bytes + 63) // 64 * 64
        self._let_slots_go()
        generation = self._generation + 1
        size = _SLOTS_HEADER_BYTES + self._slot_count * self._slot_bytes
        fd, problem = -1, OSError("no directory for slots")
        for directory in self._directories:
            try:
                fd = _make_file(os.path.join(directory, f"{os.path.basename(self.path)}.{generation}"), size)
                break
            except OSError as error:
                problem = error
        if fd < 0:
            raise problem
        try:
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        header = (generation, self._slot_count, self._slot_bytes, frame_bytes, width, height, channels)
        first = _SLOTS_FIELDS.pack(b"RLFS", 1, *header, self._is_checked)
        self._map[: len(first)] = first
        self._words = memoryview(self._map).cast("Q")
        self._shape, self._generation = (width, height, channels), generation
        self._head[_GENERATION] = generation

    def _let_slots_go(self) -> None:
        if self._map is None:
            return
        self._words.release()
        self._map.close()
        self._map = None
        self._shape = (0, 0, 0)
        self._unlink(f".{self._generation}")

    def _unlink(self, suffix: str) -> None:
        for directory in self._directories:
            try:
                os.unlink(os.path.join(directory, os.path.basename(self.path) + suffix))
            except OSError:
                pass

    def close(self) -> None:
        """Say that nothing follows, and remove the ring. Again: nothing."""
        if self._fd < 0:
            return
        self._head[_CLOSED] = 1
        self._let_slots_go()
        self._unlink("")
        self._head.release()
        self._head_map.close()
        os.close(self._fd)
        self._fd = -1


class PlainLane:
    """A ring with the HUD of one environment, and the throttle before rendering. Never raises into the loop."""

    def __init__(self, ring: Optional[PlainRing], max_hz: float, say: Callable[[str], None]) -> None:
        """Without a ring every call does nothing. `say` gets a line when viewers come and go."""
        self.ring = ring
        self._max_hz = max_hz
        self._say = say
        self._is_watched = False
        self._next_s = 0.0
        self._steps, self._steps_before, self._rate_since_s = 0, 0, time.monotonic()
        self._episode, self._step = 1, 0
        self._reward = self._return = self._rate_hz = 0.0
        self._has_ended = False
        self._returns: List[float] = []

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], say: Callable[[str], None]) -> "PlainLane":
        """The lane of the worker that `runlane run` started; one that does nothing where it was not."""
        run_dir, run = environment.get("RUNLANE_RUN_DIR", ""), environment.get("RUNLANE_RUN", "")
        max_hz = float(environment.get("FASTLANE_MAX_FPS") or 30.0)
        if not run_dir or not run or environment.get("FASTLANE", "1").lower() in ("0", "false", "no", "off"):
            return cls(None, max_hz, say)
        names: Dict[str, Any] = {
            "run": run,
            "worker": environment.get("RUNLANE_WORKER_NAME", "worker"),
            "stream": "",
            "run_name": environment.get("RUNLANE_RUN_NAME", ""),
            "host": socket.gethostname(),
            "env_count": 1,
        }
        try:
            ring = PlainRing(run_dir, names)
        except OSError as error:
            say(f"FASTLANE_WRITER_ERROR [FASTLANE] error={str(error)!r}")
            return cls(None, max_hz, say)
        say(f"FASTLANE_OPENED [FASTLANE] ring={os.path.basename(ring.path)} run={run} worker={names['worker']}")
        return cls(ring, max_hz, say)

    def step(self, reward: float, is_last: bool) -> None:
        """Note a step for the HUD."""
        if self._has_ended:
            self._episode, self._step, self._return = self._episode + 1, 0, 0.0
        self._steps += 1
        self._step += 1
        self._reward = reward
        self._return += reward
        self._has_ended = is_last
        if is_last:
            self._returns = [*self._returns[1 - _RETURNS :], self._return]

    def give_up(self) -> None:
        """The episode ended without an end: the next step begins a new one, and its return counts for nothing."""
        self._has_ended = True

    def offer(self, render: Callable[[], Optional[Picture]]) -> None:
        """Show a picture if a viewer wants one now; `render` gives pixels, width, height and channels."""
        ring = self.ring
        if ring is None:
            return
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        rate_hz = min(ring.wanted_hz(), self._max_hz)
        if (rate_hz > 0) != self._is_watched:
            self._is_watched = rate_hz > 0
            word = "WATCHED" if self._is_watched else "UNWATCHED"
            self._say(f"FASTLANE_{word} [FASTLANE] rate_hz={rate_hz:g}")
        if rate_hz <= 0:
            self._next_s = now_s + 0.02  # a look at the leases costs little, and nothing at every step
            return
        self._next_s = max(self._next_s + 1 / rate_hz, now_s)
        try:
            picture = render()
            if picture is not None:
                ring.publish(*picture, hud=self._hud(now_s))
        except Exception as error:  # a picture that fails must not end training
            self._say(f"FASTLANE_WRITER_ERROR [FASTLANE] error={str(error)!r}")
            self.close()

    def _hud(self, now_s: float) -> Tuple[Any, ...]:
        since_s = now_s - self._rate_since_s
        if since_s > 0.5:
            self._rate_hz = (self._steps - self._steps_before) / since_s
            self._steps_before, self._rate_since_s = self._steps, now_s
        mean = sum(self._returns) / len(self._returns) if self._returns else 0.0
        place = self._episode + (self._step << 32)
        t_ns = int(time.time() * 1e9)
        return (0, t_ns, now_ns(), place, 0, 0, self._reward, self._return, mean, self._rate_hz)

    def close(self) -> None:
        """Remove the ring. Again: nothing."""
        ring, self.ring = self.ring, None
        if ring is not None:
            self._say(f"FASTLANE_CLOSED [FASTLANE] ring={os.path.basename(ring.path)} frames={ring.frames}")
            ring.close()


def _make_head(run_dir: str, directories: List[str]) -> Tuple[int, str]:
    """Make and lock a head's file under a name no ring ever had."""
    prefix = f"rl-{hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:10]}-"
    problem = OSError(f"{run_dir}: no such directory")
    for directory in directories:
        for _ in range(100):
            path = os.path.join(directory, prefix + os.urandom(4).hex())
            try:
                fd = _make_file(path, _HEAD_BYTES)
            except FileExistsError:
                continue
            except OSError as error:
                problem = error
                break
            if _is_locked_by_us(fd, path):
                return fd, path
            os.close(fd)  # a sweep took it for a dead maker's in this moment
    raise problem


def _is_locked_by_us(fd: int, path: str) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _make_file(path: str, size: int) -> int:
    """A file with all its blocks, so that a full memory is an error here and not a SIGBUS later."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def _started_ticks() -> int:
    """When this process started, in the kernel's ticks since boot; 0 where the system does not say."""
    try:
        with open("/proc/self/stat", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _pack_map(values: Mapping[str, Any]) -> bytes:
    """A small MessagePack map of texts and whole numbers."""
    parts = [bytes([0x80 | len(values)])]
    for key, value in values.items():
        parts.append(_pack_text(key))
        parts.append(_pack_text(value) if isinstance(value, str) else struct.pack(">BI", 0xCE, value))
    return b"".join(parts)


def _pack_text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")[:400]
    return struct.pack(">BH", 0xDA, len(data)) + data
