"""Where rings lie, how they are called, who removes them.

    /dev/shm/rl-<graph>-<id>              the head of a ring; its maker holds a lock (flock) on it while it lives
    /dev/shm/rl-<graph>-<id>.<generation> its slots
    <run directory>/fastlane-<run>.<id>.json   the maker's figures

`<graph>` are ten digits of the run directory's hash and `<id>` eight random ones, so a name is at most 30 characters
and is never used twice, and the names are the registry: whose a ring is, and whether its maker lives, can be said by
anybody, whatever was killed. Every process of a graph sweeps as it ends, the supervisor also while it runs. Where
there is no shared memory, or no room in it, the files lie in the run directory.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from runlane.config.errors import FastLaneError
from runlane.transport.ring_layout import HEAD_BYTES, HeadHeader, RingInfo, decode_head

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where POSIX shared memory lies
MAX_NAME = 30
METRICS_PREFIX = "fastlane-"
_NAME = re.compile(r"(rl-[0-9a-f]{10}-[0-9a-f]{8})(\.[0-9]{1,7})?")
_METRICS = re.compile(METRICS_PREFIX + r".*\.([0-9a-f]{8})\.json")


class FoundRing(NamedTuple):
    """A ring whose maker lives."""

    path: Path
    header: HeadHeader
    info: RingInfo


def ring_directories(run_dir: Path) -> tuple[Path, ...]:
    """Where rings of a graph may lie, the better place first."""
    return (SHARED_MEMORY, run_dir) if SHARED_MEMORY.is_dir() else (run_dir,)


def graph_prefix(run_dir: Path) -> str:
    """What the names of all rings of a graph begin with."""
    return f"rl-{hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:10]}-"


def new_name(run_dir: Path) -> str:
    """A name no ring ever had."""
    return graph_prefix(run_dir) + secrets.token_hex(4)


def metrics_path(run_dir: Path, run: str, name: str) -> Path:
    """Where the maker of a ring writes its figures."""
    return run_dir / f"{METRICS_PREFIX}{run}.{name[-8:]}.json"


def make_file(path: Path, size: int) -> int:
    """Make a file with all its blocks, so that a full memory is an error here and not a SIGBUS later.

    Returns its descriptor; raises `OSError`, and then leaves no file.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    except BaseException:
        os.close(fd)
        path.unlink()
        raise
    return fd


def make_head(run_dir: Path, directories: Sequence[Path]) -> tuple[int, Path]:
    """Make and lock the file of a new head. Raises `FastLaneError` where there is no room for one."""
    problem = "no directory"
    for directory in directories:
        while True:
            path = directory / new_name(run_dir)
            try:
                fd = make_file(path, HEAD_BYTES)
            except FileExistsError:
                continue
            except OSError as error:
                problem = f"{path}: {error.strerror or error}"
                break
            if _lock(fd, fcntl.LOCK_EX) and is_same_file(fd, path):
                return fd, path
            os.close(fd)  # a sweep took it for a dead one's, in the moment before our lock
            path.unlink(missing_ok=True)
    raise FastLaneError(f"no ring can be made: {problem}; free some space there")


def open_head(path: Path) -> int:
    """Open a head that a worker of this user has made. Raises `FastLaneError` when it is gone or not ours."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise FastLaneError(f"ring {path.name} cannot be opened: {error.strerror or error}") from None
    found = os.fstat(fd)
    if found.st_uid != os.getuid() or found.st_size < HEAD_BYTES or not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise FastLaneError(f"{path} is no ring of this user")
    return fd


def open_slots(head: Path, generation: int, directories: Sequence[Path]) -> int:
    """Open the slots file of a ring. Raises `FastLaneError` when it is gone, as when frames changed their size."""
    for directory in (head.parent, *directories):
        with contextlib.suppress(OSError):
            return os.open(directory / f"{head.name}.{generation}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    raise FastLaneError(f"ring {head.name} has no slots of generation {generation} any more")


def is_locked(fd: int) -> bool:
    """Whether the maker of a ring lives, asked of a descriptor of one's own."""
    if not _lock(fd, fcntl.LOCK_SH):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def is_same_file(fd: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


# ---- all of them -----------------------------------------------------------------------------------------


def find_rings(run_dir: Path) -> list[FoundRing]:
    """The rings of a graph whose makers live, oldest first. What cannot be read is passed over."""
    found: list[FoundRing] = []
    for path in _heads(ring_directories(run_dir), graph_prefix(run_dir)):
        with contextlib.suppress(FastLaneError, OSError):
            fd = open_head(path)
            try:
                if is_locked(fd):
                    header, info = decode_head(os.pread(fd, HEAD_BYTES, 0))
                    found.append(FoundRing(path, header, info))
            finally:
                os.close(fd)
    return sorted(found, key=lambda ring: (ring.header.created_ns, ring.path.name))


def _heads(directories: Sequence[Path], prefix: str) -> Iterator[Path]:
    for directory in directories:
        for path in _entries(directory):
            match = _NAME.fullmatch(path.name)
            if match is not None and match[2] is None and path.name.startswith(prefix):
                yield path


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def sweep_rings(run_dir: Path, prefix: str | None = None) -> list[str]:
    """Remove what dead makers left; returns the names of their rings. `prefix` `rl-` means: of every graph."""
    prefix = graph_prefix(run_dir) if prefix is None else prefix
    directories = ring_directories(run_dir)
    removed: set[str] = set()
    for path in _heads(directories, prefix):
        with contextlib.suppress(OSError, FastLaneError):
            fd = open_head(path)
            try:
                if _lock(fd, fcntl.LOCK_EX) and is_same_file(fd, path):
                    remove_ring(path, directories)
                    removed.add(path.name)
            finally:
                os.close(fd)
    removed |= _sweep_headless(directories, prefix)
    _sweep_metrics(run_dir, directories)
    return sorted(removed)


def remove_ring(head: Path, directories: Sequence[Path]) -> None:
    """Remove a ring's files, the head last: a ring without one cannot be told from one whose head lies elsewhere."""
    for directory in {head.parent, *directories}:
        for path in directory.glob(f"{head.name}.*"):
            path.unlink(missing_ok=True)
    head.unlink(missing_ok=True)


def _sweep_headless(directories: Sequence[Path], prefix: str) -> set[str]:
    """Slots that somebody has left who was killed while he removed their ring by hand."""
    removed: set[str] = set()
    for directory in directories:
        for path in _entries(directory):
            match = _NAME.fullmatch(path.name)
            if match is None or match[2] is None or not path.name.startswith(prefix):
                continue
            if not _has_head(match[1], directories):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.add(match[1])
    return removed


def _sweep_metrics(run_dir: Path, directories: Sequence[Path]) -> None:
    prefix = graph_prefix(run_dir)
    for path in _entries(run_dir):
        match = _METRICS.fullmatch(path.name)
        if match is not None and not _has_head(prefix + match[1], directories):
            path.unlink(missing_ok=True)


def _has_head(name: str, directories: Sequence[Path]) -> bool:
    return any((directory / name).exists() for directory in directories)
