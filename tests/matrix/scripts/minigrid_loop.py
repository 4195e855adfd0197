"""MiniGrid: observations are dictionaries, or flat after a wrapper."""

import sys

import gymnasium as gym
from minigrid.wrappers import FlatObsWrapper
from tally import Tally

path, how = sys.argv[1:3]
tally = Tally()
env = gym.make("MiniGrid-Empty-5x5-v0", max_steps=40)
if how == "flat":
    env = FlatObsWrapper(env)
env.action_space.seed(5)
observation, _ = env.reset(seed=5)
tally.reset()
for _ in range(300):
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    tally.step(reward, terminated or truncated)
    tally.see(observation, reward)
    if terminated or truncated:
        observation, _ = env.reset()
        tally.reset()
print("returns", [episode[1] for episode in tally.environments["env"]["ended"]])
env.close()
tally.write(path)
