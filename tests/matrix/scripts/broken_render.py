"""An environment that says it can be drawn, and cannot."""

import sys
import time

import gymnasium as gym
from tally import Tally


class Undrawable(gym.Env):
    """Counts to twelve; drawing it fails."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = gym.spaces.Box(0.0, 12.0, (1,))
    action_space = gym.spaces.Discrete(3)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observation_space.low, {}

    def step(self, action):
        self.count += 1
        return self.observation_space.low, float(action), self.count == 12, False, {}

    def render(self):
        raise RuntimeError("no display, no context, no picture")


gym.register("Undrawable-v0", Undrawable)
tally = Tally()
env = gym.make("Undrawable-v0", disable_env_checker=True)
env.action_space.seed(1)
env.reset(seed=1)
tally.reset()
for number in range(int(sys.argv[2])):
    _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    tally.step(reward, terminated)
    tally.see(reward, terminated)
    if terminated:
        env.reset()
        tally.reset()
    if number % 10 == 0:
        time.sleep(0.005)  # long enough that somebody looks
env.close()
print("mode", env.render_mode if len(sys.argv) > 3 else "not asked")
tally.write(sys.argv[1])
