"""A database that takes nothing is tried twice a second and told of every ten seconds."""

import logging

import pytest

from runlane.actors.outage import LOG_S, RETRY_S, Outage


def test_an_hour_of_failures_is_loud_and_short(caplog: pytest.LogCaptureFixture) -> None:
    """One line at once, one every ten seconds, and one when it is over, with the count."""
    caplog.set_level(logging.INFO, "runlane")
    outage = Outage()
    now_s = 0.0
    while now_s < 3600:
        if outage.is_over_at(now_s):
            outage.fail(now_s, 5_000, OSError("full"))
        now_s += RETRY_S / 2
    assert len(caplog.messages) == 3600 / LOG_S
    assert "attempts=1 " in caplog.messages[0]
    assert "rows=5000" in caplog.messages[0]
    outage.end(now_s)
    assert caplog.messages[-1].startswith("DURABLE_RECOVERED attempts=7200")


def test_all_is_well_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """A success after a success is no event, and the next outage is told of at once."""
    caplog.set_level(logging.INFO, "runlane")
    outage = Outage()
    outage.end(1.0)
    assert outage.is_over_at(1.0)
    for now_s in (1.0, 2.0):
        outage.fail(now_s, 1, OSError("full"))
        assert outage.pause_s(now_s) == RETRY_S
        outage.end(now_s)
    assert [text.split()[0] for text in caplog.messages] == ["DURABLE_RETRY", "DURABLE_RECOVERED"] * 2
