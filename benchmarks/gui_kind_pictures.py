"""A picture of the GUI with each kind of worker: every kind whose environment is here, in a real graph, one at a time.

KIND_VENVS=PATH python benchmarks/gui_kind_pictures.py docs/images

A kind's command is the launch form's own. What is missing is said, with its remedy, and passed over.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.gui.interpreter_probe import need_of, parse_answer, probe_command, program_need
from runlane.gui.launch_plan import Launch, LaunchPlan, clean_environment, launches_of
from runlane.gui.worker_option import OptionValue
from runlane.gui.worker_type import WorkerType, worker_type_named
from runlane.launch import GraphProcess
from runlane.transport.endpoint import database_of

ROOT = Path(__file__).parents[1]
VENVS = Path(os.environ.get("KIND_VENVS", str(ROOT / ".venvs"))).absolute()
WIDTH, HEIGHT = 1480, 920
WARM_UP_S = 20.0
FIRST_STEP_S = 90.0  # an import of torch on a busy machine, an engine's start
STOP_S = 30.0
PROBE_S = 30.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A kind of the launch form, and what is asked of it so that it goes on while its picture is taken."""

    key: str
    options: dict[str, OptionValue]


def shown_kinds(script: str) -> list[Shown]:
    """`script` is what the CleanRL worker runs."""
    return [
        Shown("cartpole", {"steps": 10_000_000.0, "target": 600.0}),
        Shown("cleanrl", {"script": script, "arguments": "--total-timesteps 10000000"}),
        Shown("sb3", {"steps": 10_000_000.0, "envs": 4.0}),
        Shown("spade", {"episodes": 100_000.0}),
        Shown("coach", {"preset": "CartPole_DQN"}),
        Shown("godot", {"episodes": 1_000_000.0, "rate": 120.0}),
        Shown("vizdoom", {"episodes": 1_000_000.0}),
    ]


def python_of(kind: WorkerType) -> str:
    """The interpreter that `.ci/kind` made for a kind; ours, where it made none."""
    own = VENVS / kind.key / "bin/python"
    return str(own) if own.is_file() else "" if kind.python_flag else sys.executable


def missing_of(kind: WorkerType, python: str, options: dict[str, OptionValue]) -> str:
    """Why a kind has no picture here, with the remedy; empty when it can have one."""
    need = program_need(kind, options)
    if need.is_met and kind.packages:
        if not python:
            return f"no interpreter; make one with `.ci/kind {kind.key}`"
        asked = subprocess.run(
            probe_command(python, kind), capture_output=True, text=True, timeout=PROBE_S, check=False, env=variables()
        )
        need = need_of(kind, parse_answer(python, asked.stdout))
    return "" if need.is_met else f"{need.reason}; {need.remedy or f'.ci/kind {kind.key}'}"


def variables() -> dict[str, str]:
    """Every interpreter finds this tree, whichever one its environment was made for."""
    return {**clean_environment(), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


class Camera:
    """The real window on the graph, offscreen."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        """Shown at once."""
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        from runlane.gui.app import Application, quiet_qt
        from runlane.window import Store

        quiet_qt()
        self.application: Application = Application(settings, Store(database_of(settings)), scratch / "window.ini")
        self.window = self.application.window
        self.application.controller.start("")
        self.application.theme.choose("dark")
        self.window.resize(WIDTH, HEIGHT)
        self.window.show()

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let the window work; whether `until` came true."""
        from PySide6.QtWidgets import QApplication

        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not until():
            QApplication.processEvents()
            time.sleep(0.002)
        return until()

    def has_steps(self, name: str) -> bool:
        """Whether a run of this name has steps; it is selected as soon as it is there."""
        controller = self.application.controller
        run = controller.runs.find(name)
        entry = controller.runs.entry(run)
        if entry is not None and controller.selected != run:
            controller.select(run)
        return entry is not None and entry.steps > 0

    def save(self, path: Path) -> None:
        """One picture."""
        self.window.grab().save(str(path))
        print(path)


def take_picture(camera: Camera, launch: Launch, path: Path, warm_up_s: float, log: Path) -> bool:
    """Start a worker, wait for its steps, let it play, take the picture, stop it; whether there is one."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables(), cwd=ROOT
        )
    try:
        camera.window.open_page("live")

        def is_decided() -> bool:
            return camera.has_steps(launch.name) or process.poll() is not None

        camera.wait(FIRST_STEP_S, is_decided)
        if not camera.has_steps(launch.name):
            code = "no steps" if process.poll() is None else f"exit code {process.returncode}"
            print(f"{launch.name}: {code}\n{log.read_text('utf-8', 'replace')[-600:]}", file=sys.stderr)
            return False
        camera.wait(warm_up_s)
        camera.save(path)
        return True
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        camera.wait(3.0)


def picture_of(shown: Shown, directory: Path, warm_up_s: float) -> bool:
    """One kind, with a graph and a window of its own; False when it has all it needs and gave no picture."""
    kind = worker_type_named(shown.key)
    if kind is None:
        raise SystemExit(f"{shown.key} is no kind of the launch form")
    python = python_of(kind)
    missing = missing_of(kind, python, shown.options)
    if missing:
        print(f"NO PICTURE of {kind.label}: {missing}", file=sys.stderr)
        return True
    with tempfile.TemporaryDirectory(prefix="runlane-pictures-") as data_dir:
        settings = load(arguments=[f"data_dir={data_dir}"])
        graph = GraphProcess(["--set", f"data_dir={data_dir}"], settings)
        graph.start()
        camera: Camera | None = None
        try:
            plan = LaunchPlan(name=f"{kind.key}-s1", worker_type=kind.key, options=shown.options, python=python)
            (launch,) = launches_of(plan, settings)
            camera = Camera(settings, Path(data_dir))
            path = directory / f"gui-kind-{kind.key}-dark.png"
            return take_picture(camera, launch, path, warm_up_s, Path(data_dir) / f"{kind.key}.log")
        finally:
            if camera is not None:
                camera.window.close()
            graph.stop()


def main() -> int:
    """Take what can be taken; exit code 1 when a kind that has all it needs gave none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kind", help="only this one")
    parser.add_argument("--script", default=str(ROOT / "tests/cleanrl/ppo_manner.py"), help="for CleanRL")
    parser.add_argument("--warm-up", type=float, default=WARM_UP_S, help="seconds each plays before its picture")
    chosen = parser.parse_args()
    chosen.directory.mkdir(parents=True, exist_ok=True)
    kinds = shown_kinds(chosen.script)
    if chosen.kind:
        (shown,) = [shown for shown in kinds if shown.key == chosen.kind] or [Shown(chosen.kind, {})]
        return 0 if picture_of(shown, chosen.directory, chosen.warm_up) else 1
    # A process has one application, and each kind is to be alone in its window.
    again = [sys.executable, str(Path(__file__)), str(chosen.directory), "--script", chosen.script]
    again += ["--warm-up", f"{chosen.warm_up:g}"]
    environment = {**os.environ, "KIND_VENVS": str(VENVS)}
    codes = [subprocess.run([*again, "--kind", shown.key], env=environment, check=False).returncode for shown in kinds]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
