"""Measure JSON lines of a foreign program: reading them alone, and through the bridge into the database.

The reference is the standard library's `json.loads` on the same lines, one by one, in the same minute: what a reader
of such lines does at the least who uses nothing else. The whole is a real graph: a spool with all lines in it, a
bridge process, its proxy, router and DB writer, all on the cores that are there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from graph_rig import RunningGraph, running_graph
from measuring import Machine, print_table, verdict

from runlane.config.errors import SpoolError
from runlane.transport.spool import (
    OUT_FILE,
    PLACE_FILE,
    SpoolEnd,
    SpoolInfo,
    make_spool,
    write_end,
    write_info,
)
from runlane.workers.jsonl_file import CHUNK_BYTES
from runlane.workers.jsonl_lines import lines_of
from runlane.workers.jsonl_place import Place

BAR_LINES_S = 100_000
WAYS = {
    "json": "json.loads, line by line (reference)",
    "read": "lines read and checked by the bridge's own means",
    "taken": "through a bridge into its journal",
    "stored": "through the whole graph, committed",
}


class Rates(NamedTuple):
    """Lines a second of one round."""

    taken: float
    stored: float


def text_of(lines: int) -> bytes:
    """So many steps, as a program writes them."""
    return b"".join(
        b'{"kind":"step","action":%d,"reward":1.0,"terminated":%s,"truncated":false}\n'
        % (number & 1, b"true" if number % 200 == 199 else b"false")
        for number in range(lines)
    )


def json_rate(text: bytes) -> float:
    """Lines a second of the reference."""
    lines = text.splitlines()
    started_s = time.perf_counter()
    for line in lines:
        json.loads(line)
    return len(lines) / (time.perf_counter() - started_s)


def read_rate(text: bytes) -> float:
    """Lines a second of the bridge's reader alone, in chunks as it takes them."""
    count = 0
    start = 0
    started_s = time.perf_counter()
    while start < len(text):
        end = text.rfind(b"\n", start, start + CHUNK_BYTES) + 1
        count += len(lines_of(text[start:end]))
        start = end
    return count / (time.perf_counter() - started_s)


def bridge_rates(text: bytes, lines: int, directory: Path | None) -> Rates:
    """Lines a second through a bridge and a fresh graph, from its first look on; checks that all are there, once."""
    with running_graph(directory=directory) as graph:
        spool = make_spool(graph.settings)
        (spool / OUT_FILE).write_bytes(text)
        write_info(spool, SpoolInfo(run=graph.worker.run, worker=graph.worker.worker, source="stdout"))
        write_end(spool, SpoolEnd(state="finished", exit_code=0))
        command = [sys.executable, "-m", "runlane.workers.jsonl_bridge", str(spool)]
        bridge = subprocess.Popen(command, env=graph.environment)
        began_s = taken_s = 0.0
        while bridge.poll() is None:
            offset = offset_of(spool)
            if offset >= 0 and not began_s:
                began_s = time.perf_counter()
            if offset >= len(text) and not taken_s:
                taken_s = time.perf_counter()
            time.sleep(0.002)  # between two looks at how far another process is
        ended_s = time.perf_counter()
        check(graph, lines, bridge.returncode)
        return Rates(lines / ((taken_s or ended_s) - began_s), lines / (ended_s - began_s))


def offset_of(spool: Path) -> int:
    """How far the bridge is; -1 before it has begun, and once the spool is gone."""
    if not (spool / PLACE_FILE).exists():
        return -1
    try:
        place = Place(spool / PLACE_FILE)
        found = place.find()
        place.close()
    except (SpoolError, OSError):
        return -1
    return -1 if found is None else found.offset


def check(graph: RunningGraph, lines: int, code: int) -> None:
    """Every line is in the database once."""
    graph.client.worker_exited(graph.worker.worker, graph.worker.run, 0, 10)
    stored = graph.stored_steps()
    if stored != lines or code:
        sys.exit(f"not exact: {stored} stored of {lines}, exit code {code} of the bridge")


def main() -> None:
    """Print the table, the bar, and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=500_000)
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--directory", type=Path, help="a directory on the disk to measure; by default a temporary one")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when the bar is missed")
    chosen = parser.parse_args()
    machine = Machine()
    text = text_of(chosen.lines)
    few = text_of(min(chosen.lines, 50_000))
    found: dict[str, list[float]] = {key: [] for key in (*WAYS, "ratio", "read_ratio")}
    for _ in range(chosen.pairs):
        before = json_rate(few)
        read = read_rate(few)
        rates = bridge_rates(text, chosen.lines, chosen.directory)
        after = json_rate(few)
        found["json"] += [before, after]
        found["read"].append(read)
        found["taken"].append(rates.taken)
        found["stored"].append(rates.stored)
        found["ratio"].append(2 * rates.stored / (before + after))
        found["read_ratio"].append(2 * read / (before + after))
        print(f"  {rates.stored:,.0f} lines/s, {found['ratio'][-1]:.2f} of json.loads", flush=True)
    rows = [
        [text, *(f"{figure(found[key]):,.0f}" for figure in (statistics.median, min, max))]
        for key, text in WAYS.items()
    ]
    print_table(["lines/s", "median", "min", "max"], rows)
    rate, ratio = statistics.median(found["stored"]), statistics.median(found["ratio"])
    is_met = rate >= BAR_LINES_S if machine.is_quiet else None
    print(f"bar: {rate:,.0f} lines/s of {BAR_LINES_S:,}, {os.cpu_count()} cores for all of it: {verdict(is_met)}")
    print(machine.line())
    figures: dict[str, float | bool | None] = {
        "jsonl_lines_per_s": round(rate),
        "jsonl_ratio": round(ratio, 3),
        "jsonl_taken_lines_per_s": round(statistics.median(found["taken"])),
        "jsonl_read_ratio": round(statistics.median(found["read_ratio"]), 2),
        "jsonl_is_within_bar": is_met,
    }
    print(json.dumps({**figures, **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
