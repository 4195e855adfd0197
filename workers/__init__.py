"""What a training process imports: `attach()` for a loop of one's own, `wrap(env)` for Gymnasium.

Light on purpose: NumPy, pyzmq, msgpack and msgspec, nothing else, and those when a session is opened. Gymnasium is
imported by `wrap` alone.
"""

from typing import TYPE_CHECKING, Any

from runlane.workers.attach import Session, attach

if TYPE_CHECKING:
    from runlane.workers.session import WorkerSession
    from runlane.workers.unrecorded import DetachedSession

__all__ = ["DetachedSession", "Session", "WorkerSession", "attach", "wrap"]


def wrap(env: Any, **options: Any) -> Any:
    """Record every step of a Gymnasium environment, scalar or vector. See `runlane.workers.wrapper.wrap`."""
    from runlane.workers.wrapper import wrap as wrap_environment

    return wrap_environment(env, **options)


def __getattr__(name: str) -> Any:
    """The classes of sessions, imported when somebody asks for them."""
    if name == "WorkerSession":
        from runlane.workers import session

        return session.WorkerSession
    if name == "DetachedSession":
        from runlane.workers import unrecorded

        return unrecorded.DetachedSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
