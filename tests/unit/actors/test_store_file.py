"""The file is ours, of our version, on a local disk, and as bounded as the settings say; else it is refused."""

# Pragmas of the writing connection are asked:
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.actors.store_rig import SCHEMA, ask, body, open_stream, put_steps

from runlane.actors import store_file
from runlane.actors.sql import connect
from runlane.actors.store import Store
from runlane.actors.store_file import file_system_of, open_readonly
from runlane.config.errors import StoreError
from runlane.config.settings import DbWriterSettings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "runlane.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path, DbWriterSettings())) as opened:
        yield opened


@pytest.mark.parametrize(("synchronous", "number"), [("FULL", 2), ("NORMAL", 1)])
def test_the_file_is_made_as_the_settings_say(path: Path, synchronous: Any, number: int) -> None:
    """Directories are made; write-ahead log, durability and log limit are set; the version is in the file."""
    with closing(Store(path, DbWriterSettings(synchronous=synchronous, wal_limit_bytes=2 << 20))) as store:
        pragma = store._connection.pragma
        assert (pragma("journal_mode"), pragma("synchronous"), pragma("journal_size_limit")) == ("wal", number, 2 << 20)
        assert (pragma("application_id"), pragma("user_version")) == (0x52554E4C, 4)


def test_closing_leaves_one_file(store: Store) -> None:
    """The log is moved into the database and the lock removed; what was not committed is rolled back."""
    stream_no = open_stream(store)
    store.begin()
    store.insert_steps(stream_no, SCHEMA, *body([1]))
    store.close()
    assert [file.name for file in store.path.parent.iterdir()] == [store.path.name]
    assert ask(store, "SELECT count(*) FROM steps") == [(0,)]


def test_a_second_writer_is_refused(store: Store) -> None:
    """Two writers would each believe their own counters."""
    with pytest.raises(StoreError, match="another writer"):
        Store(store.path, DbWriterSettings())


def _foreign(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE bank (account)")


def _version(version: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with closing(Store(path, DbWriterSettings())):
            pass
        with closing(connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")

    return make


def _text(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (_foreign, "another program"),
        (_version(5), "schema version 5, this runlane knows 4; upgrade runlane"),
        (_version(1), "schema version 1, this runlane knows 4; read it with the runlane that wrote it"),
        (_text, "not a database"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_untouched(path: Path, make: Callable[[Path], None], part: str) -> None:
    """`StoreError` names the file and the remedy; not one byte is changed."""
    path.parent.mkdir()
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=part) as caught:
        Store(path, DbWriterSettings())
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["nfs4", "9p", "fuse.sshfs", "cifs"])
def test_a_network_file_system_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A write-ahead log shared between hosts corrupts, so it is refused before the file is made."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {path.parent} {kind} rw 0 0\n")
    monkeypatch.setattr(store_file, "_PROC_MOUNTS", mounts)
    with pytest.raises(StoreError, match=f"lies on {kind}.*local disk"):
        Store(path, DbWriterSettings())
    assert not path.exists()


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    """The longest mount point above the path counts, of two alike the later, with spaces decoded."""
    mounts = "a / ext4 rw\nb /mnt nfs rw\nc /mnt/my\\040disk xfs rw\nd /mnt nfs4 rw\nshort\n"
    assert file_system_of(Path("/mnt/data/x.db"), mounts) == "nfs4"
    assert file_system_of(Path("/mnt/my disk/x.db"), mounts) == "xfs"
    assert file_system_of(Path("/mntx/x.db"), mounts) == "ext4"


def test_the_log_stays_bounded_and_a_reader_that_holds_it_is_counted(path: Path) -> None:
    """Above the limit the log is cut to nothing; while a reader keeps a transaction it cannot be, and we say so."""
    limit = 1 << 20
    with closing(Store(path, DbWriterSettings(synchronous="NORMAL", wal_limit_bytes=limit))) as store:
        stream_no = open_stream(store)

        def write(first: int) -> None:
            for start in range(first, first + 50_000, 5_000):
                put_steps(store, stream_no, range(start, start + 5_000), reward=0.1, t_ns=1 << 60)

        write(1)
        assert store.statistics().checkpoints > 0
        assert store.statistics().wal_bytes < 2 * limit
        with closing(open_readonly(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM streams").fetchall()
            write(50_001)
            assert store.statistics().checkpoints_blocked > 0
            assert store.statistics().wal_bytes > 2 * limit
        write(100_001)
        assert store.statistics().wal_bytes < 2 * limit
        assert ask(store, "SELECT count(*), max(seq) FROM steps") == [(150_000, 150_000)]
