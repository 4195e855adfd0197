"""A worker's proxy: takes its batches at memory speed, keeps them until they are committed, forwards them.

One per worker, on the worker's host. Batches pass through unread. It stops reading its worker when its own
outbox is full, and it outlives a router: unacked batches go out again. What it acks to the worker is what the
router acked to it, so its own death loses nothing that the worker still holds.
"""

import os
import socket as host_socket
from dataclasses import dataclass
from typing import Any

import zmq

from runlane.config import log_ids
from runlane.config.errors import WireError
from runlane.config.names import INGRESS_SOCKET, PROXY_PREFIX
from runlane.config.settings import Settings
from runlane.transport.ack import AckWindow, Batch, IngressGate, Verdict
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import RoleLock, endpoint_of, ipc_endpoint, make_run_dir, unlink_socket
from runlane.transport.identity import new_stream_id
from runlane.transport.log import log_event
from runlane.transport.messages import (
    ControlMessage,
    StreamAck,
    StreamBye,
    StreamHello,
    StreamInfo,
    StreamNack,
    StreamWelcome,
    WorkerExited,
)
from runlane.transport.records import RunRecord, RunState
from runlane.transport.sockets import (
    Context,
    Rejections,
    Socket,
    bind_router,
    connect_dealer,
    poll_events,
    receive_frames,
    send_control,
)
from runlane.transport.stream_sender import StreamSender
from runlane.transport.wire import (
    MAX_BODY_BYTES,
    check_bodies,
    decode_control,
    decode_header,
    is_control,
)
from runlane.transport.writer import encode_records_batch

WORKER_BURST = 64
ROUTER_BURST = 256
SOCKET_HWM = 32
GONE_CHECK_S = 0.5
GONE_PATIENCE_S = 2.0
QUIET_S = 0.1


@dataclass(slots=True)
class Relay:
    """One stream on its way through: from the worker's socket, through the gate, out by the sender."""

    sender: StreamSender
    gate: IngressGate
    peer: bytes
    is_ended: bool = False


class ProxyActor:
    """The proxy process of one worker."""

    def __init__(
        self,
        settings: Settings,
        worker: str,
        run: str,
        run_name: str = "",
        keeper_pid: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """`worker` names the socket the worker connects to; `run` and its name are only for the exit record.

        `keeper_pid` is who asked for this proxy and will say when its worker has ended: as long as it lives, the
        proxy stays, because a launcher's command may start one script after another.
        """
        self.settings = settings
        self.worker = worker
        self.run = run
        self.run_name = run_name
        self.clock = clock or SystemClock()
        self.rejections = Rejections({})
        self._relays: dict[bytes, Relay] = {}
        self._exit: WorkerExited | None = None
        self._is_exit_recorded = False
        self._last_word_s = 0.0
        self._pids: set[int] = {keeper_pid} if keeper_pid else set()
        self._is_stopping = False
        self._is_finished = False
        self._next_gone_check_s = 0.0
        self._gone_since_s: float | None = None
        self._records_in = 0
        self._records_acked = 0

    @property
    def name(self) -> str:
        """Name under which the proxy reports, also the name of its socket and lock."""
        return f"{PROXY_PREFIX}{self.worker}"

    # ---- life ----

    def on_start(self) -> None:
        """Take the role's lock, bind for the worker, connect to the router."""
        self._context: Context = zmq.Context()
        self._lock = RoleLock(make_run_dir(self.settings), self.name)
        self._endpoint = ipc_endpoint(self.settings, self.name)
        transport = self.settings.transport
        self._worker_side: Socket = bind_router(self._context, self._endpoint, SOCKET_HWM, transport)
        self._router_side: Socket = connect_dealer(
            self._context, endpoint_of(self.settings, INGRESS_SOCKET), SOCKET_HWM, transport
        )
        self._poller = zmq.Poller()

    def do_work(self, timeout_s: float) -> None:
        """One turn: what the worker sent, what the router answered, what is due to go out."""
        self._poller.register(self._router_side, zmq.POLLIN)
        if self._has_room():
            self._poller.register(self._worker_side, zmq.POLLIN)
        elif self._worker_side in self._poller:
            self._poller.unregister(self._worker_side)
        ready = poll_events(self._poller, timeout_s)
        if self._router_side in ready:
            self._read_router()
        if self._worker_side in ready:
            self._read_worker()
        now_s = self.clock.monotonic_s()
        for relay in self._relays.values():
            relay.sender.pump(now_s)
        self._check_worker_gone(now_s)
        self._end_streams()
        self._finish(now_s)

    def _has_room(self) -> bool:
        held = sum(relay.sender.window.size_bytes for relay in self._relays.values())
        return held < self.settings.proxy.outbox_bytes

    def request_stop(self) -> None:
        """Go on until every stream has ended and is acked."""
        self._is_stopping = True

    def is_drained(self) -> bool:
        """Whether every stream has ended and is acked, and the exit too, once it is known.

        A worker that goes on sending keeps us until the deadline.
        """
        return self._is_finished if self._exit is not None else not self._relays

    @property
    def is_finished(self) -> bool:
        """Whether the worker is gone and everything it sent is committed: the process may end with code 0."""
        return self._is_finished

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat."""
        return {
            "worker": self.worker,
            "run": self.run,
            "streams": len(self._relays),
            "records_in": self._records_in,
            "records_acked": self._records_acked,
            "unacked_records": sum(relay.sender.window.pending_records for relay in self._relays.values()),
            "unacked_bytes": sum(relay.sender.window.size_bytes for relay in self._relays.values()),
            "rewinds": sum(relay.sender.window.rewinds for relay in self._relays.values()),
            "rejected": dict(self.rejections.by_reason),
        }

    def on_close(self) -> None:
        """Say what is left unacked, close, remove the socket file, let the lock go."""
        left = sum(relay.sender.window.pending_records for relay in self._relays.values())
        if left:
            log_event(log_ids.PROXY_UNDRAINED, worker=self.worker, records=left)
        if hasattr(self, "_worker_side"):
            self._worker_side.close(100)  # the last acks get a moment to leave
            unlink_socket(self._endpoint)
        if hasattr(self, "_router_side"):
            self._router_side.close(100)
        if hasattr(self, "_context"):
            self._context.term()
        if hasattr(self, "_lock"):
            self._lock.release()

    # ---- worker side ----

    def _read_worker(self) -> None:
        for _ in range(WORKER_BURST):
            if not self._has_room():
                return
            frames = receive_frames(self._worker_side)
            if frames is None:
                return
            self._last_word_s = self.clock.monotonic_s()
            try:
                self._on_worker_frames(frames)
            except WireError as error:
                self._reject(error, "worker")

    def _on_worker_frames(self, frames: list[bytes]) -> None:
        if len(frames) < 2:
            raise WireError("frames", f"{len(frames)} from worker")
        peer, head, bodies = frames[0], frames[1], frames[2:]
        if is_control(head):
            if bodies:
                raise WireError("frames", f"{len(frames)} in a control message from worker")
            self._on_worker_control(peer, decode_control(head))
            return
        header = decode_header(head)
        sizes = [len(body) for body in bodies]
        if max(sizes, default=0) > MAX_BODY_BYTES:
            raise WireError("oversized", f"body of {max(sizes)} bytes, at most {MAX_BODY_BYTES}")
        check_bodies(header, sizes)
        relay = self._relays.get(header.stream)
        if relay is None:
            self._answer(peer, StreamNack(stream=header.stream.hex(), expected_seq=0))
            return
        verdict = relay.gate.accept(header.first_seq, header.last_seq)
        if verdict is Verdict.NEW:
            size = len(head) + sum(sizes)
            relay.sender.window.append(Batch(header.first_seq, header.last_seq, (head, *bodies), size))
            self._records_in += header.records
        elif verdict is Verdict.GAP and relay.gate.should_ask():
            self._answer(peer, StreamNack(stream=header.stream.hex(), expected_seq=relay.gate.expected_seq))

    def _on_worker_control(self, peer: bytes, message: ControlMessage) -> None:
        if isinstance(message, StreamHello):
            self._on_hello(peer, message)
        elif isinstance(message, StreamBye):
            relay = self._relays.get(bytes.fromhex(message.stream))
            if relay is not None:
                relay.is_ended = True
        else:
            raise WireError("unexpected", f"{type(message).__name__} from worker")

    def _on_hello(self, peer: bytes, hello: StreamHello) -> None:
        key = bytes.fromhex(hello.info.stream)
        relay = self._relays.get(key)
        if relay is None:
            relay = self._open(hello.info, hello.oldest_seq, peer)
            log_event(log_ids.PROXY_STREAM_OPENED, stream=hello.info.stream, pid=hello.info.pid)
        relay.peer = peer
        relay.sender.info = hello.info
        if hello.info.host == host_socket.gethostname():
            self._pids.add(hello.info.pid)
        welcome = StreamWelcome(
            stream=hello.info.stream,
            receiver=self.name,
            expected_seq=relay.gate.expected_seq,
            sent_seq=hello.sent_seq,
        )
        self._answer(peer, welcome)
        self._answer(peer, StreamAck(stream=hello.info.stream, seq=max(0, relay.sender.window.oldest_seq - 1)))

    def _open(self, info: StreamInfo, oldest_seq: int, peer: bytes) -> Relay:
        window = AckWindow(self.settings.proxy.outbox_bytes, oldest_seq)
        relay = Relay(StreamSender(info, window, self._to_router), IngressGate(oldest_seq), peer)
        self._relays[bytes.fromhex(info.stream)] = relay
        return relay

    def _answer(self, peer: bytes, message: ControlMessage) -> None:
        if peer:
            send_control(self._worker_side, message, peer)

    # ---- router side ----

    def _to_router(self, frames: Any) -> bool:
        try:
            self._router_side.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _read_router(self) -> None:
        for _ in range(ROUTER_BURST):
            frames = receive_frames(self._router_side)
            if frames is None:
                return
            try:
                self._on_router_message(decode_control(frames[0]))
            except WireError as error:
                self._reject(error, "router")

    def _on_router_message(self, message: ControlMessage) -> None:
        if not isinstance(message, StreamAck | StreamNack | StreamWelcome):
            raise WireError("unexpected", f"{type(message).__name__} from router")
        relay = self._relays.get(bytes.fromhex(message.stream))
        if relay is None:
            return
        before = relay.sender.window.oldest_seq
        if relay.sender.on_message(message, self.clock.monotonic_s()):
            window = relay.sender.window
            log_event(log_ids.PROXY_REWOUND, stream=message.stream, records=window.last_seq - window.sent_seq)
        acked = relay.sender.window.oldest_seq - 1
        self._records_acked += acked - before + 1
        if isinstance(message, StreamAck):
            self._answer(relay.peer, StreamAck(stream=message.stream, seq=acked))

    # ---- ends ----

    def on_message(self, message: ControlMessage) -> None:
        """The supervisor's word: the worker process ended."""
        if isinstance(message, WorkerExited) and self._exit is None:
            self._exit = message
            self._last_word_s = self.clock.monotonic_s()

    def _finish(self, now_s: float) -> None:
        """After the worker's exit: read what is still in its socket, drain, record the exit, be finished.

        A dead worker's last frames are in the kernel already, so a short silence means there are no more.
        """
        if self._exit is None or not self._has_room():
            return
        if now_s - self._last_word_s > QUIET_S:
            for relay in self._relays.values():
                relay.is_ended = True
        if not self._relays and now_s - self._last_word_s > QUIET_S:
            if self._is_exit_recorded:
                self._is_finished = True
            else:
                self._is_exit_recorded = True
                self._record_exit(self._exit.exit_code)

    def _record_exit(self, exit_code: int) -> None:
        """The exit is the proxy's own observation, so it goes into a stream of the proxy's own."""
        info = StreamInfo(
            stream=new_stream_id(),
            run=self.run,
            worker=self.name,
            host=host_socket.gethostname(),
            pid=os.getpid(),
            started_ns=self.clock.wall_ns(),
            run_name=self.run_name,
        )
        relay = self._open(info, 1, b"")
        record = RunRecord(1, self.clock.wall_ns(), state_of_exit(exit_code), {"exit_code": exit_code})
        frames = encode_records_batch(info.stream, 1, self.clock.wall_ns(), {"run": [record]})
        relay.sender.window.append(Batch(1, 1, frames, sum(map(len, frames))))
        relay.gate.accept(1, 1)
        relay.is_ended = True

    def _check_worker_gone(self, now_s: float) -> None:
        """Nobody may tell us of a worker that attached by itself: look whether its processes live."""
        if now_s < self._next_gone_check_s or self._exit is not None:
            return
        self._next_gone_check_s = now_s + GONE_CHECK_S
        if not self._pids or any(_is_alive(pid) for pid in self._pids):
            self._gone_since_s = None
        elif self._gone_since_s is None:
            self._gone_since_s = now_s
        elif now_s - self._gone_since_s > GONE_PATIENCE_S:
            # Its exit code is unknown; without a goodbye it did not end well, with one it has said how it ended.
            self._is_exit_recorded = not self._relays
            self.on_message(WorkerExited(worker=self.worker, run=self.run, exit_code=-9))

    def _end_streams(self) -> None:
        """Forget streams that ended and are acked."""
        for key, relay in list(self._relays.items()):
            if relay.is_ended and relay.sender.say_bye():
                log_event(log_ids.PROXY_STREAM_CLOSED, stream=key.hex(), last_seq=relay.sender.window.last_seq)
                del self._relays[key]

    def _reject(self, error: WireError, place: str) -> None:
        count = self.rejections.count(error)
        if count & (count - 1) == 0:
            log_event(log_ids.WIRE_REJECTED, place=place, reason=error.reason, count=count, detail=error.detail[:120])


def state_of_exit(exit_code: int) -> RunState:
    """What an exit code says of a run. Codes above 128 and below 0 are signals: 2 and 15 are a person's stop."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    if exit_code == 0:
        return "finished"
    if number in (2, 15):
        return "stopped"
    return "killed" if number > 0 else "failed"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
