"""Router and DB writer as processes, with sources of the test's own: full disks, and `kill -9` of everything."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process.conftest import Processes, small_file_system
from process.graph_under_test import wait_until

from runlane.actors.store_reader import LOST_NS, list_runs, query
from runlane.config.load import load
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of, endpoint_of
from runlane.transport.messages import StreamWelcome
from runlane.transport.records import LogRecord, RunRecord
from runlane.transport.testing import FakeSource, make_info
from runlane.transport.writer import encode_records_batch

TEXT = "x" * 400
STORED = """
SELECT count(*), count(DISTINCT seq) FROM (SELECT seq FROM logs UNION ALL SELECT seq FROM run_states)
"""
BATCH = 100  # records, some 40 KB


class DurablePath:
    """A router, a DB writer and one source. The DB writer can be killed and started again."""

    def __init__(self, directory: Path, data_dir: Path, processes: Processes) -> None:
        self._options = ("--set", f"data_dir={data_dir}", "--set", f"transport.run_dir={directory / 'run'}")
        self._processes = processes
        self.settings: Settings = load(environment={}, arguments=self._options[1::2])
        self.log = directory / "writer.log"
        self.router = self._start("router", directory / "router.log")
        self.writer = self.start_writer()
        self.source = FakeSource(self.settings, endpoint_of(self.settings, INGRESS_SOCKET), make_info())
        self.sent = 0
        wait_until(self._is_open, "the source is welcome")

    def _start(self, actor: str, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("ab") as output:
            return self._processes.start(
                sys.executable, "-m", "runlane", "actor", actor, *self._options, stdout=output.fileno(), stderr=output
            )

    def start_writer(self) -> "subprocess.Popen[bytes]":
        """The DB writer, or its successor."""
        self.writer = self._start("db_writer", self.log)
        return self.writer

    def _is_open(self) -> bool:
        self.speak()
        return any(isinstance(message, StreamWelcome) for message in self.source.heard)

    def speak(self) -> None:
        """What a proxy does all the time."""
        self.source.hello(self.source.acked_seq + 1, self.sent)
        self.source.listen()

    def send(self, batches: int) -> None:
        """Send so many batches of log lines; the first record of all says that the run is running."""
        for _ in range(batches):
            first = self.sent + 1
            seqs = range(first, first + BATCH)
            if first == 1:
                seqs = seqs[1:]
            records = {"run": [RunRecord(1, 1, "running", {})]} if first == 1 else {}
            lines = [LogRecord(seq, 0, "info", TEXT) for seq in seqs]
            self.source.send(*encode_records_batch(self.source.info.stream, first, 0, {**records, "log": [*lines]}))
            self.sent += BATCH

    def is_all_acked(self) -> bool:
        """Whether everything sent is committed."""
        self.speak()
        return self.source.acked_seq == self.sent

    def told(self, log_id: str) -> int:
        """How many lines of this id the DB writer logged."""
        return self.log.read_text().count(f" {log_id} ")

    def stored(self) -> tuple[int, int]:
        """Records in the database, and their seqs."""
        ((count, distinct),) = query(database_of(self.settings), STORED)[1]
        assert isinstance(count, int)
        assert isinstance(distinct, int)
        return count, distinct

    def close(self) -> None:
        """The source; `processes` ends the rest."""
        self.source.close()


@pytest.fixture
def durable(short_dir: Path, processes: Processes) -> Iterator[DurablePath]:
    path = DurablePath(short_dir, short_dir / "data", processes)
    yield path
    path.close()


@pytest.fixture
def small_disk(short_dir: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    with small_file_system(short_dir / "disk", 8) as path:
        yield path


def assert_nothing_passes(path: DurablePath) -> None:
    """The disk is full: what is sent now is not acked, and what was acked is stored."""
    path.send(40)
    wait_until(lambda: path.told("DURABLE_RETRY"), "the DB writer says that it cannot write")
    acked = path.source.acked_seq
    end_s = time.monotonic() + 1.5
    wait_until(lambda: not path.speak() and time.monotonic() > end_s, "a second and a half")
    assert path.source.acked_seq == acked < path.sent
    assert path.stored()[0] >= acked
    assert path.writer.poll() is None
    assert path.told("DURABLE_RETRY") == 1


def assert_all_is_kept(path: DurablePath) -> None:
    """There is room again: everything is stored, once, without any help."""
    wait_until(path.is_all_acked, "everything is acked")
    assert path.stored() == (path.sent, path.sent)
    assert query(database_of(path.settings), "SELECT count(*) FROM drops")[1] == [(0,)]
    assert path.told("DURABLE_RECOVERED") == 1


def test_a_file_that_may_not_grow_costs_time_and_no_record(durable: DurablePath) -> None:
    """As a quota does it. The DB writer keeps what it has, says so, and goes on by itself."""
    durable.send(5)
    wait_until(durable.is_all_acked, "the first batches are stored")
    wal = database_of(durable.settings).with_name("runlane.db-wal")
    forever = resource.RLIM_INFINITY
    resource.prlimit(durable.writer.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size + 50_000, forever))
    assert_nothing_passes(durable)
    resource.prlimit(durable.writer.pid, resource.RLIMIT_FSIZE, (forever, forever))
    assert_all_is_kept(durable)


def test_a_full_file_system_costs_time_and_no_record(small_disk: Path, short_dir: Path, processes: Processes) -> None:
    """Also of a DB writer that is killed and started again while it is full."""
    path = DurablePath(short_dir, small_disk / "data", processes)
    try:
        path.send(5)
        wait_until(path.is_all_acked, "the first batches are stored")
        ballast = small_disk / "ballast"
        fill(ballast)
        assert_nothing_passes(path)
        path.writer.kill()
        path.writer.wait()
        fill(ballast)
        path.start_writer()
        wait_until(lambda: path.told("DURABLE_RETRY") == 2, "the successor cannot write either")
        assert path.writer.poll() is None
        ballast.unlink()
        assert_all_is_kept(path)
    finally:
        path.close()


def fill(ballast: Path) -> None:
    """Take all room there is."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_run_killed_with_everything_is_lost_within_five_seconds(durable: DurablePath) -> None:
    """Nobody is left to write its end; readers find out by themselves. Until then it is running."""
    durable.send(1)
    wait_until(durable.is_all_acked, "the first batch is stored")
    database = database_of(durable.settings)
    alive_until_s = time.monotonic() + LOST_NS / 1e9 + 1.5

    def lives_on() -> bool:
        durable.speak()
        assert state_of(database) == ("running", "running")
        return time.monotonic() > alive_until_s

    wait_until(lives_on, "longer than a run may be silent")
    for process in (durable.writer, durable.router):
        process.kill()
    killed_s = time.monotonic()
    assert state_of(database) == ("running", "running")
    wait_until(lambda: state_of(database) == ("lost", "lost"), "the run is lost", 6.0)
    assert time.monotonic() - killed_s < 5.0


def state_of(database: Path) -> tuple[object, object]:
    """A run's state as `runlane runs` and as SQL show it."""
    return list_runs(database)[0].state, query(database, "SELECT state FROM run_status")[1][0][0]
