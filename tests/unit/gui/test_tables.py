"""What the command line prints, whatever the values look like."""

import io
from typing import Any

import pytest
from rich.console import Console

from runlane.gui import tables
from runlane.transport.messages import ChildStatus, Status


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to standard output."""
    text = io.StringIO()
    monkeypatch.setattr(tables, "console", lambda: Console(file=text, width=160, highlight=False))
    return text


def test_markup_in_values_and_headers_is_only_text(printed: io.StringIO) -> None:
    """A run may be called `[/x]`, and SQL names its columns after anything."""
    tables.print_rows(["'[/a]'", "[bold]"], [["[/x]", "[red]"]])
    assert all(text in printed.getvalue() for text in ("'[/a]'", "[bold]", "[/x]", "[red]"))


def test_numbers_are_printed_exactly(printed: io.StringIO) -> None:
    """Keeping is exact, so showing is: no rounding, NULL visible, a blob by its size."""
    tables.print_rows(["a", "b", "c", "d"], [[1234567890.25, None, b"1234", float("inf")]])
    assert all(text in printed.getvalue() for text in ("1234567890.25", "NULL", "<4 bytes>", "inf"))


def test_a_run_with_any_name_is_listed(printed: io.StringIO) -> None:
    """The list is not broken by one of its lines."""
    run = {
        "run": "01", "name": "[/x]", "state": "finished", "started_ns": 0, "ended_ns": 10**9,
        "workers": 1, "steps": 2, "episodes": 3, "mean_return": 4.5, "drops": 0,
    }  # fmt: skip
    tables.print_runs([run])
    assert "[/x]" in printed.getvalue()
    assert "1.0 s" in printed.getvalue()


def test_a_lost_run_lasted_until_it_was_last_seen(printed: io.StringIO) -> None:
    """Nobody knows more of it, and counting on would show a run of years."""
    run = {
        "run": "01", "name": "", "state": "lost", "started_ns": 0, "ended_ns": None, "seen_ns": 5 * 10**9,
        "workers": 1, "steps": 2, "episodes": 3, "mean_return": None, "drops": 0,
    }  # fmt: skip
    tables.print_runs([run])
    assert all(text in printed.getvalue() for text in ("lost", "5.0 s"))


def status_with(**router: Any) -> Status:
    """A graph whose router said this."""
    child = ChildStatus(
        name="router", kind="router", state="running", pid=2, restarts=0, heartbeat_age_s=0.1, exit_code=None,
        statistics=router,
    )  # fmt: skip
    return Status(pid=1, uptime_s=1.0, data_dir="/d", run_dir="/r", state="running", children=[child])


def test_a_subscriber_is_shown_with_its_policy_queue_drops_and_latency(printed: io.StringIO) -> None:
    """And with the credits it has left."""
    viewer = {
        "overflow": "drop_oldest", "max_queue": 4096, "depth": 11, "in_flight": 12, "peak": 13, "published": 114,
        "delivered": 84, "dropped": {"drop_oldest": 5, "stale": 2, "left": 0}, "in_flight_batches": 3, "window": 16,
        "credits": 13, "is_live": True, "state": "stalled", "latency_p50_ms": 1.23456, "latency_p99_ms": None,
    }  # fmt: skip
    tables.print_status(status_with(subscribers={"[/x]": viewer}, is_blocked=False))
    cells = [cell.strip() for line in printed.getvalue().splitlines() if "[/x]" in line for cell in line.split("│")]
    assert cells[1:-1] == [
        "[/x]", "drop_oldest 4096", "stalled", "13 of 16", "11", "12", "13", "114", "84",
        "7 (drop_oldest 5, stale 2)", "1.23 / -",
    ]  # fmt: skip
    assert "ingress is open" in printed.getvalue()


def test_ingress_that_waits_says_for_whom(printed: io.StringIO) -> None:
    """For which `block` subscriber; for some, where the router does not say which."""
    tables.print_status(status_with(subscribers={}, is_blocked=True, blocked_by=["db_writer", "[/x]"]))
    assert "ingress waits for db_writer, [/x]" in printed.getvalue()
    tables.print_status(status_with(subscribers={}, is_blocked=True))
    assert "ingress waits for a block subscriber" in printed.getvalue()


def test_figures_that_are_not_told_are_dashes(printed: io.StringIO) -> None:
    """As of a router before its first heartbeat, or of another version."""
    tables.print_status(status_with())
    tables.print_status(status_with(subscribers={"old": {"window": 16, "in_flight_batches": 4, "is_live": True}}))
    cells = [cell.strip() for line in printed.getvalue().splitlines() if "│ old" in line for cell in line.split("│")]
    assert cells[1:-1] == ["old", "-", "live", "12 of 16", "-", "-", "-", "-", "-", "0", "- / -"]
