"""The DB writer keeps what it has while the database takes nothing, and goes on by itself. Beside a real router."""

import logging
from collections.abc import Iterator

import pytest
from unit.actors.writer_rig import Disk, WriterRig

from runlane.actors.outage import RETRY_S
from runlane.actors.store_reader import query
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of
from runlane.transport.testing import FakeClock, until


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def rig(settings: Settings, clock: FakeClock, disk: Disk, caplog: pytest.LogCaptureFixture) -> Iterator[WriterRig]:
    caplog.set_level(logging.INFO, "runlane")
    rig = WriterRig(settings, clock, disk)
    yield rig
    rig.close()


def events(caplog: pytest.LogCaptureFixture, log_id: str) -> int:
    return sum(text.startswith(log_id) for text in caplog.messages)


def seqs(rig: WriterRig) -> list[object]:
    return [row[0] for row in query(database_of(rig.settings), "SELECT seq FROM logs ORDER BY seq")[1]]


def test_a_full_disk_costs_time_and_nothing_else(rig: WriterRig, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is acked meanwhile, the log has a line every ten seconds, and then all is stored, once."""
    source = rig.source()
    rig.send(source, 1, 10)
    until(lambda: source.acked_seq == 10, rig.turn)
    disk.is_full = True
    rig.send(source, 11, 10)
    until(lambda: disk.tries >= 50, rig.turn)
    assert (source.acked_seq, seqs(rig)) == (10, [*range(1, 11)])
    assert events(caplog, "DURABLE_RETRY") == 1 + int(disk.tries * RETRY_S / 10)
    assert rig.writer.statistics()["failed_attempts"] == disk.tries
    disk.is_full = False
    until(lambda: source.acked_seq == 20, rig.turn)
    assert seqs(rig) == [*range(1, 21)]
    assert (events(caplog, "DURABLE_RECOVERED"), rig.writer.statistics()["failed_attempts"]) == (1, 0)


def test_a_disk_full_at_the_start_is_waited_for(
    settings: Settings, clock: FakeClock, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer does not die of it, which would stop the graph; it joins when it can store."""
    disk.is_full = True
    rig = WriterRig(settings, clock, disk)
    try:
        until(lambda: disk.tries >= 5, rig.turn)
        assert rig.writer.statistics() == {"failed_attempts": disk.tries}
        assert rig.writer.is_drained()
        assert events(caplog, "DURABLE_RETRY") == 1
        disk.is_full = False
        source = rig.source()
        rig.send(source, 1, 5)
        until(lambda: source.acked_seq == 5, rig.turn)
        assert seqs(rig) == [1, 2, 3, 4, 5]
    finally:
        rig.close()


def seen_ns(rig: WriterRig) -> int:
    ((found,),) = query(database_of(rig.settings), "SELECT max(seen_ns) FROM streams")[1]
    assert isinstance(found, int)
    return found


def test_a_stream_that_says_nothing_is_seen_as_long_as_its_proxy_speaks(rig: WriterRig) -> None:
    """A second old at most while hellos come, without any record; it stands still when they end."""
    source = rig.source()
    rig.send(source, 1, 1)
    until(lambda: source.acked_seq == 1, rig.turn)

    def speak() -> None:
        source.hello()
        rig.turn()

    first = rig.clock.wall_ns()
    until(lambda: rig.clock.wall_ns() - first > 10_000_000_000, speak)
    assert rig.clock.wall_ns() - seen_ns(rig) < 1_300_000_000
    silent = rig.clock.wall_ns()
    until(lambda: rig.clock.wall_ns() - silent > 10_000_000_000, rig.turn)
    assert seen_ns(rig) - silent < (rig.settings.router.lease_s + 1.1) * 1e9


def test_a_batch_that_comes_again_in_an_outage_is_told_once(
    rig: WriterRig, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """A section that cannot be read is rejected at each try, and noted, counted and logged once."""
    source = rig.source()
    disk.is_full = True
    rig.publish(source, 1)  # a step without `t_ns`, which no schema of ours lacks
    until(lambda: disk.tries >= 5, rig.turn)
    disk.is_full = False
    until(lambda: source.acked_seq == 1, rig.turn)
    assert events(caplog, "DURABLE_REJECTED") == 1
    assert rig.writer.statistics()["rejected_batches"] == 1
    assert query(database_of(rig.settings), "SELECT records FROM drops")[1] == [(1,)]
