"""Section bodies → NumPy columns or typed records. The only place in `transport` that imports NumPy.

Only processes that read records import this file; the router and proxies forward bodies untouched.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from runlane.config.errors import WireError
from runlane.config.names import KINDS
from runlane.transport.messages import StepSchema
from runlane.transport.records import RECORD_TYPES, Record
from runlane.transport.wire import Frame, Section, unpack

StepColumns = NDArray[np.void]


def step_dtype(schema: StepSchema) -> np.dtype[np.void]:
    """NumPy dtype of one packed step row: the schema's columns in order, little endian, no padding."""
    fields: list[Any] = [
        (field.name, field.code, (field.count,)) if field.count else (field.name, field.code) for field in schema.fields
    ]
    return np.dtype(fields)


def decode_steps(body: Frame, section: Section, dtype: np.dtype[np.void]) -> StepColumns:
    """View a step section's body as structured rows, without a copy; raises `WireError` on a wrong size."""
    if len(body) != section.records * dtype.itemsize:
        raise WireError("rows", f"{len(body)} bytes for {section.records} rows of {dtype.itemsize}")
    return np.frombuffer(body, dtype=dtype)


def decode_records(body: Frame, section: Section) -> list[Record]:
    """Decode and validate a section of any kind but step; raises `WireError`."""
    kind = KINDS[section.kind - 1]
    record_type = RECORD_TYPES.get(kind)
    if record_type is None:
        raise WireError("kind", f"{kind} rows are not MessagePack records")
    try:
        records = msgspec.convert(unpack(body), list[record_type])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise WireError("invalid", f"{kind}: {error}") from None
    if len(records) != section.records:
        raise WireError("rows", f"{len(records)} {kind} records, header says {section.records}")
    return list(records)
