"""tianshou 2: PPO with a Collector: `tianshou_ppo.py RESULT dummy|subproc`."""

import sys

import gymnasium as gym
import torch
from tally import Tally
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step

ENVS = 3


def make_algorithm(env):
    """A small actor and a small critic."""
    net = Net(state_shape=env.observation_space.shape, hidden_sizes=[16])
    actor = DiscreteActor(preprocess_net=net, action_shape=env.action_space.n)
    critic = DiscreteCritic(preprocess_net=net)
    policy = DiscreteActorPolicy(actor=actor, action_space=env.action_space, dist_fn=torch.distributions.Categorical)
    return PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=1e-3))


def main():
    path, how = sys.argv[1:3]
    torch.set_num_threads(1)
    tally = Tally()

    def on_step(actions, rollout):
        tally.see(rollout.obs, rollout.act, rollout.rew, rollout.done)
        for index in range(ENVS):
            tally.step(rollout.rew[index], rollout.done[index], index)

    chosen = {"dummy": DummyVectorEnv, "subproc": SubprocVectorEnv}[how]
    envs = chosen([lambda: gym.make("CartPole-v1") for _ in range(ENVS)])
    envs.seed(5)  # which resets them, too
    algorithm = make_algorithm(gym.make("CartPole-v1"))
    buffer = VectorReplayBuffer(200 * ENVS, ENVS)
    collector = Collector[CollectStats](algorithm, envs, buffer, exploration_noise=False, on_step_hook=on_step)
    collector.reset()
    for index in range(ENVS):
        tally.reset(index)
    for _ in range(3):
        with policy_within_training_step(algorithm.policy):
            stats = collector.collect(n_step=60 * ENVS)
            algorithm.update(buffer=buffer, batch_size=32, repeat=2)
        collector.reset_buffer(keep_statistics=True)
        print("collected", stats.n_collected_steps, "steps", stats.n_collected_episodes, "episodes")
    for name, values in sorted(algorithm.policy.state_dict().items()):
        tally.see(name, values)
    envs.close()
    tally.write(path)


if __name__ == "__main__":
    main()
