"""PPO on CartPole-v1 in the manner of CleanRL: one file that knows nothing of runlane, and is not edited for it.

With `--log` it also logs the reward of every step of every environment with something else. What it prints at its end
is its own count, and its own clock around its loop.
"""

# Torch and what it logs with are in an environment of the script's own, so checkers know none of it.
# pyright: basic, reportMissingImports=false
# ruff: noqa: D101, D102, D103  a stranger's script, in the manner of such scripts

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

Log = Callable[[int, float], None]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=20_480)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--num-steps", type=int, default=128)
    parser.add_argument("--update-epochs", type=int, default=4)
    parser.add_argument("--num-minibatches", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2.5e-4)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", choices=list(LOGS), default="nothing")
    parser.add_argument("--log-dir", type=Path, default=Path())
    return parser.parse_args()


def log_nothing(_: Path) -> Log | None:
    return None


def log_tensorboard(directory: Path) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(directory))
    return lambda step, reward: writer.add_scalar("reward", reward, step)


def log_wandb(directory: Path) -> Log:
    import wandb

    run = wandb.init(project="bench", mode="offline", dir=str(directory), settings=wandb.Settings(console="off"))
    return lambda step, reward: run.log({"reward": reward}, step=step)


def log_rerun(directory: Path) -> Log:
    import rerun as rr

    rr.init("bench")
    rr.save(str(directory / "bench.rrd"))

    def log(step: int, reward: float) -> None:
        rr.set_time("step", sequence=step)
        rr.log("reward", rr.Scalars(reward))

    return log


LOGS: dict[str, Callable[[Path], Log | None]] = {
    "nothing": log_nothing,
    "tensorboard": log_tensorboard,
    "wandb": log_wandb,
    "rerun": log_rerun,
}


def layer(inputs: int, outputs: int, scale: float = 2**0.5) -> nn.Linear:
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, scale)
    nn.init.constant_(made.bias, 0.0)
    return made


class Agent(nn.Module):
    def __init__(self, envs: Any) -> None:
        super().__init__()
        inputs, actions = int(np.prod(envs.single_observation_space.shape)), int(envs.single_action_space.n)
        self.critic = nn.Sequential(layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.actor = nn.Sequential(layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, actions, 0.01))

    def act(self, observations: Any, actions: Any = None) -> tuple[Any, Any, Any, Any]:
        spread = torch.distributions.Categorical(logits=self.actor(observations))
        chosen = spread.sample() if actions is None else actions
        return chosen, spread.log_prob(chosen), spread.entropy(), self.critic(observations).squeeze(-1)


def learn(agent: Agent, optimizer: Any, args: argparse.Namespace, batch: dict[str, Any], last: tuple[Any, Any]) -> None:
    next_value, next_done = last
    advantages = torch.zeros_like(batch["rewards"])
    gain = torch.zeros(args.num_envs)
    for t in reversed(range(args.num_steps)):
        is_last = t == args.num_steps - 1
        going = 1.0 - (next_done if is_last else batch["dones"][t + 1])
        value = next_value if is_last else batch["values"][t + 1]
        delta = batch["rewards"][t] + args.gamma * value * going - batch["values"][t]
        gain = advantages[t] = delta + args.gamma * args.gae_lambda * going * gain
    flat = {name: values.flatten(0, 1) for name, values in batch.items()}
    flat["advantages"], flat["returns"] = advantages.flatten(), (advantages + batch["values"]).flatten()
    count = args.num_envs * args.num_steps
    for _ in range(args.update_epochs):
        for chosen in torch.randperm(count).split(count // args.num_minibatches):
            part = {name: values[chosen] for name, values in flat.items()}
            _, log_prob, entropy, value = agent.act(part["observations"], part["actions"])
            ratio = (log_prob - part["log_probs"]).exp()
            gain = (part["advantages"] - part["advantages"].mean()) / (part["advantages"].std() + 1e-8)
            policy_loss = torch.max(-gain * ratio, -gain * ratio.clamp(0.8, 1.2)).mean()
            loss = policy_loss - 0.01 * entropy.mean() + 0.25 * (value - part["returns"]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    envs = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1") for _ in range(args.num_envs)])
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    log = LOGS[args.log](args.log_dir)
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    steps, total, has_ended = 0, 0.0, np.zeros(args.num_envs, bool)
    observation = torch.tensor(envs.reset(seed=args.seed)[0])
    done = torch.zeros(args.num_envs)
    for _ in range(args.total_timesteps // (args.num_envs * args.num_steps)):
        rows: list[dict[str, Any]] = []
        for _ in range(args.num_steps):
            with torch.no_grad():
                action, log_prob, _, value = agent.act(observation)
            row = {
                "observations": observation,
                "actions": action,
                "log_probs": log_prob,
                "values": value,
                "dones": done,
            }
            found, reward, terminated, truncated, _ = envs.step(action.numpy())
            if log is not None:
                for index in range(args.num_envs):
                    log(steps + index, float(reward[index]))
            steps += int((~has_ended).sum())
            total += float(reward[~has_ended].sum())
            has_ended = terminated | truncated
            rows.append({**row, "dones": done, "rewards": torch.tensor(reward, dtype=torch.float32)})
            observation, done = torch.tensor(found), torch.tensor(has_ended, dtype=torch.float32)
        with torch.no_grad():
            last = agent.critic(observation).squeeze(-1), done
        learn(agent, optimizer, args, {name: torch.stack([row[name] for row in rows]) for name in rows[0]}, last)
    loop_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    envs.close()
    print(json.dumps({"loop_s": loop_s, "cpu_s": cpu_s, "steps": steps, "total_reward": total}))


if __name__ == "__main__":
    main()
