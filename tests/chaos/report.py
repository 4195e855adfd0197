"""What a campaign came to: a table for people, a line of JSON for programs, a page of Markdown for the documents."""

import datetime as dt
import json
import os
import platform
import sqlite3
import subprocess
from pathlib import Path

import apsw
from chaos.campaign import Campaign, Score

COLUMNS = ("kills", "records returned", "lost", "doubled", "wrong fields")


def _rows(campaign: Campaign) -> list[tuple[str, Score]]:
    return [*campaign.scores.items(), ("all", campaign.total)]


def _cells(score: Score) -> list[str]:
    return [f"{value:,}" for value in (score.kills, score.returned, score.lost, score.doubled, score.wrong)]


def table(campaign: Campaign) -> str:
    """One line per victim."""
    lines = [f"{'killed':<16}" + "".join(f"{column:>18}" for column in COLUMNS)]
    lines += [f"{name:<16}" + "".join(f"{cell:>18}" for cell in _cells(score)) for name, score in _rows(campaign)]
    return "\n".join(lines)


def json_line(campaign: Campaign) -> str:
    """The closing line."""
    total = campaign.total
    facts = {"kills": total.kills, "seed": campaign.seed, "rounds": campaign.rounds, "records": total.returned}
    found = {"lost": total.lost, "doubled": total.doubled, "wrong": total.wrong, "failures": len(campaign.failures)}
    return json.dumps({**facts, **found, "unreturned": campaign.unreturned, "seconds": round(campaign.seconds)})


def markdown(campaign: Campaign, directory: Path) -> str:
    """The page: where and when, what was done, the table."""
    machine = {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "file system": _filesystem(directory),
        "Python": platform.python_version(),
        "SQLite": f"{apsw.sqlite_lib_version()} in the DB writer, {sqlite3.sqlite_version} in the oracle",
        "seed": campaign.seed,
        "rounds": f"{campaign.rounds}, each on a new database, {campaign.seconds:,.0f} s in all",
        "stored, not yet returned": f"{campaign.unreturned:,} records",
    }
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items()), ""]
    lines += [f"| killed | {' | '.join(COLUMNS)} |", f"|---|{'--:|' * len(COLUMNS)}"]
    lines += [f"| {name} | {' | '.join(_cells(score))} |" for name, score in _rows(campaign)]
    return "\n".join([*lines, ""])


def _filesystem(directory: Path) -> str:
    """Type of the file system below the arenas."""
    command = ["/usr/bin/stat", "--file-system", "--format=%T", str(directory)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
