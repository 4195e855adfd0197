"""`runlane delete` without a graph: what is asked before, what is said after, and what is refused."""

from contextlib import closing

import msgspec
import pytest
from fake_journal import FakeJournal
from typer.testing import CliRunner
from unit.actors.retention_rig import EMPTY, FULL, STEPS, add_run, left

from runlane import deletion as module
from runlane.actors.orphans import journals_dir
from runlane.actors.store import Store
from runlane.actors.store_reader import list_runs
from runlane.actors.video_file import VIDEO_DIR
from runlane.cli import app
from runlane.config.errors import EndpointError, RunlaneError, StoreError
from runlane.config.names import DB_WRITER
from runlane.config.settings import DbWriterSettings, Settings
from runlane.deletion import delete
from runlane.transport.endpoint import RoleLock, data_dir_of, database_of, make_run_dir
from runlane.transport.testing import make_info


@pytest.fixture(autouse=True)
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """The log of this process is pytest's."""

    def leave(_name: str, _level: str) -> None:
        return

    monkeypatch.setattr(module, "configure_log", leave)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With two runs that have ended, the first with a video."""
    with closing(Store(database_of(settings), DbWriterSettings(synchronous="NORMAL"))) as store:
        add_run(store, 1, 10)
        add_run(store, 2, 20)
    folder = data_dir_of(settings) / VIDEO_DIR / f"{1:032x}"
    folder.mkdir(parents=True)
    for name in ("0-00000001.mp4", "0-00000001.json"):
        (folder / name).write_bytes(b"x")
    return settings


def rows(settings: Settings, number: int) -> dict[str, int]:
    with closing(Store(database_of(settings), DbWriterSettings())) as store:
        return left(store, number)


def yes(_: str) -> bool:
    return True


def test_a_run_is_deleted_to_its_end_with_exact_counts(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows and its videos; the other run and the run directory are as before."""
    assert delete(settings, "R1", yes) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"run R1 is deleted: {STEPS + 5} step rows, 2 info rows, 1 log rows, 1 metric rows, 20 episode rows",
        "and 1 video of it",
    ]
    assert (rows(settings, 1), rows(settings, 2)) == (EMPTY, FULL)
    assert [row.run for row in list_runs(database_of(settings))] == ["R2"]
    assert not (data_dir_of(settings) / VIDEO_DIR / f"{1:032x}").exists()
    assert delete(settings, "R1", yes) == 0
    assert "was removed before" in capsys.readouterr().out


def test_a_video_that_cannot_be_removed_is_told(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows are gone all the same; the exit code says that not everything is."""
    folder = data_dir_of(settings) / VIDEO_DIR / f"{1:032x}"
    (folder / "0-00000002.mp4").mkdir()  # nobody unlinks a directory
    assert delete(settings, "R1", yes) == 1
    assert "1 video of it cannot be removed from" in capsys.readouterr().err
    assert (rows(settings, 1), [path.name for path in folder.iterdir()]) == (EMPTY, ["0-00000002.mp4"])


def test_who_is_asked_sees_what_would_go_and_may_say_no(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Then nothing goes, and the exit code says so."""
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    assert delete(settings, "R1", no) == 1
    assert asked == [f"Delete run R1: {STEPS + 10} steps, 20 episodes and 1 video?"]
    assert capsys.readouterr().out == "nothing is deleted\n"
    assert rows(settings, 1) == FULL


def test_beside_a_db_writer_that_lives_nothing_is_touched(settings: Settings) -> None:
    """There is one writer, whoever it is."""
    with RoleLock(make_run_dir(settings), DB_WRITER), pytest.raises(EndpointError, match="db_writer is running"):
        delete(settings, "R1", yes)
    assert rows(settings, 1) == FULL


def test_a_run_with_a_living_worker_is_not_touched(settings: Settings) -> None:
    """Though the database says that the run has ended: nothing of this worker's stream is in it yet."""
    info = msgspec.structs.replace(make_info("other"), run="R1")
    with closing(FakeJournal(journals_dir(settings), info)), pytest.raises(StoreError, match="a living worker, other"):
        delete(settings, "R1", yes)
    assert rows(settings, 1) == FULL


@pytest.mark.parametrize(("run", "part"), [("R", "2 runs begin with 'R': R2, R1"), ("nobody", "no run 'nobody'")])
def test_a_run_that_is_not_clear_is_an_error(settings: Settings, run: str, part: str) -> None:
    """Before anything is asked."""
    with pytest.raises(StoreError, match=part):
        delete(settings, run, yes)


def test_without_a_database_none_is_made(settings: Settings) -> None:
    """A person has mistaken the directory."""
    database_of(settings).unlink()
    with pytest.raises(RunlaneError, match="no database at"):
        delete(settings, "R1", yes)
    assert not database_of(settings).exists()


def test_without_a_terminal_it_must_be_meant(settings: Settings) -> None:
    """A script says `--yes`."""
    options = ["--set", f"data_dir={settings.data_dir}", "--set", f"transport.run_dir={settings.transport.run_dir}"]
    refused = CliRunner().invoke(app, ["delete", "R1", *options])
    assert refused.exit_code == 2
    assert "--yes" in refused.output
    assert rows(settings, 1) == FULL
    done = CliRunner().invoke(app, ["delete", "R1", "--yes", *options])
    assert (done.exit_code, done.output.startswith("run R1 is deleted")) == (0, True)
