"""Where rings lie, how they are called, who removes them.

    /dev/shm/rl-<graph>-<id>              the head of a ring; its maker holds a lock (flock) on it while it lives
    /dev/shm/rl-<graph>-<id>.<generation> its slots
    <run directory>/fastlane-<run>.<id>.json   the maker's figures

`<graph>` are ten digits of the run directory's hash and `<id>` eight random ones, so a name is at most 30 characters
and is never used twice, and the names are the registry: whose a ring is, and whether its maker lives, can be said by
anybody, whatever was killed. Every process of a graph sweeps as it ends, the supervisor also while it runs. Where
there is no shared memory, or no room in it, the files lie in the run directory. A ring's slots lie where its head does
or in a later directory, never in an earlier one: slots in shared memory whose head is not there are nobody's.
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

from runlane.config import log_ids
from runlane.config.errors import FastLaneError
from runlane.transport.log import log_event
from runlane.transport.ring_layout import CLOSED, HEAD_BYTES, HeadHeader, RingInfo, decode_head

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where POSIX shared memory lies
MAX_NAME = 30
METRICS_PREFIX = "fastlane-"
_NAME = re.compile(r"(rl-[0-9a-f]{10}-[0-9a-f]{8})(\.[0-9]{1,7})?")
_METRICS = re.compile(r"\.?" + METRICS_PREFIX + r".*\.([0-9a-f]{8})\.json")  # with a dot while it is being written


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
        path.unlink(missing_ok=True)
        raise
    return fd


def make_head(run_dir: Path, directories: Sequence[Path]) -> tuple[int, Path]:
    """Make and lock the file of a new head. Raises `FastLaneError` where there is no room for one, or no locks."""
    problem = "no directory"
    for directory in directories:
        while True:
            path = directory / new_name(run_dir)
            try:
                fd = _make_locked(path)
            except FileExistsError:
                continue
            except OSError as error:
                problem = f"{path}: {error.strerror or error}"
                break
            if fd is not None:
                return fd, path
    raise FastLaneError(f"no ring can be made: {problem}; free some space there")


def _make_locked(path: Path) -> int | None:
    """None when a sweep took it for a dead maker's, or somebody looked, in the moment before our lock."""
    fd = make_file(path, HEAD_BYTES)
    is_ours = False
    try:
        is_ours = _lock(fd, fcntl.LOCK_EX) and is_same_file(fd, path)
    finally:
        if not is_ours:
            os.close(fd)
            path.unlink(missing_ok=True)
    return fd if is_ours else None


def open_head(path: Path) -> int:
    """Open a head that a worker of this user has made. Raises `FastLaneError` when it is gone or not ours."""
    try:
        fd = _open_own(path, os.O_RDWR)
    except OSError as error:
        raise FastLaneError(f"ring {path.name} cannot be opened: {error.strerror or error}") from None
    size = os.fstat(fd).st_size
    if size < HEAD_BYTES:
        os.close(fd)
        raise FastLaneError(f"{path} is no ring: it has {size} bytes, not {HEAD_BYTES}")
    return fd


def _open_own(path: Path, mode: int) -> int:
    """Open a plain file of this user. Raises `OSError` for anything else: shared memory is everybody's."""
    fd = os.open(path, mode | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(fd)
    if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise PermissionError(errno.EPERM, "no file of this user")
    return fd


def open_slots(head: Path, generation: int, directories: Sequence[Path]) -> int:
    """Open the slots file of a ring. Raises `FastLaneError` when it is gone, as when frames changed their size."""
    for directory in (head.parent, *directories):
        with contextlib.suppress(OSError):
            return _open_own(directory / f"{head.name}.{generation}", os.O_RDONLY)
    raise FastLaneError(f"ring {head.name} has no slots of generation {generation} any more")


def is_locked(fd: int) -> bool:
    """Whether the maker of a ring lives, asked of a descriptor of one's own."""
    if not _lock(fd, fcntl.LOCK_SH):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def is_same_file(fd: int, path: Path, *, follows_links: bool = False) -> bool:
    """Whether an open file still has its name."""
    try:
        found = path.stat(follow_symlinks=follows_links)
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
    """The rings of a graph whose makers live and have not closed them, oldest first. The unreadable is passed over."""
    found: list[FoundRing] = []
    for path in _heads(ring_directories(run_dir), graph_prefix(run_dir)):
        with contextlib.suppress(FastLaneError, OSError):
            fd = open_head(path)
            try:
                data = os.pread(fd, HEAD_BYTES, 0)
                if is_locked(fd) and not memoryview(data).cast("Q")[CLOSED]:
                    found.append(FoundRing(path, *decode_head(data)))
            finally:
                os.close(fd)
    return sorted(found, key=lambda ring: (ring.header.created_ns, ring.path.name))


def newest_ring(rings: Sequence[FoundRing], run: str, worker: str) -> FoundRing | None:
    """The newest of some rings, as `find_rings` gives them, of a run (id, beginning of one, or name) and a worker.

    What is not named may be any.
    """
    for ring in reversed(rings):
        info = ring.info
        is_run = not run or info.run.startswith(run) or info.run_name == run
        if is_run and (not worker or info.worker == worker):
            return ring
    return None


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
    """Remove what dead makers left, and log it; returns the names of their rings. `prefix` `rl-`: of every graph."""
    prefix = graph_prefix(run_dir) if prefix is None else prefix
    directories = ring_directories(run_dir)
    removed: set[str] = set()
    for path in _heads(directories, prefix):
        with contextlib.suppress(OSError):
            fd = _open_own(path, os.O_RDWR)  # a head of any size: its maker may have died while it was making it
            try:
                # A shared lock, as `is_locked` takes: only a maker holds one that others fail at.
                if _lock(fd, fcntl.LOCK_SH) and is_same_file(fd, path):
                    remove_ring(path, directories)
                    removed.add(path.name)
            finally:
                os.close(fd)
    removed |= _sweep_headless(directories, prefix)
    _sweep_metrics(run_dir, directories)
    for name in sorted(removed):
        log_event(log_ids.FASTLANE_SWEPT, ring=name)
    return sorted(removed)


def remove_ring(head: Path, directories: Sequence[Path]) -> None:
    """Remove a ring's files, the head last: who is killed meanwhile has left a head, by which a sweep finds the rest.

    What is not ours to remove stays.
    """
    for directory in {head.parent, *directories}:
        for path in _entries(directory):
            if path.name.startswith(f"{head.name}."):
                _unlink(path)
    _unlink(head)


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _sweep_headless(directories: Sequence[Path], prefix: str) -> set[str]:
    """Slots that somebody has left who was killed while he removed their ring by hand."""
    removed: set[str] = set()
    for directory in directories:
        for path in _entries(directory):
            match = _NAME.fullmatch(path.name)
            if match is None or match[2] is None or not path.name.startswith(prefix):
                continue
            if not _has_head(match[1], directories) and _unlink(path):
                removed.add(match[1])
    return removed


def _sweep_metrics(run_dir: Path, directories: Sequence[Path]) -> None:
    prefix = graph_prefix(run_dir)
    for path in _entries(run_dir):
        match = _METRICS.fullmatch(path.name)
        if match is not None and not _has_head(prefix + match[1], directories):
            _unlink(path)


def _has_head(name: str, directories: Sequence[Path]) -> bool:
    return any((directory / name).exists() for directory in directories)
