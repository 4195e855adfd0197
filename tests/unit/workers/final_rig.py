"""Environments whose every observation is one of a kind, and scripts that note what they saw, in every autoreset mode.

Imported by tests, and started as the worker of process tests: `python final_rig.py MODE WAY REPORT` drives one through
`wrap()` and writes what it saw as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

ENVS = 3
STEPS = 61
SCALAR = "SCALAR"
# Observations of each episode: by environment and number of the episode, from the first to the final one.
Seen = dict[tuple[int, int], list[list[float]]]


class Numbered(gymnasium.Env[Any, Any]):
    """Observes (its index, episode, step). Episodes end after 2, 3, 4, 2, … steps, by turns in either way."""

    observation_space = gymnasium.spaces.Box(0, 1e6, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, index: int) -> None:
        self._index, self._episode, self._step = index, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._episode, self._step = self._episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        del action  # any will do
        self._step += 1
        is_end = self._step == 2 + (self._episode + self._index) % 3
        is_odd = bool(self._episode % 2)
        return self._observation(), 1.0, is_end and is_odd, is_end and not is_odd, {"lives": self._step}

    def _observation(self) -> Any:
        return np.array([self._index, self._episode, self._step], np.float32)


def make_vector(mode: AutoresetMode) -> Any:
    """Some of them, out of step with each other."""

    def maker(index: int) -> Any:
        return lambda: Numbered(index)

    return SyncVectorEnv([maker(index) for index in range(ENVS)], autoreset_mode=mode)


class Script:
    """Steps an environment and notes what it sees, knowing nothing of who else looks."""

    def __init__(self) -> None:
        self.seen: Seen = {}
        self._episode: dict[int, int] = {}

    def _begin(self, index: int, observation: Any) -> None:
        """An episode's first observation. One that had no step is none."""
        if len(self.seen.get((index, self._episode.get(index, 0)), [])) == 1:
            self._episode[index] -= 1
        self._episode[index] = self._episode.get(index, 0) + 1
        self.seen[index, self._episode[index]] = [observation.tolist()]

    def _note(self, index: int, observation: Any) -> None:
        self.seen[index, self._episode[index]].append(observation.tolist())

    def whole(self) -> Seen:
        """Episodes that had a step."""
        return {key: found for key, found in self.seen.items() if len(found) > 1}

    def drive(self, env: Any) -> None:
        """A scalar environment: resets at ends, one in the middle, and an episode left open."""
        self._begin(0, env.reset(seed=1)[0])
        for number in range(STEPS):
            observation, _, terminated, truncated, _ = env.step(number % 2)
            self._note(0, observation)
            if terminated or truncated or number == 30:
                self._begin(0, env.reset()[0])

    def drive_vector(self, env: Any, mode: AutoresetMode) -> None:
        """A vector environment: resets as the mode has them, all of them by hand once, and episodes left open."""
        self._begin_all(env.reset(seed=1)[0], range(ENVS))
        has_ended = np.zeros(ENVS, bool)
        for number in range(STEPS):
            observations, _, terminated, truncated, infos = env.step(np.arange(ENVS) % 2)
            ended = terminated | truncated
            for index in range(ENVS):
                if mode is AutoresetMode.NEXT_STEP and has_ended[index]:
                    self._begin(index, observations[index])
                elif mode is AutoresetMode.SAME_STEP and ended[index]:
                    self._note(index, infos["final_obs"][index])
                    self._begin(index, observations[index])
                else:
                    self._note(index, observations[index])
            has_ended = ended
            if number == STEPS // 2:
                self._begin_all(env.reset()[0], range(ENVS))
                has_ended[:] = False
            elif mode is AutoresetMode.DISABLED and ended.any():
                mask = ended | (number == 40)  # some are given up as well
                observations, _ = env.reset(options={"reset_mask": mask})
                self._begin_all(observations, np.flatnonzero(mask))

    def _begin_all(self, observations: Any, indices: Any) -> None:
        for index in indices:
            self._begin(int(index), observations[index])


def main() -> None:
    """One worker: what it saw goes into the report, and the session is closed in the way that is asked for."""
    from runlane.workers import wrap

    mode, way, report = sys.argv[1:]
    script = Script()
    options = {"with_observations": True, "per_env_rows": way == "per_env"}
    if mode == SCALAR:
        env = wrap(Numbered(0), **options)
        script.drive(env)
    else:
        env = wrap(make_vector(AutoresetMode[mode]), **options)
        script.drive_vector(env, AutoresetMode[mode])
    found = [[*key, observations] for key, observations in script.whole().items()]
    Path(report).write_text(json.dumps(found), "utf-8")
    if way == "closed":
        env.close()


if __name__ == "__main__":
    main()
