"""The words a journal's writer and its reader share: each has one writer, and they outlive both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runlane.config.errors import JournalError
from runlane.config.names import KINDS
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import HEAD_BYTES, HEAD_FILE

STREAM = bytes(range(16))


@pytest.fixture
def head(tmp_path: Path) -> Iterator[JournalHead]:
    """A new head, as its worker has it."""
    head = JournalHead.make(tmp_path, STREAM, 1)
    yield head
    head.close()


@pytest.fixture
def reader(tmp_path: Path, head: JournalHead) -> Iterator[JournalHead]:
    """The same, as its proxy has it."""
    reader = JournalHead.open(tmp_path)
    assert reader.stream == head.stream == STREAM
    yield reader
    reader.close()


def test_each_side_sees_what_the_other_wrote(head: JournalHead, reader: JournalHead) -> None:
    """At once, through the same page; a new head says nothing yet."""
    assert (reader.published, reader.closed, reader.acked, reader.untold(0)) == (0, 0, 0, {})
    head.published, head.closed = 1 << 40, 7
    reader.acked = 5
    assert (reader.published, reader.closed, head.acked) == (1 << 40, 7, 5)


def test_the_words_outlive_their_processes(head: JournalHead, tmp_path: Path) -> None:
    """They are the file's."""
    head.published = 9
    head.count_untold("step", 3)
    head.close()
    again = JournalHead.open(tmp_path)
    assert (again.published, again.untold(9), (tmp_path / HEAD_FILE).stat().st_size) == (9, {"step": 3}, HEAD_BYTES)
    again.close()


def test_the_writers_life_is_seen_by_its_lock(head: JournalHead, reader: JournalHead) -> None:
    """However often somebody looks, and whoever else has the file open; looking takes nothing from anybody."""
    assert reader.is_writer_alive
    assert reader.is_writer_alive
    head.close()
    assert not reader.is_writer_alive
    assert not reader.is_writer_alive


def test_a_journal_has_one_writer_ever(head: JournalHead, tmp_path: Path) -> None:
    """A second one is refused, also when the first is dead; what the first wrote stays."""
    head.published = 4
    for _ in range(2):
        with pytest.raises(JournalError, match="has a writer already, or had one"):
            JournalHead.make(tmp_path, STREAM, 2)
        head.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [HEAD_FILE]
    reader = JournalHead.open(tmp_path)
    assert reader.published == 4
    reader.close()


def test_a_journal_without_a_head_is_not_found(tmp_path: Path) -> None:
    """That is no damage: it may have been removed a moment ago."""
    with pytest.raises(FileNotFoundError):
        JournalHead.open(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dropped_is_untold_until_a_record_tells_it(head: JournalHead, reader: JournalHead, kind: str) -> None:
    """A kill between the two leaves it untold, or told: never both, never neither."""
    head.count_untold(kind)
    head.count_untold(kind, 4)
    assert reader.untold(100) == {kind: 5}
    assert head.begin_to_tell(kind, 101) == 5
    assert reader.untold(100) == {kind: 5}  # killed before the record was whole
    assert reader.untold(101) == {}  # killed after it
    head.have_told(kind)
    assert reader.untold(100) == reader.untold(101) == {}


def test_kinds_are_told_apart(head: JournalHead, reader: JournalHead) -> None:
    """Each has its own count and its own telling."""
    head.count_untold("step", 2)
    head.count_untold("info", 3)
    head.begin_to_tell("step", 10)
    assert reader.untold(10) == {"info": 3}
    assert reader.untold(9) == {"step": 2, "info": 3}


def test_closing_twice_is_harmless(head: JournalHead) -> None:
    """The second time has nothing to do."""
    head.close()
    head.close()
