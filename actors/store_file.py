"""Opening the database file: whose it is, which version, and whether it may lie where it lies.

Exactly one connection writes and checkpoints (`Store`); every other opens read-only and does neither.
"""

import contextlib
import errno
from collections.abc import Generator
from importlib import resources
from pathlib import Path

import apsw

from runlane.actors.reader_yield import YieldWatch
from runlane.actors.sql import Connection, connect
from runlane.actors.store_migration import migrated
from runlane.config.errors import StoreError
from runlane.config.settings import DbWriterSettings
from runlane.transport.clock import Clock, SystemClock

APPLICATION_ID = 0x52554E4C  # "RUNL", at byte 68 of the file
SCHEMA_VERSION = 4
OLDEST_VERSION = 2  # that is brought up to date by its writer, and read as it is by everybody else
BUSY_MS = 5_000
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_CACHE_KIB = 16_384
_PROC_MOUNTS = Path("/proc/self/mounts")
# WAL needs memory that every process sharing the file sees: one host, one kernel.
_REFUSED_FILE_SYSTEMS = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    ]
)
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs"})  # what rootless containers stand on


class StoreFullError(StoreError):
    """The disk took no more, or failed. Nothing of the transaction is kept; it may be tried again."""


@contextlib.contextmanager
def store_errors(path: Path) -> Generator[None]:
    """Turn an error of SQLite into a `StoreError` that names the file and keeps the cause."""
    try:
        yield
    except (apsw.FullError, apsw.IOError) as error:
        raise StoreFullError(f"{path}: {error}; free some space, then it goes on") from error
    except apsw.Error as error:
        raise StoreError(f"{path}: {error}") from error


def make_room(path: Path) -> None:
    """Make the directory of a database; raises `StoreError` when it cannot be, or is no place for one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent} cannot be made ({error.strerror}); set data_dir to another place") from error
    refuse_shared_file_system(path)


def open_writer(path: Path, settings: DbWriterSettings) -> Connection:
    """Open or create the database for its one writer; raises `StoreError` when it is not ours to write."""
    with store_errors(path):
        # One thread owns the connection, so SQLite need not lock at each of a row's bindings: 13 % of an insert's CPU.
        connection = connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOMUTEX)
        try:
            connection.set_busy_timeout(BUSY_MS)
            if _is_empty(connection, path):
                _create(connection)
            else:  # tables and views that came after it was made: the version stands for what is not just added
                version: int = connection.pragma("user_version")
                connection.execute(
                    f"BEGIN IMMEDIATE; {migrated(version, _schema())}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
                )
            _configure(connection, path, settings)
        except BaseException:
            connection.close()
            raise
    return connection


def open_readonly(path: Path, clock: Clock | None = None) -> Connection:
    """Open the database for reading while its writer works; raises `StoreError` when there is none to read.

    A reader holds back the writer's checkpoints for as long as it is inside a query, so fetch all rows at
    once and keep no cursor. A query that holds back a log above its limit ends with a `StoreError`.
    """
    if not path.exists():
        raise StoreError(
            f"no database at {path}; run `runlane demo` to record a first run, or set data_dir to where yours lies"
        )
    with store_errors(path):
        connection = connect(path, apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(BUSY_MS)
            connection.wal_autocheckpoint(0)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.pragma("query_only", True)
            if _is_empty(connection, path):
                raise StoreError(f"{path} is empty: nothing was recorded into it yet")
            YieldWatch(connection, path, clock or SystemClock())
        except BaseException:
            connection.close()
            raise
    return connection


def refuse_shared_file_system(path: Path) -> None:
    """Raise `StoreError` when `path` lies on a file system that other hosts may share."""
    try:
        mounts = _PROC_MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:  # no Linux, no table: SQLite's own word has to do
        return
    kind = file_system_of(path, mounts)
    is_refused = kind in _REFUSED_FILE_SYSTEMS or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
    if is_refused:
        raise StoreError(
            f"{path} lies on {kind}, where SQLite's write-ahead log is not safe; "
            "set data_dir to a directory on a local disk"
        )


def file_system_of(path: Path, mounts: str) -> str:
    """Type of the file system `path` lies on, by the text of `/proc/self/mounts`; empty when none fits."""
    target = path.resolve()
    found, depth = "", -1
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if target.is_relative_to(point) and len(point.parts) >= depth:  # of equals the last is on top
            found, depth = fields[2], len(point.parts)
    return found


def _is_empty(connection: Connection, path: Path) -> bool:
    """Whether the file holds nothing yet; raises `StoreError` when it holds something that is not ours."""
    application, version, tables = _identity(connection)
    if application == APPLICATION_ID and OLDEST_VERSION <= version <= SCHEMA_VERSION:
        return False
    if application == APPLICATION_ID:
        remedy = "upgrade runlane" if version > SCHEMA_VERSION else "read it with the runlane that wrote it"
        raise StoreError(
            f"{path} has schema version {version}, this runlane knows {SCHEMA_VERSION}; "
            f"{remedy}, or set db_writer.database to another file"
        )
    if application or version or tables:
        raise StoreError(
            f"{path} is the database of another program; move it away, or set db_writer.database to another file"
        )
    return True


def _identity(connection: Connection) -> tuple[int, int, int]:
    """Application, version and number of tables, at one moment: its writer may be creating the file."""
    connection.execute("BEGIN")
    try:
        tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").get
        return connection.pragma("application_id"), connection.pragma("user_version"), tables
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _schema() -> str:
    return resources.files("runlane.actors").joinpath("schema.sql").read_text("utf-8")


def _create(connection: Connection) -> None:
    """All or nothing: the version is set in the transaction that makes the tables."""
    connection.execute(
        f"BEGIN IMMEDIATE; {_schema()}; PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )


def _configure(connection: Connection, path: Path, settings: DbWriterSettings) -> None:
    """Checkpoints are the store's business, so SQLite's own are off."""
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreError(f"{path} cannot have a write-ahead log here (journal mode {mode}); set data_dir to local disk")
    connection.pragma("synchronous", settings.synchronous)
    connection.pragma("journal_size_limit", settings.wal_limit_bytes)
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.wal_autocheckpoint(0)
