"""Rows of a table as text: for the clipboard, as CSV, as JSON. No Qt; files are written in a thread."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from runlane.gui.column_ring import Rows
from runlane.gui.table_columns import Column, Value

MAX_COPIED = 50_000
COPIED_AT_ONCE = 1_000  # some 10 ms; more is made into text in a thread


def table_of(rows: Rows, columns: Sequence[Column]) -> list[list[Value]]:
    """Values by row; a time is ISO 8601, UTC."""
    found = [_times(rows) if column.field == "t_ns" else column.exported(rows) for column in columns]
    return [list(row) for row in zip(*found, strict=True)]


def _times(rows: Rows) -> list[Value]:
    return [_iso(int(t_ns)) for t_ns in rows["t_ns"].tolist()]


def _iso(t_ns: int) -> str:
    try:
        return datetime.fromtimestamp(t_ns / 1e9, UTC).isoformat(timespec="microseconds")
    except (OverflowError, ValueError, OSError):
        return str(t_ns)


def as_tsv(rows: Rows, columns: Sequence[Column]) -> str:
    """For the clipboard, with a heading; spreadsheets take it."""
    return _delimited(rows, columns, "\t")


def as_csv(rows: Rows, columns: Sequence[Column]) -> str:
    """RFC 4180, with a heading; what is not known is empty."""
    return _delimited(rows, columns, ",")


def as_json(rows: Rows, columns: Sequence[Column]) -> str:
    """A list of objects. What is not known is null; an infinity is text, as JSON has none."""
    keys = [column.key for column in columns]
    found = [
        {
            key: str(value) if value in (float("inf"), float("-inf")) else value
            for key, value in zip(keys, row, strict=True)
        }
        for row in table_of(rows, columns)
    ]
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _delimited(rows: Rows, columns: Sequence[Column], delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    writer.writerows(table_of(rows, columns))
    return text.getvalue()


def write_rows(path: Path, rows: Rows, columns: Sequence[Column]) -> int:
    """Write a file whole or not at all, JSON or CSV by its ending; returns the count of rows. Raises `OSError`."""
    render: Callable[[Rows, Sequence[Column]], str] = as_json if path.suffix.lower() == ".json" else as_csv
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(render(rows, columns), "utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(rows)
