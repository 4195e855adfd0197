"""Gymnasium's Autoreset wrapper: a loop without a reset. The step after an episode's end resets, and is no step."""

import sys

import gymnasium as gym
from tally import Tally

tally = Tally()
env = gym.wrappers.Autoreset(gym.make("CartPole-v1"))
env.action_space.seed(1)
env.reset(seed=1)
tally.reset()
was_done = False
for _ in range(400):
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    tally.see(observation, reward, terminated, truncated, info)
    if not was_done:
        tally.step(reward, terminated or truncated)
    was_done = terminated or truncated
print("episodes", len(tally.environments["env"]["ended"]))
env.close()
tally.write(sys.argv[1])
