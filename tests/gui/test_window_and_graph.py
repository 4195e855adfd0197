"""The whole window on a whole graph: what dies around it is shown, and it goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from process.graph_under_test import GraphUnderTest
from pytestqt.qtbot import QtBot

from runlane.transport.endpoint import database_of
from runlane.transport.ring_files import find_rings
from runlane.transport.ring_layout import HEAD
from runlane.window import Store

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from runlane.gui.app import Application

pytestmark = pytest.mark.timeout(180)

DEADLINE_MS = 30_000
WORKER = Path(__file__).parents[1] / "process" / "shown_worker.py"


class Opens(Protocol):
    def __call__(self, graph: GraphUnderTest, wanted: str = "") -> "Application": ...


@pytest.fixture
def opens(qapp: "QApplication", tmp_path: Path) -> Iterator[Opens]:
    """The window on a graph, as `runlane gui` makes it; closed in the end, and its look with it."""
    from runlane.gui.app import Application

    made: list[Application] = []
    before = qapp.styleSheet(), qapp.font(), qapp.palette(), sys.getswitchinterval()

    def open_window(graph: GraphUnderTest, wanted: str = "") -> Application:
        application = Application(graph.settings, Store(database_of(graph.settings)), tmp_path / "window.ini")
        made.append(application)
        application.controller.start(wanted)
        application.window.show()
        return application

    yield open_window
    for application in made:
        application.window.close()
        application.window.deleteLater()
    qapp.setStyleSheet(before[0])
    qapp.setFont(before[1])
    qapp.setPalette(before[2])
    sys.setswitchinterval(before[3])


def _run(graph: GraphUnderTest, name: str) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-m",
        "runlane",
        "run",
        *graph.options,
        "--name",
        name,
        "--",
        sys.executable,
        str(WORKER),
    ]
    return subprocess.Popen(
        [*command, "0"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()  # the worker ends with its input
    process.wait(30)


def _grows(qtbot: QtBot, count: Any) -> None:
    before = count()
    qtbot.waitUntil(lambda: count() > before, timeout=DEADLINE_MS)


def test_a_window_outlives_router_writer_and_worker(short_dir: Path, opens: Opens, qtbot: QtBot) -> None:
    """Each is killed while the window is open: steps come on, rows come on, and a dead worker is shown as dead."""
    with GraphUnderTest(short_dir) as graph:
        worker = _run(graph, "watched")
        try:
            application = opens(graph)
            controller, wall = application.controller, application.window.live.wall
            qtbot.waitUntil(lambda: controller.telemetry.received_steps > 0, timeout=DEADLINE_MS)
            qtbot.waitUntil(lambda: (wall.figures()["shown"] or 0) > 0, timeout=DEADLINE_MS)

            graph.kill("router")
            _grows(qtbot, lambda: controller.telemetry.received_steps)
            graph.kill("db_writer")
            run = controller.selected
            _grows(qtbot, lambda: graph.sql("SELECT coalesce(max(last_seq), 0) FROM streams")[0][0])

            ((pid,),) = graph.sql("SELECT pid FROM streams WHERE worker = 'worker'")
            os.kill(pid, signal.SIGKILL)
            worker.wait(30)
            qtbot.waitUntil(lambda: _state(application, run) in ("killed", "lost"), timeout=DEADLINE_MS)
            qtbot.waitUntil(lambda: wall.figures()["attached"] == 0, timeout=DEADLINE_MS)
        finally:
            worker.kill()
            _end(worker)


def _state(application: "Application", run: str) -> str:
    entry = application.controller.runs.entry(run)
    return "" if entry is None else entry.state


def test_the_telemetry_mode_switches_a_running_worker(short_dir: Path, opens: Opens, qtbot: QtBot) -> None:
    """By the top bar: in Fast Lane Only frames go on and rows stand still, in Durable Only the reverse."""
    from runlane.config.telemetry_mode import TelemetryMode

    with GraphUnderTest(short_dir) as graph:
        worker = _run(graph, "switched")
        try:
            application = opens(graph, "switched")
            control, wall = application.window.mode_control, application.window.live.wall
            qtbot.waitUntil(lambda: (wall.figures()["shown"] or 0) > 0, timeout=DEADLINE_MS)
            qtbot.waitUntil(lambda: _mode(application) == "dual_path", timeout=DEADLINE_MS)

            control.selector.picked.emit(TelemetryMode.FAST_LANE_ONLY.value)
            qtbot.waitUntil(lambda: _mode(application) == "fast_lane_only", timeout=DEADLINE_MS)
            _grows(qtbot, lambda: _drops(graph))
            rows = graph.sql("SELECT steps FROM streams WHERE worker = 'worker'")
            _grows(qtbot, lambda: wall.figures()["shown"])
            _grows(qtbot, lambda: _drops(graph))
            assert graph.sql("SELECT steps FROM streams WHERE worker = 'worker'") == rows

            control.selector.picked.emit(TelemetryMode.DURABLE_ONLY.value)
            qtbot.waitUntil(lambda: _mode(application) == "durable_only", timeout=DEADLINE_MS)
            frames = _published(short_dir)
            _grows(qtbot, lambda: graph.sql("SELECT steps FROM streams WHERE worker = 'worker'")[0][0])
            assert _published(short_dir) == frames
        finally:
            _end(worker)


def _mode(application: "Application") -> str:
    entry = application.controller.runs.entry(application.controller.selected)
    return "" if entry is None else str(entry.telemetry_mode)


def _drops(graph: GraphUnderTest) -> int:
    ((count,),) = graph.sql("SELECT coalesce(sum(records), 0) FROM drops WHERE reason = 'fast_lane_only'")
    return int(count)


def _published(directory: Path) -> int:
    """Frames in the worker's ring, by the ring's own head."""
    (ring,) = find_rings(directory / "run")
    return memoryview(ring.path.read_bytes()).cast("Q")[HEAD]
