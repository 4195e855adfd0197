"""os.fork() in mid-episode: parent and child both go on with what was one environment."""

import os
import sys
from pathlib import Path

import gymnasium as gym
from tally import Tally


def go_on(env, tally, name, steps):
    """So many steps, and a new episode after each end."""
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        tally.step(reward, terminated or truncated, name)
        tally.see(observation, reward)
        if terminated or truncated:
            tally.see(env.reset()[0])
            tally.reset(name)


path, how = sys.argv[1:3]  # how the child ends: "exit" or "os_exit"
tally = Tally()
env = gym.make("CartPole-v1")
env.action_space.seed(4)
env.reset(seed=4)
tally.reset("parent")
go_on(env, tally, "parent", 100)
while tally.environments["parent"]["open"][0] < 5:  # in mid-episode
    go_on(env, tally, "parent", 1)
print("forking", flush=True)
child = os.fork()
if child == 0:
    tally = Tally(2)
    go_on(env, tally, "child", 150)
    if how == "os_exit":
        env.close()
    tally.write(path + ".child")
    if how == "os_exit":
        os._exit(5)
    sys.exit(5)
go_on(env, tally, "parent", 120)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
env.close()
tally.merge(path + ".child")
Path(path + ".child").unlink()
tally.write(path)
