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
    script = (
        NATIVE
        + """
from runlane.workers import wrap
each = [{"level": 1}, {"level": 2}]
for envs in (Native(), wrap(Native(), session=Session("own", {}))):
    envs.reset(options=each); envs.step(np.zeros(2, int))
"""
    )
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
again = gym.wrappers.TimeLimit(Counting(), 100); again.reset(); again.step(0)
"""
    calls, _ = run(script)
    assert opened(calls) == ["", "1", "2"]
    assert steps(calls)[:3] == steps(calls, "1") == [1, 2, 3]
    assert len(steps(calls)) == 4  # what was closed is taken up again
    assert steps(calls, "2") == [1] * 3


# ---- threads ---------------------------------------------------------------------------------------------

THREADED = """
from concurrent.futures import ThreadPoolExecutor
class Threaded(Native):
    def __init__(self):
        self.parts = [Counting() for _ in range(2)]
        self.pool = ThreadPoolExecutor(2)
    def reset(self, *, seed=None, options=None):
        return np.stack([found[0] for found in self.pool.map(lambda part: part.reset(), self.parts)]), {}
    def step(self, actions):
        found = list(self.pool.map(lambda part: part.step(0), self.parts))
        rest = (np.array([each[at] for each in found]) for at in (1, 2, 3))
        return np.stack([each[0] for each in found]), *rest, {}
class Hidden(Threaded):
    def __init__(self):
        local = threading.local()
        def make(): local.part = Counting()
        self.pools = [ThreadPoolExecutor(1, initializer=make) for _ in range(2)]
        class Every:
            def map(self, call, parts):
                return [each.result() for each in [pool.submit(lambda: call(local.part)) for pool in pools]]
        pools, self.pool, self.parts = self.pools, Every(), None
"""


@pytest.mark.parametrize("kind", ["Threaded", "Hidden"])
def test_parts_that_are_stepped_in_threads_are_recorded_once(kind: str) -> None:
    """Whether the vector environment holds them, or only its threads do."""
    script = "import threading\n" + NATIVE + THREADED + f"envs = {kind}(); envs.reset()\n"
    calls, _ = run(script + "for _ in range(5): envs.step(np.zeros(2, int))")
    assert not [call for call in calls if call[0] == "vector"]
    assert sorted(opened(calls)) == ["", "1"]
    assert steps(calls) == steps(calls, "1") == [1, 2, 3, 4, 5]


def test_a_vector_environment_of_threads_that_the_script_records_is_recorded_once() -> None:
    """`wrap()` around it: its parts are left alone, whatever thread steps them."""
    script = "import threading\nfrom runlane.workers import wrap\n" + NATIVE + THREADED
    script += "envs = wrap(Threaded(), session=Session('own', {})); envs.reset(); envs.step(np.zeros(2, int))"
    calls, _ = run(script)
    assert opened(calls) == ["own"]
    assert [call[1] for call in calls if call[0] == "vector"] == ["own"]
    assert not steps(calls)


def test_another_thread_at_work_keeps_no_vector_environment_from_being_recorded() -> None:
    """An evaluation that goes on beside it, at its first reset as at any step."""
    script = (
        "import threading\n"
        + NATIVE
        + """
turn, done = threading.Semaphore(0), threading.Semaphore(0)
class Slow(Native):
    def reset(self, **options): turn.release(); done.acquire(); return super().reset(**options)
    def step(self, actions): turn.release(); done.acquire(); return super().step(actions)
def evaluate():
    other = Counting(); turn.acquire(); other.reset(); done.release()
    for _ in range(5): turn.acquire(); other.step(0); done.release()
beside = threading.Thread(target=evaluate); beside.start()
envs = Slow(); envs.reset()
for _ in range(5): envs.step(np.zeros(2, int))
beside.join()
"""
    )
    calls, _ = run(script)
    assert len([call for call in calls if call[0] == "vector"]) == 5
    assert steps(calls) == [1, 2, 3, 4, 5]


# ---- processes -------------------------------------------------------------------------------------------

IN_PROCESSES = """
import os
from runlane.workers import wrap
read_end, write_end = os.pipe()
Session.step = lambda self, *a, **k: os.write(write_end, b".")  # in whatever process
"""


@pytest.mark.parametrize(("session", "suffix"), [("None", "metrics"), ("Session('own', {})", "own")])
def test_the_parts_of_an_environment_of_processes_are_recorded_by_themselves_alone(session: str, suffix: str) -> None:
    """`wrap()` around an AsyncVectorEnv: it has a session, for scalars, and what it is given of its run is known."""
    script = (
        IN_PROCESSES
        + f"""
envs = wrap(gym.vector.AsyncVectorEnv([Counting] * 2, context="fork"), session={session}, config={{"rate": 3}})
envs.reset(seed=0)
for _ in range(5): found = envs.step([0, 0])
said["reward"] = list(found[1])
envs.close()
envs.session.log("after", "info")
said["steps"] = len(os.read(read_end, 100))
said["config"] = hooked_session._config
"""
    )
    calls, said = run(script)
    assert said == {"reward": [5, 5], "steps": 10, "config": {"rate": 3}}
    assert opened(calls) == [suffix]
    assert not [call for call in calls if call[0] == "vector"]
    assert [call[2].partition(" record")[0] for call in calls if call[0] == "log"] == [
        "the 2 parts of AsyncVectorEnv",
        "after",
    ]


def test_an_environment_of_processes_is_recorded_by_wrap_where_nothing_is_hooked() -> None:
    """As without `runlane run`."""
    script = "hooked_session.is_armed = lambda: False\nfrom runlane.workers import wrap\n"
    script += "envs = wrap(gym.vector.AsyncVectorEnv([Counting] * 2), session=Session('own', {}))\n"
    calls, _ = run(script + "envs.reset(); envs.step([0, 0]); envs.close()")
    assert [call[1] for call in calls if call[0] == "vector"] == ["own"]
