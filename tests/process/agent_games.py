"""Games of several agents, played by a script that counts by itself: `agent_games.py GAME [wrap]`.

At its end it prints one line of JSON: the episodes that each agent ended or gave up, [return, length, outcome], and a
digest of all it was given. With `wrap` it wraps its environment by hand; else it knows nothing of anybody who records.
"""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# It runs in an interpreter of its own, where PettingZoo is.

import copy
import hashlib
import json
import pickle  # noqa: TID251  what a planner does, not we
import sys
import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from gymnasium.spaces import Discrete
    from pettingzoo import AECEnv, ParallelEnv
    from pettingzoo.classic.rps.rps import env as rps
    from pettingzoo.classic.rps.rps import parallel_env as parallel_rps
    from pettingzoo.classic.tictactoe.tictactoe import env as tictactoe
    from pettingzoo.utils.conversions import parallel_to_aec


class Crowd(ParallelEnv):
    """Agents leave one by one, one comes later, one is rewarded before it can act, and the last one is cut off.

    Who has left is told of once more, with a reward nobody should count.
    """

    metadata = {"name": "crowd", "render_modes": ["rgb_array"]}  # noqa: RUF012
    possible_agents = ["a", "b", "late one", "c"]  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.renders = self.steps = 0

    def observation_space(self, agent: Any) -> Any:  # noqa: ARG002
        return Discrete(100)

    def action_space(self, agent: Any) -> Any:  # noqa: ARG002
        return Discrete(5)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:  # noqa: ARG002
        self.agents, self.now = ["a", "b", "c"], 0
        self.rng = np.random.default_rng(seed)
        return dict.fromkeys(self.agents, 0), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self.now += 1
        self.steps += 1
        told = list(self.agents)
        if self.now == 3:
            self.agents.append("late one")  # rewarded now, and able to act from the next step on
            told.append("late one")
        rewards = {agent: float(self.rng.integers(5)) + actions.get(agent, 0) / 4 for agent in told}
        terminations = {
            agent: (agent == "b" and self.now >= 2) or (agent == "late one" and self.now >= 6) for agent in told
        }
        truncations = dict.fromkeys(told, self.now >= 9)
        self.agents = [agent for agent in told if not (terminations[agent] or truncations[agent])]
        if self.now == 4:
            rewards["b"], terminations["b"], truncations["b"] = 1000.0, True, False
            told.append("b")
        return dict.fromkeys(told, self.now), rewards, terminations, truncations, {agent: {} for agent in told}

    def render(self) -> Any:
        self.renders += 1
        return np.full((8, 8, 3), self.steps % 256, np.uint8)


class Relay(AECEnv):
    """In turns. The second is paid before it ever acts; the third is dead when its first turn comes."""

    metadata = {"name": "relay"}  # noqa: RUF012
    possible_agents = [0, 1, 2]  # noqa: RUF012
    render_mode = None

    def observe(self, agent: Any) -> Any:
        return agent

    def observation_space(self, agent: Any) -> Any:  # noqa: ARG002
        return Discrete(3)

    def action_space(self, agent: Any) -> Any:  # noqa: ARG002
        return Discrete(5)

    def reset(self, seed: int | None = None, options: Any = None) -> None:  # noqa: ARG002
        self.agents = [0, 1, 2]
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = {0: 0.25, 1: 0, 2: 0}
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection, self.moves = 0, 0

    def step(self, action: Any) -> None:
        if self.terminations[self.agent_selection] or self.truncations[self.agent_selection]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[self.agent_selection] = 0
        self.moves += 1
        self.rewards = {agent: (agent + 1) * action for agent in self.agents}
        self._accumulate_rewards()
        if self.moves == 1:
            self.terminations[2] = True
        if self.moves == 8:
            self.truncations = dict.fromkeys(self.agents, True)
        order = [0, 1]
        self.agent_selection = order[(order.index(self.agent_selection) + 1) % 2]
        if 2 in self.agents and self.moves == 2:
            self._deads_step_first()


class Counts:
    """What the script counts: running returns and lengths, ended episodes, and a digest of what it saw."""

    def __init__(self) -> None:
        self.episodes: dict[str, list[list[Any]]] = {}
        self.running: dict[Any, list[Any]] = {}
        self.seen = hashlib.sha256()

    def reward(self, agent: Any, reward: float) -> None:
        self.running.setdefault(agent, [0.0, 0])[0] += float(reward)

    def act(self, agent: Any) -> None:
        self.running.setdefault(agent, [0.0, 0])[1] += 1

    def end(self, agent: Any, outcome: str) -> None:
        self.episodes.setdefault(str(agent), []).append([*self.running.pop(agent), outcome])

    def look(self, *values: Any) -> None:
        self.seen.update(repr([np.asarray(value).tolist() for value in values]).encode())


def play_turns(env: Any, counts: Counts, games: int, cut_at: int = 0, break_off: bool = False) -> None:
    """Random legal moves; one game is given up after `cut_at` moves, or each once an agent is told of its end."""
    rng = np.random.default_rng(5)
    for game in range(games):
        env.reset(seed=game)
        for move, agent in enumerate(env.agent_iter()):
            observation, reward, terminated, truncated, _ = env.last()
            counts.reward(agent, reward)
            is_map = isinstance(observation, dict)
            counts.look(observation["observation"] if is_map else observation, reward, terminated, truncated)
            if terminated or truncated:
                counts.end(agent, "terminated" if terminated else "truncated")
                if break_off:
                    break
                env.step(None)
                continue
            if game == 1 and cut_at == move + 1:
                break
            legal = np.flatnonzero(observation["action_mask"]) if is_map else np.arange(3)
            counts.act(agent)
            env.step(int(rng.choice(legal)))
        for agent in [agent for agent, (_, length) in counts.running.items() if length]:
            counts.end(agent, "abandoned")
        counts.running.clear()


def play_parallel(env: Any, counts: Counts, games: int, cut_at: int = 0) -> None:
    """Random moves of all that are there; one game is given up."""
    rng = np.random.default_rng(5)
    for game in range(games):
        env.reset(seed=game)
        dead: set[Any] = set()
        move = 0
        while env.agents:
            move += 1
            if game == 1 and move == cut_at:
                break
            actions = {agent: int(rng.integers(3)) for agent in env.agents}
            observations, rewards, terminations, truncations, _ = env.step(actions)
            counts.look(*observations.values(), *rewards.values())
            for agent in actions:
                counts.act(agent)
            for agent, reward in rewards.items():
                if agent in dead:
                    continue
                counts.reward(agent, reward)
                if terminations[agent] or truncations[agent]:
                    counts.end(agent, "terminated" if terminations[agent] else "truncated")
                    dead.add(agent)
        for agent in [agent for agent, (_, length) in counts.running.items() if length]:
            counts.end(agent, "abandoned")
        counts.running.clear()


def play_copies(env: Any, counts: Counts) -> None:
    """A planner's copies, made in mid-episode and by pickle, are stepped beside the real environment."""
    rng = np.random.default_rng(5)
    env.reset(seed=1)
    for move in range(8):
        for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):  # noqa: S301
            for _ in range(3):
                other.step(dict.fromkeys(other.agents, 1))
        actions = {agent: int(rng.integers(3)) for agent in env.agents}
        _, rewards, terminations, truncations, _ = env.step(actions)
        for agent in actions:
            counts.act(agent)
        for agent, reward in rewards.items():
            if move == 3 and agent == "b":
                continue
            counts.reward(agent, reward)
            if terminations[agent] or truncations[agent]:
                counts.end(agent, "terminated" if terminations[agent] else "truncated")
    for agent in list(counts.running):
        counts.end(agent, "abandoned")


GAMES: dict[str, Any] = {
    "tictactoe": (tictactoe, lambda env, counts: play_turns(env, counts, 6, cut_at=4)),
    "rps": (lambda: rps(max_cycles=7), lambda env, counts: play_turns(env, counts, 4, cut_at=6)),
    "relay": (Relay, lambda env, counts: play_turns(env, counts, 3)),
    "relay left": (Relay, lambda env, counts: play_turns(env, counts, 1, break_off=True)),
    "parallel rps": (lambda: parallel_rps(max_cycles=7), lambda env, counts: play_parallel(env, counts, 4, cut_at=4)),
    "crowd": (Crowd, lambda env, counts: play_parallel(env, counts, 4, cut_at=5)),
    "crowd in turns": (
        lambda: parallel_to_aec(parallel_rps(max_cycles=5)),
        lambda env, counts: play_turns(env, counts, 3),
    ),
    "copies": (Crowd, play_copies),
}


def main(game: str, how: str) -> None:
    """Play, close, and tell."""
    warnings.simplefilter("ignore")
    make, play = GAMES[game]
    env = make()
    if how == "wrap":
        from runlane.workers import wrap

        env = wrap(env)
    counts = Counts()
    play(env, counts)
    if "left" not in game:
        env.close()
    print(json.dumps({"episodes": counts.episodes, "seen": counts.seen.hexdigest(), "is": str(env)}))


if __name__ == "__main__":
    main(sys.argv[1], (sys.argv[2:] or [""])[0])
