"""All children of a supervisor: start in order, watch, restart, give up. Moved on by `advance`, never waits."""

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runlane.actors.health import HealthTable
from runlane.actors.seat import CANNOT_START, Seat, SeatState
from runlane.actors.topology import ChildSpec, proxy_name
from runlane.config import log_ids
from runlane.config.settings import SupervisorSettings
from runlane.transport.log import log_event
from runlane.transport.messages import ChildStatus, Heartbeat

KEPT_ENDED = 32


class Graph:
    """The seats in start order, and the health of those that report. Only the supervisor's thread calls it."""

    def __init__(self, settings: SupervisorSettings, log_dir: Path) -> None:
        """`log_dir` must exist before the first `advance`."""
        self.seats: dict[str, Seat] = {}
        self.gave_up: Seat | None = None
        self._settings = settings
        self._log_dir = log_dir
        self._health = HealthTable(settings.start_s, settings.heartbeat_timeout_s)
        self._is_held = False
        self._ended: list[Seat] = []
        self._advanced_s: float | None = None

    @property
    def is_up(self) -> bool:
        """Whether every configured child became ready, or ended for good."""
        return all(seat.was_ready or seat.state is SeatState.ENDED for seat in self._configured())

    def add(self, specs: Iterable[ChildSpec]) -> None:
        """Seats to be filled in this order, each when the one before it is ready."""
        for spec in specs:
            self.seats[spec.name] = Seat(spec, self._settings, self._log_dir)

    def start_dynamic(self, spec: ChildSpec, now_s: float) -> Seat:
        """A further seat, filled at once."""
        seat = Seat(spec, self._settings, self._log_dir, is_dynamic=True)
        self.seats[spec.name] = seat
        self._start(seat, now_s)
        return seat

    def on_heartbeat(self, heartbeat: Heartbeat, identity: bytes, now_s: float) -> Seat | None:
        """Take a child's heartbeat and how to reach it; None when it is of no living child of ours."""
        seat = self.seats.get(heartbeat.name)
        if seat is None or not self._health.record(heartbeat, now_s):
            return None
        seat.identity = identity
        seat.on_ready()
        return seat

    def advance(self, now_s: float) -> list[Seat]:
        """Do what is due: reap, kill the silent, restart, start the next. Returns seats that ended for good."""
        self._forgive_pause(now_s)
        for seat in self.seats.values():
            self._reap(seat, now_s)
        if not self._is_held:
            self._kill_silent(now_s)
            self._restart_due(now_s)
            self._start_next(now_s)
        self._drop_oldest_ended()
        ended, self._ended = self._ended, []
        return ended

    def dismiss(self, seat: Seat, signum: signal.Signals) -> None:
        """End a child for good: signal it, and do not start it again. One that waits for its restart has ended."""
        seat.is_dismissed = True
        if seat.state is SeatState.RESTARTING:
            seat.state = SeatState.ENDED
            self._ended.append(seat)
        elif signum is signal.SIGKILL:
            seat.kill()
        else:
            seat.signal(signum)

    def hold(self) -> list[Seat]:
        """From now on only reap: nothing is started, restarted or expected. Returns seats that thereby ended."""
        self._is_held = True
        ended = [seat for seat in self.seats.values() if not seat.is_alive and seat.state is not SeatState.ENDED]
        for seat in ended:
            seat.state = SeatState.ENDED
        return ended

    def close(self) -> None:
        """Kill and reap whatever still runs; after an ordered stop there is nothing."""
        self.hold()
        for seat in self.seats.values():
            seat.kill()
        for seat in self.seats.values():
            if seat.child is not None:
                seat.child.reap()

    def next_deadline_s(self) -> float | None:
        """When `advance` has something to do though nobody called."""
        if self._is_held:
            return None
        due = [seat.due_s for seat in self.seats.values() if seat.state is SeatState.RESTARTING]
        late = self._health.next_deadline_s()
        return min(due if late is None else [*due, late], default=None)

    def status(self, now_s: float) -> list[ChildStatus]:
        """Every child as it stands, ended ones with their exit code."""
        return [self._status_of(seat, now_s) for seat in self.seats.values()]

    def statistics(self, name: str) -> dict[str, Any]:
        """A child's newest figures."""
        return self._health.statistics(name)

    def _configured(self) -> list[Seat]:
        return [seat for seat in self.seats.values() if not seat.is_dynamic]

    def _forgive_pause(self, now_s: float) -> None:
        """When this process was stopped or starved, its children's silence says nothing."""
        pause_s = 0.0 if self._advanced_s is None else now_s - self._advanced_s
        self._advanced_s = now_s
        if pause_s > self._settings.heartbeat_timeout_s / 2:
            self._health.postpone(pause_s)

    def _start(self, seat: Seat, now_s: float) -> None:
        try:
            seat.start()
        except (OSError, ValueError) as error:
            log_event(log_ids.SUPERVISOR_CHILD_EXITED, name=seat.name, code=CANNOT_START, error=error)
            self._settle(seat, CANNOT_START, now_s)
            return
        if seat.spec.reports_heartbeat:
            self._health.expect(seat.name, seat.pid, now_s)

    def _reap(self, seat: Seat, now_s: float) -> None:
        if seat.child is None or not seat.child.is_alive:
            return
        pid, code = seat.pid, seat.child.poll()
        if code is not None:
            log_event(log_ids.SUPERVISOR_CHILD_EXITED, name=seat.name, pid=pid, code=code)
            self._health.release(seat.name)
            self._settle(seat, code, now_s)

    def _settle(self, seat: Seat, code: int, now_s: float) -> None:
        """Restart by rule. A proxy is permanent while its worker runs, however well it ended."""
        worker = self.seats.get(seat.spec.worker) if seat.spec.kind == "proxy" else None
        rule = "permanent" if worker is not None and worker.is_alive else seat.spec.restart
        seat.on_exit(code, now_s, "temporary" if self._is_held or seat.is_dismissed else rule)
        if seat.state is SeatState.ENDED:
            self._ended.append(seat)
        if seat.has_given_up and self.gave_up is None:
            self.gave_up = seat
            log_event(log_ids.SUPERVISOR_GAVE_UP, name=seat.name, restarts=seat.restarts, code=code)

    def _kill_silent(self, now_s: float) -> None:
        for name in self._health.late(now_s):
            seat = self.seats[name]
            age_s = self._health.age_s(name, now_s)
            log_event(log_ids.SUPERVISOR_CHILD_SILENT, name=name, pid=seat.pid, age_s=age_s)
            self._health.release(name)
            seat.kill()

    def _restart_due(self, now_s: float) -> None:
        for seat in self.seats.values():
            if seat.state is SeatState.RESTARTING and now_s >= seat.due_s:
                self._revive_proxy_of(seat, now_s)
                self._start(seat, now_s)

    def _revive_proxy_of(self, seat: Seat, now_s: float) -> None:
        """A proxy whose worker was gone for long may have drained and ended; a new worker needs it again."""
        proxy = self.seats.get(proxy_name(seat.spec.worker)) if seat.spec.kind == "worker" else None
        if proxy is not None and proxy.state is SeatState.ENDED:
            proxy.revive(now_s)
            self._start(proxy, now_s)

    def _start_next(self, now_s: float) -> None:
        for seat in self._configured():
            if seat.state is SeatState.WAITING:
                self._start(seat, now_s)
            if not seat.was_ready and seat.state is not SeatState.ENDED:
                return

    def _drop_oldest_ended(self) -> None:
        ended = [seat for seat in self.seats.values() if seat.is_dynamic and seat.state is SeatState.ENDED]
        for seat in ended[:-KEPT_ENDED]:
            del self.seats[seat.name]
            self._health.forget(seat.name)

    def _status_of(self, seat: Seat, now_s: float) -> ChildStatus:
        said = self._health.state(seat.name) if seat.state is SeatState.RUNNING else None
        return ChildStatus(
            name=seat.name,
            kind=seat.spec.kind,
            state=said or seat.state.value,
            pid=seat.pid,
            restarts=seat.restarts,
            heartbeat_age_s=self._health.age_s(seat.name, now_s),
            exit_code=seat.exit_code,
            statistics=self._health.statistics(seat.name),
        )
