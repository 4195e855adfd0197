"""How quick the window is: age and rate of the pictures of its live wall, and how its event loop bears many records.

Every case runs in a process of its own, offscreen and, where Xvfb is installed, on a display of Xvfb's: first those of
`gui_wall_cases.py`, then those of `gui_telemetry_cases.py`.

Bars, offscreen: a wall of 3 by 3 at 57 frames a second on each lane (60 are published) for under 45 % of a core; at
640x480 99 of 100 frames no older than 16.7 ms when they are painted; at 100,000 records a second 99 of 100 ticks of the
event loop no later than 15 ms. `--strict` makes anything but bars that are met exit code 1.
"""

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from measuring import Machine, print_table, verdict

WALL, TELEMETRY = "gui_wall_cases", "gui_telemetry_cases"
OFFSCREEN, XVFB = "offscreen", "xvfb"
QUICK_S, FULL_S = 2.0, 6.0
CASE_S = 180.0
SMALL_WALL, FRAMES, FLOOD = "wall 3x3 of 160x210", "640x480", 100_000
WALL_FPS, WALL_CPU, FRAME_AGE_MS, STALL_MS = 57.0, 0.45, 16.7, 15.0
NOT_INSTALLED = "not installed"

Figures = dict[str, Any]

WALL_ROW = ("wall", "on", "fps a lane", "published", "age p50 ms", "age p99 ms", "% of a core", "skipped")
FLOOD_ROW = ("records a second", "on", "taken", "stall p50 ms", "stall p99 ms", "longest ms", "% of a core")


def run_case(module: str, name: str, seconds: float) -> None:
    """One case in this process: prints its figures as JSON."""
    found: Any = importlib.import_module(module)
    if module == WALL:
        (case,) = [case for case in found.CASES if case.name == name]
        print(json.dumps(asdict(found.measure(case, seconds))))
    else:
        print(json.dumps(asdict(found.flood(int(name.replace(",", "")), seconds))))


def measured(module: str, name: str, platform: str, seconds: float) -> Figures:
    """Figures of one case, measured in a process of its own; its words where it fails, under `problem`."""
    command = [sys.executable, __file__, "--case", module, name, "--seconds", str(seconds)]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen" if platform == OFFSCREEN else "xcb"}
    if platform == XVFB:
        command = ["xvfb-run", "-a", "-s", "-screen 0 1920x1200x24", *command]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=CASE_S, check=False)
    except subprocess.TimeoutExpired:
        return {"problem": f"not within {CASE_S:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = (done.stderr or done.stdout).strip().splitlines()
        return {"problem": words[-1] if words else f"exit code {done.returncode}"}
    found: Figures = json.loads(lines[-1])
    return found


def case_names(module: str) -> list[str]:
    """Names of the cases, in order."""
    found: Any = importlib.import_module(module)
    return [case.name for case in found.CASES] if module == WALL else [f"{rate:,}" for rate in found.RATES]


def table(rows: Sequence[tuple[str, ...]], headings: tuple[str, ...]) -> None:
    """Print one, where there is something to print."""
    if rows:
        print_table(list(headings), [list(row) for row in rows])
        print()


def wall_row(name: str, platform: str, found: Figures) -> tuple[str, ...]:
    """One case of the wall as text."""
    if "problem" in found:
        return name, platform, found["problem"], "", "", "", "", ""
    return (
        name,
        platform,
        f"{found['fps']:.1f}",
        f"{found['published_fps']:.1f}",
        f"{found['age_p50_ms']:.1f}",
        f"{found['age_p99_ms']:.1f}",
        f"{100 * found['cpu_share']:.0f}",
        f"{found['skipped']}",
    )


def flood_row(name: str, platform: str, found: Figures) -> tuple[str, ...]:
    """One case of the telemetry as text."""
    if "problem" in found:
        return name, platform, found["problem"], "", "", "", ""
    return (
        name,
        platform,
        f"{found['received_per_s']:,.0f}",
        f"{found['late_p50_ms']:.1f}",
        f"{found['late_p99_ms']:.1f}",
        f"{found['late_max_ms']:.1f}",
        f"{100 * found['cpu_share']:.0f}",
    )


def closing(results: dict[tuple[str, str, str], Figures]) -> Figures:
    """The figures that bars are about, of the offscreen cases; None where one was not measured."""

    def of(module: str, name: str, key: str) -> float | None:
        value = results.get((module, name, OFFSCREEN), {}).get(key)
        return None if value is None else round(float(value), 3)

    return {
        "wall_fps": of(WALL, SMALL_WALL, "fps"),
        "wall_cpu": of(WALL, SMALL_WALL, "cpu_share"),
        "frame_age_p99_ms": of(WALL, FRAMES, "age_p99_ms"),
        "stall_p99_ms": of(TELEMETRY, f"{FLOOD:,}", "late_p99_ms"),
    }


def bars(found: Figures) -> list[tuple[str, bool]]:
    """Each bar, and whether its figure is within it; what was not measured is not."""
    limits = {"wall_cpu": WALL_CPU, "frame_age_p99_ms": FRAME_AGE_MS, "stall_p99_ms": STALL_MS}
    met = [(f"wall_fps >= {WALL_FPS:g}", (found["wall_fps"] or 0.0) >= WALL_FPS)]
    for key, limit in limits.items():
        value = found[key]
        met.append((f"{key} <= {limit:g}", value is not None and value <= limit))
    return met


def measure_all(platforms: Iterable[str], modules: Sequence[str], words: Sequence[str], seconds: float) -> Any:
    """Every case whose name holds one of the words, or every one: results by module, name and platform."""
    results: dict[tuple[str, str, str], Figures] = {}
    for module in modules:
        for name in case_names(module):
            if words and not any(word in name for word in words):
                continue
            for platform in platforms:
                results[module, name, platform] = measured(module, name, platform, seconds)
                print(f"{module} {name} {platform} done", file=sys.stderr, flush=True)
    return results


def main() -> int:
    """Measure, print tables, verdicts and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only cases whose names hold one of these")
    parser.add_argument("--quick", action="store_true", help="two seconds a case, offscreen only")
    parser.add_argument("--seconds", type=float, default=FULL_S, help="of each case, after it has settled")
    parser.add_argument("--strict", action="store_true", help="exit code 1 unless every bar is met")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS, metavar=("MODULE", "NAME"))
    chosen = parser.parse_args()
    if chosen.case:
        run_case(chosen.case[0], chosen.case[1], chosen.seconds)
        return 0
    if importlib.util.find_spec("PySide6") is None or importlib.util.find_spec("pyqtgraph") is None:
        print(f"PySide6 or pyqtgraph: {NOT_INSTALLED}")
        print(json.dumps(closing({})))
        return 0
    machine = Machine()
    has_xvfb = shutil.which("xvfb-run") is not None
    platforms = [OFFSCREEN] + [XVFB] * (has_xvfb and not chosen.quick)
    seconds = QUICK_S if chosen.quick else chosen.seconds
    results = measure_all(platforms, (WALL, TELEMETRY), chosen.words, seconds)
    for module, row, headings in ((WALL, wall_row, WALL_ROW), (TELEMETRY, flood_row, FLOOD_ROW)):
        table([row(name, on, found) for (of, name, on), found in results.items() if of == module], headings)
    if not has_xvfb:
        print(f"{XVFB}: {NOT_INSTALLED}\n")
    figures = closing(results)
    met = bars(figures)
    for bar, is_met in met:
        print(f"{bar}: {verdict(is_met if machine.is_quiet else None)}")
    print(machine.line())
    print(json.dumps({**figures, "xvfb": has_xvfb and not chosen.quick, **machine.figures()}))
    failed = [found for found in results.values() if "problem" in found]
    is_good = machine.is_quiet and all(is_met for _, is_met in met) and not failed
    return 1 if failed or (chosen.strict and not is_good) else 0


if __name__ == "__main__":
    sys.exit(main())
