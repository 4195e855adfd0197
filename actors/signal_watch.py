"""Signals as something to poll for: a pipe that becomes readable, and the numbers that came."""

import os
import signal
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self


class SignalWatch:
    """While entered, the given signals interrupt nothing; each is a byte in a pipe. Main thread only.

    A signal that was ignored when we were started (`nohup`) stays ignored, except SIGCHLD: with that ignored
    the kernel would reap our children before we learn their exit codes.
    """

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = list(signals)
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._fd_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for signum in self._signals:
            if signum == signal.SIGCHLD or signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, _noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._read_end)
        os.close(self._write_end)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._read_end

    def take(self) -> list[int]:
        """Numbers of the signals that came since the last call, in order."""
        try:
            return list(os.read(self._read_end, 4096))
        except BlockingIOError:
            return []


def _noted(_signum: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor has it."""
