"""Step sections → statements with their values. No Python code runs per row.

A schema with `env_count` 0 fills `step_rows`, any other `vector_step_rows`. Both tables are nine columns wide.
Columns a schema lacks are NULL (`env_index` and `flags`: 0); fields we do not know are passed over.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from runlane.actors.sql import SqlValue
from runlane.actors.step_inserts import INT64_MAX, Insert, StepInserts, insert_sql
from runlane.config.errors import WireError
from runlane.transport.columns import StepColumns, decode_steps, step_dtype
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.records import IS_RESET
from runlane.transport.row_key import SEQ_BITS, SEQ_MASK
from runlane.transport.wire import Frame, Section

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
    """Decoded step rows and their seqs, which rise and fit into a key. Storing writable rows turns theirs into ids."""

    rows: StepColumns
    seqs: NDArray[np.int64]


class StepLayout:
    """How the step rows of one schema become rows of one table. Raises `WireError` on a schema we cannot store."""

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
        """View a section's body as rows; raises `WireError` on a wrong size or on seqs that do not rise.

        They are writable only in a `bytearray`: any other body may be needed again, if the transaction fails.
        """
        rows = decode_steps(body, section, self._dtype)
        rows.flags.writeable = isinstance(body, bytearray)
        seqs: NDArray[np.int64] = rows["seq"].astype(np.int64)
        if len(seqs) and (seqs[0] < 1 or seqs[-1] > SEQ_MASK or bool((seqs[1:] <= seqs[:-1]).any())):
            raise WireError("seq", f"step seqs from {seqs[0]} to {seqs[-1]} do not rise within 1 … {SEQ_MASK}")
        return StepBatch(rows, seqs)

    def env_steps(self, batch: StepBatch) -> int:
        """Environment steps among the rows; a reset is none."""
        count = len(batch.rows) * max(self.env_count, 1)
        return count - int(np.count_nonzero(batch.rows["flags"] & IS_RESET)) if "flags" in self.names else count

    def inserts(self, batch: StepBatch, stream_no: int) -> Iterable[Insert]:
        """Statements that store the rows, to be run at once and in this order."""
        raise NotImplementedError

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


class ScalarLayout(StepLayout):
    """One row, one environment's step."""

    def __init__(self, schema: StepSchema) -> None:
        super().__init__(schema)
        self._inserts = StepInserts(self._dtype)

    def inserts(self, batch: StepBatch, stream_no: int) -> Iterable[Insert]:
        """A hundred rows to a statement, as long as there are so many."""
        return self._inserts.of(batch.rows, stream_no << SEQ_BITS)

    def _format(self, field: StepField) -> Any:
        return f"V{field.count * np.dtype(field.code).itemsize}" if field.count else field.code


class VectorLayout(StepLayout):
    """One row, one step of `env_count` environments. Rows are long, so each goes into the table by itself."""

    def inserts(self, batch: StepBatch, stream_no: int) -> Iterable[Insert]:
        """NumPy works per column: ids, times, number of environments, then the columns of JSON or bytes."""
        ids: list[SqlValue] = (batch.seqs | (stream_no << SEQ_BITS)).tolist()
        columns: list[list[SqlValue]] = [ids, batch.rows["t_ns"].tolist(), [self.env_count] * len(ids)]
        for name in ("episode", "step", "flags", "reward", "action", "observation"):
            columns.append(self._column(name, batch.rows))  # noqa: PERF401  the first three are no such columns
        return [Insert(insert_sql("vector_step_rows", 1), zip(*columns, strict=True))]

    def _column(self, name: str, rows: StepColumns) -> list[SqlValue]:
        if name in self.names:
            column = rows[name]
            return column.tolist() if column.dtype.kind == "V" else _json_arrays(column)
        return [f"[{','.join('0' * self.env_count)}]" if name == "flags" else None] * len(rows)

    def _format(self, field: StepField) -> Any:
        if field.count > self.env_count:
            return f"V{field.count * np.dtype(field.code).itemsize}"
        return (field.code, (field.count,)) if field.count else field.code


def step_layout(schema: StepSchema) -> StepLayout:
    """The layout for a schema; raises `WireError` on one we cannot store."""
    return VectorLayout(schema) if schema.env_count else ScalarLayout(schema)


def _storable(column: NDArray[Any]) -> NDArray[Any]:
    """Unsigned values beyond SQLite's signed 64 bits become text; every other column stays as it is."""
    if column.dtype != np.uint64 or not column.size or column.max() <= INT64_MAX:
        return column
    is_beyond = column > INT64_MAX
    values = column.astype(object)
    values[is_beyond] = [str(value) for value in column[is_beyond].tolist()]
    return values


def _json_arrays(column: NDArray[Any]) -> list[SqlValue]:
    """One JSON array per row. NaN becomes null, infinity 9e999, a Boolean 0 or 1."""
    if column.dtype.kind == "b":
        column = column.view(np.uint8)
    rows: list[list[Any]] = _storable(column).tolist()
    if column.dtype.kind == "f" and np.isinf(column).any():
        rows = [[_JSON_INFINITY.get(value, value) for value in row] for row in rows]
    return [_JSON.encode(row).decode() for row in rows]
