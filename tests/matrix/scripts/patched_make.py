"""A script that puts a `make` of its own into Gymnasium, as projects do that must wrap everything."""

import sys

import gymnasium
from gymnasium.wrappers import TimeLimit
from tally import Tally

make = gymnasium.make
made = []


def make_short(name, **options):
    """As `gymnasium.make`, with short episodes."""
    made.append(name)
    return TimeLimit(make(name, **options), 9)


gymnasium.make = make_short
assert gymnasium.make is make_short

tally = Tally()
env = gymnasium.make("CartPole-v1")
env.action_space.seed(2)
env.reset(seed=2)
tally.reset()
for _ in range(200):
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    tally.step(reward, terminated or truncated)
    tally.see(observation, reward, truncated, info)
    if terminated or truncated:
        env.reset()
        tally.reset()
print(made, type(env).__name__, make.__name__, make.__module__)
env.close()
tally.write(sys.argv[1])
