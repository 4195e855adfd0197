"""How one step becomes bytes: a packed row whose layout is fixed by the first step that looks like it.

A scalar row is packed as the whole journal record it will be, but for its check. Scalars stay scalars; an array
becomes its bytes, little endian, in its own dtype.
"""

import functools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runlane.transport.journal_layout import ROW_OFFSET, ROW_PREFIX
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.wire import STEP

_SCALAR_CODES = {bool: "|u1", int: "<i8", float: "<f8"}
_STRUCT_CODES = {"<i8": "q", "<f8": "d", "|u1": "B", "<u8": "Q", "<u4": "I"}
_SCALARS = (int, float, bool)

ToBytes = Callable[[Any], Any]


def field_of(name: str, value: Any) -> StepField | None:
    """Column for a value given to `step()`: None, a number, or anything NumPy can make a numeric array of."""
    if value is None:
        return None
    for kind, code in _SCALAR_CODES.items():
        if isinstance(value, kind):
            return StepField(name, code)
    array = as_array(value)
    if array.ndim == 0:
        return StepField(name, "<f8" if array.dtype.kind == "f" else "<i8")
    return StepField(name, array.dtype.str, array.size)


def as_array(value: Any) -> NDArray[Any]:
    """The value as a contiguous numeric array, little endian; raises `TypeError` for text or objects."""
    array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
    if array.dtype.kind == "b":
        array = array.view(np.uint8) if array.ndim else array.astype(np.uint8)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise TypeError(f"{type(value).__name__} of dtype {array.dtype} is no number or array of numbers")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


class StepLayout:
    """Schema of the rows, what packs one, and how action and observation become its arguments.

    `pack(prefix, seq, t_ns, place, tail, reward[, action][, observation])` makes a record from byte 4 on: `prefix`
    is the layout's own, `place` is episode + (step << 32), `tail` the bytes of env_index and flags. `put` writes
    a check and such a record into a buffer.
    """

    def __init__(self, schema_id: int, action: Any, observation: Any) -> None:
        """Fit the layout to a first action and observation (either may be None)."""
        fixed = [
            StepField("seq", "<u8"),
            StepField("t_ns", "<i8"),
            StepField("episode", "<u4"),
            StepField("step", "<u4"),
            StepField("env_index", "<u4"),
            StepField("flags", "|u1"),
            StepField("reward", "<f8"),
        ]
        action_field = field_of("action", action)
        observation_field = field_of("observation", observation)
        optional = [field for field in (action_field, observation_field) if field is not None]
        self.schema = StepSchema(schema_id=schema_id, fields=[*fixed, *optional])
        record, self.pack, self.put = _packers("<8sQqQ5sd" + "".join(map(_struct_code, optional)))
        self.record_bytes = 4 + record.size
        self.row_bytes = self.record_bytes - ROW_OFFSET
        self.prefix = ROW_PREFIX.pack(self.record_bytes, STEP, schema_id)
        self.to_action = _converter(action_field)
        self.to_observation = _converter(observation_field)
        # A scalar action and no observation, or one that is the bytes of an array: needs no conversion.
        is_plain_action = action_field is not None and action_field.count == 0
        self.is_plain = is_plain_action and observation_field is None
        is_array = is_plain_action and observation_field is not None and observation_field.count > 0
        self.observation_dtype = np.dtype(observation_field.code) if is_array and observation_field else None
        self.observation_bytes = observation_field.count * int(observation_field.code[2]) if observation_field else 0

    def convert(self, action: Any, observation: Any) -> tuple[Any, ...]:
        """The last arguments of `pack`; raises `TypeError` or `ValueError` where a value does not fit."""
        if (action is None) != (self.to_action is None) or (observation is None) != (self.to_observation is None):
            raise TypeError("a value appeared or vanished since the last step")
        found: tuple[Any, ...] = ()
        if self.to_action is not None:
            found += (self.to_action(action),)
        if self.to_observation is not None:
            found += (self.to_observation(observation),)
        return found


@functools.lru_cache(64)
def _packers(record_format: str) -> tuple[struct.Struct, Callable[..., bytes], Callable[..., None]]:
    """A record's struct, what packs one, and what puts check and record into a buffer.

    One for all streams with such rows: training leaves nothing of ours in the processor's caches, so the less each
    stream has of its own, the less a step costs.
    """
    record = struct.Struct(record_format)
    return record, record.pack, struct.Struct(f"<I{record.size}s").pack_into


def _struct_code(field: StepField) -> str:
    return f"{field.count * int(field.code[2])}s" if field.count else _STRUCT_CODES[field.code]


def _converter(field: StepField | None) -> ToBytes | None:
    if field is None:
        return None
    if not field.count:
        return _scalar
    size = field.count * int(field.code[2])
    dtype = np.dtype(field.code)

    def to_bytes(value: Any) -> bytes:
        if value.__class__ is np.ndarray and value.dtype is dtype:  # a dtype of a plain type is one object
            body: bytes = value.tobytes()
        else:
            array = as_array(value)
            if array.dtype != dtype:
                raise TypeError(f"array of {array.dtype}, the rows hold {dtype}")
            body = array.tobytes()
        if len(body) != size:
            raise TypeError(f"array of {len(body)} bytes, the rows hold {size}")
        return body

    return to_bytes


def _scalar(value: Any) -> Any:
    """A NumPy scalar as a plain one, because `struct` takes no `np.bool_`."""
    if value.__class__ in _SCALARS:
        return value
    return value.item() if hasattr(value, "item") and not np.ndim(value) else value


class VectorLayout:
    """Schema and packing of one step of n environments as one row: each column holds n values."""

    is_plain = False
    observation_dtype = None

    def __init__(self, schema_id: int, env_count: int, action: Any, observation: Any) -> None:
        """Fit the layout to a first action and observation, whose first axis is the environment."""
        columns = [("episode", "<u4"), ("step", "<u4"), ("flags", "|u1"), ("reward", "<f8")]
        fields = [StepField("seq", "<u8"), StepField("t_ns", "<i8")]
        fields += [StepField(name, code, env_count) for name, code in columns]
        self.dtypes = [np.dtype(code) for _, code in columns]
        self.optional: list[StepField | None] = []
        for name, value in (("action", action), ("observation", observation)):
            field = None if value is None else _vector_field(name, value, env_count)
            self.optional.append(field)
            if field is not None:
                fields.append(field)
        self.schema = StepSchema(schema_id=schema_id, fields=fields, env_count=env_count)
        self.row_bytes = struct.calcsize("<" + "".join(map(_struct_code, fields)))
        self.record_bytes = self.row_bytes + ROW_OFFSET

    def parts(self, t_ns: int, columns: list[NDArray[Any]], optional: list[Any]) -> bytes:
        """The row behind its seq; raises `TypeError` where a value does not fit the layout."""
        parts = [t_ns.to_bytes(8, "little", signed=True)]
        typed = zip(columns, self.dtypes, strict=True)
        parts += [column.astype(dtype, copy=False).tobytes() for column, dtype in typed]
        for value, field in zip(optional, self.optional, strict=True):
            if (value is None) != (field is None):
                raise TypeError("a value appeared or vanished since the last step")
            if field is not None:
                array = as_array(value)
                if array.dtype.str != field.code or array.size != field.count:
                    raise TypeError(f"{array.size} of {array.dtype}, the rows hold {field.count} of {field.code}")
                parts.append(array.tobytes())
        return b"".join(parts)


def _vector_field(name: str, value: Any, env_count: int) -> StepField:
    array = as_array(value)
    if array.ndim == 0 or array.shape[0] != env_count:
        raise TypeError(f"{name} of shape {array.shape}, its first axis must be the {env_count} environments")
    return StepField(name, array.dtype.str, array.size)
