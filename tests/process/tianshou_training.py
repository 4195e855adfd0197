# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
"""A short training with tianshou 2 in the three-line way: DQN on CartPole, environments wrapped, a logger of ours."""

import sys

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net

from runlane.workers import TianshouLogger, attach, wrap


class Counting(gym.Wrapper):
    """The script's own count."""

    steps = 0

    def step(self, action):
        Counting.steps += 1
        return self.env.step(action)


def make(*, is_recorded):
    env = Counting(gym.make("CartPole-v1"))
    return wrap(env, session=attach(worker="env")) if is_recorded else env


def main():
    np.random.seed(0)
    torch.manual_seed(0)
    envs = DummyVectorEnv([lambda: make(is_recorded=True) for _ in range(2)])
    envs.seed(0)
    space = gym.make("CartPole-v1")
    net = Net(state_shape=(4,), action_shape=2, hidden_sizes=[32])
    policy = DiscreteQLearningPolicy(
        model=net, action_space=space.action_space, observation_space=space.observation_space, eps_training=0.3
    )
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), target_update_freq=100)
    collector = Collector[CollectStats](algorithm, envs, VectorReplayBuffer(1000, 2), exploration_noise=True)
    collector.reset()
    collector.collect(n_step=64)
    logger = TianshouLogger(training_interval=1, update_interval=1)
    result = algorithm.run_training(
        OffPolicyTrainerParams(
            max_epochs=2,
            epoch_num_steps=200,
            training_collector=collector,
            collection_step_num_env_steps=20,
            batch_size=32,
            logger=logger,
            verbose=False,
            show_progress=False,
        )
    )
    sys.stdout.write(f"{Counting.steps} {result.update_step}\n")


if __name__ == "__main__":
    main()
