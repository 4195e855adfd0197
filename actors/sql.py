"""The part of apsw that the store uses, typed. Its own stubs name `Buffer`, which Python 3.11 does not have,
so strict checkers lose every type that touches a SQL value.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import apsw

SqlValue = int | float | str | bytes | None
SqlRow = tuple[SqlValue, ...]
Tracer = Callable[["Cursor", str, object], bool]


class Cursor(Protocol):
    """A statement under way. `get` is the one value of a one-value answer, None of an empty one."""

    exec_trace: Tracer | None

    @property
    def get(self) -> Any:
        """Everything left, in the simplest shape: a value, a row or a list of rows."""
        ...

    @property
    def is_readonly(self) -> bool:
        """Whether the statement changes nothing."""
        ...

    def execute(self, statements: str, bindings: Sequence[SqlValue] | None = None) -> "Cursor":
        """Run statements."""
        ...

    def executemany(self, statements: str, sequenceofbindings: Iterable[Sequence[SqlValue]]) -> "Cursor":
        """Run statements once per sequence of bindings."""
        ...

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows left."""
        ...

    def get_description(self) -> tuple[tuple[str, str], ...]:
        """Name and declared type of each column."""
        ...

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...


class Connection(Protocol):
    """One connection to one database file."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; SQLite ends one by itself after some errors."""
        ...

    def execute(self, statements: str, bindings: Sequence[SqlValue] | None = None) -> Cursor:
        """Run statements on a cursor of their own."""
        ...

    def cursor(self) -> Cursor:
        """A new cursor."""
        ...

    def pragma(self, name: str, value: int | str | bool | None = None) -> Any:
        """Ask or set a pragma."""
        ...

    def config(self, op: int, *args: int) -> int:
        """Set a switch of this connection."""
        ...

    def changes(self) -> int:
        """Rows the last statement changed."""
        ...

    def total_changes(self) -> int:
        """Rows changed since the connection was opened."""
        ...

    def set_busy_timeout(self, milliseconds: int) -> None:
        """How long to wait for another's lock."""
        ...

    def set_wal_hook(self, callable: Callable[[Any, str, int], int] | None) -> None:  # noqa: A002  apsw's name
        """Call after each commit with the pages in the log; replaces automatic checkpoints."""
        ...

    def set_progress_handler(self, callable: Callable[[], bool] | None, nsteps: int = 100) -> None:  # noqa: A002
        """Call every so many steps of a statement; true, or an exception, ends it."""
        ...

    def trace_v2(self, mask: int, callback: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Call when a statement starts."""
        ...

    def wal_autocheckpoint(self, n: int) -> None:
        """Pages in the log after which SQLite checkpoints by itself; 0 for never."""
        ...

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
        """Move the log into the database."""
        ...

    def close(self) -> None:
        """Close; what is not committed is rolled back."""
        ...


def connect(path: Path, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE) -> Connection:
    """Open a connection; raises `apsw.Error`."""
    return cast("Connection", apsw.Connection(str(path), flags=flags))
