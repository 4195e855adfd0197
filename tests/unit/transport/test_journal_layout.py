"""The bytes of a journal are those of the drawing in `journal_layout.py`; what is none of ours is refused in words."""

import re
import struct
from pathlib import Path
from zlib import adler32

import pytest

from runlane.config.errors import JournalError
from runlane.config.names import KINDS
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import (
    ACKED,
    CLOSED,
    END,
    HEAD_BYTES,
    HEAD_FILE,
    INFO,
    PUBLISHED,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    ROW_OFFSET,
    ROW_PREFIX,
    SEGMENT_HEADER_BYTES,
    TELLING,
    UNTOLD,
    VERSION,
    SegmentHeader,
    decode_head,
    decode_head_info,
    decode_segment_header,
    encode_head,
    encode_record,
    encode_segment_header,
    record_check,
    segment_numbers,
    segment_path,
)
from runlane.transport.wire import KIND_NUMBER

STREAM = bytes(range(16))


# ---- golden bytes ----------------------------------------------------------------------------------------


def test_the_head_is_drawn_as_it_is() -> None:
    """Magic, version, stream and time of birth; the words where the drawing has them."""
    head = encode_head(STREAM, 0x0102030405060708, b"info")
    assert head[:32].hex() == (
        "524c4a48"  # RLJH
        "0100"  # version
        "0000"
        "000102030405060708090a0b0c0d0e0f"  # stream
        "0807060504030201"  # created_ns
    )
    assert not any(head[32:512])
    assert head[512:520] == b"\x04\0\0\0info"
    assert (PUBLISHED * 8, CLOSED * 8, ACKED * 8, UNTOLD * 8, TELLING * 8) == (64, 128, 192, 256, 384)
    assert len(KINDS) <= 16
    assert len(head) == HEAD_BYTES == 4096


@pytest.mark.parametrize(("length", "kept"), [(0, 0), (1, 1), (3580, 3580), (3581, 0)])
def test_a_head_keeps_an_info_that_it_has_room_for(length: int, kept: int) -> None:
    """A longer one, which no worker has, is left out whole."""
    assert decode_head_info(encode_head(STREAM, 1, b"x" * length)) == b"x" * kept


def test_the_segments_header_is_drawn_as_it_is() -> None:
    """Magic, version, stream, number, first seq, and the check of all that."""
    data = encode_segment_header(SegmentHeader(STREAM, 7, 300))
    assert data.hex() == (
        "524c4a53"  # RLJS
        "0100"  # version
        "0000"
        "000102030405060708090a0b0c0d0e0f"  # stream
        "0700000000000000"  # number
        "2c01000000000000"  # first_seq
        "e901aa3b"  # check
    )
    assert struct.unpack("<I", data[40:]) == (adler32(data[:40]),)
    assert SEGMENT_HEADER_BYTES == 64


def test_a_record_is_drawn_as_it_is() -> None:
    """Check, length of the whole, kind, schema, seq, payload."""
    record = encode_record(KIND_NUMBER["step"], 5, 0x0A0B, b"payload")
    assert record.hex() == (
        "2103f30f"  # check
        "1b000000"  # length
        "01"  # kind
        "00"
        "0500"  # schema
        "0b0a000000000000"  # seq
        "7061796c6f6164"
    )
    assert struct.unpack("<I", record[:4]) == (adler32(record[4:]),)
    assert RECORD_HEADER_BYTES == 20
    assert record[ROW_OFFSET:] == (0x0A0B).to_bytes(8, "little") + b"payload"


def test_a_rows_prefix_is_the_records_header_without_check_and_seq() -> None:
    """So the session packs the same bytes as `encode_record` makes."""
    record = encode_record(KIND_NUMBER["step"], 5, 9, b"x" * 30)
    assert ROW_PREFIX.pack(len(record), KIND_NUMBER["step"], 5) == record[4:ROW_OFFSET]


def test_the_kinds_that_never_leave_a_journal_are_no_kinds_of_the_wire() -> None:
    """INFO and END stand beside those that are sent."""
    assert not {INFO, END} & set(KIND_NUMBER.values())


# ---- there and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [SegmentHeader(STREAM, 1, 1), SegmentHeader(b"\xff" * 16, (1 << 64) - 1, 0)])
def test_a_segments_header_comes_back_equal(header: SegmentHeader) -> None:
    """Also that of a spare, whose first seq is 0."""
    data = encode_segment_header(header).ljust(SEGMENT_HEADER_BYTES, b"\0")
    assert decode_segment_header(data) == decode_segment_header(memoryview(data)) == header


def test_a_head_comes_back_equal() -> None:
    """The stream it is of."""
    assert decode_head(encode_head(STREAM, -1).ljust(HEAD_BYTES, b"\0")) == STREAM


@pytest.mark.parametrize("payload", [b"", b"x", bytes(70_000)])
def test_a_whole_record_fits_its_check_and_no_other(payload: bytes) -> None:
    """Any byte changed, in the header or behind it, is found."""
    record = bytearray(b"??" + encode_record(3, 1, 99, payload) + b"?")
    length = len(record) - 3
    assert RECORD_HEADER.unpack_from(record, 2)[1:] == (length, 3, 1, 99)
    assert record_check(memoryview(record), 2, length)
    for offset in {*range(2, 22), 2 + length // 2, 1 + length}:
        record[offset] ^= 0x10
        assert not record_check(memoryview(record), 2, length)
        record[offset] ^= 0x10


def test_segments_are_found_by_their_names(tmp_path: Path) -> None:
    """In order of their numbers; whatever else lies there is passed over."""
    for number in (10, 2, 123_456_789):
        segment_path(tmp_path, number).touch()
    for name in ("head", "x.seg", "00000003.segment", "-0000004.seg", "0000000².seg"):
        (tmp_path / name).touch()
    assert segment_path(tmp_path, 2).name == "00000002.seg"
    assert segment_numbers(tmp_path) == [2, 10, 123_456_789]


# ---- refused ---------------------------------------------------------------------------------------------


def _head(**changes: bytes) -> bytes:
    data = bytearray(encode_head(STREAM, 1).ljust(HEAD_BYTES, b"\0"))
    data[:4] = changes.get("magic", data[:4])
    data[4:6] = changes.get("version", data[4:6])
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the head has 0 bytes, not 4096"),
        (_head()[:-1], "the head has 4095 bytes, not 4096"),
        (_head(magic=b"SQLi"), "no head of a runlane journal: it begins with b'SQLi', not b'RLJH'"),
        (_head(magic=b"RLJS"), "it begins with b'RLJS', not b'RLJH'"),
        (_head(version=b"\x02\0"), "the head has layout version 2, this runlane reads 1: upgrade runlane"),
    ],
)
def test_a_head_that_is_none_is_refused_in_words(data: bytes, message: str) -> None:
    """What was found, what was expected, and what to do about a newer one."""
    with pytest.raises(JournalError, match=re.escape(message)):
        decode_head(data)


def _segment(offset: int = 0, value: bytes = b"") -> bytes:
    data = bytearray(encode_segment_header(SegmentHeader(STREAM, 1, 1)).ljust(SEGMENT_HEADER_BYTES, b"\0"))
    data[offset : offset + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file has 0 bytes, less than a segment's header"),
        (_segment()[:63], "the file has 63 bytes"),
        (_segment(0, b"PK\x03\x04"), "no segment of a runlane journal: it begins with b'PK\\x03\\x04', not b'RLJS'"),
        (_segment(4, b"\xff\xff"), "the segment has layout version 65535, this runlane reads 1: upgrade runlane"),
        *((_segment(offset, b"\xa5"), "the segment's header is damaged") for offset in (6, 8, 23, 24, 32, 40, 43)),
    ],
)
def test_a_segment_that_is_none_is_refused_in_words(data: bytes, message: str) -> None:
    """Foreign, newer, cut short, or damaged anywhere in its header."""
    with pytest.raises(JournalError, match=re.escape(message)):
        decode_segment_header(data)
    assert VERSION == 1


@pytest.mark.parametrize("data", [b"", b"x" * 100, _head(magic=b"ELF\x7f"), _head(version=b"\x09\0")])
def test_a_head_file_that_is_none_is_refused_and_let_go(tmp_path: Path, data: bytes) -> None:
    """`JournalError`, whatever lies there."""
    (tmp_path / HEAD_FILE).write_bytes(data)
    with pytest.raises(JournalError):
        JournalHead.open(tmp_path)
