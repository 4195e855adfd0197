"""How one of our own actors notices that its supervisor is gone: belt (PDEATHSIG) and braces (a pipe).

The supervisor alone holds the write end, so end-of-file on the read end means it ended, in whatever way, even
if the kernel's signal was lost between fork and prctl (containers/bubblewrap#700). Standard library only. One
reader: the actor's process.
"""

import os
import select
import signal
import stat
from collections.abc import MutableMapping
from typing import Self

from runlane.actors.guard import set_parent_death_signal
from runlane.config.names import ENV_LIFELINE, ENV_PARENT


class Lifeline:
    """The read end of the pipe, and the pid it must come from. Without either it never breaks."""

    def __init__(self, fd: int | None, parent: int | None) -> None:
        """Own `fd` from now on; arm the kernel's signal if there is a parent to outlive."""
        self._fd = fd
        self._parent = parent
        if fd is not None:
            os.set_inheritable(fd, False)
        if parent is not None:
            set_parent_death_signal(signal.SIGTERM)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """Take what the supervisor gave, and remove it, so that no child of ours mistakes it for its own."""
        fd = _number(environment.pop(ENV_LIFELINE, ""))
        parent = _number(environment.pop(ENV_PARENT, ""))
        return cls(fd if fd is not None and _is_pipe(fd) else None, parent)

    def fileno(self) -> int:
        """The descriptor, for a poller; -1 when there is none."""
        return -1 if self._fd is None else self._fd

    def is_broken(self) -> bool:
        """Whether the supervisor is gone. Never waits."""
        if self._parent is not None and os.getppid() != self._parent:
            return True
        if self._fd is None:
            return False
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return bool(poller.poll(0))  # nobody ever writes, so readable or hung up is end-of-file

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False
