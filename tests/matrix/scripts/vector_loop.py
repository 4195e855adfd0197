"""Vector environments in each way of resetting: `vector_loop.py RESULT sync|async MODE [START METHOD]`."""

import sys

import gymnasium as gym
import numpy as np
from tally import Tally

ENVS = 3


def make_one(index):
    """A thunk, as vector environments want them; the outermost layer is the one the agent sees."""

    def thunk():
        env = gym.make("CartPole-v1", max_episode_steps=40)
        env = gym.wrappers.TransformReward(env, lambda reward: reward * (index + 1))
        env.action_space.seed(index)
        return env

    return thunk


def make(kind, mode):
    """The vector environment, and whether a step after an episode's end resets only."""
    chosen = {"sync": gym.vector.SyncVectorEnv, "async": gym.vector.AsyncVectorEnv}[kind]
    options = {}
    if mode == "only":  # 0.29.1 and before: it resets within the step
        is_next = False
    else:
        from gymnasium.vector import AutoresetMode

        options["autoreset_mode"] = AutoresetMode[mode]
        is_next = mode == "NEXT_STEP"
    if len(sys.argv) > 4:
        options["context"] = sys.argv[4]
    return chosen([make_one(index) for index in range(ENVS)], **options), is_next


def main():
    path, kind, mode = sys.argv[1:4]
    tally = Tally()
    envs, is_next = make(kind, mode)
    envs.action_space.seed(5)
    observations, infos = envs.reset(seed=[20, 21, 22])
    for index in range(ENVS):
        tally.reset(index)
    tally.see(observations, infos)
    has_ended = np.zeros(ENVS, bool)
    for number in range(250):
        actions = envs.action_space.sample()
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        tally.see(actions, observations, rewards, terminated, truncated, infos)
        is_done = terminated | truncated
        for index in range(ENVS):
            if not (is_next and has_ended[index]):  # that step only reset it
                tally.step(rewards[index], is_done[index], index)
        has_ended = is_done
        if mode == "DISABLED" and is_done.any():
            observations, infos = envs.reset(options={"reset_mask": is_done})
            tally.see(observations, infos)
        if number == 120:  # all of them from the start again, in mid-episode
            observations, infos = envs.reset(seed=77)
            tally.see(observations, infos)
            has_ended[:] = False
            for index in range(ENVS):
                tally.reset(index)
    print("steps", {name: counts["steps"] for name, counts in tally.environments.items()})
    envs.close()
    tally.write(path)


if __name__ == "__main__":
    main()
