"""Running workers are steered: their telemetry mode, and their end. Every count is compared with the worker's own."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process.graph_under_test import GraphUnderTest, wait_until
from process.test_watching import ShownWorker, follow, next_frame, working

from runlane.config.errors import GraphError
from runlane.config.telemetry_mode import TelemetryMode
from runlane.control import end_workers, switch
from runlane.transport.endpoint import run_dir_of
from runlane.transport.lane_follower import LaneFollower

pytestmark = pytest.mark.timeout(120)

# Steps that take the quickest worker a tenth of a second: at 30 frames a second some are due among them.
MANY = 50_000
STEPPING = """
import time
from runlane.workers import attach
session = attach()
while True:
    session.step(1, 1.0)
    time.sleep(0.001)
"""
DECLARED = f"""
[workers.declared]
command = ["{{python}}", "-c", {json.dumps(STEPPING)}]
restart = "permanent"
"""


@pytest.fixture(scope="module")
def graph() -> Iterator[GraphUnderTest]:
    """One for all: each test has a run of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as directory,
        GraphUnderTest(Path(directory), DECLARED) as graph,
    ):
        yield graph


def rows(graph: GraphUnderTest, run: str, table: str = "steps") -> int:
    return int(graph.sql(f"SELECT count(*) FROM {table} WHERE run = '{run}'")[0][0])  # noqa: S608  our own words


def watch_while(follower: LaneFollower, worker: ShownWorker, steps: int) -> int:
    """Hold the lease while the worker makes so many steps; returns how often it rendered meanwhile."""
    before = now = worker.counts()
    while now["steps"] < before["steps"] + steps:
        follower.poll(time.monotonic_ns())
        follower.read()
        now = worker.counts()
    return int(now["renders"] - before["renders"])


def test_a_running_worker_goes_through_all_modes_and_every_step_is_a_row_or_told_as_a_drop(
    graph: GraphUnderTest,
) -> None:
    """Dual path, fast lane only, dual path, durable only: rows stand still in one, frames in another, counts agree."""
    with working(graph) as worker:
        follower = follow(graph)
        next_frame(follower)
        done = graph.client.set_telemetry_mode(worker.run, "w", TelemetryMode.FAST_LANE_ONLY)
        assert (done.mode, done.streams) == (TelemetryMode.FAST_LANE_ONLY, 1)
        counts = worker.counts()
        kept = counts["steps"] - counts["dropped"]["step"]
        wait_until(lambda: rows(graph, worker.run) == kept, "what came before the switch is stored")
        assert watch_while(follower, worker, MANY) > 0
        assert wait_until(lambda: found if (found := next_frame(follower)[0]).step_seq == 0 else None, "a frame")
        counts = worker.counts()
        assert counts["steps"] - counts["dropped"]["step"] == kept == rows(graph, worker.run)
        assert list(switch(graph.settings, "drawn", "w", TelemetryMode.DUAL_PATH))
        wait_until(lambda: rows(graph, worker.run) > kept, "rows come again")
        assert next_frame(follower)[0].step_seq
        graph.client.set_telemetry_mode(worker.run, "w", TelemetryMode.DURABLE_ONLY)
        kept = rows(graph, worker.run)
        watch_while(follower, worker, 100)  # a frame may have been under way
        assert watch_while(follower, worker, MANY) == 0
        wait_until(lambda: rows(graph, worker.run) > kept, "rows come")
        figures = next(run_dir_of(graph.settings).glob(f"fastlane-{worker.run}*.json"))
        assert json.loads(figures.read_text())["telemetry_mode"] == "durable_only"
        wait_until(lambda: graph.child("proxy-w").statistics["telemetry_mode"] == "durable_only", "the proxy says so")
        counts = worker.counts()
        follower.close()
    run = worker.run
    wait_until(lambda: (run, "finished") in graph.sql("SELECT run, state FROM runs"), "all is stored")
    drops = [row[1:] for row in graph.sql("SELECT run, kind, reason, records FROM drops") if row[0] == run]
    told: dict[str, int] = {}
    for kind, reason, records in drops:
        assert reason == "fast_lane_only"
        told[kind] = told.get(kind, 0) + records
    assert told == counts["dropped"]
    [facts] = [facts for of, facts in graph.sql("SELECT run, facts FROM runs") if of == run]
    steps = json.loads(facts)["env_steps"]
    assert rows(graph, worker.run) + told["step"] == steps >= counts["steps"]
    assert rows(graph, worker.run, "episodes") + told["episode"] == -(-steps // 50)


def test_a_worker_of_runlane_run_is_killed_or_stopped_and_one_of_the_graph_not_started_again(
    graph: GraphUnderTest,
) -> None:
    """SIGKILL ends in `killed`, SIGINT in `stopped`; a declared worker ends however permanent it is."""
    script = graph.directory / "stepping.py"
    script.write_text(STEPPING)
    twice = f"{sys.executable} {script}; {sys.executable} {script}"  # one after the other has ended
    command = [sys.executable, "-m", "runlane", "run", *graph.options, "--name", "asked", "--", "sh", "-c", twice]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: streams(graph, "declared") and streams(graph, "worker"), "both record")
        [line] = end_workers(graph.settings, "asked", "", is_now=True)
        assert "SIGKILL to " in line
        [(run,)] = graph.sql("SELECT DISTINCT run FROM streams WHERE worker = 'declared'")
        done = graph.client.stop_worker(run, "declared")
        assert (done.signal, len(done.pids)) == ("SIGINT", 1)
        wait_until(lambda: streams(graph, "worker") == ["killed", "running"], "the next one records")
        [line] = end_workers(graph.settings, "asked", "worker", is_now=False)
        assert "SIGINT to " in line
        assert process.wait(30) == 128 + signal.SIGINT
    wait_until(lambda: streams(graph, "worker") == ["killed", "stopped"], "both states are stored")
    wait_until(lambda: graph.child("declared").state == "ended", "it stays ended")
    assert graph.child("declared").restarts == 0
    wait_until(lambda: streams(graph, "declared") == ["stopped"], "its state is stored")
    with pytest.raises(GraphError, match="does not run"):
        graph.client.stop_worker(run, "declared")


def streams(graph: GraphUnderTest, worker: str) -> list[str]:
    """States of a worker's streams of which steps are stored, in order."""
    found = graph.sql(
        "SELECT worker, state FROM streams AS s WHERE EXISTS (SELECT 1 FROM steps WHERE stream = s.stream)"
    )
    return [state for of, state in found if of == worker]
