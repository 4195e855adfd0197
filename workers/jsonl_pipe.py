"""PipeCopier: moves what is written into a named pipe on into the spool, so that the pipe never fills for want of us.

The launcher has one at work and the bridge one in reserve: whoever holds the lock copies. Both keep the pipe open, so
the death of one loses nothing of what is in it. `splice` moves the bytes inside the kernel: no process ever holds any
that a kill could lose.
"""

import array
import contextlib
import fcntl
import os
import select
import termios
import threading
from pathlib import Path

COPIER_LOCK = "copier.lock"
WAIT_S = 0.02
MOST_BYTES = 1 << 20


class PipeCopier:
    """One thread. `stop` drains the pipe first, if it is ours to drain."""

    def __init__(self, fifo: Path, out: Path, lock: Path) -> None:
        """Open the pipe: from here on a program that opens it for writing does not wait. Raises `OSError`."""
        self._pipe = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._out = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # an unprivileged process may be at its limit
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, MOST_BYTES)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runlane-pipe", daemon=True)

    def start(self) -> None:
        """Begin, or wait for the death of the one who copies now."""
        self._thread.start()

    def stop(self) -> None:
        """Move what is in the pipe, and end."""
        self._over.set()
        self._thread.join()
        for fd in (self._pipe, self._out, self._lock):
            os.close(fd)

    def _run(self) -> None:
        while not self._take_lock():
            if self._over.wait(WAIT_S):
                return
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN)
        while not self._over.is_set():
            found = poller.poll(1000 * WAIT_S)
            if not (found and found[0][1] & select.POLLIN and self._copy()):
                self._over.wait(WAIT_S / 2)  # nobody has it open, or it is empty
        left = self._waiting()  # others may go on writing; that is not read
        while left > 0 and (moved := self._copy(left)):
            left -= moved

    def _take_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _waiting(self) -> int:
        """Bytes in the pipe."""
        count = array.array("i", [0])
        fcntl.ioctl(self._pipe, termios.FIONREAD, count)
        return count[0]

    def _copy(self, most: int = MOST_BYTES) -> int:
        """Move what is there; 0 when there was nothing."""
        end = os.fstat(self._out).st_size
        try:
            return os.splice(self._pipe, self._out, most, offset_dst=end, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        except OSError:  # a full disk; tried again, and the program waits at a full pipe meanwhile
            self._over.wait(WAIT_S)
            return 0
