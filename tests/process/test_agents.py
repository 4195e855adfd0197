"""Environments of several agents below a real graph: unedited under `runlane run`, wrapped by hand, and watched."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kinds
import pytest
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.transport.endpoint import run_dir_of
from runlane.transport.lane_follower import LaneFollower

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("agent_games.py")


def _python() -> str:
    return str(kinds.interpreter_of("pettingzoo", "pettingzoo", "pygame"))


def _environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "SDL_VIDEODRIVER": "dummy", **variables}


def _episodes(graph: GraphUnderTest, base: str) -> dict[str, list[list[Any]]]:
    """Episodes of each agent in order; each stream's own steps add up to them."""
    found: dict[str, list[list[Any]]] = {}
    rows = graph.sql("SELECT worker, episode_return, length, outcome FROM episodes ORDER BY worker, seq")
    for worker, total, length, outcome in rows:
        assert worker.startswith(f"{base}-")
        found.setdefault(worker.removeprefix(f"{base}-"), []).append([total, length, outcome])
    steps = {
        worker.removeprefix(f"{base}-"): row
        for worker, *row in graph.sql("SELECT worker, count(*), sum(reward) FROM steps GROUP BY worker")
    }
    for agent, episodes in found.items():
        assert steps[agent] == [sum(length for _, length, _ in episodes), sum(total for total, _, _ in episodes)]
    return found


@pytest.mark.parametrize("game", ["tictactoe", "parallel rps"])
def test_an_unedited_game_is_in_the_database_as_it_counts_itself(short_dir: Path, game: str) -> None:
    """Every agent a worker of one run; what the script prints, and its exit code, are what they are without us."""
    command = [_python(), str(SCRIPT), game]
    bare = subprocess.run(
        command, env=_environment(RUNLANE_DISABLED="1"), capture_output=True, text=True, timeout=90, check=True
    )
    with GraphUnderTest(short_dir) as graph:
        done = subprocess.run(
            [sys.executable, "-m", "runlane", "run", *graph.options, "--worker", "games", "--", *command],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, bare.stdout), done.stderr
        assert _episodes(graph, "games") == json.loads(bare.stdout.splitlines()[-1])["episodes"]
        assert graph.sql(
            "SELECT count(DISTINCT run), count(*), min(state), max(state) FROM streams WHERE worker LIKE 'games-%'"
        ) == [(1, 2, "finished", "finished")]


WATCHED = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from agent_games import Crowd
from runlane.workers import wrap
env = wrap(Crowd(render_mode="rgb_array"), worker="crowd")
print("made", flush=True)
while True:
    env.reset(seed=1)
    while env.agents:
        env.step({agent: 1 for agent in env.agents})
    if env.unwrapped.renders >= 20:
        break
assert env.session.info.worker == "crowd-a"
print(json.dumps([env.unwrapped.renders, env.unwrapped.steps]), flush=True)
env.close()
"""


def test_the_first_agent_shows_them_all_and_only_while_somebody_looks(short_dir: Path) -> None:
    """One ring, one `render()` for a frame that is due, none for others; by itself it finds its graph."""
    with GraphUnderTest(short_dir) as graph:
        process = subprocess.Popen(
            [_python(), "-c", WATCHED, str(SCRIPT.parent)],
            env=_environment(RUNLANE_CONFIG=str(graph.config)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        seen: list[str] = []
        follower = LaneFollower(run_dir_of(graph.settings), rate_hz=30.0)
        try:
            wait_until(lambda: _watch(follower, seen) or process.poll() is not None, "it has drawn enough", 90)
        finally:
            follower.close()
            if sys.exc_info()[0] is not None:
                process.kill()
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        renders, steps = json.loads(out.splitlines()[-1])
        assert 20 <= renders < steps / 10
        assert set(seen) == {"crowd-a"}
        runs = graph.sql("SELECT count(DISTINCT run), count(*) FROM streams")
        assert runs == [(1, 4)]


def _watch(follower: LaneFollower, seen: list[str]) -> bool:
    follower.poll(time.monotonic_ns())
    if follower.read() is not None and follower.info is not None:
        seen.append(follower.info.worker)
    return False
