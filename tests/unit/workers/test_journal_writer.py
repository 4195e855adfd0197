"""JournalWriter: one count for records of all kinds, rows of announced layouts, segments within a quota."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import adler32

import msgspec
import numpy as np
import pytest
from unit.workers.session_rig import SMALL, seqs_of, steps_of

from runlane.config.errors import JournalError
from runlane.config.settings import JournalSettings
from runlane.transport.columns import decode_records
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import segment_numbers, segment_path
from runlane.transport.journal_reader import JournalReader, first_seq_of
from runlane.transport.messages import StreamInfo
from runlane.transport.records import DropRecord, LogRecord, Record
from runlane.transport.testing import make_info
from runlane.transport.wire import STEP, BatchHeader, Frame, decode_header
from runlane.workers.journal_writer import MAX_SCHEMAS, RETRY_S, JournalFullError, JournalWriter
from runlane.workers.step_layout import StepLayout, VectorLayout

ROW = (0, 1 + (1 << 32), b"\0" * 5, 0.5)
Batches = list[tuple[BatchHeader, tuple[Frame, ...]]]


def _log(text: str) -> Callable[[int], Record]:
    return lambda seq: LogRecord(seq, 0, "info", text)


def _impossible(seq: int) -> Record:
    raise ZeroDivisionError(seq)


@pytest.fixture
def writer(short_dir: Path) -> Iterator[JournalWriter]:
    """A journal of the smallest segments, before its first one."""
    info = make_info("w", schemas=[])
    writer = JournalWriter(short_dir / info.stream, info, SMALL, 256)
    yield writer
    writer.close()


def _step(writer: JournalWriter, action: Any = 1) -> None:
    """Append one row, as the session does it; the layout fits and there is room."""
    layout = writer.layout
    assert isinstance(layout, StepLayout)
    row = layout.pack(layout.prefix, writer.seq + 1, *ROW, *layout.convert(action, None))
    layout.put(writer.view, writer.offset, adler32(row), row)
    writer.offset += writer.record_bytes
    writer.seq += 1


def _fill(writer: JournalWriter) -> int:
    """Logs until the segment is full; returns how many."""
    count = 0
    while not writer.append("log", _log("x" * 1_000)):
        count += 1
    return count


def _read(writer: JournalWriter) -> tuple[StreamInfo, Batches]:
    reader = JournalReader(writer.directory)
    reader.seek(1)
    found: Batches = []
    while (batch := reader.read_final(writer.seq, 0)) is not None:
        found.append((decode_header(batch.frames[0]), batch.frames[1:]))
    reader.close()
    assert reader.info is not None
    return reader.info, found


def _texts(writer: JournalWriter) -> list[str]:
    found = [
        record
        for header, bodies in _read(writer)[1]
        for section, body in zip(header.sections, bodies, strict=True)
        if section.kind != STEP
        for record in decode_records(body, section)
    ]
    return [record.text for record in found if isinstance(record, LogRecord)]


# ---- records ---------------------------------------------------------------------------------------------


def test_records_and_rows_share_one_count(writer: JournalWriter) -> None:
    """Seqs rise from 1 whatever the kind; a record is made with its own."""
    writer.rotate(0)
    writer.use(StepLayout(0, 1, None))
    assert writer.append("log", _log("a")) == 0
    _step(writer, 7)
    assert writer.append("log", _log("b")) == 0
    info, batches = _read(writer)
    assert seqs_of(info, batches) == [1, 2, 3]
    assert [(row["seq"], row["action"]) for row in steps_of(info, batches)] == [(2, 7)]
    assert _texts(writer) == ["a", "b"]
    assert (writer.seq, writer.other_records) == (3, 2)


def test_nothing_is_made_before_it_is_needed(writer: JournalWriter) -> None:
    """A session that records nothing leaves no directory; without a segment there is room for nothing."""
    assert not writer.directory.exists()
    assert not writer.has_room(0)
    assert writer.append("log", _log("a")) > 0
    assert (writer.offset >= writer.stop_offset, writer.seq) == (True, 0)


def test_a_record_that_cannot_be_made_takes_no_seq(writer: JournalWriter) -> None:
    """Its maker raises, and the journal is as it was."""
    writer.rotate(0)
    before = writer.offset
    with pytest.raises(ZeroDivisionError):
        writer.append("log", _impossible)
    assert (writer.seq, writer.other_records, writer.offset) == (0, 0, before)


def test_a_record_that_finds_no_room_says_how_much_it_needs(writer: JournalWriter) -> None:
    """Nothing is written of it; in the next segment it has the seq it would have had."""
    writer.rotate(0)
    count = _fill(writer)
    needed = writer.append("log", _log("y" * 1_000))
    assert needed > 1_000
    writer.rotate(needed)
    assert writer.append("log", _log("y" * 1_000)) == 0
    assert (writer.seq, segment_numbers(writer.directory)) == (count + 1, [1, 2])
    assert first_seq_of(segment_path(writer.directory, 2)) == count + 1
    assert _texts(writer)[-1] == "y" * 1_000


def test_a_record_larger_than_a_segment_gets_a_segment_of_its_size(writer: JournalWriter) -> None:
    """The spare that is there is given up for it; the next one has the usual size again."""
    writer.rotate(0)
    _fill(writer)
    writer.make_spare()
    needed = writer.append("log", _log("z" * 180_000))
    writer.rotate(needed)
    assert writer.append("log", _log("z" * 180_000)) == 0
    assert writer.head is not None
    writer.head.acked = writer.seq
    writer.rotate(0)
    sizes = [segment_path(writer.directory, number).stat().st_size for number in segment_numbers(writer.directory)]
    assert sizes[0] == sizes[2] == SMALL.segment_bytes < needed < sizes[1]
    assert _texts(writer)[-1] == "z" * 180_000


# ---- layouts ---------------------------------------------------------------------------------------------


def test_a_layout_is_announced_once(writer: JournalWriter) -> None:
    """Coming back to it is no news, and its rows carry the schema they carried before."""
    writer.rotate(0)
    first = writer.use(StepLayout(0, 1, None))
    second = writer.use(StepLayout(1, 0.5, None))
    assert writer.use(StepLayout(2, 7, None)) is first is not second
    assert [schema.schema_id for schema in writer.info.schemas] == [0, 1]
    _step(writer)
    ((header, _),) = _read(writer)[1]
    assert header.sections[0].schema_id == 0


def test_what_a_row_is_packed_with_follows_the_layout(writer: JournalWriter) -> None:
    """A layout whose rows need conversion first refuses the hot path; a vector's always does."""
    writer.rotate(0)
    for layout, is_hot in (
        (StepLayout(0, 1, None), True),
        (StepLayout(1, np.zeros(2), None), False),
        (StepLayout(2, 1, np.zeros(2)), True),
        (VectorLayout(3, 2, None, None), False),
    ):
        used = writer.use(layout)
        pack = writer.row_kit[1]
        assert writer.record_bytes == used.record_bytes
        assert (isinstance(used, StepLayout) and pack == used.pack) is is_hot
        if not is_hot:
            with pytest.raises(TypeError):
                pack(b"", 1)


def test_layouts_are_bounded(writer: JournalWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused, and those that are known can still be used."""
    monkeypatch.setattr("runlane.workers.journal_writer.MAX_SCHEMAS", 3)
    writer.rotate(0)
    known = [writer.use(StepLayout(size, np.zeros(size + 1, np.uint8), None)) for size in range(3)]
    with pytest.raises(ValueError, match="more than 3 shapes"):
        writer.use(StepLayout(3, np.zeros(4, np.uint8), None))
    assert writer.use(StepLayout(3, np.zeros(3, np.uint8), None)) is known[2]
    assert writer.schema_count == 3
    assert MAX_SCHEMAS == 1_000


def test_a_segment_begins_with_the_stream_as_it_is_then(writer: JournalWriter) -> None:
    """So whoever has only the newest segment can read it."""
    writer.rotate(0)
    writer.use(StepLayout(0, 1, None))
    _step(writer)
    writer.rotate(0)
    _step(writer, 9)
    segment_path(writer.directory, 1).unlink()
    reader = JournalReader(writer.directory)
    reader.seek_newest()
    assert reader.info == writer.info
    assert reader.next_seq == 2
    reader.close()


# ---- segments, the quota and the disk --------------------------------------------------------------------


def test_a_spare_is_made_in_good_time_and_only_once(writer: JournalWriter) -> None:
    """When the segment in use is half full; until it is taken nothing in it looks like a record."""
    writer.make_spare()
    assert writer.spare is None
    writer.rotate(0)
    writer.make_spare()
    assert writer.spare is None
    _fill(writer)
    writer.make_spare()
    spare = writer.spare
    writer.make_spare()
    assert writer.spare is spare is not None
    assert first_seq_of(segment_path(writer.directory, 2)) == 0
    writer.rotate(0)
    assert writer.segment is spare


def test_the_quota_counts_what_is_not_committed(writer: JournalWriter) -> None:
    """Full with as many segments as it holds; each one that is acked whole makes room for another."""
    ends: list[int] = []
    for _ in range(SMALL.quota_bytes // SMALL.segment_bytes):
        writer.rotate(0)
        _fill(writer)
        ends.append(writer.seq)
    for acked in (0, ends[0] - 1):
        assert writer.head is not None
        writer.head.acked = acked
        with pytest.raises(JournalFullError) as caught:
            writer.rotate(0)
        assert caught.value.reason == "journal_full"
    writer.head.acked = ends[0]
    writer.rotate(0)
    _fill(writer)
    with pytest.raises(JournalFullError):
        writer.rotate(0)
    assert writer.seq == seqs_of(*_read(writer))[-1]


def test_a_record_larger_than_the_quota_waits_for_everything_before_it(writer: JournalWriter) -> None:
    """It is taken when all else is committed, rather than never."""
    writer.rotate(0)
    writer.append("log", _log("a"))
    needed = writer.append("log", _log("z" * 400_000))
    with pytest.raises(JournalFullError):
        writer.rotate(needed)
    assert writer.head is not None
    writer.head.acked = writer.seq
    writer.rotate(needed)
    assert writer.append("log", _log("z" * 400_000)) == 0
    assert writer.seq == 2


@pytest.mark.parametrize("free_bytes", [0, SMALL.segment_bytes + 999])
def test_the_disk_keeps_its_reserve(short_dir: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """Below `min_free_bytes` no segment is made, so that telemetry never takes the last block from a checkpoint."""
    now_s = [100.0]
    free = [free_bytes]
    monkeypatch.setattr("runlane.workers.journal_writer.time.monotonic", lambda: now_s[0])

    def free_now(_directory: Path) -> int:
        return free[0]

    monkeypatch.setattr("runlane.workers.journal_writer.free_bytes", free_now)
    info = make_info("w", schemas=[])
    settings = JournalSettings(segment_bytes=1 << 16, quota_bytes=1 << 18, min_free_bytes=1_000)
    writer = JournalWriter(short_dir / info.stream, info, settings, 256)
    for detail in ("min_free_bytes", "tried a moment ago"):
        with pytest.raises(JournalFullError, match=detail) as caught:
            writer.rotate(0)
        assert caught.value.reason == "disk_full"
    free[0] = 1 << 30
    with pytest.raises(JournalFullError):
        writer.rotate(0)
    now_s[0] += RETRY_S
    writer.rotate(0)
    assert writer.append("log", _log("a")) == 0
    writer.close()


def test_a_disk_that_cannot_hold_the_journals_directory_is_full(short_dir: Path) -> None:
    """Whatever the system says, the record is dropped for a reason and not a fault; nothing half made is left."""
    (short_dir / "file").write_text("")
    info = make_info("w", schemas=[])
    writer = JournalWriter(short_dir / "file" / info.stream, info, SMALL, 256)
    with pytest.raises(JournalFullError, match="Not a directory"):
        writer.rotate(0)
    writer.close()
    assert [path.name for path in short_dir.iterdir()] == ["file"]


def test_a_stream_has_one_writer(writer: JournalWriter) -> None:
    """A second one, even of the same process, is refused and changes nothing."""
    writer.rotate(0)
    writer.append("log", _log("mine"))
    second = JournalWriter(writer.directory, writer.info, SMALL, 256)
    with pytest.raises(JournalError, match="a stream has only one"):
        second.rotate(0)
    second.close()
    assert _texts(writer) == ["mine"]
    head = JournalHead.open(writer.directory)
    assert head.is_writer_alive
    head.close()


# ---- drops -----------------------------------------------------------------------------------------------


def test_drops_are_told_each_by_kind_and_once(writer: JournalWriter) -> None:
    """With their reason; the head's own count, which a kill cannot lose, is taken back."""
    writer.rotate(0)
    assert writer.head is not None
    for kind, records in (("step", 5), ("metric", 2)):
        writer.head.count_untold(kind, records)
    dropped = {"step": (5, "disk_full"), "metric": (2, "journal_full")}
    assert writer.head.untold(0) == {"step": 5, "metric": 2}
    writer.tell_drops(dropped)
    assert (dropped, writer.head.untold(writer.seq)) == ({}, {})
    ((header, bodies),) = _read(writer)[1]
    told = decode_records(bodies[0], header.sections[0])
    assert [(r.kind, r.reason, r.records) for r in told if isinstance(r, DropRecord)] == [
        ("step", "disk_full", 5),
        ("metric", "journal_full", 2),
    ]


def test_drops_that_find_no_room_are_told_later(writer: JournalWriter) -> None:
    """All kinds or none: each is told by one record."""
    writer.rotate(0)
    assert writer.head is not None
    _fill(writer)
    while not writer.append("log", _log("")):
        pass
    seq, dropped = writer.seq, {"step": (5, "disk_full")}
    writer.tell_drops(dropped)
    assert (writer.seq, dropped) == (seq, {"step": (5, "disk_full")})


def test_closing_keeps_the_files_and_the_figures(writer: JournalWriter) -> None:
    """What is not committed is the reader's from now on; the writer's lock is free, twice is harmless."""
    writer.rotate(0)
    writer.append("log", _log("a"))
    assert writer.head is not None
    writer.head.acked = 1
    writer.close()
    writer.close()
    assert (writer.acked_seq, writer.seq) == (1, 1)
    assert not writer.has_room(0)
    head = JournalHead.open(writer.directory)
    assert not head.is_writer_alive
    head.close()
    assert msgspec.structs.asdict(_read(writer)[0])["stream"] == writer.info.stream
