"""BatchBuilder: seqs in order, at most `limit` records, rows of one layout."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runlane.transport.records import LogRecord, Record
from runlane.workers.batch_builder import MAX_SCHEMAS, MAX_STEP_BYTES, BatchBuilder
from runlane.workers.outbox import Sealed
from runlane.workers.step_layout import StepLayout, VectorLayout


def _taken(builder: BatchBuilder) -> Sealed | None:
    """The batch as an outbox gets it."""
    outbox: deque[Sealed] = deque()
    assert builder.take(outbox) is bool(outbox)
    return outbox.popleft() if outbox else None


def _log(text: str) -> Callable[[int], Record]:
    return lambda seq: LogRecord(seq, 0, "info", text)


def _impossible(seq: int) -> Record:
    raise ZeroDivisionError(seq)


def _step(builder: BatchBuilder, action: Any = 1) -> bool:
    """Write one row, as the session does it."""
    is_written = builder.write_row((builder.seq + 1, 0, 1, 1, 0, 0, 0.5), action, None)
    if is_written and builder.layout is not None:
        builder.keep_row(builder.layout.row_bytes)
    return is_written


def _builder(limit: int = 10, action: Any = 1) -> BatchBuilder:
    builder = BatchBuilder(limit)
    builder.use(StepLayout(0, action, None))
    return builder


def test_records_and_rows_share_one_count() -> None:
    """Seqs rise from 1 whatever the kind; a record is made with its own."""
    builder = _builder()
    builder.append("log", _log("a"))
    assert _step(builder)
    builder.append("log", _log("b"))
    sealed = _taken(builder)
    assert sealed is not None
    assert (sealed.first_seq, sealed.record_count, sealed.rows) == (1, 3, 1)
    assert [record.seq for record in sealed.records["log"]] == [1, 3]
    assert int.from_bytes(sealed.step_body[:8], "little") == 2


def test_the_next_batch_goes_on_where_the_last_one_ended() -> None:
    """Taking a batch empties it and keeps the count."""
    builder = _builder()
    for _ in range(3):
        _step(builder)
    first = _taken(builder)
    builder.append("log", _log("a"))
    second = _taken(builder)
    assert first is not None
    assert second is not None
    assert (first.first_seq, first.record_count) == (1, 3)
    assert (second.first_seq, second.record_count, second.rows, second.step_body) == (4, 1, 0, b"")
    assert (builder.count, builder.rows, builder.taken_rows) == (0, 0, 3)


def test_an_empty_batch_is_not_taken() -> None:
    """Nothing is sent where nothing is."""
    builder = _builder()
    assert _taken(builder) is None
    _step(builder)
    _taken(builder)
    assert _taken(builder) is None


def test_a_batch_is_full_at_its_limit() -> None:
    """Rows and records count alike."""
    builder = _builder(3)
    _step(builder)
    builder.append("log", _log("a"))
    assert not builder.is_full
    _step(builder)
    assert (builder.is_full, builder.count) == (True, 3)
    _taken(builder)
    assert (builder.is_full, builder.count) == (False, 0)


def test_a_limit_of_zero_is_full_from_the_start() -> None:
    """So a forked child's first record is noticed."""
    builder = BatchBuilder(0)
    assert (builder.is_full, builder.count) == (True, 0)
    assert _taken(builder) is None


def test_an_ended_builder_is_full_for_good() -> None:
    """A closed session takes nothing more; what it gave keeps its count."""
    builder = _builder()
    _step(builder)
    _taken(builder)
    builder.end()
    assert (builder.is_full, builder.count, builder.seq) == (True, 0, 1)
    assert _taken(builder) is None


def test_a_row_that_does_not_fit_moves_nothing() -> None:
    """False, and the next row lies where it would have lain."""
    builder = _builder()
    assert _step(builder, 1)
    assert not _step(builder, 0.5)
    assert not _step(builder, np.zeros(2))
    assert (builder.seq, builder.rows) == (1, 1)
    assert _step(builder, 2)
    sealed = _taken(builder)
    assert sealed is not None
    assert [sealed.step_body[offset] for offset in (0, len(sealed.step_body) // 2)] == [1, 2]


def test_a_scalar_row_does_not_fit_a_vector_layout_nor_the_other_way_round() -> None:
    """Each has its own columns."""
    builder = BatchBuilder(10)
    columns = [np.ones(2, np.uint32), np.ones(2, np.uint32), np.zeros(2, np.uint8), np.zeros(2)]
    assert not _step(builder)
    assert not builder.write_vector_row((1, 0), columns, [None, None], 2)
    builder.use(VectorLayout(0, 2, None, None))
    assert not _step(builder)
    assert builder.write_vector_row((1, 0), columns, [None, None], 2)
    assert not builder.write_vector_row((1, 0), columns, [None, None], 3)
    builder.use(StepLayout(1, 1, None))
    assert not builder.write_vector_row((1, 0), columns, [None, None], 2)


def test_a_layout_is_announced_once() -> None:
    """Coming back to it is no news, and its rows carry the schema they carried before."""
    builder = BatchBuilder(10)
    assert builder.use(StepLayout(0, 1, None)) is True
    assert builder.use(StepLayout(1, 0.5, None)) is True
    assert builder.use(StepLayout(2, 7, None)) is False
    assert [schema.schema_id for schema in builder.schemas] == [0, 1]
    _step(builder)
    sealed = _taken(builder)
    assert sealed is not None
    assert sealed.schema_id == 0


def test_layouts_are_bounded() -> None:
    """One too many is refused, and those that are known can still be used."""
    builder = BatchBuilder(1)
    for size in range(1, MAX_SCHEMAS + 1):
        builder.use(StepLayout(size - 1, np.zeros(size, np.uint8), None))
    with pytest.raises(ValueError, match=f"more than {MAX_SCHEMAS} shapes"):
        builder.use(StepLayout(MAX_SCHEMAS, np.zeros(MAX_SCHEMAS + 1, np.uint8), None))
    assert builder.use(StepLayout(0, np.zeros(3, np.uint8), None)) is False
    assert len(builder.schemas) == MAX_SCHEMAS


def test_large_rows_make_smaller_batches_and_small_ones_full_ones_again() -> None:
    """A body stays within MAX_STEP_BYTES; one row larger than that makes a batch of one."""
    builder = BatchBuilder(256)
    limits: list[int] = []
    for size in (10, MAX_STEP_BYTES // 10, MAX_STEP_BYTES + 1, 10):
        builder.use(StepLayout(0, np.zeros(size, np.uint8), None))
        limits.append(builder.limit)
    assert limits == [256, 9, 1, 256]


def test_a_record_that_cannot_be_made_takes_no_seq() -> None:
    """Its maker raises, and the batch is as it was."""
    builder = _builder()
    with pytest.raises(ZeroDivisionError):
        builder.append("log", _impossible)
    assert (builder.seq, builder.count, _taken(builder)) == (0, 0, None)
