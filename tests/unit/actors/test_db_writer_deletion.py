"""A person's wish reaches the DB writer through the router, and the answer comes back. Moved by hand, real sockets."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import zmq
from unit.actors.router_rig import RouterRig
from unit.actors.writer_rig import Disk, WriterRig

from runlane.actors.deletion_post import NO_WRITER
from runlane.actors.store_reader import list_runs
from runlane.config.names import CONTROL_SOCKET
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of, endpoint_of
from runlane.transport.messages import ControlMessage, RunDelete, RunDeletion
from runlane.transport.records import RunRecord
from runlane.transport.sockets import Context, connect_dealer, receive_frames, send_control
from runlane.transport.testing import FakeClock, FakeSource, until
from runlane.transport.wire import decode_control
from runlane.transport.writer import encode_records_batch


class Asker:
    """A command at the router's control socket."""

    def __init__(self, rig: RouterRig) -> None:
        self.rig = rig
        self._context: Context = zmq.Context()
        endpoint = endpoint_of(rig.settings, CONTROL_SOCKET)
        self._dealer = connect_dealer(self._context, endpoint, 8, rig.settings.transport)

    def ask(self, message: ControlMessage) -> RunDeletion:
        heard: list[bytes] = []
        until(lambda: send_control(self._dealer, message))

        def has_answer() -> bool:
            heard.extend(receive_frames(self._dealer) or [])
            return bool(heard)

        until(has_answer, self.rig.turn)
        answer = decode_control(heard[0])
        assert isinstance(answer, RunDeletion)
        return answer

    def close(self) -> None:
        self._dealer.close(0)
        self._context.term()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def rig(settings: Settings, clock: FakeClock, disk: Disk) -> Iterator[WriterRig]:
    with closing(WriterRig(settings, clock, disk)) as rig:
        yield rig


@pytest.fixture
def asker(rig: WriterRig) -> Iterator[Asker]:
    with closing(Asker(rig)) as asker:
        yield asker


def record(rig: WriterRig, *, has_ended: bool = True) -> FakeSource:
    """A run of a few log lines, stored."""
    source = rig.source()
    source.send(*encode_records_batch(source.info.stream, 1, 0, {"run": [RunRecord(1, 0, "running", {})]}))
    rig.send(source, 2, 300)
    if has_ended:
        end = RunRecord(302, rig.clock.wall_ns(), "finished", {})
        source.send(*encode_records_batch(source.info.stream, 302, 0, {"run": [end]}))
    until(lambda: source.acked_seq == 301 + has_ended, rig.turn)
    return source


def test_a_run_is_deleted_while_the_graph_runs(rig: WriterRig, asker: Asker) -> None:
    """At first it is accepted, asked again it is done; what is sent again is acked and not stored."""
    source = record(rig)
    run = source.info.run
    found = asker.ask(RunDelete(run=run, only_ask=True))
    assert (found.run, found.state) == (run, "found")
    assert asker.ask(RunDelete(run=run)).state == "removing"
    until(lambda: asker.ask(RunDelete(run=run)).state == "removed", rig.turn)
    assert asker.ask(RunDelete(run=run)).rows == {"step": 0, "info": 0, "log": 300, "metric": 0, "episode": 0}
    rig.send(source, 2, 300)
    rig.send(source, 303, 10)
    until(lambda: source.acked_seq == 312, rig.turn)
    assert rig.ask("SELECT count(*) FROM log_rows") == [(0,)]
    assert list_runs(database_of(rig.settings)) == []


def test_a_run_that_lives_is_refused(rig: WriterRig, asker: Asker) -> None:
    """The reason goes all the way to who asked."""
    source = record(rig, has_ended=False)
    assert f"run {source.info.run} is running; stop it first" in asker.ask(RunDelete(run=source.info.run)).refused
    assert rig.ask("SELECT count(*) FROM log_rows") == [(300,)]


def test_a_full_disk_refuses_and_removes_nothing(rig: WriterRig, asker: Asker, disk: Disk) -> None:
    """What could not be noted would not survive a kill."""
    source = record(rig)
    disk.is_full = True
    assert "disk is full" in asker.ask(RunDelete(run=source.info.run)).refused
    disk.is_full = False
    assert rig.ask("SELECT count(*) FROM retention_rows") == [(0,)]


def test_without_a_db_writer_the_router_says_so(settings: Settings, clock: FakeClock) -> None:
    """At once: who asks need not wait for nobody."""
    with closing(RouterRig(settings, clock)) as rig, closing(Asker(rig)) as asker:
        assert asker.ask(RunDelete(run="R")).refused == NO_WRITER


def test_an_answer_to_nobody_is_counted(settings: Settings, clock: FakeClock) -> None:
    """An address that is none is a bad message; one of somebody gone is silence."""
    with closing(RouterRig(settings, clock)) as rig, closing(Asker(rig)) as asker:
        assert bytes.fromhex(asker.ask(RunDelete(run="R")).asker)
        far = rig.subscriber("far")
        far.say(RunDeletion(asker="no address"))
        far.say(RunDeletion(asker="00ff"))
        until(lambda: rig.router.rejections.by_reason == {"invalid": 1}, rig.turn)
