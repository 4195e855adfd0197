"""A journal that was cut, flipped or overwritten: what lies before the damage comes out, nothing wrong ever does."""

import contextlib
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from fake_journal import FakeJournal, flip
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runlane.config.errors import JournalError
from runlane.transport.columns import decode_records
from runlane.transport.journal_layout import (
    END,
    INFO,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_record,
    encode_segment_header,
    segment_path,
)
from runlane.transport.journal_reader import JournalDamageError, JournalReader
from runlane.transport.testing import make_info, seqs_of
from runlane.transport.wire import STEP, decode_header, pack

SEGMENT_BYTES = 1 << 12
STREAM = bytes(range(16))


@dataclass(slots=True)
class Reading:
    """What came out of a journal: a line per record, and how it ended."""

    lines: list[str] = field(default_factory=list[str])
    damage: JournalError | None = None
    is_torn: bool = False


def _survive(source: Path, published: int, most: int) -> None:
    """Read it as if its worker lived: then nothing is checked, because it is read as it was written; no crash."""
    reader = JournalReader(source)
    with contextlib.suppress(JournalError):
        reader.seek(1)
        while reader.read(published, 0, most) is not None:
            pass
    reader.close()


def _read(source: Path, published: int, most: int = 7) -> Reading:
    """Everything from the first record on, as whoever drains a dead worker's journal reads it."""
    reader, found = JournalReader(source), Reading()
    try:
        reader.seek(1)
        while (batch := reader.read_final(published, 0, most)) is not None:
            header = decode_header(batch.frames[0])
            assert header.first_seq == len(found.lines) + 1
            lines: dict[int, str] = {}
            for section, body in zip(header.sections, batch.frames[1:], strict=True):
                if section.kind == STEP:
                    lines |= {seq: f"step {seq}" for seq in seqs_of(body)}
                else:
                    lines |= {record.seq: repr(record) for record in decode_records(body, section)}
            assert sorted(lines) == list(range(header.first_seq, header.last_seq + 1))
            found.lines += [lines[seq] for seq in sorted(lines)]
    except JournalError as error:
        found.damage = error
    finally:
        found.is_torn = reader.is_torn
        reader.close()
    return found


KINDS_OF_CALL = ["steps", "steps", "many", "log", "long", "rotate", "publish"]
parts = st.lists(st.sampled_from(KINDS_OF_CALL), min_size=1, max_size=12)


@contextmanager
def _journal(calls: list[str], *, is_torn: bool = False) -> Generator[tuple[FakeJournal, list[int]]]:
    """A journal, and where each of its records ends, as the bytes of all segments one after the other."""
    with tempfile.TemporaryDirectory(prefix="rld-") as home:
        journal = FakeJournal(Path(home), make_info(), SEGMENT_BYTES)
        journal.steps(2)
        published = journal.seq
        for call in calls:
            if call in ("steps", "many"):
                journal.steps(3 if call == "steps" else 60)
            elif call == "rotate":
                journal.rotate()
            elif call == "publish":
                published = journal.seq
            else:
                journal.log("x" * (5 if call == "log" else 900))
        journal.head.published = published
        ends = _ends(journal)
        if is_torn:
            journal.tear()
        try:
            yield journal, ends
        finally:
            journal.close()


def _ends(journal: FakeJournal) -> list[int]:
    """Offset of the end of each record, by seq, over all segments."""
    ends: list[int] = []
    for number, path in enumerate(journal.segments):
        data, offset = path.read_bytes(), SEGMENT_HEADER_BYTES
        while offset + RECORD_HEADER_BYTES <= len(data):
            _, length, kind, _, _ = RECORD_HEADER.unpack_from(data, offset)
            if length == 0 or kind == END:
                break
            offset += length
            if kind != INFO:
                ends.append(number * SEGMENT_BYTES + offset)
    assert len(ends) == journal.seq
    return ends


def _check(journal: FakeJournal, whole: list[str], ends: list[int], at: int, most: int) -> Reading:
    """After damage at byte `at`: a true prefix that reaches it, and a word on every published record that is lost."""
    published = journal.head.published
    found = _read(journal.directory, published, most)
    count = len(found.lines)
    assert found.lines == whole[:count]
    assert count >= sum(1 for end in ends if end <= at)
    if count < published:
        assert found.damage is not None
        if isinstance(found.damage, JournalDamageError):
            assert found.damage.seq == count + 1
            assert found.damage.last_seq >= published
            assert f"seq {count + 1}" in str(found.damage)
    elif at >= ends[-1] and len(journal.segments) == 1 + (ends[-1] - 1) // SEGMENT_BYTES:
        assert (count, found.damage) == (len(whole), None)  # behind the last record, with nothing after it
    _survive(journal.directory, published, most)
    return found


places = st.floats(0, 1, exclude_max=True)
mosts = st.sampled_from([1, 2, 7, 256])


@given(calls=parts, most=mosts, is_torn=st.booleans())
def test_a_whole_journal_is_read_to_its_end(calls: list[str], most: int, is_torn: bool) -> None:
    """Published or not; a record that the kill cut short is no record and no damage."""
    with _journal(calls, is_torn=is_torn) as (journal, _):
        found = _read(journal.directory, journal.head.published, most)
        assert (len(found.lines), found.damage, found.is_torn) == (journal.seq, None, is_torn)
        assert found.lines == _read(journal.directory, journal.head.published, 1).lines


@settings(max_examples=400)
@given(calls=parts, place=places, bit=st.integers(0, 7), most=mosts, is_torn=st.booleans())
def test_a_flipped_bit_anywhere_spoils_nothing_before_it(
    calls: list[str], place: float, bit: int, most: int, is_torn: bool
) -> None:
    """In a header, the stream's info, a record or behind the last one."""
    with _journal(calls, is_torn=is_torn) as (journal, ends):
        whole = _read(journal.directory, journal.head.published).lines
        used = ends[-1] + 40 - (len(journal.segments) - 1) * SEGMENT_BYTES
        at = int(place * min((len(journal.segments) - 1) * SEGMENT_BYTES + used, len(journal.segments) * SEGMENT_BYTES))
        flip(journal.segments[at // SEGMENT_BYTES], at % SEGMENT_BYTES, 1 << bit)
        _check(journal, whole, ends, at, most)


@pytest.mark.parametrize("most", [1, 256])
def test_every_single_bit_of_a_small_journal(most: int) -> None:
    """All of them, one after the other: each damaged record is found, and by its own seq."""
    with _journal(["log", "rotate", "steps", "publish"]) as (journal, ends):
        whole = _read(journal.directory, journal.head.published).lines
        for number, path in enumerate(journal.segments):
            size = max(end for end in ends if end // SEGMENT_BYTES == number) % SEGMENT_BYTES + RECORD_HEADER_BYTES
            for offset in range(size):
                flip(path, offset, 1 << (offset % 8))
                _check(journal, whole, ends, number * SEGMENT_BYTES + offset, most)
                flip(path, offset, 1 << (offset % 8))


@settings(max_examples=300)
@given(calls=parts, place=places, most=mosts, is_torn=st.booleans())
def test_a_file_cut_at_any_byte_spoils_nothing_before_it(
    calls: list[str], place: float, most: int, is_torn: bool
) -> None:
    """Any segment of it; those behind are whole and no longer reached, which is told."""
    with _journal(calls, is_torn=is_torn) as (journal, ends):
        whole = _read(journal.directory, journal.head.published).lines
        at = int(place * len(journal.segments) * SEGMENT_BYTES)
        with journal.segments[at // SEGMENT_BYTES].open("r+b") as file:
            file.truncate(at % SEGMENT_BYTES)
        _check(journal, whole, ends, at, most)


@given(calls=parts, place=places, most=mosts)
def test_a_lost_segment_spoils_nothing_before_it(calls: list[str], place: float, most: int) -> None:
    """Though those behind it are whole."""
    with _journal(calls) as (journal, ends):
        whole = _read(journal.directory, journal.head.published).lines
        index = int(place * len(journal.segments))
        journal.segments[index].unlink()
        if index:
            _check(journal, whole, ends, index * SEGMENT_BYTES, most)
        else:  # then it looks like one whose beginning is committed
            reader = JournalReader(journal.directory)
            if len(journal.segments) > 1:
                reader.seek(1)
                assert reader.next_seq > 1
            else:
                with pytest.raises(JournalError):
                    reader.seek(1)
            reader.close()


@settings(max_examples=200)
@example(calls=["many", "long"], place=0.0, size=512, fill=0, most=7)
@given(
    calls=parts, place=places, size=st.sampled_from([1, 16, 512, 4096]), fill=st.integers(0, 255), most=mosts
)  # fmt: skip
def test_an_overwritten_stretch_spoils_nothing_before_it(
    calls: list[str], place: float, size: int, fill: int, most: int
) -> None:
    """A sector of zeros, or of anything else."""
    with _journal(calls) as (journal, ends):
        whole = _read(journal.directory, journal.head.published).lines
        at = int(place * len(journal.segments) * SEGMENT_BYTES)
        size = min(size, SEGMENT_BYTES - at % SEGMENT_BYTES)
        with journal.segments[at // SEGMENT_BYTES].open("r+b") as file:
            file.seek(at % SEGMENT_BYTES)
            file.write(bytes([fill]) * size)
        _check(journal, whole, ends, at, most)


# ---- what is no journal ----------------------------------------------------------------------------------


def _header(first_seq: int = 1) -> bytes:
    return encode_segment_header(SegmentHeader(STREAM, 1, first_seq)).ljust(SEGMENT_HEADER_BYTES, b"\0")


def _info() -> bytes:
    return encode_record(INFO, 0, 0, pack(msgspec.to_builtins(make_info())))


begins: list[Callable[[], bytes]] = [bytes, _header, lambda: _header() + _info(), lambda: _header(1 << 63)]


@given(begin=st.integers(0, len(begins) - 1), data=st.binary(max_size=300), is_file=st.booleans())
@example(begin=1, data=encode_record(INFO, 0, 0, b"\xc1"), is_file=False)
@example(begin=1, data=encode_record(INFO, 0, 0, pack({"stream": "x"})), is_file=True)
@example(begin=1, data=encode_record(INFO, 0, 0, b""), is_file=False)
@example(begin=2, data=encode_record(END, 0, 0, b""), is_file=True)
@example(begin=1, data=encode_record(STEP, 0, 1, b""), is_file=False)
def test_a_foreign_file_never_crashes_the_reader(begin: int, data: bytes, is_file: bool) -> None:
    """Garbage, or garbage behind a header that is ours: an error of the one tree, or nothing."""
    with tempfile.TemporaryDirectory(prefix="rld-") as home:
        path = segment_path(Path(home), 1)
        path.write_bytes(begins[begin]() + data)
        for published in (0, 1, 1 << 40):
            source = path if is_file else Path(home)
            assert _read(source, published).lines == []
            _survive(source, published, 7)


@pytest.mark.parametrize("name", ["00000001.seg", "00000007.seg"])
def test_a_directory_in_a_segments_place_is_no_segment(tmp_path: Path, name: str) -> None:
    """An error of the system or of ours, told to whoever asks for the journal."""
    (tmp_path / name).mkdir()
    with pytest.raises((JournalError, OSError)):
        JournalReader(tmp_path).seek(1)
