"""foreground: a program that runs in our place, in our own process group, while we wait for it."""

import contextlib
import signal
import subprocess
from collections.abc import Generator
from types import FrameType


@contextlib.contextmanager
def passing_signals_on(program: "subprocess.Popen[bytes]") -> Generator[None]:
    """While we wait: Ctrl-C reaches the program by the terminal and is not ours; SIGTERM is passed on."""

    def forward(number: int, _frame: FrameType | None) -> None:
        program.send_signal(number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, forward),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shell_code(code: int) -> int:
    """The exit code that a shell would show: 130 and not -2 for a program that a signal ended."""
    return code if code >= 0 else 128 - code
