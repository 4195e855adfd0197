"""What the command line prints: runs, the state of a graph, rows of a query. Rich tables, plain without a terminal."""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runlane.gui.long_table import print_table
from runlane.transport.messages import Status

SUBSCRIBER_COLUMNS = ("overflow", "published", "delivered", "dropped", "queued", "peak", "window")


def console() -> Console:
    """Standard output, as wide as it takes when it is not a terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print the rows of a query."""
    print_table(console(), columns, [[cell(value) for value in row] for row in rows])


def cell(value: Any) -> str:
    """One value as text: floats short, blobs as their size, NULL visible."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return repr(value)
    return str(value)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else cell(value)


def print_runs(runs: Sequence[dict[str, Any]]) -> None:
    """Print the runs, as the store lists them."""
    columns = (
        "run",
        "name",
        "state",
        "started",
        "duration",
        "workers",
        "env steps",
        "episodes",
        "return (100)",
        "drops",
    )
    rows = [
        [
            cell(run["run"]),
            cell(run["name"]),
            cell(run["state"]),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["started_ns"] / 1e9)),
            _duration(run["started_ns"], run["seen_ns"] if run["state"] == "lost" else run["ended_ns"]),
            *(_short(run[key]) for key in ("workers", "steps", "episodes", "mean_return", "drops")),
        ]
        for run in runs
    ]
    print_table(console(), columns, rows)
    if not runs:
        console().print("no runs yet: try `runlane demo`")


def _duration(started_ns: int, ended_ns: int | None) -> str:
    seconds = ((ended_ns or time.time_ns()) - started_ns) / 1e9
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def print_status(status: Status) -> None:
    """Print a graph: its processes, then every subscriber's account."""
    out = console()
    where = escape(status.data_dir)
    out.print(f"graph {status.state}, supervisor pid {status.pid}, up {status.uptime_s:.0f} s, data in {where}")
    table = Table("process", "kind", "state", "pid", "restarts", "heartbeat", "figures")
    for child in status.children:
        age = "-" if child.heartbeat_age_s is None else f"{child.heartbeat_age_s:.1f} s ago"
        state = child.state if child.exit_code is None else f"{child.state} ({child.exit_code})"
        table.add_row(
            child.name, child.kind, state, str(child.pid), str(child.restarts), age, _figures(child.statistics)
        )
    out.print(table)
    routers = [child.statistics for child in status.children if child.kind == "router"]
    subscribers: dict[str, dict[str, Any]] = routers[0].get("subscribers", {}) if routers else {}
    accounts = Table("subscriber", "live", *SUBSCRIBER_COLUMNS, title="published = delivered + dropped + queued")
    for name, account in subscribers.items():
        row = account_of(account)
        accounts.add_row(
            name, "yes" if account.get("is_live") else "no", *(str(row[key]) for key in SUBSCRIBER_COLUMNS)
        )
    out.print(accounts)


def account_of(account: dict[str, Any]) -> dict[str, Any]:
    """A subscriber's figures with `queued` (waiting + under way) and the drops as one readable text."""
    dropped: dict[str, int] = account.get("dropped", {})
    reasons = ", ".join(f"{reason} {records}" for reason, records in dropped.items())
    return {
        **account,
        "queued": account.get("depth", 0) + account.get("in_flight", 0),
        "dropped": f"{sum(dropped.values())} ({reasons})" if reasons else "0",
    }


def _figures(statistics: dict[str, Any]) -> str:
    plain = {
        key: value
        for key, value in statistics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return ", ".join(f"{key} {_short(value)}" for key, value in list(plain.items())[:5])
