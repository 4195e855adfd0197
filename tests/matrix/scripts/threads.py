"""Threads with an environment each."""

import sys
import threading

import gymnasium as gym
from tally import Tally

THREADS = 4
tallies = [Tally() for _ in range(THREADS)]


def rollout(index):
    """One thread's work."""
    tally = tallies[index]
    env = gym.make("CartPole-v1")
    env.action_space.seed(index)
    env.reset(seed=index)
    tally.reset(index)
    for _ in range(200 + index):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        tally.step(reward, terminated or truncated, index)
        tally.see(observation, reward)
        if terminated or truncated:
            env.reset()
            tally.reset(index)
    env.close()


threads = [threading.Thread(target=rollout, args=(index,)) for index in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
whole = tallies[0]
for other in tallies[1:]:
    whole.environments |= other.environments
    whole.see(other._hash.hexdigest())
print("threads", [counts["steps"] for counts in whole.environments.values()])
whole.write(sys.argv[1])
