"""The oracle's worker: records what a `Trajectory` says, and notes in a plain file of its own what has returned.

    python -m chaos.oracle_worker DIRECTORY SEED RATE

Records until SIGINT, or until its parent is gone: RATE calls a second on the whole, with bursts at full speed. It
counts its records by itself and compares that with what the session says, call by call.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from chaos.oracle_lines import NO_DIGEST, SUFFIX, Kind, OracleFile, digest_of
from chaos.trajectory import Call, Trajectory

from runlane.workers import DetachedSession, WorkerSession, attach

DETACHED = 75  # exit code: nothing could be recorded, so start me again
PACE_CALLS = 20
BURST_CALLS = 1_500


class Recorder:
    """A session, the oracle's own count of its records, and the file it notes them in."""

    def __init__(self, lane: WorkerSession, directory: Path, *, is_forked: bool = False) -> None:
        """`attach()` has returned, so the record that says `running` is the first one to keep.

        A forked child becomes a stream of its own with its first record, and so has nothing yet.
        """
        self.lane = lane
        self.records = 0
        self.call_s = 0.0
        self._directory = directory
        self._file: OracleFile | None = None
        if not is_forked:
            self._note([(Kind.RUN, ("running",))])

    def make(self, call: Call) -> None:
        """Call the session; note what it made once that has returned."""
        started_s = time.perf_counter()
        getattr(self.lane, call.method)(*call.arguments, **call.options)
        self.call_s = time.perf_counter() - started_s
        if call.expected:
            self._note(call.expected)

    def close(self) -> None:
        """Say goodbye, and note it if the session says that all is committed."""
        if self.lane.close("stopped"):
            self._append([(self.lane.statistics()["records"], Kind.CLOSED, NO_DIGEST)])

    def _note(self, made: list[tuple[Kind, tuple[Any, ...]]]) -> None:
        before, self.records = self.records, int(self.lane.statistics()["records"])
        missing = len(made) - (self.records - before)
        if missing > 0:
            self._append([(self.records, Kind.DROPPED, NO_DIGEST)] * missing)
            return
        first = self.records - len(made) + 1
        lines = [(seq, Kind.EXTRA, NO_DIGEST) for seq in range(before + 1, first)]
        lines += [(seq, kind, digest_of(values)) for seq, (kind, values) in enumerate(made, start=first)]
        self._append(lines)

    def _append(self, lines: list[tuple[int, Kind, bytes]]) -> None:
        if self._file is None:
            self._file = OracleFile(self._directory, self.lane.info.stream)
        self._file.append(lines)


def start_recorder(directory: Path) -> Recorder:
    """Attach, or end this process with a code that asks for another one."""
    lane = attach("chaos", worker=None)
    if isinstance(lane, DetachedSession):
        sys.exit(DETACHED)
    return Recorder(lane, directory)


def main(directory: Path, seed: str, rate: float) -> None:
    """Record until told to stop."""
    told: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: told.append(number))
    incarnation = len(list(directory.glob(f"*{SUFFIX}")))
    dice = random.Random(f"{seed}/{incarnation}")  # noqa: S311  dice, no secret
    parent = os.getppid()
    recorder = start_recorder(directory)
    due_s = time.monotonic()
    for number, call in enumerate(Trajectory(dice).calls(), start=1):
        recorder.make(call)
        if number % PACE_CALLS == 0:
            if told or os.getppid() != parent:
                break
            due_s += PACE_CALLS / rate
            if number // BURST_CALLS % 8 != 7:  # each eighth stretch is a burst
                time.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s, time.monotonic() - 1.0)
    recorder.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
