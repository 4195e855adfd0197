"""The live wall as a whole: real rings in, tiles out, and nothing held that nobody sees."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QImage
from PySide6.QtQml import QQmlError
from PySide6.QtQuick import QQuickItem
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from wall_rig import MakeRing, hud, quarters, wait_until

from runlane.gui.controls_view import Label
from runlane.gui.fast_lane_tab import FastLaneTab
from runlane.gui.lane_wall import LaneWall, grid_shape
from runlane.gui.live_view import LiveView, merged
from runlane.gui.presenters import LaneChoice, lanes_of
from runlane.gui.tokens import DARK, LIGHT
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_files import sweep_rings

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def view(lane_dir: Path, qtbot: QtBot) -> Iterator[LiveView]:
    """The page, shown. A warning of QML fails the test."""
    made = LiveView(lane_dir, DARK, 60.0, pictures=lane_dir)
    warnings: list[str] = []

    def keep(errors: list[QQmlError]) -> None:
        warnings.extend(error.toString() for error in errors)

    made.tab.scene.engine().warnings.connect(keep)
    qtbot.addWidget(made)
    made.resize(900, 640)
    made.show()
    yield made
    made.cleanup()
    assert warnings == []


@pytest.fixture
def start(lane_dir: Path) -> Iterator[Start]:
    """What starts workers as processes; killed in the end, and their rings swept."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(run: str, worker: str, number: int) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("lane_process.py")
        processes.append(subprocess.Popen([sys.executable, script, lane_dir, run, worker, str(number)]))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()
    sweep_rings(lane_dir)


def is_watched(writer: FastLaneWriter) -> bool:
    """Whether anybody has a lease now."""
    return writer.wanted(time.monotonic_ns()) is not None


def choices(count: int) -> list[LaneChoice]:
    """Lanes nobody serves."""
    return [LaneChoice(run="run", worker=f"w{index}", title=f"lane {index}") for index in range(count)]


def texts(item: QQuickItem) -> list[str]:
    """All strings that a scene shows now."""
    found: list[str] = []
    for child in item.childItems():
        if child.isVisible():
            text = child.property("text")
            found += [text] if isinstance(text, str) and text else []
            found += texts(child)
    return found


def serve(rings: MakeRing, count: int) -> list[FastLaneWriter]:
    """Rings with a frame each."""
    made = [rings(worker=f"w{index}", run=f"run{index}") for index in range(count)]
    for index, writer in enumerate(made):
        writer.publish(quarters(), hud(index + 1, last_reward=index + 0.5, rolling_return=42.0, step_rate_hz=2184.0))
    return made


# ---- what is on it ---------------------------------------------------------------------------------------


def test_lanes_and_their_huds_arrive_by_themselves(view: LiveView, qtbot: QtBot, rings: MakeRing) -> None:
    """Without any, the page says how to start one; then each ring has a tile with its four figures."""
    assert "runlane run -- python train.py" in texts(view.tab.scene.rootObject())
    serve(rings, 2)
    wait_until(qtbot, lambda: "+1.50" in texts(view.tab.scene.rootObject()))
    shown = texts(view.tab.scene.rootObject())
    assert {"w0", "w1", "last_reward", "rolling_return", "step_rate_hz", "+0.50", "+1.50", "42.0", "2\u2009184"} <= set(
        shown
    )
    assert "runlane run -- python train.py" not in shown
    wait_until(qtbot, lambda: view.tab.figures()["shown"] == 2)
    figures = view.tab.figures()
    assert (figures["attached"], figures["lanes"], figures["skipped"], figures["torn"]) == (2, 2, 0, 0)


def test_a_killed_worker_is_announced_and_its_successor_shown(view: LiveView, qtbot: QtBot, start: Start) -> None:
    """`kill -9`, the banner over its last picture, then the frames of the next process of that name."""
    process = start("run", "agent", 10)
    wait_until(qtbot, lambda: view.tab.figures()["shown"] != 0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(qtbot, lambda: any("reconnecting" in text for text in texts(view.tab.scene.rootObject())))
    assert view.tab.wall.tiles[0].consumer.image is not None
    start("run", "agent", 20)
    wait_until(qtbot, lambda: "+20.00" in texts(view.tab.scene.rootObject()))
    assert not any("reconnecting" in text for text in texts(view.tab.scene.rootObject()))
    assert view.tab.figures()["lanes"] == 1


def test_a_snapshot_is_the_frame_itself(view: LiveView, qtbot: QtBot, rings: MakeRing) -> None:
    """Of the size the worker renders at, in a file named after its tab; by key S as by a call."""
    serve(rings, 1)
    wait_until(qtbot, lambda: view.tab.figures()["shown"] == 1)
    taken: list[tuple[QImage, str]] = []

    def keep(image: QImage, name: str) -> None:
        taken.append((image, name))

    view.snapshot_taken.connect(keep)
    QTest.keyClick(view.tab.scene, Qt.Key.Key_S)
    wait_until(qtbot, lambda: bool(taken))  # it is written in a thread
    ((image, name),) = taken
    assert QImage(name).convertToFormat(image.format()) == image
    assert Path(name).name.startswith("Python-Live-w0-")
    assert (image.width(), image.height()) == (8, 6)
    assert [QColor(image.pixel(x, 0)).name() for x in (0, 7)] == ["#ff0000", "#00ff00"]
    assert view.tab.snapshot(5) is None


def test_a_lane_at_full_size_is_called_as_its_presenter_calls_it(view: LiveView, qtbot: QtBot, rings: MakeRing) -> None:
    """`{worker type}-Live-{agent}` over the page, and the wall's name again when the grid is back."""
    rings(worker="cartpole-2", run="run").publish(quarters(), hud(1))
    wait_until(qtbot, lambda: view.tab.figures()["shown"] == 1)
    view.tab.promote(0)
    assert "CartPole-Live-2" in [label.text() for label in view.findChildren(Label)]
    view.tab.promote(None)
    assert "Live wall" in [label.text() for label in view.findChildren(Label)]


def test_a_snapshot_of_a_run_is_its_next_frame(view: LiveView, qtbot: QtBot, rings: MakeRing) -> None:
    """Of that run and no other, wherever the keyboard is; of a run that shows nothing there is none."""
    writers = serve(rings, 2)
    wait_until(qtbot, lambda: view.tab.figures()["shown"] == 2)
    taken: list[str] = []

    def keep(_image: QImage, name: str) -> None:
        taken.append(name)

    view.snapshot_taken.connect(keep)
    assert view.snapshot_of("run1")
    assert not view.snapshot_of("no such run")
    writers[0].publish(quarters(), hud(3))
    writers[1].publish(quarters(), hud(4))
    wait_until(qtbot, lambda: bool(taken))
    assert [Path(name).name.rsplit("-", 2)[0] for name in taken] == ["Python-Live-w1"]


def test_nobody_waits_for_a_worker_that_was_told_to_render_nothing(
    view: LiveView, qtbot: QtBot, rings: MakeRing
) -> None:
    """Durable Only: the tile says so, and its silence is none."""
    serve(rings, 1)
    wait_until(qtbot, lambda: view.tab.figures()["shown"] == 1)
    assert [title for title, _ in view.tab.figures()["silent_s"]] == [view.lanes[0].title]
    view.describe(lambda _run: "", lambda _run: True)
    wait_until(qtbot, lambda: "Durable Only · nothing is rendered" in texts(view.tab.scene.rootObject()))
    assert view.tab.figures()["silent_s"] == []


def test_the_look_changes_while_it_runs(view: LiveView, qtbot: QtBot) -> None:
    """Dark to light, in the scene too."""
    corner = view.tab.scene.grab().toImage().pixel(2, 2)
    assert QColor(corner).name() == DARK.window
    view.set_tokens(LIGHT)
    wait_until(qtbot, lambda: QColor(view.tab.scene.grab().toImage().pixel(2, 2)).name() == LIGHT.window)


# ---- keys and pages --------------------------------------------------------------------------------------


def test_the_keyboard_moves_promotes_and_pauses(view: LiveView, qtbot: QtBot, rings: MakeRing) -> None:
    """Arrows, Enter, Escape and Space; buttons follow."""
    serve(rings, 4)
    wait_until(qtbot, lambda: len(view.lanes) == 4)
    scene, wall = view.tab.scene, view.tab.wall
    selected: list[tuple[str, str]] = []

    def keep(run: str, worker: str) -> None:
        selected.append((run, worker))

    view.selected_lane.connect(keep)
    QTest.keyClick(scene, Qt.Key.Key_Right)
    assert selected == [view.lanes[1].key]
    QTest.keyClick(scene, Qt.Key.Key_Down)
    assert wall.current_index == 3
    QTest.keyClick(scene, Qt.Key.Key_Return)
    assert wall.promoted_index == 3
    QTest.keyClick(scene, Qt.Key.Key_Left)
    assert wall.promoted_index == 2
    QTest.keyClick(scene, Qt.Key.Key_Escape)
    assert wall.promoted_index == -1
    QTest.keyClick(scene, Qt.Key.Key_Space)
    assert wall.is_paused
    wait_until(qtbot, lambda: wall.tiles[0].said["state"] == "paused")
    QTest.keyClick(scene, Qt.Key.Key_Space)
    assert not wall.is_paused


def test_a_grid_has_pages_and_the_keyboard_turns_them() -> None:
    """Of ten lanes two by two, the seventh is on the second page; what is not on it is not seen."""
    wall = LaneWall(max_fps=120.0)
    wall.set_lanes(choices(10))
    assert (*wall.shape(), wall.rate_hz()) == (4, 3, 30.0)
    wall.set_mode("2x2")
    assert [index for index in range(10) if wall.is_seen(index)] == [0, 1, 2, 3]
    wall.select(6)
    assert [index for index in range(10) if wall.is_seen(index)] == [4, 5, 6, 7]
    wall.promote(9)
    assert [index for index in range(10) if wall.is_seen(index)] == [9]
    assert wall.rate_hz() == 60.0
    wall.promote(-1)
    assert wall.first_index() == 8


def test_an_automatic_grid_is_as_small_as_can_be() -> None:
    """And wider than high."""
    shapes = [grid_shape("auto", lanes) for lanes in (0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 40)]
    assert shapes == [(1, 1), (1, 1), (2, 1), (2, 2), (2, 2), (3, 2), (3, 3), (3, 3), (4, 3), (4, 4), (4, 4)]
    assert grid_shape("3x2", 1) == (3, 2)


def test_a_lane_keeps_its_place_and_its_tile() -> None:
    """A restarted run takes the old one's place; the ended go once there are others."""
    first, second, third = choices(3)
    again = LaneChoice(run="new", worker="w0", title="lane 0")
    assert merged([first, second], [second, third], set()) == [first, second, third]
    assert merged([first, second], [second, again], set()) == [again, second]
    assert merged([first, second], [second], {first.key}) == [second]
    assert merged([first], [], {first.key}) == [first]
    wall = LaneWall()
    wall.set_lanes([first, second])
    tile = wall.tiles[1]
    wall.select(1)
    wall.set_lanes([third, second])
    assert wall.tiles[1] is tile
    assert wall.current_tile is tile


# ---- leases and the end ----------------------------------------------------------------------------------


def test_only_what_is_on_the_page_is_leased(view: LiveView, qtbot: QtBot, rings: MakeRing) -> None:
    """At full size the other three render for nobody; on another page, and paused, all four."""
    writers = serve(rings, 4)
    wait_until(qtbot, lambda: all(is_watched(writer) for writer in writers))
    view.tab.promote(2)
    assert [is_watched(writer) for writer in writers] == [False, False, True, False]
    view.tab.promote(None)
    for leave, back in (
        (lambda: view.set_active(False), lambda: view.set_active(True)),
        (view.hide, view.show),
        (view.showMinimized, view.showNormal),
        (lambda: view.tab.set_paused(True), lambda: view.tab.set_paused(False)),
    ):
        wait_until(qtbot, lambda: all(is_watched(writer) for writer in writers))
        leave()
        assert not any(is_watched(writer) for writer in writers)
        back()
    view.hide()
    assert not view.tab.clock.is_running


def test_closing_gives_everything_back(lane_dir: Path, qtbot: QtBot, rings: MakeRing) -> None:
    """Timer, leases, rings and files; twice is once. The fixtures look for what is left."""
    (writer,) = serve(rings, 1)
    tab = FastLaneTab(lane_dir, DARK, max_fps=60.0)
    qtbot.addWidget(tab)
    tab.set_lanes(lanes_of([writer.info]))
    tab.show()
    wait_until(qtbot, lambda: tab.figures()["shown"] == 1)
    tab.close()
    tab.cleanup()
    assert not is_watched(writer)
    assert not tab.clock.is_running
    assert tab.figures()["attached"] == 0
    tab.set_lanes(lanes_of([writer.info]))
    tab.show()
    assert not is_watched(writer)


def test_one_environment_is_asked_for_alone(view: LiveView, qtbot: QtBot, rings: MakeRing) -> None:
    """The buttons for it are there only where a worker has several."""
    writer = rings(env_count=3)
    writer.publish(quarters(), hud())
    wait_until(qtbot, lambda: view.tab.figures()["attached"] == 1)
    asked: list[int] = []
    for _ in range(4):
        view.show_next_env()
        view.tab.clock.tick(time.monotonic_ns())
        wanted = writer.wanted(time.monotonic_ns())
        asked.append(0 if wanted is None else wanted.tile)
    assert asked == [1, 2, 3, 1]
