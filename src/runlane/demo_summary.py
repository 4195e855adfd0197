"""The end of `runlane demo`: what the worker counted beside what the database holds, and the router's accounts.

The worker counts by itself, outside telemetry, and leaves a report; the database is asked once all is stopped;
the accounts are those of the last status before the stop. No number here is typed in.
"""

import math
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runlane.actors.store_reader import query
from runlane.config.errors import StoreError
from runlane.config.load import shipped
from runlane.config.settings import Settings
from runlane.gui.run_view import SubscriberAccount
from runlane.gui.terminal_view import drops_text, policy_text, size_text
from runlane.transport.endpoint import database_of

# An episode under way at the end is stored as abandoned; the worker's report is about those that ended.
_STORED = """
WITH ended AS (SELECT * FROM episodes WHERE run = {run} AND outcome <> 'abandoned')
SELECT count(*),
       (SELECT count(*) FROM (SELECT DISTINCT stream, seq, env_index FROM steps WHERE run = {run})),
       (SELECT count(*) FROM ended),
       coalesce(sum(reward) FILTER (
         WHERE (stream, env_index, episode) IN (SELECT stream, env_index, episode FROM ended)), 0.0),
       (SELECT coalesce(avg(episode_return), 0.0)
          FROM (SELECT episode_return FROM ended ORDER BY t_ns DESC, seq DESC LIMIT 100)),
       (SELECT coalesce(sum(records), 0) FROM drops WHERE run = {run}),
       coalesce((max(t_ns) - min(t_ns)) / 1e9, 0.0)
  FROM steps WHERE run = {run}
"""
_BEST = (
    "SELECT run, episode, sum(reward) AS episode_return, count(*) AS steps FROM steps "
    "{where}GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 5"
)


class WorkerReport(msgspec.Struct, frozen=True):
    """What the worker counted itself; sums and means are over episodes that ended."""

    steps: int
    episodes: int
    return_sum: float
    mean_return: float


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """What the database holds of one run; `seconds` from its first step to its last."""

    steps: int
    distinct_steps: int
    episodes: int
    reward_sum: float
    mean_return: float
    drops: int
    seconds: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the summary compares. `signal` is what stopped the demo early, `failure` what went wrong."""

    report: WorkerReport | None
    stored: Stored | None
    accounts: list[SubscriberAccount]
    exit_code: int | None
    stop_code: int
    signal: int = 0
    failure: str = ""


COUNTS = ("worker counted", "database holds")
ACCOUNTS = ("published", "delivered + dropped + queued")
PROMISES = ("promised", "found")


class Line(NamedTuple):
    """One comparison; `columns` says of what with what."""

    columns: tuple[str, str]
    what: str
    expected: str
    found: str
    is_equal: bool


def read_report(path: Path) -> WorkerReport | None:
    """The worker's report; None when it left none, as after a crash."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=WorkerReport)
    except (OSError, msgspec.MsgspecError):
        return None


def stored_of(database: Path, run: str) -> Stored | None:
    """What the database holds of a run; None when there is no database to read."""
    quoted = "'" + run.replace("'", "''") + "'"
    try:
        _, rows = query(database, _STORED.format(run=quoted))
    except StoreError:
        return None
    return msgspec.convert(rows[0], Stored)


def compare(evidence: Evidence) -> list[Line]:
    """Every line of the summary. The demo succeeded when all are equal."""
    lines = [*_counts(evidence.report, evidence.stored), *map(_balance, evidence.accounts), *_losses(evidence)]
    if not evidence.signal:
        found = "none" if evidence.exit_code is None else str(evidence.exit_code)
        lines.append(Line(PROMISES, "worker, exit code", "0", found, evidence.exit_code == 0))
    lines.append(_equal(PROMISES, "ordered stop, exit code", 0, evidence.stop_code))
    if evidence.failure:
        lines.append(Line(PROMISES, "graph", "lives to the end", evidence.failure, False))
    return lines


def _counts(report: WorkerReport | None, stored: Stored | None) -> list[Line]:
    if report is None or stored is None:
        counted = "no report" if report is None else f"{report.steps:,} steps"
        return [Line(COUNTS, "env steps", counted, "nothing" if stored is None else f"{stored.steps:,}", False)]
    sums = math.isclose(report.return_sum, stored.reward_sum, rel_tol=1e-9)
    means = math.isclose(report.mean_return, stored.mean_return, rel_tol=1e-9)
    return [
        _equal(COUNTS, "env steps", report.steps, stored.steps),
        _equal(COUNTS, "  with a seq of their own", report.steps, stored.distinct_steps),
        _equal(COUNTS, "episodes that ended", report.episodes, stored.episodes),
        Line(COUNTS, "  sum of their rewards", f"{report.return_sum:,.10g}", f"{stored.reward_sum:,.10g}", sums),
        Line(COUNTS, "  mean return, last 100", f"{report.mean_return:,.2f}", f"{stored.mean_return:,.2f}", means),
    ]


def _balance(account: SubscriberAccount) -> Line:
    parts = f"{account.delivered:,} + {account.total_dropped:,} + {account.queued:,}"
    what = f"{account.name} ({policy_text(account)})"
    return Line(ACCOUNTS, what, f"{account.published:,}", parts, account.is_balanced)


def _losses(evidence: Evidence) -> list[Line]:
    """What must lose nothing: `block` subscribers, and the run by the notes in the database."""
    lines = [
        _equal(PROMISES, f"dropped before {account.name}", 0, account.total_dropped)
        for account in evidence.accounts
        if account.overflow == "block"
    ]
    if evidence.stored is not None:
        lines.append(_equal(PROMISES, "noted as lost in database", 0, evidence.stored.drops))
    return lines


def _equal(columns: tuple[str, str], what: str, expected: int, found: int) -> Line:
    return Line(columns, what, f"{expected:,}", f"{found:,}", expected == found)


# ---- printing --------------------------------------------------------------------------------------------


def print_summary(console: Console, settings: Settings, evidence: Evidence, lines: Sequence[Line]) -> None:
    """Print every comparison; a line that differs is marked in words."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", max_width=32)
    table.add_column(no_wrap=True)
    columns: tuple[str, str] | None = None
    for line in lines:
        if line.columns != columns:
            columns = line.columns
            table.add_row()
            table.add_row("", *(Text(column, style="dim") for column in columns), "")
        mark = Text("equal", style="green") if line.is_equal else Text("DIFFERS", style="bold red")
        table.add_row(Text(line.what), line.expected, Text(line.found), mark)
    console.print(table)
    for text in _remarks(settings, evidence):
        console.print(text, markup=False, soft_wrap=True)
    console.print(_verdict(evidence, lines))


def _remarks(settings: Settings, evidence: Evidence) -> list[str]:
    remarks = [
        f"{account.name} may drop what it has no room for, and dropped: {drops_text(account)}"
        for account in evidence.accounts
        if account.overflow != "block"
    ]
    if evidence.signal:
        remarks.append("the subscribers' accounts are the router's last word before the stop")
    stored, database = evidence.stored, database_of(settings)
    if stored is not None and stored.seconds > 0:
        rate = stored.steps / stored.seconds
        remarks.append(f"{stored.steps:,} steps in {stored.seconds:.1f} s, {rate:,.0f} a second")
        remarks.append(f"{database} now has {size_text(database.stat().st_size)}")
    return ["", *remarks, ""]


def _verdict(evidence: Evidence, lines: Sequence[Line]) -> Text:
    wrong = sum(not line.is_equal for line in lines)
    early = f" Stopped early by {signal.Signals(evidence.signal).name}." if evidence.signal else ""
    if wrong:
        return Text(f"{wrong} of {len(lines)} lines differ, marked above.{early}", style="bold red")
    return Text(f"Every count agrees: each step is stored, once.{early}", style="bold green")


def print_watch_hint(console: Console, settings_arguments: Sequence[str]) -> None:
    """How to see the agent itself while it learns; it is drawn only as long as somebody does."""
    command = f"{_program()} watch{_own_options(settings_arguments)}"
    console.print(f"To see it play meanwhile, in another terminal here: {command}", markup=False, soft_wrap=True)


def _program() -> str:
    return "runlane" if shutil.which("runlane") else f"{os.path.relpath(sys.executable)} -m runlane"


def print_hints(console: Console, settings_arguments: Sequence[str], run: str) -> None:
    """What to try next, as commands that can be pasted."""
    options = _own_options(settings_arguments)
    where = f"WHERE run = '{run}' " if run else ""
    program = _program()
    commands = (
        f"{program} runs{options}",
        f'{program} sql{options} "{_BEST.format(where=where)}"',
        f"{program} run{options} -- python your_script.py",
    )
    console.print("\nTry next:", style="bold")
    for command in commands:
        console.print(f"  {command}", markup=False, soft_wrap=True)


def _own_options(arguments: Sequence[str]) -> str:
    """The options that lead to the same data directory, without the demo's own settings file."""
    own = list(arguments)
    if own[:2] == ["--config", str(shipped("demo.toml").absolute())]:
        own = own[2:]
    return f" {shlex.join(own)}" if own else ""
