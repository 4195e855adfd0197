"""A loop slow enough to be watched, which draws random numbers all the time."""

import sys
import time

import gymnasium as gym
import numpy as np
from tally import Tally

tally = Tally()
env = gym.make("CartPole-v1")
env.action_space.seed(1)
env.reset(seed=1)
tally.reset()
for number in range(800):
    action = int(np.random.random() < 0.5)
    observation, reward, terminated, truncated, _ = env.step(action)
    tally.step(reward, terminated or truncated)
    tally.see(action, observation, reward)
    if terminated or truncated:
        env.reset()
        tally.reset()
    if number % 4 == 0:
        time.sleep(0.01)  # as long as a slow environment takes
env.close()
print("mean", sum(episode[1] for episode in tally.environments["env"]["ended"]))
tally.write(sys.argv[1])
