"""One real child process: start, signals, output, kill, reap."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from runlane.actors.child import Child
from runlane.actors.lifeline import Lifeline
from runlane.actors.topology import ChildSpec
from runlane.config import names

if TYPE_CHECKING:
    from tests.process.conftest import Processes

DEADLINE_S = 15.0


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Every pipe and log file that a child needed is closed again."""
    before = set(Path("/proc/self/fd").iterdir())
    yield
    assert set(Path("/proc/self/fd").iterdir()) <= before


class Start(Protocol):
    """What the fixture `start` gives."""

    def __call__(self, *command: str, name: str = "toy", **environment: str) -> Child:
        """Start a child that runs `command`."""
        ...


@pytest.fixture
def start(processes: "Processes", tmp_path: Path) -> Iterator[Start]:
    """Start a child; whatever is left of it after the test is killed."""
    del processes  # it watches that nothing is left
    started: list[Child] = []

    def _start(*command: str, name: str = "toy", **environment: str) -> Child:
        spec = ChildSpec(
            name=name,
            kind="worker",
            command=list(command),
            restart="temporary",
            reports_heartbeat=True,
            environment=environment,
        )
        started.append(Child(spec, tmp_path))
        return started[-1]

    yield _start
    for child in started:
        child.kill()
        child.reap()


def _end(child: Child) -> int:
    code = child.reap(DEADLINE_S)
    assert code is not None, f"{child.name} did not end in time"
    return code


def test_the_exit_code_is_known_once_and_for_all(start: Start) -> None:
    """Asking again after the pid was given back answers the same."""
    child = start("sh", "-c", "exit 3")
    assert _end(child) == 3
    assert child.poll() == 3
    assert not child.is_alive


def test_death_by_a_signal_is_its_number_below_zero(start: Start) -> None:
    """As subprocess has it."""
    child = start("sleep", "600")
    assert child.is_alive
    child.signal(signal.SIGTERM)
    assert _end(child) == -signal.SIGTERM


def test_a_signal_to_a_reaped_child_goes_nowhere(start: Start) -> None:
    """Its pid may be somebody else's by now."""
    child = start("true")
    _end(child)
    child.pid = os.getpid()
    child.signal(signal.SIGTERM)
    child.kill()


def test_much_output_does_not_stop_a_child(start: Start, tmp_path: Path) -> None:
    """A pipe that nobody reads holds 64 KiB; a file holds all."""
    child = start(sys.executable, "-c", "print('x' * 1_000_000); import sys; print('end', file=sys.stderr)")
    assert _end(child) == 0
    text = (tmp_path / "toy.log").read_text()
    assert len(text) > 1_000_000
    assert text.endswith("end\n")


def test_the_log_of_a_restarted_child_goes_on_in_the_same_file(start: Start, tmp_path: Path) -> None:
    """The reason of the crash before stays readable."""
    for text in ("first", "second"):
        _end(start("echo", text))
    assert (tmp_path / "toy.log").read_text() == "first\nsecond\n"


def test_what_a_child_writes_is_in_its_log_at_once(start: Start, processes: "Processes", tmp_path: Path) -> None:
    """Python children do not buffer."""
    start(sys.executable, "-c", "import time; print('here'); time.sleep(600)")
    processes.until(lambda: "here" in (tmp_path / "toy.log").read_text(), "the line is in the log")


def test_a_child_reads_nothing_from_us(start: Start) -> None:
    """Its standard input is empty, so it cannot wait for a keyboard."""
    assert _end(start("cat")) == 0


def test_a_child_gets_its_own_variables_and_none_of_ours(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor inside a worker must not pass that worker's run on."""
    monkeypatch.setenv(names.ENV_RUN, "outer")
    monkeypatch.setenv(names.ENV_PROXY, "ipc:///outer")
    monkeypatch.setenv(names.ENV_LIFELINE, "77")
    _end(start("env", name="inner", RUNLANE_WORKER_NAME="w"))
    found = dict(line.split("=", 1) for line in (tmp_path / "inner.log").read_text().splitlines())
    assert names.ENV_RUN not in found
    assert names.ENV_PROXY not in found
    assert found[names.ENV_WORKER_NAME] == "w"
    assert found[names.ENV_CHILD] == "inner"
    assert found[names.ENV_PARENT] == str(os.getpid())
    assert found[names.ENV_LIFELINE] != "77"


def test_a_child_leads_a_session_of_its_own(start: Start) -> None:
    """The terminal's Ctrl-C does not reach it."""
    child = start("sleep", "600")
    assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid != os.getsid(0)


def test_no_child_holds_the_lifeline_of_another(start: Start, processes: "Processes", tmp_path: Path) -> None:
    """The write end is close-on-exec, so end-of-file means that we are gone, whoever else lives."""
    for name in ("one", "two", "three"):
        start("sh", "-c", "ls -l /proc/self/fd; sleep 600", name=name)
    for name in ("one", "two", "three"):
        processes.until(lambda name=name: "pipe" in (tmp_path / f"{name}.log").read_text(), "descriptors are listed")
        pipes = [line for line in (tmp_path / f"{name}.log").read_text().splitlines() if "pipe:" in line]
        assert len(pipes) == 1
        assert pipes[0].startswith("lr-x")


def test_kill_takes_grandchildren_in_and_out_of_the_group(start: Start, processes: "Processes", tmp_path: Path) -> None:
    """One with a session of its own escapes killpg."""
    script = f"sleep 600 & echo $! > {tmp_path}/inner; setsid sh -c 'echo $$ > {tmp_path}/outer; exec sleep 600' & wait"
    child = start("sh", "-c", script)
    pids = [processes.pid_in(tmp_path / "inner"), processes.pid_in(tmp_path / "outer")]
    child.kill()
    assert child.reap() == -signal.SIGKILL
    processes.until(lambda: processes.is_gone(*pids), "the grandchildren are gone")


def test_what_a_child_leaves_in_its_group_is_killed_before_its_pid_is_given_back(
    start: Start, processes: "Processes", tmp_path: Path
) -> None:
    """Afterwards the group's number could be another's."""
    child = start("sh", "-c", f"sleep 600 & echo $! > {tmp_path}/left; exit 0")
    pid = processes.pid_in(tmp_path / "left")
    assert _end(child) == 0
    processes.until(lambda: processes.is_gone(pid), "the left-over is gone")


def test_a_stopped_child_can_be_killed(start: Start) -> None:
    """SIGKILL does not wait for SIGCONT."""
    child = start("sleep", "600")
    child.signal(signal.SIGSTOP)
    child.kill()
    assert child.reap() == -signal.SIGKILL


def test_a_command_that_is_not_there_is_an_oserror_and_leaks_nothing(start: Start) -> None:
    """The fixture counts descriptors."""
    with pytest.raises(FileNotFoundError):
        start("/no/such/command")


def test_a_child_is_not_started_from_another_thread(start: Start) -> None:
    """The kernel would kill it when that thread ends."""
    caught: list[BaseException] = []

    def _try() -> None:
        try:
            start("true")
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=_try)
    thread.start()
    thread.join(DEADLINE_S)
    assert len(caught) == 1


def test_a_lifeline_breaks_when_its_writer_closes() -> None:
    """And not before."""
    read_end, write_end = os.pipe()
    lifeline = Lifeline(read_end, None)
    assert not lifeline.is_broken()
    os.close(write_end)
    assert lifeline.is_broken()
    lifeline.close()


def test_a_lifeline_is_taken_from_the_environment_and_removed() -> None:
    """A process started later must not take it for its own."""
    read_end, write_end = os.pipe()
    environment = {names.ENV_LIFELINE: str(read_end), "OTHER": "stays"}
    lifeline = Lifeline.from_environment(environment)
    assert environment == {"OTHER": "stays"}
    assert lifeline.fileno() == read_end
    lifeline.close()
    os.close(write_end)


@pytest.mark.parametrize("text", ["", "x", "-1", "9999", "/dev/null"])
def test_a_lifeline_that_is_no_pipe_is_not_believed(text: str) -> None:
    """A stale variable must neither end an actor nor close a descriptor of somebody else."""
    lifeline = Lifeline.from_environment({names.ENV_LIFELINE: text})
    assert lifeline.fileno() == -1
    assert not lifeline.is_broken()
    lifeline.close()
