"""The zero-edit hook on vector environments: each step of each part is recorded once, wherever the part is stepped."""

import pytest
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


# ---- inside a scalar environment -------------------------------------------------------------------------


INSIDE = """
class One(gym.Env):
    def __init__(self, envs):
        self.envs = envs
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
    def reset(self, *, seed=None, options=None):
        return self.envs.reset(seed=seed)[0][0], {}
    def step(self, action):
        found = self.envs.step([action])
        return found[0][0], 7.0, bool(found[2][0]), bool(found[3][0]), {}
    def close(self):
        self.envs.close()
class Copying(Native):
    num_envs = 1
"""


@pytest.mark.parametrize("inner", ["gym.vector.SyncVectorEnv([Counting])", "Copying()"])
def test_a_vector_environment_inside_a_scalar_one_is_not_recorded_beside_it(inner: str) -> None:
    """What the script steps is the scalar environment, whatever that is made of."""
    script = NATIVE + INSIDE + f"env = One({inner}); env.reset()\nfor _ in range(5): env.step(0)\nenv.close()"
    calls, _ = run(script)
    assert opened(calls) == [""]
    assert steps(calls) == [7.0] * 5
    assert not [call for call in calls if call[0] == "vector"]



def test_the_parts_of_a_vector_environment_inside_an_environments_wrapper_are_recorded() -> None:
    """As in Gymnasium 0.29, where `RecordEpisodeStatistics` was a `Wrapper` around either kind."""
    script = """
class VectorEnv(gym.Env):
    __module__ = "gymnasium.vector.vector_env"
    def __init__(self): self.parts = [gym.wrappers.TimeLimit(Counting(), 100) for _ in range(2)]
    def reset(self, *, seed=None, options=None): return [part.reset()[0] for part in self.parts], {}
    def step(self, actions):
        found = [part.step(action) for part, action in zip(self.parts, actions)]
        return [each[0] for each in found], [each[1] for each in found], [False] * 2, [False] * 2, {}
    def close(self):
        for part in self.parts: part.close()
from runlane.workers import vector_hook
import types
vector_hook.patch_vector(types.SimpleNamespace(VectorEnv=VectorEnv))
class Wrapper(gym.Wrapper): pass
other = Counting()
envs = Wrapper(VectorEnv())
envs.reset()
for _ in range(3):
    envs.step([0, 0]); other.reset(); other.step(0)
envs.close()
again = Counting(); again.reset(); again.step(0)
"""
    calls, _ = run(script)
    assert opened(calls) == ["", "1", "2"]
    assert steps(calls)[:3] == steps(calls, "1") == [1, 2, 3]
    assert len(steps(calls)) == 4  # what was closed is taken up again
    assert steps(calls, "2") == [1] * 3
