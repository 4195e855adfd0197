"""The worker kind `coach`: Intel's Coach under an interpreter of its own, recorded by way of JSON lines.

    runlane run --worker coach -- python -m runlane.workers.coach --preset CartPole_DQN --python PATH/TO/python3.6

Coach (rl-coach 1.0.1) runs on Python 3.6 with TensorFlow 1.13 only, which cannot import runlane. So this process
starts it with `coach_shim.py` and stays its launcher: what the shim writes is read by a bridge. `.ci/kind coach` makes
an environment that has it; COACH_PYTHON names its interpreter once for all.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runlane.config import names
from runlane.config.errors import GraphError, RunlaneError
from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.transport.endpoint import run_dir_of
from runlane.transport.graph_client import GraphClient
from runlane.transport.identity import new_run_id
from runlane.workers.foreign_program import run_foreign
from runlane.workers.number_option import positive, seed
from runlane.workers.virtual_display import virtual_display

WORKER = "coach"
SHIM = Path(__file__).with_name("coach_shim.py")
DESCRIPTOR = 3
ENV_PYTHON = "COACH_PYTHON"
REMEDY = f"give --python, or {ENV_PYTHON}, an interpreter with rl-coach==1.0.1; `.ci/kind coach` makes one"


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and what is Coach's."""
    parser = argparse.ArgumentParser(
        prog="python -m runlane.workers.coach", description="Train a preset of Coach.", allow_abbrev=False
    )
    parser.add_argument("--preset", default="CartPole_DQN", help="preset of Coach, or a path to one")
    parser.add_argument("--level", help="level of a preset that has several, as `breakout`")
    parser.add_argument("--seed", type=seed)
    parser.add_argument("--steps", type=positive, help="environment steps to train, at most")
    parser.add_argument("--python", default=os.environ.get(ENV_PYTHON, "python3.6"), help="interpreter with rl-coach")
    parser.add_argument("--experiments", default=".runlane/coach", help="directory for what Coach itself writes")
    return parser.parse_known_args(argv)


def coach_arguments(chosen: argparse.Namespace, more: list[str]) -> list[str]:
    """The command line of Coach."""
    found = ["--preset", chosen.preset, "--experiment_name", "runlane", "--experiment_path", chosen.experiments, "-ns"]
    if chosen.level:
        found += ["--level", chosen.level]
    if chosen.seed is not None:
        found += ["--seed", str(chosen.seed)]
    if chosen.steps is not None:
        found += ["-cp", f"improve_steps=EnvironmentSteps({chosen.steps})"]
    return [*found, *more]


def find_problem(python: str) -> str:
    """Why this interpreter cannot run Coach; empty when it can."""
    try:
        done = subprocess.run(
            [python, "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('rl_coach') is None)"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python}: {error}"
    return f"{python} has no package rl_coach" if done.returncode else ""


def environment_of(settings: Settings) -> dict[str, str]:
    """Whose worker Coach is: as `runlane run` says, else of a new run in the graph that is running."""
    found = dict(os.environ)
    if not (found.get(names.ENV_PROXY) and found.get(names.ENV_RUN)):
        with GraphClient(settings) as client:
            started = client.start_worker(WORKER, new_run_id(time.time_ns()), WORKER)
        found |= {
            names.ENV_PROXY: started.endpoint,
            names.ENV_RUN: started.run,
            names.ENV_WORKER_NAME: started.worker,
        }
    found.setdefault(names.ENV_RUN_NAME, WORKER)
    found.setdefault(names.ENV_RUN_DIR, str(run_dir_of(settings)))
    return found


def _display(stack: contextlib.ExitStack) -> dict[str, str]:
    """Variables of a display: gym's old renderer draws on none other. Without one Coach trains, and shows nothing."""
    if os.environ.get("DISPLAY"):
        return {}
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rl-coach-")))
    try:
        return stack.enter_context(virtual_display(directory))
    except GraphError as error:
        sys.stderr.write(f"runlane: Coach is not shown: {error}\n")
        return {}


def main(argv: list[str] | None = None) -> int:
    """Train; returns Coach's exit code."""
    chosen, more = parse(argv)
    problem = find_problem(chosen.python)
    if problem:
        sys.stderr.write(f"runlane: {problem}; {REMEDY}\n")
        return 2
    command = [chosen.python, str(SHIM), str(DESCRIPTOR), *coach_arguments(chosen, more)]
    try:
        settings = load()
        environment = environment_of(settings)
        is_resumed = environment.get(names.ENV_RESUMED) == "1"
        for_coach = {"OMP_NUM_THREADS": "1", **environment, "PYTHONUNBUFFERED": "1"}
        for_coach.pop("PYTHONPATH", None)  # of this interpreter: nothing there is for Coach's
        with contextlib.ExitStack() as display:
            for_coach |= _display(display)
            return run_foreign(
                f"fd:{DESCRIPTOR}", command, environment, settings, is_resumed=is_resumed, for_program=for_coach
            )
    except (RunlaneError, OSError) as error:
        sys.stderr.write(f"runlane: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
