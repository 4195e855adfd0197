"""A child's place in the graph: one process after another under one spec."""

import dataclasses
from enum import StrEnum
from pathlib import Path

from runlane.actors.child import Child
from runlane.actors.restart import BackOff, RestartIntensity, should_restart
from runlane.actors.topology import ChildSpec
from runlane.config import log_ids
from runlane.config.names import ENV_RESUMED
from runlane.config.settings import Restart, SupervisorSettings
from runlane.transport.log import log_event

CANNOT_START = 126


class SeatState(StrEnum):
    """What a seat is at; the text is what `runlane status` shows."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    ENDED = "ended"


class Seat:
    """Starts, restarts and remembers. `is_dynamic` marks a proxy that was asked for while the graph runs."""

    def __init__(
        self, spec: ChildSpec, settings: SupervisorSettings, log_dir: Path, *, is_dynamic: bool = False
    ) -> None:
        self.spec = spec
        self.is_dynamic = is_dynamic
        self.state = SeatState.WAITING
        self.child: Child | None = None
        self.was_ready = False
        self.restarts = 0
        self.exit_code: int | None = None
        self.due_s = 0.0
        self.has_given_up = False
        self.is_dismissed = False  # ended by request: not to be started again
        self.identity: bytes | None = None
        self._log_dir = log_dir
        self._intensity = RestartIntensity(settings.max_restarts, settings.period_s)
        self._back_off = BackOff(settings.backoff_s, settings.backoff_max_s, settings.period_s)

    @property
    def name(self) -> str:
        """Name of the child."""
        return self.spec.name

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, or one not yet reaped."""
        return self.child is not None and self.child.is_alive

    @property
    def pid(self) -> int:
        """Pid of the process; 0 when there is none."""
        return self.child.pid if self.child is not None and self.child.is_alive else 0

    def start(self) -> None:
        """Start the process; raises `OSError` or `ValueError` when the system cannot."""
        is_restart = self.state is SeatState.RESTARTING
        self.identity = None
        spec = self.spec
        if is_restart and spec.kind == "worker":  # its streams go on where the former ones ended
            spec = dataclasses.replace(spec, environment={**spec.environment, ENV_RESUMED: "1"})
        self.child = Child(spec, self._log_dir)
        if is_restart:
            self.restarts += 1
            log_event(log_ids.SUPERVISOR_CHILD_RESTARTED, name=self.name, pid=self.pid, restarts=self.restarts)
        else:
            log_event(log_ids.SUPERVISOR_CHILD_STARTED, name=self.name, pid=self.pid)
        self.state = SeatState.STARTING
        if not self.spec.reports_heartbeat:
            self.on_ready()

    def on_ready(self) -> None:
        """It reported for the first time, or need not."""
        self.was_ready = True
        if self.state is SeatState.STARTING:
            self.state = SeatState.RUNNING

    def on_exit(self, exit_code: int, now_s: float, restart: Restart) -> None:
        """Its process ended: be due for a restart, or ended for good, perhaps because that was one too many.

        `restart` is the rule in force now. A dynamic child that never became ready is refused to whoever
        asked for it, not tried again.
        """
        self.exit_code = exit_code
        is_wanted = self.was_ready or not self.is_dynamic
        if not is_wanted or not should_restart(restart, exit_code):
            self.state = SeatState.ENDED
        elif not self._intensity.allows(now_s):
            self.state = SeatState.ENDED
            self.has_given_up = True
        else:
            self.state = SeatState.RESTARTING
            self.due_s = now_s + self._back_off.next_delay_s(now_s)

    def revive(self, now_s: float) -> None:
        """A proxy that ended well is needed again, because its worker is."""
        if self.state is SeatState.ENDED:
            self.state = SeatState.RESTARTING
            self.due_s = now_s

    def signal(self, signum: int) -> None:
        """Send a signal to the process, if there is one."""
        if self.child is not None:
            self.child.signal(signum)

    def kill(self) -> None:
        """Kill the process and all it started."""
        if self.child is not None:
            self.child.kill()
