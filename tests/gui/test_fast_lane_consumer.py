"""FastLaneConsumer: leases only what is watched, copies only what is fetched, and says what a lane is in."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtGui import QColor, QImage
from pytestqt.qtbot import QtBot
from wall_rig import MakeRing, hud, quarters

from runlane.gui.fast_lane_consumer import RECONNECT_NS, SILENT_NS, FastLaneConsumer, LaneState, ShownFrame
from runlane.gui.lane_clock import IDLE_MS, LIVE_MS, LOOK_NS, LaneClock
from runlane.gui.lane_tile import LaneTile, age_text, rate_text, return_text, reward_text
from runlane.gui.presenters import PlainPresenter, lanes_of, presenter_for, register
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_files import FoundRing, find_rings
from runlane.transport.ring_layout import RingInfo

SECOND_NS = 1_000_000_000


@pytest.fixture
def consumer(lane_dir: Path) -> Iterator[FastLaneConsumer]:
    """One that follows any worker; stopped in the end."""
    made = FastLaneConsumer()
    made.start(lane_dir, "", "")
    yield made
    made.stop()


def viewers(writer: FastLaneWriter, now_ns: int) -> int:
    """How many watch a ring."""
    wanted = writer.wanted(now_ns)
    return 0 if wanted is None else wanted.viewers


def colour(image: QImage | None, x: int, y: int) -> str:
    """A pixel as #rrggbb."""
    assert image is not None
    return QColor(image.pixel(x, y)).name()


# ---- frames ----


def test_a_frame_arrives_with_its_pixels_and_its_hud(consumer: FastLaneConsumer, rings: MakeRing) -> None:
    """What was published is what is fetched, once."""
    writer = rings()
    assert not consumer.poll(time.monotonic_ns())
    writer.publish(quarters(), hud(7, last_reward=1.5))
    assert consumer.poll(time.monotonic_ns())
    assert consumer.fetch(time.monotonic_ns())
    assert consumer.hud is not None
    assert (consumer.hud.step_seq, consumer.hud.last_reward) == (7, 1.5)
    corners = [colour(consumer.image, x, y) for x, y in ((0, 0), (7, 0), (0, 5), (7, 5))]
    assert corners == ["#ff0000", "#00ff00", "#0000ff", "#ffffff"]
    assert not consumer.poll(time.monotonic_ns())
    assert not consumer.fetch(time.monotonic_ns())


@pytest.mark.parametrize(
    ("shape", "pixel", "expected"),
    [
        ((5, 7), 128, "#808080"),
        ((5, 7, 1), 9, "#090909"),
        ((5, 7, 3), (1, 2, 3), "#010203"),
        ((5, 7, 4), (4, 5, 6, 255), "#040506"),
    ],
)
def test_every_format_and_odd_width_is_drawn(
    consumer: FastLaneConsumer, rings: MakeRing, shape: tuple[int, ...], pixel: Any, expected: str
) -> None:
    """Gray, RGB and RGBA; rows of 7 pixels are no multiple of four bytes."""
    writer = rings()
    frame = np.zeros(shape, np.uint8)
    frame[4, 6] = pixel
    writer.publish(frame, hud())
    consumer.poll(time.monotonic_ns())
    assert consumer.fetch(time.monotonic_ns())
    assert consumer.image is not None
    assert (consumer.image.width(), consumer.image.height()) == (7, 5)
    assert colour(consumer.image, 6, 4) == expected
    assert colour(consumer.image, 5, 4) == "#000000"


def test_a_frame_of_another_size_is_taken_up(consumer: FastLaneConsumer, rings: MakeRing) -> None:
    """Buffers follow the geometry; the picture shown before stays whole."""
    writer = rings()
    writer.publish(quarters(), hud())
    consumer.poll(time.monotonic_ns())
    consumer.fetch(time.monotonic_ns())
    before = consumer.image
    writer.publish(quarters(16, 12), hud(2))
    assert consumer.poll(time.monotonic_ns())
    assert consumer.fetch(time.monotonic_ns())
    assert consumer.image is not None
    assert (consumer.image.width(), consumer.image.height()) == (16, 12)
    assert colour(before, 7, 0) == "#00ff00"


def test_the_signal_carries_a_copy_and_the_figures(consumer: FastLaneConsumer, rings: MakeRing, qtbot: QtBot) -> None:
    """Who connects may keep the image: later frames are not written into it."""
    got: list[tuple[QImage, ShownFrame]] = []

    def keep(image: QImage, shown: ShownFrame) -> None:
        got.append((image, shown))

    consumer.frame_ready.connect(keep)
    writer = rings()
    for number in (1, 2, 3):
        writer.publish(np.full((2, 2, 3), number, np.uint8), hud(number))
        consumer.poll(time.monotonic_ns())
        with qtbot.waitSignal(consumer.frame_ready):
            consumer.fetch(time.monotonic_ns())
    assert [colour(image, 0, 0) for image, _ in got] == ["#010101", "#020202", "#030303"]
    assert [shown.hud.step_seq for _, shown in got] == [1, 2, 3]
    assert got[-1][1].metrics.frames == 3
    assert got[-1][1].metrics.age_ms is not None


def test_what_is_not_fetched_is_counted_as_lapped_over_all_rings(consumer: FastLaneConsumer, rings: MakeRing) -> None:
    """Pauses and restarts forget no figure."""
    writer = rings()
    for number in range(1, 6):
        writer.publish(quarters(), hud(number))
        if number in (1, 5):
            consumer.poll(time.monotonic_ns())
            consumer.fetch(time.monotonic_ns())
    assert consumer.metrics(time.monotonic_ns()).lapped == 3
    consumer.set_paused(True)
    consumer.set_paused(False)
    writer.publish(quarters(), hud(6))
    consumer.poll(time.monotonic_ns())
    consumer.fetch(time.monotonic_ns())
    found = consumer.metrics(time.monotonic_ns())
    assert (found.frames, found.lapped) == (3, 3)


# ---- leases ----


def test_a_lease_is_held_only_while_it_is_watched(consumer: FastLaneConsumer, rings: MakeRing) -> None:
    """Hidden, paused, stopped: the worker renders for nobody from that moment on."""
    writer = rings()
    now_ns = time.monotonic_ns()
    for leave, back in (
        (lambda: consumer.set_watching(False), lambda: consumer.set_watching(True)),
        (lambda: consumer.set_paused(True), lambda: consumer.set_paused(False)),
        (consumer.stop, lambda: None),
    ):
        consumer.poll(now_ns)
        assert viewers(writer, now_ns) == 1
        leave()
        assert viewers(writer, now_ns) == 0
        assert not consumer.poll(now_ns)
        assert viewers(writer, now_ns) == 0
        back()


def test_rate_and_environment_are_asked_for_at_once(consumer: FastLaneConsumer, rings: MakeRing) -> None:
    """A wall that grows asks less of each worker; a promoted environment is named in the lease."""
    writer = rings(env_count=4)
    now_ns = time.monotonic_ns()
    consumer.poll(now_ns)
    consumer.set_rate(25.0)
    consumer.promote_env(3)
    consumer.poll(now_ns)
    wanted = writer.wanted(now_ns)
    assert wanted is not None
    assert (wanted.rate_hz, wanted.tile) == (25.0, 3)


# ---- states ----


def test_a_lane_says_what_it_is_in(consumer: FastLaneConsumer, rings: MakeRing) -> None:
    """Waiting, live, stalled when a worker makes none of the frames asked for, paused."""
    now_ns = time.monotonic_ns()
    assert consumer.state(now_ns) is LaneState.WAITING
    writer = rings()
    consumer.poll(now_ns)
    assert consumer.state(now_ns) is LaneState.WAITING
    writer.publish(quarters(), hud())
    consumer.poll(now_ns)
    consumer.fetch(now_ns)
    assert consumer.state(now_ns) is LaneState.LIVE
    later_ns = time.monotonic_ns() + SILENT_NS + SECOND_NS
    consumer.poll(later_ns)
    assert consumer.state(later_ns) is LaneState.STALLED
    consumer.set_paused(True)
    assert consumer.state(later_ns) is LaneState.PAUSED


def test_nothing_is_missed_that_was_not_asked_for(consumer: FastLaneConsumer, rings: MakeRing) -> None:
    """Back from another page, silence counts from then on."""
    writer = rings()
    writer.publish(quarters(), hud())
    now_ns = time.monotonic_ns()
    consumer.poll(now_ns)
    consumer.fetch(now_ns)
    consumer.set_watching(False)
    later_ns = now_ns + 60 * SECOND_NS
    assert consumer.state(later_ns) is LaneState.LIVE
    consumer.set_watching(True)
    consumer.poll(later_ns)
    assert consumer.state(later_ns) is LaneState.LIVE
    assert consumer.silent_ns(later_ns + SECOND_NS) == SECOND_NS


def test_a_ring_that_is_gone_is_awaited_and_then_given_up(
    consumer: FastLaneConsumer, rings: MakeRing, lane_dir: Path
) -> None:
    """Reconnecting, ended; and live again with the next ring, whenever it comes."""
    writer = rings()
    writer.publish(quarters(), hud())
    now_ns = time.monotonic_ns()
    consumer.poll(now_ns)
    consumer.fetch(now_ns)
    writer.close()
    now_ns += SECOND_NS
    consumer.poll(now_ns, [])
    assert consumer.state(now_ns) is LaneState.RECONNECTING
    consumer.poll(now_ns + RECONNECT_NS, [])
    assert consumer.state(now_ns + RECONNECT_NS) is LaneState.ENDED
    again = rings()
    again.publish(quarters(), hud(2))
    now_ns += RECONNECT_NS + SECOND_NS
    assert consumer.poll(now_ns, find_rings(lane_dir))
    assert consumer.fetch(now_ns)
    assert consumer.hud is not None
    assert consumer.hud.step_seq == 2
    assert consumer.state(now_ns) is LaneState.LIVE


# ---- what drives it ----


def test_the_clock_asks_for_a_paint_only_when_there_is_news(lane_dir: Path, rings: MakeRing) -> None:
    """And looks for rings once for all lanes, not once for each."""
    now_ns = time.monotonic_ns()
    clock = LaneClock(lane_dir, lambda: now_ns)
    writers = [rings(worker=f"w{lane}") for lane in range(3)]
    tiles = [LaneTile(lane) for lane in lanes_of(writer.info for writer in writers)]
    for tile in tiles:
        tile.consumer.start(lane_dir, *tile.choice.key)
    clock.set_tiles(tiles)
    asked: list[str] = []
    for tile in tiles:
        tile.paint_wanted.connect(lambda tile=tile: asked.append(tile.choice.worker))
    found: list[str] = []

    def keep(rings_now: list[FoundRing]) -> None:
        found.extend(ring.info.worker for ring in rings_now)

    clock.rings_found.connect(keep)
    clock.tick(now_ns)
    assert found == ["w0", "w1", "w2"]
    assert asked == []
    writers[1].publish(quarters(), hud())
    clock.tick(now_ns + LOOK_NS)
    assert asked == ["w1"]
    assert tiles[1].consumer.fetch(now_ns)
    clock.tick(now_ns + 2 * LOOK_NS)
    assert asked == ["w1"]
    for tile in tiles:
        tile.consumer.stop()


def test_the_clock_is_slow_while_nothing_is_live(lane_dir: Path, rings: MakeRing) -> None:
    """Four milliseconds with a ring, a tenth of a second without."""
    now_ns = time.monotonic_ns()
    clock = LaneClock(lane_dir, lambda: now_ns)
    (choice,) = lanes_of([RingInfo(run="run", worker="agent")])
    tile = LaneTile(choice, clock)
    tile.consumer.start(lane_dir, *choice.key)
    clock.set_tiles([tile])
    clock.tick(now_ns)
    assert clock.interval_ms == IDLE_MS
    rings()
    clock.tick(now_ns + LOOK_NS)
    assert clock.interval_ms == LIVE_MS
    tile.consumer.stop()


def test_strings_change_only_when_they_are_others(lane_dir: Path, rings: MakeRing) -> None:
    """QML hears of nothing new when nothing is."""
    writer = rings()
    (choice,) = lanes_of([writer.info])
    tile = LaneTile(choice)
    told: list[int] = []
    tile.changed.connect(lambda: told.append(1))
    tile.consumer.start(lane_dir, *choice.key)
    facts = {"last_reward": 1.0, "rolling_return": 318.0, "step_rate_hz": 2184.4}
    writer.publish(quarters(), hud(3, **facts))
    now_ns = time.monotonic_ns()
    tile.consumer.poll(now_ns)
    tile.consumer.fetch(now_ns)
    tile.paint_age_ms = 4.0
    tile.refresh(now_ns)
    tile.refresh(now_ns)
    assert told == [1]
    assert tuple(tile.said[key] for key in ("reward", "rolling", "rate", "episode")) == (
        "+1.00",
        "318.0",
        "2\u2009184",
        "3",
    )
    assert tuple(tile.said[key] for key in ("age", "ageTone", "banner", "state")) == ("4 ms", "good", "", "live")
    tile.consumer.stop()


def test_figures_are_written_so_that_they_fit() -> None:
    """Signs, thousands, and numbers that are none."""
    assert [reward_text(value) for value in (0.0, -0.1, 1e9, float("nan"))] == ["0.00", "-0.10", "+1.00e+09", "nan"]
    assert [return_text(value) for value in (0.714, 241.71, float("inf"))] == ["0.71", "241.7", "∞"]
    assert [rate_text(value) for value in (0.0, 9.5, 12345.6, float("nan"))] == ["0.0", "9.5", "12\u2009346", "nan"]
    assert [age_text(value) for value in (4.2, 1800.0, 600_000.0)] == ["4 ms", "1.8 s", "10 min"]


# ---- presenters ----


def test_lanes_are_named_by_the_presenter_of_their_type() -> None:
    """A type is registered once; any other is the default one's."""
    register(PlainPresenter("rover", "Rover"))
    infos = [RingInfo(run="a1", worker="rover-2"), RingInfo(run="b2", worker="train", run_name="ppo", env_count=8)]
    rover, other = lanes_of(infos)
    assert (rover.name, rover.title) == ("Rover-Live-2", "rover-2")
    assert (other.name, other.title, other.subtitle) == ("Python-Live-train", "ppo", "train · 8 envs")
    assert presenter_for("nobody").tab_name("x") == "Python-Live-x"
    with pytest.raises(ValueError, match="register it once"):
        register(PlainPresenter("rover", "Another"))
