"""Memory of every process of a graph over a long run, and of the files it keeps.

A worker records steps at an even rate; once a second the memory of each process is read from /proc, and the size of
the journals, the database and its write-ahead log. After a warm-up (a tenth of the run, a minute at most) a straight
line is laid through each process's RSS. It is flat if 20 minutes at that slope would move less than 5 % of it.

Of a run of a minute the table is a look at the sizes and no verdict: caches are still filling. `--strict` makes a
process that is not flat exit code 1.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from graph_rig import RunningGraph, running_graph
from measuring import Machine, print_table
from memory_series import MemorySeries

from runlane.config.names import JOURNAL_DIR
from runlane.transport.endpoint import database_of

HERE = Path(__file__).parent
WARM_UP_S, WARM_UP_SHARE = 60.0, 0.1
INTERVAL_S = 1.0
FILE_POINTS = 5  # lines of the table of files


@dataclass(frozen=True, slots=True)
class FileSizes:
    """Bytes of the files at one moment; of the journals the space they take, not their length."""

    at_s: float
    journals: int
    database: int
    wal: int


@dataclass(slots=True)
class Watch:
    """Everything sampled of one run. `processes` is by name and pid."""

    graph: RunningGraph
    processes: dict[tuple[str, int], MemorySeries] = field(default_factory=dict[tuple[str, int], MemorySeries])
    files: list[FileSizes] = field(default_factory=list[FileSizes])

    def look(self, at_s: float, pids_of: dict[str, int], *, is_warm: bool) -> None:
        """Sample all; the memory of processes only once they are warm. `pids_of` are those beside the graph's."""
        self.files.append(file_sizes(self.graph, at_s))
        status = self.graph.client.status()
        if status is None or not is_warm:
            return
        pids = {**{name: pid for name, pid in pids_of.items() if pid}, "supervisor": status.pid}
        pids |= {child.name: child.pid for child in status.children if child.pid and child.exit_code is None}
        for name, pid in pids.items():
            self.processes.setdefault((name, pid), MemorySeries(name, pid)).take(at_s)


def file_sizes(graph: RunningGraph, at_s: float) -> FileSizes:
    """What the run takes on disk now."""
    journals = sum(_disk_bytes(path) for path in (graph.data_dir / JOURNAL_DIR).rglob("*"))
    database = database_of(graph.settings)
    return FileSizes(at_s, journals, _disk_bytes(database), _disk_bytes(database.with_name(f"{database.name}-wal")))


def _disk_bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:  # segments come and go
        return 0


@contextlib.contextmanager
def opened_gui(graph: RunningGraph) -> Generator[int]:
    """The GUI, on its live page; its pid."""
    with graph.open_gui() as window:
        try:
            yield window.pid
            if window.poll() is not None:
                sys.exit(f"the GUI ended by itself, with exit code {window.returncode}")
        finally:
            window.terminate()


def run(minutes: float, rate: int, directory: Path | None, options: list[str], *, with_gui: bool) -> Watch:
    """Run the graph and its worker to the end, sampling; checks that every step is stored."""
    seconds = minutes * 60
    warm_s = min(WARM_UP_S, seconds * WARM_UP_SHARE)
    with running_graph(*options, directory=directory) as graph:
        watch = Watch(graph)
        command = [sys.executable, str(HERE / "paced_worker.py"), str(rate), str(seconds)]
        gui = opened_gui(graph) if with_gui else contextlib.nullcontext(0)
        with (
            gui as gui_pid,
            subprocess.Popen(command, env=graph.environment, stdout=subprocess.PIPE, text=True) as worker,
        ):
            assert worker.stdout is not None
            worker.stdout.readline()
            started_s = time.monotonic()
            next_s = 0.0
            while worker.poll() is None and (at_s := time.monotonic() - started_s) < seconds:
                watch.look(at_s, {"worker": worker.pid, "gui": gui_pid}, is_warm=at_s >= warm_s)
                next_s += INTERVAL_S
                time.sleep(max(0.0, started_s + next_s - time.monotonic()))  # one sample a second
            output, _ = worker.communicate()
        if worker.returncode:
            sys.exit(f"the worker ended with exit code {worker.returncode}")
        graph.client.worker_exited(graph.worker.worker, graph.worker.run, 0, 10)
        done = json.loads(output)
        stored = graph.stored_steps()
        if stored != done["steps"] or not done["is_committed"]:
            sys.exit(f"not exact: {stored} stored of {done}")
        print(f"{stored:,} steps in {done['seconds']:.0f} s ({stored / done['seconds']:,.0f}/s), all stored once")
    return watch


def process_row(series: MemorySeries) -> list[str]:
    """One line of the table of processes."""
    start, end = series.rss_at_ends()
    line, last = series.line(), series.samples[-1]
    return [
        f"{series.name} ({series.pid})",
        f"{start / 1024:.1f}",
        f"{end / 1024:.1f}",
        *("" if size is None else f"{size / 1024:.1f}" for size in (last.pss, last.uss, last.heap)),
        f"{line.slope:+.1f}",
        f"{line.half_width:.1f}",
        "flat" if series.is_flat else "not flat",
    ]


def file_row(sizes: FileSizes) -> list[str]:
    """One line of the table of files."""
    mebibytes = (size / (1 << 20) for size in (sizes.journals, sizes.database, sizes.wal))
    return [f"{sizes.at_s / 60:.1f}", *(f"{size:.1f}" for size in mebibytes)]


def figures_of(watch: Watch, minutes: float, rate: int) -> dict[str, object]:
    """The closing line. Sizes in KiB, slopes in KiB per minute."""
    processes: dict[str, object] = {}
    for (name, pid), series in watch.processes.items():
        start, end = series.rss_at_ends()
        line = series.line()
        key = name if name not in processes else f"{name}-{pid}"
        processes[key] = {
            "rss_start": round(start),
            "rss_end": round(end),
            "slope": round(line.slope, 2),
            "slope_half_width": round(line.half_width, 2) if len(series.samples) > 2 else None,
            "is_flat": series.is_flat,
        }
    return {
        "memory_is_flat": all(series.is_flat for series in watch.processes.values()),
        "minutes": minutes,
        "rate": rate,
        "processes": processes,
        "journals_peak_kib": max(sizes.journals for sizes in watch.files) // 1024,
        "wal_peak_kib": max(sizes.wal for sizes in watch.files) // 1024,
        "database_kib": watch.files[-1].database // 1024,
    }


def main() -> None:
    """Print both tables and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=20_000, help="steps per second")
    parser.add_argument("--directory", type=Path, help="a directory on the disk to use; by default a temporary one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as for runlane up")
    parser.add_argument("--gui", action="store_true", help="with the GUI open, which watches a frame of 160x210")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when a process is not flat")
    chosen = parser.parse_args()
    if chosen.minutes * 60 < 5:
        parser.error("--minutes: at least 0.1")
    machine = Machine()
    watch = run(chosen.minutes, chosen.rate, chosen.directory, chosen.set, with_gui=chosen.gui)
    headings = ["MiB of (pid)", "RSS start", "RSS end", "PSS", "USS", "heap", "KiB/min", "±", "verdict"]
    print_table(headings, [process_row(series) for series in watch.processes.values()])
    step = max(1, (len(watch.files) - 1) // (FILE_POINTS - 1))
    print_table(["minute", "journals, MiB", "database", "WAL"], [file_row(sizes) for sizes in watch.files[::step]])
    print(machine.line())
    figures = figures_of(watch, chosen.minutes, chosen.rate)
    print(json.dumps({**figures, **machine.figures()}))
    if chosen.strict and not figures["memory_is_flat"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
