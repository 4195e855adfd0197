# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
"""As CleanRL writes them for Gymnasium 0.29.1: PPO-like, continuous, with all its wrappers. Small."""

import argparse

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions.normal import Normal
from torch.utils.tensorboard import SummaryWriter


class DoubleAction(gym.ActionWrapper):
    """Pendulum computes with float64 then, and NumPy 1 and 2 give the same."""

    def action(self, action):
        return np.asarray(action, np.float64)


def make_env(env_id, gamma):
    def thunk():
        env = DoubleAction(gym.make(env_id))
        env = gym.wrappers.FlattenObservation(env)
        env = gym.wrappers.RecordEpisodeStatistics(env)
        env = gym.wrappers.ClipAction(env)
        env = gym.wrappers.NormalizeObservation(env)
        env = gym.wrappers.TransformObservation(env, lambda obs: np.clip(obs, -10, 10))
        env = gym.wrappers.NormalizeReward(env, gamma=gamma)
        return gym.wrappers.TransformReward(env, lambda reward: np.clip(reward, -10, 10))

    return thunk


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-envs", type=int, default=2)
    parser.add_argument("--total-timesteps", type=int, default=2400)
    args = parser.parse_args()
    writer = SummaryWriter(f"runs/ppo_continuous_{args.seed}")
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    envs = gym.vector.SyncVectorEnv([make_env("Pendulum-v1", 0.99) for _ in range(args.num_envs)])
    assert isinstance(envs.single_action_space, gym.spaces.Box)
    assert np.isfinite(envs.single_action_space.high).all()
    mean = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    logstd = nn.Parameter(torch.zeros(1, 1))
    optimizer = torch.optim.Adam([*mean.parameters(), logstd], lr=1e-3)
    obs, _ = envs.reset(seed=args.seed)
    kept = []
    for global_step in range(0, args.total_timesteps, args.num_envs):
        x = torch.Tensor(obs)
        choice = Normal(mean(x), logstd.exp().expand(args.num_envs, 1))
        action = choice.sample()
        obs, reward, _, _, infos = envs.step(action.numpy())
        kept.append((choice.log_prob(action).sum(1) * torch.tensor(reward)).mean())
        if len(kept) == 40:
            loss = -torch.stack(kept).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar("losses/policy_loss", loss, global_step)  # a tensor, as some scripts log them
            kept = []
        if "final_info" in infos:
            for info in infos["final_info"]:
                if info and "episode" in info:
                    print(f"global_step={global_step}, episodic_return={info['episode']['r']}")
                    writer.add_scalar("charts/episodic_return", info["episode"]["r"], global_step)
    envs.close()
    writer.close()


if __name__ == "__main__":
    main()
