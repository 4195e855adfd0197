"""What the tests of the DB writer share: a router with the writer behind it, and a disk that may be full."""

from pathlib import Path
from typing import Any

from unit.actors.router_rig import RouterRig

from runlane.actors.db_writer import DbWriterActor
from runlane.actors.store import Store
from runlane.actors.store_file import StoreFullError
from runlane.actors.store_reader import query
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of
from runlane.transport.records import LogRecord
from runlane.transport.testing import FakeClock, FakeSource
from runlane.transport.writer import encode_records_batch


class Disk:
    """Opens stores that raise while it is full: at the opening, or at the commit."""

    def __init__(self) -> None:
        self.is_full = False
        self.tries = 0

    def open(self, path: Path, *settings: Any) -> Store:
        self.take()
        store = Store(path, *settings)
        commit = store.commit

        def full_commit() -> None:
            self.take()
            commit()

        store.commit = full_commit
        return store

    def take(self) -> None:
        if self.is_full:
            self.tries += 1
            raise StoreFullError("database or disk is full; free some space, then it goes on")


class WriterRig(RouterRig):
    """A router with the DB writer behind it, both moved by hand."""

    def __init__(self, settings: Settings, clock: FakeClock, disk: Disk) -> None:
        super().__init__(settings, clock)
        self.writer = DbWriterActor(settings, clock, disk.open)
        self.writer.on_start()

    def turn(self) -> None:
        """Both, and a moment passes."""
        self.writer.do_work(0.0)
        self.clock.move(0.1)
        super().turn()

    def send(self, source: FakeSource, first_seq: int, count: int) -> None:
        """Log lines, whose bodies the writer can read."""
        lines = [LogRecord(seq, 0, "info", "x") for seq in range(first_seq, first_seq + count)]
        source.send(*encode_records_batch(source.info.stream, first_seq, 0, {"log": [*lines]}))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of what is committed."""
        return query(database_of(self.settings), sql)[1]

    def close(self) -> None:
        """The writer, then the others."""
        self.writer.on_close()
        super().close()
