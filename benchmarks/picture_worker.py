"""An agent that plays a real environment by a simple rule, for the pictures of the documentation and for long runs.

python benchmarks/picture_worker.py breakout --steps 100000 --rate 60
"""

import argparse
import importlib
import time
from collections.abc import Callable
from typing import Any

import gymnasium

from runlane.workers import wrap

Policy = Callable[[Any, Any], Any]  # environment, observation -> action


def play_breakout(env: Any, _observation: Any) -> int:
    """Follow the ball: its column and the paddle's lie in the console's memory. Serve whenever there is no ball."""
    ram = env.unwrapped.ale.getRAM()
    ball, paddle = int(ram[99]), int(ram[72])
    if int(ram[101]) == 0:  # no ball in play
        return 1
    return 2 if ball > paddle + 10 else 3 if ball < paddle + 4 else 0


def play_pong(env: Any, _observation: Any) -> int:
    """Follow the ball's row."""
    ram = env.unwrapped.ale.getRAM()
    ball, paddle = int(ram[54]), int(ram[51])
    return 3 if ball > paddle + 8 else 2 if ball < paddle - 2 else 0


def play_lander(env: Any, observation: Any) -> Any:
    """Gymnasium's own hand-written pilot."""
    pilot: Any = importlib.import_module("gymnasium.envs.box2d.lunar_lander")
    return pilot.heuristic(env.unwrapped, observation)


def play_at_random(env: Any, _observation: Any) -> Any:
    """Anything."""
    return env.action_space.sample()


GAMES: dict[str, tuple[str, str, Policy]] = {
    "breakout": ("ALE/Breakout-v5", "rule", play_breakout),
    "pong": ("ALE/Pong-v5", "rule", play_pong),
    "lander": ("LunarLander-v3", "pilot", play_lander),
    "fourrooms": ("MiniGrid-FourRooms-v0", "random", play_at_random),
    "doorkey": ("MiniGrid-DoorKey-6x6-v0", "random", play_at_random),
}


def main() -> None:
    """Play until so many steps are made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("game", choices=sorted(GAMES))
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=0.0, help="steps per second, at most; 0: as fast as it goes")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    env_id, algo, policy = GAMES[chosen.game]
    if env_id.startswith("ALE/"):
        gymnasium.register_envs(importlib.import_module("ale_py"))
    elif env_id.startswith("MiniGrid"):
        importlib.import_module("minigrid")  # registers its environments
    config = {"env_id": env_id, "algo": algo, "seed": chosen.seed, "total_timesteps": chosen.steps}
    env = wrap(gymnasium.make(env_id, render_mode="rgb_array"), config=config)
    env.action_space.seed(chosen.seed)
    observation, _ = env.reset(seed=chosen.seed)
    next_s = time.monotonic()
    for _ in range(chosen.steps):
        observation, _, terminated, truncated, _ = env.step(policy(env, observation))
        if terminated or truncated:
            observation, _ = env.reset()
        if chosen.rate:
            next_s = max(next_s + 1 / chosen.rate, time.monotonic() - 0.1)
            time.sleep(max(0.0, next_s - time.monotonic()))
    env.close()


if __name__ == "__main__":
    main()
