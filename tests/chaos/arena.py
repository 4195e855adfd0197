"""Arena: one data directory, the graph that runs on it, and the oracle beside it. Leaves no process behind.

Everything has a deadline. What is not over by then is a finding like any other: `Stuck`, with the logs' ends.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.herd import MARK, Herd, strike
from chaos.oracle_lines import written_bytes
from chaos.verdict import Verdict, judge

from runlane.config import names
from runlane.config.settings import Restart

TESTS = Path(__file__).parents[1]
UP_S = 40.0
GONE_S = 30.0
COMMAND_S = 60.0
NO_SUCH_COMMAND = 2

# Many restarts, and quick ones. A period as short as this never ends with a supervisor that gives up on us.
SUPERVISION = "[supervisor]\nmax_restarts = 100\nperiod_s = 12\nbackoff_s = 0.02\nbackoff_max_s = 0.1\n"


class StuckError(Exception):
    """Something did not happen in time."""


class Arena:
    """`runlane up` on a directory of its own, again and again. Leaving the `with` kills what carries its mark."""

    def __init__(
        self,
        directory: Path,
        worker: Sequence[str],
        restart: Restart = "permanent",
        *,
        is_attached: bool = False,
        tables: str = "",
    ) -> None:
        """`worker` is the worker's command. Declared, the supervisor keeps it running; attached, the arena does.

        `tables` is further TOML of the settings.
        """
        self.directory = directory
        self.data = directory / "data"
        self.oracle = directory / "oracle"
        self.journals = self.data / "journals"
        self.database = self.data / names.DATABASE_FILE
        self.herd = Herd()
        self.commands: list[subprocess.Popen[bytes]] = []
        self.attached: subprocess.Popen[bytes] | None = None
        self.is_attached = is_attached
        self.is_recoverable = True
        self._lifelines: list[int] = []
        self._worker = list(worker)
        self.oracle.mkdir(parents=True)
        empty = f'data_dir = "{self.data}"\n[transport]\nrun_dir = "{directory / "run"}"\n{SUPERVISION}{tables}'
        table = f'[workers.oracle]\ncommand = {json.dumps(self._worker)}\nrestart = "{restart}"\nrun_name = "chaos"\n'
        (directory / "graph.toml").write_text(empty if is_attached else f"{empty}{table}")
        (directory / "empty.toml").write_text(empty)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.herd.sweep()
        for command in self.commands:
            command.wait()
        for lifeline in self._lifelines:
            os.close(lifeline)

    # ---- processes ----

    def start(
        self, *command: str, log: str, lifeline: int | None = None, config: str = ""
    ) -> "subprocess.Popen[bytes]":
        """Start a command that carries the mark, in a session of its own."""
        self._reap()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(names.ENV_PREFIX)}
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {MARK: self.herd.mark, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        if lifeline is not None:
            own |= {names.ENV_LIFELINE: str(lifeline), names.ENV_PARENT: str(os.getpid())}
        if config:
            own[names.ENV_CONFIG] = str(self.directory / config)
        with (self.directory / log).open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**kept, **own},
                pass_fds=[] if lifeline is None else [lifeline],
                start_new_session=True,
            )
        self.commands.append(process)
        return process

    def up(self, config: str = "graph.toml") -> "subprocess.Popen[bytes]":
        """`runlane up`, without waiting for anything. If this process here dies in whatever way, the graph follows."""
        read_end, write_end = os.pipe()
        self._lifelines.append(write_end)
        try:
            return self.start(*self._runlane("up", config), log="supervisor.log", lifeline=read_end)
        finally:
            os.close(read_end)

    def tend(self) -> None:
        """Start the attached worker again where there is none; one that found no graph has ended by itself."""
        if self.is_attached and (self.attached is None or self.attached.poll() is not None):
            command = [sys.executable if word == "{python}" else word for word in self._worker]
            self.attached = self.start(*command, log="worker.log", config="graph.toml")

    def end_attached(self, signum: signal.Signals) -> None:
        """End the attached worker: its graph is gone, and no other one will serve the session it has."""
        if self.attached is not None and self.attached.poll() is None:
            self.attached.send_signal(signum)
            self.until(lambda: self.attached is None or self.attached.poll() is not None, "the worker ends", GONE_S)

    def run(self, command: str) -> int:
        """One command of runlane to its end; its exit code."""
        process = self.start(*self._runlane(command), log=f"{command}.log")
        self.until(lambda: process.poll() is not None, f"runlane {command} ends", COMMAND_S)
        return int(process.returncode)

    def until(self, claim: Callable[[], Any], what: str, deadline_s: float) -> None:
        """Wait for an event; raises `StuckError` with all there is to know when it does not come."""
        end_s = time.monotonic() + deadline_s
        while not claim():
            if time.monotonic() > end_s:
                raise StuckError(f"not within {deadline_s:.0f} s: {what}\n{self.circumstances()}")
            time.sleep(0.01)  # between two looks; what is waited for is the claim

    def is_empty(self) -> bool:
        """Whether no process of this arena runs."""
        self._reap()
        return not self.herd.alive()

    def is_up(self, role: str) -> bool:
        """Whether a process of this role runs."""
        self._reap()
        return role in self.herd.by_role()

    def until_recording(self) -> None:
        """Wait until a worker records something now."""
        before = written_bytes(self.oracle)

        def has_grown() -> bool:
            self.tend()
            return written_bytes(self.oracle) > before

        self.until(has_grown, "a worker records", UP_S)

    # ---- the end of a round ----

    def stop(self, *, ends_worker_first: bool = True) -> None:
        """The ordered stop of what runs, if a supervisor is there to order it; then wait until all are gone."""
        strike(self.herd.alive(), signal.SIGCONT)
        if ends_worker_first:
            self.end_attached(signal.SIGINT)
        # One that has only just begun cannot be asked yet, and `stop` says that there is none.
        self.until(lambda: not self.is_up("supervisor") or not self.run("stop"), "the supervisor stops", GONE_S)
        self.end_attached(signal.SIGINT)
        self.until(self.is_empty, "every process of the graph is gone", GONE_S)

    def drain(self, dice: random.Random) -> None:
        """Bring what the dead left in their journals into the database: by `recover`, killed or not, or by `up`."""
        if dice.random() < 0.25:
            self._drain_by_graph()
        elif dice.random() < 0.3:
            self._kill_a_recovery(dice.uniform(0.1, 1.5))
        code = self.run("recover")
        if code == NO_SUCH_COMMAND:
            self.is_recoverable = False
        elif code:
            raise StuckError(f"runlane recover ended with code {code}\n{self.circumstances()}")
        self.until(self.is_empty, "every process of the recovery is gone", GONE_S)
        if self.is_recoverable and self.left_in_journals():
            raise StuckError(f"after runlane recover: {', '.join(self.left_in_journals())}\n{self.circumstances()}")

    def _drain_by_graph(self) -> None:
        self.up("empty.toml")
        self.until(lambda: self.is_up("db_writer"), "a graph without workers is up", UP_S)
        if self.run("recover") != NO_SUCH_COMMAND:  # a running graph drains by itself; asking must not harm
            self.until(lambda: not self.left_in_journals(), "runlane up drains what was left", COMMAND_S)
        self.stop()

    def _kill_a_recovery(self, after_s: float) -> None:
        """`kill -9` of a recovery in its middle, with everything it started."""
        process = self.start(*self._runlane("recover"), log="recover.log")
        end_s = time.monotonic() + after_s
        while process.poll() is None and time.monotonic() < end_s:
            time.sleep(0.01)
        self.herd.sweep()

    def left_in_journals(self) -> list[str]:
        """Names of journals that may hold records not drained: those with a segment."""
        return sorted({path.parent.name for path in self.journals.glob("*/*.seg")})

    def judge(self) -> Verdict:
        """Compare the oracle with the database."""
        return judge(self.database, self.oracle)

    # ---- for a failure ----

    def circumstances(self, lines: int = 15) -> str:
        """Who lives, and the end of every log."""
        living = [f"  {role}: {[one.pid for one in processes]}" for role, processes in self.herd.by_role().items()]
        logs = [*sorted(self.directory.glob("*.log")), *sorted((self.data / "logs").glob("*.log"))]
        ends = [f"==> {log.name}\n" + "\n".join(_lines(log)[-lines:]) for log in logs]
        return "\n".join(["alive:", *living, *ends])

    def _runlane(self, command: str, config: str = "graph.toml") -> list[str]:
        return [sys.executable, "-m", "runlane", command, "--config", str(self.directory / config)]

    def _reap(self) -> None:
        for command in self.commands:
            command.poll()


def _lines(log: Path) -> list[str]:
    return log.read_text("utf-8", "replace").splitlines()
