"""The ordered stop: worker → proxy → router → subscribers → GUI, each stage within its share of the time."""

import signal
from collections.abc import Iterable, Sequence
from typing import Protocol

from runlane.actors.seat import SeatState
from runlane.actors.topology import STOP_ORDER, ChildSpec
from runlane.config import log_ids
from runlane.config.settings import SupervisorSettings
from runlane.transport.log import log_event

# Of the whole stop: kept for reaping and closing; kept for each later stage; between "hurry" and the kill.
CLOSE_S = 0.1
RESERVE_S = 0.25
HURRY_S = 0.1
# A process that survives SIGKILL for so long hangs in the kernel; the stop does not wait for it.
KILL_PATIENCE_S = 0.5


class Stoppable(Protocol):
    """What the stop needs of a seat."""

    state: SeatState

    @property
    def spec(self) -> ChildSpec:
        """What it is."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it still has to be waited for."""
        ...

    @property
    def pid(self) -> int:
        """Pid of its process."""
        ...

    def signal(self, signum: int) -> None:
        """Ask its process."""
        ...

    def kill(self) -> None:
        """End its process."""
        ...


def stage_share_s(left_s: float, later_stages: int) -> float:
    """Time for a stage: all that is left but a reserve for each later one, and never less than an equal part."""
    return max(left_s - RESERVE_S * later_stages, left_s / (later_stages + 1), 0.0)


class OrderedStop:
    """Signals a stage, waits for it, kills what is late, goes on. Moved on by `advance`; the time is given.

    Whoever reaps the seats' processes does so between two calls.
    """

    def __init__(self, seats: Iterable[Stoppable], settings: SupervisorSettings, now_s: float) -> None:
        """The time runs from `now_s`. Nothing is signalled before the first `advance`."""
        self._stages = _by_stage(seats)
        self._worker_grace_s = settings.worker_grace_s
        self._end_s = now_s + max(settings.stop_s - CLOSE_S, 0.0)
        self._stage: list[Stoppable] = []
        self._hurry_s: float | None = None
        self._kill_s: float | None = None
        self._give_up_s: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether every stage is over."""
        return not self._stage and not self._stages

    def advance(self, now_s: float) -> None:
        """Do what is due now."""
        while not self.is_done:
            self._stage = [seat for seat in self._stage if seat.is_alive]
            if self._stage:
                self._press(now_s)
                if self._stage:
                    return
            elif self._stages:
                self._begin(self._stages.pop(0), now_s)

    def next_deadline_s(self) -> float | None:
        """When `advance` has something to do though no child ended."""
        return next((at_s for at_s in (self._hurry_s, self._kill_s, self._give_up_s) if at_s is not None), None)

    def kill_all(self, now_s: float) -> None:
        """No more patience: every child at once."""
        waiting = [seat for stage in self._stages for seat in stage]
        self._stage = [seat for seat in (*self._stage, *waiting) if seat.is_alive]
        self._stages = []
        self._hurry_s, self._kill_s = None, now_s
        self._press(now_s)

    def _begin(self, stage: list[Stoppable], now_s: float) -> None:
        self._stage = [seat for seat in stage if seat.is_alive]
        later = sum(any(seat.is_alive for seat in other) for other in self._stages)
        share_s = stage_share_s(self._end_s - now_s, later)
        if any(seat.spec.kind == "worker" for seat in self._stage):
            share_s = min(self._worker_grace_s, self._end_s - now_s)
        self._kill_s, self._give_up_s = now_s + share_s, None
        self._hurry_s = now_s + max(share_s - HURRY_S, share_s / 2)
        for seat in self._stage:
            seat.state = SeatState.STOPPING
            seat.signal(signal.SIGINT if seat.spec.kind == "worker" else signal.SIGTERM)

    def _press(self, now_s: float) -> None:
        if self._hurry_s is not None and now_s >= self._hurry_s:
            self._hurry_s = None
            for seat in self._stage:  # to an actor of ours a second signal means: at once, and say what is left
                if seat.spec.reports_heartbeat:
                    seat.signal(signal.SIGTERM)
        if self._kill_s is not None and now_s >= self._kill_s:
            self._kill_s, self._give_up_s = None, now_s + KILL_PATIENCE_S
            for seat in self._stage:
                log_event(log_ids.SUPERVISOR_CHILD_KILLED, name=seat.spec.name, pid=seat.pid)
                seat.kill()
        if self._give_up_s is not None and now_s >= self._give_up_s:
            self._stage = []


def _by_stage(seats: Iterable[Stoppable]) -> list[list[Stoppable]]:
    all_seats: Sequence[Stoppable] = list(seats)
    stages = [[seat for seat in all_seats if seat.spec.stop_stage == number] for number in range(len(STOP_ORDER))]
    return [stage for stage in stages if stage]
