"""A ring's writer and reader interleaved: wherever either is stopped, no frame is ever a mixture of two."""
# pyright: reportPrivateUsage=false
# Only with their innermost parts can a writer and a reader be stopped half way.

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.transport.lane_rig import Attach, Make, frame, readers, seen, show, writers

from runlane.config.errors import FastLaneError
from runlane.transport import fast_lane_reader
from runlane.transport.fast_lane_reader import ATTEMPTS, FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_layout import HEAD, Hud


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes rings."""
    yield from writers(tmp_path)


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Attaches readers."""
    yield from readers(tmp_path)


# ---- interleavings ---------------------------------------------------------------------------------------


def half_way(writer: FastLaneWriter, number: int) -> Iterator[str]:
    """Publish a frame store by store, in the writer's order."""
    count = writer.frames + 1
    word, fields, pixels = writer._slots[count % writer._slot_count]
    hud = struct.pack("@QqqQIIdddd", *Hud(step_seq=number))
    data = frame(number).tobytes()
    writer._words[word] = count
    yield "the number is stored"
    writer._map[fields : fields + 20] = hud[:20]
    yield "the fields are half written"
    writer._map[fields : fields + len(hud)] = hud
    yield "the fields are written"
    writer._map[pixels.start : pixels.start + 31] = data[:31]
    yield "the pixels are half copied"
    writer._map[pixels] = data
    writer._put_check(word, data)
    yield "the pixels are copied"
    writer.frames = count
    writer._head[HEAD] = count
    yield "the head is stored"


class Interrupted:
    """A reader's words; before one of its looks at a number something else happens."""

    def __init__(self, words: Any, look: int, meanwhile: Callable[[], object]) -> None:
        self._words, self._look, self._meanwhile = words, look, meanwhile

    def __getitem__(self, word: int) -> int:
        self._look -= 1
        if self._look == -1:
            self._meanwhile()
        return int(self._words[word])

    def release(self) -> None:
        """As a memoryview."""
        self._words.release()


def interrupt(reader: FastLaneReader, look: int, meanwhile: Callable[[], object]) -> None:
    """Let something happen before the reader looks at a number for the `look`-th time, from 0."""
    assert reader.geometry is not None
    reader._words = Interrupted(reader._words, look, meanwhile)


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("is_checked", [False, True])
def test_a_writer_stopped_half_way_shows_the_frame_before_or_nothing(
    make: Make, attach: Attach, slots: int, is_checked: bool
) -> None:
    """At every store, for a reader that knows the ring and for a new one; with one slot there is none before."""
    writer = make(slots, is_checked=is_checked)
    show(writer, 1, 2)
    for number in range(3, 3 + 2 * slots):
        attached = attach(writer)
        assert seen(attached) == number - 1
        for moment in half_way(writer, number):
            is_over = moment == "the head is stored"
            assert seen(attached) == (number if is_over else None), moment
            expected = number if is_over else number - 1 if slots > 1 else None
            assert seen(attach(writer)) == expected, moment


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("look", [0, 1, 2, 3])
@pytest.mark.parametrize("more", [1, 2, 3, 4, 5, 9])
def test_a_reader_overtaken_at_any_moment_gets_a_whole_frame_or_none(
    make: Make, attach: Attach, slots: int, look: int, more: int
) -> None:
    """Before it looks at the number, between its copy and its second look: the writer may be anywhere by then."""
    writer = make(slots)
    for stop in range(7):
        reader = attach(writer)
        show(writer, 1, 2)

        def meanwhile(stop: int = stop) -> None:
            show(writer, *range(3, 3 + more))
            for _, _ in zip(range(stop), half_way(writer, 3 + more), strict=False):
                pass

        interrupt(reader, look, meanwhile)
        assert seen(reader) in (None, 2, *range(3, 4 + more))
        assert reader.torn <= ATTEMPTS
        writer.frames = writer._head[HEAD]


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("more", range(1, 10))
def test_fields_and_pixels_of_two_frames_are_never_given_out_together(
    make: Make, attach: Attach, monkeypatch: pytest.MonkeyPatch, slots: int, more: int
) -> None:
    """The writer goes on between a reader's copies of the two; what is thrown away is counted as torn."""
    writer = make(slots)
    reader = attach(writer)
    show(writer, 1)
    pending = [range(2, 2 + more)]
    take = fast_lane_reader._take_fields

    def take_slowly(data: Any, offset: int) -> tuple[Any, ...]:
        fields = take(data, offset)
        show(writer, *(pending.pop() if pending else ()))
        return fields

    monkeypatch.setattr(fast_lane_reader, "_take_fields", take_slowly)
    expected = 1 if more < slots else 1 + more
    assert (seen(reader), reader.torn) == (expected, more >= slots)


def test_a_reader_gives_up_when_it_is_overtaken_again_and_again(make: Make, attach: Attach) -> None:
    """It never waits: after three torn copies it says that there is nothing, and tries again when asked."""
    writer = make(1)
    reader = attach(writer)
    show(writer, 1)
    assert reader.geometry is not None
    words = reader._words
    numbers = [4, 3, 2]
    for look in (1, 3, 5):  # the second look of each attempt
        words = Interrupted(words, look, lambda: show(writer, numbers.pop()))
    reader._words = words
    assert (seen(reader), reader.torn, reader.frames) == (None, ATTEMPTS, 0)
    assert (seen(reader), reader.lapped) == (4, 0)


# ---- processors that do not keep the order ----------------------------------------------------------------


def test_a_pixel_changed_behind_the_writers_back_is_found(make: Make, attach: Attach) -> None:
    """Where every slot has its check; and a field as well."""
    for offset in (0, 59, -60, -120):
        writer = make(is_checked=True)
        reader = attach(writer)
        show(writer, 1)
        pixels = writer._slots[1][2]
        writer._map[pixels.start + offset] ^= 1
        assert (seen(reader), reader.torn) == (None, ATTEMPTS)
        show(writer, 2)
        assert seen(reader) == 2


def test_a_number_seen_before_the_rest_of_its_frame_is_found(make: Make, attach: Attach) -> None:
    """All else in the slot is that of the frame before, whose check fits it."""
    writer = make(2, is_checked=True)
    reader = attach(writer)
    show(writer, 1)
    writer._words[writer._slots[1][0]] = 3
    writer._head[HEAD] = 3
    assert (seen(reader), reader.torn) == (None, ATTEMPTS)


def test_fields_seen_before_the_rest_of_their_frame_are_found(
    make: Make, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is that of what was copied, not of what stands there by then."""
    writer = make(1, is_checked=True)
    reader = attach(writer)
    show(writer, 1)

    def take(_: object, __: int) -> Hud:
        return Hud(step_seq=7)

    monkeypatch.setattr(fast_lane_reader, "_take_fields", take)
    assert (seen(reader), reader.torn) == (None, ATTEMPTS)


@pytest.mark.parametrize("slots", [1, 4])
def test_checked_rings_give_the_same_frames(make: Make, attach: Attach, slots: int) -> None:
    """Also with a HUD that holds no numbers."""
    writer = make(slots, is_checked=True)
    reader = attach(writer)
    for number in range(1, 10):
        show(writer, number)
        assert seen(reader) == number
    writer.publish(frame(1), Hud(last_reward=float("nan"), rolling_return=float("-inf")))
    assert reader.read() is not None
    assert reader.torn == 0


# ---- what failed ------------------------------------------------------------------------------------------


def test_a_frame_that_failed_is_not_taken_for_one_of_the_next_generation(make: Make, attach: Attach) -> None:
    """It left its number in a slot of the old one, and the next frame, of another size, has the same number."""
    writer = make(1)
    reader = attach(writer)
    show(writer, 1)
    assert seen(reader) == 1
    show(writer, 2)

    def meanwhile() -> None:
        with pytest.raises(FastLaneError):
            writer.publish(frame(3).astype(np.float32), Hud(step_seq=3))
        show(writer, 4, shape=(6, 6))

    interrupt(reader, 1, meanwhile)
    assert seen(reader) is None
    assert seen(reader) == 4


def test_a_size_that_changes_in_the_midst_of_a_read_is_no_error(
    make: Make, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that takes what it gets need not know of sizes; it may get the frame before."""
    writer = make()
    reader = attach(writer)
    follow = reader._follow
    sizes = [(6, 6), (7, 7), (8, 8)]

    def follow_slowly() -> bool:
        found = follow()
        if sizes:
            show(writer, writer.frames + 1, shape=sizes.pop())
        return found

    monkeypatch.setattr(reader, "_follow", follow_slowly)
    show(writer, 1)
    assert [seen(reader) for _ in range(5)] == [1, 2, 3, 4, None]
