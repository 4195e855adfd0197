"""One thread of a process for all its streams. With one for each, four environments would stop training as often.

Nothing here waits for a lock, so that a signal handler may open or close a session while another is opened.
"""

import contextlib
import threading
import time
from collections import deque

from runlane.workers.rota import Member, Rota


class SharedThread:
    """Runs as long as it has members: the first one starts it, and it ends with the last one."""

    def __init__(self, name: str, rest: float = 0.0) -> None:
        """Nothing runs before the first `serve`. For `rest` see `Rota`. Whoever makes one calls `forget` in forks."""
        self._name = name
        self._rest = rest
        self.forget()

    def forget(self) -> None:
        """In a forked child: the thread is the parent's, with all its members, and so is who holds which lock."""
        self._new: deque[Member] = deque()
        # Held by the thread that serves, which takes it itself: who is interrupted while starting one leaves nothing.
        self._serving = threading.Lock()
        # Held while there is nothing to do. A lock, not a pipe: writing into one lets other threads run in the middle
        # of a turn, where they can only wait (in a tight loop for seconds); and a pipe's number may be another's later.
        self._idle = threading.Lock()
        self._idle.acquire()

    def serve(self, member: Member) -> None:
        """Make its turns from now on. Raises `RuntimeError` when no thread can be started."""
        self._new.append(member)  # before the look at `_serving`: whoever gives that back looks here afterwards
        if self._serving.locked():
            self.wake()
            return
        try:
            threading.Thread(target=self._run, name=f"runlane-{self._name}", daemon=True).start()
        except BaseException:
            with contextlib.suppress(ValueError):
                self._new.remove(member)
            raise

    def wake(self) -> None:
        """Look now. From any thread and signal handler; never waits."""
        with contextlib.suppress(RuntimeError):  # not held: the thread is about to look anyway
            self._idle.release()

    def _run(self) -> None:
        while self._new and self._serving.acquire(blocking=False):
            rota = Rota(self._name, self._rest)  # a local variable: nothing that a child could find and clear away
            try:
                self._serve(rota)
            finally:
                rota.close()
                self._serving.release()

    def _serve(self, rota: Rota) -> None:
        is_woken = True
        while True:
            while self._new:
                rota.add(self._new.popleft())
            rota.turn(time.monotonic(), is_woken)
            if rota.is_empty and not self._new:
                return
            is_woken = self._idle.acquire(timeout=rota.wait_s(time.monotonic(), time.thread_time()))
