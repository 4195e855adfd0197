"""What one recorded step costs the training loop, beside the least a recorder could do: a tuple and the clock.

The whole graph runs meanwhile, journal included. Steps come in bursts, and the next burst waits until everything
is committed, so the figure is the cost of the call and not the speed of the database. In the same table: what else
people record with, each in a process of its own, each burst between two bursts of the reference.

Bars: `step()` at most 8 times the reference (aim 5), its p99 at most 10 times its median. No verdict where other
programs keep the cores busy. `--strict` makes anything but bars that are met exit code 1.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from caller_cases import CASES, NOT_INSTALLED
from measuring import CLOCKS, Machine, Series, percentile, print_table, verdict

HERE = Path(__file__).parent
BAR_RATIO, AIM_RATIO, BAR_TAIL = 8.0, 5.0, 10.0
TITLES = {
    "reference": "build tuple and read clock",
    "step": "runlane: step(action, reward, …)",
    "observation": "runlane: step(…, observation=4 float32)",
    "env": "CartPole-v1: env.step",
    "empty_wrapper": "CartPole-v1, empty wrapper",
    "wrap": "CartPole-v1, runlane wrap(env)",
    "json_line": "JSON line, flushed each step",
    "zmq_message": "ZeroMQ message each step, msgpack",
    "tensorboard": "tensorboardX add_scalar each step",
    "wandb": "wandb.log each step, offline",
}


def run_case(name: str, bursts: int, clock: str) -> dict[str, Series]:
    """A case in its own process; an empty answer when its package is not installed."""
    command = [sys.executable, str(HERE / "caller_cases.py"), name, str(bursts), clock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"case {name} failed:\n{done.stderr[-8000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {key: Series(*lists) for key, lists in answer.get("series", {}).items()}


def table_row(key: str, series: Series | None) -> list[str]:
    """One line of the table."""
    if series is None:
        return [TITLES[key], NOT_INSTALLED, *[""] * 6]
    row = [TITLES[key], f"{series.median:.3f}", f"{min(series.measured):.3f}", f"{max(series.measured):.3f}"]
    row.append(f"{series.ratio:.2f}")
    if not series.singles:
        return [*row, "", "", ""]
    p50, p99 = percentile(series.singles, 50), percentile(series.singles, 99)
    return [*row, f"{p50:.3f}", f"{p99:.3f}", f"{p99 / p50:.1f}"]


def figures_of(found: dict[str, Series | None], *, is_quiet: bool) -> dict[str, float | bool | None]:
    """The closing line. What is not installed is null."""
    step = found["step"]
    assert step is not None
    p50, p99 = percentile(step.singles, 50), percentile(step.singles, 99)
    figures: dict[str, float | bool | None] = {
        "caller_ratio": round(step.ratio, 3),
        "caller_p50_us": round(p50, 3),
        "caller_p99_us": round(p99, 3),
        "caller_p99_over_p50": round(p99 / p50, 2),
        "caller_is_within_bars": (step.ratio <= BAR_RATIO and p99 <= BAR_TAIL * p50) if is_quiet else None,
    }
    for key, series in found.items():
        figures[f"{key}_us"] = None if series is None else round(series.median, 3)
        if key not in ("reference", "step"):
            figures[f"{key}_ratio"] = None if series is None else round(series.ratio, 2)
    env = found["env"]
    for key in ("empty_wrapper", "wrap"):
        series = found[key]
        added = None if series is None or env is None else _added(series, env)
        figures[f"{key}_added_us"] = None if added is None else round(added, 3)
    return figures


def _added(series: Series, env: Series) -> float:
    """What a wrapper adds to `env.step`, burst by burst of the same round."""
    return statistics.median(with_it - bare for with_it, bare in zip(series.measured, env.measured, strict=True))


def main() -> None:
    """Print the table, the bars, and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursts", type=int, default=15)
    parser.add_argument("--only", choices=list(CASES), help="one case beside runlane's own")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="what bursts are timed by")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when a bar is missed")
    chosen = parser.parse_args()
    machine = Machine()
    found: dict[str, Series | None] = dict.fromkeys(TITLES)
    for name in CASES:
        if chosen.only in (None, name) or name == "runlane":
            answer = run_case(name, chosen.bursts, chosen.clock)
            reference = found["reference"]
            if reference is not None and "reference" in answer:
                answer["reference"].measured += reference.measured
            found |= answer
    headings = [f"per step, µs ({chosen.clock})", "median", "min", "max", "of reference", "p50", "p99", "p99/p50"]
    print_table(headings, [table_row(key, series) for key, series in found.items()])
    figures = figures_of(found, is_quiet=machine.is_quiet)
    for key, words in (("empty_wrapper", "an empty wrapper"), ("wrap", "wrap(env)")):
        if figures[f"{key}_added_us"] is not None:
            print(f"{words} adds {figures[f'{key}_added_us']:.2f} µs to env.step")
    print(f"bars: ratio {figures['caller_ratio']} of at most {BAR_RATIO:g} (aim {AIM_RATIO:g}),", end=" ")
    is_met = figures["caller_is_within_bars"]
    words = verdict(None if is_met is None else bool(is_met))
    print(f"p99/p50 {figures['caller_p99_over_p50']} of at most {BAR_TAIL:g}: {words}")
    print(machine.line())
    print(json.dumps({**figures, "clock": chosen.clock, **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
