"""Step sections become SQL values: right types, NaN and infinity kept apart, bad bytes refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runlane.actors.row_key import SEQ_BITS
from runlane.actors.sql import connect
from runlane.actors.step_rows import WIDTH, RowBuffer, ScalarLayout, insert_sql, step_layout
from runlane.config.errors import WireError
from runlane.transport.columns import step_dtype
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.records import HUMAN, IS_RESET, TERMINATED
from runlane.transport.wire import Section

CORE = [
    StepField("seq", "<u8"),
    StepField("t_ns", "<i8"),
    StepField("episode", "<u4"),
    StepField("step", "<u4"),
    StepField("env_index", "<u4"),
    StepField("flags", "|u1"),
    StepField("reward", "<f8"),
]


def scalar(*more: StepField) -> StepSchema:
    return StepSchema(1, [*CORE, *more])


def vector(env_count: int, *more: StepField) -> StepSchema:
    per_env = [StepField(name, code, env_count) for name, code in (("flags", "|u1"), ("reward", "<f8"))]
    return StepSchema(1, [StepField("seq", "<u8"), StepField("t_ns", "<i8"), *per_env, *more], env_count)


def rows_of(schema: StepSchema, columns: dict[str, Any], stream_no: int = 1) -> list[tuple[Any, ...]]:
    """Encode columns as a source does, decode them as the store does, cut into rows."""
    count = len(columns["seq"])
    packed = np.zeros(count, step_dtype(schema))
    for name, values in columns.items():
        packed[name] = values
    body = packed.tobytes()
    layout = step_layout(schema)
    values = layout.values(layout.decode(body, Section(1, 1, count, len(body))), stream_no)
    return [tuple(values[start : start + WIDTH]) for start in range(0, len(values), WIDTH)]


def test_a_row_has_the_packed_key_and_plain_python_values() -> None:
    """Every value is an int, float, bytes or None: nothing SQLite would store as a BLOB by mistake."""
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


def test_a_buffer_sends_whole_statements_at_once_and_the_rest_at_the_end() -> None:
    """After `add` less than one statement's rows wait; after `flush` none do; after `clear` none ever come."""
    connection = connect(Path(":memory:"))
    connection.execute("CREATE TABLE step_rows (id INTEGER PRIMARY KEY, b, c, d, e, f, g, h, i)")
    count = connection.execute
    buffer = RowBuffer(connection.cursor(), ScalarLayout)
    buffer.add([value for seq in range(120) for value in (seq, *[None] * 8)])
    assert count("SELECT count(*) FROM step_rows").get == 100
    buffer.flush()
    assert count("SELECT count(*) FROM step_rows").get == 120
    buffer.add([120, *[None] * 8])
    buffer.clear()
    buffer.flush()
    assert count("SELECT count(*) FROM step_rows").get == 120
    connection.close()


def test_an_insert_names_each_value_once() -> None:
    """Fifty rows are fifty times nine parameters."""
    assert insert_sql("step_rows", 50).count("?") == 50 * WIDTH
