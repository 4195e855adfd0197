"""Columns: a step section is a view of packed rows, laid out as its schema says."""

import numpy as np
import pytest

from runlane.config.errors import WireError
from runlane.transport.columns import decode_steps, step_dtype
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.wire import STEP, Section

SCHEMA = StepSchema(
    schema_id=0,
    fields=[
        StepField("seq", "<u8"),
        StepField("flags", "|u1"),
        StepField("action", "<f4", 3),
        StepField("one", "<i2", 1),
    ],
)


def test_the_dtype_has_the_schemas_columns_without_padding() -> None:
    """In order, little endian, as large as the sum of its columns."""
    dtype = step_dtype(SCHEMA)
    assert dtype.names == ("seq", "flags", "action", "one")
    assert dtype.itemsize == 8 + 1 + 12 + 2


def test_count_zero_is_a_scalar_and_count_one_an_array_of_one() -> None:
    """The two are told apart, as they were when the row was written."""
    rows = np.zeros(2, step_dtype(SCHEMA))
    assert rows["seq"].shape == (2,)
    assert rows["one"].shape == (2, 1)
    assert rows["action"].shape == (2, 3)


def test_rows_are_viewed_not_copied() -> None:
    """The columns read the body itself."""
    dtype = step_dtype(SCHEMA)
    body = bytearray(2 * dtype.itemsize)
    rows = decode_steps(body, Section(STEP, 0, 2, len(body)), dtype)
    body[dtype.itemsize : dtype.itemsize + 8] = (77).to_bytes(8, "little")
    assert rows["seq"].tolist() == [0, 77]


@pytest.mark.parametrize("size", [0, 22, 24, 45, 47, 69])
def test_a_body_that_is_not_whole_rows_is_refused(size: int) -> None:
    """One byte too many or too few, or a row too many: WireError, never a shifted column."""
    with pytest.raises(WireError) as caught:
        decode_steps(bytes(size), Section(STEP, 0, 2, size), step_dtype(SCHEMA))
    assert caught.value.reason == "rows"
