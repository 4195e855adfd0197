"""The supervisor's part in steering workers: whom it asks, how often, and that every asker is answered."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from runlane.actors.control_desk import ANSWER_S, ControlDesk
from runlane.actors.graph import Graph
from runlane.actors.seat import SeatState
from runlane.actors.topology import ChildSpec, Kind
from runlane.config.settings import Settings, SupervisorSettings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.endpoint import run_dir_of
from runlane.transport.messages import (
    ControlMessage,
    Refused,
    SetTelemetryMode,
    StopWorker,
    TelemetryModeSet,
    WorkerSignalled,
)

MODE = TelemetryMode.DURABLE_ONLY
QUESTION = SetTelemetryMode(run="R", worker="w", mode=MODE)


@dataclass
class FakeSeat:
    """A child's place."""

    spec: ChildSpec
    identity: bytes | None = b"proxy"
    state: SeatState = SeatState.RUNNING
    is_alive: bool = True
    is_dismissed: bool = False
    pid: int = 71
    got: list[int] = field(default_factory=list[int])

    @property
    def name(self) -> str:
        return self.spec.name

    def signal(self, signum: int) -> None:
        self.got.append(signum)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)


class Desk:
    """A desk, its graph, and what it says to whom."""

    def __init__(self, settings: Settings) -> None:
        self.said: list[tuple[bytes, ControlMessage]] = []
        self.gone: set[bytes] = set()
        self.graph = Graph(SupervisorSettings(), Path("logs"))
        self.figures: dict[str, dict[str, Any]] = {}
        self.graph.statistics = lambda name: self.figures.get(name, {})  # type: ignore[method-assign]
        self.desk = ControlDesk(self.graph, run_dir_of(settings), self.send, 100)

    def send(self, peer: bytes, message: ControlMessage) -> bool:
        if peer in self.gone:
            return False
        self.said.append((peer, message))
        return True

    def seat(self, name: str, kind: Kind, worker: str, run: str = "R") -> FakeSeat:
        spec = ChildSpec(
            name=name, kind=kind, command=[], restart="permanent", reports_heartbeat=True, worker=worker, run=run
        )
        found = FakeSeat(spec)
        self.graph.seats[name] = cast("Any", found)
        return found

    def to_proxy(self) -> list[ControlMessage]:
        return [message for peer, message in self.said if peer == b"proxy"]

    def to_asker(self) -> list[ControlMessage]:
        return [message for peer, message in self.said if peer == b"asker"]

    def refusal(self) -> str:
        [answer] = self.to_asker()
        assert isinstance(answer, Refused)
        return answer.reason


@pytest.fixture
def desk(settings: Settings) -> Desk:
    return Desk(settings)


def test_the_proxys_answer_goes_to_who_asked(desk: Desk) -> None:
    """Once, by the number of its question; an answer nobody waits for goes nowhere."""
    desk.seat("proxy-w", "proxy", "w")
    desk.desk.on_question(b"asker", QUESTION, 0.0)
    [asked] = desk.to_proxy()
    assert isinstance(asked, SetTelemetryMode)
    answer = TelemetryModeSet(run="R", worker="w", mode=MODE, streams=1, request=asked.request)
    desk.desk.on_answer(answer)
    desk.desk.on_answer(answer)
    assert desk.to_asker() == [answer]
    assert desk.desk.next_deadline_s() is None


def test_a_mode_is_passed_on_again_and_a_signal_is_not(desk: Desk) -> None:
    """The proxy may be a new process at its next heartbeat. A second SIGINT would be impatience."""
    seat = desk.seat("proxy-w", "proxy", "w")
    desk.desk.on_question(b"asker", QUESTION, 0.0)
    desk.desk.on_question(b"asker", StopWorker(run="R", worker="w"), 0.0)
    desk.desk.on_heartbeat(cast("Any", seat))
    assert [type(message) for message in desk.to_proxy()] == [SetTelemetryMode, StopWorker, SetTelemetryMode]


def test_a_proxy_that_is_being_started_again_is_asked_when_it_is_there(desk: Desk) -> None:
    """Whatever the question: it has not left yet."""
    seat = desk.seat("proxy-w", "proxy", "w")
    seat.state, seat.identity = SeatState.RESTARTING, None
    desk.desk.on_question(b"asker", StopWorker(run="R", worker="w"), 0.0)
    assert desk.to_proxy() == []
    seat.identity = b"proxy"
    desk.desk.on_heartbeat(cast("Any", seat))
    desk.desk.on_heartbeat(cast("Any", seat))
    assert len(desk.to_proxy()) == 1


def test_silence_of_a_proxy_is_an_answer_in_time(desk: Desk) -> None:
    """Nobody waits for ever, and nothing is passed on after it."""
    seat = desk.seat("proxy-w", "proxy", "w")
    desk.desk.on_question(b"asker", QUESTION, 10.0)
    assert desk.desk.next_deadline_s() == 10.0 + ANSWER_S
    desk.desk.advance(10.0 + ANSWER_S)
    assert "proxy-w gave no answer" in desk.refusal()
    desk.desk.on_heartbeat(cast("Any", seat))
    assert len(desk.to_proxy()) == 1


def test_a_worker_that_joined_a_proxy_of_another_name_is_found(desk: Desk) -> None:
    """By what the proxy's heartbeats say of its workers."""
    desk.seat("proxy-w", "proxy", "w", run="S")
    desk.figures["proxy-w"] = {"workers": [{"run": "R", "worker": "other"}]}
    desk.desk.on_question(b"asker", SetTelemetryMode(run="R", worker="other", mode=MODE), 0.0)
    assert len(desk.to_proxy()) == 1


def test_an_unknown_worker_is_refused_at_once(desk: Desk) -> None:
    """As one whose proxy has ended."""
    desk.seat("proxy-w", "proxy", "w").state = SeatState.ENDED
    desk.desk.on_question(b"asker", QUESTION, 0.0)
    assert "worker w of run R has no open stream here" in desk.refusal()


@pytest.mark.parametrize("is_kill", [False, True])
def test_a_child_of_the_supervisor_is_signalled_by_it_and_dismissed(desk: Desk, is_kill: bool) -> None:
    """Its proxy is not asked; a permanent worker does not come back."""
    seat = desk.seat("w", "worker", "w")
    desk.seat("proxy-w", "proxy", "w")
    desk.desk.on_question(b"asker", StopWorker(run="R", worker="w", is_kill=is_kill), 0.0)
    signum = signal.SIGKILL if is_kill else signal.SIGINT
    assert (seat.got, seat.is_dismissed, desk.to_proxy()) == ([signum], True, [])
    assert desk.to_asker() == [WorkerSignalled(run="R", worker="w", signal=signum.name, pids=[71])]  # type: ignore[arg-type]


def test_a_child_that_waits_to_be_started_again_is_not(desk: Desk) -> None:
    """There is nothing to signal, and it has ended for good: its proxy hears of it."""
    seat = desk.seat("w", "worker", "w")
    seat.state, seat.is_alive = SeatState.RESTARTING, False
    desk.desk.on_question(b"asker", StopWorker(run="R", worker="w"), 0.0)
    assert (seat.got, seat.state) == ([], SeatState.ENDED)
    assert desk.graph._ended == [seat]  # pyright: ignore[reportPrivateUsage]
    [answer] = desk.to_asker()
    assert isinstance(answer, WorkerSignalled)
    assert answer.pids == []


def test_a_child_that_has_ended_is_refused(desk: Desk) -> None:
    """With its name."""
    desk.seat("w", "worker", "w").state = SeatState.ENDED
    desk.desk.on_question(b"asker", StopWorker(run="R", worker="w"), 0.0)
    assert "worker w of run R does not run" in desk.refusal()
