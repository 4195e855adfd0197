"""What the command line prints: runs, the state of a graph, rows of a query. Rich tables, plain without a terminal."""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runlane.gui.long_table import print_table
from runlane.transport.messages import Status

SUBSCRIBER_COLUMNS = (
    "subscriber",
    "policy",
    "state",
    "credits",
    "depth",
    "in flight",
    "peak",
    "published",
    "delivered",
    "dropped",
    "p50 / p99 ms",
)
ACCOUNT_COLUMNS = (
    "subscriber",
    "run",
    "stream",
    "published",
    "delivered",
    "dropped",
    "queued",
    "balance",
    "first seq",
    "last seq",
)


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
    """Print a graph: its processes, then every subscriber's queue, and whom ingress waits for."""
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
    if routers:
        _print_subscribers(out, routers[0])


def _print_subscribers(out: Console, router: dict[str, Any]) -> None:
    """Print what the router's heartbeat says of each subscriber. A figure it does not give is a dash."""
    subscribers: dict[str, dict[str, Any]] = router.get("subscribers", {})
    table = Table(*SUBSCRIBER_COLUMNS, title="published = delivered + dropped + depth + in flight")
    for name, figures in subscribers.items():
        table.add_row(escape(name), *map(escape, _subscriber_row(figures)))
    out.print(table)
    out.print(escape(_ingress_text(router)))


def _subscriber_row(figures: dict[str, Any]) -> list[str]:
    window, under_way = figures.get("window"), figures.get("in_flight_batches")
    credits_left = figures.get("credits")
    if credits_left is None and window is not None and under_way is not None:
        credits_left = window - under_way
    state = figures.get("state") or ("live" if figures.get("is_live") else "away")
    return [
        " ".join(str(figures[key]) for key in ("overflow", "max_queue") if figures.get(key)) or "-",
        str(state),
        _known(credits_left) if window is None else f"{_known(credits_left)} of {window}",
        *(_known(figures.get(key)) for key in ("depth", "in_flight", "peak", "published", "delivered")),
        dropped_text(figures.get("dropped") or {}),
        f"{_milliseconds(figures.get('latency_p50_ms'))} / {_milliseconds(figures.get('latency_p99_ms'))}",
    ]


def _ingress_text(router: dict[str, Any]) -> str:
    if not router.get("is_blocked"):
        return "ingress is open: no block subscriber is full"
    return f"ingress waits for {', '.join(map(str, router.get('blocked_by') or ())) or 'a block subscriber'}"


def dropped_text(dropped: dict[str, int]) -> str:
    """Drops in all, and by reason where there are any: `7 (oldest 5, stale 2)`."""
    reasons = ", ".join(f"{reason} {records}" for reason, records in dropped.items() if records)
    return f"{sum(dropped.values())} ({reasons})" if reasons else "0"


def _known(value: Any) -> str:
    return "-" if value is None else str(value)


def _milliseconds(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "-"


def print_accounts(accounts: Sequence[dict[str, Any]] | None) -> None:
    """Print the account of each subscriber and stream; None means that the router did not answer."""
    if accounts is None:
        console().print("the router did not give its accounts in time; the stored ones are in the view `accounts`")
        return
    keys = ("published", "delivered", "dropped", "queued", "balance", "first_seq", "last_seq")
    rows = [
        [account["subscriber"], account["run"], account["stream"]]
        + [dropped_text(account[key]) if key == "dropped" else str(account[key]) for key in keys]
        for account in accounts
    ]
    print_table(console(), ACCOUNT_COLUMNS, rows)


def _figures(statistics: dict[str, Any]) -> str:
    plain = {
        key: value
        for key, value in statistics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return ", ".join(f"{key} {_short(value)}" for key, value in list(plain.items())[:5])
