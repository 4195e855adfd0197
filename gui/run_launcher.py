"""RunLauncher: starts `runlane run` for the launch form. What it starts outlives the window, on purpose.

Each run gets a session of its own, no terminal and a log file, so neither closing, killing nor crashing this window
touches a training. While the window lives a timer reaps ended ones, so that none stays a zombie; after it, init does.
"""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from runlane.config.names import LOG_DIR
from runlane.gui.launch_plan import Launch, clean_environment

POLL_MS = 200
ENDS_SOON_S = 10.0  # who ends within this most likely never began
TAIL_LINES = 8
TAIL_BYTES = 16_384
MAX_WATCHED = 256
SLUG = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A process that was started. `log` is the file of its standard output and error."""

    name: str
    pid: int
    log: Path
    started_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Its end: exit code (below 0: minus the signal), how long it lived, and the last lines of its log."""

    launched: Launched
    exit_code: int
    lived_s: float
    tail: str

    @property
    def is_soon(self) -> bool:
        """Whether it ended so early that somebody wants to know why."""
        return self.lived_s < ENDS_SOON_S


class RunLauncher(QObject):
    """Starts and reaps, never waits. Lives in the window's thread."""

    began = Signal(object)
    """A `Launched`."""
    refused = Signal(str, str)
    """Name, and why it did not begin."""
    ended = Signal(object)
    """An `Ended`."""

    def __init__(self, log_dir: Path, parent: QObject | None = None) -> None:
        """`log_dir` is made when it is needed; usually `data_dir/logs`."""
        super().__init__(parent)
        self._log_dir = log_dir
        self._watched: dict[int, tuple[subprocess.Popen[bytes], Launched]] = {}
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self.poll)

    @property
    def watched(self) -> list[Launched]:
        """What was started here and has not ended."""
        return [launched for _, launched in self._watched.values()]

    def start(self, launch: Launch) -> Launched | None:
        """Start one run; `began` or `refused` has told of it when this returns."""
        if len(self._watched) >= MAX_WATCHED:
            self.refused.emit(launch.name, f"{MAX_WATCHED} runs of this window have not ended yet; wait for one")
            return None
        try:
            log = self._log_file(launch.name)
            with log.open("xb") as output:
                process = subprocess.Popen(
                    launch.arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=launch.directory,
                    env={**clean_environment(), "PYTHONUNBUFFERED": "1", **launch.environment},
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.refused.emit(launch.name, f"cannot be started: {reason}; check command and working directory")
            return None
        launched = Launched(name=launch.name, pid=process.pid, log=log, started_s=time.monotonic())
        self._watched[process.pid] = process, launched
        self._timer.start()
        self.began.emit(launched)
        return launched

    def poll(self) -> None:
        """Reap what has ended, and tell of it."""
        for pid, (process, launched) in list(self._watched.items()):
            code = process.poll()
            if code is not None:
                del self._watched[pid]
                lived_s = time.monotonic() - launched.started_s
                self.ended.emit(Ended(launched=launched, exit_code=code, lived_s=lived_s, tail=tail_of(launched.log)))
        if not self._watched:
            self._timer.stop()

    def let_go(self) -> None:
        """Watch no longer; what runs goes on. Idempotent."""
        self._timer.stop()
        for process, _ in self._watched.values():
            process.returncode = 0  # else subprocess warns of a process that is left behind, which is the purpose
        self._watched.clear()

    def _log_file(self, name: str) -> Path:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:SLUG] or "run"
        stem = f"launch-{slug}-{time.strftime('%Y%m%d-%H%M%S')}"
        found = self._log_dir / f"{stem}.log"
        number = 1
        while found.exists():
            number += 1
            found = self._log_dir / f"{stem}-{number}.log"
        return found


def tail_of(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, of its last 16 KiB; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - TAIL_BYTES))
            text = log.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def log_dir_of(data_dir: Path) -> Path:
    """Where the logs of a data directory lie."""
    return data_dir / LOG_DIR


def exit_text(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" if -code in list(signal.Signals) else f"killed by {-code}"
    return "exit code 0" if code == 0 else f"exit code {code}"
