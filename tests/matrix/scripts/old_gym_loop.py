"""gym 0.26, before it was called Gymnasium: `old_gym_loop.py RESULT make|vector|constructed`."""

import sys

import gym
from gym.envs.classic_control import CartPoleEnv
from tally import Tally

tally = Tally()


def run_one(env):
    """The loop of its front page."""
    env.action_space.seed(3)
    observation, info = env.reset(seed=3)
    tally.reset()
    for _ in range(400):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        tally.step(reward, terminated or truncated)
        tally.see(action, observation, reward, info)
        if terminated or truncated:
            observation, info = env.reset()
            tally.reset()
    env.close()


def run_vector(envs):
    """It resets within the step, as it always did."""
    envs.action_space.seed(3)
    observations, infos = envs.reset(seed=3)
    for index in range(envs.num_envs):
        tally.reset(index)
    for _ in range(150):
        observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
        tally.see(observations, rewards, infos)
        for index in range(envs.num_envs):
            tally.step(rewards[index], terminated[index] or truncated[index], index)
    envs.close()


path, how = sys.argv[1:3]
if how == "vector":
    run_vector(gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1") for _ in range(3)]))
elif how == "constructed":
    run_one(gym.wrappers.TimeLimit(CartPoleEnv(), 12))
else:
    run_one(gym.make("CartPole-v1"))
print("gym", gym.__version__, [counts["steps"] for counts in tally.environments.values()])
tally.write(path)
