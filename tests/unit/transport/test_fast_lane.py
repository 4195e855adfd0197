"""A ring's writer and its readers: the newest frame, with its own HUD, in every size; and who lets go of what."""
# pyright: reportPrivateUsage=false
# Damage is done where only a writer can reach.

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.transport.lane_rig import INFO, SHAPE, Attach, Make, frame, open_files, readers, seen, show, writers

from runlane.config.errors import FastLaneError
from runlane.transport.fast_lane_reader import FastLaneMetrics
from runlane.transport.fast_lane_writer import MAX_SLOTS, FastLaneConfig, FastLaneWriter, started_ticks
from runlane.transport.ring_files import find_rings, is_locked, open_head, sweep_rings
from runlane.transport.ring_layout import GENERATION, HEAD, Geometry, Hud


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes rings."""
    yield from writers(tmp_path)


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Attaches readers."""
    yield from readers(tmp_path)


# ---- frames ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5, 4), (4, 5, 1), (4, 5), (1, 1), (84, 84, 3), (7, 3, 3)])
def test_a_frame_comes_out_as_it_went_in(make: Make, attach: Attach, shape: tuple[int, ...]) -> None:
    """RGB, RGBA and gray, with its size and every field of its HUD."""
    writer = make()
    reader = attach(writer)
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    hud = Hud(1, -2, 3, (4 << 32) + 5, 6, 7, -0.5, float("inf"), 1e300, 60.0)
    writer.publish(pixels, hud)
    into = np.zeros_like(pixels)
    assert reader.geometry == Geometry(shape[1], shape[0], shape[2] if len(shape) == 3 else 1)
    assert reader.read_into(into) == hud
    assert (into == pixels).all()
    assert reader.info == INFO
    assert reader.header.pid == os.getpid()
    assert reader.header.started == started_ticks(os.getpid()) > 0


def test_there_is_nothing_before_the_first_frame(make: Make, attach: Attach) -> None:
    """No size, no frame, no age; the maker lives."""
    reader = attach(make())
    assert (reader.geometry, reader.has_news, reader.read(), reader.read_into(bytearray(1))) == (
        None,
        False,
        None,
        None,
    )
    assert reader.metrics(5) == FastLaneMetrics(0, 0, 0, 0, None)
    assert reader.is_writer_alive


def test_nothing_is_read_while_the_head_stands_still(make: Make, attach: Attach) -> None:
    """A frame is news once, also one that was there before the reader."""
    writer = make()
    show(writer, 1)
    reader = attach(writer)
    buffer = bytearray(60)
    assert reader.has_news
    assert reader.read_into(buffer) is not None
    buffer[:] = bytes(60)
    assert not reader.has_news
    assert (reader.read_into(buffer), reader.read(), buffer) == (None, None, bytes(60))
    show(writer, 2)
    assert seen(reader) == 2


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5, 7, MAX_SLOTS])
def test_the_newest_wins_and_the_others_are_lapped(make: Make, attach: Attach, slots: int) -> None:
    """Whatever the count of slots: frames and lapped are together all since the first one read."""
    writer = make(slots)
    reader = attach(writer)
    show(writer, 1, 2)
    published = 2
    assert seen(reader) == 2
    for count in [1, 3, slots, slots + 1, 2 * slots, 1]:
        show(writer, *range(published + 1, published + count + 1))
        published += count
        assert reader.metrics(0).lag_frames == count
        assert seen(reader) == published
        assert reader.frames + reader.lapped == published - 1
    assert reader.metrics(published * 1_000_000 + 500_000) == FastLaneMetrics(7, published - 8, 0, 0, 0.5)


def test_readers_do_not_know_of_each_other(make: Make, attach: Attach) -> None:
    """Each has its own place; one that exits takes nothing from the others or the ring."""
    writer = make()
    first, second = attach(writer), attach(writer)
    show(writer, 1)
    assert (seen(first), seen(first), seen(second)) == (1, None, 1)
    first.close()
    show(writer, 2)
    assert seen(second) == 2
    assert writer.path.exists()
    assert attach(writer).is_writer_alive


def test_a_buffer_is_never_mistaken_for_another(make: Make, attach: Attach) -> None:
    """The one used last is remembered, and only that."""
    writer = make()
    reader = attach(writer)
    first, second = bytearray(60), np.zeros(SHAPE, np.uint8)
    for number, buffer in enumerate([first, first, second, first, second, second, first], start=1):
        show(writer, number)
        assert reader.read_into(buffer) is not None
        assert set(bytes(buffer)) == {number}
    assert set(second.tobytes()) == {6}


def test_what_read_gives_out_is_the_callers_alone(make: Make, attach: Attach) -> None:
    """It may be cut and thrown away; and no view of shared memory ever leaves."""
    writer = make()
    reader = attach(writer)
    show(writer, 1)
    found = reader.read()
    assert found is not None
    found[1].clear()
    show(writer, 2)
    assert seen(reader) == 2
    reader.close()


@pytest.mark.parametrize(
    ("buffer", "expected"),
    [
        (bytearray(59), "a buffer of 59 bytes for a frame of Geometry"),
        (bytearray(61), "a buffer of 61 bytes for a frame of Geometry"),
        (bytearray(0), "a buffer of 0 bytes"),
        (bytes(60), "into bytes, which is read-only"),
        (np.zeros((4, 10, 3), np.uint8)[:, ::2], "cannot be copied into ndarray"),
        (np.zeros(SHAPE), "a buffer of 480 bytes"),
        ([0] * 60, "cannot be copied into list"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(make: Make, attach: Attach, buffer: Any, expected: str) -> None:
    """In words, each time, and the frame is still news."""
    writer = make()
    reader = attach(writer)
    show(writer, 1)
    for _ in range(2):
        with pytest.raises(FastLaneError, match=expected):
            reader.read_into(buffer)
    assert seen(reader) == 1


def test_the_slots_cannot_be_written_by_a_reader(make: Make, attach: Attach) -> None:
    """They are mapped read-only, so no reader harms what another one sees."""
    writer = make()
    reader = attach(writer)
    show(writer, 1)
    assert seen(reader) == 1
    assert reader._view.readonly
    with pytest.raises(TypeError):
        reader._map[0] = 1
    maps = Path("/proc/self/maps").read_text().splitlines()
    rights = [line.split()[1] for line in maps if line.endswith(f"{writer.path.name}.1")]
    assert sorted(rights) == ["r--s", "rw-s"]


# ---- what is no frame ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (np.zeros((4, 10, 3), np.uint8)[:, ::2], "a frame must be uint8 in C order"),
        (np.asfortranarray(np.zeros(SHAPE, np.uint8)), "a frame must be uint8 in C order"),
        (np.zeros(SHAPE, np.float32), "a frame must be uint8 in C order"),
        (np.zeros(SHAPE, np.int16), "a frame must be uint8 in C order"),
        (np.zeros((4, 5, 2), np.uint8), "5 x 4 pixels with 2 channels"),
        (np.zeros((0, 5, 3), np.uint8), "5 x 0 pixels"),
        (np.zeros((1, 1 << 15, 1), np.uint8), "give 1 to 16384 pixels a side"),
        (np.zeros(60, np.uint8), r"a frame of shape \(60,\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"a frame of shape \(1, 4, 5, 3\)"),
        (np.uint8(1), r"a frame of shape \(\)"),
        (bytes(60), "a frame of type bytes"),
        ([[[1, 2, 3]]], "a frame of type list"),
        (None, "a frame of type NoneType"),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_what_is_no_frame_is_one_clear_error(
    make: Make, attach: Attach, bad: Any, expected: str, is_first: bool
) -> None:
    """Before the first frame and later: no number is used up, readers keep what they had, and the ring goes on."""
    writer = make()
    reader = attach(writer)
    if not is_first:
        show(writer, 1)
        assert seen(reader) == 1
    for _ in range(2):
        with pytest.raises(FastLaneError, match=expected):
            writer.publish(bad)
        assert seen(reader) is None
    show(writer, 2)
    assert (seen(reader), reader.frames + reader.lapped) == (2, 2 - is_first)


@pytest.mark.parametrize("hud", [(1, 2), (None,) * 10, (1 << 64, *[0] * 9), (-1, *[0] * 9), (*[0] * 9, 10**400)])
def test_what_is_no_hud_is_one_clear_error(make: Make, attach: Attach, hud: tuple[Any, ...]) -> None:
    """And the ring goes on."""
    writer = make(1)
    reader = attach(writer)
    with pytest.raises(FastLaneError, match="its HUD ten numbers"):
        writer.publish(frame(1), hud)
    assert seen(reader) is None
    show(writer, 2)
    assert seen(reader) == 2


@pytest.mark.parametrize("slots", [0, -1, MAX_SLOTS + 1])
def test_a_count_of_slots_no_ring_has_is_refused(slots: int) -> None:
    """At construction."""
    with pytest.raises(FastLaneError, match=f"slots = {slots}: a ring has 1 to 64"):
        FastLaneConfig(slots)


# ---- frames that change their size -----------------------------------------------------------------------


def test_another_size_begins_a_generation_and_readers_follow(make: Make, attach: Attach) -> None:
    """The old slots are removed, numbers go on, and what was lapped is counted over both."""
    writer = make()
    reader = attach(writer)
    show(writer, 1)
    assert seen(reader) == 1
    for generation, shape in enumerate([(6, 6), SHAPE, (5, 5, 4)], start=2):
        show(writer, 10 * generation, 10 * generation + 1, shape=shape)
        left = sorted(path.name for path in writer.path.parent.glob(f"{writer.path.name}*"))
        assert left == [writer.path.name, f"{writer.path.name}.{generation}"]
        assert seen(reader) == 10 * generation + 1
        assert reader.geometry is not None
        assert reader.geometry.shape == shape
    assert (reader.frames, reader.lapped, writer.metrics().generation) == (4, 3, 4)
    assert writer.metrics().bytes == 60 + 2 * 36 + 2 * 60 + 2 * 100


def test_a_reader_may_miss_any_number_of_generations(make: Make, attach: Attach) -> None:
    """Those before its first look, too."""
    writer = make()
    reader = attach(writer)
    for number in range(1, 6):
        show(writer, number, shape=(number, 2, 3))
    assert seen(reader) == 5
    for number in range(6, 9):
        show(writer, number, shape=(number, 2, 3))
    assert seen(reader) == 8
    assert seen(attach(writer)) == 8


def test_a_buffer_of_the_old_size_is_refused(make: Make, attach: Attach) -> None:
    """Also the one that is remembered; the new size is said then."""
    writer = make()
    reader = attach(writer)
    buffer = bytearray(60)
    show(writer, 1)
    assert reader.read_into(buffer) is not None
    show(writer, 2, shape=(4, 4, 3))
    with pytest.raises(FastLaneError, match=r"a buffer of 60 bytes for a frame of Geometry.width=4, height=4"):
        reader.read_into(buffer)
    assert seen(reader) == 2


def test_a_generation_without_a_frame_yet_has_none(make: Make, attach: Attach) -> None:
    """A reader that comes between the two words sees the new size and waits; nor are the old slots read for it."""
    for slots in (1, 2, 4):
        writer = make(slots)
        attached = attach(writer)
        show(writer, 1, 2, 3)
        assert seen(attached) == 3
        show(writer, 4)
        writer._resize((6, 6))
        late = attach(writer)
        assert (seen(attached), seen(late)) == (None, None)
        assert attached.geometry == late.geometry == Geometry(6, 6, 1)
        show(writer, 5, shape=(6, 6))
        assert (seen(attached), seen(late)) == (5, 5)


# ---- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "word", "expected"),
    [(0, 0, "no slots file of a ring"), (8, 2, "say generation 2"), (16, 0, "contradicts"), (40, 9, "contradicts")],
)
def test_damaged_slots_are_one_clear_error(make: Make, attach: Attach, offset: int, word: int, expected: str) -> None:
    """Each time they are read; and without keeping them open."""
    writer = make()
    show(writer, 1)
    reader = attach(writer)
    before = open_files()
    writer._words[offset // 8] = word
    for _ in range(3):
        with pytest.raises(FastLaneError, match=expected):
            reader.read()
    assert open_files() == before


def test_a_head_that_promises_frames_without_slots_has_none(make: Make, attach: Attach) -> None:
    """Damaged, or of a maker that died: whatever its words say, nothing is read."""
    writer = make()
    reader = attach(writer)
    for generation, newest in [(0, 5), (3, 5), ((1 << 64) - 1, 1)]:
        writer._head[GENERATION], writer._head[HEAD] = generation, newest
        assert (reader.geometry, reader.read(), reader.read_into(bytearray(60))) == (None, None, None)


# ---- the end ---------------------------------------------------------------------------------------------


def test_a_closed_ring_is_gone_and_still_read(make: Make, attach: Attach, tmp_path: Path) -> None:
    """By who has it open, to its last frame; nobody else finds it. Closing twice is harmless, on both sides."""
    writer = make()
    reader, late = attach(writer), attach(writer)
    show(writer, 1)
    assert seen(reader) == 1
    show(writer, 2)
    writer.close()
    writer.close()
    writer.forget()
    assert not reader.is_writer_alive
    assert (seen(reader), seen(late)) == (2, None)
    assert find_rings(tmp_path) == []
    with pytest.raises(FastLaneError, match="cannot be opened: No such file"):
        attach(writer)
    reader.close()
    reader.close()


def test_a_closed_ring_takes_no_frames_and_makes_no_files(make: Make) -> None:
    """Whatever is published: the names would be swept by nobody who looks for their head."""
    for is_used in (False, True):
        writer = make()
        if is_used:
            show(writer, 1)
        writer.close()
        with pytest.raises(FastLaneError, match=f"ring {writer.path.name} is closed"):
            show(writer, 2)
        assert list(writer.path.parent.glob(f"{writer.path.name}*")) == []
        assert writer.metrics().frames == is_used


def test_nothing_stays_open(make: Make, attach: Attach) -> None:
    """Rings, generations and readers come and go; the descriptors are as many as before."""
    before = open_files()
    for _ in range(5):
        writer = make()
        readers = [attach(writer), attach(writer)]
        for number in range(1, 5):
            show(writer, number, shape=(number, 2))
            assert [seen(reader) for reader in readers] == [number, number]
        for closable in (*readers, writer):
            closable.close()
    assert open_files() == before


def test_a_writer_that_is_forgotten_removes_its_ring(tmp_path: Path) -> None:
    """As at the end of a script that never closed it, or that failed."""
    writer = FastLaneWriter(tmp_path, INFO)
    path = writer.path
    show(writer, 1)
    del writer
    gc.collect()
    assert list(path.parent.glob(f"{path.name}*")) == []


def in_child(action: Callable[[], object]) -> None:
    """Do something in a forked child, which then ends; fails when it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # another thread is watching the time; the child has none
        pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:  # nothing of the parent's may run in the child
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("ending", ["close", "forget", "collect", "nothing"])
def test_a_forked_child_takes_nothing_from_its_parents_ring(
    make: Make, attach: Attach, tmp_path: Path, ending: str
) -> None:
    """However it lets go: the files and the lock are the parent's, and its readers go on."""
    writer = make()
    reader = attach(writer)
    show(writer, 1)

    def let_go() -> None:
        if ending == "collect":
            writer.__del__()
        elif ending != "nothing":
            getattr(writer, ending)()
            with pytest.raises(FastLaneError, match="is closed"):
                show(writer, 9)

    in_child(let_go)
    fd = open_head(writer.path)
    assert is_locked(fd)
    os.close(fd)
    assert reader.is_writer_alive
    assert [ring.path for ring in find_rings(tmp_path)] == [writer.path]
    assert sweep_rings(tmp_path) == []
    show(writer, 2)
    assert (seen(reader), seen(attach(writer))) == (2, 2)
    writer.close()
    assert not writer.path.exists()
