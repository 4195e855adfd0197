"""What one `step()` call costs the training loop, beside the least a recorder could do: a tuple and the clock.

The whole graph runs meanwhile. Steps come in bursts that fit into the outbox, and the next burst waits until
everything is committed, so the figure is the cost of the call and not the speed of the database.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path

from runlane.config.load import load
from runlane.launch import GraphProcess
from runlane.transport.graph_client import GraphClient
from runlane.transport.identity import new_run_id, new_stream_id
from runlane.transport.messages import StreamInfo
from runlane.workers.session import WorkerSession

BURST = 20_000


def tuple_and_clock(steps: int) -> float:
    """Microseconds per step to build the record's tuple and read the clock."""
    clock = time.time_ns
    started = time.perf_counter()
    for number in range(steps):
        _ = (number, clock(), 1, number, 0, 0, 1.0, number & 1)
    return (time.perf_counter() - started) / steps * 1e6


def empty_loop(steps: int) -> float:
    """Microseconds per step of the loop alone."""
    started = time.perf_counter()
    for number in range(steps):
        _ = number & 1
    return (time.perf_counter() - started) / steps * 1e6


def step_calls(lane: WorkerSession, steps: int, observation: object) -> float:
    """Microseconds per `step()` call, by the loop as a whole."""
    started = time.perf_counter()
    if observation is None:
        for number in range(steps):
            lane.step(number & 1, 1.0, number % 200 == 199, False)
    else:
        for number in range(steps):
            lane.step(number & 1, 1.0, number % 200 == 199, False, observation=observation)
    return (time.perf_counter() - started) / steps * 1e6


def single_calls(lane: WorkerSession, steps: int) -> list[float]:
    """Microseconds of each single `step()` call, the clock's own cost subtracted."""
    clock = time.perf_counter_ns
    marks = [0] * steps
    for number in range(steps):
        before = clock()
        lane.step(number & 1, 1.0, number % 200 == 199, False)
        marks[number] = clock() - before
    own = statistics.median(-clock() + clock() for _ in range(1000))
    return [max(0.0, mark - own) / 1000 for mark in marks]


def settle(lane: WorkerSession, deadline_s: float = 30.0) -> None:
    """Wait until everything recorded so far is committed."""
    ends_s = time.monotonic() + deadline_s
    while lane.statistics()["acked"] < lane.statistics()["records"] and time.monotonic() < ends_s:
        time.sleep(0.01)


def measure(bursts: int) -> dict[str, list[float]]:
    """All figures, burst by burst."""
    import numpy as np

    found: dict[str, list[float]] = {"empty": [], "tuple": [], "step": [], "observation": [], "single": []}
    observation = np.zeros(4, np.float32)
    with tempfile.TemporaryDirectory(prefix="rl-bench-") as directory:
        settings = load(environment={}, arguments=[f"data_dir={directory}/data"])
        graph = GraphProcess(["--set", f"data_dir={directory}/data", "--set", "log_level=WARNING"], settings)
        graph.start()
        try:
            with GraphClient(settings) as client:
                started = client.start_worker("bench", new_run_id(time.time_ns()), "bench")
            for kind in ("step", "observation"):
                info = StreamInfo(
                    stream=new_stream_id(), run=started.run, worker="bench", host="", pid=0, started_ns=time.time_ns()
                )
                lane = WorkerSession(info, started.endpoint, settings, {})
                for _ in range(bursts):
                    gc.collect()
                    settle(lane)
                    if kind == "step":
                        found["empty"].append(empty_loop(BURST))
                        found["tuple"].append(tuple_and_clock(BURST))
                    found[kind].append(step_calls(lane, BURST, observation if kind == "observation" else None))
                    if kind == "step":
                        settle(lane)
                        found["single"] += single_calls(lane, BURST)
                lane.close()
        finally:
            graph.stop()
    return found


def main() -> None:
    """Print the table and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursts", type=int, default=15)
    found = measure(parser.parse_args().bursts)
    base = statistics.median(found["tuple"])
    single = sorted(found["single"])
    p50, p99 = single[len(single) // 2], single[len(single) * 99 // 100]
    ratio = statistics.median(step / plain for step, plain in zip(found["step"], found["tuple"], strict=True))
    print(f"{'per step, µs':<34}{'median':>9}{'min':>9}{'max':>9}{'ratio':>8}")
    for title, key in (
        ("empty loop", "empty"),
        ("build tuple and read clock", "tuple"),
        ("step(action, reward, …)", "step"),
        ("step(…, observation=4 floats)", "observation"),
    ):
        values = found[key]
        middle = statistics.median(values)
        print(f"{title:<34}{middle:>9.3f}{min(values):>9.3f}{max(values):>9.3f}{middle / base:>8.2f}")
    print(f"single calls: p50 {p50:.3f} µs, p99 {p99:.3f} µs, p99/p50 {p99 / p50:.1f}, of {len(single):,}")
    print(f"machine: {Path('/proc/loadavg').read_text().split()[0]} load")
    print(json.dumps({"caller_ratio": round(ratio, 3), "caller_p50_us": round(p50, 3), "caller_p99_us": round(p99, 3)}))


if __name__ == "__main__":
    main()
