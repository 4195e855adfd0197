"""What the benchmarks share: bursts in turn with a reference, percentiles, tables, and a line about the machine.

Speed of a shared machine drifts within seconds. So nothing is compared with a figure from another minute: every
burst stands between two bursts of its reference, and what counts is the median of those ratios.
"""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Burst = Callable[[int], float]  # makes so many steps, returns microseconds per step
# What a burst is timed by: the wall, which a training loop feels, or the CPU time of its own thread, which other
# programs of a busy machine do not lengthen, and which leaves out every wait.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}


@dataclass(slots=True)
class Series:
    """Bursts of one thing, in microseconds per step, and of the reference around each."""

    measured: list[float] = field(default_factory=list[float])
    ratios: list[float] = field(default_factory=list[float])
    singles: list[float] = field(default_factory=list[float])

    @property
    def median(self) -> float:
        """Median over bursts."""
        return statistics.median(self.measured)

    @property
    def ratio(self) -> float:
        """Median of the ratios to the reference beside each burst."""
        return statistics.median(self.ratios)


MAX_OTHERS_CORES = 0.2
NO_VERDICT = "no verdict beside so much other work"


def verdict(is_met: bool | None) -> str:
    """Of a bar; None where the machine was not quiet."""
    return NO_VERDICT if is_met is None else "met" if is_met else "missed"


def timed(loop: Callable[[int], object], clock: str) -> Burst:
    """A burst of a loop that makes so many steps."""
    now_s = CLOCKS[clock]

    def burst(steps: int) -> float:
        started_s = now_s()
        loop(steps)
        return (now_s() - started_s) / steps * 1e6

    return burst


def tuple_and_clock(steps: int) -> None:
    """Build a record's tuple and read the clock, so many times: the least any recorder does."""
    clock = time.time_ns
    for number in range(steps):
        _ = (number, clock(), 1, number, 0, 0, 1.0, number & 1)


def interleave(
    cases: dict[str, Burst],
    bursts: int,
    steps: int,
    settle: Callable[[], object],
    reference: Burst,
    reference_steps: int = 100_000,  # long enough to be interrupted as often as what it stands beside
) -> dict[str, Series]:
    """Run every case in turn, `bursts` times, each between two bursts of the reference; `settle` comes before each.

    The reference itself is the entry `reference`. One round of all comes first and is not counted.
    """
    found: dict[str, Series] = {"reference": Series(), **{name: Series() for name in cases}}
    for number in range(bursts + 1):
        for name, burst in cases.items():
            settle()
            gc.collect()
            before = reference(reference_steps)
            measured = burst(steps)
            settle()
            after = reference(reference_steps)
            if number:
                found[name].measured.append(measured)
                found[name].ratios.append(2 * measured / (before + after))
                found["reference"].measured += [before, after]
                found["reference"].ratios.append(1.0)
    return found


def single_calls(call: Callable[[int], object], steps: int) -> list[float]:
    """Microseconds of each call, the clock's own cost subtracted."""
    clock = time.perf_counter_ns
    own = statistics.median(-clock() + clock() for _ in range(1_000))
    marks = [0] * steps
    for number in range(steps):
        before = clock()
        call(number)
        marks[number] = clock() - before
    return [max(0.0, mark - own) / 1_000 for mark in marks]


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """First column to the left, the others to the right, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        first, *others = (cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))  # noqa: B905  equal by the line above
        print("  ".join((first, *others)).rstrip(), flush=True)


class Machine:
    """Where and beside what a benchmark ran: made at its start, told at its end, when its processes have ended."""

    def __init__(self) -> None:
        self._load_before = os.getloadavg()[0]
        self._started_s = time.monotonic()
        self._busy_s, self._own_s = _busy_s(), _own_s()

    @property
    def others_cores(self) -> float:
        """Cores that other programs kept busy meanwhile; 0 on a machine of one's own."""
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return max(0.0, others_s / (time.monotonic() - self._started_s))

    @property
    def is_quiet(self) -> bool:
        """Whether a verdict on a bar means anything."""
        return self.others_cores <= MAX_OTHERS_CORES

    def figures(self) -> dict[str, float]:
        """Load average over a minute, before and now, the second with the benchmark's own; and `others_cores`."""
        return {
            "load_before": round(self._load_before, 2),
            "load_after": round(os.getloadavg()[0], 2),
            "others_cores": round(self.others_cores, 2),
        }

    def line(self) -> str:
        """One line for people."""
        figures = self.figures()
        return (
            f"machine: {os.cpu_count()} cores, {_processor()}, Linux {platform.release()}, "
            f"Python {platform.python_version()}; load {figures['load_before']} before, {figures['load_after']} after, "
            f"{figures['others_cores']} cores busy with other programs; "
            f"{time.monotonic() - self._started_s:.0f} s; {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
        )


def _busy_s() -> float:
    """CPU seconds of the whole machine since it started, those a host took from it included."""
    user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """CPU seconds of this process, and of its children and theirs that have ended and were waited for."""
    return sum(os.times()[:4])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
