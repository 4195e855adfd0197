"""From curves to lines on a screen: smoothing, at most two points per pixel, mean and band of a group. No Qt."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runlane.gui.series import Axis, Envelope, Floats

GRID_POINTS = 400
MARGIN = 0.06
# A bare number is no seed: `lr1e-3` and `ppo-v2` are other settings.
_SEED = re.compile(r"(?:[-_ .,]+s=?|[-_ .,]*(?<![a-z])seed[-_ =:]*|[-_ .,]*#)\d+$", re.IGNORECASE)
_UNDERFLOW = -600.0  # exp of it is still a number


def ema(values: Floats, weight: float) -> Floats:
    """Exponential moving average, debiased: the first value is itself. NaN and infinities are passed over.

    Where nothing finite came yet it is NaN. `weight` is in [0, 1); 0 returns the values.
    """
    if weight <= 0 or not len(values):
        return values
    known = np.isfinite(values)
    block = max(1, min(len(values), int(_UNDERFLOW / math.log(weight))))
    count = -(-len(values) // block)
    x = np.zeros((2, count * block))
    x[0, : len(values)] = np.where(known, values, 0.0)
    x[1, : len(values)] = known
    decay = weight ** np.arange(block)
    sums = np.cumsum(x.reshape(2, count, block) / decay, axis=2) * decay
    for number in range(1, count):  # what is left of the block before
        sums[:, number] += sums[:, number - 1, -1:] * weight * decay
    total, share = sums.reshape(2, -1)[:, : len(values)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(share > 0, total / share, np.nan), np.float64)


def coarser(envelope: Envelope, points: int) -> Envelope:
    """The same curve in at most `points` buckets of about as many neighbours; least and greatest stay exact."""
    if len(envelope) <= points:
        return envelope
    starts = np.arange(0, len(envelope), -(-len(envelope) // points))
    lasts = np.append(starts[1:], len(envelope)) - 1
    weight = np.where(np.isnan(envelope.mean), 0.0, envelope.count)
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = np.add.reduceat(np.where(weight > 0, envelope.mean, 0.0) * weight, starts)
        mean = sums / np.add.reduceat(weight, starts)
    return Envelope(
        np.add.reduceat(envelope.count, starts),
        np.fmin.reduceat(envelope.low, starts),
        np.fmax.reduceat(envelope.high, starts),
        mean,
        envelope.step[lasts],
        envelope.episode[lasts],
        envelope.time[lasts],
    )


@dataclass(frozen=True, slots=True)
class Line:
    """Points in order; x and y of one length."""

    x: Floats
    y: Floats

    @property
    def last(self) -> float:
        """The newest number; NaN without any."""
        known = self.y[np.isfinite(self.y)]
        return float(known[-1]) if len(known) else math.nan

    def at(self, x: float) -> float:
        """Value of the point nearest to x; NaN before the first and after the last."""
        if not len(self.x) or not self.x.min() <= x <= self.x.max():
            return math.nan
        return float(self.y[int(np.abs(self.x - x).argmin())])

    def inside(self, range_x: tuple[float, float]) -> Floats:
        """The values within a range."""
        return self.y[(self.x >= range_x[0]) & (self.x <= range_x[1])]


NO_LINE = Line(np.zeros(0), np.zeros(0))


def inside(x: Floats, range_x: tuple[float, float] | None) -> slice:
    """The stretch of points within a range, and one on each side, so that lines go on to the edge."""
    if range_x is None:
        return slice(0, len(x))
    found = np.flatnonzero((x >= range_x[0]) & (x <= range_x[1]))
    if len(found):
        return slice(max(0, int(found[0]) - 1), int(found[-1]) + 2)
    at = int(np.searchsorted(x, range_x[0]))
    return slice(max(0, at - 1), at + 1)


def _chosen(x: Floats, range_x: tuple[float, float] | None) -> NDArray[np.bool_]:
    chosen = np.zeros(len(x), np.bool_)
    chosen[inside(x, range_x)] = True
    return chosen


def raw_line(envelope: Envelope, axis: Axis, range_x: tuple[float, float] | None, pixels: int) -> Line:
    """Every value, as a line of at most two points per pixel: where values share a bucket, its least and greatest."""
    found = coarser(envelope.part(_chosen(envelope.x(axis), range_x)), max(2, pixels))
    x = found.x(axis)
    if found.per_bucket <= 1:
        return Line(x, found.mean)
    y = np.empty(2 * len(x))
    y[0::2], y[1::2] = found.low, found.high
    return Line(np.repeat(x, 2), y)


def smooth_line(
    envelope: Envelope, axis: Axis, range_x: tuple[float, float] | None, pixels: int, weight: float
) -> Line:
    """The means, smoothed over the whole curve; so zooming does not change them."""
    if weight <= 0:
        envelope = coarser(envelope.part(_chosen(envelope.x(axis), range_x)), max(2, pixels))
    x, y = envelope.x(axis), ema(envelope.mean, weight)
    part = inside(x, range_x)
    x, y = x[part], y[part]
    if weight > 0 and len(x) > max(2, pixels // 2):  # what is smooth needs no more
        chosen = np.unique(np.linspace(0, len(x) - 1, max(2, pixels // 2)).astype(np.int64))
        x, y = x[chosen], y[chosen]
    return Line(x, y)


@dataclass(frozen=True, slots=True)
class Band:
    """Mean of some lines, and one standard deviation to each side; of `count` lines."""

    mean: Line
    low: Floats
    high: Floats
    count: int


def band_of(lines: Sequence[Line]) -> Band:
    """Mean ± standard deviation of lines over their common x; each counts where it has points."""
    known = [line for line in lines if len(line.x)]
    if not known:
        return Band(NO_LINE, np.zeros(0), np.zeros(0), 0)
    least, most = min(float(line.x[0]) for line in known), max(float(line.x[-1]) for line in known)
    grid: Floats = np.linspace(least, most, GRID_POINTS)
    values = np.stack([_on_grid(line, grid) for line in known])
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0.0).sum(axis=0) / count
        spread = np.sqrt(np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / count)
    return Band(Line(grid, mean), mean - spread, mean + spread, len(known))


def _on_grid(line: Line, grid: Floats) -> Floats:
    finite = np.isfinite(line.y)
    if not finite.any():
        return np.full(len(grid), np.nan)
    return np.asarray(np.interp(grid, line.x[finite], line.y[finite], left=np.nan, right=np.nan), np.float64)


def group_name(run_name: str) -> str:
    """Runs that differ by a marked seed at the end of their names (`-s1`, `_seed1`, `seed=1`, `#1`) are one group."""
    return _SEED.sub("", run_name) or run_name.rstrip("0123456789=: -_")  # `seed=1`, and nothing else


def value_range(arrays: Sequence[Floats]) -> tuple[float, float]:
    """A range with some margin that holds all finite values; 0 to 1 without any."""
    known = [array[np.isfinite(array)] for array in arrays]
    known = [array for array in known if len(array)]
    if not known:
        return 0.0, 1.0
    low, high = min(float(array.min()) for array in known), max(float(array.max()) for array in known)
    margin = (high - low) * MARGIN or max(abs(high) * MARGIN, 0.5)
    return low - margin, high + margin
