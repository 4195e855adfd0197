"""Records vector environments that step no environments of their own kind: CartPoleVectorEnv, AtariVectorEnv.

Those made of environments (SyncVectorEnv, AsyncVectorEnv) are left to them: each part is a stream of its own. Which it
is shows when it is first reset or stepped: either environments were called meanwhile, or they live in processes. Calls
by other threads count only where they are those of its parts: a script may well evaluate in a thread while it trains.
"""

import os
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from runlane.workers import hooked_session
from runlane.workers.gymnasium_hook import (
    MARK,
    facts_of,
    hooked,
    hooks_with,
    in_place_of,
    kind_of,
    observation_of,
    patch_family,
    patch_methods,
    takes_only,
)
from runlane.workers.hook_place import place, total_recorded, vectors
from runlane.workers.layer_table import LayerTable

IN_PROCESSES = "AsyncVectorEnv"
_PARTS_DEPTH = 4  # as `envs.pool.workers[0].env`
_MAX_HELD = 10_000  # objects to look at in search of parts


def patch_vector(module: ModuleType) -> None:
    """`gymnasium.vector.vector_env` has been executed."""
    hooked_session.mark_armed()
    vector_class = module.VectorEnv
    if getattr(vector_class, "__runlane_vector__", False):
        return
    vector_class.__runlane_vector__ = True
    _patch_class(vector_class)  # before Gymnasium 1.0 it had a step of its own
    patch_family(vector_class, _patch_class)


def _patch_class(each: type) -> None:
    patch_methods(each, {"step": _hooked_step, "reset": hooks_with(call_reset), "close": hooks_with(call_close)})


def _hooked_step(method: Any) -> Callable[..., Any]:
    """A `step` that goes through `call_step`, unless it is known already that the parts record."""
    if not takes_only(method, "actions"):
        return hooked(method, call_step)

    @in_place_of(method)
    def through(self: Any, actions: Any) -> Any:
        here = place.here
        if here.vector_depth:
            return method(self, actions)
        if here.depth or here.left or here.vectors.get(id(self), self) is not None:
            return call_step(method, self, (actions,), {})
        here.vector_depth = 1
        try:
            return method(self, actions)
        finally:
            here.vector_depth = 0

    return through


class VectorStream:
    """One vector environment and its session."""

    def __init__(self, env: Any, seed: Any) -> None:
        """Open a session, or take one that was given back."""
        from runlane.workers.env_recorder import VectorRecorder

        kind = kind_of(env, getattr(env, "unwrapped", env))
        self.hooked = hooked_session.open_session(f"{kind}*{env.num_envs}", lambda: facts_of(env, seed))
        self.pid = os.getpid()
        self.recorder = VectorRecorder(
            self.hooked.session, weakref.proxy(env), hooked_session.records_observations(), False
        )

    def close(self) -> None:
        """The environment is closed or gone."""
        self.recorder.close()
        self.recorder.session.abandon_vector_episodes()
        if self.pid == os.getpid():
            hooked_session.give_back(self.hooked)


def _on_gone(stream: VectorStream) -> None:
    hooked_session.note_gone(stream.close)


_table: LayerTable[VectorStream] = LayerTable(_on_gone, vectors)


def call_step(step: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Step all, and record it where the script has called and nobody else records."""
    result, is_outermost = _call(step, env, arguments, options)
    if is_outermost:
        try:
            stream = _stream_of(env, None)
            if stream is not None:
                stream.recorder.note_step(arguments[0] if arguments else options.get("actions"), result)
        except Exception as error:
            hooked_session.count_fault(error)
    return result


def call_reset(reset: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Reset all, or those of a mask."""
    mask = mask_of(options.get("options"))  # before: Gymnasium takes it out of the map
    result, is_outermost = _call(reset, env, arguments, options)
    if is_outermost:
        try:
            stream = _stream_of(env, options.get("seed"))
            if stream is not None:
                stream.recorder.note_reset(observation_of(result), mask)
        except Exception as error:
            hooked_session.count_fault(error)
    return result


def mask_of(options: Any) -> Any:
    """Which parts are reset, None for all. Gymnasium wants a map of options, another may want a list of such."""
    given: Any = options
    is_map = isinstance(options, dict)
    return given.get("reset_mask") if is_map else None


def call_close(close: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Close, and let the stream go."""
    if place.here.vector_depth:
        return close(env, *arguments, **options)
    try:
        return _call_outermost(close, env, arguments, options)
    finally:
        try:
            stream = _table.pop(env)
            if stream is not None:
                stream.close()
        except Exception as error:
            hooked_session.count_fault(error)


def _call(method: Callable[..., Any], env: Any, arguments: Any, options: Any) -> tuple[Any, bool]:
    """What the method returns, and whether it is the call of a script: neither a vector environment's nor a scalar's.

    What a scalar environment steps to make its own step is recorded as that. A wrapper around a vector environment is
    none, though before Gymnasium 1.0 it was an environment.
    """
    here = place.here
    if here.vector_depth or (here.depth and not here.outer_is_vector):
        return method(env, *arguments, **options), False
    return _call_outermost(method, env, arguments, options), True


def _call_outermost(method: Callable[..., Any], env: Any, arguments: Any, options: Any) -> Any:
    """What the method returns. If it steps parts that are recorded, or the script records it, it has no stream."""
    here = place.here
    is_new = id(env) not in _table.streams
    is_left = hooked_session.is_left(getattr(env, "unwrapped", env))
    if is_new and is_left:
        _leave_parts(env)
    depth, recorded, others = here.depth, here.recorded, total_recorded[0] - here.recorded
    here.vector_depth = 1
    here.depth = 1 if is_left else 0  # parts that this thread steps are called by no environment, even inside a wrapper
    try:
        result = method(env, *arguments, **options)
    finally:
        here.vector_depth, here.depth = 0, depth
    if here.recorded != recorded or is_left or (is_new and _has_called_parts(env, others)):
        _table.remember(env, None)
    return result


# ---- parts that other threads step ----


def _has_called_parts(env: Any, others: int) -> bool:
    """Whether threads of a vector environment have just called its parts, after `others` calls by other threads.

    Where it holds no part that can be found, the first calls of other threads tell, one for each part.
    """
    calls = total_recorded[0] - place.here.recorded - others
    if not calls:
        return False
    try:
        return (not others and calls == env.num_envs) or bool(_parts_of(env))
    except Exception as error:
        hooked_session.count_fault(error)
        return False


def _leave_parts(env: Any) -> None:
    """The script records a vector environment: no thread of it is to record a part."""
    try:
        for part in _parts_of(env):
            hooked_session.leave(part)
    except Exception as error:
        hooked_session.count_fault(error)


def _parts_of(env: Any) -> list[Any]:
    """The environments that a vector environment holds, itself or by what it holds."""
    parts: list[Any] = []
    level: list[Any] = [getattr(env, "unwrapped", env)]
    for _ in range(_PARTS_DEPTH):
        level = [inner for each in level for inner in _held_by(each)][:_MAX_HELD]
        parts += [each for each in level if _is_env(each)]
        level = [each for each in level if not _is_env(each)]
    return parts


def _is_env(each: object) -> bool:
    return hasattr(type(each), MARK)


def _held_by(each: Any) -> list[Any]:
    kind: Any = each.__class__
    if kind in (list, tuple, set, frozenset, dict):
        return list(each.values() if kind is dict else each)
    if isinstance(each, type | ModuleType | FunctionType):  # all the world hangs on those
        return []
    held: dict[str, Any] = getattr(each, "__dict__", {})
    return list(held.values())


def _stream_of(env: Any, seed: Any) -> "VectorStream | None":
    streams = _table.streams
    if id(env) in streams:
        return streams[id(env)]
    root = getattr(env, "unwrapped", env)
    stream = streams.get(id(root))
    if stream is None and not any(base.__name__ == IN_PROCESSES for base in type(root).__mro__):
        stream = VectorStream(env, seed)
        _table.remember(root, stream)
    _table.remember(env, stream)
    return stream
