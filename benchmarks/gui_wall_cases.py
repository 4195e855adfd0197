"""What the live wall costs and how old its pictures are: measured offscreen, on frames of a process of their own.

`python gui_wall_cases.py publish RUN_DIR LANES WIDTH HEIGHT HZ` is that process; it ends with its parent. The age of a
frame is from its publication to the end of the paint that shows it, scene and widget.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_files import sweep_rings
from runlane.transport.ring_layout import Hud, RingInfo

if TYPE_CHECKING:
    from runlane.gui.fast_lane_tab import FastLaneTab

SETTLE_S = 1.5
MEASURE_S = 5.0
DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class WallCase:
    """Lanes of one size in a wall of one size, in pixels; `hz` frames a second are published on each."""

    name: str
    lanes: int
    width: int
    height: int
    wall: tuple[int, int] = (1100, 780)
    hz: float = 60.0


CASES = (
    WallCase("84x84", 1, 84, 84),
    WallCase("640x480", 1, 640, 480),
    WallCase("1920x1080", 1, 1920, 1080, (1280, 800)),
    WallCase("wall 3x3 of 160x210", 9, 160, 210),
    WallCase("wall 3x3 of 640x480", 9, 640, 480),
)


@dataclass(frozen=True, slots=True)
class WallFigures:
    """Of one case. `fps` is of one lane, `cpu_share` of one core, ages in milliseconds."""

    name: str
    fps: float
    published_fps: float
    age_p50_ms: float
    age_p99_ms: float
    cpu_share: float
    skipped: int
    paints_hz: float


# ---- the process that publishes --------------------------------------------------------------------------


def publish(run_dir: Path, lanes: int, width: int, height: int, hz: float) -> None:
    """Frames that move on every lane, each lane at a phase of its own, until our parent is gone."""
    parent = os.getppid()
    writers = [FastLaneWriter(run_dir, RingInfo(run=f"run{lane}", worker="bench")) for lane in range(lanes)]
    frames = [np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8) for seed in range(4)]
    start_s, number = time.monotonic(), 0
    try:
        while os.getppid() == parent:
            due_s = start_s + number / (hz * lanes)
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            writer, count = writers[number % lanes], number // lanes
            if writer.wanted(time.monotonic_ns()) is not None:
                hud = (count, time.time_ns(), time.monotonic_ns(), count // 200 + 1, 0, 0, count % 7 - 3.0, 0.0)
                writer.publish(frames[count % 4], Hud(*hud, count / 10, hz + count % 5))
            number += 1
    finally:
        for writer in writers:
            writer.close()


@contextmanager
def publisher(run_dir: Path, case: WallCase) -> Generator[None]:
    """That process, while a case runs."""
    words = [run_dir, case.lanes, case.width, case.height, case.hz]
    process = subprocess.Popen([sys.executable, __file__, "publish", *map(str, words)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        sweep_rings(run_dir)


# ---- the window ------------------------------------------------------------------------------------------


def measure(case: WallCase, seconds: float = MEASURE_S) -> WallFigures:
    """One case, in this process; `QT_QPA_PLATFORM` says where. Raises `TimeoutError` where no frames come."""
    from PySide6.QtWidgets import QApplication

    from runlane.gui.fast_lane_tab import FastLaneTab
    from runlane.gui.presenters import LaneChoice
    from runlane.gui.scene_graph import choose_backend
    from runlane.gui.tokens import DARK

    _app = QApplication.instance() or QApplication([])
    choose_backend()
    with tempfile.TemporaryDirectory(prefix="rl-") as directory, publisher(Path(directory), case):
        tab = FastLaneTab(Path(directory), DARK, max_fps=case.hz)
        tab.set_lanes(
            [LaneChoice(run=f"run{lane}", worker="bench", title=f"lane {lane}") for lane in range(case.lanes)]
        )
        tab.resize(*case.wall)
        tab.show()
        try:
            end_s = time.monotonic() + DEADLINE_S
            while tab.figures()["attached"] != case.lanes:
                run_for(0.05)
                if time.monotonic() > end_s:
                    raise TimeoutError(f"{case.name}: {tab.figures()}")
            run_for(SETTLE_S)
            return _measured(tab, case, seconds)
        finally:
            tab.cleanup()
            tab.deleteLater()
            run_for(0.0)


def run_for(seconds: float) -> None:
    """An event loop as the window's, for so long. `QApplication.quit` would close the windows."""
    from PySide6.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()


def _measured(tab: "FastLaneTab", case: WallCase, seconds: float) -> WallFigures:
    tab.clock.forget_ages()
    before, paints = tab.figures(), tab.clock.paints
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    run_for(seconds)
    passed_s, cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
    after = tab.figures()
    shown, skipped = (after[key] - before[key] for key in ("shown", "skipped"))
    return WallFigures(
        name=case.name,
        fps=shown / passed_s / case.lanes,
        published_fps=(shown + skipped) / passed_s / case.lanes,
        age_p50_ms=tab.clock.age_ms(0.5) or 0.0,
        age_p99_ms=tab.clock.age_ms(0.99) or 0.0,
        cpu_share=cpu_s / passed_s,
        skipped=skipped,
        paints_hz=(tab.clock.paints - paints) / passed_s,
    )


def main() -> None:
    """Publish, as a process of `measure`; or else measure all cases, or those whose names hold an argument."""
    if sys.argv[1:2] == ["publish"]:
        lanes, width, height = map(int, sys.argv[3:6])
        publish(Path(sys.argv[2]), lanes, width, height, float(sys.argv[6]))
        return
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    for case in CASES:
        if len(sys.argv) == 1 or any(word in case.name for word in sys.argv[1:]):
            print(measure(case))


if __name__ == "__main__":
    main()
