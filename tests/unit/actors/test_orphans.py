"""Which journals nobody drains: found once their readers are gone, and only where there is something to drain."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_journal import FakeJournal, flip

from runlane.actors.orphans import (
    HALF_MADE_S,
    LOOK_S,
    PATIENCE_S,
    OrphanWatch,
    info_of,
    is_beyond_reading,
    is_journal,
    journals_dir,
    mend_head,
    orphan_directories,
    orphan_journals,
    sweep_half_made,
)
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import (
    HEAD_FILE,
    HEAD_PART,
    READER_ROLE,
    SegmentHeader,
    encode_segment_header,
    segment_path,
)
from runlane.transport.testing import make_info


@pytest.fixture
def journal(settings: Settings) -> Iterator[FakeJournal]:
    """One of three segments, in the data directory."""
    journal = FakeJournal(journals_dir(settings), make_info("w"))
    for _ in range(2):
        journal.steps(10)
        journal.rotate()
    journal.steps(10)
    yield journal
    journal.close()


def _orphans(settings: Settings) -> list[Path]:
    return orphan_directories(journals_dir(settings))


# ---- which -----------------------------------------------------------------------------------------------


def test_a_journal_is_an_orphan_while_nobody_holds_its_readers_lock(settings: Settings, journal: FakeJournal) -> None:
    """Whether its worker lives or not."""
    with RoleLock(journal.directory, READER_ROLE):
        assert _orphans(settings) == []
    assert _orphans(settings) == [journal.directory]
    journal.close()
    assert [(path, info.stream) for path, info in orphan_journals(settings)] == [
        (journal.directory, journal.info.stream)
    ]


def test_what_is_no_journal_is_passed_over(settings: Settings, journal: FakeJournal) -> None:
    """Those set aside, files, other names, directories with nothing in them, and no directory at all."""
    parent = journals_dir(settings)
    for name in ("lost+found", "0" * 31, "G" * 32, "0" * 32, journal.info.stream + ".damaged"):
        (parent / name).mkdir()
    (parent / ("1" * 32)).write_text("a file")
    (parent / ("G" * 32) / HEAD_FILE).touch()
    assert [path.name for path in parent.iterdir() if is_journal(path)] == [journal.info.stream]
    assert _orphans(settings) == [journal.directory]
    assert orphan_directories(parent / "nowhere") == []


def test_what_a_killed_worker_left_half_made_is_removed_once_it_is_old(
    settings: Settings, journal: FakeJournal
) -> None:
    """A directory, or the head's first part in one; never one that a living worker may be about to fill."""
    parent = journals_dir(settings)
    empty, half = parent / ("0" * 32), parent / ("1" * 32)
    for directory in (empty, half, parent / "lost+found"):
        directory.mkdir()
    (half / HEAD_PART).touch()
    made_s = half.stat().st_mtime
    sweep_half_made(parent, made_s + HALF_MADE_S - 1)
    assert empty.is_dir()
    assert half.is_dir()
    sweep_half_made(parent, made_s + HALF_MADE_S + 1)
    assert sorted(path.name for path in parent.iterdir()) == sorted(["lost+found", journal.directory.name])
    assert _orphans(settings) == [journal.directory]
    sweep_half_made(parent / "nowhere", made_s)


def test_a_journal_without_a_segment_is_nobodys(settings: Settings) -> None:
    """Just being made while its worker lives; after that nothing was ever in it, and it is removed."""
    directory = journals_dir(settings) / ("0" * 32)
    directory.mkdir(parents=True)
    head = JournalHead.make(directory, bytes(16), 1)
    assert _orphans(settings) == []
    assert directory.exists()
    head.close()
    assert _orphans(settings) == []
    assert not directory.exists()


def test_a_dead_journal_without_a_segment_is_drained_when_it_counts_drops(settings: Settings) -> None:
    """The disk was full from the start and its worker said no hello: the head says whose the counts are."""
    info = make_info("w")
    directory = journals_dir(settings) / info.stream
    directory.mkdir(parents=True)
    head = JournalHead.make(directory, bytes.fromhex(info.stream), 1, info)
    head.count_untold("step", 7)
    head.close()
    assert _orphans(settings) == [directory]
    assert info_of(directory) == info
    assert not is_beyond_reading(directory)


@pytest.mark.parametrize(
    "data",
    [b"", bytes(10), bytes(4096), encode_segment_header(SegmentHeader(bytes(16), 1, 0)).ljust(4096, b"\0")],
    ids=["empty", "short", "zero", "spare"],
)
def test_a_journal_whose_first_segment_was_never_begun_is_nobodys(settings: Settings, data: bytes) -> None:
    """Its worker was killed while it made the file: no call had returned, so there is nothing to store."""
    directory = journals_dir(settings) / ("0" * 32)
    directory.mkdir(parents=True)
    head = JournalHead.make(directory, bytes(16), 1)
    segment_path(directory, 1).write_bytes(data)
    assert _orphans(settings) == []
    assert directory.exists()
    head.close()
    assert _orphans(settings) == []
    assert not directory.exists()


def test_an_unreadable_segment_is_no_missing_one(settings: Settings, journal: FakeJournal) -> None:
    """It may have held records: whoever drains the journals has to say so."""
    journal.close()
    for path in journal.segments:
        flip(path, 20)
    assert _orphans(settings) == [journal.directory]


# ---- what they say of themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_journal_says_whose_it_is_by_any_readable_segment(journal: FakeJournal, index: int) -> None:
    """The newest one that can be read."""
    for number, path in enumerate(journal.segments):
        if number != index:
            flip(path, 20)
    info = info_of(journal.directory)
    assert info == journal.info


def test_a_journal_of_which_nothing_can_be_read_says_nothing(settings: Settings, journal: FakeJournal) -> None:
    """None, and it is not among those that say whose they are."""
    for path in journal.segments:
        flip(path, 20)
    assert info_of(journal.directory) is None
    assert list(orphan_journals(settings)) == []


def test_only_a_dead_journal_that_says_nothing_is_beyond_reading(
    journal: FakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one whose worker lives, nor one that the system cannot open at this moment."""
    journal.close()
    assert not is_beyond_reading(journal.directory)
    for path in journal.segments:
        flip(path, 20)
    assert is_beyond_reading(journal.directory)

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("runlane.transport.journal_reader.os.open", refuse)
        assert not is_beyond_reading(journal.directory)


def test_a_living_journal_is_never_beyond_reading(journal: FakeJournal) -> None:
    """Its worker may be making its first segment."""
    for path in journal.segments:
        flip(path, 20)
    assert not is_beyond_reading(journal.directory)


# ---- heads -----------------------------------------------------------------------------------------------


def test_a_readable_head_is_left_as_it_is(journal: FakeJournal) -> None:
    """With its acks."""
    journal.head.acked = 7
    mend_head(journal.directory)
    assert journal.head.acked == 7
    assert not (journal.directory / f"{HEAD_FILE}.damaged").exists()


@pytest.mark.parametrize("how", ["magic", "short", "missing"])
def test_a_head_that_is_lost_is_made_anew(journal: FakeJournal, how: str) -> None:
    """What it said of acks is lost but for what is deleted; a damaged one is kept beside the new one."""
    journal.close()
    path = journal.directory / HEAD_FILE
    if how == "magic":
        flip(path, 0)
    elif how == "short":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    journal.segments[0].unlink()
    mend_head(journal.directory)
    head = JournalHead.open(journal.directory)
    assert (head.stream.hex(), head.acked, head.published, head.closed) == (journal.info.stream, 10, 0, 0)
    assert not head.is_writer_alive
    head.close()
    assert (journal.directory / f"{HEAD_FILE}.damaged").exists() is (how != "missing")


def test_a_head_is_not_made_for_segments_that_cannot_be_read(journal: FakeJournal) -> None:
    """Nobody knows of which stream."""
    journal.close()
    for path in journal.segments:
        flip(path, 20)
    (journal.directory / HEAD_FILE).unlink()
    mend_head(journal.directory)
    assert not (journal.directory / HEAD_FILE).exists()


# ---- the watch -------------------------------------------------------------------------------------------


def test_what_an_earlier_graph_left_is_recovered_at_once(settings: Settings, journal: FakeJournal) -> None:
    """Nobody else will come for it."""
    assert OrphanWatch(settings).look(100.0)
    assert journal.head.published == 30


def test_a_new_orphan_is_its_proxys_for_a_while(settings: Settings) -> None:
    """A restarted proxy takes its journal up again; only what is still alone after that is recovered."""
    watch = OrphanWatch(settings)
    assert not watch.look(100.0)
    journal = FakeJournal(journals_dir(settings), make_info("w"))
    try:
        assert not watch.look(101.0)
        with RoleLock(journal.directory, READER_ROLE):
            assert not watch.look(101.0 + PATIENCE_S)
        assert not watch.look(102.0 + PATIENCE_S)
        assert not watch.look(102.0 + PATIENCE_S + LOOK_S / 2)
        assert watch.look(102.0 + 2 * PATIENCE_S)
    finally:
        journal.close()
