"""The zero-edit hook on Gymnasium: what a script steps is recorded as it counts it, and nothing else changes.

Hooks stay in a process for good, so each claim has an interpreter of its own. The session there writes down its calls;
what real sessions store is compared in tests/process/test_matrix_fast.py.
"""

import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest

PREAMBLE = """
import json, sys
from runlane.workers import hooked_session, zero_edit
from runlane.workers.fast_lane import NoFastLane
from runlane.config.settings import FastLaneSettings

calls = []
class Session:
    env_count = 1
    lane = NoFastLane()
    fast_lane_settings = FastLaneSettings()
    def __init__(self, suffix, facts):
        self.suffix, self.facts = suffix, dict(facts)
        calls.append(["open", suffix, {**facts}])
    def step(self, action=None, reward=0.0, terminated=False, truncated=False, observation=None, info=None,
             env_index=0, is_reset=False, is_human=False):
        calls.append(["step", self.suffix, float(reward), bool(terminated or truncated), bool(is_reset)])
    def step_vector(self, actions, rewards, terminated, truncated, *, observations=None, is_reset=None):
        calls.append(["vector", self.suffix, len(rewards), None if is_reset is None else int(is_reset.sum())])
    def episode(self, *a, outcome="terminated", **k):
        calls.append(["episode", self.suffix, outcome])
    def abandon_vector_episodes(self, mask=None):
        calls.append(["abandon", self.suffix])
    def note_facts(self, **facts): pass
    def final_observation(self, *a, **k): pass
    def log(self, text, level="info"): calls.append(["log", self.suffix, text, level])

hooked_session._attach_as = lambda suffix, facts, chosen: Session(suffix, facts)
zero_edit.arm()
import gymnasium as gym
said = {}
"""
END = """
print(json.dumps({"calls": calls, "said": said}, default=str))
"""
# An environment of ten steps an episode, whose reward says which step it is.
COUNTING = """
class Counting(gym.Env):
    metadata = {"render_modes": []}
    observation_space = gym.spaces.Box(0, 100, (1,))
    action_space = gym.spaces.Discrete(2)
    at = 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return self.observation_space.low, {}
    def step(self, action):
        self.at += 1
        return self.observation_space.low, float(self.at), self.at == 10, False, {}
"""


def run(script: str, **variables: str) -> tuple[list[list[Any]], dict[str, Any]]:
    """The calls that the hook made, and what the script said."""
    command = [sys.executable, "-c", PREAMBLE + COUNTING + script + END]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, env={**os.environ, **variables}, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return found["calls"], found["said"]


def steps(calls: list[list[Any]], suffix: str = "") -> list[float]:
    """Rewards of the recorded steps of one stream, in order."""
    return [call[2] for call in calls if call[0] == "step" and call[1] == suffix]


def opened(calls: list[list[Any]]) -> list[str]:
    """Suffixes of the streams, in the order of their opening."""
    return [call[1] for call in calls if call[0] == "open"]


# ---- what is recorded ------------------------------------------------------------------------------------


def test_an_environment_that_no_registry_made_is_recorded() -> None:
    """A class of the script's own, without `make` and without a wrapper."""
    calls, _ = run("env = Counting(); env.reset()\nfor _ in range(10): env.step(0)")
    assert steps(calls) == list(range(1, 11))
    assert [call[3] for call in calls if call[0] == "step"] == [False] * 9 + [True]


def test_a_reset_in_mid_episode_abandons_it() -> None:
    """The episode is told before the next one begins."""
    calls, _ = run("env = Counting(); env.reset(); env.step(0); env.reset(); env.step(0)")
    kinds = [call[0] for call in calls]
    assert kinds == ["open", "episode", "step", "episode", "step"]


SKIPPING = """
class Skip(gym.Wrapper):
    def step(self, action):
        for _ in range(5):
            found = self.env.step(action)
        return found
gym.register("Counting-v0", Counting, max_episode_steps=100)
env = Skip(gym.make("Counting-v0")); env.reset()
env.step(0); env.step(0)
"""


def test_the_recorded_layer_is_what_the_script_steps() -> None:
    """Behind a frame skip two steps are two; the run's facts name the layers."""
    calls, _ = run(SKIPPING)
    assert steps(calls) == [5, 10]
    assert str(calls[0][2]["layer"]).startswith("Skip<TimeLimit<")


def test_the_layer_that_make_returned_can_be_recorded_instead() -> None:
    """`attach.layer = "make"`: before the script wrapped it."""
    calls, _ = run(SKIPPING, RUNLANE_ATTACH__LAYER="make")
    assert steps(calls) == list(range(1, 11))


def test_a_wrapper_that_only_resets_in_its_step_makes_a_reset_step() -> None:
    """Gymnasium's Autoreset behind another wrapper: the step after an end moves nothing."""
    script = "from gymnasium.wrappers import Autoreset, TimeLimit, RecordEpisodeStatistics\n"
    script += "env = RecordEpisodeStatistics(Autoreset(TimeLimit(Counting(), 100))); env.reset()\n"
    script += "for _ in range(13): env.step(0)"
    calls, _ = run(script)
    flags = [call[4] for call in calls if call[0] == "step"]
    assert flags == [False] * 10 + [True] + [False] * 2


# ---- vector environments ---------------------------------------------------------------------------------


def test_parts_of_a_vector_environment_are_streams_of_their_own() -> None:
    """And the vector environment itself is none, though its wrapper steps it."""
    script = (
        "from gymnasium.vector import SyncVectorEnv\nfrom gymnasium.wrappers.vector import RecordEpisodeStatistics\n"
    )
    script += "envs = RecordEpisodeStatistics(SyncVectorEnv([Counting] * 3)); envs.reset()\n"
    script += "for _ in range(12): envs.step(envs.action_space.sample())\nenvs.close()"
    calls, _ = run(script)
    assert opened(calls) == ["", "1", "2"]
    assert steps(calls, "2") == [*range(1, 11), 1]
    assert not [call for call in calls if call[0] == "vector"]


def test_a_native_vector_environment_is_one_stream_with_its_resets_flagged() -> None:
    """CartPoleVectorEnv steps no environments: its own step is recorded."""
    script = (
        "envs = gym.make_vec('CartPole-v1', num_envs=4, vectorization_mode='vector_entry_point'); envs.reset(seed=1)\n"
    )
    script += "ended = 0\nfor _ in range(60):\n    found = envs.step(envs.action_space.sample())\n"
    script += "    said['resets'] = ended\n    ended += int((found[2] | found[3]).sum())\n"
    calls, said = run(script)
    rows = [call for call in calls if call[0] == "vector"]
    assert len(rows) == 60
    assert {row[2] for row in rows} == {4}
    assert sum(row[3] for row in rows) == said["resets"] > 0
    assert calls[0][2]["autoreset_mode"] == "NextStep"


# ---- one stream after another ----------------------------------------------------------------------------


def test_an_environment_for_each_episode_is_one_stream() -> None:
    """Closed, or dropped without a word: the next one of its kind goes on where it ended. Another kind does not."""
    script = "import gc\nfor number in range(6):\n    env = Counting(); env.reset(); env.step(0)\n"
    script += "    if number % 2: env.close()\n    del env; gc.collect()\n"
    script += "class Other(Counting): pass\nother = Other(); other.reset(); other.step(0)"
    calls, _ = run(script)
    assert opened(calls) == ["", "1"]
    assert len(steps(calls)) == 6


def test_a_copy_made_in_mid_episode_is_left_alone_until_it_is_reset() -> None:
    """As planners make them; the original goes on by itself, and copies and pickles are what they were."""
    script = (
        "import copy, cloudpickle, pickle\nenv = gym.wrappers.TimeLimit(Counting(), 100); env.reset(); env.step(0)\n"
    )
    script += "for one in (copy.deepcopy(env), pickle.loads(cloudpickle.dumps(env))):\n    one.step(0); one.step(0)\n"
    script += "    said['at'] = one.unwrapped.at\nenv.step(0)\nsaid['own'] = env.unwrapped.at\none.reset(); one.step(0)"
    calls, said = run(script)
    assert said == {"at": 3, "own": 2}
    assert steps(calls) == [1, 2]
    assert steps(calls, "1") == [1]


@pytest.mark.parametrize("parameters", ["action", "act", "action, /", "action=0", "*action", "action, **more"])
def test_a_step_is_recorded_however_its_argument_is_called(parameters: str) -> None:
    """Given by place or by its name, as its own `step` takes it; a call it does not take fails as it would."""
    name = "act" if parameters == "act" else "action"
    by_name = "" if "/" in parameters or "*action" in parameters else f"env.step({name}=1)"
    script = f"""
class Own(Counting):
    def step(self, {parameters}): return Counting.step(self, 0)
env = Own(); env.reset(); env.step(1)
{by_name}
try: env.step(1, wrong=2) if {"**" in parameters} is False else Counting().step()
except TypeError as error: said["error"] = str(error)
env.step(1)
"""
    calls, said = run(script)
    assert "argument" in said["error"]
    assert steps(calls) == ([1, 2, 3] if by_name else [1, 2])


def test_a_step_after_one_that_raised_is_recorded_again() -> None:
    """In the layer that the script calls, however deep the error was."""
    script = """
class Failing(Counting):
    def step(self, action):
        if action: raise KeyError("mine")
        return super().step(action)
env = gym.wrappers.TimeLimit(gym.wrappers.OrderEnforcing(Failing()), 9); env.reset()
for action in (0, 1, 0, 1, 0):
    try: env.step(action)
    except KeyError: pass
"""
    assert steps(run(script)[0]) == [1, 2, 3]


def test_an_environment_that_holds_what_it_resets_makes_a_reset_step() -> None:
    """No wrapper of Gymnasium's kind: it moves nothing itself, but when it steps what it holds, that moves."""
    script = """
class Holder(gym.Env):
    observation_space, action_space = Counting.observation_space, Counting.action_space
    def __init__(self): self.env, self.is_over = Counting(), False
    def reset(self, *, seed=None, options=None):
        self.is_over = False
        return self.env.reset()
    def step(self, action):
        if self.is_over:
            return (*self.reset()[:1], 0.0, False, False, {})
        *others, self.is_over, cut, info = self.env.step(action)
        return (*others, self.is_over, cut, info)
env = gym.wrappers.TimeLimit(Holder(), 100); env.reset()
for _ in range(13): env.step(0)
"""
    calls, _ = run(script)
    assert [call[4] for call in calls if call[0] == "step"] == [False] * 10 + [True] + [False] * 2


# ---- nothing else changes --------------------------------------------------------------------------------


def test_an_environment_looks_and_raises_as_before() -> None:
    """Same type, same text, same signature, same exception; a step that raised is not recorded."""
    script = """
import inspect
class Failing(Counting):
    def step(self, action):
        raise KeyError("mine")
env = Failing(); env.reset()
try: env.step(0)
except KeyError as error: said["error"] = error.args
env = gym.wrappers.TimeLimit(Counting(), 9)
said["text"] = str(env)
said["type"] = type(env).__module__
said["signature"] = str(inspect.signature(env.unwrapped.step))
"""
    calls, said = run(script)
    assert said["error"] == ["mine"]
    assert said["text"].startswith("<TimeLimit<Counting")
    assert said["type"] == "gymnasium.wrappers.common"
    assert said["signature"] == "(action)"
    assert steps(calls) == []


def test_a_fault_of_ours_is_no_matter_of_the_scripts() -> None:
    """A session that raises in every call is told of once, on standard error."""
    script = "def fail(*a, **k): raise RuntimeError('ours')\nSession.step = fail\n"
    script += "env = Counting(); env.reset()\nfor _ in range(3): said['reward'] = env.step(0)[1]"
    _, said = run(script)
    assert said["reward"] == 3


def test_what_lies_on_a_device_is_never_read() -> None:
    """A tensor on a GPU that raises when anybody looks at it: said once, and the step goes on."""
    script = """
class Tensor:
    device = "cuda:0"
    def _no(self, *a): raise AssertionError("read")
    item = cpu = __float__ = __bool__ = __array__ = __len__ = __iter__ = _no
class OnDevice(Counting):
    def step(self, action): return Tensor(), Tensor(), False, False, {}
env = OnDevice(); env.reset(); env.step(0); env.step(0)
"""
    calls, _ = run(script)
    assert [call[0] for call in calls] == ["open", "episode", "log"]
    assert "cuda:0" in calls[-1][2]


def test_an_environment_that_the_script_records_itself_is_recorded_once() -> None:
    """`wrap()` under `runlane run`, around a scalar environment and a vector one."""
    script = """
from runlane.workers import wrap
from gymnasium.vector import SyncVectorEnv
own = Session("own", {})
env = wrap(Counting(), session=own); env.reset(); env.step(0)
envs = wrap(SyncVectorEnv([Counting] * 2), session=own); envs.reset(); envs.step(envs.action_space.sample())
"""
    calls, _ = run(script)
    assert opened(calls) == ["own"]
    assert steps(calls, "own") == [1]
    assert [call[2] for call in calls if call[0] == "vector"] == [2]


def test_a_constructor_that_fails_is_called_once_and_its_error_is_its_own() -> None:
    """Only where pixels are what fails is the environment made as the script asked for it."""
    script = """
class Failing(Counting):
    metadata = {"render_modes": ["rgb_array"]}
    def __init__(self, render_mode=None):
        said["made"] = said.get("made", 0) + 1
        raise FileNotFoundError("mine")
gym.register("Failing-v0", Failing)
try: gym.make("Failing-v0")
except FileNotFoundError as error: said["context"] = str(error.__context__)
class Blind(Counting):
    metadata = {"render_modes": ["rgb_array"]}
    def __init__(self, render_mode=None):
        if render_mode: raise RuntimeError("no EGL display here")
gym.register("Dark-v0", Blind)
said["mode"] = gym.make("Dark-v0").render_mode
"""
    _, said = run(script)
    assert said == {"made": 1, "context": "None", "mode": None}


def test_an_environment_that_was_only_reset_is_not_kept_alive() -> None:
    """Closed and dropped, it is gone."""
    script = "import gc, weakref\nenv = gym.wrappers.TimeLimit(Counting(), 9); env.reset()\n"
    script += "gone = weakref.ref(env.unwrapped); env.close(); del env; gc.collect(); said['is_gone'] = gone() is None"
    _, said = run(script)
    assert said == {"is_gone": True}


# ---- numbers and ends ------------------------------------------------------------------------------------


def test_a_step_that_resets_what_it_wraps_is_a_step_all_the_same() -> None:
    """A bandit: every step is an episode, and begins the next one of what is inside. No Autoreset."""
    script = """
class Bandit(gym.Wrapper):
    def step(self, action):
        self.env.reset()
        return self.observation_space.low, 1.0, True, False, {}
env = Bandit(Counting())
for _ in range(3): env.reset(); env.step(0)
"""
    calls, _ = run(script)
    assert [call[2:] for call in calls if call[0] == "step"] == [[1, True, False]] * 3


def test_steps_after_a_close_are_recorded() -> None:
    """Some environments close only a window."""
    calls, _ = run("env = Counting(); env.reset(); env.step(0); env.close(); env.step(0); env.reset(); env.step(0)")
    assert steps(calls) == [1, 2, 1]
    assert opened(calls) == [""]


@pytest.mark.parametrize(("reward", "found"), [("np.ones(1)", 1.0), ("np.ones((1, 1))", 1.0), ("np.ones(3)", None)])
def test_a_reward_that_is_an_array_loses_no_step(reward: str, found: float | None) -> None:
    """Of one it is that one; of several it is not a number, and is told once."""
    script = "import numpy as np\nclass Odd(Counting):\n"
    script += f"    def step(self, action): return 0, {reward}, True, False, {{}}\n"
    script += "env = Odd(); env.reset()\nfor _ in range(3): env.step(0)"
    calls, _ = run(script)
    kept = steps(calls)
    assert len(kept) == 3
    assert all(reward == found if found else math.isnan(reward) for reward in kept)
    assert len([call for call in calls if call[0] == "log"]) == (0 if found else 1)


def test_flags_on_a_device_are_not_read_either() -> None:
    """A plain reward, and ends on the GPU."""
    script = """
class Flag:
    device = "cuda:0"
    def __bool__(self): raise AssertionError("read")
class Flagged(Counting):
    def step(self, action): return 0, 1.0, Flag(), Flag(), {}
env = Flagged(); env.reset(); env.step(0)
"""
    calls, _ = run(script)
    assert [call[0] for call in calls] == ["open", "episode", "log"]


# ---- streams and what they say ---------------------------------------------------------------------------


def test_other_arguments_are_another_stream() -> None:
    """Of one id: what the run says of its environment stays true."""
    script = "for limit in (5, 9, 5):\n    env = gym.make('CartPole-v1', max_episode_steps=limit)\n"
    script += "    env.reset(); env.step(0); env.close()"
    calls, _ = run(script)
    assert opened(calls) == ["", "1"]
    assert [call[2]["max_episode_steps"] for call in calls if call[0] == "open"] == [5, 9]


def test_scalars_stay_in_the_stream_that_they_began_in() -> None:
    """Also where the first environment comes after the first scalar."""
    script = "one = hooked_session.session_for_metrics()\nenv = Counting(); env.reset()\n"
    script += "said['same'] = hooked_session.session_for_metrics() is one"
    calls, said = run(script)
    assert opened(calls) == ["metrics", ""]
    assert said == {"same": True}


def test_where_descriptors_are_short_training_goes_on_and_the_run_says_so() -> None:
    """ZeroMQ would end the process that has none left."""
    script = "import resource\nenv = Counting(); env.reset(); env.step(0)\n"
    script += "resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))\nlater = [Counting() for _ in range(3)]\n"
    script += "for one in later: one.reset(); said['at'] = one.step(0)[1]"
    calls, said = run(script)
    assert said == {"at": 1}
    assert opened(calls) == [""]
    assert [call[3] for call in calls if call[0] == "log"] == ["error"]


# ---- pixels ----------------------------------------------------------------------------------------------

ASKING = """
said["none"] = gym.make("CartPole-v1").render_mode
said["own"] = gym.make("FrozenLake-v1", render_mode="ansi").render_mode
gym.register("Blind-v0", Counting)
said["blind"] = gym.make("Blind-v0").render_mode
"""


@pytest.mark.parametrize(
    ("variables", "found"),
    [({}, "rgb_array"), ({"RUNLANE_ATTACH__RENDER": "false"}, None), ({"FASTLANE_VIDEO_MODE": "off"}, None)],
)
def test_make_asks_for_pixels_only_where_the_script_asked_for_nothing(
    variables: dict[str, str], found: str | None
) -> None:
    """And only where the environment has them, and nobody has switched it off."""
    _, said = run(ASKING, **variables)
    assert said == {"none": found, "own": "ansi", "blind": None}
