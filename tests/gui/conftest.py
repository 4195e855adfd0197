"""An offscreen application for the window's tests, and checks that fail a test which leaves a timer or a lease."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from qt_here import NO_QT
from wall_rig import MakeRing

from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_files import ring_directories
from runlane.transport.ring_layout import RingInfo

if TYPE_CHECKING:
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if NO_QT:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def qapp_args() -> list[str]:
    """Its name, and nothing of pytest's command line."""
    return ["runlane-tests"]


@pytest.fixture(autouse=True)
def _leaves_no_timer(qapp: "QApplication") -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Fail the test after which a timer of ours still runs, or a descriptor of a ring is open."""
    from PySide6.QtCore import QEvent, QTimer

    from runlane.gui.scene_graph import choose_backend

    if not _chosen:
        _chosen.append(choose_backend())  # once, before the first scene
    before = _ring_files()
    yield
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    kinds = {QTimer, *QTimer.__subclasses__()}  # a look into a set: there are a million objects
    running = [found for found in gc.get_objects() if type(found) in kinds and _is_running(found)]
    left = [f"timer of {timer.parent()}" for timer in running]
    left += [f"open {name}" for name in _ring_files() if name not in before]
    if left:
        pytest.fail("the test leaks: " + ", ".join(left), pytrace=False)


_chosen: list[str] = []


def _is_running(timer: "QTimer") -> bool:
    try:
        return timer.isActive()
    except RuntimeError:  # its C++ half is gone
        return False


def _ring_files() -> list[str]:
    """What this process has open of rings."""
    names: list[str] = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            name = path.readlink().name
        except OSError:
            continue
        if name.startswith("rl-"):
            names.append(name)
    return names


@pytest.fixture
def lane_dir(run_dir: Path) -> Path:
    """A run directory that is there."""
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


@pytest.fixture
def rings(lane_dir: Path) -> Iterator[MakeRing]:
    """What makes rings, and closes them in the end."""
    made: list[FastLaneWriter] = []

    def make(worker: str = "agent", run: str = "run", **facts: Any) -> FastLaneWriter:
        info = RingInfo(run=run, worker=worker, **facts)
        made.append(FastLaneWriter(lane_dir, info, directories=ring_directories(lane_dir)))
        return made[-1]

    yield make
    for writer in made:
        writer.close()
