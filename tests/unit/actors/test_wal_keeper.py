"""The log stays bounded beside our own readers, and what others do to it is said with their names."""

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from unit.actors.store_rig import SCHEMA, ask, body, open_stream, put_steps

from runlane.actors import wal_keeper
from runlane.actors.reader_yield import LOOK_S, yield_marker
from runlane.actors.sql import Connection
from runlane.actors.store import Store
from runlane.actors.store_file import open_readonly
from runlane.actors.wal_keeper import ASK_S, PATIENCE_S, PINNED_LOG_S, RETRY_S, log_holders
from runlane.config.errors import StoreError
from runlane.config.settings import DbWriterSettings
from runlane.transport.testing import FakeClock

LIMIT = 1 << 20
LONG = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c LIMIT 100000) SELECT count(*) FROM c"


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    settings = DbWriterSettings(synchronous="NORMAL", wal_limit_bytes=LIMIT)
    with closing(Store(tmp_path / "runlane.db", settings, clock)) as opened:
        open_stream(opened)
        yield opened


@pytest.fixture
def reader(store: Store, clock: FakeClock) -> Iterator[Connection]:
    with closing(open_readonly(store.path, clock)) as connection:
        yield connection


def fill(store: Store) -> None:
    """Write more than the limit in one commit."""
    first = store.watermark(1) + 1
    put_steps(store, 1, range(first, first + 40_000), reward=0.1, t_ns=1 << 60)


def read(connection: Connection) -> None:
    connection.execute("SELECT count(*) FROM streams").fetchall()


def pin(connection: Connection) -> None:
    connection.execute("BEGIN")
    read(connection)


# ---- the writer ------------------------------------------------------------------------------------------


def test_a_log_nobody_reads_is_emptied_without_a_word(store: Store) -> None:
    """Above its limit it is cut after the commit, and no reader is asked."""
    fill(store)
    assert store.statistics().wal_bytes == 0
    assert (store.statistics().wal_requests, store.statistics().wal_pinned_s) == (0, 0.0)


def test_a_pinned_log_is_asked_back_and_emptied_when_it_is_free(
    store: Store, reader: Connection, clock: FakeClock
) -> None:
    """The marker appears at the first blocked try, is renewed while it lasts, and goes with the log."""
    marker = yield_marker(store.path)
    pin(reader)
    fill(store)
    assert marker.exists()
    assert store.statistics().wal_bytes > LIMIT
    clock.move(ASK_S)
    store.tend()
    assert store.statistics().wal_requests == 2
    assert store.statistics().wal_pinned_s == ASK_S
    reader.close()
    clock.move(RETRY_S)
    store.tend()
    assert store.statistics().wal_bytes == 0
    assert store.statistics().wal_pinned_s == 0.0
    assert not marker.exists()
    assert ask(store, "SELECT count(*) FROM step_rows") == [(40_000,)]


def test_a_pinned_log_costs_commits_nothing(store: Store, reader: Connection, clock: FakeClock) -> None:
    """Between two tries a commit does not even try; no try but the first one waits."""
    pin(reader)
    fill(store)
    blocked = store.statistics().checkpoints_blocked
    for seq in range(100_000, 100_050):
        put_steps(store, 1, [seq])
    assert store.statistics().checkpoints_blocked == blocked
    clock.move(RETRY_S)
    put_steps(store, 1, [100_050])
    assert store.statistics().checkpoints_blocked == blocked + 1


@pytest.fixture
def holders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pids that the system names as readers."""
    found = [17, 42]

    def look(_path: Path) -> list[int]:
        return found

    monkeypatch.setattr(wal_keeper, "log_holders", look)
    return found


def test_a_log_that_stays_pinned_is_told_with_who_holds_it(
    store: Store, reader: Connection, clock: FakeClock, holders: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """After our own readers had their time, then every ten seconds; the figures show the same."""
    caplog.set_level(logging.INFO, "runlane")
    pin(reader)
    fill(store)
    clock.move(PATIENCE_S / 2)
    store.tend()
    assert not caplog.messages
    for _ in range(5):
        clock.move(PINNED_LOG_S / 4)
        store.tend()
    assert [text.split()[0] for text in caplog.messages] == ["DURABLE_WAL_PINNED"] * 2
    assert "pids=17,42" in caplog.messages[0]
    assert store.statistics().wal_pinned_by == holders
    reader.close()
    clock.move(RETRY_S)
    store.tend()
    assert store.statistics().wal_pinned_by == []


def test_what_a_killed_writer_left_is_withdrawn(store: Store, clock: FakeClock) -> None:
    """Else every reader would look at a request that nobody makes any more."""
    store.close()
    yield_marker(store.path).touch()
    with closing(Store(store.path, DbWriterSettings(), clock)):
        assert not yield_marker(store.path).exists()


LOCKS = """\
1: POSIX  ADVISORY  READ 4711 fe:00:2148009 124 124
2: POSIX  ADVISORY  READ 4712 fe:00:2148009 128 128
3: POSIX  ADVISORY  READ 4713 fe:00:{inode} 128 128
4: POSIX  ADVISORY  READ 4714 00:1b:{inode} 123 123
5: POSIX  ADVISORY  WRITE 4715 fe:00:{inode} 120 127
5: -> POSIX  ADVISORY  READ 4716 fe:00:{inode} 124 124
6: FLOCK  ADVISORY  WRITE 4717 fe:00:{inode} 0 EOF
7: POSIX  ADVISORY  READ 0 fe:00:{inode} 124 124
8: OFDLCK ADVISORY  READ -1 fe:00:{inode} 124 124
9: POSIX  ADVISORY  READ 4714 fe:00:{inode} 124 124
short
"""


def test_holders_are_those_inside_a_read(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the read locks of the shared-memory file: not who only has it open, waits, or cannot be named."""
    inode = store.path.with_name("runlane.db-shm").stat().st_ino
    table = tmp_path / "locks"
    table.write_text(LOCKS.format(inode=inode))
    monkeypatch.setattr(wal_keeper, "_PROC_LOCKS", table)
    assert log_holders(store.path) == [4714, 4715]
    table.unlink()
    assert log_holders(store.path) == []


# ---- the reader ------------------------------------------------------------------------------------------


def test_a_query_begun_before_the_request_ends_with_a_remedy(
    store: Store, reader: Connection, clock: FakeClock
) -> None:
    """Also when the transaction, and not the statement, is older; the next question is answered."""
    pin(reader)
    fill(store)
    clock.move(LOOK_S)
    with pytest.raises(StoreError, match="wal_limit_bytes; ask for less at a time") as caught:
        reader.execute(LONG).fetchall()
    assert str(store.path) in str(caught.value)
    reader.execute("ROLLBACK")
    clock.move(RETRY_S)
    assert reader.execute(LONG).fetchall() == [(100_000,)]
    store.tend()
    assert store.statistics().wal_bytes == 0


def test_a_query_begun_after_the_request_goes_on(store: Store, reader: Connection, clock: FakeClock) -> None:
    """A marker that was there first, as that of a killed writer, ends nothing; the next request does."""
    yield_marker(store.path).touch()
    steps = reader.execute(LONG.replace("count(*)", "x"))
    clock.move(LOOK_S)
    assert next(iter(steps)) == (1,)
    assert len(steps.fetchall()) == 99_999
    pin(reader)
    fill(store)
    clock.move(LOOK_S)
    with pytest.raises(StoreError, match="ended"):
        reader.execute(LONG).fetchall()
    reader.execute("ROLLBACK")


def test_the_marker_is_looked_at_seldom(store: Store, reader: Connection, clock: FakeClock) -> None:
    """A query shorter than a quarter of a second is never ended."""
    pin(reader)
    store.begin()
    store.insert_steps(1, SCHEMA, *body([1]))
    store.commit()
    yield_marker(store.path).touch()
    clock.move(LOOK_S / 2)
    assert reader.execute(LONG).fetchall() == [(100_000,)]
    reader.execute("ROLLBACK")
