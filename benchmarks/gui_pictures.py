"""The pictures of the GUI in the documentation: a real graph, real environments, every page, dark and light.

python benchmarks/gui_pictures.py docs/images
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.launch import GraphProcess
from runlane.transport.endpoint import database_of

WORKER = Path(__file__).with_name("picture_worker.py")
GAMES = {"breakout": 60, "lander": 120, "pong": 60, "fourrooms": 40, "doorkey": 400}
WIDTH, HEIGHT = 1480, 920
SMALL = (1280, 720)
LARGE = (3840, 2160)
WARM_UP_S = 45.0
LEARNERS = (1, 2)
LONG = ["--steps", "600000", "--target-return", "600"]  # longer than the pictures take


def start_workers(settings: Settings, options: list[str], stack: list["subprocess.Popen[bytes]"]) -> None:
    """Each as a user would: `runlane run`."""
    runlane = [sys.executable, "-m", "runlane", "run", *options]
    commands = [
        [
            *runlane,
            "--name",
            f"{game}-s1",
            "--worker",
            game,
            "--",
            sys.executable,
            str(WORKER),
            game,
            "--rate",
            str(rate),
        ]
        for game, rate in GAMES.items()
    ]
    for seed in LEARNERS:
        learner = [sys.executable, "-m", "runlane.workers.cartpole", "--seed", str(seed), *LONG]
        commands.append([*runlane, "--name", f"ppo-cartpole-s{seed}", "--worker", f"ppo{seed}", "--", *learner])
    commands.append([*runlane, "--name", "broken-s1", "--", sys.executable, "-c", BROKEN])
    for command in commands:
        log = Path(settings.data_dir) / f"{len(stack)}.log"
        with log.open("wb") as output:
            stack.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output))


BROKEN = """
from runlane.workers import attach
lane = attach(config={"env_id": "Walk-v0", "algo": "random"})
for step in range(400):
    lane.step(step % 2, reward=1.0, terminated=step % 40 == 39)
raise SystemExit("the script ends with an error on purpose: a failed run has its picture, too")
"""


def take_pictures(settings: Settings, directory: Path, warm_up_s: float) -> None:
    """Open the GUI offscreen, let it see the runs for a while, and save every page."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtWidgets import QApplication

    from runlane.gui.app import Application, quiet_qt
    from runlane.gui.main_window import PAGES
    from runlane.window import Store

    quiet_qt()
    with tempfile.TemporaryDirectory() as scratch:
        application = Application(settings, Store(database_of(settings)), Path(scratch) / "window.ini")
        window = application.window

        def wait(seconds: float) -> None:
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                QApplication.processEvents()
                time.sleep(0.002)

        def save(name: str) -> None:
            path = directory / f"gui-{name}.png"
            window.grab().save(str(path))
            print(path)

        application.controller.start("ppo-cartpole-s1")
        window.resize(WIDTH, HEIGHT)
        window.show()
        wait(warm_up_s)
        show: Callable[[str], None] = window.open_page
        for scheme in ("dark", "light"):
            application.theme.choose("dark" if scheme == "dark" else "light")
            for key, _, _ in PAGES:
                show(key)
                wait(3.0)
                save(f"{key}-{scheme}")
        application.theme.choose("dark")
        for name, (width, height) in {"small": SMALL, "4k": LARGE}.items():
            window.resize(width, height)
            for key in ("live", "telemetry"):
                show(key)
                wait(3.0)
                save(f"{key}-{name}")
        window.close()


def main() -> None:
    """Start everything, take the pictures, stop everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--warm-up", type=float, default=WARM_UP_S, help="seconds the agents play before")
    chosen = parser.parse_args()
    chosen.directory.mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="runlane-pictures-") as data_dir:
        options = ["--set", f"data_dir={data_dir}"]
        settings = load(arguments=[f"data_dir={data_dir}"])
        graph = GraphProcess(options, settings)
        graph.start()
        try:
            start_workers(settings, options, started)
            take_pictures(settings, chosen.directory, chosen.warm_up)
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(20)
            graph.stop()


if __name__ == "__main__":
    main()
