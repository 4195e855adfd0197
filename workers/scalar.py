"""Scalar: one number out of whatever a script logs as one, without ever waiting for a device.

Numbers, NumPy scalars, arrays of one element and tensors in main memory have a value that can be had at once. A tensor
on a device has none: reading it would stop the script until the device has done all its work. Such values are left
out and counted, and the first is told.
"""

import math
import numbers
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from runlane.config import log_ids
from runlane.transport.log import log_event

if TYPE_CHECKING:
    from runlane.workers import Session

_NUMERIC = "biuf"  # kinds of NumPy types that are one real number each


class LeftOut:
    """Values that are no metric, or none that may be read. Of one process; the count is never exact over threads."""

    count = 0

    @classmethod
    def note(cls, name: str, value: Any) -> None:
        """Count one, and tell the first."""
        cls.count += 1
        if cls.count == 1:
            kind = f"{type(value).__module__}.{type(value).__name__}"
            log_event(log_ids.WORKER_METRIC_LEFT_OUT, metric=name, type=kind, device=_device_of(value), count=1)


def number_of(value: Any) -> float | None:
    """The number, or None where it is no single real number or lies on a device. Never raises, never waits."""
    try:
        if isinstance(value, numbers.Real):  # also NumPy's, but for its truth values
            return float(value)
        if _is_array(value):
            return float(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind in _NUMERIC else None
        torch: Any = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            return None
        if value.device.type != "cpu" or value.numel() != 1 or value.is_complex():
            return None
        return float(value.detach().item())
    except Exception:  # a type of somebody else's may do anything
        return None


def step_of(value: Any) -> int | None:
    """A step as a whole number, or None: then the session's own count stands in for it."""
    number = number_of(value)
    return int(number) if number is not None and math.isfinite(number) else None


def numbers_of(values: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Those of the pairs (name, value) that are numbers. Text and None are no metrics; all else is counted."""
    found: dict[str, float] = {}
    for name, value in values:
        number = number_of(value)
        if number is not None:
            found[str(name)] = number
        elif value is not None and not isinstance(value, str | bytes):
            LeftOut.note(str(name), value)
    return found


def record_scalars(session: "Session", values: Mapping[Any, Any], step: Any) -> None:
    """Record what is a number in a map of named values."""
    found = numbers_of(values.items())
    if found:
        session.metrics(found, step_of(step))


def _is_array(value: Any) -> bool:
    return isinstance(value, np.generic | np.ndarray)


def _device_of(value: Any) -> str:
    try:
        return str(getattr(value, "device", "none"))
    except Exception:
        return "?"
