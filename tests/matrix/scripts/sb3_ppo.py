"""Stable-Baselines3: PPO on two environments: `sb3_ppo.py RESULT dummy|spawn|fork|forkserver|alone`."""

import sys

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from tally import Tally


class Counting(BaseCallback):
    """Counts what the algorithm sees."""

    def __init__(self, tally):
        super().__init__()
        self.tally = tally

    def _on_training_start(self):
        for index in range(self.training_env.num_envs):
            self.tally.reset(index)

    def _on_step(self):
        seen = self.locals
        self.tally.see(seen["actions"], seen["rewards"], seen["dones"], seen["new_obs"])
        for index, (reward, is_done) in enumerate(zip(seen["rewards"], seen["dones"], strict=True)):
            self.tally.step(reward, is_done, index)
        return True


def main():
    path, how = sys.argv[1:3]
    torch.set_num_threads(1)
    tally = Tally()
    if how == "alone":  # SB3 wraps a single environment by itself
        env = gym.make("CartPole-v1")
    elif how == "dummy":
        env = make_vec_env("CartPole-v1", n_envs=2, seed=3, vec_env_cls=DummyVecEnv)
    else:
        options = {"start_method": how}
        env = make_vec_env("CartPole-v1", n_envs=2, seed=3, vec_env_cls=SubprocVecEnv, vec_env_kwargs=options)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=2, seed=3, device="cpu", verbose=0)
    model.learn(384, callback=Counting(tally))
    for name, values in sorted(model.policy.state_dict().items()):
        tally.see(name, values)
    print("steps", model.num_timesteps, type(model.get_env()).__name__)
    model.get_env().close()
    tally.write(path)


if __name__ == "__main__":
    main()
