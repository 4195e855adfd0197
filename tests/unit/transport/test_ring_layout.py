"""The bytes of a ring are those of the drawing in `ring_layout.py`; what is none of ours is refused in words."""

import re
import struct
import sys
from pathlib import Path
from zlib import adler32

import pytest

from runlane.config.errors import FastLaneError
from runlane.transport import ring_layout
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.lease import LEASE_NS, Lease
from runlane.transport.ring_files import MAX_NAME, new_name
from runlane.transport.ring_layout import (
    CHANNELS,
    CHECK_OFFSET,
    CLOSED,
    FIELDS,
    FIELDS_OFFSET,
    GENERATION,
    HEAD,
    HEAD_BYTES,
    INFO_OFFSET,
    LEASE,
    LEASE_BYTES,
    LEASES,
    MAX_SIDE,
    SLOT_HEADER_BYTES,
    SLOTS_HEADER_BYTES,
    VERSION,
    Geometry,
    HeadHeader,
    Hud,
    RingInfo,
    check_of,
    check_of_copy,
    decode_head,
    decode_slots,
    encode_head,
    encode_slots,
    is_ordered,
    slots_header,
)

INFO = RingInfo(run="r", worker="w", stream="s", run_name="n", host="h", env_count=2)
HEADER = HeadHeader(0x1122, 0x33, 0x0102030405060708)
HUD = Hud(7, 8, 9, 3 + (4 << 32), 5, 6, 0.5, -1.0, 2.0, 60.0)

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="these bytes were written on such a machine")


def encoded_slots() -> tuple[bytearray, int]:
    """The header of a file of three slots, and the size of the file."""
    header = slots_header(1, 3, Geometry(2, 1, 3), is_checked=False)
    return bytearray(encode_slots(header).ljust(SLOTS_HEADER_BYTES, b"\0")), header.file_bytes


# ---- golden bytes ----------------------------------------------------------------------------------------


def test_the_head_is_drawn_as_it_is() -> None:
    """Magic, version, maker and time of birth; the words where the drawing has them; then whose it is."""
    head = encode_head(HEADER, INFO)
    assert head[:32].hex() == (
        "524c464c"  # RLFL
        "0100"  # version
        "0000"
        "2211000000000000"  # pid
        "3300000000000000"  # started
        "0807060504030201"  # created_ns
    )
    assert not any(head[32:INFO_OFFSET])
    assert head[INFO_OFFSET : INFO_OFFSET + 58].hex() == (
        "36000000"  # length of the map
        "86a372756ea172a6776f726b6572a177a673747265616da173a872756e5f6e616d65a16ea4686f7374a168a9656e765f636f756e7402"
    )
    assert not any(head[INFO_OFFSET + 58 :])
    assert (GENERATION * 8, HEAD * 8, CLOSED * 8, LEASE * 8) == (64, 72, 80, 128)
    assert LEASE * 8 + LEASES * LEASE_BYTES == INFO_OFFSET == 640
    assert len(head) == HEAD_BYTES == 4096


def test_a_lease_is_drawn_as_it_is() -> None:
    """Who, until when, how often, which environment, and what was read last."""
    head = bytearray(HEAD_BYTES)
    Lease(memoryview(head).cast("Q"), viewer=8).mark(1_000, 12.5, tile=3, seen=9)
    assert (
        head[128:192].hex()
        == (
            "0800000000000000"  # viewer
            + (1_000 + LEASE_NS).to_bytes(8, "little").hex()
            + "d430000000000000"  # rate_mhz
            "0300000000000000"  # tile
            "0900000000000000"  # seen
        ).ljust(128, "0")
    )
    assert not any(head[:128] + head[192:])


def test_the_slots_header_is_drawn_as_it_is() -> None:
    """Magic, version, generation, slots and their size, then a frame's."""
    data = encode_slots(slots_header(5, 3, Geometry(160, 120, 4), is_checked=True))
    assert data.hex() == (
        "524c4653"  # RLFS
        "0100"  # version
        "0000"
        "0500000000000000"  # generation
        "0300000000000000"  # slots
        "802c010000000000"  # slot_bytes: 128 + 76,800, a multiple of 64
        "002c010000000000"  # frame_bytes
        "a000000000000000"  # width
        "7800000000000000"  # height
        "0400000000000000"  # channels
        "0100000000000000"  # checked
    )
    assert SLOTS_HEADER_BYTES == 4096


def test_a_slot_is_drawn_as_it_is(tmp_path: Path) -> None:
    """Number, fields, check, zero to 128, pixels; frame 1 of a ring of three is in slot 1."""
    writer = FastLaneWriter(tmp_path, INFO, FastLaneConfig(3, is_checked=True), [tmp_path])
    writer.publish(memoryview(b"\1\2\3\4\5\6").cast("B", (1, 2, 3)), HUD)
    data = writer.path.with_name(f"{writer.path.name}.1").read_bytes()
    writer.close()
    slot = data[4096 + 192 : 4096 + 2 * 192]
    assert slot[:80].hex() == (
        "0100000000000000"  # number
        "0700000000000000"  # step_seq
        "0800000000000000"  # t_ns
        "0900000000000000"  # mono_ns
        "0300000004000000"  # place: episode 3, step 4
        "05000000"  # env_index
        "06000000"  # tile
        "000000000000e03f"  # last_reward
        "000000000000f0bf"  # episode_return
        "0000000000000040"  # rolling_return
        "0000000000004e40"  # step_rate_hz
    )
    assert struct.unpack("<Q", slot[80:88]) == (adler32(slot[:80] + slot[128:134]),)
    assert not any(slot[88:128])
    assert slot[128:] == b"\1\2\3\4\5\6".ljust(64, b"\0")
    assert not any(data[4096 : 4096 + 192] + data[4096 + 2 * 192 :])
    assert len(data) == 4096 + 3 * 192


def test_every_word_has_an_address_that_its_size_divides() -> None:
    """So the machine stores and loads it whole: fields of a slot, numbers, checks, leases."""
    assert FIELDS.size == struct.calcsize("=QqqQIIdddd")  # no gaps
    assert FIELDS_OFFSET + FIELDS.size == CHECK_OFFSET
    assert FIELDS_OFFSET % 8 == CHECK_OFFSET % 8 == LEASE_BYTES % 8 == SLOT_HEADER_BYTES % 64 == 0
    for geometry in (Geometry(1, 1, 1), Geometry(84, 84, 3), Geometry(159, 1, 4)):
        header = slots_header(1, 5, geometry, is_checked=False)
        assert [header.slot_offset(number) % 64 for number in range(5)] == [0] * 5
        assert 0 <= header.slot_bytes - SLOT_HEADER_BYTES - geometry.frame_bytes < 64


def test_a_frames_slot_is_its_number_modulo_the_slots() -> None:
    """Whatever their count, also one that is no power of two."""
    header = slots_header(1, 3, Geometry(2, 1, 3), is_checked=False)
    assert [header.slot_offset(number) for number in (0, 1, 2, 3, 7)] == [4096 + 192 * slot for slot in (0, 1, 2, 0, 1)]
    assert header.file_bytes == 4096 + 3 * 192


def test_names_have_thirty_characters_at_most() -> None:
    """Also with a generation of seven digits."""
    name = new_name(Path("/a/very/long/run/directory" * 10))
    assert re.fullmatch(r"rl-[0-9a-f]{10}-[0-9a-f]{8}", name)
    assert len(f"{name}.9999999") == MAX_NAME == 30


# ---- there and back --------------------------------------------------------------------------------------


def test_a_head_comes_back_equal() -> None:
    """What it says of its maker, and whose it is."""
    assert decode_head(encode_head(HEADER, INFO)) == (HEADER, INFO)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("is_checked", [False, True])
def test_a_slots_header_comes_back_equal(channels: int, is_checked: bool) -> None:
    """For every kind of pixel, up to the largest frame."""
    for side in (1, MAX_SIDE):
        header = slots_header(9, 2, Geometry(side, 1, channels), is_checked=is_checked)
        data = encode_slots(header).ljust(SLOTS_HEADER_BYTES, b"\0")
        assert decode_slots(data, header.file_bytes) == header
        assert decode_slots(memoryview(data), header.file_bytes + 1) == header


def test_a_gray_frame_has_no_axis_of_channels() -> None:
    """As environments give it."""
    assert (Geometry(4, 3, 1).shape, Geometry(4, 3, 3).shape) == ((3, 4), (3, 4, 3))


def test_episode_and_step_stand_in_one_word() -> None:
    """So they belong together."""
    assert (HUD.episode, HUD.step) == (3, 4)


def test_what_a_reader_copied_has_the_check_of_what_was_written() -> None:
    """Number, fields and pixels; another number of the same frame has another check."""
    pixels = bytes(range(48))
    written = (11).to_bytes(8, sys.byteorder) + FIELDS.pack(*HUD)
    assert check_of(written, pixels) == check_of_copy(11, HUD, pixels) != check_of_copy(12, HUD, pixels)
    assert check_of_copy(11, HUD, pixels) != check_of_copy(11, HUD, bytes(48))


@pytest.mark.parametrize(
    ("machine", "expected"), [("x86_64", True), ("AMD64", True), ("aarch64", False), ("riscv64", False), ("", False)]
)
def test_only_x86_needs_no_check(monkeypatch: pytest.MonkeyPatch, machine: str, expected: bool) -> None:
    """Of the processors that this runs on; of another one nothing is assumed."""
    monkeypatch.setattr(ring_layout.platform, "machine", lambda: machine)
    assert is_ordered() is expected


# ---- refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "written", "expected"),
    [
        (0, b"RLFX", "no head of a ring: it begins with b'RLFX', not b'RLFL'"),
        (0, b"RLFS", "no head of a ring"),
        (4, b"\2\0", "the ring's head has layout version 2, this runlane reads 1: upgrade"),
        (INFO_OFFSET, b"\0\0\0\0", "does not say whose it is"),
        (INFO_OFFSET, b"\xff\xff\xff\xff", "does not say whose it is"),
        (INFO_OFFSET + 4, b"\xc1", "does not say whose it is"),
        (INFO_OFFSET + 4, b"\x80", "does not say whose it is"),
    ],
)
def test_a_head_that_is_none_is_refused(offset: int, written: bytes, expected: str) -> None:
    """Of something else, of another version, or damaged: one error each, never another exception."""
    head = bytearray(encode_head(HEADER, INFO))
    head[offset : offset + len(written)] = written
    with pytest.raises(FastLaneError, match=expected):
        decode_head(head)


def test_a_short_head_is_refused() -> None:
    """Whatever it begins with."""
    with pytest.raises(FastLaneError, match="the ring's head has 4095 bytes, not 4096"):
        decode_head(encode_head(HEADER, INFO)[:-1])


@pytest.mark.parametrize(
    ("offset", "word", "expected"),
    [
        (0, (VERSION << 32) + 0x4C464C52, "no slots file of a ring"),
        (0, (VERSION + 1 << 32) + 0x53464C52, "has layout version 2"),
        (16, 0, "contradicts itself"),
        (16, 4, "contradicts itself"),
        (16, 1 << 63, "contradicts itself"),
        (24, 128, "contradicts itself"),
        (32, 5, "contradicts itself"),
        (40, 0, "a frame of 0 x 1 pixels"),
        (48, MAX_SIDE + 1, f"1 to {MAX_SIDE} pixels a side"),
        (56, 2, "with 2 channels: .* gray, RGB or RGBA"),
    ],
)
def test_a_slots_file_that_is_none_is_refused(offset: int, word: int, expected: str) -> None:
    """Magic, version, a count or size that does not fit the others or the file: one error, never another exception."""
    data, size = encoded_slots()
    data[offset : offset + 8] = word.to_bytes(8, "little")
    with pytest.raises(FastLaneError, match=expected):
        decode_slots(data, size)


def test_a_slots_file_of_another_size_is_refused() -> None:
    """One byte too few for its slots, or too few for a header."""
    data, size = encoded_slots()
    assert decode_slots(data, size).slots == 3
    with pytest.raises(FastLaneError, match=f"of {size - 1} bytes contradicts itself"):
        decode_slots(data, size - 1)
    with pytest.raises(FastLaneError, match="the ring's slots file has 4095 bytes"):
        decode_slots(data[:-1], size)


@pytest.mark.parametrize(
    "geometry", [(0, 1, 3), (1, 0, 3), (-1, 1, 3), (MAX_SIDE + 1, 1, 3), (1, 1, 0), (1, 1, 2), (1, 1, 5)]
)
def test_a_size_no_frame_has_is_refused(geometry: tuple[int, int, int]) -> None:
    """Before any file is made for it."""
    with pytest.raises(FastLaneError, match="give 1 to 16384 pixels a side, and gray, RGB or RGBA"):
        slots_header(1, 4, Geometry(*geometry), is_checked=False)


def test_names_too_long_for_a_head_are_refused() -> None:
    """They would stand nowhere."""
    with pytest.raises(FastLaneError, match="3452 have room: shorten them"):
        encode_head(HEADER, RingInfo(run="r" * HEAD_BYTES, worker="w"))
