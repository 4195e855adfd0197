"""The DB writer lets retention work between its commits. Beside a real router."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from unit.actors.router_rig import RouterRig

from runlane.actors.db_writer import DbWriterActor
from runlane.actors.store_reader import query
from runlane.config.settings import RetentionSettings, Settings
from runlane.transport.endpoint import database_of
from runlane.transport.records import LogRecord, Record, RunRecord
from runlane.transport.testing import FakeClock, FakeSource, make_info, until
from runlane.transport.writer import encode_records_batch

DAY_S = 86_400.0


class RetentionRig(RouterRig):
    """A router with a DB writer that keeps log lines for a day after their run."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        limits = RetentionSettings(max_age_days=1, classes=["log"])
        super().__init__(msgspec.structs.replace(settings, retention=limits), clock)
        self.writer = DbWriterActor(self.settings, clock)
        self.writer.on_start()

    def turn(self) -> None:
        """Both, and a moment passes."""
        self.writer.do_work(0.0)
        self.clock.move(0.1)
        super().turn()

    def send(self, source: FakeSource, first_seq: int, **sections: list[Record]) -> None:
        batch = encode_records_batch(source.info.stream, first_seq, 0, {**sections})
        source.send(*batch)

    def ask(self, sql: str) -> Any:
        return query(database_of(self.settings), sql)[1]

    def close(self) -> None:
        """The writer, then the others."""
        self.writer.on_close()
        super().close()


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RetentionRig]:
    rig = RetentionRig(settings, clock)
    yield rig
    rig.close()


def lines(first_seq: int, count: int) -> list[Record]:
    return [LogRecord(seq, 0, "info", "x") for seq in range(first_seq, first_seq + count)]


def test_an_ended_run_is_thinned_when_its_time_has_come(rig: RetentionRig) -> None:
    """Not before; what is removed is on record, shown as a figure, and a resend of it is acked and not stored."""
    source = rig.source()
    ended_ns = rig.clock.wall_ns()
    rig.send(source, 1, run=[RunRecord(1, 0, "running", {})])
    rig.send(source, 2, log=lines(2, 200))
    rig.send(source, 202, run=[RunRecord(202, ended_ns, "finished", {})])
    until(lambda: source.acked_seq == 202, rig.turn)
    rig.settle(20)
    assert rig.ask("SELECT count(*) FROM logs") == [(200,)]
    rig.clock.move(DAY_S)
    until(lambda: rig.writer.statistics()["removed_rows"] == 200, rig.turn)
    assert rig.ask("SELECT class, reason, rows FROM retention") == [("log", "max_age_days", 200)]
    rig.send(source, 2, log=lines(2, 200))
    rig.settle(20)
    assert rig.ask("SELECT count(*) FROM log_rows") == [(0,)]


def test_a_run_that_goes_on_is_stored_while_another_is_thinned(rig: RetentionRig) -> None:
    """Every record of it, acked as ever."""
    old = rig.source(make_info("old"))
    live = rig.source(msgspec.structs.replace(make_info("live"), run="other"))
    rig.send(old, 1, run=[RunRecord(1, 0, "running", {})])
    rig.send(old, 2, log=lines(2, 200))
    rig.send(old, 202, run=[RunRecord(202, 0, "finished", {})])
    until(lambda: old.acked_seq == 202, rig.turn)
    for first_seq in range(1, 1_001, 100):
        rig.send(live, first_seq, log=lines(first_seq, 100))
        until(lambda first_seq=first_seq: live.acked_seq == first_seq + 99, rig.turn)
    until(lambda: rig.writer.statistics()["removed_rows"] == 200, rig.turn)
    assert rig.ask("SELECT worker, count(*), max(seq) FROM logs GROUP BY worker") == [("live", 1_000, 1_000)]
