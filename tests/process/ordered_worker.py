"""A worker that does what it is told, one order a line, and answers each with its own counts as JSON.

Orders: `steps N`, `drop` (steps until one is dropped), `keep` (steps until one is recorded), `limit BYTES` (no file may
grow beyond it), `close`. An argument is a `limit` from before the session begins.
"""

import json
import resource
import sys
from collections.abc import Callable

from runlane.workers import attach
from runlane.workers.session import WorkerSession

MOST = 2_000_000


class OrderedWorker:
    """The session, and how many steps it was given."""

    def __init__(self, session: WorkerSession) -> None:
        self.session = session
        self.given = 0
        self.is_committed = False

    def obey(self, order: str) -> None:
        """One order."""
        word, _, argument = order.strip().partition(" ")
        if word == "steps":
            self._steps(int(argument))
        elif word == "drop":
            before = self._dropped()
            self._until(lambda: self._dropped() > before)
        elif word == "keep":
            before = self.session.env_steps
            self._until(lambda: self.session.env_steps > before)
        elif word == "limit":
            limit(argument)
        else:
            self.is_committed = self.session.close()
        figures = self.session.statistics()
        answer = {**figures, "given": self.given, "is_committed": self.is_committed}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def _dropped(self) -> int:
        return self.session.dropped["step"]

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self.given += 1
            self.session.step(self.given, 1.0)

    def _until(self, is_met: Callable[[], bool]) -> None:
        for _ in range(MOST):
            self._steps(1)
            if is_met():
                return
        raise TimeoutError(f"not within {MOST} steps")


def limit(size: str) -> None:
    """No file grows beyond so many bytes; without a number that is over."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size) if size else hard, hard))


if __name__ == "__main__":
    limit("".join(sys.argv[1:]))
    found = attach()
    if not isinstance(found, WorkerSession):
        raise SystemExit("no session")
    worker = OrderedWorker(found)
    for line in sys.stdin:
        worker.obey(line)
