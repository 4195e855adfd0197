"""What a training process imports: `attach()` for a loop of one's own, `wrap(env)` for Gymnasium.

Light on purpose: NumPy, pyzmq, msgpack and msgspec, nothing else. Gymnasium is imported by `wrap` alone.
"""

import sys
from typing import Any

from runlane.workers.attach import Session, attach
from runlane.workers.session import WorkerSession
from runlane.workers.unrecorded import DetachedSession

__all__ = ["DetachedSession", "Session", "WorkerSession", "attach", "wrap"]


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
