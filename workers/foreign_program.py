"""Runs a program of another language beside a bridge that reads what it writes, as `runlane run --jsonl` does.

The program's output is a file, so it never waits for us. This process holds the spool's lock, starts the bridge again
when it dies, and says how the program ended. If it is killed itself, program and bridge go on alone; if all are
killed, the next command finds the spool.
"""

import contextlib
import fcntl
import os
import re
import resource
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from runlane.config import names
from runlane.config.errors import SpoolError
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock
from runlane.transport.held_ring import ring_for_engine
from runlane.transport.records import state_of_exit
from runlane.transport.spool import (
    LAUNCHER_ROLE,
    OUT_FILE,
    PLACE_FILE,
    UNREADABLE_CODE,
    SpoolEnd,
    SpoolInfo,
    make_spool,
    process_started,
    remove_spool,
    set_aside,
    write_end,
    write_info,
)
from runlane.workers.foreground import passing_signals_on, shell_code
from runlane.workers.jsonl_pipe import COPIER_LOCK, PipeCopier
from runlane.workers.jsonl_place import Place
from runlane.workers.secret import masked_arguments

STDOUT = "stdout"
_DESCRIPTOR = re.compile(r"fd:([0-9]{1,4})")
LOOK_S = 0.05
# A bridge that dies so often without a single line between is left alone; its spool waits.
GIVE_UP_RESTARTS = 6
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.05, 2.0
# Opens the spool under the descriptor the program expects, and becomes the program. The lock says that it may write.
_SHIM = (
    "import fcntl, os, sys\n"
    "path, number = sys.argv[1], int(sys.argv[2])\n"
    "fd = os.open(path, os.O_WRONLY | os.O_APPEND)\n"
    "fcntl.flock(fd, fcntl.LOCK_SH)\n"
    "os.dup2(fd, number)\n"
    "fd == number or os.close(fd)\n"
    "os.set_inheritable(number, True)\n"
    "try:\n"
    "    os.execvp(sys.argv[3], sys.argv[3:])\n"
    "except OSError as error:\n"
    "    sys.exit(f'runlane: {sys.argv[3]}: {error.strerror}')\n"
)


class SourceError(SpoolError):
    """A source of JSON lines cannot be one: an option is wrong, and nothing was started."""

    exit_code = 2


def check_source(source: str) -> str:
    """The source as given, if it can be one; raises `SourceError` naming the remedy."""
    remedy = "give stdout, fd:N, or the path of a file the program appends to or of a named pipe"
    found = _DESCRIPTOR.fullmatch(source)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if source == STDOUT or (found is not None and int(found[1]) < most):
        return source
    path = Path(source)
    if not source or source.startswith("fd:") or path.is_dir():
        raise SourceError(f"--jsonl {source!r}: no source of JSON lines; {remedy}")
    if not path.absolute().parent.is_dir():
        raise SourceError(f"--jsonl {source!r}: its directory is not there; make it, or {remedy}")
    if source.isidentifier() and not path.exists():  # `stderr` would be waited for as a file
        raise SourceError(f"--jsonl {source!r}: no such file; give ./{source} for one the program makes, or {remedy}")
    return source


def run_foreign(
    source: str,
    command: list[str],
    environment: Mapping[str, str],
    settings: Settings,
    *,
    is_resumed: bool,
    for_program: Mapping[str, str] | None = None,
) -> int:
    """Run a program in the foreground with a bridge beside it; returns its exit code, once all it wrote is recorded.

    `environment` has the worker's proxy, run and names, also for the program unless `for_program` is given. Raises
    `OSError` when the command cannot be started.
    """
    directory = make_spool(settings)
    info = SpoolInfo(
        run=environment[names.ENV_RUN],
        worker=environment[names.ENV_WORKER_NAME],
        run_name=environment[names.ENV_RUN_NAME],
        command=shlex.join(masked_arguments(command)),
        source=source,
        is_resumed=is_resumed,
    )
    with RoleLock(directory, LAUNCHER_ROLE):
        copier: PipeCopier | None = None
        ring = ring_for_engine(settings)
        shown = {} if ring is None else ring.environment()
        try:
            if _is_fifo(source):
                copier = PipeCopier(Path(source), directory / OUT_FILE, directory / COPIER_LOCK)
                copier.start()
            variables = {**(for_program or environment), **shown}
            program, info = _start(source, command, variables, directory, info, (ring.fd,) if ring else ())
        except BaseException:
            if ring is not None:
                ring.close()
            if copier is not None:
                copier.stop()
            remove_spool(directory)
            raise
        bridge = BridgeProcess(directory, {**environment, **shown}, is_shown=source == STDOUT)
        code = _wait(program, bridge)
        if copier is not None:
            copier.stop()
        write_end(directory, SpoolEnd(state=state_of_exit(code), exit_code=code))
        if ring is not None:
            ring.close()
        _await_bridge(bridge, directory)
    with contextlib.suppress(OSError):  # the lock's own file is gone now, too
        directory.rmdir()
    return code


def _start(
    source: str,
    command: list[str],
    environment: Mapping[str, str],
    directory: Path,
    info: SpoolInfo,
    pass_fds: Sequence[int],
) -> tuple["subprocess.Popen[bytes]", SpoolInfo]:
    found = _DESCRIPTOR.fullmatch(source)
    is_own = source == STDOUT or found is not None
    if not is_own:
        path = Path(source).absolute()
        if _is_fifo(source):
            info = msgspec.structs.replace(info, fifo=str(path))
        else:
            info = msgspec.structs.replace(info, path=str(path), offset=path.stat().st_size if path.exists() else 0)
        write_info(directory, info)
        program = subprocess.Popen(command, env=environment, pass_fds=pass_fds)
    else:
        out = os.open(directory / OUT_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        write_info(directory, info)
        try:
            if found is None:
                fcntl.flock(out, fcntl.LOCK_SH)
                variables = {"PYTHONUNBUFFERED": "1", **environment}
                program = subprocess.Popen(command, env=variables, stdout=out, pass_fds=pass_fds)
            else:
                shim = [sys.executable, "-I", "-S", "-c", _SHIM, str(directory / OUT_FILE), found[1], *command]
                program = subprocess.Popen(shim, env=environment, pass_fds=pass_fds)
        finally:
            os.close(out)
    info = msgspec.structs.replace(info, pid=program.pid, started=process_started(program.pid))
    write_info(directory, info)
    return program, info


def _is_fifo(source: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(source).stat().st_mode)
    except OSError:
        return False


def _wait(program: "subprocess.Popen[bytes]", bridge: "BridgeProcess") -> int:
    """The program's exit code. Ctrl-C reaches it by the terminal; SIGTERM is passed on."""
    with passing_signals_on(program):
        while True:
            bridge.look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return shell_code(program.wait(LOOK_S))


def _await_bridge(bridge: "BridgeProcess", directory: Path) -> None:
    """Wait until all is recorded, however much it is; Ctrl-C leaves the rest to the bridge alone."""
    try:
        while bridge.look():
            bridge.wait(LOOK_S)
    except KeyboardInterrupt:
        sys.stderr.write(f"runlane: the bridge goes on with {directory} by itself\n")
        return
    if bridge.has_given_up and bridge.is_unreadable:
        sys.stderr.write(f"runlane: not all lines can be recorded; what is left is kept in {set_aside(directory)}\n")
    elif bridge.has_given_up:
        sys.stderr.write(f"runlane: not all lines are recorded; {directory} keeps them, see `runlane recover`\n")


class BridgeProcess:
    """The bridge of one spool, started again as often as it dies. A session of its own: Ctrl-C is not meant for it."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, is_shown: bool) -> None:
        """Start it. `is_shown`: lines that are no records go to our own output."""
        self._is_shown = is_shown
        self.has_given_up = False
        self.is_unreadable = False
        self._directory = directory
        self._environment = environment
        self._failures = 0
        self._start_at_s = 0.0
        self._progress = -1
        self._process: subprocess.Popen[bytes] | None = start_bridge(directory, environment, is_shown=is_shown)

    def look(self) -> bool:
        """Start it anew if it has died; False once it is not needed any more, or does not help."""
        if self._process is None:
            if self._start_at_s and time.monotonic() >= self._start_at_s:
                self._start_at_s = 0.0
                self._process = start_bridge(self._directory, self._environment, is_shown=self._is_shown)
        elif self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            if code != 0:
                self.is_unreadable = code == UNREADABLE_CODE
                self._note_death()
        return self._process is not None or self._start_at_s > 0

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, at most so long."""
        if self._process is None:
            time.sleep(timeout_s)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)

    def _note_death(self) -> None:
        progress = progress_of(self._directory)
        self._failures = 0 if progress != self._progress else self._failures + 1
        self._progress = progress
        if self._failures > GIVE_UP_RESTARTS:
            self.has_given_up = True
        else:
            backoff_s = FIRST_BACKOFF_S * 2**self._failures if self._failures else 0.0
            self._start_at_s = time.monotonic() + min(backoff_s, LONGEST_BACKOFF_S)


def start_bridge(
    directory: Path, environment: Mapping[str, str], *, is_shown: bool = False, log: IO[bytes] | None = None
) -> "subprocess.Popen[bytes]":
    """A bridge for one spool; it ends at once where another one has it. What it has to say goes to `log`, if given."""
    return subprocess.Popen(
        [sys.executable, "-m", "runlane.workers.jsonl_bridge", str(directory)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if is_shown else subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )


def progress_of(directory: Path) -> int:
    """How far bridges have come with a spool; -1 where nothing can be known of it."""
    try:
        place = Place(directory / PLACE_FILE)
    except (SpoolError, OSError):
        return -1
    try:
        found = place.find()
        return -1 if found is None else found.offset + found.lines
    except SpoolError:
        return -1
    finally:
        place.close()
