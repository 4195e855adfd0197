"""The guard around a foreign command, with real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runlane.actors import guard
from runlane.config import names

GUARD = [sys.executable, "-I", "-S", guard.__file__]
DEADLINE_S = 15.0

# Starts a guarded command as a supervisor would, says the guard's pid, and stays until it is killed.
PARENT = """
import signal, sys
from pathlib import Path
from runlane.actors.child import Child
from runlane.actors.topology import ChildSpec
child = Child(ChildSpec(name="w", kind="worker", command=sys.argv[2:], restart="temporary", reports_heartbeat=False),
              Path(sys.argv[1]))
print(child.pid, flush=True)
signal.pause()
"""

# Notes its pid; on SIGINT cleans up for a moment and notes that it did.
POLITE = """
import os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
(here / "started").write_text(str(os.getpid()))
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.1)
    (here / "cleaned").write_text("yes")
"""


def _until(is_true: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline_s, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _pid_in(path: Path) -> int:
    _until(lambda: path.exists() and path.read_text().strip(), f"{path.name} is written")
    return int(path.read_text())


def _marked(mark: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TEST_MARK") == mark and process.pid != os.getpid():
                found.append(process)
    return found


@pytest.fixture(autouse=True)
def no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every process of a test inherits its mark; one that is alive afterwards fails the test."""
    mark = os.urandom(8).hex()
    monkeypatch.setenv("TEST_MARK", mark)
    yield
    left = _marked(mark)
    shown = [" ".join(process.cmdline()) for process in left]
    for process in left:
        process.kill()
    assert not shown


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a process in a session of its own; whatever its end, nothing of its group survives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def _start(*command: str, **options) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(command, start_new_session=True, **options))
        return started[-1]

    yield _start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _guarded(*command: str, grace_s: float = 1.0) -> list[str]:
    return [*GUARD, str(grace_s), *command]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["/no/such/command"], 127),
        (["/etc"], 126),
    ],
)
def test_the_guard_ends_with_the_exit_code_of_its_command(start, command, code):
    """128 + n after signal n; 127 and 126 where a shell says so too."""
    assert start(*_guarded(*command), stderr=subprocess.DEVNULL).wait(DEADLINE_S) == code


def test_the_variables_are_spelled_as_everywhere_else():
    """The guard cannot import them."""
    assert (guard.ENV_LIFELINE, guard.ENV_PARENT, guard.ENV_CHILD) == (
        names.ENV_LIFELINE,
        names.ENV_PARENT,
        names.ENV_CHILD,
    )


def test_the_command_does_not_inherit_the_lifeline(start, tmp_path):
    """A supervisor started inside a worker must not take the worker's lifeline for its own."""
    read_end, write_end = os.pipe()
    environment = {**os.environ, guard.ENV_LIFELINE: str(read_end), guard.ENV_CHILD: "w", guard.ENV_PARENT: "1"}
    environment[guard.ENV_PARENT] = str(os.getpid())
    script = f"env > {tmp_path}/env; ls -l /proc/self/fd > {tmp_path}/fds"
    process = start(*_guarded("sh", "-c", script), env=environment, pass_fds=[read_end])
    assert process.wait(DEADLINE_S) == 0
    assert "TEST_MARK" in (tmp_path / "env").read_text()
    for name in (guard.ENV_LIFELINE, guard.ENV_CHILD, guard.ENV_PARENT):
        assert name not in (tmp_path / "env").read_text()
    assert "pipe" not in (tmp_path / "fds").read_text()
    os.close(read_end)
    os.close(write_end)


def test_sigint_reaches_the_whole_group(start, tmp_path):
    """A shell that only waits for its Python would otherwise swallow it."""
    process = start(*_guarded("sh", "-c", f"{sys.executable} -c '{POLITE}' {tmp_path}; exit 5"))
    pid = _pid_in(tmp_path / "started")
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) in (5, 130)
    assert _is_gone(pid)
    assert (tmp_path / "cleaned").exists()


def test_sigterm_is_sent_on(start, tmp_path):
    """And the code says so."""
    process = start(*_guarded(sys.executable, "-c", POLITE, str(tmp_path)))
    _pid_in(tmp_path / "started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 143


def test_a_command_may_catch_a_signal_that_the_starting_shell_ignores(start, tmp_path):
    """`runlane up &` in a script starts us with SIGINT ignored; the command must still hear it."""
    signal_before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start(*_guarded(sys.executable, "-c", POLITE, str(tmp_path)))
    finally:
        signal.signal(signal.SIGINT, signal_before)
    _pid_in(tmp_path / "started")
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0
    assert (tmp_path / "cleaned").exists()


def test_after_the_command_nothing_of_it_stays(start, tmp_path):
    """Not even a daemon in its own session that ignores SIGTERM."""
    daemon = f"trap '' TERM INT; echo $$ > {tmp_path}/daemon; while :; do sleep 600; done"
    process = start(*_guarded("sh", "-c", f'setsid sh -c "{daemon}" & exit 4', grace_s=0.2))
    assert process.wait(DEADLINE_S) == 4
    assert _is_gone(_pid_in(tmp_path / "daemon"))


def test_what_ends_by_itself_soon_after_the_command_is_left_to_do_so(start, tmp_path):
    """A helper process gets the grace to finish its work."""
    helper = f"sleep 0.3; echo done > {tmp_path}/helper"
    process = start(*_guarded("sh", "-c", f"({helper}) & exit 0", grace_s=5.0))
    assert process.wait(DEADLINE_S) == 0
    assert (tmp_path / "helper").exists()


def test_kill_9_of_the_parent_interrupts_the_command_which_may_clean_up(start, tmp_path):
    """End-of-file on the lifeline becomes a SIGINT, as from a keyboard."""
    command = _guarded(sys.executable, "-c", POLITE, str(tmp_path))
    parent = start(sys.executable, "-c", PARENT, str(tmp_path), *command, stdout=subprocess.PIPE)
    guard_pid = int(parent.stdout.readline())
    pid = _pid_in(tmp_path / "started")
    parent.kill()
    _until(lambda: _is_gone(pid) and _is_gone(guard_pid), "command and guard are gone")
    assert (tmp_path / "cleaned").exists()


def test_kill_9_of_the_parent_ends_even_stubborn_grandchildren_within_5_s(start, tmp_path):
    """In the group or out of it, whatever they ignore."""
    deaf = "trap '' INT TERM HUP; echo $$ > {0}/{1}; while :; do sleep 600; done"
    inner, outer = deaf.format(tmp_path, "inner"), deaf.format(tmp_path, "outer")
    script = f'setsid sh -c "{inner}" & {outer}'.replace("$$", "\\$\\$", 1)
    parent = start(sys.executable, "-c", PARENT, str(tmp_path), *_guarded("sh", "-c", script), stdout=subprocess.PIPE)
    pids = [int(parent.stdout.readline()), _pid_in(tmp_path / "inner"), _pid_in(tmp_path / "outer")]
    assert os.getsid(pids[1]) != os.getsid(pids[2])
    killed_s = time.monotonic()
    parent.kill()
    _until(lambda: all(map(_is_gone, pids)), "all are gone")
    assert time.monotonic() - killed_s < 5.0


def test_kill_9_of_the_guard_takes_the_command_along(start, tmp_path):
    """Its parent-death signal is the kernel's."""
    process = start(*_guarded(sys.executable, "-c", POLITE, str(tmp_path)))
    pid = _pid_in(tmp_path / "started")
    process.kill()
    process.wait()
    _until(lambda: _is_gone(pid), "the command is gone")


def test_a_guard_whose_parent_is_gone_before_it_looks_ends_its_command(start, tmp_path):
    """The race between fork and prctl: the parent it was told is not the one it has."""
    environment = {**os.environ, guard.ENV_PARENT: "1"}
    assert os.getpid() != 1
    process = start(*_guarded(sys.executable, "-c", POLITE, str(tmp_path), grace_s=0.5), env=environment)
    assert process.wait(DEADLINE_S) in (0, 130, 143)


def test_the_guard_is_asleep_while_its_command_runs(start):
    """It polls nothing: starting it is all the time it uses in a second."""
    process = start(*_guarded("sleep", "1"))
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    assert used.ru_utime + used.ru_stime < 0.25
