"""What watching costs the training: steps per second with a viewer at 30 frames a second, and without one.

The whole graph runs and records; the viewer is a process of its own that takes each frame. Spells with and without it
alternate, each compared with those beside it. Unwatched spells are checked to render nothing.
"""

import argparse
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
from graph_rig import RunningGraph, running_graph, settle
from measuring import Machine, print_table

from runlane.transport.endpoint import run_dir_of
from runlane.workers.wrapper import wrap

RATE_HZ = 30.0
VIEWER = """
import sys, time
from pathlib import Path
from runlane.transport.lane_follower import LaneFollower
follower = LaneFollower(Path(sys.argv[1]), rate_hz=float(sys.argv[2]))
while True:
    follower.poll(time.monotonic_ns())
    follower.read()
    time.sleep(0.004)
"""


class Counted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Counts what is rendered."""

    renders = 0

    def render(self) -> Any:
        """One more."""
        self.renders += 1
        return super().render()


def _cartpole() -> Any:
    return gymnasium.make("CartPole-v1", render_mode="rgb_array")


def _minigrid() -> Any:
    importlib.import_module("minigrid")
    return gymnasium.make("MiniGrid-Empty-8x8-v0", render_mode="rgb_array", max_steps=100)


ENVIRONMENTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "CartPole-v1": ("pygame", _cartpole),
    "MiniGrid-Empty-8x8-v0": ("minigrid", _minigrid),
}


def spell(env: Any, seconds: float) -> tuple[float, float]:
    """Steps per second over so long, and frames rendered per second."""
    counted: Counted = env.env
    before, steps = counted.renders, 0
    started_s = time.perf_counter()
    while (passed_s := time.perf_counter() - started_s) < seconds:
        for _ in range(20):
            *_, terminated, truncated, _ = env.step(steps % 2)
            steps += 1
            if terminated or truncated:
                env.reset()
    return steps / passed_s, (counted.renders - before) / passed_s


def measure(graph: RunningGraph, make: Callable[[], Any], pairs: int, seconds: float) -> dict[str, float]:
    """Medians of the rates, and of the ratio of a watched spell to those before and after it."""
    session = graph.open_session()
    env = wrap(Counted(make()), session=session)
    env.reset(seed=1)
    spell(env, seconds)
    unwatched = [_unwatched(env, seconds)]
    watched: list[float] = []
    frames: list[float] = []
    for _ in range(pairs):
        viewer = subprocess.Popen([sys.executable, "-c", VIEWER, str(run_dir_of(graph.settings)), str(RATE_HZ)])
        while not spell(env, 0.1)[1]:
            pass
        rate, rendered = spell(env, seconds)
        viewer.kill()
        viewer.wait()
        watched.append(rate)
        frames.append(rendered)
        while spell(env, 0.1)[1]:
            pass
        settle(session)
        unwatched.append(_unwatched(env, seconds))
    session.close()
    beside = [(before + after) / 2 for before, after in itertools.pairwise(unwatched)]
    return {
        "unwatched": statistics.median(unwatched),
        "watched": statistics.median(watched),
        "frames": statistics.median(frames),
        "ratio": statistics.median(rate / pair for rate, pair in zip(watched, beside, strict=True)),
    }


def _unwatched(env: Any, seconds: float) -> float:
    rate, rendered = spell(env, seconds)
    if rendered:
        sys.exit(f"{rendered} frames a second were rendered though nobody watches")
    return rate


def main() -> None:
    """Measure, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each spell")
    options = parser.parse_args()
    machine = Machine()
    figures: dict[str, float] = {}
    rows: list[list[str]] = []
    for name, (module, make) in ENVIRONMENTS.items():
        if importlib.util.find_spec(module) is None:
            rows.append([name, f"not installed: {module}", "", "", ""])
            continue
        with running_graph() as graph:
            found = measure(graph, make, options.pairs, options.seconds)
        rows.append(
            [name, *(f"{found[key]:,.0f}" for key in ("unwatched", "watched", "frames")), f"{found['ratio']:.3f}"]
        )
        figures[f"watched_ratio_{name.partition('-')[0].lower()}"] = round(found["ratio"], 3)
    print_table(["environment", "steps/s unwatched", "watched", "frames/s", "ratio"], rows)
    print(machine.line())
    print(json.dumps({**figures, **machine.figures()}))


if __name__ == "__main__":
    main()
