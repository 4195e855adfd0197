"""The loop of Gymnasium's front page: `plain_loop.py RESULT HOW`.

HOW: `make`; `constructed`, a class and wrappers put on by hand; `continuous`; `unknown`, a class of its own.
"""

import random
import sys

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from tally import Tally

result, how = sys.argv[1:3]
tally = Tally()

if how == "constructed":
    env = RecordEpisodeStatistics(TimeLimit(CartPoleEnv(), max_episode_steps=30))
elif how == "continuous":
    env = gym.make("Pendulum-v1", max_episode_steps=90)
elif how == "unknown":  # no spec, no class that a registry knows

    class Corridor(gym.Env):
        """Walk right eight times."""

        observation_space = gym.spaces.Discrete(9)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed, options=options)
            self.place = 0
            return self.place, {}

        def step(self, action):
            self.place = max(0, self.place + (1 if action else -1))
            return self.place, float(self.np_random.normal()), self.place == 8, False, {"place": self.place}

    env = Corridor()
else:
    env = gym.make("CartPole-v1")

env.action_space.seed(13)
observation, info = env.reset(seed=14)
tally.reset()
tally.see(observation, info)
for number in range(600):
    action = env.action_space.sample()
    observation, reward, terminated, truncated, info = env.step(action)
    tally.step(reward, terminated or truncated)
    tally.see(action, observation, reward, terminated, truncated, info)
    if number % 100 == 99:
        print(f"step {number + 1}: reward {reward}", flush=number % 200 == 199)
    if terminated or truncated:
        observation, info = env.reset()
        tally.reset()
        tally.see(observation, info)
env.close()
tally.write(result)
print("done", random.random(), np.random.random())
