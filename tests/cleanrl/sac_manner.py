# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
"""As CleanRL writes them for Gymnasium 0.29.1: an off-policy actor with tyro's arguments, on Pendulum. Small."""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.utils.tensorboard import SummaryWriter


@dataclass
class Args:
    seed: int = 1
    """seed of everything"""
    total_timesteps: int = 900
    """steps of the environment"""
    learning_starts: int = 300
    """random actions before"""
    hf_token: str = "never-stored"
    """a secret"""


class DoubleAction(gym.ActionWrapper):
    """Pendulum computes with float64 then, and NumPy 1 and 2 give the same."""

    def action(self, action):
        return np.asarray(action, np.float64)


def make_env(env_id):
    def thunk():
        env = DoubleAction(gym.make(env_id))
        env = gym.wrappers.RecordEpisodeStatistics(env)
        env.action_space.seed(1)
        return env

    return thunk


def main():
    args = tyro.cli(Args)
    writer = SummaryWriter(f"runs/sac_{args.seed}")
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    envs = gym.vector.SyncVectorEnv([make_env("Pendulum-v1")])
    envs.single_observation_space.dtype = np.float32
    actor = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1), nn.Tanh())
    critic = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (actor, critic)]
    high = torch.tensor(envs.single_action_space.high)
    obs, _ = envs.reset(seed=args.seed)
    for global_step in range(args.total_timesteps):
        if global_step < args.learning_starts:
            actions = np.array([envs.single_action_space.sample() for _ in range(envs.num_envs)])
        else:
            noise = 0.1 * torch.randn(1, 1)
            actions = (actor(torch.Tensor(obs)) * high + noise).clamp(-high, high).detach().numpy()
        next_obs, rewards, _, truncations, infos = envs.step(actions)
        if "final_info" in infos:
            for info in infos["final_info"]:
                print(f"global_step={global_step}, episodic_return={info['episode']['r']}")
                writer.add_scalar("charts/episodic_return", info["episode"]["r"], global_step)
                break
        real_next_obs = next_obs.copy()
        for index, is_cut in enumerate(truncations):
            if is_cut:
                real_next_obs[index] = infos["final_observation"][index]
        if global_step >= args.learning_starts:
            x, y = torch.Tensor(obs), torch.Tensor(real_next_obs)
            with torch.no_grad():
                target = torch.Tensor(rewards) + 0.99 * critic(torch.cat([y, actor(y)], 1)).flatten()
            q_loss = ((critic(torch.cat([x, torch.Tensor(actions)], 1)).flatten() - target) ** 2).mean()
            a_loss = -critic(torch.cat([x, actor(x)], 1)).mean()
            for optimizer, loss in zip(optimizers, (a_loss, q_loss), strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if global_step % 100 == 0:
                writer.add_scalar("losses/qf_loss", q_loss.item(), global_step)
        obs = next_obs
    envs.close()
    writer.close()


if __name__ == "__main__":
    main()
