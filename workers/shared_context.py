"""One ZeroMQ context for all streams of a process: its threads and descriptors are enough for a hundred of them."""

import os
import threading

import zmq

from runlane.transport.sockets import Context

_lock = threading.Lock()
_contexts: dict[int, Context] = {}  # by process: a forked child has none, and must not touch its parent's
_users: dict[int, int] = {}


def take_context() -> Context:
    """The context of this process; to be given back."""
    pid = os.getpid()
    with _lock:
        _users[pid] = _users.get(pid, 0) + 1
        if pid not in _contexts:
            _contexts[pid] = zmq.Context()
        return _contexts[pid]


def give_back_context() -> None:
    """One socket less, which is closed. The last one ends the context, whose threads are gone with the sessions."""
    pid = os.getpid()
    with _lock:
        _users[pid] -= 1
        last = _contexts.pop(pid) if not _users[pid] else None
    if last is not None:
        last.term()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603  whoever held it is not here
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
