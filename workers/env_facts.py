"""What a run says of its environment, scalar or vector: all that is needed to make it again, as far as it tells.

Knows no library: Gymnasium, the old `gym` and whatever looks like them are asked by name; what they lack is left out.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from runlane.workers.layer_table import layers_of
from runlane.workers.plain_values import plain_map, short_text
from runlane.workers.secret import masked

MAX_SPACE_CHARACTERS = 1_000
MAX_LAYERS = 32
_OF_SPEC = ("max_episode_steps", "reward_threshold", "nondeterministic")
# Of a vector environment the spaces of one of its parts.
_SPACES = {
    "observation_space": ("single_observation_space", "observation_space"),
    "action_space": ("single_action_space", "action_space"),
}


def facts_of(env: Any, seed: Any = None) -> dict[str, Any]:
    """Id, arguments, spaces, limits, modes and layers of an environment, and the seed of its first reset. Never raises.

    `env` is the outermost layer that is known. Text under names of secrets is masked.
    """
    found: dict[str, Any] = {"id": type(env).__name__, "layer": type(env).__name__, "seed": seed}
    for tell in (_layers, _spec, _spaces, _modes):
        with contextlib.suppress(Exception):  # an environment may be anything
            found |= tell(env)
    return masked(plain_map(found))


def _layers(env: Any) -> dict[str, Any]:
    """The layers from the outermost wrapper inwards: `TimeLimit<CartPoleEnv>`."""
    names: list[str] = []
    found: dict[str, Any] = {}
    for layer, own in layers_of(env, MAX_LAYERS):
        names.append(type(layer).__name__)
        if own.get("_max_episode_steps") is not None:  # Gymnasium's TimeLimit; the innermost spec does not know it
            found["max_episode_steps"] = int(own["_max_episode_steps"])
    found["id"] = type(getattr(env, "unwrapped", env)).__name__
    return found | {"layer": "<".join(names) + ">" * (len(names) - 1)}


def _spec(env: Any) -> dict[str, Any]:
    # The innermost first: a wrapper of Gymnasium makes its spec anew when it is asked, which may fail.
    spec = getattr(getattr(env, "unwrapped", None), "spec", None) or getattr(env, "spec", None)
    if spec is None:
        return {}
    found: dict[str, Any] = {"id": str(spec.id)}
    kwargs: Mapping[str, Any] = getattr(spec, "kwargs", None) or {}
    found["kwargs"] = {name: value for name, value in kwargs.items() if name != "render_mode"}
    for name in _OF_SPEC:
        value = getattr(spec, name, None)
        if value is not None:
            found[name] = value
    return found


def _spaces(env: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, places in _SPACES.items():
        space = next((space for place in places if (space := _told_by(env, place)) is not None), None)
        if space is not None:
            found[name] = short_text(space, MAX_SPACE_CHARACTERS)
    return found


def _modes(env: Any) -> dict[str, Any]:
    root = getattr(env, "unwrapped", env)
    found: dict[str, Any] = {"render_mode": getattr(env, "render_mode", None)}
    if hasattr(root, "reward_range"):  # Gymnasium had it before 1.0
        found["reward_range"] = [float(root.reward_range[0]), float(root.reward_range[1])]
    count = _told_by(env, "num_envs")
    if count is not None:
        from runlane.workers.env_recorder import autoreset_text

        found |= {"num_envs": int(count), "autoreset_mode": autoreset_text(env)}
    return found


def _told_by(env: Any, name: str) -> Any:
    """An attribute of the layer itself, else of the innermost: wrappers of Gymnasium 0.29 pass others on, and warn."""
    is_own = hasattr(env.__class__, name) or name in getattr(env, "__dict__", {})
    return getattr(env if is_own else getattr(env, "unwrapped", env), name, None)
