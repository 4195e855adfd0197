"""An actor that only notes what happens to it: PLAN EVENTS MODE.

good        does as it is told
slow        takes its time to start
crash       cannot start
undrained   never has finished what it accepted
stubborn    ignores SIGTERM
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from runlane.actors.runner import run_actor
from runlane.config.names import ENV_CHILD
from runlane.config.settings import Settings
from runlane.transport.messages import ControlMessage, WorkerExited

DRAIN_S = 1.0  # longer than a stage of the ordered stop


class ToyActor:
    """Appends `NAME EVENT` lines to a file that all toys share."""

    def __init__(self, events: str, mode: str) -> None:
        self.name = os.environ[ENV_CHILD]
        self.is_finished = False
        self._mode = mode
        self._fd = os.open(events, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def _note(self, what: str) -> None:
        os.write(self._fd, f"{self.name} {what}\n".encode())

    def on_start(self) -> None:
        if self._mode == "crash":
            raise RuntimeError("as asked")
        if self._mode == "slow":
            time.sleep(0.3)
        self._note("started")

    def do_work(self, timeout_s: float) -> None:
        if self._mode == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(timeout_s)

    def request_stop(self) -> None:
        self._note("stopping")

    def is_drained(self) -> bool:
        return self._mode != "undrained"

    def statistics(self) -> dict[str, Any]:
        return {"mode": self._mode}

    def on_close(self) -> None:
        self._note("closed")


class ToyProxy(ToyActor):
    """Also hears that its worker ended, and is finished then."""

    def on_message(self, message: ControlMessage) -> None:
        assert isinstance(message, WorkerExited)
        self._note(f"told {message.exit_code}")
        self.is_finished = True


def main() -> int:
    settings = msgspec.convert(json.loads(Path(sys.argv[1]).read_text())["settings"], Settings)
    kind = ToyProxy if os.environ[ENV_CHILD].startswith("proxy-") else ToyActor
    return run_actor(kind(sys.argv[2], sys.argv[3]), settings, drain_s=DRAIN_S)


if __name__ == "__main__":
    sys.exit(main())
