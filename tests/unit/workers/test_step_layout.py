"""StepLayout: the first row that looks like it fixes the columns; a row that does not fit is refused, never bent."""

import struct
from typing import Any
from zlib import adler32

import numpy as np
import pytest

from runlane.transport.columns import step_dtype
from runlane.transport.journal_layout import RECORD_HEADER, ROW_OFFSET, record_check
from runlane.transport.messages import StepField
from runlane.transport.wire import STEP
from runlane.workers.step_layout import StepLayout, VectorLayout, as_array, field_of

# t_ns, episode and step, env_index and flags, reward: all of a row but its seq, action and observation.
FIXED = (-1, 2 + (3 << 32), struct.pack("<IB", 4, 5), 0.5)


def _record(layout: StepLayout, action: Any, observation: Any = None) -> bytes:
    """Pack one row as the session does it, seq 7; raises where a value does not fit."""
    row = layout.pack(layout.prefix, 7, *FIXED, *layout.convert(action, observation))
    buffer = bytearray(layout.record_bytes)
    layout.put(buffer, 0, adler32(row), row)
    return bytes(buffer)


def _row(layout: StepLayout, action: Any, observation: Any = None) -> dict[str, Any]:
    """Pack one row and read it back as a subscriber would."""
    (row,) = np.frombuffer(_record(layout, action, observation)[ROW_OFFSET:], step_dtype(layout.schema))
    return {name: row[name].tolist() for name in row.dtype.names}


def test_a_row_is_packed_as_the_journals_record() -> None:
    """Length, kind and schema before it, a check that fits: nothing is left to do but to append it."""
    layout = StepLayout(9, 1, np.zeros(3, np.float32))
    record = _record(layout, 5, np.ones(3, np.float32))
    _, length, kind, schema_id, seq = RECORD_HEADER.unpack_from(record)
    assert (length, kind, schema_id, seq) == (len(record), STEP, 9, 7)
    assert record_check(memoryview(record), 0, length)


@pytest.mark.parametrize(
    ("value", "code", "count"),
    [
        (True, "|u1", 0),
        (5, "<i8", 0),
        (0.5, "<f8", 0),
        (np.float64(0.5), "<f8", 0),
        (np.float16(0.5), "<f8", 0),
        (np.int8(5), "<i8", 0),
        (np.bool_(True), "<i8", 0),
        (np.array(5), "<i8", 0),
        (np.zeros(3, np.float32), "<f4", 3),
        (np.zeros((2, 3), ">i2"), "<i2", 6),
        (np.zeros(1, bool), "|u1", 1),
        (np.zeros(4, np.float16), "<f2", 4),
        ([1, 2], "<i8", 2),
        ([1, 2.5], "<f8", 2),
        ([[True], [False]], "|u1", 2),
    ],
)
def test_a_column_is_as_narrow_as_the_value_allows(value: Any, code: str, count: int) -> None:
    """Scalars become 8 bytes, arrays keep their own type; count 0 is a scalar."""
    assert field_of("action", value) == StepField("action", code, count)


def test_nothing_given_is_no_column() -> None:
    """A row without action or observation does not pay for them."""
    assert field_of("action", None) is None
    assert [field.name for field in StepLayout(0, None, None).schema.fields][-1] == "reward"


@pytest.mark.parametrize("value", ["left", {"a": 1}, object(), 1j, [None], [[1], ["a"]], np.longdouble(1), b"raw"])
def test_what_is_no_number_has_no_column(value: Any) -> None:
    """TypeError, which the session counts."""
    with pytest.raises((TypeError, ValueError)):
        field_of("action", value)


@pytest.mark.parametrize(
    "value", [np.arange(12).reshape(3, 4).T, np.arange(10)[::-2], np.arange(4, dtype=">f8"), np.array([[True, False]])]
)
def test_an_array_is_made_contiguous_and_little_endian(value: Any) -> None:
    """Its values stay, in C order."""
    array = as_array(value)
    assert array.flags.c_contiguous
    assert array.dtype == array.dtype.newbyteorder("<")
    assert array.astype(float).tolist() == value.astype(float).tolist()


def test_a_row_comes_back_as_it_was_given() -> None:
    """Every fixed field, the action and the observation."""
    layout = StepLayout(0, 9, np.arange(4, dtype=np.uint8).reshape(2, 2))
    assert _row(layout, 10, np.full((2, 2), 3, np.uint8)) == {
        "seq": 7,
        "t_ns": -1,
        "episode": 2,
        "step": 3,
        "env_index": 4,
        "flags": 5,
        "reward": 0.5,
        "action": 10,
        "observation": [3, 3, 3, 3],
    }


def test_the_schema_describes_the_bytes() -> None:
    """The dtype a reader makes of it is exactly one row long, whatever the columns."""
    for action in (None, 1, 0.5, True, np.zeros(5, np.int16)):
        for observation in (None, 2, np.zeros(3)):
            layout = StepLayout(3, action, observation)
            assert step_dtype(layout.schema).itemsize == layout.row_bytes == layout.record_bytes - ROW_OFFSET
            assert layout.schema.schema_id == 3


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (1, 0.5),
        (1, 1 << 63),
        (True, 300),
        (1, None),
        (None, 1),
        (1, np.zeros(2)),
        (np.zeros(2), 1),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.zeros(2, np.int64), [0.5, 0.5]),
        (0.5, "text"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(first: Any, later: Any) -> None:
    """Nothing is rounded, cut, padded or reinterpreted."""
    layout = StepLayout(0, first, None)
    with pytest.raises((TypeError, ValueError, struct.error)):
        _record(layout, later)


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        (0.5, 3, 3.0),
        (1, np.int32(5), 5),
        (1, np.bool_(True), 1),
        (1, np.array(5), 5),
        (True, False, 0),
        (0.5, np.float32(0.25), 0.25),
        (np.zeros(2), [0.5, 1.5], [0.5, 1.5]),
        (np.zeros((2, 1)), np.ones(2), [1.0, 1.0]),
    ],
)
def test_a_value_that_fits_without_loss_needs_no_new_layout(first: Any, later: Any, expected: Any) -> None:
    """A whole number in a float column, any integer type in an integer column, a list in place of an array."""
    assert _row(StepLayout(0, first, None), later)["action"] == expected


@pytest.mark.parametrize(
    ("action", "observation", "is_plain", "dtype"),
    [
        (1, None, True, None),
        (None, None, False, None),
        (1, 2, False, None),
        (np.zeros(2), None, False, None),
        (1, np.zeros(2, np.float32), False, np.dtype("f4")),
        (np.zeros(2), np.zeros(2), False, None),
        (None, np.zeros(2), False, None),
    ],
)
def test_only_a_scalar_action_needs_no_conversion(
    action: Any, observation: Any, is_plain: bool, dtype: "np.dtype[Any] | None"
) -> None:
    """Alone, or beside an array that is its own bytes: then the hot path packs it as it is, else the general way."""
    layout = StepLayout(0, action, observation)
    assert layout.is_plain is is_plain
    assert layout.observation_dtype == dtype
    assert layout.observation_bytes == (0 if observation is None else getattr(observation, "nbytes", 0))


# ---- vectors ---------------------------------------------------------------------------------------------


def _columns(env_count: int) -> list[Any]:
    return [np.arange(env_count), np.arange(env_count), np.zeros(env_count, np.uint8), np.linspace(0, 1, env_count)]


def test_a_vector_row_holds_n_values_a_column() -> None:
    """Its schema says of how many environments it is one step."""
    layout = VectorLayout(2, 3, np.zeros((3, 2), np.float32), None)
    action = np.arange(6, dtype=np.float32).reshape(3, 2)
    body = layout.parts(8, _columns(3), [action, None])
    assert len(body) == layout.row_bytes - 8 == layout.record_bytes - RECORD_HEADER.size
    (row,) = np.frombuffer((9).to_bytes(8, "little") + body, step_dtype(layout.schema))
    assert (layout.schema.env_count, layout.schema.schema_id) == (3, 2)
    assert (row["seq"], row["t_ns"]) == (9, 8)
    assert row["episode"].tolist() == [0, 1, 2]
    assert row["reward"].tolist() == [0.0, 0.5, 1.0]
    assert row["action"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "optional", [[None, None], [np.zeros((3, 2)), np.zeros(3)], [np.zeros(3), None], [np.zeros((3, 2), np.int8), None]]
)
def test_a_vector_row_that_does_not_fit_is_refused(optional: list[Any]) -> None:
    """A value that vanished, appeared, or has another size or type."""
    layout = VectorLayout(0, 3, np.zeros((3, 2)), None)
    with pytest.raises(TypeError):
        layout.parts(1, _columns(3), optional)


@pytest.mark.parametrize("action", [5, np.zeros(2), np.zeros((2, 3))])
def test_the_first_axis_of_a_vector_value_is_the_environment(action: Any) -> None:
    """Anything else would give an environment its neighbour's action."""
    with pytest.raises(TypeError, match="the 3 environments"):
        VectorLayout(0, 3, action, None)
