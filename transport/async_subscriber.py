"""Waiting for a subscriber's deliveries from an event loop, or in a thread of one's own.

Why threads and not the sockets' descriptors: ZeroMQ's are edge-triggered, and any send or receive may take the edge
(a lease sent by the link itself is enough), so a loop that watches them stops although data is there. And history is
read from SQLite, which blocks. A thread here lives for one wait at most, or from `start` to `stop`; it is always
joined, so it never outlives who asked for it, cancelled or not.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable

THREAD_NAME = "runlane-subscriber"


class Wake:
    """A descriptor that ends a wait early, from any thread. Its owner closes it behind the poller that watches it."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.is_set = False

    def set(self) -> None:
        """End the wait that is under way, or the next one."""
        self.is_set = True
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Let waits last again."""
        self.is_set = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


async def wait_in_thread(wait: Callable[[], None], wake: Wake) -> None:
    """Run `wait` in a thread until it is done; when cancelled, end it by `wake`, and join it in either case."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    errors: list[BaseException] = []

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            wait()
        except BaseException as error:
            errors.append(error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(finish)

    thread = threading.Thread(target=run, name=THREAD_NAME, daemon=True)
    thread.start()
    try:
        await done
    finally:
        wake.set()
        thread.join()
        wake.clear()
    if errors:
        raise errors[0]


class CallbackThread:
    """Owns a subscriber between `start` and `stop`: takes turn after turn until there is nothing more to come.

    What a turn raises ends the thread, and is raised by `stop` or `join`.
    """

    def __init__(self, turn: Callable[[], bool], wake: Wake) -> None:
        """`turn` waits for a batch a moment, hands it on, and says whether more may come."""
        self._turn = turn
        self._wake = wake
        self._is_stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Begin. Only after the subscriber knows of this thread, which owns it from now on."""
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether the caller is this thread."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End after the batch in hand; raises what the callback raised. Called by the callback it only asks."""
        self._is_stopping = True
        self._wake.set()
        if not self.is_current:
            self.join(None)

    def join(self, timeout_s: float | None) -> bool:
        """Wait until the thread has ended by itself; raises what the callback raised. False: it goes on."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._wake.clear()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def _run(self) -> None:
        try:
            while not self._is_stopping and self._turn():
                pass
        except BaseException as error:
            self._error = error
