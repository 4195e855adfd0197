"""A worker whose environment draws its own step count, and counts how often it is asked to.

Steps as fast as it can; each line on its standard input is answered with its counts as one line of JSON, `end` ends it.
The argument is the number of environments; 0 is a scalar one.
"""

import json
import select
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv

from runlane.workers import wrap

SIZE = (48, 64, 3)
EPISODE = 50
LOOK_EVERY = 20


class DrawnEnv(gymnasium.Env[Any, Any]):
    """Episodes of 50 steps with reward 1. The first four bytes of a frame are the steps made, the fifth is `mark`."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  as Gymnasium has it
    render_mode = "rgb_array"

    def __init__(self, mark: int = 0) -> None:
        self.observation_space = gymnasium.spaces.Discrete(2)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.mark, self.steps, self.in_episode, self.renders = mark, 0, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.in_episode = 0
        return 0, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        self.steps += 1
        self.in_episode += 1
        return 0, 1.0, self.in_episode == EPISODE, False, {}

    def render(self) -> Any:
        self.renders += 1
        frame = np.zeros(SIZE, np.uint8)
        frame.reshape(-1)[:4] = np.frombuffer(self.steps.to_bytes(4, "little"), np.uint8)
        frame.reshape(-1)[4] = self.mark
        return frame


def main(count: int) -> None:
    """Step until told to end."""
    envs = [DrawnEnv(mark) for mark in range(max(1, count))]
    env = wrap(envs[0] if not count else SyncVectorEnv([lambda each=each: each for each in envs]), name="drawn")  # type: ignore[misc]
    env.reset()
    action = np.zeros(count, int) if count else 0
    steps = 0
    while True:
        *_, terminated, truncated, _ = env.step(action)
        steps += 1
        if not count and (terminated or truncated):
            env.reset()
        if steps % LOOK_EVERY == 0 and select.select([sys.stdin], [], [], 0)[0]:
            order = sys.stdin.readline().strip()
            if order == "end" or not order:
                break
            renders = sum(each.renders for each in envs)
            told = {"dropped": env.session.dropped, "env_steps": env.session.env_steps}
            print(json.dumps({"steps": steps, "renders": renders, "t_s": time.monotonic(), **told}), flush=True)
    env.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
