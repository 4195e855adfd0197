"""What a training notices of a GUI that is opened and killed, again and again: its step rate, its rows, its accounts.

A worker, whose environment takes some 15 us a step, offers a frame of 160x210 now and then. In turn there is no GUI,
and one that is opened, watches for a while, and is killed (`kill -9`). What counts is the median ratio of the step rate
after each kill to that before its opening. While a GUI is open it takes CPU of its own on the same cores and the frames
are rendered, so that rate is told, and no bar.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from graph_rig import RunningGraph, running_graph
from measuring import Machine, print_table, verdict

from runlane.transport.endpoint import run_dir_of

LEAST_RATIO = 0.95
PHASE_S = 1.5
SETTLE_S = 1.2  # a lease ends within a second of its viewer's death
DEADLINE_S = 30.0
WORKER = """
import sys, time
import numpy as np
from runlane.workers import attach
lane = attach()
frame = np.zeros((210, 160, 3), np.uint8)
steps, next_s = 0, 0.0
print("attached", flush=True)
end_s = time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end_s:
    for _ in range(50):
        steps += 1
        sum(range(600))  # an environment: some 15 microseconds of its own
        lane.step(steps & 1, 1.0, steps % 200 == 0, False)
    lane.frame(frame)
    if time.perf_counter() >= next_s:
        next_s = time.perf_counter() + 0.05
        print(time.monotonic(), steps, flush=True)
lane.close()
print("done", lane.env_steps, flush=True)
"""


class Counted:
    """The worker's own count over time, as it tells it."""

    def __init__(self, worker: "subprocess.Popen[str]") -> None:
        self._worker = worker
        self.points: list[tuple[float, int]] = []
        self.steps = 0

    def until(self, is_over: Callable[[], bool]) -> None:
        """Read what the worker tells until it is so."""
        assert self._worker.stdout is not None
        deadline_s = time.monotonic() + DEADLINE_S
        while not is_over():
            line = self._worker.stdout.readline().split()
            if not line or time.monotonic() > deadline_s:
                sys.exit("the worker ended early, or what was waited for never came")
            self.points.append((float(line[0]), int(line[1])))

    def rate_over(self, seconds: float) -> float:
        """Steps a second, over so long from now."""
        self.until(lambda: bool(self.points))
        since_s, before = self.points[-1]
        self.until(lambda: self.points[-1][0] >= since_s + seconds)
        at_s, steps = self.points[-1]
        return (steps - before) / (at_s - since_s)


def is_watched(graph: RunningGraph) -> bool:
    """Whether a lease is held on the worker's ring, by the figures that it writes."""
    found = list(run_dir_of(graph.settings).glob("fastlane-*.json"))
    return any(json.loads(path.read_text("utf-8"))["viewers"] for path in found)


def measure(kills: int) -> dict[str, Any]:
    """Rates without a GUI, with one, and after it was killed; checks that every step is stored."""
    before: list[float] = []
    during: list[float] = []
    after: list[float] = []
    seconds = kills * (2 * PHASE_S + SETTLE_S + 12)
    with running_graph() as graph:
        command = [sys.executable, "-c", WORKER, str(seconds)]
        with subprocess.Popen(command, env=graph.environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            counted = Counted(worker)
            for _ in range(kills):
                before.append(counted.rate_over(PHASE_S))
                window = graph.open_gui()
                counted.until(lambda: is_watched(graph))
                during.append(counted.rate_over(PHASE_S))
                os.kill(window.pid, signal.SIGKILL)
                window.wait()
                counted.rate_over(SETTLE_S)
                after.append(counted.rate_over(PHASE_S))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        graph.client.worker_exited(graph.worker.worker, graph.worker.run, 137, 30)
        accounts = graph.client.accounts() or []
        at_least = counted.points[-1][1]
        stored = graph.stored_steps()
        if stored < at_least or any(account.balance for account in accounts):
            sys.exit(f"not exact: {stored} stored, {at_least} counted; {accounts}")
    ratios = [later / earlier for earlier, later in zip(before, after, strict=True)]
    return {"before": before, "during": during, "after": after, "ratio": statistics.median(ratios), "stored": stored}


def main() -> None:
    """Print the table and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--strict", action="store_true", help="exit code 1 unless the bar is met")
    chosen = parser.parse_args()
    machine = Machine()
    found = measure(chosen.kills)
    rows = [
        [name, *(f"{value(found[key]):,.0f}" for value in (statistics.median, min, max))]
        for name, key in (("no GUI", "before"), ("a GUI watches", "during"), ("after its kill", "after"))
    ]
    print_table(["steps a second", "median", "least", "most"], rows)
    print(f"after a kill: {found['ratio']:.3f} of before; {found['stored']:,} steps stored, every account closed")
    is_met = None if not machine.is_quiet else found["ratio"] >= LEAST_RATIO
    print(f"ratio >= {LEAST_RATIO}: {verdict(is_met)}")
    print(machine.line())
    print(json.dumps({"gui_kills": chosen.kills, "gui_kill_ratio": round(found["ratio"], 3), **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
