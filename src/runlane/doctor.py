"""`runlane doctor`: what on this machine, or about this data directory, would not work, and what mends it.

Nothing is changed, but for what dead processes left (sockets, locks, rings), which is removed as every actor does.
"""

import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runlane import __version__
from runlane.config.errors import EndpointError, StoreError
from runlane.config.names import PROXY_PREFIX
from runlane.config.settings import Settings
from runlane.transport.endpoint import data_dir_of, database_of, ipc_endpoint, run_dir_of, sweep_run_dir
from runlane.transport.graph_client import GraphClient
from runlane.transport.ring_files import sweep_rings
from runlane.window_check import INSTALL, apt_command, has_display, is_loadable, missing_libraries

State = Literal["ok", "warn", "fail"]

LIBRARIES = ("msgpack", "msgspec", "numpy", "psutil", "rich", "typer")
REINSTALL = "pip install --upgrade runlane"
QT_START_S = 20.0
OLDEST_PYTHON = (3, 11)
FIXED_SQLITE = (3, 51, 3)  # the first without the WAL-reset bug, https://sqlite.org/wal.html#walresetbug
WITHDRAWN_SQLITE = (3, 52, 0)
LEAST_DISK_BYTES = 100 << 20
SMALL_DISK_BYTES = 1 << 30
SMALL_SHARED_MEMORY_BYTES = 64 << 20
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where POSIX shared memory lies
LARGEST_CHECKED_BYTES = 256 << 20
ANY_GRAPH = "rl-"

_MOUNTS = Path("/proc/self/mounts")
_STYLES: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Check(NamedTuple):
    """One finding. `remedy` is empty when nothing needs to be done."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def print_doctor(settings: Settings) -> int:
    """Print every finding; 1 if one fails, else 0."""
    checks = examine(settings)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("state", "name", "detail"):
        table.add_column(column, no_wrap=column != "detail", overflow="fold")
    for check in checks:
        detail = Text(check.detail)
        if check.remedy:
            detail.append(f"\n-> {check.remedy}", style="bold")
        table.add_row(Text(check.state, style=_STYLES[check.state]), Text(check.name), detail)
    console = Console(highlight=False)
    console.print(table)
    failed = sum(check.state == "fail" for check in checks)
    warned = sum(check.state == "warn" for check in checks)
    console.print(f"\n{len(checks)} checks: {failed} fail, {warned} warn")
    return 1 if failed else 0


def examine(settings: Settings) -> list[Check]:
    """Look at everything. A check that cannot be made is a finding, never an error."""
    checks: dict[str, Callable[[], Check]] = {
        "python": lambda: check_python(sys.version_info[:3]),
        "zeromq": lambda: _check_zeromq(settings),
        **{name: partial(check_library, name, installed_version(name)) for name in LIBRARIES},
        "sqlite": _check_sqlite,
        "gymnasium": lambda: check_gymnasium(installed_version("gymnasium")),
        "pyside6": lambda: check_pyside(installed_version("PySide6-Essentials"), sys.version_info[:2]),
        "pyqtgraph": lambda: check_pyqtgraph(installed_version("pyqtgraph"), installed_version("PySide6-Essentials")),
        "window": lambda: _check_window(os.environ),
        "processors": lambda: check_processors(_usable_processors()),
        "shared memory": lambda: check_shared_memory(SHARED_MEMORY, run_dir_of(settings)),
        "data directory": lambda: check_data_dir(data_dir_of(settings)),
        "file system": lambda: check_file_system(database_of(settings)),
        "disk": lambda: check_disk(shutil.disk_usage(_existing(database_of(settings))).free),
        "run directory": lambda: check_run_dir(settings),
        "graph": lambda: _check_graph(settings),
        "database": lambda: check_database(database_of(settings)),
    }
    return [_safely(name, check) for name, check in checks.items()]


def _safely(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return Check(name, "fail", f"cannot be checked: {type(error).__name__}: {error}")


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, None when it is not installed. Imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


# ---- software --------------------------------------------------------------------------------------------


def check_python(version: tuple[int, int, int]) -> Check:
    """Old enough to know what we are written in."""
    shown = f"{'.'.join(map(str, version))}, runlane {__version__}, {sys.executable}, {platform.platform(terse=True)}"
    if version[:2] < OLDEST_PYTHON:
        return Check("python", "fail", shown, f"use Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer")
    return Check("python", "ok", shown)


def check_library(name: str, version: str | None) -> Check:
    """Installed, at all."""
    return Check(name, "ok", version) if version else Check(name, "fail", "not installed", REINSTALL)


def _check_zeromq(settings: Settings) -> Check:
    import zmq

    detail = f"pyzmq {zmq.pyzmq_version()}, libzmq {zmq.zmq_version()}"
    transport = settings.transport
    if transport.kind == "ipc" and not zmq.has("ipc"):
        return Check("zeromq", "fail", f"{detail}, built without ipc", 'set transport.kind = "tcp"')
    if transport.keys_dir is not None and not zmq.has("curve"):
        return Check("zeromq", "fail", f"{detail}, built without CURVE", "pip install --force-reinstall pyzmq")
    return Check("zeromq", "ok", detail)


def _check_sqlite() -> Check:
    import apsw

    return check_sqlite(apsw.apsw_version(), apsw.sqlite_lib_version())


def check_sqlite(apsw_version: str, version: str) -> Check:
    """Without the WAL-reset bug, which can lose a commit when several connections write or checkpoint."""
    detail = f"SQLite {version} in apsw {apsw_version}"
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if numbers < FIXED_SQLITE or numbers == WITHDRAWN_SQLITE:
        what = "was withdrawn" if numbers == WITHDRAWN_SQLITE else "has the WAL-reset bug"
        return Check("sqlite", "warn", f"{detail}, which {what}", 'pip install --upgrade "apsw>=3.51.3,!=3.52.0"')
    return Check("sqlite", "ok", detail)


def check_gymnasium(version: str | None) -> Check:
    """Optional: only `runlane demo` and `wrap()` need it."""
    if version is None:
        remedy = 'pip install "runlane[gymnasium]"'
        return Check("gymnasium", "warn", "not installed; `runlane demo` and workers.wrap() need it", remedy)
    return Check("gymnasium", "ok", version)


def check_pyside(version: str | None, python: tuple[int, ...]) -> Check:
    """Optional. 6.12.0 drops a reference to None on every void call before Python 3.12, and aborts after some 5,000."""
    if version is None:
        return Check("pyside6", "ok", f"not installed; only `runlane gui` needs it: {INSTALL}")
    if version.startswith("6.12.0") and python < (3, 12):
        remedy = 'pip install "PySide6-Essentials<6.12"'
        shown = f"{python[0]}.{python[1]}"
        return Check("pyside6", "warn", f"{version} aborts on Python {shown} after some thousand calls", remedy)
    return Check("pyside6", "ok", version)


def check_pyqtgraph(version: str | None, pyside: str | None) -> Check:
    """Optional, as PySide6 is; half of the pair is of no use."""
    if version is not None:
        return Check("pyqtgraph", "ok", version)
    if pyside is None:
        return Check("pyqtgraph", "ok", "not installed; only `runlane gui` needs it")
    return Check("pyqtgraph", "warn", "not installed, though PySide6 is; `runlane gui` needs both", INSTALL)


def _check_window(environment: Mapping[str, str]) -> Check:
    version = installed_version("PySide6-Essentials")
    if version is None:
        return check_window(None, [], has_display=False, problem="")
    if sys.platform != "linux":
        return Check("window", "ok", f"PySide6 {version} brings what it needs on {sys.platform}")
    has_screen = has_display(environment)
    missing = missing_libraries(has_display=has_screen, is_there=is_loadable)
    # Qt may want more than is known here. It is tried in a process of its own: it aborts where it cannot start.
    problem = "" if missing else _qt_problem(environment)
    return check_window(version, missing, has_display=has_screen, problem=problem)


def check_window(version: str | None, missing: Sequence[str], *, has_display: bool, problem: str) -> Check:
    """What Qt needs of the system, besides Python. `missing` are sonames, `problem` what Qt itself said."""
    if version is None:
        return Check("window", "ok", "PySide6 is not installed; `runlane watch` needs no window")
    where = "with a display" if has_display else "no display here: offscreen only"
    if missing:
        return Check("window", "warn", f"Qt cannot load {', '.join(missing)}", apt_command(missing))
    if problem:
        return Check("window", "warn", f"Qt does not start: {problem}", "install the library it names")
    return Check("window", "ok", f"Qt starts, {where}")


def _qt_problem(environment: Mapping[str, str]) -> str:
    """What Qt says when it is started offscreen, in one line; empty when it starts."""
    code = "from PySide6.QtWidgets import QApplication; QApplication([])"
    offscreen = {**environment, "QT_QPA_PLATFORM": "offscreen"}
    try:
        found = subprocess.run(
            [sys.executable, "-c", code], env=offscreen, capture_output=True, timeout=QT_START_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not within {QT_START_S:g} s"
    if not found.returncode:
        return ""
    lines = found.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {found.returncode}"


# ---- machine ---------------------------------------------------------------------------------------------


def check_processors(count: int) -> Check:
    """More than the training alone can use."""
    if count < 2:
        return Check("processors", "warn", "1 usable", "allow two: on one, telemetry takes its time from the training")
    return Check("processors", "ok", f"{count} usable")


def check_shared_memory(directory: Path, run_dir: Path) -> Check:
    """Room for frames; containers give 64 MB. What dead workers left there, of any graph of this user, is removed."""
    swept = sweep_rings(run_dir, ANY_GRAPH)
    left = f", removed rings of dead workers: {', '.join(swept)}" if swept else ""
    if not directory.is_dir():
        return Check("shared memory", "warn", f"no {directory}: frames will lie in the run directory")
    free = shutil.disk_usage(directory).free
    if free < SMALL_SHARED_MEMORY_BYTES:
        remedy = "free some, or start the container with --shm-size=1g"
        return Check("shared memory", "warn", f"{_size(free)} free in {directory}{left}", remedy)
    return Check("shared memory", "ok", f"{_size(free)} free in {directory}{left}")


def check_data_dir(directory: Path) -> Check:
    """Ours to write, or to make."""
    remedy = "set data_dir to a directory you can write"
    existing = _existing(directory)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check("data directory", "fail", f"cannot write into {existing}: {error.strerror}", remedy)
    return Check("data directory", "ok", str(directory) if directory == existing else f"{directory}, not made yet")


def check_file_system(database: Path) -> Check:
    """Local: the write-ahead log needs memory shared by every process that has the file open."""
    from runlane.actors.store_file import file_system_of, refuse_shared_file_system

    try:
        refuse_shared_file_system(database)
    except StoreError as error:
        return _failure("file system", error)
    kind = file_system_of(database, _MOUNTS.read_text("utf-8", "surrogateescape")) if _MOUNTS.exists() else "unknown"
    if kind in ("tmpfs", "ramfs"):
        return Check("file system", "warn", f"{kind}, gone after a reboot", "set data_dir to a directory on a disk")
    return Check("file system", "ok", kind)


def check_disk(free_bytes: int) -> Check:
    """Room for the database and its log."""
    state: State = "fail" if free_bytes < LEAST_DISK_BYTES else "warn" if free_bytes < SMALL_DISK_BYTES else "ok"
    return Check("disk", state, f"{_size(free_bytes)} free", "" if state == "ok" else "free some, or move data_dir")


# ---- graph and data --------------------------------------------------------------------------------------


def check_run_dir(settings: Settings) -> Check:
    """Private, with paths short enough for sockets; what dead processes left there is removed."""
    directory = run_dir_of(settings)
    try:
        for name in (*settings.subscribers, *(f"{PROXY_PREFIX}{worker}" for worker in settings.workers), "gui"):
            ipc_endpoint(settings, f"router+{name}-999")
    except EndpointError as error:
        return _failure("run directory", error)
    if not directory.exists():
        return Check("run directory", "ok", f"{directory}, made when a graph starts")
    found = directory.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        detail = f"{directory} belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}"
        return Check("run directory", "fail", detail, f"chmod 700 {directory}, or set transport.run_dir")
    swept = sweep_run_dir(directory)
    left = f", removed what dead processes left: {', '.join(swept)}" if swept else ""
    return Check("run directory", "ok", f"{directory}{left}")


def _check_graph(settings: Settings) -> Check:
    with GraphClient(settings) as client:
        status = client.status()
    if status is None:
        return Check("graph", "ok", "none is running")
    restarts = sum(child.restarts for child in status.children)
    counts = f"{len(status.children)} children, {restarts} restarts"
    detail = f"{status.state}, pid {status.pid}, up {status.uptime_s:.0f} s, {counts}"
    return Check("graph", "warn" if restarts else "ok", detail, "see the logs in data_dir" if restarts else "")


def check_database(database: Path) -> Check:
    """Ours, of this schema version, and whole as far as `quick_check` tells."""
    from runlane.actors.store_file import SCHEMA_VERSION, open_readonly, store_errors

    if not database.exists():
        return Check("database", "ok", f"{database}, made by the first run")
    size_bytes = database.stat().st_size
    detail = f"{database}, {_size(size_bytes)}, schema version {SCHEMA_VERSION}"
    try:
        connection = open_readonly(database)
        try:
            if size_bytes > LARGEST_CHECKED_BYTES:
                return Check("database", "ok", f"{detail}; too large for a quick check here", "")
            with store_errors(database):
                answer = str(connection.pragma("quick_check", 1))
        finally:
            connection.close()
    except StoreError as error:
        return _failure("database", error)
    if answer != "ok":
        return Check("database", "fail", f"{detail}: {answer}", "copy it away, then `sqlite3 FILE .recover`")
    return Check("database", "ok", f"{detail}, quick check ok")


def _failure(name: str, error: Exception) -> Check:
    """Our errors end in `; remedy`."""
    problem, _, remedy = str(error).partition("; ")
    return Check(name, "fail", problem, remedy)


def _existing(path: Path) -> Path:
    """The path itself, or the nearest directory above it that exists."""
    return next(candidate for candidate in (path, *path.parents) if candidate.is_dir())


def _usable_processors() -> int:
    """Those this process may run on, where the system can say."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"
