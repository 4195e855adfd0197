"""A supervisor and its graph as real processes, with toy actors that only start, beat, note and stop."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from runlane.actors import guard
from runlane.config import names
from runlane.config.settings import Settings, SupervisorSettings, TransportSettings
from runlane.transport.endpoint import endpoint_of, ipc_endpoint, run_dir_of
from runlane.transport.messages import (
    ChildStatus,
    ControlMessage,
    Heartbeat,
    Refused,
    Status,
    StatusRequest,
    StopRequest,
    WorkerExited,
    WorkerStart,
    WorkerStarted,
)
from runlane.transport.sockets import Context, connect_dealer, request, send_control

DEADLINE_S = 20.0
STOP_S = 1.9
# What a test adds to a promised time on a machine with other work.
SLACK_S = 0.6

SUPERVISOR = """
import json, pathlib, sys
import msgspec
from runlane.actors.supervisor import Supervisor
from runlane.actors.topology import ChildSpec, Topology
from runlane.config.settings import Settings
from runlane.transport.log import configure_log

plan = json.loads(pathlib.Path(sys.argv[1]).read_text())
settings = msgspec.convert(plan["settings"], Settings)

class Toys(Topology):
    def specs(self):
        return [ChildSpec(**spec) for spec in plan["specs"]]

    def proxy(self, worker, run, run_name):
        command = plan["broken"] if worker == "broken" else plan["proxy"]
        return ChildSpec(name=f"proxy-{worker}", kind="proxy", command=command, restart="transient",
                         reports_heartbeat=True, worker=worker, run=run)

configure_log("supervisor", "INFO")
sys.exit(Supervisor(settings, topology=Toys(settings, 1)).run())
"""

ACTOR = """
import json, os, pathlib, signal, sys, time
import msgspec
from runlane.actors.runner import run_actor
from runlane.config.settings import Settings

settings = msgspec.convert(json.loads(pathlib.Path(sys.argv[1]).read_text())["settings"], Settings)
mode = sys.argv[3]

class Toy:
    name = os.environ["RUNLANE_CHILD"]
    is_finished = False

    def __init__(self):
        self.fd = os.open(sys.argv[2], os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def note(self, what):
        os.write(self.fd, f"{self.name} {what}\\n".encode())

    def on_start(self):
        if mode == "crash":
            raise RuntimeError("as asked")
        if mode == "slow":
            time.sleep(0.3)
        self.note("started")

    def do_work(self, timeout_s):
        if mode == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(timeout_s)

    def request_stop(self):
        self.note("stopping")

    def is_drained(self):
        return mode != "undrained"

    def statistics(self):
        return {"mode": mode}

    def on_close(self):
        self.note("closed")

    def on_message(self, message):
        self.note(f"told {message.exit_code}")
        self.is_finished = True

sys.exit(run_actor(Toy(), settings, drain_s=30.0))
"""

WORKER = """
import os, sys, time
def note(what):
    fd = os.open(sys.argv[1], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(fd, f"worker {what}\\n".encode())
note("started")
try:
    time.sleep(600)
except KeyboardInterrupt:
    note("interrupted")
"""

DEAF = "trap '' INT TERM HUP; while :; do sleep 600; done"


def _until(is_true: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    end_s = time.monotonic() + deadline_s
    while not is_true():
        assert time.monotonic() < end_s, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class ToyGraph:
    """A supervisor process, the plan it runs, and one socket to ask it."""

    def __init__(self, home: Path, context: Context) -> None:
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
        self._context = context
        self._process: subprocess.Popen[bytes] | None = None

    def actor(self, name: str, kind: str, mode: str = "good", restart: str = "permanent", **more: str) -> "ToyGraph":
        """Declare a toy actor."""
        command = self._actor(mode)
        self.specs.append(
            {"name": name, "kind": kind, "command": command, "restart": restart, "reports_heartbeat": True, **more}
        )
        return self

    def _actor(self, mode: str) -> list[str]:
        return [sys.executable, "-c", ACTOR, str(self.home / "plan"), str(self.events_file), mode]

    def foreign(self, name: str, kind: str, *command: str, restart: str = "temporary", **more: str) -> "ToyGraph":
        """Declare a command behind the guard."""
        guarded = [sys.executable, "-I", "-S", guard.__file__, "1.0", *command]
        self.specs.append(
            {"name": name, "kind": kind, "command": guarded, "restart": restart, "reports_heartbeat": False, **more}
        )
        return self

    def worker(self, *command: str, restart: str = "temporary") -> "ToyGraph":
        """Declare a worker `w` behind its proxy."""
        command = command or (sys.executable, "-c", WORKER, str(self.events_file))
        self.actor("proxy-w", "proxy", restart="transient", worker="w", run="r")
        return self.foreign("w", "worker", *command, restart=restart, worker="w", run="r")

    def start(self, environment: dict[str, str] | None = None, **options: Any) -> "subprocess.Popen[bytes]":
        """Start the supervisor."""
        plan = {
            "settings": msgspec.to_builtins(self.settings),
            "specs": self.specs,
            "proxy": self._actor("good"),
            "broken": self._actor("crash"),
        }
        (self.home / "plan").write_text(json.dumps(plan))
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, str(self.home / "plan")],
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
                **options,
            )
        return self._process

    def up(self) -> "subprocess.Popen[bytes]":
        """Start it and wait until it says that it is up."""
        process = self.start()
        _until(lambda: (status := self.status()) is not None and status.state == "running", "the graph is up")
        return process

    def ask(self, message: ControlMessage, timeout_s: float = 5.0) -> ControlMessage | None:
        """Ask over a connection of its own."""
        endpoint = endpoint_of(self.settings, names.SUPERVISOR_SOCKET)
        dealer = connect_dealer(self._context, endpoint, 10, self.settings.transport)
        try:
            return request(dealer, message, timeout_s)
        finally:
            dealer.close(0)

    def status(self, timeout_s: float = 5.0) -> Status | None:
        answer = self.ask(StatusRequest(), timeout_s)
        assert answer is None or isinstance(answer, Status)
        return answer

    def child(self, name: str) -> ChildStatus:
        status = self.status()
        assert status is not None
        return next(child for child in status.children if child.name == name)

    def pids(self) -> list[int]:
        """Every process of the graph but the supervisor."""
        assert self._process is not None
        return [process.pid for process in psutil.Process(self._process.pid).children(recursive=True)]

    def events(self) -> list[str]:
        return self.events_file.read_text().splitlines() if self.events_file.exists() else []

    def log(self) -> str:
        return (self.home / "log").read_text()

    def end(self) -> None:
        """Whatever the test did: the supervisor is gone."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every process of a test inherits its mark; one that is alive 5 s after the supervisor fails the test."""
    mark = os.urandom(8).hex()
    monkeypatch.setenv("TEST_MARK", mark)
    yield
    left: list[psutil.Process] = []

    def _is_clean() -> bool:
        left[:] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TEST_MARK") == mark and process.pid != os.getpid():
                    left.append(process)
        return not left

    try:
        _until(_is_clean, "every process is gone", 5.0 + SLACK_S)
    finally:
        for process in left:
            process.kill()


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[ToyGraph]:
    context: Context = zmq.Context()
    graph = ToyGraph(tmp_path, context)
    yield graph
    graph.end()
    context.term()


def _order(events: list[str], *wanted: str) -> bool:
    places = [events.index(event) for event in wanted]
    return places == sorted(places)


# ---- start ----


def test_children_start_in_order_each_when_the_one_before_is_ready(graph):
    """A slow router holds up all that need it."""
    graph.actor("router", "router", "slow").actor("db_writer", "subscriber").worker()
    graph.up()
    _until(lambda: "worker started" in graph.events(), "the worker started")
    assert graph.events() == ["router started", "db_writer started", "proxy-w started", "worker started"]


def test_the_status_tells_of_every_child(graph):
    """Kind, pid, state, age of the last heartbeat and the figures it brought."""
    graph.actor("router", "router").worker()
    process = graph.up()
    status = graph.status()
    assert status.pid == process.pid
    assert status.run_dir == str(run_dir_of(graph.settings))
    assert [(child.name, child.kind, child.state) for child in status.children] == [
        ("router", "router", "running"),
        ("proxy-w", "proxy", "running"),
        ("w", "worker", "running"),
    ]
    router, _, worker = status.children
    assert router.heartbeat_age_s < 2.0
    assert router.statistics == {"mode": "good"}
    assert worker.heartbeat_age_s is None
    assert sorted(child.pid for child in status.children) == sorted(
        child.pid for child in psutil.Process(process.pid).children()
    )


def test_the_control_socket_answers_while_a_child_starts(graph):
    """Waiting for a first heartbeat blocks nothing."""
    graph.actor("router", "router", "slow")
    graph.start()
    _until(lambda: graph.status() is not None, "an answer")
    assert graph.status().state in ("starting", "running")


def test_a_second_supervisor_is_refused_and_harms_nobody(graph):
    """The lock of the run directory is taken."""
    graph.actor("router", "router")
    first = graph.up()
    second = graph.start()
    assert second.wait(DEADLINE_S) != 0
    assert "running already" in graph.log()
    graph._process = first
    assert graph.child("router").state == "running"


# ---- restart ----


def test_a_killed_actor_is_restarted_alone(graph):
    """One for one: the others keep their pids."""
    graph.actor("router", "router").actor("db_writer", "subscriber").worker()
    graph.up()
    before = {child.name: child.pid for child in graph.status().children}
    os.kill(before["router"], signal.SIGKILL)
    _until(lambda: graph.child("router").restarts == 1 and graph.child("router").state == "running", "it is back")
    after = {child.name: child.pid for child in graph.status().children}
    assert after.pop("router") != before.pop("router")
    assert after == before
    assert "SUPERVISOR_CHILD_RESTARTED" in graph.log()


def test_a_proxy_that_somebody_terminates_comes_back_while_its_worker_lives(graph):
    """An actor stopped by a signal does not exit with 0, and a living worker needs its proxy."""
    graph.worker()
    graph.up()
    os.kill(graph.child("proxy-w").pid, signal.SIGTERM)
    _until(lambda: graph.child("proxy-w").restarts == 1 and graph.child("proxy-w").state == "running", "it is back")
    assert graph.child("proxy-w").exit_code == 128 + signal.SIGTERM


def test_a_silent_actor_is_killed_and_restarted(graph):
    """One that is stopped, or hangs, sends no heartbeat."""
    graph.actor("router", "router")
    graph.up()
    pid = graph.child("router").pid
    os.kill(pid, signal.SIGSTOP)
    _until(lambda: graph.child("router").restarts == 1 and graph.child("router").state == "running", "it is back")
    assert _is_gone(pid)
    assert "SUPERVISOR_CHILD_SILENT" in graph.log()


def test_a_pause_of_the_supervisor_itself_kills_nobody(graph):
    """Stopped for longer than the heartbeat timeout, it finds old heartbeats and forgives."""
    graph.actor("router", "router")
    process = graph.up()
    pid = graph.child("router").pid
    process.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    _until(lambda: time.monotonic() - stopped_s > 3.0, "more than the timeout passed")
    process.send_signal(signal.SIGCONT)
    resumed_s = time.monotonic()
    _until(lambda: graph.status() is not None and time.monotonic() - resumed_s > 1.0, "it works again")
    assert graph.child("router").pid == pid
    assert "SUPERVISOR_CHILD_SILENT" not in graph.log()


def test_restarting_too_often_ends_the_graph_with_code_1(graph):
    """A crash loop is given up, and everything else stopped in order."""
    graph.actor("router", "router").actor("db_writer", "subscriber", "crash")
    process = graph.start()
    assert process.wait(DEADLINE_S) == 1
    assert "SUPERVISOR_GAVE_UP name=db_writer restarts=3" in graph.log()
    assert _order(graph.events(), "router started", "router stopping", "router closed")


def test_a_command_that_cannot_be_started_is_treated_as_a_crash(graph):
    """No such file: restarted by the rule, then given up."""
    graph.specs.append(
        {"name": "x", "kind": "router", "command": ["/no/such"], "restart": "permanent", "reports_heartbeat": True}
    )
    assert graph.start().wait(DEADLINE_S) == 1
    assert "SUPERVISOR_GAVE_UP" in graph.log()


# ---- workers ----


def test_when_a_worker_ends_its_proxy_is_told_drains_and_ends(graph):
    """Both stay in the status with their exit codes."""
    graph.worker("sh", "-c", "exit 3")
    graph.up()
    _until(lambda: graph.child("proxy-w").state == "ended", "the proxy ended")
    assert graph.child("w").state == "ended"
    assert graph.child("w").exit_code == 3
    assert graph.child("proxy-w").exit_code == 0
    assert [event for event in graph.events() if "told" in event] == ["proxy-w told 3"]


def test_a_permanent_worker_is_restarted_and_keeps_its_proxy(graph):
    """Its proxy hears nothing of it."""
    graph.worker(restart="permanent")
    graph.up()
    _until(lambda: "worker started" in graph.events(), "the worker started")
    proxy = graph.child("proxy-w").pid
    os.kill(graph.child("w").pid, signal.SIGKILL)
    _until(lambda: graph.child("w").restarts == 1 and graph.events().count("worker started") == 2, "it is back")
    assert graph.child("proxy-w").pid == proxy
    assert not [event for event in graph.events() if "told" in event]


def test_a_worker_started_by_somebody_else_gets_a_proxy_of_its_own(graph):
    """Ready when the answer comes; a second one of the same name gets a suffix."""
    graph.up()
    first = graph.ask(WorkerStart(worker="mine", run="r1"))
    assert first == WorkerStarted(worker="mine", run="r1", endpoint=ipc_endpoint(graph.settings, "proxy-mine"))
    assert graph.child("proxy-mine").state == "running"
    second = graph.ask(WorkerStart(worker="mine", run="r2"))
    assert isinstance(second, WorkerStarted)
    assert second.worker == "mine-2"
    assert graph.events() == ["proxy-mine started", "proxy-mine-2 started"]


def test_the_word_that_a_worker_exited_is_answered_when_its_proxy_is_gone(graph):
    """So the asker can wait for the drain; asked again, the answer comes at once."""
    graph.up()
    started = graph.ask(WorkerStart(worker="mine", run="r1"))
    message = WorkerExited(worker=started.worker, run="r1", exit_code=7)
    pid = graph.child("proxy-mine").pid
    assert graph.ask(message) == message
    assert _is_gone(pid)
    assert "proxy-mine told 7" in graph.events()
    assert graph.ask(message) == message
    assert graph.ask(WorkerExited(worker="never", run="r9", exit_code=0)).worker == "never"


def test_the_exit_of_another_run_does_not_end_a_proxy(graph):
    """Worker names come again; runs do not."""
    graph.up()
    graph.ask(WorkerStart(worker="mine", run="r1"))
    assert graph.ask(WorkerExited(worker="mine", run="other", exit_code=0)) is not None
    assert graph.child("proxy-mine").state == "running"


@pytest.mark.parametrize("worker", ["../escape", "a/b", "x" * 33, "a b"])
def test_a_worker_name_that_is_no_plain_name_is_refused(graph, worker):
    """It would become a path."""
    graph.up()
    answer = graph.ask(WorkerStart(worker=worker, run="r"))
    assert isinstance(answer, Refused)
    assert worker[:10] in answer.reason
    assert graph.status().children == []


def test_a_proxy_that_cannot_start_is_refused_and_ends_nothing_else(graph):
    """A bad request is the asker's trouble, not the graph's."""
    graph.actor("router", "router")
    graph.up()
    answer = graph.ask(WorkerStart(worker="broken", run="r"))
    assert isinstance(answer, Refused)
    assert "exit code 70" in answer.reason
    assert graph.status().state == "running"


def test_a_proxy_whose_asker_left_before_the_answer_ends(graph):
    """No worker will ever come to it."""
    graph.up()
    endpoint = endpoint_of(graph.settings, names.SUPERVISOR_SOCKET)
    dealer = connect_dealer(graph._context, endpoint, 10, graph.settings.transport)
    _until(lambda: send_control(dealer, WorkerStart(worker="mine", run="r")), "the request left")
    _until(lambda: [c for c in graph.status().children if c.name == "proxy-mine"], "the request arrived")
    dealer.close(0)
    _until(lambda: graph.child("proxy-mine").state == "ended", "the proxy ended")


# ---- messages ----


def test_garbage_is_counted_and_dropped(graph):
    """Bytes, wrong frames, messages for somebody else, heartbeats of strangers: the graph goes on."""
    graph.actor("router", "router")
    graph.up()
    endpoint = endpoint_of(graph.settings, names.SUPERVISOR_SOCKET)
    dealer = connect_dealer(graph._context, endpoint, 100, graph.settings.transport)
    dealer.setsockopt(zmq.SNDTIMEO, 5_000)
    for frames in ([b""], [b"nonsense"], [b"RL\x01C\xc1"], [b"a", b"b", b"c"], [os.urandom(100)]):
        dealer.send_multipart(frames)
    send_control(dealer, Refused(reason="not for you"))
    send_control(dealer, Heartbeat(name="router", pid=1, state="running"))
    send_control(dealer, Heartbeat(name="stranger", pid=1, state="running"))
    dealer.close(1000)
    _until(lambda: "reason=unexpected" in graph.log(), "the last of them was counted")
    for reason in ("short", "magic", "msgpack", "frames"):
        assert f"WIRE_REJECTED reason={reason}" in graph.log()
    assert graph.child("router").state == "running"


def test_an_idle_graph_uses_no_processor(graph):
    """The supervisor waits for events; heartbeats are the only ones."""
    graph.actor("router", "router")
    process = graph.up()
    watched = psutil.Process(process.pid)
    before, from_s = sum(watched.cpu_times()[:2]), graph.status().uptime_s
    dealer = connect_dealer(
        graph._context, endpoint_of(graph.settings, names.SUPERVISOR_SOCKET), 10, graph.settings.transport
    )
    _until(lambda: _uptime_s(dealer) - from_s > 2.0, "two seconds passed")
    dealer.close(0)
    assert sum(watched.cpu_times()[:2]) - before < 0.3


def _uptime_s(dealer: Any) -> float:
    """Asks four times a second, by waiting for an answer that never comes to a second question."""
    answer = request(dealer, StatusRequest(), 1.0)
    dealer.poll(250)
    assert isinstance(answer, Status)
    return answer.uptime_s


# ---- stop ----


def test_sigterm_stops_everything_in_order_with_code_0(graph):
    """Worker, proxy, router, subscribers; each is closed before the next is asked."""
    graph.actor("router", "router").actor("db_writer", "subscriber").worker()
    process = graph.up()
    _until(lambda: "worker started" in graph.events(), "the worker started")
    pids = graph.pids()
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_S + SLACK_S) == 0
    assert all(map(_is_gone, pids))
    assert _order(
        graph.events(),
        "worker interrupted",
        "proxy-w closed",
        "router stopping",
        "router closed",
        "db_writer stopping",
        "db_writer closed",
    )
    assert not run_dir_of(graph.settings).exists()
    assert "SUPERVISOR_CHILD_KILLED" not in graph.log()


def test_sigint_stops_with_code_130(graph):
    """As a shell expects of a program that Ctrl-C ended."""
    graph.actor("router", "router")
    process = graph.up()
    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_S + SLACK_S) == 130


def test_a_stop_request_is_answered_and_followed(graph):
    """The asker sees that it was heard."""
    graph.actor("router", "router")
    process = graph.up()
    answer = graph.ask(StopRequest())
    assert isinstance(answer, Status)
    assert answer.state == "stopping"
    assert process.wait(STOP_S + SLACK_S) == 0


def test_a_graph_that_ignores_everything_is_stopped_in_time(graph):
    """Each stage is killed at the end of its share; grandchildren in sessions of their own too."""
    graph.actor("router", "router", "stubborn").actor("db_writer", "subscriber", "undrained")
    graph.worker("sh", "-c", f'setsid sh -c "{DEAF}" & {DEAF}')
    process = graph.up()
    _until(lambda: len(graph.pids()) >= 8, "worker and grandchildren run")
    pids = graph.pids()
    process.send_signal(signal.SIGTERM)
    asked_s = time.monotonic()
    assert process.wait(DEADLINE_S) == 0
    assert time.monotonic() - asked_s < STOP_S + SLACK_S
    assert all(map(_is_gone, pids))
    for name in ("w", "router"):
        assert f"SUPERVISOR_CHILD_KILLED name={name}" in graph.log()
    assert "SUPERVISOR_CHILD_KILLED name=db_writer" not in graph.log()  # hurried, it closed by itself
    assert not run_dir_of(graph.settings).exists()


def test_a_second_sigint_kills_at_once(graph):
    """No more patience than a person has."""
    graph.actor("router", "router", "stubborn").worker("sh", "-c", DEAF)
    process = graph.up()
    process.send_signal(signal.SIGINT)
    _until(lambda: "SUPERVISOR_STOPPING" in graph.log(), "the first was heard")
    asked_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    assert time.monotonic() - asked_s < 0.5 + SLACK_S


def test_kill_9_of_the_supervisor_ends_every_child_within_5_s_and_leaves_no_socket(graph):
    """Lifelines break; the last one out sweeps the run directory."""
    graph.actor("router", "router").actor("db_writer", "subscriber")
    graph.worker("sh", "-c", f'setsid sh -c "{DEAF}" & {DEAF}')
    process = graph.up()
    _until(lambda: len(graph.pids()) >= 8, "worker and grandchildren run")
    pids = graph.pids()
    process.kill()
    process.wait()
    _until(lambda: all(map(_is_gone, pids)), "all are gone", 5.0)
    assert not run_dir_of(graph.settings).exists()


def test_a_new_supervisor_sweeps_what_a_killed_graph_left(graph):
    """Killed all at once, nobody could sweep."""
    run_dir = run_dir_of(graph.settings)
    run_dir.mkdir(mode=0o700)
    (run_dir / "router.lock").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run_dir / "router+in.ipc"))
    graph.actor("router", "router")
    graph.up()
    assert "SUPERVISOR_SWEPT name=router+in.ipc" in graph.log()
    assert not (run_dir / "router+in.ipc").exists()


def test_the_end_of_whoever_started_the_supervisor_is_a_stop(graph):
    """`runlane run` starts a graph for itself; it must not outlive it."""
    graph.actor("router", "router")
    read_end, write_end = os.pipe()
    environment = {names.ENV_LIFELINE: str(read_end), names.ENV_PARENT: str(os.getpid())}
    process = graph.start(environment, pass_fds=[read_end])
    os.close(read_end)
    _until(lambda: graph.status().state == "running", "the graph is up")
    os.close(write_end)
    assert process.wait(STOP_S + SLACK_S) == 0
    assert "reason=lifeline" in graph.log()
