"""A database of the schema before is brought up to date by its writer, whole or not at all, and read as it is."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest
from unit.actors.retention_rig import EMPTY, FULL, add_run, left, retention, work
from unit.actors.store_rig import ask

from runlane.actors import store_file
from runlane.actors.sql import connect
from runlane.actors.store import Store
from runlane.actors.store_reader import list_runs
from runlane.config.errors import StoreError
from runlane.config.settings import DbWriterSettings

SCHEMA_2 = Path(__file__).with_name("schema_2.sql").read_text("utf-8")
SCHEMA_3 = Path(__file__).with_name("schema_3.sql").read_text("utf-8")
SHAPE = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"


def make_old(path: Path) -> None:
    """A database as version 2 made it, with what retention had removed of a run, and half removed of another."""
    with closing(connect(path)) as connection:
        connection.execute(
            f"BEGIN; {SCHEMA_2}; PRAGMA application_id = {store_file.APPLICATION_ID}; PRAGMA user_version = 2; COMMIT"
        )
        connection.pragma("journal_mode", "wal")
        for number, run in ((1, "R1"), (2, "R2")):
            connection.execute(
                "INSERT INTO runs (run, name, state, started_ns, ended_ns) VALUES (?, 'old', 'finished', 1, 9)", (run,)
            )
            connection.execute(
                "INSERT INTO streams (stream_no, stream, run, worker, incarnation, host, pid, started_ns, state)"
                " VALUES (?, ?, ?, 'w', 1, 'h', 1, 1, 'finished')",
                (number, f"{number:032x}", run),
            )
        connection.execute("INSERT INTO retention_rows VALUES (1, 'episode', 'max_runs', 7, 3, 5, 1)")
        connection.execute("INSERT INTO retention_rows VALUES (2, 'step', 'max_bytes', 8, 4, 6, 0)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runlane.db"


def test_an_old_database_becomes_one_as_if_made_new(path: Path) -> None:
    """Every table, view and index has the text of the schema; what was in it is in it, and a run can be deleted."""
    make_old(path)
    with closing(Store(path.with_name("new.db"), DbWriterSettings())) as new:
        wanted = ask(new, SHAPE)
    with closing(Store(path, DbWriterSettings())) as store:
        found = ask(store, SHAPE)
        assert [row[:3] for row in found] == [row[:3] for row in wanted]
        assert [row[3] for row in found] == [row[3] for row in wanted]
        assert ask(store, "PRAGMA user_version") == [(store_file.SCHEMA_VERSION,)]
        assert ask(store, "SELECT * FROM retention_rows") == [
            (1, "episode", "max_runs", 7, 3, 5, 1),
            (2, "step", "max_bytes", 8, 4, 6, 0),
        ]
        assert [row.run for row in list_runs(path)] == ["R2"]
        add_run(store, 3, 10)
        deleting = retention(store)
        deleting.delete("R3")
        work(deleting)
        assert left(store, 3) == EMPTY


def test_a_database_of_version_3_gets_the_views_of_4(path: Path) -> None:
    """`step_records` as it is now, and `observations`; what was in it is in it."""
    with closing(connect(path)) as connection:
        connection.execute(
            f"BEGIN; {SCHEMA_3}; PRAGMA application_id = {store_file.APPLICATION_ID}; PRAGMA user_version = 3; COMMIT"
        )
        connection.execute(
            "INSERT INTO runs (run, state, started_ns) VALUES ('R', 'finished', 1);"
            "INSERT INTO streams (stream_no, stream, run, worker, incarnation, host, pid, started_ns)"
            " VALUES (1, 'S', 'R', 'w', 1, 'h', 1, 1);"
            "INSERT INTO step_rows VALUES ((1 << 40) + 1, 1, 1, 1, 0, 0, 1.0, 0, 5)"
        )
    with closing(Store(path.with_name("new.db"), DbWriterSettings())) as new:
        wanted = ask(new, SHAPE)
    with closing(Store(path, DbWriterSettings())) as store:
        assert ask(store, SHAPE) == wanted
        assert ask(store, "PRAGMA user_version") == [(store_file.SCHEMA_VERSION,)]
        assert ask(store, "SELECT episode, step, observation, is_final FROM observations") == [(1, 1, 5, 0)]


def test_a_migrated_database_opens_again_and_keeps_its_rows(path: Path) -> None:
    """The second opening has nothing to do."""
    make_old(path)
    with closing(Store(path, DbWriterSettings())) as store:
        add_run(store, 3, 10)
    with closing(Store(path, DbWriterSettings())) as store:
        assert left(store, 3) == FULL
        assert ask(store, "SELECT count(*) FROM retention_rows") == [(2,)]


def test_an_old_database_is_read_as_it_is(path: Path) -> None:
    """No reader needs a writer to have been there, and no reader changes it."""
    make_old(path)
    assert [row.run for row in list_runs(path)] == ["R2"]
    with closing(connect(path)) as connection:
        assert connection.pragma("user_version") == 2


def test_a_migration_that_breaks_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is none of it; the next writer begins again."""
    make_old(path)
    with closing(connect(path)) as connection:
        before = connection.execute(SHAPE).fetchall()

    def breaking(_version: int, _schema: str) -> str:
        return "DROP VIEW retention; SELECT no_such_function()"

    with monkeypatch.context() as patch:
        patch.setattr(store_file, "migrated", breaking)
        with pytest.raises(StoreError, match="no_such_function"):
            Store(path, DbWriterSettings())
    with closing(connect(path)) as connection:
        assert connection.execute(SHAPE).fetchall() == before
        assert connection.pragma("user_version") == 2
    Store(path, DbWriterSettings()).close()


def test_a_file_older_than_the_table_is_migrated_too(path: Path) -> None:
    """Version 2 got its retention later: the table may not be there."""
    make_old(path)
    with closing(connect(path)) as connection:
        connection.execute("DROP VIEW retention; DROP VIEW removed_runs; DROP TABLE retention_rows")
    with closing(Store(path, DbWriterSettings())) as store:
        assert ask(store, "SELECT count(*) FROM retention_rows") == [(0,)]


def test_the_old_schema_refuses_what_the_new_one_knows(path: Path) -> None:
    """Else there would be no need for a version."""
    make_old(path)
    with closing(connect(path)) as connection, pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO retention_rows VALUES (1, 'step', 'deleted', 7, 3, 5, 1)")
