"""How long the views of a large database take: `runlane runs`, and one run's return curve.

Builds a database through the Store itself, so with the rollups the DB writer leaves: one run with half of the steps
and nine tenths of the episodes, the rest in many small runs of two workers and a proxy each. By default that is
10 million step rows, a million episodes and 1,000 runs. Then it asks as a program does, and as processes.

Bars, at the default size: `list_runs`, `return_curve`, and both commands from their start to their end, each in
under 1 s (the median of `--repeats`). A bar that is missed ends with exit code 1. Of a smaller database
(`--rows 200000`) the figures are shown and judged the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from runlane.actors.return_curve import return_curve
from runlane.actors.store import Store
from runlane.actors.store_reader import list_runs
from runlane.actors.topology import proxy_name
from runlane.config.settings import DbWriterSettings
from runlane.transport.columns import step_dtype
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.records import EpisodeRecord, Record, RunRecord
from runlane.transport.wire import Section

BAR_S = 1.0
CHUNK = 5_000
START_NS = 1_790_000_000_000_000_000
CODES = {"seq": "<u8", "t_ns": "<i8", "episode": "<u4", "step": "<u4", "env_index": "<u4", "flags": "|u1"}
SCHEMA = StepSchema(1, [*(StepField(name, code) for name, code in CODES.items()), StepField("reward", "<f8")])
BIG_RUN = "01AAAAAAAAAAAAAAAAAAAAAAAA"


def fill(store: Store, run: str, workers: int, steps: int, episodes: int, number: int) -> None:
    """One run: each worker's steps and episodes in turn, then its end as the proxy reports it."""
    for place, worker in enumerate([*(f"w{index}" for index in range(workers)), proxy_name("w0")]):
        stream = f"{number:020x}{place:012x}"
        info = StreamInfo(
            stream=stream, run=run, worker=worker, host="bench", pid=1, started_ns=START_NS + number, run_name="bench"
        )
        store.begin()
        stream_no = store.open_stream(info)
        seq = 1
        store.insert_records(stream_no, "run", [RunRecord(seq, START_NS, "running", {})])
        store.commit()
        if worker.startswith("w"):
            seq = _records(store, stream_no, steps // workers, episodes // workers)
        store.begin()
        store.insert_records(stream_no, "run", [RunRecord(seq + 1, START_NS + number + 10**9, "finished", {})])
        store.advance(stream_no, seq + 1)
        store.commit()


def _records(store: Store, stream_no: int, steps: int, episodes: int) -> int:
    seq, done, ended = 1, 0, 0
    while done < steps or ended < episodes:
        rows = min(CHUNK, steps - done)
        done += rows
        packed = np.zeros(rows, step_dtype(SCHEMA))
        packed["seq"] = np.arange(seq + 1, seq + 1 + rows)
        packed["t_ns"] = START_NS + packed["seq"].astype(np.int64) * 1_000
        packed["reward"] = 1.0
        seq += rows
        due = episodes if done >= steps else episodes * done // steps
        found: list[Record] = [
            EpisodeRecord(
                seq + 1 + index, START_NS + seq * 1_000, 0, ended + index, float(index % 500), 10, "terminated", 0.1
            )
            for index in range(due - ended)
        ]
        seq += len(found)
        ended = due
        store.begin()
        store.insert_steps(stream_no, SCHEMA, packed.tobytes(), Section(1, 1, rows, packed.nbytes))
        store.insert_records(stream_no, "episode", found)
        store.advance(stream_no, seq)
        store.commit()
    return seq


def build(path: Path, rows: int, episodes: int, runs: int) -> None:
    """The whole database; says how fast it was written."""
    started_s = time.perf_counter()
    with closing(Store(path, DbWriterSettings(synchronous="NORMAL"))) as store:
        small = max(runs - 1, 0)
        fill(
            store, BIG_RUN, 1, rows - rows // 2 if small else rows, episodes - episodes // 10 if small else episodes, 0
        )
        for number in range(1, small + 1):
            fill(store, f"01B{number:023d}", 2, rows // 2 // small, episodes // 10 // small, number)
        counts = store.statistics().rows
    took_s = time.perf_counter() - started_s
    print(
        f"built {counts['step']:,} step rows, {counts['episode']:,} episodes, {runs:,} runs in {took_s:.1f} s "
        f"({counts['step'] / took_s:,.0f} rows/s), {path.stat().st_size / 1e9:.2f} GB"
    )


def median_s(what: Callable[[], object], repeats: int) -> float:
    """Median time of a few calls; one before them, which may have to compile modules, is not counted."""
    times: list[float] = []
    what()
    for _ in range(repeats):
        started_s = time.perf_counter()
        what()
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def command(directory: Path, *words: str) -> Callable[[], object]:
    """A command as its own process, its output thrown away."""
    line = [sys.executable, "-m", "runlane", *words, "--set", f"data_dir={directory}"]
    # Modules compiled once, as after any installation, whatever this shell says about writing them.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    return lambda: subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=environment)


def main() -> None:
    """Print the table and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="step rows")
    parser.add_argument("--episodes", type=int, default=0, help="default: a tenth of the rows")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rl-bench-") as name:
        directory = Path(name)
        path = directory / "runlane.db"
        build(path, chosen.rows, chosen.episodes or chosen.rows // 10, chosen.runs)
        asked: dict[str, Callable[[], object]] = {
            "list_runs": lambda: list_runs(path),
            "return_curve": lambda: return_curve(path, BIG_RUN),
            "runlane runs": command(directory, "runs"),
            "runlane runs --json": command(directory, "runs", "--json"),
            "runlane curve": command(directory, "curve", BIG_RUN),
            "runlane curve --json": command(directory, "curve", BIG_RUN, "--json"),
        }
        found = {what: median_s(call, chosen.repeats) for what, call in asked.items()}
    print(f"{'asked':<22}{'median s':>10}{'bar s':>8}")
    for what, took_s in found.items():
        print(f"{what:<22}{took_s:>10.3f}{BAR_S:>8.1f}  {'met' if took_s < BAR_S else 'MISSED'}")
    print(
        json.dumps(
            {f"{what.replace(' ', '_').replace('--', '')}_s": round(took_s, 4) for what, took_s in found.items()}
        )
    )
    sys.exit(any(took_s >= BAR_S for took_s in found.values()))


if __name__ == "__main__":
    main()
