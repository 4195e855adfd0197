"""What `runlane run` costs a training that nobody edited: PPO on CartPole in CleanRL's manner, with and without it.

The same script, seed and work each time, in pairs: bare and recorded, in turn this one first and that one.
`attach_ratio` is the median of the pairs' ratios of wall time, by the script's own clock around its loop. That clock
starts before the first `reset()`, so it holds the opening of the sessions; it does not hold the imports, nor the
joining of a graph that runs already, nor the wait for the last ack at exit. All of that is in the wall time of the
whole command, which stands beside it, and so does the CPU time of the script's process.

Beside it Stable-Baselines3's own PPO in its own settings, in four environments, as `sb3_ratio`: a step of it
takes twice as long as one of the script, whose loop is a lean one.

Then the same watched at 30 frames a second by a viewer in a process of its own; and the script logging the reward of
every step with something else, each run beside a bare one. Every recorded run is checked: as many steps stored as the
script counted, and the same rewards as without runlane. Bar: 1.03, unwatched.

Needs torch and Gymnasium in one environment: this one, or one that `.ci/kind bench` or `.ci/kind sb3` made.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graph_rig import RunningGraph, running_graph
from measuring import Machine, print_table, verdict

from runlane.actors.store_reader import query
from runlane.transport.endpoint import database_of, run_dir_of

HERE = Path(__file__).parent
SCRIPT = HERE / "attach_script.py"
SB3_SCRIPT = HERE / "attach_sb3_script.py"
BAR = 1.03
RATE_HZ = 30.0
RIVALS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "rerun": "rerun"}
TITLES = {
    "attach": "runlane run, unwatched",
    "sb3": "runlane run, Stable-Baselines3's PPO",
    "watched": f"runlane run, watched at {RATE_HZ:g} fps",
    "tensorboard": "TensorBoard add_scalar each step",
    "wandb": "wandb.log each step, offline",
    "rerun": "Rerun log each step, to a file",
}
# Prints how many frames it has had, when its input ends.
VIEWER = """
import select, sys, time
from pathlib import Path
from runlane.transport.lane_follower import LaneFollower
follower, frames = LaneFollower(Path(sys.argv[1]), rate_hz=float(sys.argv[2])), 0
while not select.select([sys.stdin], [], [], 0.004)[0]:
    follower.poll(time.monotonic_ns())
    frames += follower.read() is not None
print(frames)
"""
STORED = (
    "SELECT coalesce(sum(steps), 0) FROM streams WHERE run = (SELECT run FROM runs ORDER BY started_ns DESC LIMIT 1)"
)


@dataclass(slots=True)
class Ratios:
    """Of one way to run the script: to the bare run beside it, and what a viewer saw."""

    loop: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])
    whole: list[float] = field(default_factory=list[float])
    frames_hz: list[float] = field(default_factory=list[float])


class Trainings:
    """Runs the script, bare or otherwise, beside one graph that runs all the time."""

    def __init__(self, graph: RunningGraph, python: str, steps: int, script: Path = SCRIPT) -> None:
        self._graph = graph
        self._python = python
        self._script = str(script)
        self._arguments = ["--total-timesteps", str(steps)]
        self._total: dict[str, float] | None = None
        # Ours beside it, if it was installed from elsewhere; and one thread, where `runlane run` would see to that.
        self._environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": "1"}
        # Compiled once, as where anybody has installed us; or the first reset would wait for the compiler.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def bare(self, *options: str) -> dict[str, float]:
        """The script by itself."""
        return self._run([self._python, self._script, *self._arguments, *options])

    def recorded(self) -> dict[str, float]:
        """Below `runlane run`, joining the graph; ends the benchmark where a step is missing."""
        settings = self._graph.settings
        places = (f"data_dir={settings.data_dir}", f"transport.run_dir={run_dir_of(settings)}")
        sets = [part for place in places for part in ("--set", place)]
        ours = [sys.executable, "-m", "runlane", "run", *sets, "--"]
        found = self._run([*ours, self._python, self._script, *self._arguments])
        ((stored,),) = query(database_of(settings), STORED)[1]
        if stored != found["steps"]:
            sys.exit(f"not exact: {stored} steps stored, the script counted {found['steps']:.0f}")
        return found

    def watched(self) -> dict[str, float]:
        """As `recorded`, before a viewer; with the frames a second that it had over the loop."""
        command = [sys.executable, "-c", VIEWER, str(run_dir_of(self._graph.settings)), str(RATE_HZ)]
        viewer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            found = self.recorded()
            frames, _ = viewer.communicate("", timeout=20)
        finally:
            viewer.kill()
            viewer.wait()
        return {**found, "frames_hz": int(frames) / found["loop_s"]}

    def logged(self, name: str) -> dict[str, float]:
        """With something else that logs every step."""
        with tempfile.TemporaryDirectory(prefix="bench-attach-") as directory:
            return self.bare("--log", name, "--log-dir", directory)

    def _run(self, command: list[str]) -> dict[str, float]:
        started_s = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._environment, timeout=900
        )  # fmt: skip
        whole_s = time.perf_counter() - started_s
        if done.returncode:
            sys.exit(f"{command} failed ({done.returncode}):\n{done.stderr[-4000:]}")
        (line,) = [line for line in done.stdout.splitlines() if line.startswith('{"loop_s"')]
        found: dict[str, float] = json.loads(line)
        counted = {name: value for name, value in found.items() if not name.endswith("_s")}
        self._total = self._total or counted
        if counted != self._total:
            sys.exit(f"not the same training: {counted}, the first one {self._total}")
        return {**found, "whole_s": whole_s}


def pair(trainings: Trainings, name: str, into: Ratios, *, is_bare_first: bool) -> None:
    """One run in this way and a bare one beside it."""
    ways: dict[str, Any] = {"attach": trainings.recorded, "sb3": trainings.recorded, "watched": trainings.watched}
    run = ways.get(name) or (lambda: trainings.logged(name))
    if is_bare_first:
        bare, measured = trainings.bare(), run()
    else:
        measured, bare = run(), trainings.bare()
    into.loop.append(measured["loop_s"] / bare["loop_s"])
    into.cpu.append(measured["cpu_s"] / bare["cpu_s"])
    into.whole.append(measured["whole_s"] / bare["whole_s"])
    if "frames_hz" in measured:
        into.frames_hz.append(measured["frames_hz"])


def has(python: str, *modules: str) -> bool:
    """Whether an interpreter can import these."""
    done = subprocess.run([python, "-c", f"import {', '.join(modules)}"], capture_output=True, check=False)
    return done.returncode == 0


def interpreter(chosen: str | None, *modules: str) -> str | None:
    """The one to train with; None where there is none."""
    home = Path(os.environ.get("KIND_VENVS", str(HERE.parent / ".venvs"))).absolute()
    ways = [chosen] if chosen else [str(home / "bench/bin/python"), sys.executable, str(home / "sb3/bin/python")]
    for way in ways:
        with contextlib.suppress(OSError):
            if has(way, *modules):
                return way
    return None


@contextlib.contextmanager
def trainings(python: str, steps: int, script: Path) -> Generator[Trainings]:
    """With a graph of their own. A first run of each kind is made and not counted: caches are warm then."""
    with running_graph() as graph:
        found = Trainings(graph, python, steps, script)
        found.bare()
        found.recorded()
        yield found


def main() -> None:
    """Print the table, the bar, and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11, help="of the unwatched runs; the others have a third of it")
    parser.add_argument("--steps", type=int, default=20_480)
    parser.add_argument("--python", help="interpreter that has torch and Gymnasium")
    parser.add_argument("--only", choices=list(TITLES), action="append", help="these ways alone")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when the bar is missed")
    chosen = parser.parse_args()
    python = interpreter(chosen.python, "torch", "gymnasium")
    sb3_python = interpreter(chosen.python, "stable_baselines3")
    machine = Machine()
    if python is None:
        print("not installed: torch and Gymnasium in one environment; make one with `.ci/kind bench`")
        print(json.dumps({"attach_ratio": None, "attach_is_within_bar": None, **machine.figures()}))
        sys.exit(int(chosen.strict))
    wanted = [name for name in TITLES if name in (chosen.only or TITLES)]
    ours = [name for name in wanted if name != "sb3" and (name not in RIVALS or has(python, RIVALS[name]))]
    found: dict[str, Ratios] = {}
    for names, script, way in ((ours, SCRIPT, python), (["sb3"], SB3_SCRIPT, sb3_python)):
        if way is not None and set(names) & set(wanted):
            with trainings(way, chosen.steps, script) as running:
                for name in names:
                    into = found[name] = Ratios()
                    count = chosen.pairs if name in ("attach", "sb3") else max(1, chosen.pairs // 3)
                    for number in range(count):
                        pair(running, name, into, is_bare_first=number % 2 == 0)
    rows: list[list[str]] = []
    figures: dict[str, float | bool | None] = {}
    for name, title in TITLES.items():
        into = found.get(name)
        if into is None:
            figures[f"{name}_ratio"] = None
            rows.append([title, "not measured" if chosen.only else "not installed", *[""] * 5])
            continue
        loop = figures[f"{name}_ratio"] = round(statistics.median(into.loop), 3)
        cpu = figures[f"{name}_cpu_ratio"] = round(statistics.median(into.cpu), 3)
        whole = figures[f"{name}_whole_ratio"] = round(statistics.median(into.whole), 3)
        spread = (f"{min(into.loop):.3f}", f"{max(into.loop):.3f}")
        frames = f"{statistics.median(into.frames_hz):.0f}" if into.frames_hz else ""
        rows.append([title, f"{loop:.3f}", *spread, f"{cpu:.3f}", f"{whole:.3f}", frames])
    print_table(["of the bare script", "loop, wall", "min", "max", "loop, CPU", "whole, wall", "frames/s"], rows)
    ratio = figures["attach_ratio"]
    is_met = None if ratio is None else ratio <= BAR
    print(f"bar: attach_ratio {ratio} of at most {BAR:g}: {verdict(is_met if machine.is_quiet else None)}")
    print(machine.line())
    print(json.dumps({**figures, "attach_is_within_bar": is_met, **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
