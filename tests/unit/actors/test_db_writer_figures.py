"""The DB writer commits what the router tells of the graph, with records or without, and no record waits for it.

Beside a real router; what is told here is of a subscriber it does not know.
"""

# The link's callbacks are called by hand:
# pyright: reportPrivateUsage=false

import logging
from collections.abc import Iterator

import pytest
from unit.actors.writer_rig import Disk, WriterRig

from runlane.config.settings import Settings
from runlane.transport.messages import Accounts, GraphMetrics, SubscriberAccount
from runlane.transport.testing import FakeClock, until

STREAM = "f" * 32


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def rig(settings: Settings, clock: FakeClock, disk: Disk, caplog: pytest.LogCaptureFixture) -> Iterator[WriterRig]:
    caplog.set_level(logging.INFO, "runlane")
    rig = WriterRig(settings, clock, disk)
    yield rig
    rig.close()


def tell(rig: WriterRig, published: int, t_ns: int = 1, dropped: int = 0) -> None:
    """The router's word of one account."""
    account = SubscriberAccount("viewer", "R", STREAM, published, published, 0, {"stale": dropped}, 0, published)
    on_accounts = rig.writer._link.on_accounts
    assert on_accounts is not None
    on_accounts(Accounts(router="r", t_ns=t_ns, accounts=[account]))


def tell_figures(rig: WriterRig) -> int:
    """The router's figures of this moment; returns the moment."""
    t_ns = rig.clock.wall_ns()
    on_metrics = rig.writer._link.on_metrics
    assert on_metrics is not None
    on_metrics(GraphMetrics(t_ns=t_ns, values={"probe": {"level": 0.5}}))
    return t_ns


def told(rig: WriterRig) -> list[tuple[int, ...]]:
    return rig.ask("SELECT published, updated_ns FROM accounts WHERE subscriber = 'viewer'")


def test_accounts_and_figures_are_committed_without_any_record(rig: WriterRig) -> None:
    """At the next turn: a graph in which nothing trains has its figures too."""
    tell(rig, 5)
    tell_figures(rig)
    rig.turn()
    assert told(rig) == [(5, 1)]
    assert rig.ask("SELECT value FROM graph_metrics WHERE source = 'probe'") == [(0.5,)]


def test_accounts_go_with_the_records_that_wait(rig: WriterRig) -> None:
    """In one commit, and what comes again later replaces them."""
    source = rig.source()
    rig.send(source, 1, 10)
    tell(rig, 5)
    until(lambda: source.acked_seq == 10, rig.turn)
    assert told(rig) == [(5, 1)]
    tell(rig, 6, t_ns=2)
    rig.send(source, 11, 10)
    until(lambda: source.acked_seq == 20, rig.turn)
    assert told(rig) == [(6, 2)]


def test_the_writer_adds_its_own_figures(rig: WriterRig) -> None:
    """What commits took, rows per second, what waits, and the sizes of its files, at the router's moment."""
    tell_figures(rig)
    source = rig.source()
    rig.send(source, 1, 10)
    until(lambda: source.acked_seq == 10, rig.turn)
    t_ns = tell_figures(rig)
    rig.turn()
    rows = rig.ask("SELECT name, value, t_ns FROM graph_metrics WHERE source = 'db_writer'")
    found = [(name, value) for name, value, moment in rows if moment == t_ns]
    names = {"commit_p50_s", "commit_p99_s", "database_bytes", "pending_rows", "rows_per_s", "wal_bytes"}
    assert names <= {name for name, _ in found}
    assert all(value > 0 for name, value in found if name in ("database_bytes", "rows_per_s", "wal_bytes"))


def test_a_full_disk_keeps_the_newest(rig: WriterRig, disk: Disk) -> None:
    """Nothing is lost but what a newer account has made old; nothing of it holds a stop back."""
    disk.is_full = True
    tell(rig, 5)
    tell(rig, 6, t_ns=2)
    until(lambda: disk.tries >= 3, rig.turn)
    assert told(rig) == []
    tell(rig, 7, t_ns=3)
    disk.is_full = False
    until(lambda: bool(told(rig)), rig.turn)
    assert told(rig) == [(7, 3)]


def test_a_writer_is_drained_when_the_last_accounts_are_stored(rig: WriterRig, disk: Disk) -> None:
    """They come before the router's goodbye. On a full disk no stop waits for them."""
    until(lambda: rig.writer._link.is_joined, rig.turn)
    rig.writer._link.router_said_bye = True
    rig.writer.do_work(0.0)
    assert rig.writer.is_drained()
    tell(rig, 5)
    assert not rig.writer.is_drained()
    rig.writer.do_work(0.0)
    assert rig.writer.is_drained()
    disk.is_full = True
    tell(rig, 6)
    rig.writer.do_work(0.0)
    assert disk.tries == 1
    assert rig.writer.is_drained()


def test_what_the_database_cannot_take_is_told_and_no_record_waits(
    rig: WriterRig, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a table is not as it should be: the figures go, the records are stored and acked."""
    rig.writer._store._connection.execute("DROP TABLE account_drop_rows")
    tell(rig, 5, dropped=1)
    source = rig.source()
    rig.send(source, 1, 10)
    until(lambda: source.acked_seq == 10, rig.turn)
    assert rig.ask("SELECT count(*) FROM logs") == [(10,)]
    assert rig.writer.statistics()["rejected"]["invalid"] >= 1
    assert any(text.startswith("WIRE_REJECTED") for text in caplog.messages)
