"""A worker that is a game engine: Godot 3, with nothing of Python inside. Its own task: a way through an arena.

    python -m runlane.workers.godot --episodes 300
    python -m runlane.workers.godot --project my_game/

The engine prints a JSON line for each step, and writes pictures into its ring while somebody watches. A project of
yours does the same: see docs/how-to/attach-an-engine.md. Without a display it gets a virtual one, which needs Xvfb.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from runlane.config.errors import GraphError, RunlaneError
from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.transport.records import RunState
from runlane.workers.attachment import Session, attach
from runlane.workers.engine_program import EngineProgram
from runlane.workers.number_option import count, positive, seed
from runlane.workers.virtual_display import virtual_display

ENGINES = ("godot3-runner", "godot3", "godot")
TASK_FILES = ("godot_task.gd", "godot_task.tscn", "godot_ring.gd")
PROJECT_FILE = "project.godot"
STOPPED = (130, 143)
NO_STEP = "the engine has ended without a step; give a project whose main scene prints JSON lines, or look at --engine"


def find_engine(wanted: str) -> str:
    """The engine's program. Raises `GraphError` saying where to get one."""
    for name in (wanted,) if wanted else ENGINES:
        found = shutil.which(name)
        if found is not None:
            return found
    looked_for = wanted or ", ".join(ENGINES)
    raise GraphError(f"no Godot 3 was found ({looked_for}): apt-get install godot3-runner, or give --engine PATH")


def lay_out(directory: Path) -> Path:
    """The project of our own task, in a place where Godot may write."""
    project = directory / "project"
    project.mkdir()
    here = Path(__file__).parent
    for name in TASK_FILES:
        shutil.copyfile(here / name, project / name)
    shutil.copyfile(here / "godot_task.godot", project / PROJECT_FILE)
    return project


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m runlane.workers.godot", description="Run a task in Godot 3.")
    add = parser.add_argument
    add("--project", type=Path, help=f"folder of a project, with its {PROJECT_FILE}; default: our own arena")
    add("--engine", default="", help=f"the engine's program; default: the first there is of {', '.join(ENGINES)}")
    add("--steps", type=count, default=0, help="steps, at most; 0: as many as the episodes take")
    add("--episodes", type=positive, default=2_000)
    add("--rate", type=count, default=0, help="steps per second, at most; 0: as many as can be")
    add("--seed", type=seed, default=0)
    add("--output", type=Path, help="a file to keep what the engine prints")
    add("--checked", action="store_true", help="a check in every frame, as on a processor that needs it")
    options = parser.parse_args(argv)
    if options.project is not None and not (options.project / PROJECT_FILE).is_file():
        parser.error(
            f"argument --project: {options.project} has no {PROJECT_FILE}; give the folder of a Godot 3 project"
        )
    return options


@contextlib.contextmanager
def display(directory: Path) -> Generator[dict[str, str]]:
    """The display there is, or a virtual one."""
    if os.environ.get("DISPLAY"):
        yield {}
        return
    with virtual_display(directory) as variables:
        yield variables


def run(options: argparse.Namespace, engine: str, settings: Settings, session: Session, directory: Path) -> int:
    """Run the engine and record it; returns its exit code."""
    project = options.project.absolute() if options.project is not None else lay_out(directory)
    told = {name: getattr(options, name) for name in ("steps", "episodes", "rate", "seed", "checked")}
    command = [engine, "--path", str(project), "--audio-driver", "Dummy"]
    command += [f"--{name}={int(value)}" for name, value in told.items()]
    homes = {name: str(directory) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    is_plain = os.environ.get("LANG", "").partition(".")[0] in ("", "C", "POSIX")
    language = {"LANG": "en_US.UTF-8"} if is_plain else {}  # Godot knows no locale C, and complains
    with display(directory) as variables:
        program = EngineProgram(
            command, {**homes, **language, **variables}, options.output or directory / "output.jsonl"
        )
        code = program.run(session, settings)
    if not code and not program.steps:
        sys.stderr.write(f"runlane: {NO_STEP}\n")
        session.log(NO_STEP, "warning")
    return code


def state_of(code: int) -> RunState:
    """What became of the engine, by its exit code: Godot itself ends with 255 where it has no display."""
    if code in STOPPED:
        return "stopped"
    return "finished" if not code else "killed" if 128 < code <= 128 + signal.SIGRTMAX else "failed"


def main(argv: list[str] | None = None) -> int:
    """Run the engine under a session, and return its exit code."""
    options = parse(argv)
    try:
        engine, settings = find_engine(options.engine), load()
    except RunlaneError as error:
        sys.stderr.write(f"runlane: {error}\n")
        return 2
    config = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    session = attach(name="godot", worker="godot", config=config, settings=settings)
    with tempfile.TemporaryDirectory(prefix="runlane-godot-") as directory:
        try:
            code = run(options, engine, settings, session, Path(directory))
        except (RunlaneError, OSError) as error:
            sys.stderr.write(f"runlane: {error}\n")
            session.log(str(error), "error")
            code = 2
    if code:
        session.log(f"the engine ended with code {code}", "error" if code not in STOPPED else "warning")
    session.close(state_of(code))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
