"""Latency: percentiles within a bucket's width, of the last two intervals and nothing older."""

import pytest

from runlane.actors.latency import BOUNDS_S, INTERVAL_S, Latency

NOW_S = 5_000.0
WIDTH = 2**0.5


def _filled(*durations_s: float) -> Latency:
    latency = Latency()
    for duration_s in durations_s:
        latency.add(duration_s, NOW_S)
    return latency


@pytest.mark.parametrize("percent", [0, 50, 99, 100])
def test_nothing_counted_has_no_percentile(percent: float) -> None:
    """None, and not a 0 that reads as fast."""
    assert Latency().percentile_s(percent, NOW_S) is None


@pytest.mark.parametrize("duration_s", [1.1e-5, 0.0007, 0.02, 1.0, 60.0, 3_000.0])
def test_a_duration_is_told_within_its_buckets_width(duration_s: float) -> None:
    """Never too small, and less than half too large."""
    told_s = _filled(duration_s).percentile_s(50, NOW_S)
    assert told_s is not None
    assert duration_s <= told_s <= duration_s * WIDTH


def test_percentiles_are_told_apart() -> None:
    """Of a hundred, two of which were slow: half were quick, and the 99th was slow."""
    latency = _filled(*[0.001] * 98, 2.0, 2.0)
    quick, slow = (latency.percentile_s(percent, NOW_S) for percent in (50, 99))
    assert quick is not None
    assert slow is not None
    assert (quick < 0.002, latency.percentile_s(98, NOW_S), slow >= 2.0) == (True, quick, True)


@pytest.mark.parametrize(("duration_s", "told_s"), [(-1.0, BOUNDS_S[0]), (0.0, BOUNDS_S[0]), (1e9, float("inf"))])
def test_durations_beyond_the_buckets_are_in_the_first_or_above_the_last(duration_s: float, told_s: float) -> None:
    """Also one of a clock that went back."""
    assert _filled(duration_s).percentile_s(100, NOW_S) == told_s


@pytest.mark.parametrize("looks_s", [[], [9.9], [10.0], [19.9], [5.0, 10.1, 15.0]])
def test_what_is_older_than_two_intervals_is_forgotten(looks_s: list[float]) -> None:
    """However often somebody looked meanwhile; within an interval nothing is."""
    latency = Latency()
    latency.add(0.001, NOW_S)
    begin_s = NOW_S
    assert latency.percentile_s(50, begin_s + INTERVAL_S - 0.01) is not None
    for look_s in looks_s:
        latency.percentile_s(50, begin_s + look_s)
    assert latency.percentile_s(50, begin_s + 2 * INTERVAL_S + 0.01) is None


def test_the_interval_before_still_counts() -> None:
    """So a figure does not jump at every turn."""
    latency = _filled(0.001)
    latency.add(2.0, NOW_S + INTERVAL_S)
    quick, slow = (latency.percentile_s(percent, NOW_S + INTERVAL_S) for percent in (50, 100))
    assert quick is not None
    assert slow is not None
    assert quick < 0.002 < 2.0 <= slow
