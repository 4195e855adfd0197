"""A loop that ends badly in mid-episode: `ending.py RESULT exception|exit|os_exit|kill|terminate|interrupt|abort`."""

import os
import signal
import sys

import gymnasium as gym
from tally import Tally

path, how = sys.argv[1:3]
tally = Tally()
env = gym.make("CartPole-v1")
env.action_space.seed(1)
env.reset(seed=1)
tally.reset()
is_done = False
while tally.environments["env"]["steps"] < 250 or is_done or tally.environments["env"]["open"][0] < 3:
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    is_done = terminated or truncated
    tally.step(reward, is_done)
    tally.see(observation, reward)
    if is_done:
        env.reset()
        tally.reset()
tally.write(path)
print("about to end by", how, flush=True)
if how == "exception":
    env.step("no action")
elif how == "exit":
    sys.exit(7)
elif how == "os_exit":
    os._exit(3)
else:
    numbers = {"kill": "SIGKILL", "terminate": "SIGTERM", "interrupt": "SIGINT", "abort": "SIGABRT"}
    os.kill(os.getpid(), getattr(signal, numbers[how]))
