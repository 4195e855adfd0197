"""StoreSource: what the window asks of the database. `src/runlane/window.py` gives it one; tests give it another.

Asked in a background thread, never while an event is handled. Every question is one short read-only transaction.
"""

from collections.abc import Sequence
from typing import Any, Protocol

SqlValue = int | float | str | bytes | None


class StoreSource(Protocol):
    """Raises `StoreError` when there is no database yet, or it is none of ours."""

    def runs(self) -> list[dict[str, Any]]:
        """Every run, newest first: fields of `runlane runs --json`."""
        ...

    def curve(self, run: str, points: int) -> dict[str, Any]:
        """Returns of a run over all its episodes: fields of `runlane curve --json`."""
        ...

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Column names and rows of one SELECT over the documented views."""
        ...

    def size(self) -> tuple[int, int]:
        """Bytes of the database and of its write-ahead log."""
        ...
