"""Step sections become rows of the database: right types, NaN and infinity kept apart, bad bytes refused."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runlane.actors.sql import connect
from runlane.actors.step_inserts import GROUPS, INT64_MAX, insert_sql
from runlane.actors.step_rows import step_layout
from runlane.config.errors import WireError
from runlane.transport.columns import step_dtype
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.records import HUMAN, IS_RESET, TERMINATED
from runlane.transport.row_key import SEQ_BITS
from runlane.transport.wire import Frame, Section

CORE = [
    StepField("seq", "<u8"),
    StepField("t_ns", "<i8"),
    StepField("episode", "<u4"),
    StepField("step", "<u4"),
    StepField("env_index", "<u4"),
    StepField("flags", "|u1"),
    StepField("reward", "<f8"),
]
_SCALARS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "b1")


def scalar(*more: StepField) -> StepSchema:
    return StepSchema(1, [*CORE, *more])


def vector(env_count: int, *more: StepField) -> StepSchema:
    per_env = [StepField(name, code, env_count) for name, code in (("flags", "|u1"), ("reward", "<f8"))]
    return StepSchema(1, [StepField("seq", "<u8"), StepField("t_ns", "<i8"), *per_env, *more], env_count)


def packed(schema: StepSchema, columns: dict[str, Any]) -> bytes:
    """Encode columns as a source does."""
    rows = np.zeros(len(columns["seq"]), step_dtype(schema))
    for name, values in columns.items():
        rows[name] = values
    return rows.tobytes()


def stored(schema: StepSchema, body: Frame, count: int, stream_no: int = 1) -> list[tuple[Any, ...]]:
    """Decode rows and put them into the table as the store does; returns what SQLite has then."""
    layout = step_layout(schema)
    batch = layout.decode(body, Section(1, 1, count, len(body)))
    connection = connect(Path(":memory:"))
    connection.execute(resources.files("runlane.actors").joinpath("schema.sql").read_text("utf-8"))
    for sql, bindings in layout.inserts(batch, stream_no):
        connection.cursor().executemany(sql, bindings)
    table = "vector_step_rows" if schema.env_count else "step_rows"
    found = connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()  # noqa: S608
    connection.close()
    return found


def rows_of(schema: StepSchema, columns: dict[str, Any], stream_no: int = 1) -> list[tuple[Any, ...]]:
    """What SQLite has of rows with these columns."""
    return stored(schema, packed(schema, columns), len(columns["seq"]), stream_no)


def test_a_row_has_the_packed_key_and_plain_values() -> None:
    """Every value is an integer, a float or nothing: none that SQLite would store as a BLOB by mistake."""
    schema = scalar(StepField("action", "<i8"))
    columns = {"seq": [7], "t_ns": [5], "episode": 2, "step": 3, "env_index": 1, "flags": TERMINATED, "reward": 0.5}
    assert rows_of(schema, columns | {"action": 4}, stream_no=9) == [(9 << SEQ_BITS | 7, 5, 2, 3, 1, 1, 0.5, 4, None)]
    (row,) = rows_of(schema, columns)
    assert {type(value) for value in row} == {int, float, type(None)}


def test_an_array_is_its_bytes_little_endian() -> None:
    """A continuous action and an observation are kept bit for bit, trailing zero bytes too."""
    schema = scalar(StepField("action", "<f4", 3), StepField("observation", "|u1", 4))
    action = np.array([1.5, -2.0, 0.0], "<f4")
    (row,) = rows_of(schema, {"seq": [1], "action": action, "observation": [9, 8, 0, 0]})
    assert row[7:] == (action.tobytes(), bytes([9, 8, 0, 0]))


def test_a_discrete_observation_is_a_number() -> None:
    """A scalar observation, as of FrozenLake, stays an integer."""
    assert rows_of(scalar(StepField("observation", "<i8")), {"seq": [1], "observation": 15})[0][8] == 15


def test_columns_a_source_leaves_out_are_null_or_zero() -> None:
    """Only seq and t_ns are required; env_index and flags become 0, the others NULL."""
    schema = StepSchema(1, CORE[:2])
    assert rows_of(schema, {"seq": [1, 2], "t_ns": [3, 4]})[1][1:] == (4, None, None, 0, 0, None, None, None)


def test_fields_we_do_not_know_are_passed_over() -> None:
    """A newer source may send more; the columns around the unknown one are read from their places."""
    schema = StepSchema(1, [CORE[0], StepField("mood", "<f4", 2), *CORE[1:]])
    assert rows_of(schema, {"seq": [1], "mood": 3.0, "t_ns": [42], "reward": 2.0})[0][1:7:5] == (42, 2.0)


@pytest.mark.parametrize("env_count", [0, 1])
def test_an_unsigned_value_beyond_64_bits_signed_is_text(env_count: int) -> None:
    """SQLite's integers end at 2**63 - 1; a greater one is kept as text, its neighbours as numbers."""
    field = StepField("action", "<u8", env_count)
    schema = vector(env_count, field) if env_count else scalar(field)
    values = np.array([5, 2**63], np.uint64).reshape((2, 1) if env_count else 2)
    actions = [row[7] for row in rows_of(schema, {"seq": [1, 2], "action": values})]
    assert actions == (["[5]", f'["{2**63}"]'] if env_count else [5, str(2**63)])


def test_a_vector_row_packs_each_column_as_json() -> None:
    """NaN becomes null, infinities 9e999, Booleans numbers; SQLite and Python read them back."""
    schema = vector(3, StepField("action", "|b1", 3))
    rewards = [float("nan"), float("inf"), -float("inf")]
    (row,) = rows_of(schema, {"seq": [1], "flags": [0, IS_RESET, HUMAN], "reward": rewards, "action": [1, 0, 1]})
    assert row[2:] == (3, None, None, "[0,4,8]", "[null,9e999,-9e999]", "[1,0,1]", None)
    assert json.loads(row[6])[1:] == rewards[1:]


def test_a_vector_row_packs_several_values_per_env_as_bytes() -> None:
    """With k values per environment the column is a BLOB of all of them, environment after environment."""
    observation = np.arange(6, dtype="<f4")
    (row,) = rows_of(vector(2, StepField("observation", "<f4", 6)), {"seq": [1], "observation": observation})
    assert row[8] == observation.tobytes()


def test_vector_rows_without_flags_have_them_zero() -> None:
    """`flags` says how many environments there are, so it is never NULL."""
    schema = StepSchema(1, [StepField("seq", "<u8"), StepField("t_ns", "<i8")], 3)
    assert rows_of(schema, {"seq": [1]})[0][5] == "[0,0,0]"


def test_env_steps_do_not_count_resets() -> None:
    """A scalar row is one step or none, a vector row as many as its environments that stepped."""
    for schema, expected in ((scalar(), 1), (vector(2), 2)):
        packed = np.zeros(2, step_dtype(schema))
        packed["seq"] = [1, 2]
        packed["flags"][1] = IS_RESET
        layout = step_layout(schema)
        batch = layout.decode(packed.tobytes(), Section(1, 1, 2, packed.nbytes))
        assert layout.env_steps(batch) == expected


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        (StepSchema(1, CORE[:1]), "without t_ns"),
        (StepSchema(1, CORE[1:]), "without seq"),
        (StepSchema(1, [*CORE, CORE[0]]), "seq"),
        (scalar(StepField("action", "<f1")), "f1"),
        (StepSchema(1, [StepField("seq", "<u4"), CORE[1]]), "seq is 0 of <u4"),
        (StepSchema(1, [*CORE[:2], StepField("episode", "<u8")]), "episode"),
        (StepSchema(1, [*CORE[:2], StepField("reward", "<f8", 2)]), "reward is 2"),
        (StepSchema(1, [*CORE[:2], StepField("reward", "<i8")]), "reward"),
        (StepSchema(1, [*CORE[:2], StepField("reward", "<f8", 2)], 3), "for 3 envs"),
        (StepSchema(1, [*CORE[:2], StepField("action", "<f8", 4)], 3), "for 3 envs"),
        (StepSchema(1, [*CORE[:2], StepField("action", "<f8")], 3), "for 3 envs"),
    ],
)
def test_a_schema_we_cannot_store_is_refused(schema: StepSchema, part: str) -> None:
    """A missing seq or t_ns, a type SQLite cannot hold, a count that does not fit: `WireError`, naming it."""
    with pytest.raises(WireError, match=part) as caught:
        step_layout(schema)
    assert caught.value.reason == "schema"


@pytest.mark.parametrize("seqs", [[0], [2, 1], [1, 1], [1, 2**40], [1, 2**63], [2**63, 1]])
def test_seqs_that_do_not_rise_within_a_key_are_refused(seqs: list[int]) -> None:
    """A seq beyond 40 bits would land in another stream's keys, a repeated one would be lost."""
    with pytest.raises(WireError) as caught:
        rows_of(scalar(), {"seq": np.array(seqs, np.uint64)})
    assert caught.value.reason == "seq"


def test_a_body_of_another_size_is_refused() -> None:
    """Bytes and row count must agree."""
    with pytest.raises(WireError, match="rows"):
        step_layout(scalar()).decode(bytes(10), Section(1, 1, 1, 10))


@pytest.mark.parametrize("code", [f"{order}{kind}" for kind in _SCALARS for order in "<|"])
def test_a_scalar_of_any_type_is_stored_as_numpy_reads_it(code: str) -> None:
    """Least, greatest and, of floats, what is no number; from a place that no type would be aligned to."""
    dtype = np.dtype(code)
    if dtype.kind == "f":
        values = np.array([np.finfo(dtype).min, np.finfo(dtype).smallest_subnormal, np.inf, -np.inf, np.nan], dtype)
    elif dtype.kind == "b":
        values = np.array([0, 1, 2, 255, 1], np.uint8).view(dtype)
    else:
        values = np.array([np.iinfo(dtype).min, 0, 1, 2, min(np.iinfo(dtype).max, INT64_MAX)], dtype)
    schema = scalar(StepField("action", code))
    expected: list[Any] = [None if value != value else value for value in values.tolist()]
    actions = [row[7] for row in rows_of(schema, {"seq": range(1, 6), "action": values})]
    assert [(type(value), value) for value in actions] == [
        (int if dtype.kind == "b" else type(value), value) for value in expected
    ]


@pytest.mark.parametrize("count", [1, 9, 10, 99, 100, 101, 110, 999, 1_234])
def test_rows_of_any_number_are_stored_once_each(count: int) -> None:
    """Whatever is left after whole statements of a hundred goes by tens, then one by one."""
    schema = scalar(StepField("action", "<i8"))
    seqs = np.arange(1, count + 1)
    columns = {"seq": seqs, "t_ns": -seqs, "episode": seqs // 200, "reward": seqs / 3, "action": seqs * 7}
    expected = [(1 << SEQ_BITS | n, -n, n // 200, 0, 0, 0, n / 3, n * 7, None) for n in range(1, count + 1)]
    assert rows_of(schema, columns) == expected


def test_only_a_bytearray_is_changed() -> None:
    """Its seqs become ids in place, which saves a copy. Any other body may be stored once more, so it is left alone."""
    body = packed(scalar(), {"seq": [1, 2]})
    view = memoryview(bytearray(body))
    ours = bytearray(body)
    assert stored(scalar(), view, 2) == stored(scalar(), ours, 2) == stored(scalar(), body, 2)
    assert bytes(view) == body == packed(scalar(), {"seq": [1, 2]})
    assert ours != body


def test_a_statement_stays_within_sqlites_limits() -> None:
    """apsw keeps statements of less than 16 KiB prepared; SQLite binds at most 32,766 values."""
    sql = insert_sql("step_rows", max(GROUPS))
    assert len(sql) < 16_384
    assert sql.count("?") == 9 * max(GROUPS) < 32_766
