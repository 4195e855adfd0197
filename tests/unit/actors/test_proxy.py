"""The proxy, moved by hand between a worker's journal and a router: nothing is removed before it is committed."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest
from unit.actors.proxy_rig import OUTBOX_BYTES, JournalWorker, ProxyRig

from runlane.actors.forwarder import EXIT_PATIENCE_S
from runlane.actors.proxy import GONE_CHECK_S, GONE_PATIENCE_S, ProxyActor, StallWatch
from runlane.config.errors import EndpointError
from runlane.config.settings import Settings
from runlane.transport.journal_layout import READER_ROLE
from runlane.transport.messages import StatusRequest, StreamAck, StreamRefused, WorkerExited
from runlane.transport.records import DropRecord, RunRecord, state_of_exit
from runlane.transport.testing import FakeClock, make_batch, make_info, until
from runlane.transport.wire import MAX_CONTROL_BYTES, encode_control, encode_echo, encode_packed

NEWER = b"RL\x02C\x80"


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[ProxyRig]:
    """A proxy with a small window, and no router yet."""
    rig = ProxyRig(settings, clock)
    yield rig
    rig.close()


def _is_committed(worker: JournalWorker, seq: int) -> bool:
    return worker.writer.acked_seq >= seq


# ---- on the way ------------------------------------------------------------------------------------------


def test_live_batches_go_on_as_they_came(rig: ProxyRig) -> None:
    """The router gets the frames the worker sent, and the ack goes into the journal's head."""
    router = rig.start_router()
    worker = rig.worker()
    until(lambda: bool(worker.socket.heard), rig.turn)
    worker.record(3)
    worker.send()
    until(lambda: _is_committed(worker, 3), rig.turn)
    assert rig.seqs(worker.info.stream) == [1, 2, 3]
    assert router.infos[worker.info.stream] == worker.info
    assert rig.figure("records_in") == 3


def test_what_never_came_live_is_read_from_the_journal(rig: ProxyRig) -> None:
    """Published and not sent, or sent while nobody was here: both are in the journal."""
    rig.start_router()
    worker = rig.worker()
    worker.record(2_000)
    until(lambda: _is_committed(worker, 2_000), rig.turn)
    worker.record(5)
    worker.send()
    until(lambda: _is_committed(worker, 2_005), rig.turn)
    assert rig.seqs(worker.info.stream) == list(range(1, 2_006))
    assert rig.figure("records_in") <= 2_005


def test_without_a_router_nothing_is_taken_and_nothing_removed(rig: ProxyRig) -> None:
    """The journal holds it all; the router gets it when it comes."""
    worker = rig.worker()
    worker.record(3_000)
    rig.settle()
    assert rig.figure("unacked_bytes") == 0
    before = rig.segments(worker)
    assert len(before) > 1
    rig.start_router()
    until(lambda: _is_committed(worker, 3_000), rig.turn)
    assert rig.seqs(worker.info.stream) == list(range(1, 3_001))


def test_the_window_is_bounded_while_nothing_is_acked(rig: ProxyRig) -> None:
    """A router that takes and never commits fills the window and no more."""
    router = rig.start_router(is_acking=False)
    worker = rig.worker()
    worker.record(4_000, text="x" * 200)
    rig.settle(60)
    assert OUTBOX_BYTES <= rig.figure("unacked_bytes") < 3 * OUTBOX_BYTES
    assert rig.segments(worker)[0].name == "00000001.seg"
    router.is_acking = True
    router.send_to_all(encode_control(StreamAck(stream=worker.info.stream, seq=len(rig.seqs(worker.info.stream)))))
    until(lambda: _is_committed(worker, 4_000), rig.turn)
    assert rig.seqs(worker.info.stream) == list(range(1, 4_001))


def test_segments_are_deleted_only_when_they_are_acked(rig: ProxyRig) -> None:
    """The last one stays until the stream ends; then the whole journal goes."""
    rig.start_router()
    worker = rig.worker()
    worker.record(5_000)
    until(lambda: _is_committed(worker, 5_000), rig.turn)
    worker.record(1)
    until(lambda: _is_committed(worker, 5_001) and len(rig.segments(worker)) == 1, rig.turn)
    worker.end()
    until(lambda: not worker.directory.exists(), rig.turn)
    assert rig.own_records() == []


# ---- restarts --------------------------------------------------------------------------------------------


def test_a_new_router_gets_everything_that_is_not_acked(rig: ProxyRig) -> None:
    """Also what the window does not hold any more, as after a restart of the proxy as well."""
    rig.start_router(is_acking=False)
    worker = rig.worker()
    worker.record(1_000)
    until(lambda: len(rig.seqs(worker.info.stream)) == 1_000, rig.turn)
    rig.proxy.on_close()
    rig.start_proxy()
    worker.record(1_000)
    worker.hello()
    until(lambda: len(rig.seqs(worker.info.stream)) == 2_000, rig.turn)
    assert rig.seqs(worker.info.stream) == list(range(1, 2_001))
    assert worker.writer.acked_seq == 0
    rig.start_router()
    until(lambda: _is_committed(worker, 2_000), rig.turn)
    assert rig.seqs(worker.info.stream) == list(range(1, 2_001))


def test_a_new_proxy_finds_the_journal_of_a_dead_worker(rig: ProxyRig) -> None:
    """Its predecessor and the worker died together: no hello comes, and nothing is lost."""
    worker = rig.worker()
    worker.record(500)
    rig.proxy.on_close()
    worker.die()
    rig.start_router()
    rig.start_proxy()
    until(lambda: not worker.directory.exists(), rig.turn)
    assert rig.seqs(worker.info.stream) == list(range(1, 501))


def test_a_journal_that_somebody_else_drains_is_left_alone(rig: ProxyRig) -> None:
    """Until that process lets it go."""
    rig.start_router()
    rig.proxy.on_close()
    worker = JournalWorker(rig.settings, "ipc:///tmp/nobody")
    worker.record(5)
    holder = (
        "import sys; from pathlib import Path; from runlane.transport.endpoint import RoleLock;"
        f"lock = RoleLock(Path({str(worker.directory)!r}), {READER_ROLE!r});"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        rig.start_proxy()
        rig.settle()
        assert rig.figure("streams") == 0
        other.send_signal(signal.SIGKILL)
    rig.proxy.on_close()
    rig.start_proxy()
    until(lambda: worker.writer.acked_seq == 5, rig.turn)
    worker.close()


def test_a_refused_stream_is_not_sent_again(rig: ProxyRig) -> None:
    """The router has another living source of it: an error in the log, and the journal stays."""
    router = rig.start_router(is_acking=False)
    worker = rig.worker()
    until(lambda: worker.info.stream in router.infos, rig.turn)
    router.send_to_all(encode_control(StreamRefused(stream=worker.info.stream, reason="somebody else")))
    rig.settle(3)
    worker.record(5)
    rig.settle()
    assert rig.seqs(worker.info.stream) == []
    assert worker.directory.exists()


# ---- ends ------------------------------------------------------------------------------------------------


def _states(rig: ProxyRig) -> list[RunRecord]:
    return [record for record in rig.own_records() if isinstance(record, RunRecord)]


def test_a_worker_that_dies_without_a_word_is_told_as_killed(rig: ProxyRig) -> None:
    """After the time its parent has to say more, and behind everything it recorded."""
    rig.start_router()
    worker = rig.worker()
    worker.record(10)
    until(lambda: _is_committed(worker, 10), rig.turn)
    worker.record(5)
    worker.die()
    rig.settle(int(EXIT_PATIENCE_S / 0.05) // 2)
    assert _states(rig) == []
    until(lambda: not worker.directory.exists(), rig.turn)
    (end,) = _states(rig)
    assert (end.state, end.facts) == (
        "killed",
        {"stream": worker.info.stream, "exit_code": None, "reason": "lease"},
    )
    assert rig.seqs(worker.info.stream) == list(range(1, 16))


@pytest.mark.parametrize(("exit_code", "state"), [(0, "finished"), (3, "failed"), (-9, "killed"), (-2, "stopped")])
def test_an_exit_is_recorded_behind_everything_the_worker_recorded(rig: ProxyRig, exit_code: int, state: str) -> None:
    """In the proxy's own stream, once; then the proxy is finished and the journal gone."""
    rig.start_router()
    worker = rig.worker()
    worker.record(300)
    worker.die()
    rig.proxy.on_message(WorkerExited(worker="w", run="run", exit_code=exit_code))
    until(lambda: rig.proxy.is_finished, rig.turn)
    assert [(record.state, record.facts) for record in _states(rig)] == [(state, {"exit_code": exit_code})]
    assert rig.seqs(worker.info.stream) == list(range(1, 301))
    assert not worker.directory.exists()


def test_the_exit_waits_for_acks(rig: ProxyRig) -> None:
    """Nothing of the run is told as ended while some of it is not committed; no journal is removed."""
    rig.start_router(is_acking=False)
    worker = rig.worker()
    worker.record(3)
    worker.die()
    rig.proxy.on_message(WorkerExited(worker="w", run="run", exit_code=0))
    until(lambda: len(rig.seqs(worker.info.stream)) == 3, rig.turn)
    rig.settle(20)
    assert _states(rig) == []
    assert worker.directory.exists()


def test_a_closed_stream_has_said_itself_how_it_ended(rig: ProxyRig) -> None:
    """The proxy adds nothing."""
    rig.start_router()
    worker = rig.worker()
    worker.record(3)
    worker.end()
    until(lambda: not worker.directory.exists(), rig.turn)
    assert rig.own_records() == []


def test_drops_that_a_dead_worker_could_not_tell_are_told(rig: ProxyRig) -> None:
    """Their counts stand in the journal's head, where no kill reaches them."""
    rig.start_router()
    worker = rig.worker()
    worker.record(3)
    worker.head.count_untold("step", 7)
    worker.die()
    until(lambda: not worker.directory.exists(), rig.turn)
    drops = [record for record in rig.own_records() if isinstance(record, DropRecord)]
    assert [(drop.kind, drop.reason, drop.records) for drop in drops] == [("step", "untold", 7)]


def test_a_damaged_journal_is_stored_up_to_the_damage_and_kept(rig: ProxyRig) -> None:
    """What is lost is counted in a drop record, and the files are set aside."""
    rig.start_router()
    worker = rig.worker()
    worker.record(100)
    path = rig.segments(worker)[0]
    worker.die()
    data = bytearray(path.read_bytes())
    place = data.index(b"info\xa1x", len(data) // 32)
    data[place] ^= 1
    path.write_bytes(data)
    until(lambda: not worker.directory.exists(), rig.turn)
    stored = rig.seqs(worker.info.stream)
    assert 0 < len(stored) < 100
    assert stored == list(range(1, len(stored) + 1))
    (drop,) = [record for record in rig.own_records() if isinstance(record, DropRecord)]
    assert (drop.reason, drop.records) == ("journal_damaged", 100 - len(stored))
    assert worker.directory.with_name(f"{worker.info.stream}.damaged").is_dir()


def _dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_proxy_that_nobody_needs_ends_by_itself(rig: ProxyRig) -> None:
    """Its worker attached by itself and is gone with all its streams."""
    rig.start_router()
    worker = rig.worker(_dead_pid())
    worker.record(3)
    worker.end()
    until(lambda: rig.proxy.is_finished, rig.turn)
    assert rig.own_records() == []


def test_a_living_worker_may_be_silent_for_hours(rig: ProxyRig) -> None:
    """Its process lives, so the proxy stays."""
    rig.start_router()
    worker = rig.worker()
    until(lambda: bool(worker.socket.heard), rig.turn)
    for _ in range(10):
        rig.clock.move(GONE_CHECK_S + GONE_PATIENCE_S)
        rig.turn()
    assert not rig.proxy.is_finished
    assert rig.figure("streams") == 1


def test_a_worker_that_makes_no_records_is_told_as_stalled_until_it_does(rig: ProxyRig) -> None:
    """Once each way, in the proxy's own stream."""
    rig.start_router()
    worker = rig.worker()
    worker.record(1)
    until(lambda: _is_committed(worker, 1), rig.turn)
    rig.clock.move(rig.settings.proxy.stalled_s)
    until(lambda: [record.state for record in _states(rig)] == ["stalled"], rig.turn)
    rig.clock.move(rig.settings.proxy.stalled_s)
    rig.settle()
    worker.record(1)
    until(lambda: [record.state for record in _states(rig)] == ["stalled", "running"], rig.turn)


def test_a_stall_begins_and_ends_once() -> None:
    """Progress resets the watch; nobody running is no stall."""
    watch = StallWatch(10.0)
    looks = [(True, 1, 0.0), (True, 1, 9.0), (True, 1, 10.0), (True, 1, 30.0), (True, 2, 31.0), (False, 2, 99.0)]
    assert [watch.look(*look) for look in looks] == [None, None, True, None, False, None]


@pytest.mark.parametrize(
    ("exit_code", "state"),
    [(0, "finished"), (2, "failed"), (128, "failed"), (130, "stopped"), (143, "stopped"), (-2, "stopped")],
)
def test_an_exit_code_says_how_a_run_ended(exit_code: int, state: str) -> None:
    """Signals 2 and 15 are a person's stop, other signals a kill, other codes a failure."""
    assert state_of_exit(exit_code) == state


# ---- faults ----------------------------------------------------------------------------------------------

worker_faults: list[tuple[list[bytes], str]] = [
    ([b""], "short"),
    ([b"garbage", b"more"], "frames"),
    ([b"garbage"], "magic"),
    ([NEWER], "version"),
    ([b"RL\x01C" + bytes(MAX_CONTROL_BYTES)], "oversized"),
    ([encode_control(StatusRequest())], "unexpected"),
    ([encode_echo(1)], "type"),
    ([encode_packed([make_batch(make_info(), 1, step=1).frames])[:-1]], "size"),
    ([encode_packed([[bytes(make_batch(make_info(), 1, step=1).frames[0])[:20]]])], "short"),
]


@pytest.mark.parametrize(("frames", "reason"), worker_faults, ids=range(len(worker_faults)))
def test_faults_of_a_worker_are_counted_and_survived(rig: ProxyRig, frames: list[bytes], reason: str) -> None:
    """By reason, and the stream goes on."""
    rig.start_router()
    worker = rig.worker()
    worker.socket.send(*frames)
    worker.record(2)
    until(lambda: _is_committed(worker, 2), rig.turn)
    assert rig.proxy.statistics()["rejected"] == {reason: 1}


router_faults = [
    (b"garbage", "magic"),
    (NEWER, "version"),
    (encode_control(StatusRequest()), "unexpected"),
    (b"RL\x01C\xc1", "msgpack"),
]


@pytest.mark.parametrize(("frame", "reason"), router_faults, ids=range(len(router_faults)))
def test_faults_of_a_router_are_counted_and_survived(rig: ProxyRig, frame: bytes, reason: str) -> None:
    """By reason, and the stream goes on."""
    router = rig.start_router()
    worker = rig.worker()
    worker.record(2)
    until(lambda: _is_committed(worker, 2), rig.turn)
    router.send_to_all(frame)
    router.send_to_all(encode_control(StreamAck(stream=make_info().stream, seq=5)))
    worker.record(2)
    until(lambda: _is_committed(worker, 4) and bool(rig.proxy.statistics()["rejected"]), rig.turn)
    assert rig.proxy.statistics()["rejected"] == {reason: 1}


# ---- life ------------------------------------------------------------------------------------------------


def test_one_worker_has_one_proxy(rig: ProxyRig) -> None:
    """A second one is refused and disturbs nobody."""
    second = ProxyActor(rig.settings, "w", "run", clock=rig.clock)
    with pytest.raises(EndpointError, match="proxy-w is running already"):
        second.on_start()
    second.on_close()
    worker = rig.worker()
    until(lambda: bool(worker.socket.heard), rig.turn)


def test_the_heartbeat_figures_are_plain(rig: ProxyRig) -> None:
    """They go through MessagePack as they are, and say what is held."""
    worker = rig.worker()
    worker.record(2)
    until(lambda: rig.figure("unacked_records") == 2, rig.turn)
    figures = rig.proxy.statistics()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(figures)) == figures
    assert (figures["worker"], figures["run"], figures["streams"]) == ("w", "run", 1)
