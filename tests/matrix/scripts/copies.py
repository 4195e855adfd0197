"""Environments that are copied deeply and pickled in mid-episode; each copy goes its own way.

Before a copy's own first reset its steps are counted apart: they are of an episode that is another's.
"""

import copy
import pickle  # noqa: TID251
import sys

import gymnasium as gym
from tally import Tally

tally = Tally()


def go_on(env, name, steps):
    """So many steps, and a new episode after each end."""
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        tally.step(reward, terminated or truncated, name)
        tally.see(observation, reward)
        if terminated or truncated:
            tally.see(env.reset()[0])
            name = name.partition(" before")[0]
            tally.reset(name)
    return name


unused = gym.make("CartPole-v1")  # never reset
blank = pickle.loads(pickle.dumps(unused))
env = gym.make("CartPole-v1")
env.action_space.seed(4)
env.reset(seed=4)
tally.reset("first")
go_on(env, "first", 103)
copied = copy.deepcopy(env)
pickled = pickle.dumps(env)
print(len(pickled) > 100, type(copied).__name__)
go_on(env, "first", 40)
go_on(copied, "copied before its reset", 50)
restored = pickle.loads(pickled)
go_on(restored, "restored before its reset", 60)
again = copy.deepcopy(copied)
again.reset(seed=5)
tally.reset("again")
go_on(again, "again", 30)
blank.action_space.seed(1)
blank.reset(seed=5)
tally.reset("blank")
go_on(blank, "blank", 20)
print([type(one).__name__ for one in (env, copied, restored, again, blank)], env.spec.id, str(env), repr(copied))
for one in (env, copied, restored, again, blank, unused):
    one.close()
tally.write(sys.argv[1])
