"""LoopWatch: how late ticks come."""

import pytest

from runlane.gui.loop_watch import KEPT, LoopWatch


def test_ticks_in_time_are_not_late() -> None:
    """Early ones neither: a timer makes up for a late one."""
    watch = LoopWatch(0.033)
    for now_s in (1.0, 1.033, 1.060, 1.093):
        watch.tick(now_s)
    assert watch.late_ms(1.0) == pytest.approx(0.0, abs=1e-9)


def test_the_longest_stall_is_the_greatest_lateness() -> None:
    """In milliseconds beyond the period."""
    watch = LoopWatch(0.033)
    for now_s in (1.0, 1.033, 1.183, 1.216):
        watch.tick(now_s)
    assert watch.late_ms(1.0) == pytest.approx(117.0)
    assert watch.late_ms(0.0) == pytest.approx(0.0, abs=1e-9)


def test_only_the_newest_ticks_count() -> None:
    """A stall of long ago is over."""
    watch = LoopWatch(1.0)
    now_s = 0.0
    for period_s in (5.0, *([1.0] * (KEPT + 1))):
        watch.tick(now_s)
        now_s += period_s
    assert watch.late_ms(1.0) == 0.0


def test_before_there_are_two_ticks_nothing_is_late() -> None:
    """Zero, and no division by nothing."""
    watch = LoopWatch(1.0)
    watch.tick(5.0)
    assert watch.late_ms(0.99) == 0.0
