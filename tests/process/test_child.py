"""One real child process: start, signals, output, kill, reap."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runlane.actors.child import Child
from runlane.actors.lifeline import Lifeline
from runlane.actors.topology import ChildSpec
from runlane.config import names

DEADLINE_S = 15.0


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


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process with the test's mark and no descriptor outlives a test."""
    mark = os.urandom(8).hex()
    monkeypatch.setenv("TEST_MARK", mark)
    before = set(Path("/proc/self/fd").iterdir())
    yield
    left: list[str] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TEST_MARK") == mark and process.pid != os.getpid():
                left.append(" ".join(process.cmdline()))
                process.kill()
    assert not left
    assert set(Path("/proc/self/fd").iterdir()) <= before


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start a child; whatever is left of it after the test is killed."""
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
    _until(lambda: child.poll() is not None, f"{child.name} ends")
    assert child.exit_code is not None
    return child.exit_code


def test_the_exit_code_is_known_once_and_for_all(start):
    """Asking again after the pid was given back answers the same."""
    child = start("sh", "-c", "exit 3")
    assert _end(child) == 3
    assert child.poll() == 3
    assert not child.is_alive


def test_death_by_a_signal_is_its_number_below_zero(start):
    """As subprocess has it."""
    child = start("sleep", "600")
    assert child.is_alive
    child.signal(signal.SIGTERM)
    assert _end(child) == -signal.SIGTERM


def test_a_signal_to_a_reaped_child_goes_nowhere(start):
    """Its pid may be somebody else's by now."""
    child = start("true")
    _end(child)
    child.pid = os.getpid()
    child.signal(signal.SIGTERM)
    child.kill()


def test_much_output_does_not_stop_a_child(start, tmp_path):
    """A pipe that nobody reads holds 64 KiB; a file holds all."""
    child = start(sys.executable, "-c", "print('x' * 1_000_000); import sys; print('end', file=sys.stderr)")
    assert _end(child) == 0
    text = (tmp_path / "toy.log").read_text()
    assert len(text) > 1_000_000
    assert text.endswith("end\n")


def test_the_log_of_a_restarted_child_goes_on_in_the_same_file(start, tmp_path):
    """The reason of the crash before stays readable."""
    for text in ("first", "second"):
        _end(start("echo", text))
    assert (tmp_path / "toy.log").read_text() == "first\nsecond\n"


def test_what_a_child_writes_is_in_its_log_at_once(start, tmp_path):
    """Python children do not buffer."""
    start(sys.executable, "-c", "import time; print('here'); time.sleep(600)")
    _until(lambda: "here" in (tmp_path / "toy.log").read_text(), "the line is in the log")


def test_a_child_reads_nothing_from_us(start):
    """Its standard input is empty, so it cannot wait for a keyboard."""
    assert _end(start("cat")) == 0


def test_a_child_gets_its_own_variables_and_none_of_ours(start, tmp_path, monkeypatch):
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


def test_a_child_leads_a_session_of_its_own(start):
    """The terminal's Ctrl-C does not reach it."""
    child = start("sleep", "600")
    assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid != os.getsid(0)


def test_no_child_holds_the_lifeline_of_another(start, tmp_path):
    """The write end is close-on-exec, so end-of-file means that we are gone, whoever else lives."""
    for name in ("one", "two", "three"):
        start("sh", "-c", "ls -l /proc/self/fd; sleep 600", name=name)
    for name in ("one", "two", "three"):
        _until(lambda name=name: "pipe" in (tmp_path / f"{name}.log").read_text(), "descriptors are listed")
        pipes = [line for line in (tmp_path / f"{name}.log").read_text().splitlines() if "pipe:" in line]
        assert len(pipes) == 1
        assert pipes[0].startswith("lr-x")


def test_kill_takes_grandchildren_in_and_out_of_the_group(start, tmp_path):
    """One with a session of its own escapes killpg."""
    script = f"sleep 600 & echo $! > {tmp_path}/inner; setsid sh -c 'echo $$ > {tmp_path}/outer; exec sleep 600' & wait"
    child = start("sh", "-c", script)
    pids = [_pid_in(tmp_path / "inner"), _pid_in(tmp_path / "outer")]
    child.kill()
    assert child.reap() == -signal.SIGKILL
    _until(lambda: all(map(_is_gone, pids)), "the grandchildren are gone")


def test_what_a_child_leaves_in_its_group_is_killed_before_its_pid_is_given_back(start, tmp_path):
    """Afterwards the group's number could be another's."""
    child = start("sh", "-c", f"sleep 600 & echo $! > {tmp_path}/left; exit 0")
    pid = _pid_in(tmp_path / "left")
    assert _end(child) == 0
    _until(lambda: _is_gone(pid), "the left-over is gone")


def test_a_stopped_child_can_be_killed(start):
    """SIGKILL does not wait for SIGCONT."""
    child = start("sleep", "600")
    child.signal(signal.SIGSTOP)
    child.kill()
    assert child.reap() == -signal.SIGKILL


def test_a_command_that_is_not_there_is_an_oserror_and_leaks_nothing(start):
    """The fixture counts descriptors."""
    with pytest.raises(FileNotFoundError):
        start("/no/such/command")


def test_a_child_is_not_started_from_another_thread(start):
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


def test_a_lifeline_breaks_when_its_writer_closes():
    """And not before."""
    read_end, write_end = os.pipe()
    lifeline = Lifeline(read_end, None)
    assert not lifeline.is_broken()
    os.close(write_end)
    assert lifeline.is_broken()
    lifeline.close()


def test_a_lifeline_is_taken_from_the_environment_and_removed():
    """A process started later must not take it for its own."""
    read_end, write_end = os.pipe()
    environment = {names.ENV_LIFELINE: str(read_end), "OTHER": "stays"}
    lifeline = Lifeline.from_environment(environment)
    assert environment == {"OTHER": "stays"}
    assert lifeline.fileno() == read_end
    lifeline.close()
    os.close(write_end)


@pytest.mark.parametrize("text", ["", "x", "-1", "9999", "/dev/null"])
def test_a_lifeline_that_is_no_pipe_is_not_believed(text):
    """A stale variable must neither end an actor nor close a descriptor of somebody else."""
    lifeline = Lifeline.from_environment({names.ENV_LIFELINE: text})
    assert lifeline.fileno() == -1
    assert not lifeline.is_broken()
    lifeline.close()
