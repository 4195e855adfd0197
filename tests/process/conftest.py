"""Real processes for tests: started, waited for with a deadline, and never left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psutil
import pytest
import zmq
from process.c_program import EXAMPLE, compiled

from runlane.actors import guard
from runlane.config import names
from runlane.config.settings import Settings, SupervisorSettings, TransportSettings
from runlane.transport.endpoint import endpoint_of, run_dir_of
from runlane.transport.messages import ChildStatus, ControlMessage, Status, StatusRequest, WorkerStart, WorkerStarted
from runlane.transport.ring_files import graph_prefix, ring_directories
from runlane.transport.sockets import Context, Socket, connect_dealer, request

DEADLINE_S = 20.0
# After its supervisor, however that ended, a child may live so long; and what a busy machine adds.
ORPHAN_S = 5.0
SLACK_S = 0.6
STOP_S = 1.9
HERE = Path(__file__).parent
MARK = "TEST_MARK"


@pytest.fixture
def ring_dir(short_dir: Path) -> Iterator[Path]:
    """A run directory; rings of it that are left fail the test."""
    yield short_dir
    left = [found.name for place in ring_directories(short_dir) for found in place.glob(f"{graph_prefix(short_dir)}*")]
    assert left == []


@pytest.fixture(scope="session")
def ring_writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in C that writes a ring, as a program."""
    return compiled(EXAMPLE, tmp_path_factory.mktemp("c"))


@contextlib.contextmanager
def small_file_system(place: Path, megabytes: int) -> Generator[Path]:
    """A file system of its own at `place`, for a test that fills it."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607  as mount: wherever the system has it


class Processes:
    """What a test starts. Every descendant inherits the test's mark and so is found, whoever its parent is now."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *command: str,
        stdout: int | None = None,
        stderr: int | BinaryIO | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> "subprocess.Popen[bytes]":
        """Start a command in a session of its own."""
        process = subprocess.Popen(
            command, start_new_session=True, stdout=stdout, stderr=stderr, env=env, pass_fds=pass_fds
        )
        self._started.append(process)
        return process

    def until(self, is_true: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait for an event; `what` names it in the failure."""
        end_s = time.monotonic() + deadline_s
        while not is_true():
            assert time.monotonic() < end_s, f"not within {deadline_s} s: {what}"
            time.sleep(0.01)

    def is_gone(self, *pids: int) -> bool:
        """Whether none of them runs; a zombie does not."""
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    return False
        return True

    def pid_in(self, path: Path) -> int:
        """The pid that a process notes in a file."""
        self.until(lambda: path.exists() and path.read_text().strip(), f"{path.name} is written")
        return int(path.read_text())

    def alive(self) -> list[psutil.Process]:
        """Every process of this test that runs."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark and process.pid != os.getpid():
                    found.append(process)
        return found

    def end(self) -> None:
        """Kill what the test itself started; all that descends from it must then be gone by itself."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        try:
            self.until(lambda: not self.alive(), "every process of the test is gone", ORPHAN_S + SLACK_S)
        finally:
            for left in self.alive():
                left.kill()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    """Starts processes; fails the test that leaves one."""
    mark = os.urandom(8).hex()
    monkeypatch.setenv(MARK, mark)
    found = Processes(mark)
    yield found
    found.end()


class ToyGraph:
    """A supervisor process, the plan of toys it runs, and a way to ask it."""

    def __init__(self, home: Path, processes: Processes, context: Context) -> None:
        self.home = home
        self.events_file = home / "events"
        self.settings = Settings(
            data_dir=str(home / "data"),
            transport=TransportSettings(run_dir=str(home / "run")),
            supervisor=SupervisorSettings(
                heartbeat_s=0.1,
                heartbeat_timeout_s=2.0,
                max_restarts=3,
                backoff_s=0.02,
                backoff_max_s=0.05,
                stop_s=STOP_S,
            ),
        )
        self.specs: list[dict[str, Any]] = []
        self._processes = processes
        self._context = context
        self._process: subprocess.Popen[bytes] | None = None

    def actor(self, name: str, kind: str, mode: str = "good", restart: str = "permanent", **more: str) -> "ToyGraph":
        """Declare a toy actor; the modes are in `toy_actor.py`."""
        self._declare(name, kind, self._actor(mode), restart, is_ours=True, **more)
        return self

    def worker(self, *command: str, restart: str = "temporary") -> "ToyGraph":
        """Declare a worker `w` behind the guard and behind its proxy."""
        command = command or (sys.executable, str(HERE / "toy_worker.py"), str(self.events_file))
        guarded = [sys.executable, "-I", "-S", guard.__file__, "1.0", *command]
        self.actor("proxy-w", "proxy", restart="transient", worker="w", run="r")
        self._declare("w", "worker", guarded, restart, is_ours=False, worker="w", run="r")
        return self

    def command(self, name: str, kind: str, *command: str) -> "ToyGraph":
        """Declare a permanent child of ours with any command."""
        self._declare(name, kind, list(command), "permanent", is_ours=True)
        return self

    def _declare(self, name: str, kind: str, command: list[str], restart: str, *, is_ours: bool, **more: str) -> None:
        spec = {"name": name, "kind": kind, "command": command, "restart": restart, "reports_heartbeat": is_ours}
        self.specs.append({**spec, **more})

    def _actor(self, mode: str) -> list[str]:
        return [sys.executable, str(HERE / "toy_actor.py"), str(self.home / "plan"), str(self.events_file), mode]

    def start(
        self, environment: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start the supervisor."""
        plan = {
            "settings": msgspec.to_builtins(self.settings),
            "specs": self.specs,
            "proxy": self._actor("good"),
            "broken": self._actor("crash"),
        }
        (self.home / "plan").write_text(json.dumps(plan))
        command = (sys.executable, str(HERE / "toy_supervisor.py"), str(self.home / "plan"))
        with (self.home / "log").open("ab") as log:
            self._process = self._processes.start(
                *command, stderr=log, env={**os.environ, **(environment or {})}, pass_fds=pass_fds
            )
        return self._process

    def up(self) -> "subprocess.Popen[bytes]":
        """Start it and wait until it says that it is up."""
        process = self.start()
        self._processes.until(lambda: self.status().state == "running", "the graph is up")
        return process

    def connect(self) -> Socket:
        """A connection to the supervisor, for the caller to close."""
        endpoint = endpoint_of(self.settings, names.SUPERVISOR_SOCKET)
        return connect_dealer(self._context, endpoint, 100, self.settings.transport)

    def ask(self, message: ControlMessage) -> ControlMessage | None:
        """Ask over a connection of its own."""
        dealer = self.connect()
        try:
            return request(dealer, message, DEADLINE_S)
        finally:
            dealer.close(0)

    def start_worker(self, worker: str, run: str) -> WorkerStarted:
        """A proxy for a worker of somebody else."""
        answer = self.ask(WorkerStart(worker=worker, run=run))
        assert isinstance(answer, WorkerStarted)
        return answer

    def status(self) -> Status:
        """The graph as its supervisor sees it."""
        answer = self.ask(StatusRequest())
        assert isinstance(answer, Status)
        return answer

    def child(self, name: str) -> ChildStatus:
        """One child of it."""
        return next(child for child in self.status().children if child.name == name)

    def is_back(self, name: str) -> bool:
        """Whether it was restarted once and works."""
        child = self.child(name)
        return child.restarts == 1 and child.state == "running"

    def pids(self) -> list[int]:
        """Every process below the supervisor."""
        assert self._process is not None
        return [process.pid for process in psutil.Process(self._process.pid).children(recursive=True)]

    def events(self) -> list[str]:
        """What the toys noted, in order."""
        return self.events_file.read_text().splitlines() if self.events_file.exists() else []

    def log(self) -> str:
        """What the supervisor logged."""
        return (self.home / "log").read_text()

    def run_dir(self) -> Path:
        """Where sockets and locks lie."""
        return run_dir_of(self.settings)


@pytest.fixture
def graph(short_dir: Path, processes: Processes) -> Iterator[ToyGraph]:
    """A toy graph, not yet started."""
    context: Context = zmq.Context()
    yield ToyGraph(short_dir, processes, context)
    context.term()
