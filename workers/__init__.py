"""What a training process imports: `attach()` for a loop of one's own, `wrap(env)` for Gymnasium.

Light on purpose: NumPy, pyzmq, msgpack and msgspec, nothing else, and those when they are first asked for: the
zero-edit hook is in every Python below `runlane run`, and only those that train need them.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runlane.workers.attachment import Session, attach
    from runlane.workers.sb3_callback import RunlaneCallback as RunlaneCallback
    from runlane.workers.session import WorkerSession
    from runlane.workers.tianshou_logger import TianshouLogger as TianshouLogger
    from runlane.workers.unrecorded import DetachedSession

# Not what needs a library of the user's: `import *` would ask for it.
__all__ = ["DetachedSession", "Session", "WorkerSession", "attach", "wrap"]

_HOMES = {
    "DetachedSession": "runlane.workers.unrecorded",
    "RunlaneCallback": "runlane.workers.sb3_callback",  # imports Stable-Baselines3
    "Session": "runlane.workers.attachment",
    "TianshouLogger": "runlane.workers.tianshou_logger",  # imports tianshou
    "WorkerSession": "runlane.workers.session",
    "attach": "runlane.workers.attachment",
}


def wrap(env: Any, **options: Any) -> Any:
    """Record every step of a Gymnasium environment, scalar or vector, or of every agent of a PettingZoo environment.

    See `runlane.workers.wrapper.wrap` and `runlane.workers.pettingzoo_wrapper.wrap`.
    """
    pettingzoo = sys.modules.get("pettingzoo.utils.env")
    if pettingzoo is not None and isinstance(env, pettingzoo.AECEnv | pettingzoo.ParallelEnv):
        from runlane.workers.pettingzoo_wrapper import wrap as wrap_agents

        return wrap_agents(env, **options)
    from runlane.workers.wrapper import wrap as wrap_environment

    return wrap_environment(env, **options)


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found
