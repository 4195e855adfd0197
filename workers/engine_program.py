"""An engine as a process of ours: a program of another language that prints JSON lines, recorded through a session.

The engine writes into a file, so it never waits for us; what it has written when it dies is read to the end. It dies
with us, and so does its ring. For engines that a worker kind starts; any other one is started by `runlane run --jsonl`,
where a bridge outlives the launcher.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from runlane.config.settings import Settings
from runlane.transport.held_ring import HeldRing, ring_for_engine
from runlane.workers.attachment import Session
from runlane.workers.engine_lane import show_engine
from runlane.workers.jsonl_file import LineFile
from runlane.workers.jsonl_lines import Line, NotTaken, RunLine, StepLine
from runlane.workers.jsonl_recorder import Numbers, facts_of, record_plain

SLEEP_S = 0.005
END_S = 5.0
# Becomes the program, after asking the kernel to signal it when we are gone: whatever kills us, nothing is left.
_SHIM = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, int(sys.argv[1]), 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[2]):\n"
    "    sys.exit(1)\n"
    "try:\n"
    "    os.execvp(sys.argv[3], sys.argv[3:])\n"
    "except OSError as error:\n"
    "    sys.stderr.write(f'runlane: {sys.argv[3]}: {error.strerror}\\n')\n"
    "    sys.exit(127)\n"
)


def bound(command: Sequence[str], number: signal.Signals) -> list[str]:
    """A command that gets signal `number` when this process is gone. To be started by the main thread, and no other."""
    return [sys.executable, "-I", "-S", "-c", _SHIM, str(int(number)), str(os.getpid()), *command]


class SessionLines:
    """Records lines through any session, as the bridge does through its own."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.steps = 0
        self._action, self._observation = Numbers(is_float=False), Numbers(is_float=False)

    def record(self, lines: list[Line]) -> None:
        """Record lines in order. What is no record becomes a log line, and is shown on standard output."""
        for line in lines:
            if isinstance(line, StepLine):
                self.steps += not line.is_reset
                self._step(line)
            else:
                self._record_other(line)

    def _step(self, line: StepLine) -> None:
        seen = line.observation
        self._session.step(
            self._action.of(line.action),
            math.nan if line.reward is None else line.reward,
            line.terminated,
            line.truncated,
            observation=None if seen is None else self._observation.of(seen),
            info=line.info,
            env_index=line.env_index,
            is_reset=line.is_reset,
            is_human=line.is_human,
        )

    def _record_other(self, line: Line) -> None:
        session = self._session
        if isinstance(line, RunLine):
            session.note_facts(**facts_of(line))
        elif isinstance(line, NotTaken):
            session.log(f"line not taken, {line.sort} ({line.problem}): {line.quote}", "warning")
        else:
            record_plain(session, line, _show)


def _show(text: str) -> None:
    sys.stdout.write(text + "\n")


class EngineProgram:
    """One engine, from its start to its end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        """`output` is the file for what it prints; it is made anew."""
        self._command, self._environment, self._output = command, dict(environment), output
        self._signal = 0
        self.steps = 0

    def run(self, session: Session, settings: Settings) -> int:
        """Start it, record what it prints until it has ended; returns its exit code, 128 + n where a signal ended it.

        SIGINT and SIGTERM end the engine. For the main thread.
        """
        ring = ring_for_engine(settings)
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self._started(ring) as process:
                code = self._follow(process, session, ring)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if ring is not None:
                session.lane.close()
                ring.close()
        return 128 + self._signal if self._signal else code

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    @contextlib.contextmanager
    def _started(self, ring: HeldRing | None) -> Any:
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                bound(self._command, signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=output,
                env={**os.environ, **self._environment, **(ring.environment() if ring else {})},
                pass_fds=(ring.fd,) if ring else (),
                umask=0o077,  # what an engine without a way to say so puts into shared memory is for its user alone
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _follow(self, process: "subprocess.Popen[bytes]", session: Session, ring: HeldRing | None) -> int:
        recorder, file = SessionLines(session), LineFile(self._output)
        lane = None if ring is None else show_engine(session, ring.path)
        kill_s = math.inf
        try:
            while True:
                code = process.poll()  # before the look at the file, so that look is the last one needed
                if code is not None:
                    file.end_here()
                while (lines := file.read()) is not None:
                    recorder.record(lines)
                    if code is None and process.poll() is not None:
                        break  # what it has left behind may write without end
                    if lane is not None:
                        lane.look(time.monotonic_ns())
                if code is not None:
                    recorder.record(file.read_last())
                    self.steps = recorder.steps
                    return code if code >= 0 else 128 - code
                if lane is not None:
                    lane.look(time.monotonic_ns())
                now_s = time.monotonic()
                if self._signal and kill_s == math.inf:
                    process.terminate()
                    kill_s = now_s + END_S
                if now_s > kill_s:
                    process.kill()
                time.sleep(SLEEP_S)
        finally:
            file.close()
