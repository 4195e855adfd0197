"""BatchBuilder: the batch being filled. Gives each record its seq. No lock, no socket; the session guards it.

Step rows are packed into `buffer` as they will be sent; other records wait as structs. A KeyboardInterrupt can
arrive at any call, so the seq is moved right after the record is in place, with no call between: a record is
either wholly in the batch or not at all.
"""

import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from runlane.transport.messages import StepSchema
from runlane.transport.records import Record
from runlane.workers.outbox import Sealed
from runlane.workers.step_layout import StepLayout, VectorLayout

# A batch's rows stay well below what one frame may hold (`wire.MAX_BODY_BYTES`).
MAX_STEP_BYTES = 4 << 20
# Every schema of a stream stands in each of its hellos, which a receiver takes up to `wire.MAX_CONTROL_BYTES`.
MAX_SCHEMAS = 1_000


class BatchBuilder:
    """One stream's next batch, at most `limit` records.

    Two numbers say all: `seq`, the newest given, and `offset`, the end of the newest row. What else there is to
    know follows from them, because every step has to move what it has to move.
    """

    __slots__ = (
        "buffer",
        "full_seq",
        "is_plain",
        "layout",
        "layouts",
        "limit",
        "most",
        "offset",
        "pack_into",
        "records",
        "schemas",
        "seq",
        "taken_rows",
    )

    def __init__(self, limit: int) -> None:
        """An empty batch of a stream that begins at seq 1. A limit of 0 makes it full from the start."""
        self.most = limit
        self.limit = limit
        self.seq = 0
        self.full_seq = limit
        self.offset = 0
        self.taken_rows = 0
        self.buffer = bytearray()
        self.layout: StepLayout | VectorLayout | None = None
        # Bound here for the common row, a scalar action and no observation, which needs no conversion.
        self.is_plain = False
        self.pack_into: Callable[..., None] = struct.pack_into
        self.schemas: list[StepSchema] = []
        self.layouts: dict[tuple[object, ...], StepLayout | VectorLayout] = {}
        self.records: dict[str, list[Record]] = {}

    @property
    def count(self) -> int:
        """Records in the batch."""
        return self.seq - self.full_seq + self.limit

    @property
    def rows(self) -> int:
        """Step rows in the batch."""
        return self.offset // self.layout.row_bytes if self.layout is not None else 0

    @property
    def is_full(self) -> bool:
        """Whether the batch must be taken before another record fits."""
        return self.seq >= self.full_seq

    def append(self, kind: str, make: Callable[[int], Record]) -> None:
        """Give the record that `make` builds the next seq. The batch is not full."""
        rows = self.records.get(kind)
        if rows is None:
            rows = self.records[kind] = []
        record = make(self.seq + 1)
        rows += [record]  # no call: see the module's docstring
        self.seq += 1

    def use(self, layout: StepLayout | VectorLayout) -> bool:
        """Write rows in this layout from here on; returns whether its schema is new. The batch is empty.

        Large rows make smaller batches. Raises `ValueError` when a stream has too many layouts to announce.
        """
        key = (*layout.schema.fields, layout.schema.env_count)
        known = self.layouts.get(key)
        if known is None:
            if len(self.schemas) >= MAX_SCHEMAS:
                raise ValueError(f"the rows of this stream have more than {MAX_SCHEMAS} shapes")
            self.layouts[key] = layout
            self.schemas.append(layout.schema)
        else:
            layout = known
        self.limit = min(self.most, max(1, MAX_STEP_BYTES // layout.row_bytes))
        self.full_seq = self.seq + self.limit
        self.layout = layout
        self.is_plain = isinstance(layout, StepLayout) and layout.is_plain
        self.pack_into = layout.pack_into
        self.buffer = bytearray(layout.row_bytes * self.limit)
        return known is None

    def end(self) -> None:
        """Be full for good. The batch is empty."""
        self.limit = 0
        self.full_seq = self.seq

    def write_row(self, fixed: tuple[Any, ...], action: Any, observation: Any) -> bool:
        """Pack a step row at the end of the buffer; False when it does not fit the layout in use."""
        layout = self.layout
        if not isinstance(layout, StepLayout):
            return False
        try:
            layout.pack(self.buffer, self.offset, fixed, action, observation)
        except (TypeError, ValueError, struct.error):
            return False
        return True

    def write_vector_row(self, fixed: tuple[int, int], columns: list[Any], optional: list[Any], env_count: int) -> bool:
        """Pack a row of n environments; False when it does not fit the layout in use."""
        layout = self.layout
        if not isinstance(layout, VectorLayout) or layout.schema.env_count != env_count:
            return False
        try:
            layout.pack_into(self.buffer, self.offset, *fixed, columns, optional)
        except TypeError:
            return False
        return True

    def keep_row(self, row_bytes: int) -> None:
        """The row just packed is a record now."""
        self.offset += row_bytes
        self.seq += 1

    def take(self, into: deque[Sealed]) -> bool:
        """Hand the batch over to the end of `into`, leaving an empty one; False when it holds nothing."""
        count, rows = self.count, self.rows
        if not count:
            return False
        schema_id = self.layout.schema.schema_id if self.layout is not None else 0
        body = bytes(memoryview(self.buffer)[: self.offset])
        sealed = Sealed(self.seq - count + 1, count, time.time_ns(), schema_id, rows, body, self.records)
        into += (sealed,)  # no call from here on: an interrupt must not come between, see the module's docstring
        self.records = {}
        self.taken_rows += rows
        self.offset = 0
        self.full_seq = self.seq + self.limit
        return True
