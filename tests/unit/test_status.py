"""`runlane status`: what the supervisor says, with the router's accounts, for people and for programs."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from runlane.cli import app
from runlane.config.settings import Settings
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import ChildStatus, Status, SubscriberAccount

STREAM = "0" * 32


def _child(**router: Any) -> ChildStatus:
    return ChildStatus(
        name="router", kind="router", state="running", pid=2, restarts=0, heartbeat_age_s=0.1, exit_code=None,
        statistics=router,
    )  # fmt: skip


class World:
    """What supervisor and router answer."""

    def __init__(self) -> None:
        self.status: Status | None = Status(
            pid=77, uptime_s=5.0, data_dir="/d", run_dir="/r", state="running", children=[_child(subscribers={})]
        )
        self.accounts: list[SubscriberAccount] | None = None
        self.asked = 0

    def take_accounts(self) -> list[SubscriberAccount] | None:
        self.asked += 1
        return self.accounts


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    def status(_client: GraphClient) -> Status | None:
        return world.status

    def accounts(_client: GraphClient) -> list[SubscriberAccount] | None:
        return world.take_accounts()

    monkeypatch.setattr(GraphClient, "status", status)
    monkeypatch.setattr(GraphClient, "accounts", accounts)
    return world


def run(settings: Settings, *options: str) -> str:
    """Standard output of the command."""
    sets = [f"--set=data_dir={settings.data_dir}", f"--set=transport.run_dir={settings.transport.run_dir}"]
    done = CliRunner().invoke(app, ["status", *options, *sets], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_json_holds_the_accounts_with_their_balance(settings: Settings, world: World) -> None:
    """Beside the fields of the message, each with drops by reason; one that does not add up shows by how much."""
    world.accounts = [
        SubscriberAccount("viewer", "R", STREAM, 10, 6, 1, {"stale": 3}, 4, 14),
        SubscriberAccount("wrong", "R", STREAM, 10, 6, 1, {}, 0, 10),
    ]
    found = json.loads(run(settings, "--json"))
    assert (found["pid"], found["children"][0]["name"]) == (77, "router")
    assert found["accounts"][0] == {
        "subscriber": "viewer", "run": "R", "stream": STREAM, "published": 10, "delivered": 6, "queued": 1,
        "dropped": {"stale": 3}, "balance": 0, "first_seq": 4, "last_seq": 14,
    }  # fmt: skip
    assert found["accounts"][1]["balance"] == 3


def test_a_silent_router_is_no_error(settings: Settings, world: World) -> None:
    """The status is what it is; the accounts are nil, and people are told where the stored ones are."""
    assert json.loads(run(settings, "--json"))["accounts"] is None
    assert "view `accounts`" in run(settings, "--accounts")
    assert world.asked == 2


def test_accounts_are_asked_for_only_when_they_are_shown(settings: Settings, world: World) -> None:
    """They may be many, and a stopped router would cost a second."""
    world.accounts = [SubscriberAccount("viewer", "R", STREAM, 10, 6, 1, {"stale": 3}, 4, 14)]
    assert STREAM not in run(settings)
    assert world.asked == 0
    shown = run(settings, "--accounts")
    assert all(text in shown for text in ("viewer", STREAM, "3 (stale 3)", "balance"))


def test_without_a_graph_it_says_so(settings: Settings, world: World) -> None:
    """And how to start one."""
    world.status = None
    with pytest.raises(Exception, match="runlane up"):
        run(settings)
