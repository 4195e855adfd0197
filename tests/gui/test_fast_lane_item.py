"""FastLaneItem: exact pixels, letterboxed, crisp where it is enlarged, and no memory that stays behind."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PySide6.QtGui import QColor, QImage
from PySide6.QtQuick import QQuickItem, QSGTexture
from pytestqt.qtbot import QtBot
from wall_rig import MakeRing, hud, quarters, wait_until

from runlane.gui.fast_lane_item import FastLaneItem, fitted
from runlane.gui.fast_lane_tab import FastLaneTab
from runlane.gui.presenters import lanes_of
from runlane.gui.tokens import DARK
from runlane.transport.fast_lane_writer import FastLaneWriter

MEBIBYTE = 1 << 20


@pytest.fixture
def tab(lane_dir: Path, qtbot: QtBot) -> Iterator[FastLaneTab]:
    """A wall that is shown, without lanes."""
    made = FastLaneTab(lane_dir, DARK, max_fps=60.0)
    qtbot.addWidget(made)
    made.resize(420, 360)
    made.show()
    yield made
    made.cleanup()


def follow(tab: FastLaneTab, qtbot: QtBot, writer: FastLaneWriter) -> None:
    """Show a ring in the one tile, and wait until it is attached."""
    tab.set_lanes(lanes_of([writer.info]))
    wait_until(qtbot, lambda: tab.figures()["attached"] == 1)


def show(tab: FastLaneTab, qtbot: QtBot, writer: FastLaneWriter, frame: Any, number: int = 1) -> QImage:
    """Publish a frame, wait until it is painted, and grab the picture alone."""
    shown = tab.clock.shown
    writer.publish(frame, hud(number))
    wait_until(qtbot, lambda: tab.clock.shown > shown and not tab.wall.tiles[0].said["banner"])
    return picture_of(tab)


def picture_of(tab: FastLaneTab) -> QImage:
    """What the widget shows where the picture of the first visible tile is."""
    item = next(item for item in items(tab.scene.rootObject()) if item.isVisible())
    corner = item.mapToScene(item.boundingRect().topLeft()).toPoint()
    return tab.grab().toImage().copy(corner.x(), corner.y(), int(item.width()), int(item.height()))


def items(item: QQuickItem) -> Iterator[FastLaneItem]:
    """All pictures of a scene."""
    for child in item.childItems():
        if isinstance(child, FastLaneItem):
            yield child
        yield from items(child)


def test_a_frame_is_shown_with_its_exact_pixels(tab: FastLaneTab, qtbot: QtBot, rings: MakeRing) -> None:
    """Every pixel of the enlarged picture is one of the frame's, and beside it is the tokens' colour."""
    writer = rings()
    follow(tab, qtbot, writer)
    frame: Any = quarters(8, 6)
    frame[2, 5] = (12, 34, 56)
    grabbed = show(tab, qtbot, writer, frame)
    rect = fitted(8, 6, grabbed.width(), grabbed.height())
    cell = rect.width() / 8, rect.height() / 6
    for y in range(6):
        for x in range(8):
            at = rect.x() + (x + 0.5) * cell[0], rect.y() + (y + 0.5) * cell[1]
            assert QColor(grabbed.pixel(int(at[0]), int(at[1]))) == QColor(*frame[y, x].tolist()), (x, y)
    colours = {QColor(grabbed.pixel(x, int(rect.y()) + 3)).name() for x in range(int(rect.x()), int(rect.right()))}
    assert colours == {"#ff0000", "#00ff00"}
    assert QColor(grabbed.pixel(0, grabbed.height() // 2)).name() == DARK.picture


def test_a_frame_at_its_own_size_is_shown_bit_by_bit(tab: FastLaneTab, qtbot: QtBot, rings: MakeRing) -> None:
    """Without scaling, what is on screen is the frame."""
    writer = rings()
    follow(tab, qtbot, writer)
    show(tab, qtbot, writer, quarters())
    size = picture_of(tab).size()
    noise = np.random.default_rng(5).integers(0, 255, (size.height(), size.width(), 3), np.uint8)
    grabbed = show(tab, qtbot, writer, noise).convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(grabbed.constBits(), np.uint8).reshape(size.height(), grabbed.bytesPerLine())
    assert (rows[:, : size.width() * 3].reshape(noise.shape) == noise).all()


def test_the_newest_frame_is_fetched_as_it_is_painted(tab: FastLaneTab, qtbot: QtBot, rings: MakeRing) -> None:
    """What is published after the repaint was asked for is shown, and what was before it is lapped."""
    writer = rings()
    follow(tab, qtbot, writer)
    show(tab, qtbot, writer, quarters())
    tile = tab.wall.tiles[0]
    for number, value in ((2, 10), (3, 20)):
        writer.publish(np.full((6, 8, 3), value, np.uint8), hud(number))
        tile.paint_wanted.emit()
    wait_until(qtbot, lambda: tab.clock.shown == 2)
    assert tile.consumer.hud is not None
    assert tile.consumer.hud.step_seq == 3
    middle = picture_of(tab)
    assert QColor(middle.pixel(middle.width() // 2, middle.height() // 2)).name() == "#141414"


def test_a_picture_keeps_its_shape_and_lies_on_whole_pixels() -> None:
    """Letterboxed above and below, or beside; never of no size."""
    assert fitted(160, 80, 400, 400).getRect() == (0, 100, 400, 200)
    assert fitted(80, 160, 401, 400).getRect() == (100, 0, 200, 400)
    assert fitted(10_000, 1, 50, 50).getRect() == (0, 24, 50, 1)


def test_memory_is_flat_over_three_thousand_frames(tab: FastLaneTab, qtbot: QtBot, rings: MakeRing) -> None:
    """The node owns its texture: 220 MiB of them went by, and none stayed, nor what Python knew of them."""
    tab.resize(tab.minimumSize())
    writer = rings()
    follow(tab, qtbot, writer)
    frame = np.zeros((120, 160, 3), np.uint8)
    tile = tab.wall.tiles[0]
    process = psutil.Process()
    start = 0
    for number in range(1, 3001):
        frame[:] = number % 256
        writer.publish(frame, hud(number))
        tile.consumer.poll(time.monotonic_ns())
        tile.paint_wanted.emit()
        tab.scene.render_now()
        if number == 300:
            start = process.memory_info().rss
    assert tile.consumer.metrics(time.monotonic_ns()).frames == 3000
    assert process.memory_info().rss - start < 12 * MEBIBYTE
    assert sum(isinstance(found, QSGTexture) for found in gc.get_objects()) < 10
