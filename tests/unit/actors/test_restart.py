"""Who is started again, when, and when to give up."""

import pytest

from runlane.actors.restart import BackOff, RestartIntensity, should_restart
from runlane.config.settings import Restart


@pytest.mark.parametrize(
    ("restart", "exit_code", "expected"),
    [
        ("permanent", 0, True),
        ("permanent", 1, True),
        ("permanent", -9, True),
        ("transient", 0, False),
        ("transient", 1, True),
        ("transient", 143, True),
        ("transient", -9, True),
        ("temporary", 0, False),
        ("temporary", -9, False),
    ],
)
def test_the_restart_rule_follows_otp(restart: Restart, exit_code: int, expected: bool) -> None:
    """Permanent always, transient after anything but 0, temporary never."""
    assert should_restart(restart, exit_code) is expected


def test_intensity_allows_as_many_restarts_as_it_says() -> None:
    """With max_restarts = 2 the third restart within the period is one too many."""
    intensity = RestartIntensity(max_restarts=2, period_s=10.0)
    assert [intensity.allows(now_s) for now_s in (0.0, 1.0, 9.9)] == [True, True, False]


def test_restarts_older_than_the_period_do_not_count() -> None:
    """A child that fails every 6 s never exceeds 2 restarts in 10 s."""
    intensity = RestartIntensity(max_restarts=2, period_s=10.0)
    assert all(intensity.allows(6.0 * number) for number in range(100))


def test_intensity_zero_gives_up_at_once() -> None:
    """max_restarts = 0 means the first failure ends everything."""
    assert not RestartIntensity(max_restarts=0, period_s=10.0).allows(0.0)


def test_back_off_is_nothing_first_then_doubles_to_its_cap() -> None:
    """The first restart comes at once, the later ones ever more slowly, up to backoff_max_s."""
    back_off = BackOff(backoff_s=0.1, backoff_max_s=0.5, quiet_s=30.0)
    delays = [back_off.next_delay_s(float(now_s)) for now_s in range(6)]
    assert delays == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.5, 0.5])


def test_a_quiet_period_resets_the_back_off() -> None:
    """A child without a failure for the quiet period is restarted at once again."""
    back_off = BackOff(backoff_s=0.1, backoff_max_s=0.5, quiet_s=30.0)
    assert [back_off.next_delay_s(now_s) for now_s in (0.0, 1.0, 31.0, 32.0)] == pytest.approx([0.0, 0.1, 0.0, 0.1])


def test_a_cap_below_the_first_step_is_the_cap() -> None:
    """backoff_max_s bounds even the first delay."""
    back_off = BackOff(backoff_s=5.0, backoff_max_s=2.0, quiet_s=30.0)
    assert [back_off.next_delay_s(now_s) for now_s in (0.0, 1.0, 2.0)] == [0.0, 2.0, 2.0]
