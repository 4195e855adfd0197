"""PPO in one file, in CleanRL's manner: `cleanrl_ppo.py RESULT --seed 1 …`; gymnasium 0.29.1 and 1.x."""

import random
import sys
import tempfile
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from tally import Tally
from torch import nn
from torch.distributions import Categorical
from torch.utils.tensorboard import SummaryWriter

RESETS_WITHIN = gym.__version__.startswith("0.")


@dataclass
class Args:
    """What CleanRL calls its arguments."""

    seed: int = 1
    """seed of the experiment"""
    env_id: str = "CartPole-v1"
    """the id of the environment"""
    num_envs: int = 3
    num_steps: int = 64
    iterations: int = 4
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    capture_video: bool = False


def make_env(env_id, index, capture_video):
    """A thunk per environment."""

    def thunk():
        env = gym.make(env_id, render_mode="rgb_array") if capture_video and index == 0 else gym.make(env_id)
        return gym.wrappers.RecordEpisodeStatistics(env)

    return thunk


class Agent(nn.Module):
    """Actor and critic."""

    def __init__(self, envs):
        super().__init__()
        size = int(np.prod(envs.single_observation_space.shape))
        self.critic = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 1))
        self.actor = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, envs.single_action_space.n))

    def act(self, observation, action=None):
        """Action, its log probability, entropy and value."""
        chances = Categorical(logits=self.actor(observation))
        action = chances.sample() if action is None else action
        return action, chances.log_prob(action), chances.entropy(), self.critic(observation)


def rollout(envs, agent, args, state, tally, writer):
    """Gather `num_steps` of all environments."""
    rows = []
    for _ in range(args.num_steps):
        state["step"] += args.num_envs
        with torch.no_grad():
            action, log_prob, _, value = agent.act(state["observation"])
        observation, reward, terminated, truncated, infos = envs.step(action.numpy())
        is_done = np.logical_or(terminated, truncated)
        tally.see(action, observation, reward, is_done)
        for index in range(args.num_envs):
            if RESETS_WITHIN or not state["done"][index]:
                tally.step(reward[index], is_done[index], index)
        rows.append((state["observation"], action, log_prob, value.flatten(), torch.tensor(reward).float(), is_done))
        state["observation"], state["done"] = torch.tensor(observation), is_done
        log_episodes(infos, state["step"], writer)
    return rows


def log_episodes(infos, step, writer):
    """Where this Gymnasium puts the returns of finished episodes."""
    if "final_info" in infos:
        for info in infos["final_info"]:
            if info and "episode" in info:
                print(f"global_step={step}, episodic_return={info['episode']['r']}")
                writer.add_scalar("charts/episodic_return", info["episode"]["r"], step)
    elif "episode" in infos:
        for index in np.flatnonzero(infos["_episode"]):
            print(f"global_step={step}, episodic_return={infos['episode']['r'][index]}")
            writer.add_scalar("charts/episodic_return", infos["episode"]["r"][index], step)


def update(agent, optimizer, rows, gamma):
    """One step of a simple policy gradient over the whole rollout."""
    following = torch.zeros(len(rows[0][4]))
    returns = []
    for _, _, _, _, reward, is_done in reversed(rows):
        following = reward + gamma * following * torch.tensor(~is_done).float()
        returns.insert(0, following)
    observations, actions = (torch.cat([row[place] for row in rows]) for place in (0, 1))
    before, values = (torch.cat([row[place] for row in rows]) for place in (2, 3))
    advantage = torch.cat(returns) - values
    _, log_prob, entropy, value = agent.act(observations, actions)
    ratio = (log_prob - before).exp()
    policy_loss = -torch.min(advantage * ratio, advantage * ratio.clamp(0.8, 1.2)).mean()
    value_loss = ((value.flatten() - torch.cat(returns)) ** 2).mean()
    loss = policy_loss + 0.5 * value_loss - 0.01 * entropy.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main():
    path = sys.argv.pop(1)
    args = tyro.cli(Args)
    torch.set_num_threads(1)
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.deterministic = True
    tally = Tally(args.seed)
    with tempfile.TemporaryDirectory() as directory:
        writer = SummaryWriter(directory)
        writer.add_text("hyperparameters", str(vars(args)))
        envs = gym.vector.SyncVectorEnv(
            [make_env(args.env_id, index, args.capture_video) for index in range(args.num_envs)]
        )
        agent = Agent(envs)
        optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate)
        observation, _ = envs.reset(seed=args.seed)
        for index in range(args.num_envs):
            tally.reset(index)
        state = {"step": 0, "observation": torch.tensor(observation), "done": np.zeros(args.num_envs, bool)}
        for iteration in range(args.iterations):
            loss = update(agent, optimizer, rollout(envs, agent, args, state, tally, writer), args.gamma)
            writer.add_scalar("losses/loss", loss, state["step"])
            tally.see(iteration, loss)
        for values in agent.parameters():
            tally.see(values)
        envs.close()
        writer.close()
    tally.write(path, metrics={"losses/loss": args.iterations})


if __name__ == "__main__":
    main()
