"""How many steps per second reach the database for good, as a share of what SQLite itself can take here.

One run measures both, pair by pair: the whole graph (worker, proxy, router, DB writer, supervisor, all real
processes on this machine), and the raw ceiling, the fastest way `apsw` was found to insert the same rows into
the same schema with the same durability in one process that does nothing else. The ratio is what to compare;
the absolute figures belong to the machine and the hour.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from raw_store import raw_ceiling

from runlane.actors.store_reader import query
from runlane.config import names
from runlane.config.load import load
from runlane.launch import GraphProcess
from runlane.transport.endpoint import database_of
from runlane.transport.graph_client import GraphClient
from runlane.transport.identity import new_run_id

HERE = Path(__file__).parent


def end_to_end(steps: int, synchronous: str) -> float:
    """Durable steps per second through a fresh graph with a fresh database; checks that all are there, once."""
    with tempfile.TemporaryDirectory(prefix="rl-bench-") as directory:
        options = ["--set", f"data_dir={directory}/data", "--set", f"db_writer.synchronous={synchronous}"]
        settings = load(environment={}, arguments=options[1::2])
        graph = GraphProcess([*options, "--set", "log_level=WARNING"], settings)
        graph.start()
        try:
            with GraphClient(settings) as client:
                started = client.start_worker("bench", new_run_id(time.time_ns()), "bench")
                environment = {**os.environ, names.ENV_PROXY: started.endpoint, names.ENV_RUN: started.run}
                # a close() that may take as long as the database needs
                environment["RUNLANE_SESSION__CLOSE_S"] = "120"
                done = subprocess.run(
                    [sys.executable, str(HERE / "durable_worker.py"), str(steps)],
                    env=environment,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                client.worker_exited(started.worker, started.run, 0, 10)
        finally:
            graph.stop()
        times = json.loads(done.stdout)
        _, rows = query(database_of(settings), "SELECT count(*), count(DISTINCT seq) FROM steps")
        if rows != [(steps, steps)] or not times["is_committed"]:
            sys.exit(f"not exact: {rows} stored of {steps}, {times}")
        return steps / float(times["committed_s"])


def main() -> None:
    """Print the table and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--synchronous", choices=["FULL", "NORMAL"], default="FULL")
    chosen = parser.parse_args()
    pairs: list[tuple[float, float]] = []
    print(
        f"{'pair':>4}  {'end to end':>12}  {'raw apsw':>12}  {'ratio':>6}   (steps/s, synchronous={chosen.synchronous})"
    )
    for number in range(1, chosen.pairs + 1):
        whole = end_to_end(chosen.steps, chosen.synchronous)
        raw = raw_ceiling(chosen.steps, chosen.synchronous)
        pairs.append((whole, raw))
        print(f"{number:>4}  {whole:>12,.0f}  {raw:>12,.0f}  {whole / raw:>6.3f}", flush=True)
    ratio = statistics.median(whole / raw for whole, raw in pairs)
    rate = statistics.median(whole for whole, _ in pairs)
    print(f" med  {rate:>12,.0f}  {statistics.median(raw for _, raw in pairs):>12,.0f}  {ratio:>6.3f}")
    print(json.dumps({"durable_ratio": round(ratio, 4), "durable_steps_s": round(rate)}))


if __name__ == "__main__":
    main()
