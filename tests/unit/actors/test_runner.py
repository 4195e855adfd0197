"""What ends an actor, with which exit code, and that it is always closed. In this process, without sockets."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runlane.actors.runner import ORPHAN_DRAIN_S, UNDRAINED, UNFORESEEN, run_actor
from runlane.config.errors import EndpointError
from runlane.config.names import ENV_LIFELINE
from runlane.config.settings import Settings, TransportSettings
from runlane.transport.testing import FakeClock

DRAIN_S = 2.0


class FakeActor:
    """Does what `on_turn` says in each turn, which takes as long as it may on the fake clock."""

    name = "fake"

    def __init__(self, clock: FakeClock, on_turn: Callable[[int], None]) -> None:
        self.is_finished = False
        self.drained = True
        self.start_error: Exception | None = None
        self.calls: list[str] = []
        self.turns = 0
        self._clock = clock
        self._on_turn = on_turn

    def on_start(self) -> None:
        self.calls.append("start")
        if self.start_error is not None:
            raise self.start_error

    def do_work(self, timeout_s: float) -> None:
        self.turns += 1
        assert self.turns < 10_000, "the actor is never stopped"
        self._clock.move(timeout_s)
        self._on_turn(self.turns)

    def request_stop(self) -> None:
        self.calls.append("stop")

    def is_drained(self) -> bool:
        return self.drained

    def statistics(self) -> dict[str, Any]:
        return {}

    def on_close(self) -> None:
        self.calls.append("close")


def _nothing(_turn: int) -> None:
    """A turn without an event."""


def _signal_at(turns: dict[int, signal.Signals]) -> Callable[[int], None]:
    def on_turn(turn: int) -> None:
        if turn in turns:
            os.kill(os.getpid(), turns[turn])

    return on_turn


def _run(
    actor: FakeActor,
    clock: FakeClock,
    tmp_path: Path,
    environment: dict[str, str] | None = None,
    drain_s: float = DRAIN_S,
) -> int:
    settings = Settings(data_dir=str(tmp_path), transport=TransportSettings(run_dir=str(tmp_path / "run")))
    return run_actor(actor, settings, drain_s=drain_s, clock=clock, environment=environment or {})


def test_an_actor_that_is_finished_ends_with_0(clock: FakeClock, tmp_path: Path) -> None:
    """Nobody has to ask it to stop."""

    def finish(turn: int) -> None:
        actor.is_finished = turn == 3

    actor = FakeActor(clock, finish)
    assert _run(actor, clock, tmp_path) == 0
    assert actor.turns == 3
    assert actor.calls == ["start", "close"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_is_its_exit_code(clock: FakeClock, tmp_path: Path, signum: signal.Signals) -> None:
    """So that a supervisor restarts what somebody else stopped."""
    actor = FakeActor(clock, _signal_at({2: signum}))
    assert _run(actor, clock, tmp_path) == 128 + signum
    assert actor.calls == ["start", "stop", "close"]


def test_the_handlers_before_are_put_back(clock: FakeClock, tmp_path: Path) -> None:
    """The process may go on with something else."""
    before = signal.getsignal(signal.SIGTERM)
    _run(FakeActor(clock, _signal_at({1: signal.SIGTERM})), clock, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_works_on_until_it_is_drained(clock: FakeClock, tmp_path: Path) -> None:
    """Stopping takes nothing back that was accepted."""

    def drain(turn: int) -> None:
        if turn == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        actor.drained = turn >= 20

    actor = FakeActor(clock, drain)
    assert _run(actor, clock, tmp_path) == 128 + signal.SIGTERM
    assert actor.turns == 20


def test_the_drain_is_bounded(clock: FakeClock, tmp_path: Path) -> None:
    """After drain_s it ends with what is left, and its exit code says so."""
    actor = FakeActor(clock, _signal_at({1: signal.SIGTERM}))
    actor.drained = False
    began_s = clock.monotonic_s()
    assert _run(actor, clock, tmp_path) == UNDRAINED
    assert clock.monotonic_s() - began_s == pytest.approx(DRAIN_S, abs=0.2)
    assert actor.calls[-1] == "close"


def test_a_second_signal_ends_it_at_once_but_closed(clock: FakeClock, tmp_path: Path) -> None:
    """Even in the middle of a turn."""

    def twice(turn: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert turn < 2, "the second signal came through"

    actor = FakeActor(clock, twice)
    actor.drained = False
    assert _run(actor, clock, tmp_path) == 128 + signal.SIGTERM
    assert actor.turns == 2
    assert actor.calls[-1] == "close"


def test_an_error_of_ours_is_one_line_and_its_exit_code(
    clock: FakeClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person needs the reason, not our stack."""
    actor = FakeActor(clock, _nothing)
    actor.start_error = EndpointError("the socket is taken")
    assert _run(actor, clock, tmp_path) == EndpointError.exit_code
    assert actor.calls == ["start", "close"]
    written = capsys.readouterr().err
    assert "ACTOR_FAILED error='the socket is taken'" in written
    assert "Traceback" not in written


def test_an_unforeseen_error_is_logged_with_its_traceback(
    clock: FakeClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the actor is closed all the same."""

    def fail(_turn: int) -> None:
        raise KeyError("surprise")

    actor = FakeActor(clock, fail)
    assert _run(actor, clock, tmp_path) == UNFORESEEN
    assert actor.calls == ["start", "close"]
    written = capsys.readouterr().err
    assert "ACTOR_FAILED" in written
    assert "Traceback" in written


def test_a_closed_lifeline_lets_it_drain_and_end_with_0(
    clock: FakeClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its supervisor is gone; what it accepted is still finished."""
    read_end, write_end = os.pipe()

    def orphan(turn: int) -> None:
        if turn == 3:
            os.close(write_end)

    actor = FakeActor(clock, orphan)
    assert _run(actor, clock, tmp_path, {ENV_LIFELINE: str(read_end)}) == 0
    assert actor.calls == ["start", "stop", "close"]
    assert "ACTOR_ORPHANED" in capsys.readouterr().err


def test_an_orphan_that_waits_for_word_of_its_worker_uses_its_whole_drain_time(
    clock: FakeClock, tmp_path: Path
) -> None:
    """The worker ends at the same time, and its last records are still to come."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    actor = FakeActor(clock, _nothing)
    vars(actor)["on_message"] = _nothing
    began_s = clock.monotonic_s()
    assert _run(actor, clock, tmp_path, {ENV_LIFELINE: str(read_end)}) == 0
    assert clock.monotonic_s() - began_s == pytest.approx(DRAIN_S, abs=0.2)


def test_an_orphan_that_cannot_drain_ends_all_the_same(clock: FakeClock, tmp_path: Path) -> None:
    """However long its settings would let it."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    actor = FakeActor(clock, _nothing)
    actor.drained = False
    began_s = clock.monotonic_s()
    assert _run(actor, clock, tmp_path, {ENV_LIFELINE: str(read_end)}, drain_s=60.0) == UNDRAINED
    assert clock.monotonic_s() - began_s == pytest.approx(ORPHAN_DRAIN_S, abs=0.2)


def test_the_kernels_word_of_a_dead_parent_is_no_second_signal(clock: FakeClock, tmp_path: Path) -> None:
    """A parent that asked and then died must not cut the drain short."""
    read_end, write_end = os.pipe()

    def stop_and_die(turn: int) -> None:
        if turn == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if turn == 5:
            os.close(write_end)
            os.kill(os.getpid(), signal.SIGTERM)
        actor.drained = turn >= 10

    actor = FakeActor(clock, stop_and_die)
    assert _run(actor, clock, tmp_path, {ENV_LIFELINE: str(read_end)}) == 0
    assert actor.turns == 10


def test_the_last_one_out_sweeps_the_run_directory(clock: FakeClock, tmp_path: Path) -> None:
    """Locks that nobody holds, then the directory itself."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    (run_dir / "router.lock").touch()
    _run(FakeActor(clock, _signal_at({1: signal.SIGTERM})), clock, tmp_path)
    assert not run_dir.exists()
