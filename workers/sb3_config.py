"""What a Stable-Baselines3 model says of itself: its hyper-parameters and its environment, as plain values."""

import inspect
from collections.abc import Mapping
from typing import Any, cast

_PLAIN = (str, bool, int, float, type(None))
# Not hyper-parameters, or told otherwise.
_LEFT_OUT = {"self", "env", "policy", "_init_setup_model", "tensorboard_log", "verbose", "monitor_wrapper"}


def config_of(model: Any, total_timesteps: Any = None) -> dict[str, Any]:
    """The arguments that the algorithm's class was made with, by name, and what it trains on. Never raises."""
    found: dict[str, Any] = {
        "algorithm": type(model).__name__,
        "policy": _name_of(getattr(model, "policy_class", None)),
        "n_envs": getattr(model, "n_envs", None),
    }
    if isinstance(total_timesteps, int):
        found["total_timesteps"] = total_timesteps
    for name in _parameters_of(model):
        if name not in _LEFT_OUT and hasattr(model, name):
            found[name] = _plain(getattr(model, name))
    found["environment"] = _environment_of(model)
    return found


def _parameters_of(model: Any) -> list[str]:
    try:
        return list(inspect.signature(model.__class__).parameters)
    except (TypeError, ValueError):  # a subclass of somebody's own, of odd make
        return []


def _environment_of(model: Any) -> dict[str, Any]:
    """The id, where the environments live here: those in other processes are not asked, for a question may end them."""
    found: dict[str, Any] = {}
    try:
        vec_env = model.get_env()
        bare = vec_env.unwrapped
        found = {"vec_env": type(bare).__name__, "observation_space": str(vec_env.observation_space)}
        found["action_space"] = str(vec_env.action_space)
        spec = getattr(bare.envs[0], "spec", None) if hasattr(bare, "envs") else None
        if spec is not None:
            found |= {"id": str(spec.id), "max_episode_steps": spec.max_episode_steps, "kwargs": _plain(spec.kwargs)}
    except Exception as error:  # an environment may do anything when it is asked for an attribute
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def _plain(value: Any) -> Any:
    """A value without addresses in memory: the same settings give the same text."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value)
        return {str(name): _plain(each) for name, each in pairs.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, type) or inspect.isroutine(value):
        return _name_of(value)
    text = str(value)  # `TrainFreq(...)`, `FloatSchedule(ConstantSchedule(val=0.2))`, `cpu`
    return _name_of(type(value)) if " at 0x" in text else text


def _name_of(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__qualname__))
