"""What the command line prints, whatever the values look like."""

import io

import pytest
from rich.console import Console

from runlane.gui import tables


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
