"""Records every agent of every PettingZoo environment that a script steps, though nobody edited the script.

As `gymnasium_hook.py` does for environments of one agent: classes are patched, the call that the script makes is
recorded and not those it leads to, and nothing here touches random numbers, results, exceptions or output. An
environment is recorded from its first reset on, so a planner's copies in mid-episode are not. Its streams are opened at
its first step; when it is closed or gone, the next environment of its kind goes on in them.

Nobody asks for pixels here that the script did not ask for: environments do other things then. Tic-tac-toe makes a
surface of 4 MB at each reset, and Cooperative Pong, which observes its screen, sees it black without and not with it.
"""

import functools
import os
from collections.abc import Callable, Hashable
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from runlane.workers import hooked_session
from runlane.workers.gymnasium_hook import MARK, hooked, patch_family, root_of
from runlane.workers.hook_place import place
from runlane.workers.layer_table import LayerTable

if TYPE_CHECKING:
    from runlane.workers.agent_recorder import AgentStreams, ParallelRecorder, TurnRecorder

_free: "dict[str, list[HookedAgents]]" = {}  # given back, by kind of environment
_gone: "list[HookedAgents]" = []


def patch_env(module: ModuleType) -> None:
    """`pettingzoo.utils.env` has been executed: hook its environments, and all that will be derived from them."""
    hooked_session.mark_armed()
    for base, call_step in ((module.AECEnv, call_turn), (module.ParallelEnv, call_parallel)):
        if MARK not in vars(base):
            setattr(base, MARK, True)
            base.close = hooked(base.close, call_close)  # many define none of their own
            patch_family(base, functools.partial(_patch_class, base, call_step))


def _patch_class(base: type, call_step: Callable[..., Any], each: type) -> None:
    """Hook what this class defines, or takes from another that is no environment."""
    reset = call_turn_reset if call_step is call_turn else call_parallel_reset
    for name, call in (("step", call_step), ("reset", reset), ("close", call_close)):
        method = getattr(each, name, None)
        if isinstance(method, FunctionType) and not hasattr(method, MARK) and method is not vars(base).get(name):
            setattr(each, name, hooked(method, call))


# ---- streams ----


class HookedAgents:
    """The streams of one environment's agents, and what records them."""

    def __init__(self, kind: str, streams: "AgentStreams") -> None:
        """Nothing is opened before the first step."""
        self.kind, self.streams = kind, streams
        self.pid = os.getpid()
        self.recorder: TurnRecorder | ParallelRecorder | None = None

    def turns(self) -> "TurnRecorder":
        """Its recorder, where the script lets agents take turns."""
        from runlane.workers.agent_recorder import TurnRecorder

        if not isinstance(self.recorder, TurnRecorder):
            self._finish()
            self.recorder = TurnRecorder(self.streams, hooked_session.records_observations())
        return self.recorder

    def parallel(self) -> "ParallelRecorder":
        """Its recorder, where the script lets all agents act at once."""
        from runlane.workers.agent_recorder import ParallelRecorder

        if not isinstance(self.recorder, ParallelRecorder):
            self._finish()
            self.recorder = ParallelRecorder(self.streams, hooked_session.records_observations())
        return self.recorder

    def close(self) -> None:
        """The environment is closed or gone: the next one of its kind goes on here."""
        self._finish()
        if self.pid == os.getpid():
            _free.setdefault(self.kind, []).append(self)

    def _finish(self) -> None:
        if self.recorder is not None:
            self.recorder.finish()


_table: LayerTable[HookedAgents] = LayerTable(_gone.append)


def _streams_of(env: Any, seed: Any) -> HookedAgents | None:
    """Those of an environment that is reset, made now if it has none; None where it is not ours to record."""
    while _gone:
        _gone.pop().close()
    found = _known(env)
    if found is None:
        root = root_of(env)
        if hooked_session.is_left(root):
            return None
        found = _made(root, env, seed)
        _table.remember(root, found)
        _table.remember(env, found)
    return found


def _known(env: Any) -> HookedAgents | None:
    streams = _table.streams
    found = streams.get(id(env))
    if found is None:
        found = streams.get(id(root_of(env)))
        if found is not None:
            _table.remember(env, found)
    return found


def _made(root: Any, env: Any, seed: Any) -> HookedAgents:
    metadata: dict[str, Any] = getattr(root, "metadata", None) or {}
    name = str(metadata.get("name") or type(root).__name__)
    kind = f"{name}*{len(getattr(root, 'possible_agents', None) or ())}"
    free = _free.get(kind)
    if free:
        return free.pop(0)
    from runlane.workers.agent_recorder import AgentStreams, base_name, plain_agent
    from runlane.workers.env_facts import facts_of

    facts = {
        "id": name,
        "layer": facts_of(env)["layer"],
        "seed": seed,
    }  # now: streams must not keep their environment alive

    class Streams(AgentStreams):
        """The first of them takes a slot."""

        def _open_first(self, agent: Hashable) -> Any:
            first = hooked_session.open_session(kind, lambda: facts, plain_agent(agent))
            self._worker = f"{base_name()}-{first.slot}" if first.slot else base_name()
            self._worker_of(agent)
            return first.session

    return HookedAgents(kind, Streams())


# ---- calls ----


def call_turn(step: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Step the agent whose turn it is, and record it where the script itself has called."""
    here = place.here
    found = None if here.depth else _guarded(_known, env)
    if found is None:
        return _inside(step, env, arguments, options)
    recorder = found.turns()
    from runlane.workers.agent_recorder import turn_of

    acted = _guarded(turn_of, env)
    result = _inside(step, env, arguments, options)
    recorder.note_step(env, acted, arguments[0] if arguments else options.get("action"))
    return result


def call_parallel(step: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Step all agents, and record them where the script itself has called."""
    here = place.here
    found = None if here.depth else _guarded(_known, env)
    if found is None:
        return _inside(step, env, arguments, options)
    recorder = found.parallel()
    from runlane.workers.agent_recorder import alive_in

    alive = _guarded(alive_in, env) or frozenset[Hashable]()
    result = _inside(step, env, arguments, options)
    recorder.note_step(env, alive, arguments[0] if arguments else options.get("actions"), result)
    return result


def call_turn_reset(reset: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Reset, and end what was not ended, where the script itself has called."""
    found = None if place.here.depth else _guarded(_streams_of, env, _seed_of(arguments, options))
    if found is None:
        return _inside(reset, env, arguments, options)
    recorder = found.turns()
    recorder.before_reset()
    result = _inside(reset, env, arguments, options)
    recorder.note_reset(env)
    return result


def call_parallel_reset(
    reset: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Reset, and end what was not ended, where the script itself has called."""
    found = None if place.here.depth else _guarded(_streams_of, env, _seed_of(arguments, options))
    if found is None:
        return _inside(reset, env, arguments, options)
    recorder = found.parallel()
    recorder.before_reset()
    result = _inside(reset, env, arguments, options)
    recorder.note_reset(result)
    return result


def call_close(close: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Close, and let the streams go."""
    try:
        return _inside(close, env, arguments, options)
    finally:
        if not place.here.depth:
            _guarded(_let_go, env)


def _let_go(env: Any) -> None:
    found = _table.pop(env) or _table.pop(root_of(env))
    if found is not None:
        found.close()


def _inside(method: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call it; what it calls in turn is not the script's."""
    here = place.here
    if not here.depth:
        here.recorded += 1  # a vector environment around it leaves its parts to us
    here.depth += 1
    try:
        return method(env, *arguments, **options)
    finally:
        here.depth -= 1


def _seed_of(arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return arguments[0] if arguments else options.get("seed")


def _guarded(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns; None if it raises, which is counted."""
    try:
        return call(*arguments)
    except Exception as error:
        hooked_session.count_fault(error)
        return None


def _after_fork_in_child() -> None:
    """What the parent opened is the parent's."""
    _gone.clear()
    _free.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
