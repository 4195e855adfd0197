"""A loop that loses patience: it resets in the middle of every third episode, and sometimes twice in a row."""

import sys

import gymnasium as gym
from tally import Tally

tally = Tally()
env = gym.make("CartPole-v1")
env.action_space.seed(3)
for episode in range(30):
    observation, _ = env.reset(seed=episode)
    tally.reset()
    if episode % 5 == 0:
        observation, _ = env.reset()
        tally.reset()
    tally.see(observation)
    patience = 6 if episode % 3 == 0 else 10_000
    is_done = False
    while not is_done and patience:
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        is_done = terminated or truncated
        patience -= 1
        tally.step(reward, is_done)
        tally.see(observation, reward, is_done)
    print("episode", episode, "ended" if is_done else "given up")
# Not closed, and in mid-episode.
env.reset(seed=99)
tally.reset()
for _ in range(4):
    tally.step(env.step(env.action_space.sample())[1], False)
tally.write(sys.argv[1])
