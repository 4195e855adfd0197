"""Settings → ordered child specs."""

import sys
from pathlib import Path
from typing import Any

import pytest

from runlane.actors.topology import STOP_ORDER, ChildSpec, Topology, proxy_name, unique_name
from runlane.config import names
from runlane.config.errors import SettingsError
from runlane.config.settings import RecorderSettings, Settings, SubscriberSettings, TransportSettings, WorkerSettings
from runlane.transport.endpoint import ipc_endpoint

RUNLANE = [sys.executable, "-m", "runlane"]


SHOWN = {
    "gui": SubscriberSettings(command=["{runlane}", "gui"]),
    "db_writer": SubscriberSettings(overflow="block", command=["{runlane}", "actor", "db_writer"]),
}


def _actor(name: str) -> list[str]:
    return ["{runlane}", "actor", name]


def _settings(**changed: Any) -> Settings:
    given: dict[str, Any] = {
        "data_dir": "/data",
        "transport": TransportSettings(run_dir="/run/x"),
        "subscribers": {
            "gui": SubscriberSettings(command=["{runlane}", "gui"]),
            "recorder": SubscriberSettings(command=["{python}", "recorder.py"], restart="transient"),
            "terminal": SubscriberSettings(),
            "db_writer": SubscriberSettings(overflow="block", command=_actor("db_writer")),
        },
        "workers": {
            "a": WorkerSettings(command=["{python}", "train.py", "--lr", "0.1"], run_name="first"),
            "b": WorkerSettings(command=["./train"], restart="permanent"),
        },
    }
    return Settings(**{**given, **changed})


def _topology(*arguments: str, **changed: Any) -> Topology:
    return Topology(_settings(**changed), 1_000_000_000, arguments)


def _spec(name: str, *arguments: str, **changed: Any) -> ChildSpec:
    return next(spec for spec in _topology(*arguments, **changed).specs() if spec.name == name)


def test_the_start_order_is_router_subscribers_then_each_worker_behind_its_proxy() -> None:
    """DB writer first of the subscribers, GUI last; one without a command is no child."""
    found = [spec.name for spec in _topology().specs()]
    assert found == ["router", "db_writer", "recorder", "gui", "proxy-a", "a", "proxy-b", "b"]


def test_the_stop_order_is_worker_proxy_router_subscribers_gui() -> None:
    """The source stops first, then each that lives on what the one before sent."""
    assert STOP_ORDER == ("worker", "proxy", "router", "subscriber", "gui")
    ordered = sorted(_topology().specs(), key=lambda spec: spec.stop_stage)
    assert [spec.name for spec in ordered] == [
        "a",
        "b",
        "proxy-a",
        "proxy-b",
        "router",
        "db_writer",
        "recorder",
        "gui",
    ]


def test_our_actors_get_the_options_and_report_heartbeats() -> None:
    """A command that begins with {runlane} actor is run as it is, with the supervisor's settings options."""
    options = ("--config", "/x.toml", "--set", "log_level=DEBUG")
    for name in ("router", "db_writer"):
        spec = _spec(name, *options)
        assert spec.command == [*RUNLANE, "actor", name, *options]
        assert spec.reports_heartbeat
    assert _spec("proxy-a", *options).command == [*RUNLANE, "actor", "proxy", "--worker", "a", *options]


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("a", [sys.executable, "train.py", "--lr", "0.1"]),
        ("b", ["./train"]),
        ("recorder", [sys.executable, "recorder.py"]),
        ("gui", [*RUNLANE, "gui"]),
    ],
)
def test_a_foreign_command_runs_behind_the_guard_and_gets_no_options(name: str, tail: list[str]) -> None:
    """It knows nothing of heartbeats, lifelines or our options."""
    spec = _spec(name, "--set", "log_level=DEBUG")
    assert spec.command[:3] == [sys.executable, "-I", "-S"]
    assert Path(spec.command[3]).name == "guard.py"
    assert Path(spec.command[3]).is_file()
    assert spec.command[4] == "1"
    assert spec.command[5:] == tail
    assert not spec.reports_heartbeat


def test_a_worker_is_told_its_run_its_name_its_proxy_and_its_command() -> None:
    """And its proxy the same run and name."""
    specs = {spec.name: spec for spec in _topology().specs()}
    worker, proxy = specs["a"].environment, specs["proxy-a"].environment
    assert worker[names.ENV_WORKER_NAME] == proxy[names.ENV_WORKER_NAME] == "a"
    assert worker[names.ENV_RUN] == proxy[names.ENV_RUN] == specs["a"].run
    assert worker[names.ENV_RUN_NAME] == "first"
    assert worker[names.ENV_PROXY] == ipc_endpoint(_settings(), proxy_name("a"))
    assert worker[names.ENV_COMMAND] == f"{sys.executable} train.py --lr 0.1"


def test_an_enabled_recorder_runs_beside_the_subscribers() -> None:
    """As an actor of ours, with heartbeat; it stops with them, after the router has sent the last results."""
    topology = _topology(recorder=RecorderSettings(enabled=True), subscribers=SHOWN)
    assert [spec.name for spec in topology.specs()][:4] == ["router", "db_writer", "recorder", "gui"]
    spec = next(spec for spec in topology.specs() if spec.name == "recorder")
    assert (spec.kind, spec.command, spec.reports_heartbeat) == ("subscriber", [*RUNLANE, "actor", "recorder"], True)
    assert spec.restart == "transient"


def test_a_recorder_without_pyav_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end again, until the supervisor gives up and stops training, too."""
    monkeypatch.setitem(sys.modules, "av", None)
    spec = next(
        spec
        for spec in _topology(recorder=RecorderSettings(enabled=True), subscribers=SHOWN).specs()
        if spec.name == "recorder"
    )
    assert spec.restart == "temporary"


def test_a_subscriber_of_the_recorders_name_is_refused() -> None:
    """Two processes of one name would be one subscriber to the router."""
    with pytest.raises(SettingsError, match="recorder"):
        _topology(recorder=RecorderSettings(enabled=True)).specs()


def test_runs_are_new_with_each_supervisor_and_kept_for_its_life() -> None:
    """Asked twice, one topology gives the same ids; workers of different run names have different runs."""
    topology = _topology()
    first, second = ({spec.name: spec.run for spec in topology.specs()} for _ in range(2))
    assert first == second
    assert len(first["a"]) == 26
    assert first["a"] != first["b"]
    assert _spec("a").run != first["a"]


def test_workers_of_one_run_name_share_a_run() -> None:
    """So do workers that name none."""
    workers = {
        "a": WorkerSettings(command=["x"], run_name="same"),
        "b": WorkerSettings(command=["x"], run_name="same"),
        "c": WorkerSettings(command=["x"]),
        "d": WorkerSettings(command=["x"]),
    }
    runs = {spec.name: spec.run for spec in _topology(workers=workers).specs()}
    assert runs["a"] == runs["b"] != runs["c"] == runs["d"]


def test_restart_rules_come_from_the_settings() -> None:
    """A proxy is transient: exit code 0 means it is no longer needed."""
    rules = {spec.name: spec.restart for spec in _topology().specs()}
    assert rules == {
        "router": "permanent",
        "db_writer": "permanent",
        "recorder": "transient",
        "gui": "permanent",
        "proxy-a": "transient",
        "a": "temporary",
        "proxy-b": "transient",
        "b": "permanent",
    }


def test_a_foreign_command_gets_the_settings_as_variables() -> None:
    """File and data directory as absolute paths, each option as a variable, because it may change directory."""
    options = ("--config", "mine.toml", "--set", "session.batch_age_ms=5", "--set=transport.kind=ipc")
    found = _spec("a", *options, data_dir="here").environment
    assert found["RUNLANE_CONFIG"] == str(Path("mine.toml").absolute())
    assert found["RUNLANE_DATA_DIR"] == str(Path("here").absolute())
    assert found["RUNLANE_SESSION__BATCH_AGE_MS"] == "5"
    assert found["RUNLANE_TRANSPORT__KIND"] == "ipc"
    assert found["RUNLANE_TRANSPORT__RUN_DIR"] == "/run/x"


def test_an_option_that_no_variable_can_name_is_not_passed_as_one() -> None:
    """Variables are read in lower case, so a capital would arrive as another key."""
    found = _spec("a", "--set", "subscribers.Big.window=4", "--set", "workers.x-y.run_name=z").environment
    assert not [key for key in found if "BIG" in key or "X-Y" in key]


def test_two_processes_of_one_name_are_refused() -> None:
    """A worker called proxy-a beside a worker a would share a socket with a's proxy."""
    workers = {"a": WorkerSettings(command=["x"]), "proxy-a": WorkerSettings(command=["x"])}
    with pytest.raises(SettingsError, match="proxy-a"):
        _topology(workers=workers).specs()


def test_a_proxy_can_be_had_for_a_worker_that_is_in_no_settings() -> None:
    """For one that somebody else starts."""
    spec = _topology().proxy("mine", "run-1", "my run")
    assert (spec.name, spec.kind, spec.worker, spec.run) == ("proxy-mine", "proxy", "mine", "run-1")
    assert spec.environment[names.ENV_RUN_NAME] == "my run"


@pytest.mark.parametrize(
    ("wanted", "taken", "expected"),
    [
        ("a", set[str](), "a"),
        ("a", {"a"}, "a-2"),
        ("a", {"a", "a-2", "a-4"}, "a-3"),
        ("x" * 32, {"x" * 32}, "x" * 30 + "-2"),
    ],
)
def test_a_taken_name_gets_the_smallest_free_suffix(wanted: str, taken: set[str], expected: str) -> None:
    """And stays within 32 characters."""
    assert unique_name(wanted, taken) == expected
