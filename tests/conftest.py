"""Fixtures for all tests, and checks that fail a test which leaves something behind."""

import faulthandler
import gc
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from qt_here import NO_QT

from runlane.config.load import load
from runlane.config.names import ENV_PREFIX, LOCK_SUFFIX, SOCKET_SUFFIX
from runlane.config.settings import Settings
from runlane.transport.testing import FakeClock

# Not found by itself (see addopts): it ends the whole run where Qt cannot be loaded.
pytest_plugins = [] if NO_QT else ["pytestqt.plugin"]

SHARED_MEMORY = Path("/dev/shm")
# Some machines set it for good. Each of a thousand processes would compile all our sources anew then.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A loaded machine is slow and no less right.
# In CI the same examples each time: what is found by chance is found on a developer's machine.
hypothesis_settings.register_profile(
    "runlane", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
hypothesis_settings.load_profile("runlane")

# Tests in several processes cannot tell whose a new name in shared memory is, so there it is asked once, at the end.
IS_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
_AT_START = pytest.StashKey[set[str]]()
_ERRORS = pytest.StashKey[int]()

GRACE_S = 3.0  # a thread or process that was told to end needs a moment


def pytest_configure(config: pytest.Config) -> None:
    """Remember what is in shared memory before the first test, and where errors go that no test may catch."""
    config.stash[_AT_START] = _shared_memory_names()
    config.stash[_ERRORS] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give back what was opened for the tests."""
    os.close(config.stash[_ERRORS])


def pytest_collection_finish() -> None:
    """Take what lasts as long as the tests out of every later collection: a million objects that are never freed."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """End a test at its timeout with the stack of every thread. In a process of `-n` the plugin's own says nothing."""
    faulthandler.dump_traceback_later(settings.timeout, exit=True, file=item.config.stash[_ERRORS])
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer() -> bool:
    """The test has ended by itself."""
    faulthandler.cancel_dump_traceback_later()
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the whole run if names are left of which no single test could be told."""
    if IS_PARALLEL or not getattr(session.config.option, "numprocesses", None):
        return
    left = _left_names(session.config.stash[_AT_START])
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write(f"\nthe tests leak shared memory {', '.join(sorted(left))}; run them without -n\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out."""
    if NO_QT:
        terminalreporter.write_line(f"THE TESTS OF THE GUI WERE LEFT OUT. {NO_QT}", yellow=True, bold=True)


@pytest.fixture(autouse=True)
def _leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Fail the test that leaves a thread, a process, a ZeroMQ context or a shared-memory name."""
    contexts = _watch_contexts(monkeypatch)
    threads = set(threading.enumerate())
    children = _children()
    names = _shared_memory_names()
    yield
    left = [f"thread {thread.name}" for thread in _left_threads(threads)]
    left += [f"process {child.pid} {_command(child)}" for child in _left_children(children)]
    left += [f"open ZeroMQ context {context}" for context in contexts if not context.closed]
    if not IS_PARALLEL:
        left += [f"shared memory {name}" for name in _left_names(names)]
    if left:
        pytest.fail("the test leaks: " + ", ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """No variable of ours from outside, and no change of our logger to the outside."""
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(variable)
    logger = logging.getLogger("runlane")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers[:] = before[1], before[2]


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory of few letters, because the path of a unix socket ends at 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def run_dir(short_dir: Path) -> Iterator[Path]:
    """Where the run directory of `settings` will be. A socket or lock left there fails the test."""
    path = short_dir / "run"
    yield path
    left = [found.name for found in path.glob("*") if found.suffix in (SOCKET_SUFFIX, LOCK_SUFFIX)]
    if left:
        pytest.fail(f"left in the run directory: {', '.join(sorted(left))}", pytrace=False)


@pytest.fixture
def settings(short_dir: Path, run_dir: Path) -> Settings:
    """The shipped settings, in directories of this test alone."""
    return load(environment={}, arguments=[f"data_dir={short_dir / 'data'}", f"transport.run_dir={run_dir}"])


@pytest.fixture
def clock() -> FakeClock:
    """A clock the test moves."""
    return FakeClock()


# ---- what is left ----------------------------------------------------------------------------------------


def _watch_contexts(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[zmq.Context[zmq.Socket[bytes]]]":
    """Every context made from now on. One that is collected unclosed warns by itself, and warnings are errors."""
    made: weakref.WeakSet[zmq.Context[zmq.Socket[bytes]]] = weakref.WeakSet()
    initialise: Callable[..., None] = vars(zmq.Context)["__init__"]

    def remember(context: "zmq.Context[zmq.Socket[bytes]]", *arguments: object, **options: object) -> None:
        initialise(context, *arguments, **options)
        made.add(context)

    monkeypatch.setattr(zmq.Context, "__init__", remember)
    return made


def _left_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    end_s = time.monotonic() + GRACE_S
    new = [thread for thread in threading.enumerate() if thread not in before]
    for thread in new:
        thread.join(max(0.0, end_s - time.monotonic()))
    return [thread for thread in new if thread.is_alive()]


def _children() -> set[int]:
    """Pids of our children, from the kernel's own list where it keeps one, which is a hundred times quicker."""
    try:
        lists = [task.joinpath("children").read_text("ascii") for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return {child.pid for child in psutil.Process().children()}
    return {int(pid) for pids in lists for pid in pids.split()}


def _left_children(before: set[int]) -> list[psutil.Process]:
    """Children that do not end, each killed with all it started, so that the next test begins clean."""
    if _children() <= before:
        return []
    new = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, alive = psutil.wait_procs(new, GRACE_S)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, GRACE_S)
    return alive


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:6])
    except psutil.Error:
        return "(gone)"


def _shared_memory_names() -> set[str]:
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()


def _left_names(before: set[str]) -> set[str]:
    """New names in shared memory, but for those that a process of somebody else holds open."""
    new = _shared_memory_names() - before
    if not new:
        return new
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    for process in psutil.process_iter():
        if process.pid not in own:
            new -= _mapped_names(process)
    return new & _shared_memory_names()


def _mapped_names(process: psutil.Process) -> set[str]:
    try:
        paths = {Path(mapped.path) for mapped in process.memory_maps()}
        paths |= {Path(opened.path) for opened in process.open_files()}
    except (psutil.Error, OSError):
        return set()
    return {path.name for path in paths if path.parent == SHARED_MEMORY}
