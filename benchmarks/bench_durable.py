"""How many steps per second reach the database for good, as a share of what SQLite itself can take here.

One run measures both, round by round: the whole graph (worker, proxy, router, DB writer, supervisor, all real
processes on this machine), and before and after it the raw ceiling, the fastest way `apsw` was found to insert the
same rows into the same schema with the same durability in one process that does nothing else. The ratio is what to
compare; the absolute figures belong to the machine and the hour.

In the same table: the same steps into an .mcap file, and as JSON lines through a pipe into SQLite. Every way's count
is checked. Bar: a ratio of 0.5 (aim 0.7). Where other programs keep the cores busy there is no verdict: of shared
cores the graph's five processes get more than the ceiling's one, so the ratio flatters. `--strict` makes anything
but a bar that is met exit code 1.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from durable_rivals import json_pipe_rate, mcap_rate
from graph_rig import running_graph
from measuring import Machine, print_table, verdict
from raw_store import raw_ceiling

HERE = Path(__file__).parent
BAR_RATIO, AIM_RATIO = 0.5, 0.7
WAYS = {
    "runlane": "runlane, whole graph",
    "raw": "apsw alone, rows ready (ceiling)",
    "mcap": "mcap writer, zstd chunks, one fsync",
    "json_pipe": "JSON lines through a pipe, sqlite3",
}


def end_to_end(steps: int, synchronous: str, directory: Path | None) -> float:
    """Durable steps per second through a fresh graph with a fresh database; checks that all are there, once."""
    with running_graph(f"db_writer.synchronous={synchronous}", directory=directory) as graph:
        return steps / graph.record(steps).committed_s


def measure(
    rounds: int, steps: int, rival_steps: int, synchronous: str, directory: Path | None
) -> dict[str, list[float]]:
    """Rates of every way, and `ratio`: the graph's to the mean of the ceiling just before and just after it."""
    found: dict[str, list[float]] = {key: [] for key in (*WAYS, "ratio")}
    level = "FULL" if synchronous == "FULL" else "NORMAL"
    for _ in range(rounds):
        before = raw_ceiling(steps, level, directory=directory, repeats=1)
        whole = end_to_end(steps, synchronous, directory)
        after = raw_ceiling(steps, level, directory=directory, repeats=1)
        found["runlane"].append(whole)
        found["raw"] += [before, after]
        found["ratio"].append(2 * whole / (before + after))
        print(f"  whole graph {whole:,.0f} steps/s, {found['ratio'][-1]:.3f} of the ceiling", flush=True)
        mcap = mcap_rate(rival_steps, directory)
        found["mcap"] += [] if mcap is None else [mcap]
        found["json_pipe"].append(json_pipe_rate(rival_steps, directory))
    return found


def table_row(key: str, found: dict[str, list[float]]) -> list[str]:
    """One line of the table."""
    rates = found[key]
    if not rates:
        return [WAYS[key], "not installed", "", "", ""]
    share = statistics.median(rates) / statistics.median(found["raw"])
    if key == "runlane":
        share = statistics.median(found["ratio"])
    return [WAYS[key], f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f}", f"{max(rates):,.0f}", f"{share:.3f}"]


def main() -> None:
    """Print the table, the bar, and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--rival-steps", type=int, default=100_000, help="steps of the ways that are slower by far")
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--synchronous", choices=["FULL", "NORMAL"], default="FULL")
    parser.add_argument("--directory", type=Path, help="a directory on the disk to measure; by default a temporary one")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when the bar is missed")
    chosen = parser.parse_args()
    machine = Machine()
    found = measure(chosen.pairs, chosen.steps, chosen.rival_steps, chosen.synchronous, chosen.directory)
    headings = [f"steps/s, synchronous={chosen.synchronous}", "median", "min", "max", "of ceiling"]
    print_table(headings, [table_row(key, found) for key in WAYS])
    ratios = found["ratio"]
    ratio = statistics.median(ratios)
    is_met = ratio >= BAR_RATIO if machine.is_quiet else None
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"bar: ratio {ratio:.3f} ({spread}) of {BAR_RATIO} (aim {AIM_RATIO}): {verdict(is_met)}")
    print(machine.line())
    figures: dict[str, float | bool | None] = {
        "durable_ratio": round(ratio, 4),
        "durable_steps_s": round(statistics.median(found["runlane"])),
        "durable_is_within_bar": is_met,
    }
    for key in ("raw", "mcap", "json_pipe"):
        figures[f"{key}_steps_s"] = round(statistics.median(found[key])) if found[key] else None
    print(json.dumps({**figures, **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
