"""What `runlane demo` shows in a terminal: curves and tables as Rich renderables, or one plain line at a time.

Only draws: `run_model.py` holds what is shown. Colour adds nothing that a word or a mark does not say.
"""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runlane.gui.block_chart import block_chart
from runlane.gui.run_view import (
    RECENT_EPISODES,
    RunView,
    StoreFigures,
    SubscriberAccount,
    WorkerView,
    accounts_of,
    store_figures_of,
)
from runlane.transport.messages import ChildStatus, Status
from runlane.transport.records import ALIVE

MAX_CHART_ROWS = 12
MAX_CHART_COLUMNS = 200
LABEL_COLUMNS = 8
RANGE_COLUMNS = 15
SIDE_BY_SIDE_COLUMNS = 126
NARROW_COLUMNS = 78
RATE_COLUMNS = 12
WORKER_ROWS = 5  # of one worker, beside its chart

_ACCENT = "cyan"
_STATE_STYLES = {"running": "green", "stalled": "yellow", "finished": "green", "ended": "dim", "waiting": "dim"}


# ---- numbers ---------------------------------------------------------------------------------------------


def short(value: float | None) -> str:
    """A measured value in a few characters; a dash when there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.1f}" if 0.1 <= abs(value) < 1e7 or value == 0 else f"{value:.2g}"


def clock_text(seconds: float) -> str:
    """Seconds as `1:02` or `1:00:02`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size_text(size_bytes: int) -> str:
    """Bytes as `12.3 MB`."""
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:,.2f} GB"


def drops_text(account: SubscriberAccount) -> str:
    """Dropped records by reason, as `drop_oldest 12, subscriber_left 3`; `0` when there are none."""
    return ", ".join(f"{reason} {records:,}" for reason, records in account.dropped.items() if records) or "0"


def policy_text(account: SubscriberAccount) -> str:
    """A QoS policy, as `drop_oldest 4096`."""
    return f"{account.overflow} {account.max_queue}" if account.max_queue else account.overflow


# ---- the live view ---------------------------------------------------------------------------------------


def render(view: RunView, status: Status | None, now_s: float, width: int, height: int) -> RenderableType:
    """Everything, in at most `height` lines: what the tables leave goes to the curves."""
    accounts = accounts_of(status)
    bus, bus_rows = _bus(accounts, store_figures_of(status), is_narrow=width < NARROW_COLUMNS)
    processes, process_rows = _processes(status)
    needed = 2 + (WORKER_ROWS + 1) * max(len(view.workers), 1) + 1
    bottom: Sequence[RenderableType]
    if width >= SIDE_BY_SIDE_COLUMNS:
        side = Table.grid(padding=(0, 4))
        side.add_row(bus, processes)
        bottom, bottom_rows = [side], max(bus_rows, process_rows)
    elif needed + bus_rows + process_rows <= height:
        bottom, bottom_rows = [bus, Text(), processes], bus_rows + 1 + process_rows
    else:
        bottom, bottom_rows = [bus, _process_line(status)], bus_rows + 1
    workers = _workers(view, now_s, width, height - 2 - bottom_rows)
    return Group(_header(view, status, now_s, width), *workers, *bottom)


def _header(view: RunView, status: Status | None, now_s: float, width: int) -> Text:
    name = ", ".join(view.run_names) or "waiting for the first record"
    left = f" runlane  {name}"
    right = f"{status.state if status is not None else 'starting'}  {clock_text(now_s - view.started_s)} "
    room = max(width - len(right) - 2, 0)
    line = Text(f"{left[:room].ljust(width - len(right))}{right}"[:width], style="bold reverse", no_wrap=True)
    return line.append("\n", style="not reverse")


def _workers(view: RunView, now_s: float, width: int, height: int) -> list[Text]:
    """As many workers as fit, those that run first, each in its share of the height. The order is steady."""
    fit = max(1, min(len(view.workers), height // (WORKER_ROWS + 1)))
    shown = _sorted(view)[:fit]
    hidden = len(view.workers) - len(shown)
    rows = (height - (1 if hidden else 0)) // fit - WORKER_ROWS
    lines = [line for worker in shown for line in _worker(worker, now_s, width, max(1, min(rows, MAX_CHART_ROWS)))]
    return [*lines[:-1], _text(f"and {hidden} more workers", "dim"), Text()] if hidden > 0 else lines


def _sorted(view: RunView) -> list[WorkerView]:
    return sorted(view.workers.values(), key=lambda worker: (worker.state not in ALIVE, worker.run, worker.name))


def _worker(worker: WorkerView, now_s: float, width: int, rows: int) -> list[Text]:
    title = _text(worker.name, "bold").append(f"  {worker.state}", _state_style(worker.state))
    columns = min(max(width - (LABEL_COLUMNS if rows > 1 else RANGE_COLUMNS) - 3, 1), MAX_CHART_COLUMNS)
    share = max(worker.curve.count / columns, 1.0)
    title.append(f"  episode return, a column is the mean of {share:.3g} of {worker.curve.count:,} episodes", "dim")
    return [title, *_chart(worker, columns, rows), *_tiles(worker, now_s, width), _metrics(worker), Text()]


def _chart(worker: WorkerView, columns: int, rows: int) -> list[Text]:
    lines, least, greatest = block_chart(worker.curve.values, columns, rows)
    if math.isnan(greatest):
        return [_text(" " * (LABEL_COLUMNS + 2) + note, "dim") for note in ("no episode has ended yet", *lines[1:])]
    labels = [short(greatest), *("" for _ in lines[2:]), short(least) if least < greatest else ""]
    if rows == 1:
        labels = [f"{short(least)} - {short(greatest)}".rjust(RANGE_COLUMNS)]
    return [
        _text(f"{label:>{LABEL_COLUMNS}} {'┤' if label else '│'}", "dim").append(line, _ACCENT)
        for label, line in zip(labels, lines, strict=True)
    ]


def _tiles(worker: WorkerView, now_s: float, width: int) -> list[Text]:
    """Two lines: labels, and below each its number."""
    rate_s = worker.rate_time_s(now_s)
    spark = block_chart(worker.rate.history(rate_s), RATE_COLUMNS, 1, low=0.0)[0][0] if width >= 78 else ""
    tiles = (
        (f"mean of last {len(worker.recent) or RECENT_EPISODES}", short(worker.mean_return)),
        ("best", short(worker.best)),
        ("episodes", f"{worker.episodes:,}"),
        ("env steps", f"{worker.env_steps:,}"),
        ("steps/s", f"{worker.rate.per_s(rate_s):,.0f} {spark}"),
    )
    labels, numbers = _text(" " * (LABEL_COLUMNS + 2)), _text(" " * (LABEL_COLUMNS + 2))
    for label, number in tiles:
        columns = max(len(label), len(number)) + 3
        labels.append(label.ljust(columns), "dim")
        numbers.append(number.ljust(columns), "bold")
    labels.rstrip()
    numbers.rstrip()
    return [labels, numbers]


def _metrics(worker: WorkerView) -> Text:
    line = _text(" " * (LABEL_COLUMNS + 2))
    for name, record in sorted(worker.metrics.items()):
        line.append(f"{name} ", "dim").append(f"{record.value:.3g}  ")
    return line


def _bus(accounts: Sequence[SubscriberAccount], store: StoreFigures, *, is_narrow: bool) -> tuple[RenderableType, int]:
    """The accounts, a further line for each subscriber that lost something, and the store; with its lines."""
    table = _table("subscriber", "published", "delivered", "dropped", "queued", "peak", "live", "policy")
    if is_narrow:
        del table.columns[5:]
    notes: list[Text] = []
    for account in accounts:
        figures = (account.published, account.delivered, account.total_dropped, account.queued, account.peak)
        cells = [f"{figure:,}" for figure in figures] + ["yes" if account.is_live else "no", policy_text(account)]
        table.add_row(Text(account.name, style="bold"), *cells[: len(table.columns) - 1])
        if account.total_dropped:
            notes.append(_text(f"{account.name} dropped: {drops_text(account)}", "yellow"))
        if not account.is_balanced:
            notes.append(_text(f"{account.name}: published is not delivered + dropped + queued", "bold red"))
    notes.append(
        _text("SQLite", "bold")
        .append(f"  {store.rows_committed:,} rows committed  ")
        .append(
            f"last commit {store.commit_s * 1e3:.1f} ms  database {size_text(store.database_bytes + store.wal_bytes)}",
            "dim",
        )
    )
    return Group(table, *notes), 1 + len(accounts) + len(notes)


def _processes(status: Status | None) -> tuple[RenderableType, int]:
    table = _table("process", "pid", "state", "restarts")
    if status is None:
        return table, 1
    table.add_row("supervisor", str(status.pid), Text(status.state, style=_state_style(status.state)), "0")
    for child in status.children:
        pid = str(child.pid) if child.pid else "-"
        table.add_row(child.name, pid, Text(state_text(child), style=_style_of(child)), str(child.restarts))
    return table, 2 + len(status.children)


def _process_line(status: Status | None) -> Text:
    """Where the table finds no room: how many run, and by name those that do not."""
    children = status.children if status is not None else []
    others = [child for child in children if child.state != "running"]
    line = _text("processes", "bold").append(f"  {len(children) - len(others)} running")
    for child in others:
        line.append(f"  {child.name} ").append(state_text(child), _style_of(child))
    return line.append(f"  {sum(child.restarts for child in children)} restarts", "dim")


def state_text(child: ChildStatus) -> str:
    """A child's state; with its exit code once it ended."""
    return f"{child.state} ({child.exit_code})" if child.state == "ended" else child.state


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        is_number = column in ("pid", "published", "delivered", "dropped", "queued", "peak", "restarts")
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(no_wrap=True, overflow="ellipsis").append(text, style)


def _style_of(child: ChildStatus) -> str:
    return "bold red" if child.state == "ended" and child.exit_code else _state_style(child.state)


def _state_style(state: str) -> str:
    return _STATE_STYLES.get(state, "yellow")


# ---- the plain form --------------------------------------------------------------------------------------


def plain_line(view: RunView, status: Status | None, now_s: float) -> str:
    """One ASCII line for a log: time, each worker, the store, and what was dropped."""
    parts = [
        f"{worker.name}: {worker.env_steps} env steps, {worker.rate.per_s(worker.rate_time_s(now_s)):.0f} steps/s, "
        f"{worker.episodes} episodes, mean return {short(worker.mean_return)}, best {short(worker.best)}"
        for worker in _sorted(view)
    ]
    drops = ", ".join(f"{account.name} {account.total_dropped}" for account in accounts_of(status))
    stored = f"stored {store_figures_of(status).rows_committed} rows, dropped {drops or 'nothing'}"
    return "; ".join([f"{now_s - view.started_s:6.1f} s  {parts[0] if parts else 'no record yet'}", *parts[1:], stored])
