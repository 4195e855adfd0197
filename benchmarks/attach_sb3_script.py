"""Stable-Baselines3's own PPO on CartPole-v1, with its own settings: a script that knows nothing of runlane.

What it prints at its end is its own count, and its own clock around `learn`. The total reward is that of the episodes
that its monitor has seen end, and the weights are summed up too: both show whether two runs were the same training.
"""

# Stable-Baselines3 is in an environment of the script's own, so checkers know none of it.
# pyright: basic, reportMissingImports=false
# ruff: noqa: D103  a stranger's script, in the manner of such scripts

import argparse
import json
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=20_480)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    envs = make_vec_env("CartPole-v1", n_envs=args.num_envs, seed=args.seed)
    model = PPO("MlpPolicy", envs, n_steps=512, seed=args.seed, device="cpu")
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    model.learn(args.total_timesteps)
    loop_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    rewards = [sum(found) for found in envs.env_method("get_episode_rewards")]
    weights = sum(float(each.detach().double().sum()) for each in model.policy.parameters())
    envs.close()
    found = {"steps": model.num_timesteps, "total_reward": sum(rewards), "weights": weights}
    print(json.dumps({"loop_s": loop_s, "cpu_s": cpu_s, **found}))


if __name__ == "__main__":
    main()
