"""What is one number, and what is left out."""

import logging
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from runlane.workers.scalar import LeftOut, number_of, numbers_of, step_of


class Broken:
    """Answers every question with an error."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "value",
    [2, 2.0, True + 1, Fraction(2), np.float32(2), np.int8(2), np.array(2), np.array([2.0]), np.array([[2]], np.uint8)],
)
def test_a_single_real_number_is_one(value: Any) -> None:
    """Of whatever type, if it lies in main memory."""
    assert number_of(value) == 2.0


@pytest.mark.parametrize("value", ["2", None, [2], {}, 2j, np.array([2, 3]), np.array([]), np.array("2")])
def test_anything_else_is_none(value: Any) -> None:
    """No error, whatever it is."""
    assert number_of(value) is None


def test_what_answers_with_errors_is_none() -> None:
    """A proxy to something that is gone, say."""
    assert number_of(Broken()) is None


def test_no_number_is_a_number() -> None:
    """NaN and infinity are values like others; as a step they are none."""
    assert math.isnan(number_of(math.nan) or 0.0)
    assert step_of(math.nan) is None
    assert step_of(np.int64(7)) == 7
    assert step_of("7") is None


def test_what_is_left_out_is_counted_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Text and None are no metrics and no fault; anything else is counted, and the first is named."""
    monkeypatch.setattr(LeftOut, "count", 0)
    monkeypatch.setattr(logging.getLogger("runlane"), "propagate", True)
    found = numbers_of([("text", "no"), ("none", None), ("loss", 1), ("all", np.zeros(3)), ("image", object())])
    assert found == {"loss": 1.0}
    assert LeftOut.count == 2
    lines = [record.getMessage() for record in caplog.records if "WORKER_METRIC_LEFT_OUT" in record.getMessage()]
    assert len(lines) == 1
    assert "metric=all" in lines[0]
