"""Environments of several agents: each is recorded as the script itself counts, and nothing else changes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import kinds
import pytest
from unit.workers.session_rig import SessionRig

from runlane.config import names
from runlane.config.settings import check_name
from runlane.transport.endpoint import data_dir_of
from runlane.transport.records import EpisodeRecord, RunRecord
from runlane.workers.agent_recorder import worker_of

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests/process/agent_games.py"
GAMES = ("tictactoe", "rps", "relay", "relay left", "parallel rps", "crowd", "crowd in turns", "copies")

HOOK = """
from runlane.workers.zero_edit import arm
arm()
"""
HOOKED = (
    HOOK
    + """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
)


class Player:
    """Runs the games in the interpreter that has PettingZoo, with the rig's receiver as their proxy."""

    def __init__(self, rig: SessionRig) -> None:
        self.rig = rig
        self.python = kinds.interpreter_of("pettingzoo", "pettingzoo", "pygame")
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "SDL_VIDEODRIVER": "dummy"}

    def run(self, *command: str, is_recorded: bool = True, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = dict(self.environment)
        if is_recorded:
            environment |= {
                f"{names.ENV_PREFIX}DATA_DIR": str(data_dir_of(self.rig.settings)),
                names.ENV_PROXY: self.rig.endpoint,
                names.ENV_RUN: "01aryz6s410000000000000000",
                names.ENV_WORKER_NAME: "games",
            }
        else:
            environment["RUNLANE_DISABLED"] = "1"
        environment |= variables
        done = subprocess.run(
            [str(self.python), *command], env=environment, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "WORKER_FAULT" not in done.stderr
        return done

    def play(self, game: str, how: str, **options: Any) -> dict[str, Any]:
        """What the script says at its end."""
        found: dict[str, Any] = json.loads(self.run(str(SCRIPT), game, how, **options).stdout.splitlines()[-1])
        return found

    def recorded(self) -> dict[str, list[list[Any]]]:
        """Episodes by agent, as the journals hold them; each stream's steps are checked against them."""
        found: dict[str, list[list[Any]]] = {}
        for stream in self.rig.streams():
            worker = self.rig.info(stream).worker
            assert worker.startswith("games-"), worker
            ended = self.rig.records(EpisodeRecord, stream)
            steps = self.rig.steps(stream)
            assert len(steps) == sum(record.length for record in ended)
            (end,) = [record.facts for record in self.rig.records(RunRecord, stream) if record.state != "running"]
            assert (end["env_steps"], end["faults"]) == (len(steps), 0)
            told = [[record.episode_return, record.length, record.outcome] for record in ended]
            if told:
                found.setdefault(worker.removeprefix("games-"), []).extend(told)
        return found


@pytest.fixture
def player(rig: SessionRig) -> Player:
    """Nothing is recorded yet."""
    return Player(rig)


def _counted(told: dict[str, Any]) -> dict[str, list[list[Any]]]:
    return {agent.replace(" ", "-"): episodes for agent, episodes in told["episodes"].items()}


@pytest.mark.parametrize("game", GAMES)
def test_a_wrapped_environment_is_recorded_as_the_script_counts_it(player: Player, game: str) -> None:
    """Every agent a stream; every episode with the return, length and end that the script itself came to."""
    told = player.play(game, "wrap")
    assert player.recorded() == _counted(told)
    assert told == player.play(game, "", is_recorded=False), "the script sees another world"


@pytest.mark.parametrize("game", GAMES)
def test_a_script_that_nobody_edited_is_recorded_as_it_counts(player: Player, game: str) -> None:
    """With the hook as `runlane run` puts it in: the same rows, and what the script sees and prints is the same."""
    done = player.run("-c", HOOKED, str(SCRIPT), game)
    told = json.loads(done.stdout.splitlines()[-1])
    assert player.recorded() == _counted(told)
    assert done.stdout == player.run(str(SCRIPT), game, is_recorded=False).stdout


def test_a_wrapped_environment_is_not_hooked_a_second_time(player: Player) -> None:
    """Each step once, whatever hooks are there."""
    told = json.loads(player.run("-c", HOOKED, str(SCRIPT), "tictactoe", "wrap").stdout.splitlines()[-1])
    assert player.recorded() == _counted(told)


MANY = """
import gc, json, pickle
from pettingzoo.classic.tictactoe.tictactoe import env as tictactoe
def play(env):
    env.reset(seed=1)
    for agent in env.agent_iter():
        observation, _, terminated, truncated, _ = env.last()
        env.step(None if terminated or truncated else int(observation["action_mask"].nonzero()[0][0]))
for number in range(6):
    env = tictactoe()
    play(env)
    if number % 2:
        env.close()
    del env
gc.collect()
one, two = tictactoe(), tictactoe()
play(one), play(two)
copied = pickle.loads(pickle.dumps(two.unwrapped))
print(one, one.render_mode, type(copied) is type(two.unwrapped))
"""


def test_environments_one_after_another_share_their_streams(player: Player) -> None:
    """Closed or dropped, the next one goes on in them; two at once have a slot each. They are what they were."""
    done = player.run("-c", HOOK + MANY)
    assert done.stdout.splitlines()[-1] == "tictactoe_v3 None True"
    workers = {player.rig.info(stream).worker: stream for stream in player.rig.streams()}
    assert sorted(workers) == ["games-1-player_1", "games-1-player_2", "games-player_1", "games-player_2"]
    counts = {worker: len(player.rig.records(EpisodeRecord, stream)) for worker, stream in workers.items()}
    assert counts == {"games-player_1": 7, "games-player_2": 7, "games-1-player_1": 1, "games-1-player_2": 1}


def test_what_no_proxy_is_there_for_plays_on(player: Player) -> None:
    """A game whose steps nobody can record is played to its end."""
    nowhere = "ipc:///nowhere/at-all"
    done = player.run("-c", HOOKED, str(SCRIPT), "crowd", RUNLANE_PROXY=nowhere, RUNLANE_SESSION__CLOSE_S="0.1")
    assert json.loads(done.stdout.splitlines()[-1]) == player.play("crowd", "", is_recorded=False)


def test_worker_names_are_plain_short_and_each_its_own() -> None:
    """Whatever an agent is called, and however many are called alike."""
    taken: set[str] = set()
    for agent in ("player_1", 0, ("team", 1), "ä" * 40, "x" * 40, "y" * 40 + "x" * 40, "", "x" * 40):
        name = worker_of("a-base-of-twenty-four-ch", agent, taken)
        check_name(name, "worker")
        assert name not in taken
        taken.add(name)
    assert worker_of("train", "player_1", set()) == "train-player_1"
