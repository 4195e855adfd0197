"""The demo begins only where it can end well, and ends when everything is accounted for."""

import importlib.util
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import pytest

from runlane.config.errors import GraphError, SettingsError
from runlane.config.settings import Settings, WorkerSettings
from runlane.demo import LOST_GRAPH_S, SETTLE_MAX_S, StopSignals, Watch, check_settings
from runlane.gui.screen import Screen
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import ChildStatus, Status
from runlane.transport.subscriber import RecordBatch, Subscriber
from runlane.transport.testing import FakeClock


def _child(name: str, kind: str, state: str, exit_code: int | None = None, **figures: Any) -> ChildStatus:
    return ChildStatus(
        name=name,
        kind=kind,
        state=state,
        pid=1,
        restarts=0,
        heartbeat_age_s=0.1,
        exit_code=exit_code,
        statistics=figures,
    )


def _status(worker: str = "running", proxy: str = "running", queued: int = 0, state: str = "running") -> Status:
    account = {"overflow": "block", "published": queued, "depth": queued}
    streams = 1 if proxy == "running" else 0
    children = [
        _child("router", "router", "running", streams=streams, subscribers={"db_writer": account}),
        _child("proxy-w", "proxy", proxy, 0 if proxy == "ended" else None, run="01run"),
        _child("w", "worker", worker, 7 if worker == "ended" else None),
    ]
    return Status(pid=9, uptime_s=1.0, data_dir="/d", run_dir="/r", state=state, children=children)


class _World:
    """Subscriber, client and screen in one: every poll moves the clock; the script says what a status is when."""

    interval_s = 0.2

    def __init__(self, script: Callable[[float], Status | None]) -> None:
        self.clock = FakeClock()
        self.started_s = self.clock.monotonic_s()
        self.shown = 0
        self._script = script

    @property
    def passed_s(self) -> float:
        return self.clock.monotonic_s() - self.started_s

    def poll(self, timeout_s: float) -> Sequence[RecordBatch]:
        assert self.passed_s < 60, "the demo never ends"
        self.clock.move(timeout_s)
        return []

    def status(self, _timeout_s: float) -> Status | None:
        return self._script(self.passed_s)

    def show(self, *_: object) -> None:
        self.shown += 1


def _watched(settings: Settings, world: _World) -> Watch:
    subscriber, client, screen = cast("Subscriber", world), cast("GraphClient", world), cast("Screen", world)
    watch = Watch(settings, subscriber, client, screen, world.clock)
    watch.until_over(StopSignals())
    return watch


# ---- the end ---------------------------------------------------------------------------------------------


def test_it_ends_when_worker_and_proxy_are_gone_and_the_router_has_said_so(settings: Settings) -> None:
    """The router's figures are a heartbeat old, so they are waited for before they are believed."""
    world = _World(lambda now_s: _status("ended", "ended") if now_s > 3 else _status())
    watch = _watched(settings, world)
    assert 3.5 + settings.supervisor.heartbeat_s <= world.passed_s < 5
    assert (watch.failure, watch.run, watch.exit_code_of("w")) == ("", "01run", 7)
    assert world.shown > 10


def test_it_waits_for_a_proxy_that_still_drains(settings: Settings) -> None:
    """The worker's end is not the end of its records."""
    world = _World(lambda now_s: _status("ended", "ended" if now_s > 8 else "running"))
    _watched(settings, world)
    assert world.passed_s > 8


def test_it_waits_for_queued_records_but_not_forever(settings: Settings) -> None:
    """A subscriber that never reads is shown as queued, not waited for."""
    world = _World(lambda _now_s: _status("ended", "ended", queued=5))
    _watched(settings, world)
    assert SETTLE_MAX_S <= world.passed_s < SETTLE_MAX_S + 2


def test_a_supervisor_that_does_not_answer_is_a_failure(settings: Settings) -> None:
    """After some patience; the last known status stays."""
    world = _World(lambda now_s: _status() if now_s < 2 else None)
    watch = _watched(settings, world)
    assert "does not answer" in watch.failure
    assert world.passed_s < 2 + LOST_GRAPH_S + 2
    assert watch.status is not None


def test_a_graph_that_stops_by_itself_is_a_failure(settings: Settings) -> None:
    """As after too many restarts."""
    watch = _watched(settings, _World(lambda _now_s: _status(state="stopping")))
    assert "stopped by itself" in watch.failure
    assert watch.exit_code_of("w") is None


# ---- signals ---------------------------------------------------------------------------------------------


def test_the_first_ctrl_c_asks_and_the_second_insists() -> None:
    """The first lets the ordered stop and the summary happen; the handlers from before come back."""
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# ---- the beginning ---------------------------------------------------------------------------------------


def _with_workers(settings: Settings, *names: str) -> Settings:
    command = ["{python}", "-m", "runlane.workers.cartpole"]
    return msgspec.structs.replace(settings, workers={name: WorkerSettings(command=command) for name in names})


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_it_compares_exactly_one_worker(settings: Settings, names: tuple[str, ...]) -> None:
    """With none there is nothing to count, with two the counts could not be told apart."""
    with pytest.raises(SettingsError, match="one worker"):
        check_settings(_with_workers(settings, *names))


def test_without_gymnasium_it_names_the_command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any process is started."""

    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(GraphError, match=r'pip install "runlane\[demo\]"'):
        check_settings(_with_workers(settings, "cartpole"))


def test_beside_a_running_graph_it_does_not_begin(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph per data directory; the message says how to get another."""

    def answer(_client: GraphClient) -> Status:
        return _status()

    monkeypatch.setattr(GraphClient, "status", answer)
    with pytest.raises(GraphError, match="--set data_dir="):
        check_settings(_with_workers(settings, "cartpole"))


def test_it_returns_the_name_of_its_worker(settings: Settings) -> None:
    """Which names its log."""
    assert check_settings(_with_workers(settings, "cartpole")) == "cartpole"
