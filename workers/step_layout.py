"""How one step becomes bytes: a packed row whose layout is fixed by the first step that looks like it.

The row is written with one `pack_into`, straight into the batch that will be sent. Scalars stay scalars;
an array becomes its bytes, little endian, in its own dtype.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runlane.transport.messages import StepField, StepSchema

_SCALAR_CODES = {bool: "|u1", int: "<i8", float: "<f8"}
_STRUCT_CODES = {"<i8": "q", "<f8": "d", "|u1": "B", "<u8": "Q", "<u4": "I"}

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
    """Schema of the rows, the function that packs one, and how action and observation become its arguments."""

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
        fields = [*fixed, *(field for field in (action_field, observation_field) if field is not None)]
        self.schema = StepSchema(schema_id=schema_id, fields=fields)
        self.row = struct.Struct("<" + "".join(map(_struct_code, fields)))
        self.pack_into = self.row.pack_into
        self.row_bytes = self.row.size
        self.to_action = _converter(action_field)
        self.to_observation = _converter(observation_field)
        self.is_plain = action_field is not None and action_field.count == 0 and observation_field is None

    def pack(self, buffer: bytearray, offset: int, fixed: tuple[Any, ...], action: Any, observation: Any) -> None:
        """Write one row; raises `TypeError`, `ValueError` or `struct.error` where a value does not fit."""
        if (action is None) != (self.to_action is None) or (observation is None) != (self.to_observation is None):
            raise TypeError("a value appeared or vanished since the last step")
        if self.to_action is not None:
            fixed += (self.to_action(action),)
        if self.to_observation is not None:
            fixed += (self.to_observation(observation),)
        self.pack_into(buffer, offset, *fixed)


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
    return value.item() if hasattr(value, "item") and not np.ndim(value) else value


class VectorLayout:
    """Schema and packing of one step of n environments as one row: each column holds n values."""

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
        self.row = struct.Struct("<" + "".join(map(_struct_code, fields)))
        self.row_bytes = self.row.size

    def pack_into(
        self, buffer: bytearray, offset: int, seq: int, t_ns: int, columns: list[NDArray[Any]], optional: list[Any]
    ) -> None:
        """Write one row; raises `TypeError` where a value does not fit the layout."""
        parts = [column.astype(dtype, copy=False).tobytes() for column, dtype in zip(columns, self.dtypes, strict=True)]
        for value, field in zip(optional, self.optional, strict=True):
            if (value is None) != (field is None):
                raise TypeError("a value appeared or vanished since the last step")
            if field is not None:
                array = as_array(value)
                if array.dtype.str != field.code or array.size != field.count:
                    raise TypeError(f"{array.size} of {array.dtype}, the rows hold {field.count} of {field.code}")
                parts.append(array.tobytes())
        self.row.pack_into(buffer, offset, seq, t_ns, *parts)


def _vector_field(name: str, value: Any, env_count: int) -> StepField:
    array = as_array(value)
    if array.ndim == 0 or array.shape[0] != env_count:
        raise TypeError(f"{name} of shape {array.shape}, its first axis must be the {env_count} environments")
    return StepField(name, array.dtype.str, array.size)
