"""A new environment for every episode, closed after it; some are made and closed unused."""

import sys

import gymnasium as gym
from tally import Tally

tally = Tally()
for episode in range(12):
    env = gym.make("CartPole-v1")
    if episode % 4 == 3:
        env.close()
        continue
    env.action_space.seed(episode)
    env.reset(seed=episode)
    tally.reset(episode)
    is_done = False
    while not is_done:
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        is_done = terminated or truncated
        tally.step(reward, is_done, episode)
        tally.see(observation, reward)
    env.close()
    env.close()
    print("episode", episode)
tally.write(sys.argv[1])
