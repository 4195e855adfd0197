"""The whole graph, real processes and real `kill -9`: what the README promises, as claims."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from process.graph_under_test import DEADLINE_S, WORKER, GraphUnderTest, is_alive, wait_until

from runlane.config.names import CONTROL_SOCKET, INGRESS_SOCKET, SUPERVISOR_SOCKET
from runlane.transport.endpoint import endpoint_of, ipc_endpoint, run_dir_of
from runlane.transport.ring_files import graph_prefix, ring_directories
from runlane.transport.wire import MAX_BODY_BYTES

pytestmark = pytest.mark.timeout(120)

EXAMPLES = Path(__file__).parents[2] / "examples"


def worker_table(directory: Path, steps: int, rate: float) -> str:
    """A declared worker that counts for itself."""
    command = ["{python}", str(WORKER), str(directory / "report.json"), str(steps), str(rate)]
    return f"[workers.counter]\ncommand = {json.dumps(command)}\nrun_name = 'counted'\n"


def report_of(directory: Path) -> dict[str, Any]:
    """What the worker counted, once it has ended."""
    path = directory / "report.json"
    wait_until(path.exists, "the worker wrote its report", 60)
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def assert_exact(graph: GraphUnderTest, report: dict[str, Any], *, is_stopped: bool = False) -> None:
    """Every record the worker counted is in the database exactly once; what a stop left in the journal, too."""
    if is_stopped:
        graph.recover()
    else:
        assert report["is_committed"]
    assert report["faults"] == 0
    assert graph.sql("SELECT count(*), count(DISTINCT seq) FROM steps") == [(report["steps"], report["steps"])]
    assert graph.sql("SELECT count(*) FROM episodes WHERE outcome = 'terminated'") == [(report["episodes"],)]
    assert graph.sql("SELECT count(*) FROM drops") == [(0,)]
    [(first, last)] = graph.sql("SELECT first_seq, last_seq FROM streams WHERE worker = 'counter'")
    assert (first, last) == (1, report["records"])
    # Every seq of the stream is there, whatever its kind: no hole anywhere.
    kinds = ("steps", "episodes", "metrics", "logs", "run_states", "infos")
    present = " UNION ALL ".join(f"SELECT seq FROM {kind} WHERE worker = 'counter'" for kind in kinds)  # noqa: S608
    [(count, distinct)] = graph.sql(f"SELECT count(*), count(DISTINCT seq) FROM ({present})")  # noqa: S608
    assert (count, distinct) == (report["records"], report["records"])


def test_every_step_of_a_declared_worker_is_stored_once(short_dir: Path) -> None:
    """A worker in the settings file runs, and what it counted is what the database holds."""
    with GraphUnderTest(short_dir, worker_table(short_dir, 30_000, 0)) as graph:
        report = report_of(short_dir)
        wait_until(lambda: graph.child("counter").exit_code == 0, "the worker ended")
        assert_exact(graph, report)
        wait_until(
            lambda: graph.sql("SELECT name, state, exit_code FROM runs") == [("counted", "finished", 0)],
            "the run's end is stored",
        )


@pytest.mark.parametrize("victim", ["router", "db_writer"])
def test_kill_9_in_mid_run_loses_and_doubles_nothing(short_dir: Path, victim: str) -> None:
    """The supervisor restarts the victim, the run goes on, and at the end every record is there once."""
    with GraphUnderTest(short_dir, worker_table(short_dir, 60_000, 8_000)) as graph:
        for rows in (1_000, 15_000):
            wait_until(lambda least=rows: _rows(graph) >= least, f"{rows} rows are stored")
            graph.kill(victim)
        report = report_of(short_dir)
        assert_exact(graph, report)
        assert graph.child(victim).restarts == 2
        assert graph.child("proxy-counter").restarts == 0


def test_kill_9_of_the_proxy_loses_nothing_the_worker_still_holds(short_dir: Path) -> None:
    """The worker resends to the proxy's successor what was never acked."""
    with GraphUnderTest(short_dir, worker_table(short_dir, 40_000, 8_000)) as graph:
        wait_until(lambda: _rows(graph) >= 1_000, "rows are stored")
        graph.kill("proxy-counter")
        assert_exact(graph, report_of(short_dir))


def test_kill_9_of_the_supervisor_leaves_nothing(short_dir: Path) -> None:
    """Every child is gone within 5 s, with every socket file and lock."""
    with GraphUnderTest(short_dir, worker_table(short_dir, 10_000_000, 5_000)) as graph:
        wait_until(lambda: _rows(graph) >= 1_000, "rows are stored")
        pids = graph.pids()
        assert len(pids) >= 4
        graph.process.kill()
        wait_until(lambda: not [pid for pid in pids if is_alive(pid)], "every child is gone", 5)
        wait_until(lambda: not graph.leftovers(), "the run directory is swept", 1)
        run_dir = run_dir_of(graph.settings)
        names = graph_prefix(run_dir) + "*"  # other tests have graphs of their own at the moment
        assert not [path for directory in ring_directories(run_dir) for path in directory.glob(names)]
        report = report_of(short_dir)
        assert_exact(graph, report, is_stopped=True)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_ordered_stop_drains_everything(short_dir: Path, signum: signal.Signals) -> None:
    """Ctrl-C in mid-run: what was recorded is stored, all are gone in time, no traceback, exit code 130 or 0."""
    with GraphUnderTest(short_dir, worker_table(short_dir, 10_000_000, 20_000)) as graph:
        wait_until(lambda: _rows(graph) >= 5_000, "rows are stored")
        pids = graph.pids()
        graph.process.send_signal(signum)
        code = graph.process.wait(DEADLINE_S)
        assert code == (130 if signum == signal.SIGINT else 0)
        assert not [pid for pid in pids if is_alive(pid)]
        assert not graph.leftovers()
        assert "Traceback" not in graph.logs()
        assert "SUPERVISOR_CHILD_KILLED" not in graph.logs()
        assert_exact(graph, report_of(short_dir), is_stopped=True)


def test_garbage_on_every_bound_socket_harms_nobody(short_dir: Path) -> None:
    """Random bytes, an unknown version, an oversized frame: counted, logged, dropped; the run is complete."""
    with GraphUnderTest(short_dir, worker_table(short_dir, 40_000, 8_000)) as graph:
        wait_until(lambda: _rows(graph) >= 1_000, "rows are stored")
        endpoints = [endpoint_of(graph.settings, role) for role in (SUPERVISOR_SOCKET, INGRESS_SOCKET, CONTROL_SOCKET)]
        endpoints.append(ipc_endpoint(graph.settings, "proxy-counter"))
        for endpoint in endpoints:
            _throw_garbage(endpoint)
        wait_until(lambda: sum(graph.child("router").statistics["rejected"].values()) >= 8, "the router counted it")
        wait_until(lambda: sum(graph.child("proxy-counter").statistics["rejected"].values()) >= 4, "so did the proxy")
        assert all(child.restarts == 0 for child in graph.status().children)
        assert "WIRE_REJECTED" in graph.log.read_text()
        assert graph.logs().count("WIRE_REJECTED") >= 3
        assert_exact(graph, report_of(short_dir))


def _throw_garbage(endpoint: str) -> None:
    garbage = [
        [os.urandom(64)],
        [b""],
        [b"RL\x63C" + b"\x80"],  # a version nobody speaks
        [b"RL\x01C" + b"\xc1" * 20],  # no MessagePack
        [b"RL\x01B" + os.urandom(200), os.urandom(100)],
        [b"RL\x01C" + b"\x00" * (MAX_BODY_BYTES + 1)],  # over what a control message may be
    ]
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 5_000)
        dealer.connect(endpoint)
        for frames in garbage:
            dealer.send_multipart(frames)


def test_a_custom_subscriber_joins_by_name_and_declared(short_dir: Path) -> None:
    """The example runs beside a live graph with its own policy; in the settings file the supervisor starts it."""
    command = json.dumps(["{python}", str(EXAMPLES / "custom_subscriber.py")])
    declared = (
        f'[subscribers.printer]\noverflow = "drop_oldest"\nmax_queue = 1024\nkinds = ["episode"]\ncommand = {command}\n'
    )
    with GraphUnderTest(short_dir, declared + worker_table(short_dir, 20_000, 10_000)) as graph:
        report = report_of(short_dir)
        printed = short_dir / "data" / "logs" / "printer.log"
        wait_until(
            lambda: printed.read_text().count("EpisodeRecord") == report["episodes"], "the declared one printed all"
        )
        account = graph.child("router").statistics["subscribers"]["printer"]
        assert (
            account["published"]
            == account["delivered"] + sum(account["dropped"].values()) + account["depth"] + (account["in_flight"])
        )
        refused = subprocess.run(
            [sys.executable, str(EXAMPLES / "custom_subscriber.py")],
            env={**os.environ, "RUNLANE_CONFIG": str(graph.config)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "connected already" in refused.stderr


def test_two_graphs_in_one_directory_are_refused(short_dir: Path) -> None:
    """A second `runlane up` says who runs already, and harms nothing."""
    with GraphUnderTest(short_dir) as graph:
        second = subprocess.run(
            [sys.executable, "-m", "runlane", "up", *graph.options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert f"running already (pid {graph.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        assert graph.status().state == "running"


def _rows(graph: GraphUnderTest) -> int:
    return int(graph.child("db_writer").statistics["rows_committed"])


def test_no_process_of_a_graph_is_left() -> None:
    """After all of the above, this test run has no process of runlane below it."""
    names = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [name for name in names if "runlane" in name]
