"""ViZDoom as a worker: an engine in a C++ process behind a wheel, recorded and shown."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kinds import interpreter_of
from process.engine_rig import SOURCES, EngineRun
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.config import names

pytestmark = pytest.mark.timeout(180)
MODULE = "runlane.workers.vizdoom"
Start = Callable[..., EngineRun]


@pytest.fixture(scope="module")
def interpreter() -> Path:
    """One that has ViZDoom."""
    return interpreter_of("vizdoom", "vizdoom")


@pytest.fixture(scope="module")
def graph(interpreter: Path) -> Iterator[GraphUnderTest]:  # noqa: ARG001  without ViZDoom there is nothing to start
    """One for all: each test has a run of its own."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as directory, GraphUnderTest(Path(directory)) as graph:
        yield graph


@pytest.fixture
def start(graph: GraphUnderTest, interpreter: Path) -> Iterator[Start]:
    """Starts the worker; it is gone at the end."""
    started: list[EngineRun] = []

    def begin(*options: str, **variables: str) -> EngineRun:
        started.append(EngineRun(graph, interpreter, MODULE, *options, **variables))
        return started[-1]

    yield begin
    for run in started:
        run.stop()


def test_every_step_of_the_game_is_a_row(start: Start, tmp_path: Path) -> None:
    """Steps, episodes and returns are those that the worker counted; and unwatched nothing is drawn."""
    report = tmp_path / "report.json"
    run = start("--episodes", "8", **{names.ENV_WORKER_REPORT: str(report)})
    run.end()
    counts = run.counts()
    assert run.stored() == (counts["steps"], counts["return_sum"], 8, counts["return_sum"])
    assert counts == json.loads(report.read_text())
    assert counts["drawn"] == 0
    assert run.state() == "finished"
    assert run.told() == ["FASTLANE_OPENED", "FASTLANE_CLOSED"]
    assert run.sql("SELECT count(DISTINCT name) FROM metrics") == [(2,)]
    ends = run.sql("SELECT sum(terminated), sum(truncated) FROM steps")
    assert sum(ends[0]) == 8


def test_a_viewer_sees_the_screen(start: Start) -> None:
    """320 by 240 in colour, drawn as often as asked for; Ctrl-C ends it in order."""
    run = start("--episodes", "100000")
    follower = run.follower()
    frames = run.frames(follower, 10)
    assert follower.geometry == (320, 240, 3)
    assert len({pixels for _, pixels in frames}) > 3
    assert all(len(set(pixels)) > 20 for _, pixels in frames)
    follower.close()
    wait_until(lambda: run.told()[-1:] == ["FASTLANE_UNWATCHED"], "it is told that nobody watches")
    run.process.send_signal(2)
    assert run.process.wait(30) == 130
    counts = run.counts()
    assert counts["drawn"] >= 10
    assert run.state() == "stopped"
    assert run.stored()[0] == counts["steps"]


def test_a_killed_game_loses_no_step(start: Start) -> None:
    """`kill -9` of the engine's process: what it had returned is stored, and the worker says so in a line."""
    run = start("--episodes", "100000")
    wait_until(run.is_stepping, "it steps")
    [game] = run.children("vizdoom")
    game.kill()
    run.end(code=1)
    assert "the engine has ended" in run.errors
    assert "Traceback" not in run.errors
    assert run.state() == "failed"
    assert run.stored()[0] == run.counts()["steps"] > 0


def test_a_killed_worker_leaves_no_game(start: Start) -> None:
    """`kill -9` of the worker: its engine waits for nobody, and keeps no memory."""
    run = start("--episodes", "100000")
    wait_until(run.is_stepping, "it steps")
    games = run.children("vizdoom")
    instances = {name for name in memory_names() if any(name.endswith(part) for part in games[0].cmdline() if part)}
    assert instances
    run.process.kill()
    run.process.wait()
    wait_until(lambda: all(is_gone(game) for game in games), "its game is gone")
    wait_until(lambda: not instances & memory_names(), "and what that had in shared memory")
    wait_until(lambda: not run.rings(), "its ring is swept")


def is_gone(process: psutil.Process) -> bool:
    """Ended; a zombie of whoever has to reap it now counts."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def memory_names() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("ViZDoom*")}


def test_bad_arguments_are_one_line(interpreter: Path) -> None:
    """Code 2, no traceback."""
    command = [str(interpreter), "-m", MODULE, "--episodes", "many"]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(SOURCES)}
    )
    assert found.returncode == 2
    assert "--episodes" in found.stderr
    assert "Traceback" not in found.stderr
