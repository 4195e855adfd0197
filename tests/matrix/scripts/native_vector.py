"""Vector environments that are no sum of single ones: `native_vector.py RESULT make_vec|class|atari`."""

import sys

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from tally import Tally

ENVS = 4


def make(how):
    if how == "make_vec":
        return gym.make_vec("CartPole-v1", num_envs=ENVS, vectorization_mode="vector_entry_point")
    if how == "class":
        from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

        return gym.wrappers.vector.RecordEpisodeStatistics(CartPoleVectorEnv(num_envs=ENVS, max_episode_steps=25))
    from ale_py import AtariVectorEnv

    mode = AutoresetMode.SAME_STEP if how == "atari_same" else AutoresetMode.NEXT_STEP
    return AtariVectorEnv("pong", num_envs=ENVS, num_threads=1, max_num_frames_per_episode=400, autoreset_mode=mode)


path, how = sys.argv[1:3]
tally = Tally()
envs = make(how)
is_next = envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
print(type(envs).__name__, envs.metadata["autoreset_mode"])
envs.action_space.seed(7)
observations, infos = envs.reset(seed=8)
for index in range(ENVS):
    tally.reset(index)
tally.see(observations)
has_ended = np.zeros(ENVS, bool)
for _ in range(150):
    actions = envs.action_space.sample()
    observations, rewards, terminated, truncated, infos = envs.step(actions)
    tally.see(actions, observations, rewards, terminated, truncated)
    is_done = np.asarray(terminated | truncated)
    for index in range(ENVS):
        if not (is_next and has_ended[index]):
            tally.step(rewards[index], is_done[index], index)
    has_ended = is_done
print("episodes", sum(len(counts["ended"]) for counts in tally.environments.values()))
envs.close()
tally.write(path)
