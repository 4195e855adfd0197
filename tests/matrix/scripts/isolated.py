"""A script for `python -I` and `python -S`: it finds its packages by itself, where its second argument says."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), *sys.argv[2:]]

import gymnasium as gym
from tally import Tally

tally = Tally()
env = gym.make("CartPole-v1")
env.action_space.seed(1)
env.reset(seed=1)
tally.reset()
for _ in range(200):
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    tally.step(reward, terminated or truncated)
    tally.see(observation, reward)
    if terminated or truncated:
        env.reset()
        tally.reset()
print("isolated" if sys.flags.isolated else "without site")
env.close()
tally.write(sys.argv[1])
