"""ALE as a script drives it: `atari_loop.py RESULT skip`, a frame skip of its own; `preprocessing`: Gymnasium's."""

import sys

import ale_py
import gymnasium as gym
import numpy as np
from tally import Tally


class MaxAndSkip(gym.Wrapper):
    """One action for four frames; the observation is the brightest of the last two."""

    def step(self, action):
        """Four frames; their rewards together."""
        total, frames = 0.0, []
        for _ in range(4):
            observation, reward, terminated, truncated, info = self.env.step(action)
            frames.append(observation)
            total += float(reward)
            if terminated or truncated:
                break
        return np.max(frames[-2:], axis=0), total, terminated, truncated, info


class EpisodicLife(gym.Wrapper):
    """A lost life ends what the agent takes for an episode; `reset` goes on with the game."""

    lives = 0
    is_over = True

    def step(self, action):
        """A lost life is an end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.is_over = terminated or truncated
        lives = self.env.unwrapped.ale.lives()
        if 0 < lives < self.lives:
            terminated = True
        self.lives = lives
        return observation, reward, terminated, truncated, info

    def reset(self, **options):
        """A true reset only after a true end."""
        if self.is_over:
            observation, info = self.env.reset(**options)
        else:
            observation, _, _, _, info = self.env.step(0)
        self.is_over = False
        self.lives = self.env.unwrapped.ale.lives()
        return observation, info


path, how = sys.argv[1:3]
gym.register_envs(ale_py)
tally = Tally()
if how == "preprocessing":
    env = gym.make("ALE/Breakout-v5", frameskip=1, max_num_frames_per_episode=1000)
    env = gym.wrappers.AtariPreprocessing(env, terminal_on_life_loss=True)
    env = gym.wrappers.FrameStackObservation(env, 4)
else:
    env = gym.make("BreakoutNoFrameskip-v4")
    env = EpisodicLife(MaxAndSkip(gym.wrappers.TransformReward(env, np.sign)))
env.action_space.seed(1)
observation, _ = env.reset(seed=1)
tally.reset()
tally.see(observation)
for _ in range(250):
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    tally.step(reward, terminated or truncated)
    tally.see(observation, reward, info)
    if terminated or truncated:
        observation, _ = env.reset()
        tally.reset()
        tally.see(observation)
print("episodes", len(tally.environments["env"]["ended"]), observation.shape)
env.close()
tally.write(path)
