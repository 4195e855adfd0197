"""PettingZoo's two ways, each agent counted for itself: `pettingzoo_loop.py RESULT aec|parallel|masked|toy|toy_aec`."""

import sys

import gymnasium as gym
from pettingzoo import ParallelEnv
from pettingzoo.utils import parallel_to_aec
from tally import Tally

tally = Tally()


class Toy(ParallelEnv):
    """Two agents count down; the second one is done earlier, and gets what the first one does."""

    metadata = {"name": "toy_v0", "render_modes": []}
    render_mode = None
    possible_agents = ["first", "second"]

    def __init__(self):
        self.observation_spaces = {agent: gym.spaces.Discrete(20) for agent in self.possible_agents}
        self.action_spaces = {agent: gym.spaces.Discrete(3) for agent in self.possible_agents}

    def observation_space(self, agent):
        """A number."""
        return self.observation_spaces[agent]

    def action_space(self, agent):
        """A number up to 2."""
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        """Both begin."""
        self.agents = list(self.possible_agents)
        self.left = {"first": 12, "second": 7}
        return {agent: self.left[agent] for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        """Count down."""
        for agent in actions:
            self.left[agent] -= 1
        rewards = {agent: float(actions["first"] - 0.25) for agent in self.agents}
        terminated = {agent: self.left[agent] == 0 for agent in self.agents}
        truncated = dict.fromkeys(self.agents, False)
        observations = {agent: self.left[agent] for agent in self.agents}
        infos = {agent: {} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not terminated[agent]]
        return observations, rewards, terminated, truncated, infos


def run_aec(env, episodes):
    """As in PettingZoo's documentation. What `last` gives an agent belongs to the action it took before."""
    env.reset(seed=1)
    spaces = {agent: env.action_space(agent) for agent in env.possible_agents}
    for seed, space in enumerate(spaces.values()):
        space.seed(seed)
    for episode in range(episodes):
        env.reset(seed=episode)
        for agent in env.possible_agents:
            tally.reset(agent)
        has_acted = set()
        for agent in env.agent_iter():
            observation, reward, terminated, truncated, info = env.last()
            tally.see(agent, observation, reward, terminated, truncated, info)
            if agent in has_acted:
                tally.step(reward, terminated or truncated, agent)
            if terminated or truncated:
                action = None
            else:
                mask = observation["action_mask"] if isinstance(observation, dict) else None
                action = spaces[agent].sample(mask)
                has_acted.add(agent)
            env.step(action)
    env.close()


def run_parallel(env, episodes):
    """All agents at once."""
    for seed, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(seed)
    for episode in range(episodes):
        observations, infos = env.reset(seed=episode)
        tally.see(observations, infos)
        for agent in env.possible_agents:
            tally.reset(agent)
        while env.agents:
            actions = {agent: env.action_space(agent).sample() for agent in env.agents}
            observations, rewards, terminated, truncated, infos = env.step(actions)
            tally.see(actions, observations, rewards, terminated, truncated, infos)
            for agent in actions:
                tally.step(rewards[agent], terminated[agent] or truncated[agent], agent)
    env.close()


path, how = sys.argv[1:3]
if how == "toy":
    run_parallel(Toy(), 12)
elif how == "toy_aec":
    run_aec(parallel_to_aec(Toy()), 12)
elif how == "aec":
    from pettingzoo.classic import rps_v2

    run_aec(rps_v2.env(max_cycles=15), 12)
elif how == "masked":
    from pettingzoo.classic import connect_four_v3

    run_aec(connect_four_v3.env(), 8)
elif how == "parallel":
    from pettingzoo.classic import rps_v2

    run_parallel(rps_v2.parallel_env(max_cycles=15), 12)
print("agents", sorted(tally.environments), [counts["steps"] for counts in tally.environments.values()])
tally.write(path)
