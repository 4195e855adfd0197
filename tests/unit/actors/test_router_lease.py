"""Subscribers that never come, stepped by hand."""

from collections.abc import Iterator

import pytest
from unit.actors.router_rig import RouterRig

from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy, Settings
from runlane.transport.testing import FakeClock, FakeSubscriber, until

BLOCK = QueuePolicy("block", MAX_BATCH_RECORDS)


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RouterRig]:
    """A router, and whoever talks to it."""
    rig = RouterRig(settings.__class__(data_dir=settings.data_dir, transport=settings.transport), clock)
    yield rig
    rig.close()


def test_a_block_subscriber_that_never_connects_stalls_nobody_for_long(rig: RouterRig) -> None:
    """It said hello and died before the welcome: after its lease its queue is gone, and ingress goes on."""
    source = rig.source()
    ghost = FakeSubscriber(rig.settings, "ghost")
    ghost.hello(BLOCK)
    until(lambda: "ghost" in rig.router.bus.subscribers, rig.turn)
    ghost.close()
    rig.publish(source, 1, MAX_BATCH_RECORDS)
    assert rig.router.bus.is_blocked
    rig.clock.move(rig.settings.router.lease_s + 0.5)
    until(lambda: "ghost" not in rig.router.bus.subscribers, rig.turn)
    rig.publish(source, MAX_BATCH_RECORDS + 1, MAX_BATCH_RECORDS)
    until(lambda: source.acked_seq == 2 * MAX_BATCH_RECORDS, rig.turn)
