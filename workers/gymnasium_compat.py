"""Scripts written for Gymnasium 0.29 on Gymnasium 1.x: opt-in, with `RUNLANE_COMPAT=1` or a worker's `--compat`.

Public one-file trainings, CleanRL's above all, are pinned to 0.29.1. On 1.x some end with an error, and others train on
but print no episode: the environments of a vector environment are reset one step later, `final_info` became a map of
arrays, wrappers got other names and arguments. This puts back what such scripts use, so that they print the same
episodes for the same seed. It changes what they compute as well as 0.29 would: statistics are float64, as they were.
"""

# The classes this derives from have no types here: what they are depends on the version.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportCallIssue=false

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import vector as vector_wrappers

_Wrapper: Any = gymnasium.Wrapper
_wrappers: Any = gymnasium.wrappers
_vector: Any = gymnasium.vector
_RunningMeanStd: Any = import_module("gymnasium.wrappers.utils").RunningMeanStd
_FIRST_VERSION = 1
_DONE = "_runlane_compat"


def patch(module: Any) -> None:
    """Put 0.29's names and behaviour into the imported package `gymnasium`; nothing where it is 0.29 itself."""
    if int(str(module.__version__).split(".", 1)[0]) < _FIRST_VERSION or hasattr(module, _DONE):
        return
    setattr(module, _DONE, True)
    for name, wrapper in WRAPPERS.items():
        setattr(module.wrappers, name, wrapper)
    for name, kind, home in (
        ("SyncVectorEnv", SyncVectorEnv, "sync_vector_env"),
        ("AsyncVectorEnv", AsyncVectorEnv, "async_vector_env"),
    ):
        setattr(module.vector, name, kind)
        setattr(import_module(f"gymnasium.vector.{home}"), name, kind)
    module.vector.VectorEnvWrapper = module.vector.VectorWrapper
    module.vector.make = make
    module.vector.VectorEnv.is_vector_env = True
    module.Env.reward_range = (-float("inf"), float("inf"))
    module.Wrapper.__getattr__ = _attribute_of_inner
    with suppress(Exception):
        import_module("ale_py")  # 0.29 found its environments by itself


def _attribute_of_inner(wrapper: Any, name: str) -> Any:
    """An attribute of what is wrapped, as 0.29 looked it up."""
    if name.startswith("_") or name == "env":
        raise AttributeError(f"{type(wrapper).__name__!r} object has no attribute {name!r}")
    return getattr(wrapper.env, name)


# ---- vector environments ---------------------------------------------------------------------------------


class _OldInfos:
    """Reset inside the step that ends an episode, and tell of it as 0.29 did: `final_observation`, `final_info`."""

    num_envs: int

    def _add_info(self, vector_infos: dict[str, Any], env_info: Mapping[str, Any], env_num: int) -> dict[str, Any]:
        """One array for each key, of numbers or of objects, and a mask beside it; maps are objects, too."""
        for given, value in env_info.items():
            key = "final_observation" if given == "final_obs" else given
            if key not in vector_infos:
                is_number = type(value) in (int, float, bool) or isinstance(value, np.number)
                column: Any = np.zeros(self.num_envs, type(value) if is_number else object)
                if not is_number:
                    column[:] = None
                vector_infos[key], vector_infos[f"_{key}"] = column, np.zeros(self.num_envs, bool)
            vector_infos[key][env_num], vector_infos[f"_{key}"][env_num] = value, True
        return vector_infos


class SyncVectorEnv(_OldInfos, _vector.SyncVectorEnv):  # type: ignore[misc]
    """0.29's arguments and 0.29's resets."""

    def __init__(
        self,
        env_fns: Any,
        observation_space: Any = None,
        action_space: Any = None,
        copy: bool = True,
        **options: Any,
    ) -> None:
        """`options` are those of 1.x."""
        options.setdefault("autoreset_mode", AutoresetMode.SAME_STEP)
        super().__init__(list(env_fns), copy=copy, **options)
        _use_spaces(self, observation_space, action_space)


class AsyncVectorEnv(_OldInfos, _vector.AsyncVectorEnv):  # type: ignore[misc]
    """0.29's arguments and 0.29's resets."""

    def __init__(
        self,
        env_fns: Any,
        observation_space: Any = None,
        action_space: Any = None,
        *arguments: Any,
        **options: Any,
    ) -> None:
        """`arguments` and `options` are those of 1.x, from `shared_memory` on."""
        options.setdefault("autoreset_mode", AutoresetMode.SAME_STEP)
        super().__init__(list(env_fns), *arguments, **options)
        _use_spaces(self, observation_space, action_space)


def _use_spaces(envs: Any, observation_space: Any, action_space: Any) -> None:
    """Spaces that the script gave for a single environment."""
    batch_space = _vector.utils.batch_space
    for name, space in (("observation_space", observation_space), ("action_space", action_space)):
        if space is not None:
            setattr(envs, f"single_{name}", space)
            setattr(envs, name, batch_space(space, envs.num_envs))


def make(id: str, num_envs: int = 1, asynchronous: bool = True, wrappers: Any = None, **options: Any) -> Any:  # noqa: A002
    """`gymnasium.vector.make`, which 1.0 took out."""
    chain = [] if wrappers is None else [wrappers] if callable(wrappers) else list(wrappers)

    def make_one() -> Any:
        env: Any = gymnasium.make(id, **options)
        for wrapper in chain:
            env = wrapper(env)
        return env

    kind = AsyncVectorEnv if asynchronous else SyncVectorEnv
    return kind([make_one] * num_envs)


# ---- wrappers --------------------------------------------------------------------------------------------


class _OfVectorToo:
    """A wrapper that was for both kinds of environment; for a vector environment 1.x has another of the same name."""

    def __new__(cls, env: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(env, VectorEnv):
            return getattr(vector_wrappers, cls.__name__)(env, *arguments, **options)
        return super().__new__(cls)


class RecordEpisodeStatistics(_OfVectorToo, _Wrapper, RecordConstructorArgs):  # type: ignore[misc]
    """`info["episode"]` with arrays of one element, and the queues that 0.29 had."""

    def __init__(self, env: Any, deque_size: int = 100) -> None:
        """`deque_size` episodes are kept in the queues."""
        from collections import deque

        RecordConstructorArgs.__init__(self, deque_size=deque_size)
        _Wrapper.__init__(self, env)
        self.num_envs = 1
        self.is_vector_env = False
        self.episode_count = 0
        self.return_queue: Any = deque(maxlen=deque_size)
        self.length_queue: Any = deque(maxlen=deque_size)
        self._begin()

    def _begin(self) -> None:
        self.episode_start_times = np.full(1, _seconds(), np.float32)
        self.episode_returns = np.zeros(1, np.float32)
        self.episode_lengths = np.zeros(1, np.int32)

    def reset(self, **options: Any) -> Any:
        """Reset, and count anew."""
        result = super().reset(**options)
        self._begin()
        return result

    def step(self, action: Any) -> Any:
        """Step and count; the step that ends an episode tells of it."""
        result = self.env.step(action)
        _, reward, terminated, truncated, info = result
        self.episode_returns += np.float32(reward)
        self.episode_lengths += 1
        if terminated or truncated:
            seconds = np.round(_seconds() - self.episode_start_times, 6)
            info["episode"] = {"r": self.episode_returns.copy(), "l": self.episode_lengths.copy(), "t": seconds}
            self.return_queue.append(self.episode_returns.copy())
            self.length_queue.append(self.episode_lengths.copy())
            self.episode_count += 1
            self._begin()
        return result


class NormalizeObservation(_OfVectorToo, _Wrapper, RecordConstructorArgs):  # type: ignore[misc]
    """Running mean and variance in float64, and observations of that type, as in 0.29."""

    def __init__(self, env: Any, epsilon: float = 1e-8) -> None:
        """`epsilon` keeps the division away from zero."""
        RecordConstructorArgs.__init__(self, epsilon=epsilon)
        _Wrapper.__init__(self, env)
        self.obs_rms = _RunningMeanStd(shape=env.observation_space.shape)
        self.epsilon = epsilon

    def reset(self, **options: Any) -> Any:
        """Reset; the first observation counts like any other."""
        observation, info = super().reset(**options)
        return self.normalize(np.array([observation]))[0], info

    def step(self, action: Any) -> Any:
        """Step, and normalise."""
        observation, *rest = self.env.step(action)
        return (self.normalize(np.array([observation]))[0], *rest)

    def normalize(self, obs: Any) -> Any:
        """Take a batch into the statistics, and return it normalised."""
        self.obs_rms.update(obs)
        return (obs - self.obs_rms.mean) / np.sqrt(self.obs_rms.var + self.epsilon)


class NormalizeReward(_OfVectorToo, _wrappers.NormalizeReward):  # type: ignore[misc]
    """The same in both, but for vector environments."""


class TransformObservation(_OfVectorToo, _wrappers.TransformObservation):  # type: ignore[misc]
    """The function was called `f`, and the space stayed what it was."""

    def __init__(self, env: Any, f: Any = None, observation_space: Any = None, *, func: Any = None) -> None:
        """As in either version."""
        super().__init__(env, f or func, observation_space or env.observation_space)


class TransformReward(_OfVectorToo, _wrappers.TransformReward):  # type: ignore[misc]
    """The function was called `f`."""

    def __init__(self, env: Any, f: Any = None, *, func: Any = None) -> None:
        """As in either version."""
        super().__init__(env, f or func)


class ClipAction(_OfVectorToo, gymnasium.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """The action space stays that of the environment."""

    def __init__(self, env: Any) -> None:
        """`env` takes actions of a `Box`."""
        RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def action(self, action: Any) -> Any:
        """The action within the space's bounds."""
        space: Any = self.env.action_space
        return np.clip(action, space.low, space.high)


class FrameStack(_wrappers.FrameStackObservation):  # type: ignore[misc]
    """`FrameStackObservation`, which fills up with the first frame, too."""

    def __init__(self, env: Any, num_stack: int, lz4_compress: bool = False) -> None:  # noqa: ARG002
        """Frames are copied, never compressed."""
        super().__init__(env, num_stack)


class GrayScaleObservation(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Gray by OpenCV, whose weights 1.x does not use."""

    def __init__(self, env: Any, keep_dim: bool = False) -> None:
        """`keep_dim` leaves a third dimension of size 1."""
        RecordConstructorArgs.__init__(self, keep_dim=keep_dim)
        super().__init__(env)
        self.keep_dim = keep_dim
        shape = env.observation_space.shape[:2] + ((1,) if keep_dim else ())
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def observation(self, observation: Any) -> Any:
        """The picture in gray."""
        cv2: Any = import_module("cv2")
        gray = cv2.cvtColor(observation, cv2.COLOR_RGB2GRAY)
        return np.expand_dims(gray, -1) if self.keep_dim else gray


class ResizeObservation(_wrappers.ResizeObservation):  # type: ignore[misc]
    """One number stood for both sides."""

    def __init__(self, env: Any, shape: Any) -> None:
        """`shape` is (height, width), or the side of a square."""
        super().__init__(env, (shape, shape) if isinstance(shape, int) else tuple(shape))


class RecordVideo(_wrappers.RecordVideo):  # type: ignore[misc]
    """The seventh argument was `disable_logger`."""

    def __init__(
        self,
        env: Any,
        video_folder: str,
        episode_trigger: Callable[[int], bool] | None = None,
        step_trigger: Callable[[int], bool] | None = None,
        video_length: int = 0,
        name_prefix: str = "rl-video",
        disable_logger: bool = False,
        **options: Any,
    ) -> None:
        """`options` are those of 1.x."""
        chosen = {"video_length": video_length, "name_prefix": name_prefix, "disable_logger": disable_logger}
        super().__init__(env, video_folder, episode_trigger, step_trigger, **chosen, **options)


def _seconds() -> float:
    from time import perf_counter

    return perf_counter()


WRAPPERS: dict[str, Any] = {
    "AutoResetWrapper": _wrappers.Autoreset,
    "ClipAction": ClipAction,
    "FrameStack": FrameStack,
    "GrayScaleObservation": GrayScaleObservation,
    "NormalizeObservation": NormalizeObservation,
    "NormalizeReward": NormalizeReward,
    "PixelObservationWrapper": _wrappers.AddRenderObservation,
    "RecordEpisodeStatistics": RecordEpisodeStatistics,
    "RecordVideo": RecordVideo,
    "ResizeObservation": ResizeObservation,
    "TransformObservation": TransformObservation,
    "TransformReward": TransformReward,
}
