"""Where processes meet: a private run directory with locks and unix sockets, or TCP ports.

A role's endpoint follows from the settings alone, so processes find each other without asking. The run
directory is 0700 and short, because a unix socket path ends at 107 bytes. A socket file may be unlinked
only by the holder of its role's lock: whoever binds an ipc path silently steals it from the one before.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from runlane.config.errors import EndpointError
from runlane.config.names import (
    CONTROL_SOCKET,
    DB_WRITER,
    INGRESS_SOCKET,
    LOCK_SUFFIX,
    PROXY_PREFIX,
    RECOVERY,
    ROUTER,
    SOCKET_SUFFIX,
    SUPERVISOR,
    SUPERVISOR_SOCKET,
)
from runlane.config.settings import Settings
from runlane.transport.ring_files import is_same_file, sweep_rings

MAX_IPC_PATH = 107
SWEEP_PATIENCE_S = 0.5
MAX_LOCK_BYTES = 32
_ROLES = (SUPERVISOR, ROUTER, DB_WRITER, RECOVERY)
_TCP_OFFSET = {SUPERVISOR_SOCKET: 0, INGRESS_SOCKET: 1, CONTROL_SOCKET: 2}


def run_dir_of(settings: Settings) -> Path:
    """The run directory of a graph: as set, else one per user and data directory."""
    if settings.transport.run_dir is not None:
        return Path(settings.transport.run_dir).absolute()
    home = os.environ.get("XDG_RUNTIME_DIR") or _temporary_dir()
    digest = hashlib.sha256(str(data_dir_of(settings)).encode()).hexdigest()[:10]
    return Path(home) / f"runlane-{os.getuid()}" / digest


def _temporary_dir() -> str:
    import tempfile  # takes 3 ms to import, and most sessions have a runtime directory

    return tempfile.gettempdir()


def data_dir_of(settings: Settings) -> Path:
    """The data directory as an absolute path."""
    return Path(settings.data_dir).absolute()


def database_of(settings: Settings) -> Path:
    """The database file of a graph, as an absolute path."""
    return data_dir_of(settings) / settings.db_writer.database


def endpoint_of(settings: Settings, role: str) -> str:
    """Endpoint of a fixed role: supervisor, ingress or control."""
    if settings.transport.kind == "tcp":
        return f"tcp://{settings.transport.host}:{settings.transport.port + _TCP_OFFSET[role]}"
    return ipc_endpoint(settings, role)


def ipc_endpoint(settings: Settings, name: str) -> str:
    """Endpoint of a unix socket in the run directory; raises `EndpointError` when the path is too long."""
    path = run_dir_of(settings) / f"{name}{SOCKET_SUFFIX}"
    if len(os.fsencode(path)) > MAX_IPC_PATH:
        raise EndpointError(
            f"socket path {path} has {len(os.fsencode(path))} bytes, the system allows {MAX_IPC_PATH}; "
            "set transport.run_dir to a shorter directory"
        )
    return f"ipc://{path}"


def make_run_dir(settings: Settings) -> Path:
    """Create the run directory, private to this user; raises `EndpointError` when it is someone else's."""
    path = run_dir_of(settings)
    parent = path.parent
    is_ours = settings.transport.run_dir is None  # then the parent is ours too: who owns it could swap the rest
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        for directory in (parent, path) if is_ours else (path,):
            _check_private(directory)
    except OSError as error:
        raise EndpointError(f"run directory {path} cannot be made: {error.strerror}; set transport.run_dir") from None
    return path


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.getuid() or mode & 0o077 or not stat.S_ISDIR(found.st_mode):
        raise EndpointError(
            f"run directory {directory} belongs to uid {found.st_uid} with mode {mode:o}; "
            "it must be yours with mode 700: mend or remove it, or set transport.run_dir"
        )


def unlink_socket(endpoint: str) -> None:
    """Remove the file of an ipc endpoint, if it is a socket. Only for the holder of the role's lock."""
    if not endpoint.startswith("ipc://"):
        return
    path = Path(endpoint.removeprefix("ipc://"))
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass


class RoleLock:
    """The right to bind a role's sockets: an flock'ed file that its holder removes at the end.

    The kernel frees the lock with its process, so a file left by a dead one is taken over, never waited for.
    """

    def __init__(self, directory: Path, role: str) -> None:
        """Take the lock; raises `EndpointError` when a living process has it."""
        self.path = directory / f"{role}{LOCK_SUFFIX}"
        self._fd = self._take(role)

    def _take(self, role: str) -> int:
        deadline = time.monotonic() + SWEEP_PATIENCE_S
        while True:
            fd = _try_lock(self.path, os.O_CREAT)
            if fd is None:
                if time.monotonic() < deadline:  # a sweep holds a dead lock for an instant
                    time.sleep(0.01)
                    continue
                raise EndpointError(f"{role} is running already (pid {_holder(self.path)}, lock {self.path})")
            if is_same_file(fd, self.path, follows_links=True):
                with contextlib.suppress(OSError):  # on a full disk the lock holds as well without our pid in it
                    os.ftruncate(fd, 0)
                    os.write(fd, f"{os.getpid()}\n".encode())
                return fd
            os.close(fd)  # the former holder unlinked it between our open and our lock

    def release(self) -> None:
        """Remove the file, then let go: in this order nobody can take a lock about to vanish unseen."""
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _try_lock(path: Path, flags: int = 0) -> int | None:
    """A descriptor that holds the lock, or None while somebody else does."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _holder(path: Path) -> str:
    try:
        return path.read_text("ascii").strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


def sweep_run_dir(directory: Path) -> list[str]:
    """Remove locks nobody holds, with the sockets of their roles, and the directory once it is empty.

    A socket belongs to the role before its first `+` (`router+gui-2.ipc` is the router's). Also removes the rings of
    dead workers of this graph. Called by every process as it ends, so the last one out leaves nothing, even after
    `kill -9` of the supervisor.
    """
    sweep_rings(directory)
    removed: list[str] = []
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return removed
    roles = {_role_of(path) for path in entries if _is_ours(path)}
    for role in sorted(roles):
        removed += _sweep_role(directory, role, entries)
    with contextlib.suppress(OSError):  # not empty: somebody is still here
        directory.rmdir()
    return removed


def is_role_alive(directory: Path, role: str) -> bool:
    """Whether a living process of this host holds the role's lock."""
    try:
        fd = _try_lock(directory / f"{role}{LOCK_SUFFIX}")
    except FileNotFoundError:
        return False
    if fd is None:
        return True
    os.close(fd)
    return False


def is_endpoint_alive(endpoint: str) -> bool:
    """Whether the process that binds an endpoint lives. Of TCP nothing is known, so yes."""
    if not endpoint.startswith("ipc://"):
        return True
    path = Path(endpoint.removeprefix("ipc://"))
    return is_role_alive(path.parent, _role_of(path))


def _role_of(path: Path) -> str:
    return path.name.removesuffix(LOCK_SUFFIX).removesuffix(SOCKET_SUFFIX).split("+")[0]


def _is_ours(path: Path) -> bool:
    """Whether a file is a lock or a socket of a role of ours: the directory may be one the user named."""
    role = _role_of(path)
    if role not in _ROLES and not role.startswith(PROXY_PREFIX):
        return False
    try:
        found = path.lstat()
        if path.suffix == SOCKET_SUFFIX:
            return stat.S_ISSOCK(found.st_mode)
        is_lock = path.suffix == LOCK_SUFFIX and stat.S_ISREG(found.st_mode) and found.st_size <= MAX_LOCK_BYTES
        return is_lock and path.read_bytes().strip(b"0123456789\n") == b""
    except OSError:
        return False


def _sweep_role(directory: Path, role: str, entries: list[Path]) -> list[str]:
    """Remove a dead role's files while holding its lock, so that no living process can take it meanwhile."""
    lock = directory / f"{role}{LOCK_SUFFIX}"
    fd = _try_lock(lock, os.O_CREAT)
    if fd is None:
        return []
    try:
        if not is_same_file(fd, lock, follows_links=True):
            return []
        dead = [path for path in entries if _is_ours(path) and path != lock and _role_of(path) == role]
        for path in dead:
            path.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        return [path.name for path in (*dead, lock) if path in entries]
    finally:
        os.close(fd)
