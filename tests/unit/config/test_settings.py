"""Settings refuse, at construction, every value and pair of values that cannot work."""

import msgspec
import pytest

from runlane.config import names
from runlane.config.errors import RunlaneError, SettingsError
from runlane.config.settings import (
    MAX_BATCH_RECORDS,
    FastLaneSettings,
    QueuePolicy,
    SessionSettings,
    Settings,
    SubscriberSettings,
    SupervisorSettings,
    TransportSettings,
    WorkerSettings,
    check_kinds,
    check_name,
    is_loopback,
)
from runlane.config.telemetry_mode import TelemetryMode


def test_latest_takes_no_max_queue() -> None:
    """`latest` keeps one batch per stream and kind, so a bound beside it is refused, naming both."""
    with pytest.raises(SettingsError) as caught:
        QueuePolicy("latest", 1_000)
    assert caught.value.key == "max_queue"
    assert caught.value.value == 1_000
    assert "latest" in caught.value.problem


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest"])
def test_a_queue_always_has_room_for_one_full_batch(overflow: str) -> None:
    """A max_queue below the records of one batch is refused, and one that just holds a batch is taken."""
    policy = msgspec.convert({"overflow": overflow, "max_queue": MAX_BATCH_RECORDS}, QueuePolicy)
    assert policy.max_records == MAX_BATCH_RECORDS
    with pytest.raises(msgspec.ValidationError, match=f"is below {MAX_BATCH_RECORDS} records"):
        msgspec.convert({"overflow": overflow, "max_queue": MAX_BATCH_RECORDS - 1}, QueuePolicy)


def test_a_policy_without_a_bound_has_the_default_one() -> None:
    """No queue is unbounded: without max_queue it holds 16,384 records."""
    assert QueuePolicy("block").max_records == 16_384


def test_a_subscriber_checks_its_policy_when_it_is_made() -> None:
    """A subscriber's overflow and max_queue are checked together at construction, not at first use."""
    with pytest.raises(SettingsError, match="max_queue"):
        SubscriberSettings(overflow="latest", max_queue=500)


@pytest.mark.parametrize("kinds", [[], ["step", "steps"]])
def test_kinds_must_be_known_and_at_least_one(kinds: list[str]) -> None:
    """A subscriber to nothing, or to a kind that does not exist, is refused with the list of kinds."""
    with pytest.raises(SettingsError) as caught:
        check_kinds(kinds)
    assert "step, episode" in caught.value.remedy
    with pytest.raises(SettingsError):
        SubscriberSettings(kinds=kinds)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org", "::"])  # noqa: S104  the case under test
def test_tcp_beyond_loopback_needs_keys(host: str) -> None:
    """A TCP bind that the network can reach is refused without keys and taken with them."""
    with pytest.raises(SettingsError) as caught:
        TransportSettings(kind="tcp", host=host)
    assert caught.value.key == "host"
    assert "keys" in caught.value.remedy
    assert TransportSettings(kind="tcp", host=host, keys_dir="keys").host == host


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    """Loopback addresses and the name localhost are loopback; nothing else is."""
    assert is_loopback(host) is expected


def test_ipc_may_name_any_host() -> None:
    """Unix sockets listen to no network, so `host` does not matter beside them."""
    assert TransportSettings(kind="ipc", host="0.0.0.0").kind == "ipc"  # noqa: S104  the address under test


def test_a_heartbeat_timeout_spans_two_beats() -> None:
    """A timeout under two heartbeats would kill healthy children, so it is refused, naming both values."""
    with pytest.raises(SettingsError) as caught:
        SupervisorSettings(heartbeat_s=1.0, heartbeat_timeout_s=1.9)
    assert caught.value.key == "heartbeat_timeout_s"
    assert "heartbeat_s = 1.0" in caught.value.problem
    assert SupervisorSettings(heartbeat_s=1.0, heartbeat_timeout_s=2.0).heartbeat_timeout_s == 2.0


@pytest.mark.parametrize("grace_s", [2.0, 2.5])
def test_a_workers_grace_leaves_time_for_the_rest_of_the_stop(grace_s: float) -> None:
    """A grace that takes the whole stop is refused, naming both values."""
    with pytest.raises(SettingsError) as caught:
        SupervisorSettings(worker_grace_s=grace_s, stop_s=2.0)
    assert caught.value.key == "worker_grace_s"
    assert "stop_s = 2.0" in caught.value.problem


@pytest.mark.parametrize("name", ["", "x" * 33, "a b", "a/b", "a+b", "ä", "..", "-_", "a\0"])
def test_a_name_that_could_leave_its_directory_is_refused(name: str) -> None:
    """Names become parts of paths: no separator, no `+`, no dots alone, 1 to 32 characters."""
    with pytest.raises(SettingsError):
        check_name(name, "name")


@pytest.mark.parametrize("name", ["a", "x" * 32, "CartPole-v1", "0.5_b"])
def test_plain_names_are_taken(name: str) -> None:
    """Letters, digits, `_`, `-` and `.` make a name."""
    check_name(name, "name")


@pytest.mark.parametrize("table", ["subscribers", "workers"])
def test_settings_check_the_names_of_their_entries(table: str) -> None:
    """An entry's name is checked with the settings that hold it."""
    entries: dict[str, object] = {"a b": {"command": ["true"]}}
    with pytest.raises(msgspec.ValidationError, match="is no plain name"):
        msgspec.convert({table: entries}, Settings)


@pytest.mark.parametrize("taken", [names.ROUTER, names.SUPERVISOR, "trainer"])
def test_no_two_processes_share_a_name(taken: str) -> None:
    """A subscriber may not be named like the router, the supervisor or a worker."""
    with pytest.raises(SettingsError, match="also the name of another process"):
        Settings(subscribers={taken: SubscriberSettings()}, workers={"trainer": WorkerSettings(command=["true"])})


@pytest.mark.parametrize(
    ("mode", "lane", "remedy"),
    [
        (TelemetryMode.FAST_LANE_ONLY, FastLaneSettings(enabled=False), 'telemetry_mode = "durable_only"'),
        (TelemetryMode.DURABLE_ONLY, FastLaneSettings(only=True), "remove fast_lane.only"),
    ],
)
def test_a_mode_that_leaves_nothing_of_a_worker_is_refused(
    mode: TelemetryMode, lane: FastLaneSettings, remedy: str
) -> None:
    """Neither shown nor kept; or headless and yet without records."""
    with pytest.raises(SettingsError) as caught:
        Settings(session=SessionSettings(telemetry_mode=mode), fast_lane=lane)
    assert (caught.value.key, caught.value.value) == ("session.telemetry_mode", mode.value)
    assert remedy in caught.value.remedy


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after it was checked."""
    settings = Settings()
    with pytest.raises(AttributeError):
        settings.log_level = "DEBUG"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_settings_error_carries_its_facts() -> None:
    """The error is in our tree and a ValueError, exits with code 2, and says source, key, value and remedy."""
    error = SettingsError("router.lease_s", -1, "is negative", "choose a positive number", "my.toml")
    assert isinstance(error, RunlaneError)
    assert isinstance(error, ValueError)
    assert error.exit_code == 2
    assert str(error) == "my.toml: router.lease_s = -1: is negative. Remedy: choose a positive number."
