"""RunDetails: everything the store knows of one run but its records. Asked in a background thread; no Qt."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from runlane.gui.run_entry import facts_of
from runlane.gui.run_text import UNKNOWN, count_text, duration_text, moment_text, size_text
from runlane.gui.store_source import StoreSource

MAX_STREAMS = 500
NOT_RECORDED = "not recorded"
COMMIT = 12

_RUN = """
SELECT r.run, r.name, s.state, r.started_ns, r.ended_ns, s.seen_ns, r.exit_code, r.error, r.command, r.config, r.host,
       r.pid, r.facts
  FROM runs AS r JOIN run_status AS s USING (run) WHERE r.run = ?
"""
_STREAMS = """
SELECT worker, incarnation, state, host, pid, steps, episodes, first_seq, last_seq, started_ns, ended_ns, resumed_from,
       resumed_step, forked_from, stream
  FROM streams WHERE run = ? ORDER BY stream_no LIMIT ?
"""
_DROPS = """
SELECT 'lost for all' AS who, reason, sum(records) FROM drops WHERE run = ? GROUP BY reason
 UNION ALL
SELECT subscriber, reason, sum(records) FROM account_drops WHERE run = ? GROUP BY subscriber, reason
 ORDER BY 3 DESC
"""
_RETENTION = "SELECT class, reason, sum(rows), max(time) FROM retention WHERE run = ? GROUP BY class, reason"

STREAM_COLUMNS = ("worker", "inc.", "state", "host", "pid", "steps", "episodes", "seq", "lived", "came from")
DROP_COLUMNS = ("who missed it", "reason", "records")
RETENTION_COLUMNS = ("class", "setting", "rows removed", "when")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """Texts, ready to be shown. `config` and `env` are as they were recorded; `around` is what else a run is told by.

    `is_known` False when the store has no such run.
    """

    run: str
    is_known: bool = False
    name: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    env: dict[str, Any] = field(default_factory=dict[str, Any])
    around: dict[str, Any] = field(default_factory=dict[str, Any])
    streams: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    drops: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    retention: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])


def fetch_details(store: StoreSource, run: str) -> RunDetails:
    """Ask the store; raises `StoreError`."""
    _, found = store.query(_RUN, (run,))
    if not found:
        return RunDetails(run=run)
    row: dict[str, Any] = dict(zip(_RUN_NAMES, found[0], strict=True))
    facts = facts_of(row["config"], row["facts"])
    return RunDetails(
        run=run,
        is_known=True,
        name=row["name"] or run[:12],
        facts=_fact_rows(row, facts),
        config=_map(facts.get("config")),
        env=_map(facts.get("env")),
        around=_around(row, facts),
        streams=_stream_rows(store.query(_STREAMS, (run, MAX_STREAMS))[1]),
        drops=[(who, reason or UNKNOWN, count_text(n)) for who, reason, n in store.query(_DROPS, (run, run))[1] if n],
        retention=[(kind, why, count_text(n), when or "") for kind, why, n, when in store.query(_RETENTION, (run,))[1]],
    )


_RUN_NAMES = (
    "run",
    "name",
    "state",
    "started_ns",
    "ended_ns",
    "seen_ns",
    "exit_code",
    "error",
    "command",
    "config",
    "host",
    "pid",
    "facts",
)


def _fact_rows(row: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, str]]:
    ended_ns = row["ended_ns"] or (row["seen_ns"] if row["state"] == "lost" else None)
    known = _map(facts.get("versions"))
    rows = [
        ("state", str(row["state"])),
        ("error", str(row["error"] or "")),
        ("exit code", _exit_text(row["exit_code"])),
        ("started", moment_text(row["started_ns"])),
        ("ended", moment_text(row["ended_ns"])),
        ("duration", duration_text((ended_ns - row["started_ns"]) / 1e9) if ended_ns else "it runs"),
        ("command", str(row["command"] or NOT_RECORDED)),
        ("arguments", _arguments_text(facts.get("arguments"))),
        ("directory", str(facts.get("directory") or NOT_RECORDED)),
        ("git", git_text(facts)),
        ("host", str(row["host"] or NOT_RECORDED)),
        ("pid", str(row["pid"] or NOT_RECORDED)),
        ("python", str(facts.get("python") or NOT_RECORDED)),
        ("versions", ", ".join(f"{name} {known[name]}" for name in sorted(known)) or NOT_RECORDED),
        ("run id", str(row["run"])),
    ]
    return [(name, text) for name, text in rows if text]


def git_text(facts: dict[str, Any]) -> str:
    """Commit, branch, and what was changed since: `4f2a1c09de21 on main, 1.2 kB changed, 2 untracked files`."""
    known = _map(facts.get("git"))
    if not known.get("commit"):
        return NOT_RECORDED
    branch = f" on {known['branch']}" if known.get("branch") else ""
    return ", ".join([f"{str(known['commit'])[:COMMIT]}{branch}", *_git_changes(known)])


def _git_changes(known: Mapping[str, Any]) -> list[str]:
    changed, untracked = known.get("dirty_bytes"), known.get("untracked")
    if changed is None and untracked is None and known.get("is_dirty") is None:
        return []
    found: list[str] = []
    if isinstance(changed, int) and changed > 0:
        found.append(f"{size_text(changed)} changed")
    elif known.get("is_dirty"):
        found.append("changed since")
    if isinstance(untracked, int) and untracked > 0:
        found.append(f"{untracked} untracked file{'' if untracked == 1 else 's'}")
    return found or ["clean"]


def _arguments_text(arguments: Any) -> str:
    """Words as a person would type them; empty where there are none, or none were recorded."""
    if isinstance(arguments, list):
        return shlex.join(map(str, cast("list[object]", arguments)))
    return arguments if isinstance(arguments, str) else ""


def _around(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs are compared by beside their configuration."""
    found = {
        "command": row["command"],
        "arguments": _arguments_text(facts.get("arguments")),
        "env": _map(facts.get("env")),
        "git": _map(facts.get("git")),
        "host": row["host"],
        "python": facts.get("python"),
        "versions": _map(facts.get("versions")),
    }
    return {name: value for name, value in found.items() if value}


def _map(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _exit_text(code: Any) -> str:
    if code is None:
        return UNKNOWN
    return f"signal {-code}" if code < 0 else str(code)


def _stream_rows(rows: list[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    names = {row[-1]: f"{row[0]} {row[1]}" for row in rows}
    found: list[tuple[str, ...]] = []
    for row in rows:
        worker, incarnation, state, host, pid, steps, episodes, first, last, started, ended, *origin = row
        resumed, resumed_step, forked, _ = origin
        came = ""
        if resumed:
            at = "" if resumed_step is None else f" at step {count_text(resumed_step)}"
            came = f"goes on from {names.get(resumed, resumed[:8])}{at}"
        elif forked:
            came = f"forked from {names.get(forked, forked[:8])}"
        lived = duration_text((ended - started) / 1e9) if ended and started else UNKNOWN
        found.append(
            (
                str(worker),
                str(incarnation),
                str(state or UNKNOWN),
                str(host),
                str(pid),
                count_text(steps),
                count_text(episodes),
                f"{first or 0:,} to {last or 0:,}".replace(",", " "),
                lived,
                came,
            )
        )
    return found
