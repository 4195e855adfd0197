"""Whether sleeping subscribers slow training: the same run with two that are stopped, and without.

Each pair is two runs one after the other, in an order that alternates: a graph with the DB writer alone, and one with
two lossy subscribers more (drop_oldest 1,024 and latest), both stopped (SIGSTOP) from before the first step to the
last. The worker records as fast as it can. Two ratios, each the median of the pairs: what the training loop feels
(time until its last call returned) and the durable rate (until all is committed). Also printed: how the router's memory
grew. The sums have to add up.

Bar: step ratio at least 0.98. `--strict` makes anything but a bar that is met exit code 1.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import psutil
from graph_rig import RunningGraph, running_graph
from measuring import Machine, print_table, verdict

from runlane.config.settings import QueuePolicy
from runlane.transport.subscriber import Subscriber

HERE = Path(__file__).parent
BAR_RATIO = 0.98
SLEEPERS = {"sleeping-oldest": QueuePolicy("drop_oldest", 1_024), "sleeping-latest": QueuePolicy("latest")}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: steps a second as training feels it and as they are stored, and what the router's memory grew by."""

    step_rate: float
    durable_rate: float
    router_growth_bytes: int


def sleep_as(graph: RunningGraph, name: str, policy: QueuePolicy) -> int:
    """A subscriber in a process of its own that has joined and is stopped; returns its pid."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # no thread of ours is running, so a fork is safe
        os.close(reader)
        with Subscriber(name, policy=policy, settings=graph.settings) as subscriber:
            while not subscriber.is_joined:
                subscriber.poll(0.05)
            os.write(writer, b"j")
            while True:
                subscriber.poll(0.5)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    os.kill(pid, signal.SIGSTOP)
    return pid


@contextlib.contextmanager
def sleepers(graph: RunningGraph, *, is_with: bool) -> Generator[None]:
    """Two stopped subscribers, or none."""
    pids = [sleep_as(graph, name, policy) for name, policy in SLEEPERS.items()] if is_with else []
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def one_run(steps: int, *, is_with: bool) -> Outcome:
    """A fresh graph, a worker at full speed, every count checked."""
    with running_graph() as graph, sleepers(graph, is_with=is_with):
        status = graph.client.status()
        pid = next(child.pid for child in status.children if child.name == "router") if status is not None else 0
        router = psutil.Process(pid)
        before_bytes = router.memory_info().rss
        times = graph.record(steps)
        grown_bytes = router.memory_info().rss - before_bytes
        accounts = graph.client.accounts(10.0)
        if not accounts or any(account.balance for account in accounts):
            sys.exit(f"the sums do not add up: {accounts}")
    return Outcome(steps / times.returned_s, steps / times.committed_s, grown_bytes)


def main() -> None:
    """Print the table, the bar, and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--strict", action="store_true", help="exit code 1 when the bar is missed")
    chosen = parser.parse_args()
    machine = Machine()
    found: dict[bool, list[Outcome]] = {False: [], True: []}
    for number in range(chosen.pairs):
        for is_with in (number % 2 == 0, number % 2 == 1):
            found[is_with].append(one_run(chosen.steps, is_with=is_with))
        pair = found[True][-1], found[False][-1]
        print(f"  pair {number + 1}: {pair[0].step_rate / pair[1].step_rate:.3f}", flush=True)
    pairs = list(zip(found[True], found[False], strict=True))
    step_ratios = [asleep.step_rate / alone.step_rate for asleep, alone in pairs]
    durable_ratios = [asleep.durable_rate / alone.durable_rate for asleep, alone in pairs]
    rows = [
        [
            title,
            f"{statistics.median(outcome.step_rate for outcome in found[key]):,.0f}",
            f"{statistics.median(outcome.durable_rate for outcome in found[key]):,.0f}",
            f"{max(outcome.router_growth_bytes for outcome in found[key]) / (1 << 20):.1f}",
        ]
        for title, key in (("DB writer alone", False), ("and two that are stopped", True))
    ]
    print_table(["", "steps/s", "durable steps/s", "router grew, MiB"], rows)
    ratio = statistics.median(step_ratios)
    is_met = ratio >= BAR_RATIO if machine.is_quiet else None
    spread = f"{min(step_ratios):.3f} to {max(step_ratios):.3f}"
    print(f"bar: step ratio {ratio:.3f} ({spread}) of {BAR_RATIO}: {verdict(is_met)}")
    print(machine.line())
    figures: dict[str, float | bool | None] = {
        "isolation_ratio": round(ratio, 4),
        "isolation_durable_ratio": round(statistics.median(durable_ratios), 4),
        "isolation_router_growth_bytes": max(outcome.router_growth_bytes for outcome in found[True]),
        "isolation_is_within_bar": is_met,
    }
    print(json.dumps({**figures, **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
