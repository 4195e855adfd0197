# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
"""A training as CleanRL writes them for Gymnasium 0.29.1: PPO on CartPole, one file, nothing of runlane. Small."""

import argparse
import time

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions.categorical import Categorical
from torch.utils.tensorboard import SummaryWriter


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--exp-name", default="ppo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--env-id", default="CartPole-v1")
    parser.add_argument("--total-timesteps", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=2.5e-4)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--num-steps", type=int, default=64)
    parser.add_argument("--wandb-api-key", default="never-stored")
    args = parser.parse_args()
    args.batch_size = args.num_envs * args.num_steps
    return args


def make_env(env_id):
    def thunk():
        env = gym.make(env_id, render_mode="rgb_array")
        return gym.wrappers.RecordEpisodeStatistics(env)

    return thunk


def layer(inputs, outputs, std=np.sqrt(2)):
    made = nn.Linear(inputs, outputs)
    torch.nn.init.orthogonal_(made.weight, std)
    torch.nn.init.constant_(made.bias, 0.0)
    return made


class Agent(nn.Module):
    def __init__(self, envs):
        super().__init__()
        size = int(np.array(envs.single_observation_space.shape).prod())
        self.critic = nn.Sequential(layer(size, 32), nn.Tanh(), layer(32, 1, 1.0))
        self.actor = nn.Sequential(layer(size, 32), nn.Tanh(), layer(32, envs.single_action_space.n, 0.01))

    def act(self, x, action=None):
        choice = Categorical(logits=self.actor(x))
        action = choice.sample() if action is None else action
        return action, choice.log_prob(action), choice.entropy(), self.critic(x).flatten()


def main():
    args = parse_args()
    writer = SummaryWriter(f"runs/{args.env_id}__{args.exp_name}__{args.seed}__{int(time.time())}")
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    envs = gym.vector.SyncVectorEnv([make_env(args.env_id) for _ in range(args.num_envs)])
    assert isinstance(envs.single_action_space, gym.spaces.Discrete)
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    shape = (args.num_steps, args.num_envs)
    obs = torch.zeros(shape + envs.single_observation_space.shape)
    actions, logprobs, rewards, dones, values = (torch.zeros(shape) for _ in range(5))
    global_step = 0
    next_obs, _ = envs.reset(seed=args.seed)
    next_obs, next_done = torch.Tensor(next_obs), torch.zeros(args.num_envs)
    for _ in range(args.total_timesteps // args.batch_size):
        for step in range(args.num_steps):
            global_step += args.num_envs
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                action, logprob, _, value = agent.act(next_obs)
            actions[step], logprobs[step], values[step] = action, logprob, value
            next_obs, reward, terminations, truncations, infos = envs.step(action.numpy())
            rewards[step] = torch.tensor(reward).view(-1)
            next_obs = torch.Tensor(next_obs)
            next_done = torch.Tensor(np.logical_or(terminations, truncations))
            if "final_info" in infos:
                for info in infos["final_info"]:
                    if info and "episode" in info:
                        print(f"global_step={global_step}, episodic_return={info['episode']['r']}")
                        writer.add_scalar("charts/episodic_return", info["episode"]["r"], global_step)
                        writer.add_scalar("charts/episodic_length", info["episode"]["l"], global_step)
        with torch.no_grad():
            next_value = agent.critic(next_obs).flatten()
            advantages, last = torch.zeros(shape), 0
            for t in reversed(range(args.num_steps)):
                live = 1.0 - (next_done if t == args.num_steps - 1 else dones[t + 1])
                after = next_value if t == args.num_steps - 1 else values[t + 1]
                delta = rewards[t] + 0.99 * after * live - values[t]
                advantages[t] = last = delta + 0.99 * 0.95 * live * last
            returns = advantages + values
        flat = [part.reshape((-1, *part.shape[2:])) for part in (obs, actions, logprobs, advantages, returns)]
        for _ in range(4):
            order = np.random.permutation(args.batch_size)
            for start in range(0, args.batch_size, 64):
                b_obs, b_act, b_log, b_adv, b_ret = (part[order[start : start + 64]] for part in flat)
                _, logprob, entropy, value = agent.act(b_obs, b_act.long())
                ratio = (logprob - b_log).exp()
                b_adv = (b_adv - b_adv.mean()) / (b_adv.std() + 1e-8)
                policy_loss = torch.max(-b_adv * ratio, -b_adv * torch.clamp(ratio, 0.8, 1.2)).mean()
                value_loss = 0.5 * ((value - b_ret) ** 2).mean()
                loss = policy_loss - 0.01 * entropy.mean() + 0.5 * value_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        writer.add_scalar("losses/value_loss", value_loss.item(), global_step)
        writer.add_scalar("losses/policy_loss", policy_loss.item(), global_step)
    envs.close()
    writer.close()


if __name__ == "__main__":
    main()
