"""Step sections → SQL values. NumPy works per column; no Python code runs per row.

A schema with `env_count` 0 fills `step_rows`, any other `vector_step_rows`. Both tables are nine columns wide.
Columns a schema lacks are NULL (`env_index` and `flags`: 0); fields we do not know are passed over.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from runlane.actors.row_key import SEQ_BITS, SEQ_MASK
from runlane.actors.sql import Cursor, SqlValue
from runlane.config.errors import WireError
from runlane.transport.columns import StepColumns, decode_steps, step_dtype
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.records import IS_RESET
from runlane.transport.wire import Frame, Section

WIDTH = 9  # columns of either table

_INT64_MAX = (1 << 63) - 1
_COUNTER = re.compile(r"[<|]i[1248]|[<|]u[124]")  # what fits SQLite's signed 64 bits
_CODES = {
    "seq": re.compile("<[iu]8"),
    "t_ns": re.compile("<i8"),
    "episode": _COUNTER,
    "step": _COUNTER,
    "env_index": _COUNTER,
    "flags": re.compile(r"\|u1"),
    "reward": re.compile(r"[<|]f[248]"),
    "action": re.compile(".*"),
    "observation": re.compile(".*"),
}
_JSON = msgspec.json.Encoder()
_JSON_INFINITY = {float("inf"): msgspec.Raw(b"9e999"), float("-inf"): msgspec.Raw(b"-9e999")}


class StepBatch(NamedTuple):
    """Decoded step rows and their seqs, which rise and fit into a key."""

    rows: StepColumns
    seqs: NDArray[np.int64]


class StepLayout:
    """How the step rows of one schema become rows of one table. Raises `WireError` on a schema we cannot store."""

    table: ClassVar[str]
    rows_per_statement: ClassVar[int]

    def __init__(self, schema: StepSchema) -> None:
        self.env_count = schema.env_count
        try:
            dtype = step_dtype(schema)
        except (TypeError, ValueError) as error:  # a code NumPy has no type for; one name twice
            raise WireError("schema", str(error)) from None
        known = _CODES.keys() - {"env_index"} if schema.env_count else _CODES.keys()
        fields = [field for field in schema.fields if field.name in known]
        for field in fields:
            self._check(field)
        self.names = {field.name for field in fields}
        missing = {"seq", "t_ns"} - self.names
        if missing:
            raise WireError("schema", f"step rows without {' and '.join(sorted(missing))}")
        places = cast("Mapping[str, tuple[Any, int]]", dtype.fields)
        self._dtype = np.dtype(
            {
                "names": [field.name for field in fields],
                "formats": [self._format(field) for field in fields],
                "offsets": [places[field.name][1] for field in fields],
                "itemsize": dtype.itemsize,
            }
        )

    def decode(self, body: Frame, section: Section) -> StepBatch:
        """View a section's body as rows; raises `WireError` on a wrong size or on seqs that do not rise."""
        rows = decode_steps(body, section, self._dtype)
        seqs: NDArray[np.int64] = rows["seq"].astype(np.int64)
        if len(seqs) and (seqs[0] < 1 or seqs[-1] > SEQ_MASK or bool((seqs[1:] <= seqs[:-1]).any())):
            raise WireError("seq", f"step seqs from {seqs[0]} to {seqs[-1]} do not rise within 1 … {SEQ_MASK}")
        return StepBatch(rows, seqs)

    def env_steps(self, batch: StepBatch) -> int:
        """Environment steps among the rows; a reset is none."""
        count = len(batch.rows) * max(self.env_count, 1)
        return count - int(np.count_nonzero(batch.rows["flags"] & IS_RESET)) if "flags" in self.names else count

    def values(self, batch: StepBatch, stream_no: int) -> list[SqlValue]:
        """All rows' values, row after row, `WIDTH` to a row."""
        flat: list[SqlValue] = [None] * (len(batch.rows) * WIDTH)
        flat[0::WIDTH] = (batch.seqs | (stream_no << SEQ_BITS)).tolist()
        flat[1::WIDTH] = batch.rows["t_ns"].tolist()
        self._fill(flat, batch.rows)
        return flat

    def _check(self, field: StepField) -> None:
        """Raise `WireError` unless the field's type and count are ones we store under its name."""
        if field.name in ("action", "observation"):
            is_countable = not self.env_count or (field.count > 0 and field.count % self.env_count == 0)
        else:
            is_countable = field.count == (0 if field.name in ("seq", "t_ns") else self.env_count)
        if not is_countable or not _CODES[field.name].fullmatch(field.code):
            raise WireError("schema", f"{field.name} is {field.count} of {field.code} for {self.env_count} envs")

    def _format(self, field: StepField) -> Any:
        """NumPy format of a field as it is read: an array that stays packed is one void value."""
        raise NotImplementedError

    def _fill(self, flat: list[SqlValue], rows: StepColumns) -> None:
        """Fill the columns after `id` and `t_ns`."""
        raise NotImplementedError


class ScalarLayout(StepLayout):
    """One row, one environment's step."""

    table = "step_rows"
    rows_per_statement = 50

    def _format(self, field: StepField) -> Any:
        return f"V{field.count * np.dtype(field.code).itemsize}" if field.count else field.code

    def _fill(self, flat: list[SqlValue], rows: StepColumns) -> None:
        columns = ("episode", "step", "env_index", "flags", "reward", "action", "observation")
        for index, name in enumerate(columns, start=2):
            if name in self.names:
                flat[index::WIDTH] = _storable(rows[name]).tolist()
            elif name in ("env_index", "flags"):
                flat[index::WIDTH] = [0] * len(rows)


class VectorLayout(StepLayout):
    """One row, one step of `env_count` environments. Rows are long, so each goes into the table by itself."""

    table = "vector_step_rows"
    rows_per_statement = 1

    def _format(self, field: StepField) -> Any:
        if field.count > self.env_count:
            return f"V{field.count * np.dtype(field.code).itemsize}"
        return (field.code, (field.count,)) if field.count else field.code

    def _fill(self, flat: list[SqlValue], rows: StepColumns) -> None:
        flat[2::WIDTH] = [self.env_count] * len(rows)
        columns = ("episode", "step", "flags", "reward", "action", "observation")
        for index, name in enumerate(columns, start=3):
            if name in self.names:
                column = rows[name]
                flat[index::WIDTH] = column.tolist() if column.dtype.kind == "V" else _json_arrays(column)
            elif name == "flags":
                flat[index::WIDTH] = [f"[{','.join('0' * self.env_count)}]"] * len(rows)


def step_layout(schema: StepSchema) -> StepLayout:
    """The layout for a schema; raises `WireError` on one we cannot store."""
    return VectorLayout(schema) if schema.env_count else ScalarLayout(schema)


def insert_sql(table: str, rows: int) -> str:
    """Statement that inserts so many rows and passes over those whose key is there already."""
    row = f"({','.join('?' * WIDTH)})"
    return f"INSERT OR IGNORE INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - a table's name, ours


def _storable(column: NDArray[Any]) -> NDArray[Any]:
    """Unsigned values beyond SQLite's signed 64 bits become text; every other column stays as it is."""
    if column.dtype != np.uint64 or not column.size or column.max() <= _INT64_MAX:
        return column
    is_beyond = column > _INT64_MAX
    values = column.astype(object)
    values[is_beyond] = [str(value) for value in column[is_beyond].tolist()]
    return values


def _json_arrays(column: NDArray[Any]) -> list[str]:
    """One JSON array per row. NaN becomes null, infinity 9e999, a Boolean 0 or 1."""
    if column.dtype.kind == "b":
        column = column.view(np.uint8)
    rows: list[list[Any]] = _storable(column).tolist()
    if column.dtype.kind == "f" and np.isinf(column).any():
        rows = [[_JSON_INFINITY.get(value, value) for value in row] for row in rows]
    return [_JSON.encode(row).decode() for row in rows]


class RowBuffer:
    """Values on their way into one table: whole statements go at once, the few rows left over at the end.

    Holds less than one statement's rows between calls. Owned by the store, lossless.
    """

    def __init__(self, cursor: Cursor, layout: type[StepLayout]) -> None:
        self._cursor = cursor
        self._values: list[SqlValue] = []
        self._stride = layout.rows_per_statement * WIDTH
        self._many = insert_sql(layout.table, layout.rows_per_statement)
        self._one = insert_sql(layout.table, 1)

    def add(self, values: list[SqlValue]) -> None:
        """Take rows, insert as many as fill whole statements."""
        self._values += values
        self._insert(self._many, self._stride)

    def flush(self) -> None:
        """Insert the rows left over."""
        self._insert(self._one, WIDTH)

    def clear(self) -> None:
        """Forget the rows left over, after a rollback."""
        self._values.clear()

    def _insert(self, sql: str, stride: int) -> None:
        values = self._values
        whole = len(values) // stride * stride
        if whole:
            self._cursor.executemany(sql, [values[start : start + stride] for start in range(0, whole, stride)])
            del values[:whole]
