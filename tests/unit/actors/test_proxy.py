"""The proxy, moved by hand between a worker and a router: what it took it keeps until the router has committed it."""

import os
import socket as host_socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest
import zmq
from unit.actors.router_rig import RouterRig

from runlane.actors.proxy import GONE_CHECK_S, GONE_PATIENCE_S, QUIET_S, ProxyActor, state_of_exit
from runlane.config.errors import EndpointError
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import ProxySettings, Settings, SubscriberSettings
from runlane.transport.columns import decode_records
from runlane.transport.endpoint import endpoint_of, ipc_endpoint
from runlane.transport.messages import StatusRequest, StreamAck, StreamInfo, StreamNack, StreamWelcome, WorkerExited
from runlane.transport.records import RunRecord
from runlane.transport.testing import FakeClock, FakeReceiver, FakeSource, make_batch, make_info, until
from runlane.transport.wire import MAX_CONTROL_BYTES, encode_control, encode_echo

NEWER = b"RL\x02C\x80"
OUTBOX_BYTES = 1 << 18


class ProxyRig:
    """One proxy in this thread, its worker's socket, and a router that acks when told."""

    def __init__(self, settings: Settings, clock: FakeClock, pid: int = 0) -> None:
        self.settings = settings
        self.clock = clock
        self.proxy = ProxyActor(settings, "w", "run", clock=clock)
        self.proxy.on_start()
        self.router: FakeReceiver | None = None
        self.info = msgspec.structs.replace(make_info("w", pid or os.getpid()), host=host_socket.gethostname())
        self.key = self.info.stream
        self.worker = FakeSource(settings, ipc_endpoint(settings, "proxy-w"), self.info)

    def start_router(self, *, is_acking: bool = True) -> FakeReceiver:
        """A router process begins; what an earlier one had is not known to it."""
        if self.router is not None:
            self.router.close()
        self.router = FakeReceiver(self.settings, endpoint_of(self.settings, INGRESS_SOCKET), is_acking=is_acking)
        return self.router

    def turn(self) -> None:
        """A little time passes; everybody does what is due."""
        self.clock.move(0.05)
        self.proxy.do_work(0.005)
        if self.router is not None:
            self.router.turn()
        self.worker.listen()

    def settle(self, turns: int = 10) -> None:
        """Enough turns to show that something does not happen."""
        for _ in range(turns):
            self.turn()

    def send(self, *first_seqs: int, count: int = 2) -> None:
        """The worker sends batches."""
        for first_seq in first_seqs:
            self.worker.send(*make_batch(self.info, first_seq, step=count).frames)

    def received(self, router: FakeReceiver, key: str = "") -> list[int]:
        """First seqs of the batches that a router accepted, in order."""
        return [header.first_seq for header, _ in router.batches.get(key or self.key, [])]

    def figure(self, name: str) -> int:
        """One of the proxy's figures."""
        return int(self.proxy.statistics()[name])

    def close(self) -> None:
        """Everybody."""
        self.worker.close()
        self.proxy.on_close()
        if self.router is not None:
            self.router.close()


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[ProxyRig]:
    """A proxy with a small outbox, and no router yet."""
    rig = ProxyRig(msgspec.structs.replace(settings, proxy=ProxySettings(outbox_bytes=OUTBOX_BYTES)), clock)
    yield rig
    rig.close()


def _heard(rig: ProxyRig, kind: type) -> list[object]:
    return [message for message in rig.worker.heard if isinstance(message, kind)]


# ---- on the way ------------------------------------------------------------------------------------------


def test_batches_pass_through_unread(rig: ProxyRig) -> None:
    """The router gets the frames the worker sent, byte for byte."""
    router = rig.start_router()
    rig.worker.hello()
    batch = make_batch(rig.info, 1, step=2, metric=3)
    rig.worker.send(*batch.frames)
    until(lambda: bool(router.batches), rig.turn)
    assert router.batches[rig.key][0][1] == list(batch.frames[1:])
    assert router.infos[rig.key] == rig.info


def test_an_ack_goes_to_the_worker_only_after_the_routers(rig: ProxyRig) -> None:
    """Holding a batch is not committing it: the proxy's own death must lose nothing."""
    router = rig.start_router(is_acking=False)
    rig.worker.hello()
    rig.send(1, 3)
    until(lambda: rig.received(router) == [1, 3], rig.turn)
    rig.settle()
    assert rig.worker.acked_seq == 0
    assert rig.figure("unacked_records") == 4
    router.is_acking = True
    until(lambda: rig.worker.acked_seq == 4, rig.turn)
    assert rig.figure("unacked_records") == 0


def test_without_a_router_batches_are_kept(rig: ProxyRig) -> None:
    """And go out, in order and once, when one comes."""
    rig.worker.hello()
    rig.send(1, 3, 5)
    until(lambda: rig.figure("unacked_records") == 6, rig.turn)
    router = rig.start_router()
    until(lambda: rig.worker.acked_seq == 6, rig.turn)
    assert rig.received(router) == [1, 3, 5]


def test_the_hello_is_answered_with_what_the_proxy_expects(rig: ProxyRig) -> None:
    """Also after a restart of the worker's connection: nothing it has already is asked for again."""
    rig.worker.hello()
    rig.send(1, 3)
    until(lambda: rig.figure("records_in") == 4, rig.turn)
    rig.worker.hello(sent_seq=4)
    until(lambda: len(_heard(rig, StreamWelcome)) == 2, rig.turn)
    welcomes = [
        StreamWelcome(stream=rig.key, receiver="proxy-w", expected_seq=expected, sent_seq=sent)
        for expected, sent in ((1, 0), (5, 4))
    ]
    assert _heard(rig, StreamWelcome) == welcomes


def test_a_restarted_proxy_asks_a_stranger_to_say_hello(rig: ProxyRig) -> None:
    """It knows no stream, so a batch is answered with seq 0, and taken from the oldest unacked one on."""
    rig.send(7)
    until(lambda: bool(rig.worker.heard), rig.turn)
    assert rig.worker.heard == [StreamNack(stream=rig.key, expected_seq=0)]
    rig.worker.hello(oldest_seq=7, sent_seq=8)
    rig.send(7)
    until(lambda: rig.figure("records_in") == 2, rig.turn)


def test_a_gap_is_asked_for_once_and_a_duplicate_not_taken(rig: ProxyRig) -> None:
    """The same gate as the router's."""
    router = rig.start_router()
    rig.worker.hello()
    rig.send(1, 5, 5, 1)
    until(lambda: bool(_heard(rig, StreamNack)), rig.turn)
    rig.settle()
    assert _heard(rig, StreamNack) == [StreamNack(stream=rig.key, expected_seq=3)]
    rig.send(3, 5)
    until(lambda: rig.received(router) == [1, 3, 5], rig.turn)


def test_a_stream_ends_when_its_last_batch_is_acked(rig: ProxyRig) -> None:
    """The worker's goodbye is passed on behind the last ack; then the proxy holds nothing of it."""
    router = rig.start_router(is_acking=False)
    rig.worker.hello()
    rig.send(1)
    rig.worker.bye()
    until(lambda: rig.received(router) == [1], rig.turn)
    rig.settle()
    assert not router.ended
    assert not rig.proxy.is_drained()
    router.is_acking = True
    until(lambda: router.ended == {rig.key}, rig.turn)
    assert rig.proxy.is_drained()
    assert rig.figure("streams") == 0


# ---- a router that goes and comes back -------------------------------------------------------------------


def test_a_new_router_gets_everything_unacked_again(rig: ProxyRig) -> None:
    """Acked batches are gone, all others go out again in order; each seq once per router."""
    first = rig.start_router()
    rig.worker.hello()
    rig.send(1, 3)
    until(lambda: rig.worker.acked_seq == 4, rig.turn)
    first.is_acking = False
    rig.send(5, 7, 9)
    until(lambda: rig.received(first) == [1, 3, 5, 7, 9], rig.turn)
    second = rig.start_router()
    rig.send(11)
    until(lambda: rig.worker.acked_seq == 12, rig.turn)
    assert rig.received(second) == [5, 7, 9, 11]
    assert rig.figure("rewinds") >= 1


def test_nothing_is_doubled_or_lost_when_a_real_router_restarts(settings: Settings, clock: FakeClock) -> None:
    """A subscriber of both routers has every seq, and none twice among those it had committed."""
    subscribers = {"db_writer": SubscriberSettings(overflow="block", window=4)}
    routers = RouterRig(msgspec.structs.replace(settings, subscribers=subscribers), clock)
    rig = ProxyRig(settings, clock)
    try:
        rig.worker.hello()
        rig.send(*range(1, 41, 2))
        first = routers.subscriber("db_writer")
        until(lambda: len(first.deliveries) == 4, rig.turn, routers.turn)
        first.echo(first.deliveries[1].number)
        until(lambda: rig.worker.acked_seq == 4, rig.turn, routers.turn)
        until(lambda: rig.figure("records_in") == 40, rig.turn, routers.turn)
        routers.restart()
        second = routers.subscriber("db_writer", instance="2")

        def commit() -> None:
            if second.deliveries:
                second.echo()

        until(lambda: rig.worker.acked_seq == 40, rig.turn, routers.turn, commit)
        assert first.seqs[:4] == [1, 2, 3, 4]
        assert second.seqs == list(range(5, 41))
    finally:
        rig.close()
        routers.close()


# ---- backpressure ----------------------------------------------------------------------------------------


def test_a_full_outbox_stops_reading_the_worker(rig: ProxyRig) -> None:
    """Without acks it takes about `outbox_bytes` and no more; the worker's socket fills. With acks all goes on."""
    rig.start_router(is_acking=False)
    rig.worker.hello()
    rig.worker.socket.setsockopt(zmq.SNDTIMEO, 0)
    sent = 0
    for _ in range(40):
        try:
            while True:
                rig.send(sent + 1, count=256)
                sent += 256
        except zmq.Again:
            rig.turn()
    batch = make_batch(rig.info, 1, step=256).size_bytes
    assert OUTBOX_BYTES <= rig.figure("unacked_bytes") < OUTBOX_BYTES + batch
    assert rig.figure("records_in") < sent
    router = rig.start_router()
    until(lambda: rig.worker.acked_seq == sent, rig.turn)
    assert rig.received(router)[-1] == sent - 255


# ---- a worker that ends ----------------------------------------------------------------------------------


def _exit_record(router: FakeReceiver, key: str) -> tuple[StreamInfo, list[RunRecord]]:
    """The stream that is not the worker's, and its records."""
    ((stream, batches),) = ((stream, found) for stream, found in router.batches.items() if stream != key)
    ((header, bodies),) = batches
    records = decode_records(bodies[0], header.sections[0])
    return router.infos[stream], [record for record in records if isinstance(record, RunRecord)]


@pytest.mark.parametrize(
    ("exit_code", "state"),
    [(0, "finished"), (1, "failed"), (-9, "killed"), (137, "killed"), (-15, "stopped"), (130, "stopped")],
)
def test_an_exit_is_recorded_behind_everything_the_worker_sent(rig: ProxyRig, exit_code: int, state: str) -> None:
    """Told by the supervisor: drain, then one `run` record in a stream of the proxy's own, then be finished."""
    router = rig.start_router()
    rig.worker.hello()
    rig.send(1, 3)
    until(lambda: rig.figure("records_in") == 4, rig.turn)
    rig.proxy.on_message(WorkerExited(worker="w", run="run", exit_code=exit_code))
    until(lambda: rig.proxy.is_finished, rig.turn)
    assert rig.received(router) == [1, 3]
    info, records = _exit_record(router, rig.key)
    assert (info.run, info.worker) == ("run", "proxy-w")
    assert [(record.state, record.facts) for record in records] == [(state, {"exit_code": exit_code})]
    assert router.ended == {rig.key, info.stream}


def test_the_exit_waits_for_acks(rig: ProxyRig) -> None:
    """A proxy whose router commits nothing is not finished, however long its worker is gone."""
    router = rig.start_router(is_acking=False)
    rig.worker.hello()
    rig.send(1)
    until(lambda: rig.received(router) == [1], rig.turn)
    rig.proxy.on_message(WorkerExited(worker="w", run="run", exit_code=0))
    rig.clock.move(3_600)
    rig.settle()
    assert not rig.proxy.is_finished
    router.is_acking = True
    until(lambda: rig.proxy.is_finished, rig.turn)


def test_the_last_words_of_a_dead_worker_are_read(rig: ProxyRig) -> None:
    """What is in the kernel when the exit is told, and is read a turn or two later, is no less recorded."""
    router = rig.start_router()
    rig.worker.hello()
    until(lambda: bool(rig.worker.heard), rig.turn)
    rig.proxy.on_message(WorkerExited(worker="w", run="run", exit_code=-9))
    for _ in range(3):
        rig.proxy.do_work(0.0)
    rig.send(1, 3, 5)
    until(lambda: rig.proxy.is_finished, rig.turn)
    assert rig.received(router) == [1, 3, 5]
    assert rig.clock.monotonic_s() > 1_000 + QUIET_S


def _dead_pid() -> int:
    """Pid of a process that ended and was reaped."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_worker_nobody_watches_is_missed(settings: Settings, clock: FakeClock) -> None:
    """It attached by itself, so nobody tells of its end: the proxy looks for its pid, with patience."""
    rig = ProxyRig(settings, clock, _dead_pid())
    try:
        router = rig.start_router()
        rig.worker.hello()
        rig.send(1)
        until(lambda: rig.worker.acked_seq == 2, rig.turn)
        assert rig.clock.monotonic_s() < 1_000 + GONE_PATIENCE_S
        until(lambda: rig.proxy.is_finished, rig.turn)
        assert rig.clock.monotonic_s() > 1_000 + GONE_PATIENCE_S
        _, records = _exit_record(router, rig.key)
        assert [record.state for record in records] == ["killed"]
    finally:
        rig.close()


def test_a_worker_that_said_goodbye_is_not_called_killed(settings: Settings, clock: FakeClock) -> None:
    """It has said itself how it ended, so the proxy adds nothing."""
    rig = ProxyRig(settings, clock, _dead_pid())
    try:
        router = rig.start_router()
        rig.worker.hello()
        rig.send(1)
        rig.worker.bye()
        until(lambda: rig.proxy.is_finished, rig.turn)
        assert list(router.batches) == [rig.key]
    finally:
        rig.close()


def test_a_living_worker_may_be_silent_for_hours(rig: ProxyRig) -> None:
    """Its process lives, so the proxy stays."""
    rig.start_router()
    rig.worker.hello()
    until(lambda: bool(rig.worker.heard), rig.turn)
    for _ in range(10):
        rig.clock.move(GONE_CHECK_S + GONE_PATIENCE_S)
        rig.turn()
    assert not rig.proxy.is_finished
    assert rig.figure("streams") == 1


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
    ([b"garbage", b"more"], "magic"),
    ([NEWER], "version"),
    ([b"RL\x01C" + bytes(MAX_CONTROL_BYTES)], "oversized"),
    ([encode_control(StatusRequest())], "unexpected"),
    ([encode_control(StatusRequest()), b"more"], "frames"),
    ([encode_echo(1)], "type"),
    ([bytes(make_batch(make_info(), 1, step=1).frames[0])], "size"),
]


@pytest.mark.parametrize(("frames", "reason"), worker_faults, ids=range(len(worker_faults)))
def test_faults_of_a_worker_are_counted_and_survived(rig: ProxyRig, frames: list[bytes], reason: str) -> None:
    """By reason, and the stream goes on."""
    rig.start_router()
    rig.worker.hello()
    rig.worker.send(*frames)
    rig.send(1)
    until(lambda: rig.worker.acked_seq == 2, rig.turn)
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
    rig.worker.hello()
    rig.send(1)
    until(lambda: rig.worker.acked_seq == 2, rig.turn)
    router.send_to_all(frame)
    router.send_to_all(encode_control(StreamAck(stream=make_info().stream, seq=5)))
    rig.send(3)
    until(lambda: rig.worker.acked_seq == 4 and rig.proxy.rejections.total > 0, rig.turn)
    assert rig.proxy.rejections.by_reason == {reason: 1}


# ---- life ------------------------------------------------------------------------------------------------


def test_one_worker_has_one_proxy(rig: ProxyRig) -> None:
    """A second one is refused and disturbs nobody."""
    second = ProxyActor(rig.settings, "w", "run", clock=rig.clock)
    with pytest.raises(EndpointError, match="proxy-w is running already"):
        second.on_start()
    second.on_close()
    rig.worker.hello()
    until(lambda: bool(rig.worker.heard), rig.turn)


def test_the_heartbeat_figures_are_plain(rig: ProxyRig) -> None:
    """They go through MessagePack as they are, and say what is held."""
    rig.worker.hello()
    rig.send(1)
    until(lambda: rig.figure("unacked_records") == 2, rig.turn)
    figures = rig.proxy.statistics()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(figures)) == figures
    assert (figures["worker"], figures["run"], figures["streams"]) == ("w", "run", 1)
