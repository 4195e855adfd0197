"""`runlane recover`: which journals a path names, and what is said of those it leaves alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_journal import FakeJournal

from runlane import recover as module
from runlane.actors.orphans import journals_dir
from runlane.config.errors import JournalError
from runlane.config.settings import Settings
from runlane.foreign import adopt_spools
from runlane.recover import find_journals, recover
from runlane.transport.endpoint import RoleLock
from runlane.transport.journal_layout import READER_ROLE, segment_path
from runlane.transport.spool import (
    OUT_FILE,
    PLACE_FILE,
    UNREADABLE_CODE,
    SpoolEnd,
    SpoolInfo,
    make_spool,
    write_end,
    write_info,
)
from runlane.transport.testing import make_info
from runlane.workers import jsonl_bridge


@pytest.fixture
def journal(settings: Settings) -> Iterator[FakeJournal]:
    """One with a few records, of a worker that lives until it is closed."""
    journal = FakeJournal(journals_dir(settings), make_info("w"))
    journal.steps(3)
    yield journal
    journal.close()


@pytest.fixture
def _no_graph(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Whoever starts a graph here has found something to drain, which these tests say there is not."""
    monkeypatch.setattr(module, "GraphProcess", None)
    monkeypatch.setattr(module, "GraphClient", None)


# ---- paths -----------------------------------------------------------------------------------------------


def test_a_path_may_name_a_data_directory_its_journals_or_one_of_them(
    settings: Settings, journal: FakeJournal, short_dir: Path
) -> None:
    """Each leads to the journal; the place for copies stays empty."""
    scratch = short_dir / "scratch"
    scratch.mkdir()
    for path in (Path(settings.data_dir), journals_dir(settings), journal.directory):
        assert find_journals(path, scratch) == [journal.directory]
    assert list(scratch.iterdir()) == []


def test_a_segment_is_copied_to_a_journal_of_its_own(journal: FakeJournal, short_dir: Path) -> None:
    """With the name of its stream; the original is only read."""
    data = journal.segments[0].read_bytes()
    (found,) = find_journals(journal.segments[0], short_dir)
    assert found.name == journal.info.stream
    assert short_dir in found.parents
    assert segment_path(found, 1).read_bytes() == journal.segments[0].read_bytes() == data


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("missing", None, "there is no such file or directory"),
        ("runlane.db", b"SQLite format 3", r"segments are named \*\.seg; give one, or a directory"),
        ("photo.seg", b"\xff\xd8\xff\xe0" * 100, "no segment of a runlane journal"),
        ("empty.seg", b"", "less than a segment's header"),
    ],
)
def test_a_path_that_leads_to_no_journal_is_refused_in_words(
    short_dir: Path, name: str, data: bytes | None, message: str
) -> None:
    """One message with the path in it."""
    path = short_dir / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(JournalError, match=message) as caught:
        find_journals(path, short_dir)
    assert str(caught.value).startswith(f"{path}: ")


# ---- nothing to do ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_no_graph")
@pytest.mark.parametrize("is_made", [False, True])
def test_where_nothing_is_left_nothing_is_done(
    settings: Settings, capsys: pytest.CaptureFixture[str], is_made: bool
) -> None:
    """A data directory that never had a journal, or has none any more: one line, exit code 0, no graph."""
    if is_made:
        journals_dir(settings).mkdir(parents=True)
    assert recover(settings, [], None) == 0
    assert capsys.readouterr().out == f"nothing to recover under {journals_dir(settings)}\n"


@pytest.mark.usefixtures("_no_graph")
def test_a_living_workers_journal_is_left_to_a_graph(
    settings: Settings, journal: FakeJournal, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, and not one byte of it changes."""
    data = journal.segments[0].read_bytes()
    assert recover(settings, [], None) == 0
    assert capsys.readouterr().out == (
        f"{journal.info.stream}: its worker is alive; a running graph drains it, start one with `runlane up`\n"
    )
    assert journal.segments[0].read_bytes() == data
    assert journal.head.acked == 0


@pytest.mark.usefixtures("_no_graph")
def test_a_journal_with_a_reader_is_left_to_it(
    settings: Settings, journal: FakeJournal, capsys: pytest.CaptureFixture[str]
) -> None:
    """A proxy or a recovery has it already."""
    with RoleLock(journal.directory, READER_ROLE):
        assert recover(settings, [], journal.directory) == 0
    assert capsys.readouterr().out == f"{journal.info.stream}: another process drains it already\n"


# ---- spools ----------------------------------------------------------------------------------------------


@pytest.fixture
def spool(settings: Settings) -> Path:
    """What a program of another language has written, whose launcher and bridge are dead; its place is damaged."""
    directory = make_spool(settings)
    write_info(directory, SpoolInfo(run="r", worker="w"))
    write_end(directory, SpoolEnd(state="finished", exit_code=0))
    (directory / OUT_FILE).write_text('{"kind":"step"}\n')
    (directory / PLACE_FILE).write_bytes(b"nonsense")
    return directory


@pytest.mark.usefixtures("_no_graph")
def test_a_spool_that_cannot_be_read_on_is_set_aside_and_said_once(
    settings: Settings, spool: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says why and one where it is kept, with what the program has written; the next time it is left alone."""
    options = ["--set", f"data_dir={settings.data_dir}"]
    assert recover(settings, options, None) == 1
    out, err = capfd.readouterr()
    kept = spool.with_name(f"{spool.name}.damaged")
    assert f"kept in {kept}\n" in out
    assert "all is stored" not in out
    assert len(err.splitlines()) == 1
    assert "of b'nons'" in err
    assert (kept / OUT_FILE).read_text() == '{"kind":"step"}\n'
    assert not spool.exists()
    assert recover(settings, options, None) == 0
    assert "spool" not in capfd.readouterr().out
    assert kept.exists()


def test_a_graph_sets_such_a_spool_aside_too(
    settings: Settings, spool: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the bridge says is in a log; the terminal has one line."""
    adopt_spools(settings, ["--set", f"data_dir={settings.data_dir}"], wait_s=30)
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.endswith(f"kept in {spool}.damaged\n")
    assert "of b'nons'" in (Path(settings.data_dir) / "logs" / "spools.log").read_text()
    adopt_spools(settings, [], wait_s=30)
    assert capfd.readouterr().err == ""


def test_a_bridge_that_meets_an_error_nobody_foresaw_says_one_line(
    spool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its kind, and the code that says not to try again."""

    def fail(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(jsonl_bridge, "read_info", fail)
    assert jsonl_bridge.main([str(spool)]) == UNREADABLE_CODE
    assert capsys.readouterr().err == f"runlane: the bridge of {spool} ends: RecursionError: too deep\n"
