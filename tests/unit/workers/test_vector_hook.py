"""The zero-edit hook on vector environments: each step of each part is recorded once, wherever the part is stepped."""

from unit.workers.test_gymnasium_hook import opened, run, steps

# A vector environment that steps nothing but itself.
NATIVE = """
import numpy as np
class Native(gym.vector.VectorEnv):
    num_envs = 2
    single_observation_space = single_action_space = gym.spaces.Discrete(2)
    observation_space = action_space = gym.spaces.MultiDiscrete([2, 2])
    def reset(self, *, seed=None, options=None):
        said["options"] = options
        return np.zeros(2), {}
    def step(self, actions):
        return np.zeros(2), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {}
"""


# ---- options ---------------------------------------------------------------------------------------------


def test_options_that_are_no_map_are_the_environments_own_matter() -> None:
    """A list with a map for each part; hooked, and behind `wrap()`."""
    script = NATIVE + """
from runlane.workers import wrap
each = [{"level": 1}, {"level": 2}]
for envs in (Native(), wrap(Native(), session=Session("own", {}))):
    envs.reset(options=each); envs.step(np.zeros(2, int))
"""
    calls, said = run(script)
    assert said["options"] == [{"level": 1}, {"level": 2}]
    assert [call[1] for call in calls if call[0] == "vector"] == ["", "own"]
