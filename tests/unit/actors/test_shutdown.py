"""The ordered stop, with fake children and a time that is given."""

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from runlane.actors.seat import SeatState
from runlane.actors.shutdown import CLOSE_S, KILL_PATIENCE_S, RESERVE_S, OrderedStop, stage_share_s
from runlane.actors.topology import ChildSpec, Kind
from runlane.config.settings import SupervisorSettings

SETTINGS = SupervisorSettings(worker_grace_s=1.0, stop_s=1.9)
KILL = signal.SIGKILL
EVERYTHING = (signal.SIGINT, signal.SIGTERM, KILL)


@dataclass
class FakeSeat:
    """A child that ends on the signals in `obeys`."""

    spec: ChildSpec
    obeys: set[int]
    got: list[int] = field(default_factory=list[int])
    is_alive: bool = True
    state: SeatState = SeatState.RUNNING
    pid: int = 1

    def signal(self, signum: int) -> None:
        self.got.append(signum)
        self.is_alive = self.is_alive and signum not in self.obeys

    def kill(self) -> None:
        self.signal(KILL)


def _seat(kind: Kind, *, obeys: Iterable[int] = EVERYTHING, reports: bool = True) -> FakeSeat:
    spec = ChildSpec(name=kind, kind=kind, command=[], restart="permanent", reports_heartbeat=reports)
    return FakeSeat(spec, set(obeys))


def _graph(obeys: Iterable[int] = EVERYTHING) -> dict[str, FakeSeat]:
    kinds: tuple[Kind, ...] = ("router", "subscriber", "proxy", "worker", "gui")
    return {kind: _seat(kind, obeys=obeys, reports=kind not in ("worker", "gui")) for kind in kinds}


def _run(stop: OrderedStop, now_s: float) -> float:
    """Advance from deadline to deadline until it is done; returns that time."""
    for _ in range(100):
        stop.advance(now_s)
        stop.advance(now_s)  # in a real stop the death of a child wakes the loop
        if stop.is_done:
            return now_s
        deadline_s = stop.next_deadline_s()
        assert deadline_s is not None
        now_s = max(now_s, deadline_s)
    raise AssertionError("the stop never ends")


def test_obedient_children_stop_at_once_worker_by_sigint_the_others_by_sigterm() -> None:
    """Nobody waits for a share that is not needed."""
    seats = _graph()
    stop = OrderedStop(seats.values(), SETTINGS, 100.0)
    assert _run(stop, 100.0) == 100.0
    assert seats["worker"].got == [signal.SIGINT]
    assert [seats[kind].got for kind in ("proxy", "router", "subscriber", "gui")] == [[signal.SIGTERM]] * 4


def test_a_stage_begins_only_when_the_one_before_is_gone() -> None:
    """The proxy hears nothing while a worker still runs."""
    seats = _graph()
    seats["worker"].obeys = {KILL}
    stop = OrderedStop(seats.values(), SETTINGS, 0.0)
    stop.advance(0.0)
    stop.advance(0.9)
    assert seats["proxy"].got == []
    seats["worker"].is_alive = False
    stop.advance(0.91)
    assert seats["proxy"].got == [signal.SIGTERM]


def test_a_worker_that_ignores_sigint_is_killed_after_its_grace() -> None:
    """At worker_grace_s, not before."""
    worker = _seat("worker", obeys={KILL}, reports=False)
    stop = OrderedStop([worker], SETTINGS, 0.0)
    stop.advance(0.0)
    stop.advance(0.99)
    assert worker.got == [signal.SIGINT]
    stop.advance(1.0)
    assert worker.got == [signal.SIGINT, KILL]


def test_a_graph_that_ignores_everything_is_gone_within_stop_s() -> None:
    """Every stage is killed within its share, the last one in time to close."""
    seats = _graph(obeys={KILL})
    assert _run(OrderedStop(seats.values(), SETTINGS, 50.0), 50.0) <= 50.0 + SETTINGS.stop_s - CLOSE_S + 1e-9
    assert not any(seat.is_alive for seat in seats.values())


def test_an_actor_of_ours_is_hurried_before_it_is_killed() -> None:
    """Its second SIGTERM lets it say what it leaves."""
    router = _seat("router", obeys={KILL})
    _run(OrderedStop([router], SETTINGS, 0.0), 0.0)
    assert router.got == [signal.SIGTERM, signal.SIGTERM, KILL]


def test_a_foreign_command_is_not_hurried() -> None:
    """Its second signal would only interrupt its clean-up."""
    gui = _seat("gui", obeys={KILL}, reports=False)
    _run(OrderedStop([gui], SETTINGS, 0.0), 0.0)
    assert gui.got == [signal.SIGTERM, KILL]


def test_kill_all_spares_nobody_and_waits_for_nothing() -> None:
    """What a second SIGINT does."""
    seats = _graph(obeys={KILL})
    stop = OrderedStop(seats.values(), SETTINGS, 0.0)
    stop.advance(0.0)
    stop.kill_all(0.1)
    stop.advance(0.1)
    assert stop.is_done
    assert all(seat.got[-1] == KILL for seat in seats.values())


def test_a_process_that_survives_sigkill_does_not_hold_the_stop() -> None:
    """One that hangs in the kernel is left to it."""
    stop = OrderedStop([_seat("router", obeys=())], SETTINGS, 0.0)
    assert _run(stop, 0.0) <= SETTINGS.stop_s + KILL_PATIENCE_S


def test_an_empty_graph_is_stopped_already() -> None:
    """Nothing to wait for."""
    assert OrderedStop([], SETTINGS, 0.0).is_done


@pytest.mark.parametrize(
    ("left_s", "later", "expected"),
    [(1.8, 0, 1.8), (1.8, 2, 1.8 - 2 * RESERVE_S), (0.3, 2, 0.1), (0.0, 3, 0.0), (-1.0, 1, 0.0)],
)
def test_a_stage_gets_what_later_ones_do_not_need(left_s: float, later: int, expected: float) -> None:
    """All but a reserve for each later stage, at least an equal part, never less than nothing."""
    assert stage_share_s(left_s, later) == pytest.approx(expected)


def test_the_shares_of_all_stages_never_add_up_to_more_than_the_time() -> None:
    """Whatever is left at each stage, using every share in full ends in time."""
    for tenths in range(30):
        left_s = tenths / 10
        for later in reversed(range(4)):
            left_s -= stage_share_s(left_s, later)
        assert left_s >= -1e-9
