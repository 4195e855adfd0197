# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
"""As CleanRL writes them for Gymnasium 0.29.1: DQN on CartPole with a replay buffer and `final_observation`. Small."""

import argparse
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter


def make_env(env_id):
    def thunk():
        return gym.wrappers.RecordEpisodeStatistics(gym.make(env_id))

    return thunk


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--total-timesteps", type=int, default=1500)
    args = parser.parse_args()
    writer = SummaryWriter(f"runs/dqn_{args.seed}")
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    envs = gym.vector.SyncVectorEnv([make_env("CartPole-v1")])
    network = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, int(envs.single_action_space.n)))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    memory = deque(maxlen=1000)
    obs, _ = envs.reset(seed=args.seed)
    for global_step in range(args.total_timesteps):
        if random.random() < 0.3:
            actions = np.array([random.randrange(2) for _ in range(envs.num_envs)])
        else:
            actions = torch.argmax(network(torch.Tensor(obs)), dim=1).numpy()
        next_obs, rewards, terminations, truncations, infos = envs.step(actions)
        if "final_info" in infos:
            for info in infos["final_info"]:
                if info and "episode" in info:
                    print(f"global_step={global_step}, episodic_return={info['episode']['r']}")
                    writer.add_scalar("charts/episodic_return", info["episode"]["r"], global_step)
        real_next_obs = next_obs.copy()
        for index, is_end in enumerate(np.logical_or(terminations, truncations)):
            if is_end:
                real_next_obs[index] = infos["final_observation"][index]
        memory.append((obs[0], real_next_obs[0], actions[0], rewards[0], float(terminations[0])))
        obs = next_obs
        if global_step > 200 and global_step % 4 == 0:
            batch = random.sample(list(memory), 32)
            b_obs, b_next = (torch.tensor(np.array([each[i] for each in batch])) for i in (0, 1))
            b_act, b_rew, b_end = (torch.tensor(np.array([each[i] for each in batch])) for i in (2, 3, 4))
            with torch.no_grad():
                target = b_rew + 0.99 * network(b_next).max(dim=1).values * (1 - b_end)
            value = network(b_obs).gather(1, b_act.view(-1, 1)).squeeze()
            loss = nn.functional.mse_loss(value, target.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if global_step % 100 == 0:
                writer.add_scalars("losses", {"td": loss.item(), "q": value.mean().item()}, global_step)
    envs.close()
    writer.close()


if __name__ == "__main__":
    main()
