"""Any numeric action and observation comes out of the columns as it went into the row."""

import struct
from typing import Any
from zlib import adler32

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runlane.transport.columns import step_dtype
from runlane.transport.journal_layout import ROW_OFFSET
from runlane.workers.step_layout import StepLayout, VectorLayout

int64s = st.integers(-(1 << 63), (1 << 63) - 1)
scalars = (
    st.booleans()
    | int64s
    | st.floats()
    | hnp.from_dtype(np.dtype("f4"))
    | hnp.from_dtype(np.dtype("f2"))
    | hnp.from_dtype(np.dtype("i4"))
    | hnp.from_dtype(np.dtype("u1"))
    | hnp.from_dtype(np.dtype("?"))
)
dtypes = (
    hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)) | hnp.boolean_dtypes()
)  # fmt: skip
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
values = st.none() | scalars | arrays


def _expected(value: Any) -> Any:
    """What a reader sees: scalars as they are, arrays flat, truth as 0 and 1, in the native byte order."""
    if np.ndim(value):
        flat: Any = value.reshape(-1)
        return flat.astype(np.uint8 if flat.dtype.kind == "b" else flat.dtype.newbyteorder("="))
    return value


def _packed(layout: StepLayout, seq: int, fixed: tuple[Any, ...], action: Any, observation: Any) -> Any:
    """One row as the session writes it into the journal, read as a reader of the stream sees it."""
    t_ns, episode, step, env_index, flags, reward = fixed
    tail = struct.pack("<IB", env_index, flags)
    values = layout.convert(action, observation)
    row = layout.pack(layout.prefix, seq, t_ns, episode + (step << 32), tail, reward, *values)
    buffer = bytearray(layout.record_bytes)
    layout.put(buffer, 0, adler32(row), row)
    (columns,) = np.frombuffer(bytes(buffer[ROW_OFFSET:]), step_dtype(layout.schema))
    return columns


def _is_small(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) <= 1 << 53


@given(
    action=values,
    observation=values,
    reward=st.floats(),
    t_ns=int64s,
    episode=st.integers(0, (1 << 32) - 1),
    flags=st.integers(0, 255),
)
def test_a_row_round_trips(action: Any, observation: Any, reward: float, t_ns: int, episode: int, flags: int) -> None:
    """Packed into a record, read as columns: bit for bit, NaN included, and the schema says the types."""
    layout = StepLayout(0, action, observation)
    columns = _packed(layout, 3, (t_ns, episode, 5, 6, flags, reward), action, observation)
    assert [columns[name] for name in ("seq", "t_ns", "episode", "step", "env_index", "flags")] == [
        3, t_ns, episode, 5, 6, flags,
    ]  # fmt: skip
    np.testing.assert_array_equal(columns["reward"], reward)
    for name, value in (("action", action), ("observation", observation)):
        if value is None:
            assert name not in columns.dtype.names
        else:
            np.testing.assert_array_equal(columns[name], _expected(value))


@given(data=st.data(), env_count=st.integers(1, 5), dtype=dtypes)
def test_a_vector_row_round_trips(data: st.DataObject, env_count: int, dtype: np.dtype[Any]) -> None:
    """n environments in one row: each column's values in the order of the environments."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    action = data.draw(hnp.arrays(dtype, (env_count, *shape)))
    rewards = data.draw(hnp.arrays(np.float64, env_count))
    steps = data.draw(hnp.arrays(np.uint32, env_count))
    flags = data.draw(hnp.arrays(np.uint8, env_count))
    layout = VectorLayout(0, env_count, action, None)
    body = layout.parts(-7, [steps, steps, flags, rewards], [action, None])
    (row,) = np.frombuffer((7).to_bytes(8, "little") + body, step_dtype(layout.schema))
    assert (int(row["seq"]), int(row["t_ns"])) == (7, -7)
    np.testing.assert_array_equal(row["reward"], rewards)
    np.testing.assert_array_equal(row["step"], steps)
    np.testing.assert_array_equal(row["flags"], flags)
    np.testing.assert_array_equal(row["action"], _expected(action))


@example(first=0.0, later=float("nan"))
@given(first=values, later=st.none() | scalars.filter(_is_small) | arrays)
def test_a_row_is_refused_or_kept_without_loss(first: Any, later: Any) -> None:
    """A layout never bends a value to make it fit: what it takes comes out equal.

    Only an integer beyond 2**53 in a column that began with a float is rounded, as any float is.
    """
    layout = StepLayout(0, first, None)
    try:
        columns = _packed(layout, 1, (0, 1, 1, 0, 0, 0.0), later, None)
    except (TypeError, ValueError, struct.error):
        return
    if later is None:
        assert "action" not in columns.dtype.names
    else:
        # As Python values: an integer equals a float only if it does exactly, and NaN is NaN.
        stored, wanted = np.ravel(columns["action"]).tolist(), np.ravel(_expected(later)).tolist()
        np.testing.assert_equal(stored, wanted)
