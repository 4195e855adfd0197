"""A supervisor and its graph as real processes, with toy actors that only start, beat, note and stop."""

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import zmq

from runlane.config import names
from runlane.transport.endpoint import ipc_endpoint
from runlane.transport.messages import (
    Heartbeat,
    Refused,
    RouterBye,
    Status,
    StatusRequest,
    StopRequest,
    WorkerExited,
    WorkerStart,
    WorkerStarted,
)
from runlane.transport.sockets import Socket, request, send_control

if TYPE_CHECKING:
    from tests.process.conftest import Processes, ToyGraph

DEADLINE_S = 20.0
STOP_S = 1.9
# What a test adds to a promised time on a machine with other work.
SLACK_S = 0.6

DEAF = "trap '' INT TERM HUP; while :; do sleep 600; done"


def _order(events: list[str], *wanted: str) -> bool:
    places = [events.index(event) for event in wanted]
    return places == sorted(places)


# ---- start ----


def test_children_start_in_order_each_when_the_one_before_is_ready(graph: "ToyGraph", processes: "Processes") -> None:
    """A slow router holds up all that need it."""
    graph.actor("router", "router", "slow").actor("db_writer", "subscriber").worker()
    graph.up()
    processes.until(lambda: "worker started" in graph.events(), "the worker started")
    assert graph.events() == ["router started", "db_writer started", "proxy-w started", "worker started"]


def test_the_status_tells_of_every_child(graph: "ToyGraph") -> None:
    """Kind, pid, state, age of the last heartbeat and the figures it brought."""
    graph.actor("router", "router").worker()
    process = graph.up()
    status = graph.status()
    assert status.pid == process.pid
    assert status.run_dir == str(graph.run_dir())
    assert [(child.name, child.kind, child.state) for child in status.children] == [
        ("router", "router", "running"),
        ("proxy-w", "proxy", "running"),
        ("w", "worker", "running"),
    ]
    router, _, worker = status.children
    assert router.heartbeat_age_s is not None
    assert router.heartbeat_age_s < 2.0
    assert router.statistics == {"mode": "good"}
    assert worker.heartbeat_age_s is None
    assert sorted(child.pid for child in status.children) == sorted(
        child.pid for child in psutil.Process(process.pid).children()
    )


def test_the_control_socket_answers_while_a_child_starts(graph: "ToyGraph", processes: "Processes") -> None:
    """Waiting for a first heartbeat blocks nothing."""
    graph.actor("router", "router", "slow")
    graph.start()
    assert graph.status().state == "starting"
    processes.until(lambda: graph.status().state == "running", "the graph is up")


def test_a_second_supervisor_is_refused_and_harms_nobody(graph: "ToyGraph") -> None:
    """The lock of the run directory is taken."""
    graph.actor("router", "router")
    graph.up()
    assert graph.start().wait(DEADLINE_S) != 0
    assert "running already" in graph.log()
    assert graph.child("router").state == "running"


# ---- restart ----


def test_a_killed_actor_is_restarted_alone(graph: "ToyGraph", processes: "Processes") -> None:
    """One for one: the others keep their pids."""
    graph.actor("router", "router").actor("db_writer", "subscriber").worker()
    graph.up()
    before = {child.name: child.pid for child in graph.status().children}
    os.kill(before["router"], signal.SIGKILL)
    processes.until(lambda: graph.is_back("router"), "it is back")
    after = {child.name: child.pid for child in graph.status().children}
    assert after.pop("router") != before.pop("router")
    assert after == before
    assert "SUPERVISOR_CHILD_RESTARTED" in graph.log()


def test_a_terminated_proxy_comes_back_while_its_worker_lives(graph: "ToyGraph", processes: "Processes") -> None:
    """An actor stopped by a signal does not exit with 0, and a living worker needs its proxy."""
    graph.worker()
    graph.up()
    os.kill(graph.child("proxy-w").pid, signal.SIGTERM)
    processes.until(lambda: graph.is_back("proxy-w"), "it is back")
    assert graph.child("proxy-w").exit_code == 128 + signal.SIGTERM


def test_a_silent_actor_is_killed_and_restarted(graph: "ToyGraph", processes: "Processes") -> None:
    """One that is stopped, or hangs, sends no heartbeat."""
    graph.actor("router", "router")
    graph.up()
    pid = graph.child("router").pid
    os.kill(pid, signal.SIGSTOP)
    processes.until(lambda: graph.is_back("router"), "it is back")
    assert processes.is_gone(pid)
    assert "SUPERVISOR_CHILD_SILENT" in graph.log()


def test_a_pause_of_the_supervisor_itself_kills_nobody(graph: "ToyGraph", processes: "Processes") -> None:
    """Stopped for longer than the heartbeat timeout, it finds old heartbeats and forgives."""
    graph.actor("router", "router")
    process = graph.up()
    pid = graph.child("router").pid
    process.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    processes.until(lambda: time.monotonic() - stopped_s > 3.0, "more than the timeout passed")
    process.send_signal(signal.SIGCONT)
    resumed_s = time.monotonic()
    processes.until(lambda: graph.status().uptime_s and time.monotonic() - resumed_s > 1.0, "it works again")
    assert graph.child("router").pid == pid
    assert "SUPERVISOR_CHILD_SILENT" not in graph.log()


def test_restarting_too_often_ends_the_graph_with_code_1(graph: "ToyGraph") -> None:
    """A crash loop is given up, and everything else stopped in order."""
    graph.actor("router", "router").actor("db_writer", "subscriber", "crash")
    process = graph.start()
    assert process.wait(DEADLINE_S) == 1
    assert "SUPERVISOR_GAVE_UP name=db_writer restarts=3" in graph.log()
    assert _order(graph.events(), "router started", "router stopping", "router closed")


def test_a_command_that_cannot_be_started_is_treated_as_a_crash(graph: "ToyGraph") -> None:
    """No such file: restarted by the rule, then given up."""
    graph.command("x", "router", "/no/such/command")
    assert graph.start().wait(DEADLINE_S) == 1
    assert "SUPERVISOR_GAVE_UP" in graph.log()


# ---- workers ----


def test_when_a_worker_ends_its_proxy_is_told_drains_and_ends(graph: "ToyGraph", processes: "Processes") -> None:
    """Both stay in the status with their exit codes."""
    graph.worker("sh", "-c", "exit 3")
    graph.up()
    processes.until(lambda: graph.child("proxy-w").state == "ended", "the proxy ended")
    assert graph.child("w").state == "ended"
    assert graph.child("w").exit_code == 3
    assert graph.child("proxy-w").exit_code == 0
    assert [event for event in graph.events() if "told" in event] == ["proxy-w told 3"]


def test_a_permanent_worker_is_restarted_and_keeps_its_proxy(graph: "ToyGraph", processes: "Processes") -> None:
    """Its proxy hears nothing of it."""
    graph.worker(restart="permanent")
    graph.up()
    processes.until(lambda: "worker started" in graph.events(), "the worker started")
    proxy = graph.child("proxy-w").pid
    os.kill(graph.child("w").pid, signal.SIGKILL)
    processes.until(lambda: graph.events().count("worker started") == 2, "it is back")
    assert graph.child("w").restarts == 1
    assert graph.child("proxy-w").pid == proxy
    assert not [event for event in graph.events() if "told" in event]


def test_a_worker_started_by_somebody_else_gets_a_proxy_of_its_own(graph: "ToyGraph") -> None:
    """Ready when the answer comes; a second one of the same name gets a suffix."""
    graph.up()
    first = graph.start_worker("mine", "r1")
    assert first == WorkerStarted(worker="mine", run="r1", endpoint=ipc_endpoint(graph.settings, "proxy-mine"))
    assert graph.child("proxy-mine").state == "running"
    assert graph.start_worker("mine", "r2").worker == "mine-2"
    assert graph.events() == ["proxy-mine started", "proxy-mine-2 started"]


def test_the_word_that_a_worker_exited_is_answered_when_its_proxy_is_gone(
    graph: "ToyGraph", processes: "Processes"
) -> None:
    """So the asker can wait for the drain; asked again, the answer comes at once."""
    graph.up()
    started = graph.start_worker("mine", "r1")
    message = WorkerExited(worker=started.worker, run=started.run, exit_code=7)
    pid = graph.child("proxy-mine").pid
    assert graph.ask(message) == message
    assert processes.is_gone(pid)
    assert "proxy-mine told 7" in graph.events()
    assert graph.ask(message) == message
    of_nobody = WorkerExited(worker="never", run="r9", exit_code=0)
    assert graph.ask(of_nobody) == of_nobody


def test_the_exit_of_another_run_does_not_end_a_proxy(graph: "ToyGraph") -> None:
    """Worker names come again; runs do not."""
    graph.up()
    graph.start_worker("mine", "r1")
    assert graph.ask(WorkerExited(worker="mine", run="other", exit_code=0)) is not None
    assert graph.child("proxy-mine").state == "running"


def test_nobody_else_can_say_that_a_supervised_worker_exited(graph: "ToyGraph") -> None:
    """Its proxy would end under a worker that runs."""
    graph.worker()
    graph.up()
    assert isinstance(graph.ask(WorkerExited(worker="w", run="r", exit_code=0)), Refused)
    assert graph.child("proxy-w").state == "running"


@pytest.mark.parametrize("worker", ["../escape", "a/b", "x" * 33, "a b"])
def test_a_worker_name_that_is_no_plain_name_is_refused(graph: "ToyGraph", worker: str) -> None:
    """It would become a path."""
    graph.up()
    answer = graph.ask(WorkerStart(worker=worker, run="r"))
    assert isinstance(answer, Refused)
    assert worker[:10] in answer.reason
    assert graph.status().children == []


def test_a_proxy_that_cannot_start_is_refused_and_ends_nothing_else(graph: "ToyGraph") -> None:
    """A bad request is the asker's trouble, not the graph's."""
    graph.actor("router", "router")
    graph.up()
    answer = graph.ask(WorkerStart(worker="broken", run="r"))
    assert isinstance(answer, Refused)
    assert "exit code 70" in answer.reason
    assert graph.status().state == "running"


def test_a_proxy_whose_asker_left_before_the_answer_ends(graph: "ToyGraph", processes: "Processes") -> None:
    """No worker will ever come to it."""
    graph.up()
    dealer = graph.connect()
    processes.until(lambda: send_control(dealer, WorkerStart(worker="mine", run="r")), "the request left")
    processes.until(lambda: [c for c in graph.status().children if c.name == "proxy-mine"], "the request arrived")
    dealer.close(0)
    processes.until(lambda: graph.child("proxy-mine").state == "ended", "the proxy ended")


# ---- messages ----


def test_garbage_is_counted_and_dropped(graph: "ToyGraph", processes: "Processes") -> None:
    """Bytes, wrong frames, messages for somebody else, heartbeats of strangers: the graph goes on."""
    graph.actor("router", "router")
    graph.up()
    dealer = graph.connect()
    dealer.setsockopt(zmq.SNDTIMEO, 5_000)
    for frames in ([b""], [b"nonsense"], [b"RL\x01C\xc1"], [b"a", b"b", b"c"], [os.urandom(100)]):
        dealer.send_multipart(frames)
    send_control(dealer, RouterBye(router="not for you"))
    send_control(dealer, Heartbeat(name="router", pid=1, state="running"))
    send_control(dealer, Heartbeat(name="stranger", pid=1, state="running"))
    dealer.close(1000)
    processes.until(lambda: "reason=unexpected" in graph.log(), "the last of them was counted")
    for reason in ("short", "magic", "msgpack", "frames"):
        assert f"WIRE_REJECTED place=supervisor reason={reason}" in graph.log()
    assert graph.child("router").state == "running"


def test_an_idle_graph_uses_no_processor(graph: "ToyGraph", processes: "Processes") -> None:
    """The supervisor waits for events; heartbeats are the only ones."""
    graph.actor("router", "router")
    process = graph.up()
    watched = psutil.Process(process.pid)
    before, from_s = sum(watched.cpu_times()[:2]), graph.status().uptime_s
    dealer = graph.connect()
    processes.until(lambda: _uptime_s(dealer) - from_s > 2.0, "two seconds passed")
    dealer.close(0)
    assert sum(watched.cpu_times()[:2]) - before < 0.3


def _uptime_s(dealer: Socket) -> float:
    """Asks four times a second, by waiting for an answer that never comes to a second question."""
    answer = request(dealer, StatusRequest(), 1.0)
    dealer.poll(250)
    assert isinstance(answer, Status)
    return answer.uptime_s


# ---- stop ----


def test_sigterm_stops_everything_in_order_with_code_0(graph: "ToyGraph", processes: "Processes") -> None:
    """Worker, proxy, router, subscribers; each is closed before the next is asked."""
    graph.actor("router", "router").actor("db_writer", "subscriber").worker()
    process = graph.up()
    processes.until(lambda: "worker started" in graph.events(), "the worker started")
    pids = graph.pids()
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_S + SLACK_S) == 0
    assert processes.is_gone(*pids)
    assert _order(
        graph.events(),
        "worker interrupted",
        "proxy-w closed",
        "router stopping",
        "router closed",
        "db_writer stopping",
        "db_writer closed",
    )
    assert not graph.run_dir().exists()
    assert "SUPERVISOR_CHILD_KILLED" not in graph.log()


def test_sigint_stops_with_code_130(graph: "ToyGraph") -> None:
    """As a shell expects of a program that Ctrl-C ended."""
    graph.actor("router", "router")
    process = graph.up()
    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_S + SLACK_S) == 130


def test_a_stop_request_is_answered_and_followed(graph: "ToyGraph") -> None:
    """The asker sees that it was heard."""
    graph.actor("router", "router")
    process = graph.up()
    answer = graph.ask(StopRequest())
    assert isinstance(answer, Status)
    assert answer.state == "stopping"
    assert process.wait(STOP_S + SLACK_S) == 0


def test_a_graph_that_ignores_everything_is_stopped_in_time(graph: "ToyGraph", processes: "Processes") -> None:
    """Each stage is killed at the end of its share; grandchildren in sessions of their own too."""
    graph.actor("router", "router", "stubborn").actor("db_writer", "subscriber", "undrained")
    graph.worker("sh", "-c", f'setsid sh -c "{DEAF}" & {DEAF}')
    process = graph.up()
    processes.until(lambda: len(graph.pids()) >= 8, "worker and grandchildren run")
    pids = graph.pids()
    process.send_signal(signal.SIGTERM)
    asked_s = time.monotonic()
    assert process.wait(DEADLINE_S) == 0
    assert time.monotonic() - asked_s < STOP_S + SLACK_S
    assert processes.is_gone(*pids)
    for name in ("w", "router"):
        assert f"SUPERVISOR_CHILD_KILLED name={name}" in graph.log()
    assert "SUPERVISOR_CHILD_KILLED name=db_writer" not in graph.log()  # hurried, it closed by itself
    assert not graph.run_dir().exists()


def test_a_second_sigint_kills_at_once(graph: "ToyGraph", processes: "Processes") -> None:
    """No more patience than a person has."""
    graph.actor("router", "router", "stubborn").worker("sh", "-c", DEAF)
    process = graph.up()
    process.send_signal(signal.SIGINT)
    processes.until(lambda: "SUPERVISOR_STOPPING" in graph.log(), "the first was heard")
    asked_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    assert time.monotonic() - asked_s < 0.5 + SLACK_S


def test_kill_9_of_the_supervisor_ends_every_child_within_5_s(graph: "ToyGraph", processes: "Processes") -> None:
    """Lifelines break; the last one out sweeps the run directory, so no socket is left."""
    graph.actor("router", "router").actor("db_writer", "subscriber")
    graph.worker("sh", "-c", f'setsid sh -c "{DEAF}" & {DEAF}')
    process = graph.up()
    processes.until(lambda: len(graph.pids()) >= 8, "worker and grandchildren run")
    pids = graph.pids()
    process.kill()
    process.wait()
    processes.until(lambda: processes.is_gone(*pids), "all are gone", 5.0)
    assert not graph.run_dir().exists()


def test_a_new_supervisor_sweeps_what_a_killed_graph_left(graph: "ToyGraph") -> None:
    """Killed all at once, nobody could sweep."""
    run_dir = graph.run_dir()
    run_dir.mkdir(mode=0o700)
    (run_dir / "router.lock").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run_dir / "router+in.ipc"))
    graph.actor("router", "router")
    graph.up()
    assert "SUPERVISOR_SWEPT name=router+in.ipc" in graph.log()
    assert not (run_dir / "router+in.ipc").exists()


def test_the_end_of_whoever_started_the_supervisor_is_a_stop(graph: "ToyGraph", processes: "Processes") -> None:
    """`runlane run` starts a graph for itself; it must not outlive it."""
    graph.actor("router", "router")
    read_end, write_end = os.pipe()
    environment = {names.ENV_LIFELINE: str(read_end), names.ENV_PARENT: str(os.getpid())}
    process = graph.start(environment, pass_fds=[read_end])
    os.close(read_end)
    processes.until(lambda: graph.status().state == "running", "the graph is up")
    os.close(write_end)
    assert process.wait(STOP_S + SLACK_S) == 0
    assert "reason=lifeline" in graph.log()
