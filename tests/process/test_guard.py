"""The guard around a foreign command, with real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runlane.actors import guard
from runlane.config import names

if TYPE_CHECKING:
    from tests.process.conftest import Processes

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


def _guarded(*command: str, grace_s: float = 1.0) -> list[str]:
    return [sys.executable, "-I", "-S", guard.__file__, str(grace_s), *command]


def _polite(here: Path, grace_s: float = 1.0) -> list[str]:
    return _guarded(sys.executable, "-c", POLITE, str(here), grace_s=grace_s)


def _guarded_by_a_parent(
    processes: "Processes", here: Path, command: list[str]
) -> "tuple[subprocess.Popen[bytes], int]":
    """A parent process, and the pid of the guard it started."""
    parent = processes.start(sys.executable, "-c", PARENT, str(here), *command, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


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
def test_the_guard_ends_with_the_exit_code_of_its_command(
    processes: "Processes", command: list[str], code: int
) -> None:
    """128 + n after signal n; 127 and 126 where a shell says so too."""
    assert processes.start(*_guarded(*command), stderr=subprocess.DEVNULL).wait(DEADLINE_S) == code


def test_the_variables_are_spelled_as_everywhere_else() -> None:
    """The guard cannot import them."""
    assert guard.ENV_LIFELINE == names.ENV_LIFELINE
    assert guard.ENV_PARENT == names.ENV_PARENT
    assert guard.ENV_CHILD == names.ENV_CHILD


def test_the_command_does_not_inherit_the_lifeline(processes: "Processes", tmp_path: Path) -> None:
    """A supervisor started inside a worker must not take the worker's lifeline for its own."""
    read_end, write_end = os.pipe()
    ours = {guard.ENV_LIFELINE: str(read_end), guard.ENV_CHILD: "w", guard.ENV_PARENT: str(os.getpid())}
    script = f"env > {tmp_path}/env; ls -l /proc/self/fd > {tmp_path}/fds"
    process = processes.start(*_guarded("sh", "-c", script), env={**os.environ, **ours}, pass_fds=[read_end])
    assert process.wait(DEADLINE_S) == 0
    found = (tmp_path / "env").read_text()
    assert "PATH=" in found
    assert not [name for name in ours if name in found]
    assert "pipe" not in (tmp_path / "fds").read_text()
    os.close(read_end)
    os.close(write_end)


def test_sigint_reaches_the_whole_group(processes: "Processes", tmp_path: Path) -> None:
    """A shell that only waits for its Python would otherwise swallow it."""
    process = processes.start(*_guarded("sh", "-c", f"{sys.executable} -c '{POLITE}' {tmp_path}; exit 5"))
    pid = processes.pid_in(tmp_path / "started")
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) in (5, 130)
    assert processes.is_gone(pid)
    assert (tmp_path / "cleaned").exists()


def test_sigterm_is_sent_on(processes: "Processes", tmp_path: Path) -> None:
    """And the code says so."""
    process = processes.start(*_polite(tmp_path))
    processes.pid_in(tmp_path / "started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 143


def test_a_command_hears_a_signal_that_the_starting_shell_ignores(processes: "Processes", tmp_path: Path) -> None:
    """`runlane up &` in a script starts us with SIGINT ignored; the worker must be interruptible all the same."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = processes.start(*_polite(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    processes.pid_in(tmp_path / "started")
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0
    assert (tmp_path / "cleaned").exists()


def test_after_the_command_nothing_of_it_stays(processes: "Processes", tmp_path: Path) -> None:
    """Not even a daemon in its own session that ignores SIGTERM."""
    daemon = tmp_path / "daemon.sh"
    daemon.write_text(f"trap '' TERM INT; echo $$ > {tmp_path}/daemon; while :; do sleep 600; done")
    script = f"setsid sh {daemon} & while [ ! -s {tmp_path}/daemon ]; do sleep 0.01; done; exit 4"
    process = processes.start(*_guarded("sh", "-c", script, grace_s=0.2))
    assert process.wait(DEADLINE_S) == 4
    assert processes.is_gone(processes.pid_in(tmp_path / "daemon"))


def test_what_ends_by_itself_soon_after_the_command_is_left_to_do_so(processes: "Processes", tmp_path: Path) -> None:
    """A helper process gets the grace to finish its work."""
    helper = f"sleep 0.3; echo done > {tmp_path}/helper"
    process = processes.start(*_guarded("sh", "-c", f"({helper}) & exit 0", grace_s=10.0))
    assert process.wait(DEADLINE_S) == 0
    assert (tmp_path / "helper").exists()


def test_kill_9_of_the_parent_interrupts_the_command_which_may_clean_up(processes: "Processes", tmp_path: Path) -> None:
    """End-of-file on the lifeline becomes a SIGINT, as from a keyboard."""
    parent, guard_pid = _guarded_by_a_parent(processes, tmp_path, _polite(tmp_path))
    pid = processes.pid_in(tmp_path / "started")
    parent.kill()
    processes.until(lambda: processes.is_gone(pid, guard_pid), "command and guard are gone")
    assert (tmp_path / "cleaned").exists()


def test_kill_9_of_the_parent_ends_even_deaf_grandchildren_within_5_s(processes: "Processes", tmp_path: Path) -> None:
    """In the session or out of it, whatever they ignore."""
    deaf = tmp_path / "deaf.sh"
    deaf.write_text(f"trap '' INT TERM HUP; echo $$ > {tmp_path}/$1; while :; do sleep 600; done")
    script = f"setsid sh {deaf} inner & sh {deaf} outer"
    parent, guard_pid = _guarded_by_a_parent(processes, tmp_path, _guarded("sh", "-c", script))
    inner, outer = processes.pid_in(tmp_path / "inner"), processes.pid_in(tmp_path / "outer")
    assert os.getsid(inner) != os.getsid(outer)
    parent.kill()
    processes.until(lambda: processes.is_gone(guard_pid, inner, outer), "all are gone", 5.0)


def test_kill_9_of_the_guard_takes_the_command_along(processes: "Processes", tmp_path: Path) -> None:
    """Its parent-death signal is the kernel's."""
    process = processes.start(*_polite(tmp_path))
    pid = processes.pid_in(tmp_path / "started")
    process.kill()
    process.wait()
    processes.until(lambda: processes.is_gone(pid), "the command is gone")


def test_a_guard_whose_parent_was_gone_before_it_looked_ends_its_command(
    processes: "Processes", tmp_path: Path
) -> None:
    """The race between fork and prctl: the parent it was told of is not the one it has."""
    stranger = str(os.getpid() + 1)
    process = processes.start(*_polite(tmp_path, grace_s=0.5), env={**os.environ, guard.ENV_PARENT: stranger})
    assert process.wait(DEADLINE_S) in (0, 130, 143)


def test_the_guard_is_asleep_while_its_command_runs(processes: "Processes") -> None:
    """It polls nothing: starting it is all the time it uses in a second."""
    process = processes.start(*_guarded("sleep", "1"))
    began_s = time.monotonic()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    assert time.monotonic() - began_s > 0.9
    assert used.ru_utime + used.ru_stime < 0.25
