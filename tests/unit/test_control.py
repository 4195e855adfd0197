"""`runlane mode` and `runlane kill`: which workers are meant, and one clear line for each or against all."""

from typing import Any

import pytest
from typer.testing import CliRunner

from runlane.cli import app
from runlane.config.errors import GraphError
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.control import end_workers
from runlane.transport.endpoint import run_dir_of
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import ChildStatus, Status, TelemetryModeSet, WorkerSignalled
from runlane.transport.ring_layout import RingInfo


def _proxy(*workers: tuple[str, str, str, int], run: str = "", state: str = "running") -> ChildStatus:
    keys = ("run", "worker", "run_name", "started_ns")
    statistics: dict[str, Any] = {
        "run": run,
        "worker": "w",
        "run_name": "",
        "workers": [dict(zip(keys, worker, strict=True)) for worker in workers],
    }
    return ChildStatus(
        name="proxy-w", kind="proxy", state=state, pid=2, restarts=0, heartbeat_age_s=0.1, exit_code=None,
        statistics=statistics,
    )  # fmt: skip


class World:
    """The graph, and what was asked of it."""

    def __init__(self) -> None:
        self.children: list[ChildStatus] = []
        self.asked: list[tuple[str, str]] = []
        self.refusing: set[str] = set()

    def ask(self, run: str, worker: str) -> None:
        self.asked.append((run, worker))
        if worker in self.refusing:
            raise GraphError(f"{worker} cannot")

    def status(self) -> Status:
        return Status(pid=1, uptime_s=1.0, data_dir="/d", run_dir="/r", state="running", children=self.children)

    def set_mode(self, run: str, worker: str, mode: TelemetryMode) -> TelemetryModeSet:
        self.ask(run, worker)
        return TelemetryModeSet(run=run, worker=worker, mode=mode, streams=2)

    def stop(self, run: str, worker: str, *, is_kill: bool) -> WorkerSignalled:
        self.ask(run, worker)
        return WorkerSignalled(run=run, worker=worker, signal="SIGKILL" if is_kill else "SIGINT", pids=[5])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(GraphClient, "status", world.status)
    monkeypatch.setattr(GraphClient, "set_telemetry_mode", world.set_mode)
    monkeypatch.setattr(GraphClient, "stop_worker", world.stop)
    world.children = [
        _proxy(("01aaa", "one", "walk", 10), ("01aaa", "two", "walk", 11)),
        _proxy(("01bbb", "one", "run", 20)),
        _proxy(run="01ccc"),
        _proxy(("01ddd", "one", "gone", 99), state="ended"),
    ]
    return world


def run(settings: Settings, *words: str) -> str:
    """Standard output of the command; its error is raised."""
    sets = [f"--set=data_dir={settings.data_dir}", f"--set=transport.run_dir={settings.transport.run_dir}"]
    done = CliRunner().invoke(app, [*words, *sets], catch_exceptions=True)
    if isinstance(done.exception, GraphError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["01aaa"], [("01aaa", "one"), ("01aaa", "two")]),
        (["walk", "--worker", "two"], [("01aaa", "two")]),
        (["01b"], [("01bbb", "one")]),
        (["latest"], [("01bbb", "one")]),
        (["01ccc"], [("01ccc", "w")]),
    ],
)
def test_a_run_is_found_by_id_beginning_name_or_as_the_latest(
    world: World, settings: Settings, words: list[str], expected: list[tuple[str, str]]
) -> None:
    """All its running workers, or the one that is named; one that has not recorded yet by what its proxy is for."""
    text = run(settings, "mode", words[0], "durable_only", *words[1:])
    assert world.asked == expected
    lines = [f"run {of} worker {worker}: Durable Only (headless), streams=2" for of, worker in expected]
    assert text.splitlines() == lines


@pytest.mark.usefixtures("world")
def test_kill_says_which_process_got_which_signal(settings: Settings) -> None:
    """SIGINT, and SIGKILL with --now."""
    assert run(settings, "kill", "01bbb") == "run 01bbb worker one: SIGINT to 5\n"
    assert run(settings, "kill", "01bbb", "--now") == "run 01bbb worker one: SIGKILL to 5\n"


@pytest.mark.parametrize("words", [("mode", "walk", "durable_only"), ("kill", "walk")])
@pytest.mark.parametrize(
    ("refusing", "expected"),
    [
        ({"one"}, "one: one cannot; 1 of 2 workers were told"),
        ({"one", "two"}, "one: one cannot; two: two cannot; 0 of 2 workers were told"),
    ],
)
def test_who_refuses_does_not_keep_the_others_from_being_asked(
    world: World, settings: Settings, words: tuple[str, ...], refusing: set[str], expected: str
) -> None:
    """Every one is asked; at the end one error names each that refused, with its reason."""
    world.refusing = refusing
    with pytest.raises(GraphError) as caught:
        run(settings, *words)
    assert str(caught.value) == expected
    assert world.asked == [("01aaa", "one"), ("01aaa", "two")]


def test_who_has_done_it_has_its_line_though_another_refuses(world: World, settings: Settings) -> None:
    """The order is that of the asking."""
    world.refusing = {"one"}
    lines = end_workers(settings, "walk", "", is_now=True)
    assert next(lines) == "run 01aaa worker two: SIGKILL to 5"
    with pytest.raises(GraphError):
        next(lines)


def test_the_refusal_of_the_only_worker_is_the_reason_alone(world: World, settings: Settings) -> None:
    """There is nothing to count."""
    world.refusing = {"two"}
    with pytest.raises(GraphError, match=r"^two cannot$"):
        run(settings, "kill", "walk", "--worker", "two")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["01"], "RUN = '01' may be any of 01aaa, 01bbb, 01ccc; give more of the id"),
        (["gone"], "RUN = 'gone': no such worker is running; running are (run, worker): 01aaa one, 01aaa two"),
        (["walk", "--worker", "x"], "RUN = 'walk', --worker = 'x': no such worker is running"),
    ],
)
@pytest.mark.usefixtures("world")
def test_a_wish_that_fits_none_or_too_many_is_refused(settings: Settings, words: list[str], expected: str) -> None:
    """It names what was asked for, and what there is."""
    with pytest.raises(GraphError) as caught:
        run(settings, "kill", *words)
    assert expected in str(caught.value)


def test_a_worker_that_only_shows_is_asked_for_so_that_the_graph_says_why_not(world: World, settings: Settings) -> None:
    """Its ring tells that it is there."""
    ring = FastLaneWriter(run_dir_of(settings), RingInfo(run="01eee", worker="film"), FastLaneConfig())
    run(settings, "mode", "01eee", "dual_path")
    ring.close()
    assert world.asked == [("01eee", "film")]


def test_an_unknown_mode_is_refused_with_the_modes_there_are() -> None:
    """Before a graph is asked."""
    done = CliRunner().invoke(app, ["mode", "latest", "fast"])
    assert done.exit_code == 2
    assert "fast_lane_only" in done.output
