"""A series as a picture in unicode blocks, eight levels to a line. Text only: colour and place are the view's."""

import itertools
import math
from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"


def resample(values: Sequence[float], columns: int) -> list[float]:
    """At most `columns` means over equal stretches of the series; NaN where a stretch holds no finite number."""
    count = len(values)
    columns = min(count, columns)
    bounds = [index * count // columns for index in range(columns + 1)] if columns else []
    found: list[float] = []
    for start, end in itertools.pairwise(bounds):
        finite = [value for value in values[start:end] if math.isfinite(value)]
        found.append(sum(finite) / len(finite) if finite else math.nan)
    return found


def block_chart(
    values: Sequence[float], columns: int, rows: int, low: float | None = None
) -> tuple[list[str], float, float]:
    """The series in unicode blocks, top row first, with the least and greatest value drawn.

    `low` is the value of an empty column, where it is not the least one. Any finite value shows as a mark.
    """
    points = resample(values, columns)
    finite = [value for value in points if math.isfinite(value)]
    if not finite:
        return ["" for _ in range(rows)], math.nan, math.nan
    least, greatest = min(finite) if low is None else low, max(finite)
    span = greatest - least
    eighths = [_eighths((value - least) / span if span > 0 else 1.0, rows) for value in points]
    lines = ["".join(BLOCKS[min(max(level - 8 * row, 0), 8)] for level in eighths) for row in reversed(range(rows))]
    return lines, least, greatest


def _eighths(share: float, rows: int) -> int:
    return max(1, round(share * 8 * rows)) if math.isfinite(share) else 0
