"""A worker's proxy: forwards its live batches, reads its journal where they do not suffice, and tells how it ended.

One per worker, on the worker's host. Batches pass through unread. It holds a bounded window; what does not fit
waits in the journal. Its own death loses nothing: its successor goes on from the last ack.
"""

import os
import socket as host_socket
from collections import deque
from pathlib import Path
from typing import Any

import zmq

from runlane.actors.forwarder import Forwarder
from runlane.actors.orphans import is_worker_alive, orphan_journals
from runlane.actors.worker_control import WorkerControl
from runlane.config import log_ids
from runlane.config.errors import WireError
from runlane.config.names import PROXY_PREFIX
from runlane.config.settings import Settings
from runlane.transport.ack import Batch
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import RoleLock, ipc_endpoint, is_role_alive, make_run_dir, run_dir_of, unlink_socket
from runlane.transport.log import log_event
from runlane.transport.messages import (
    ControlMessage,
    SetTelemetryMode,
    StopWorker,
    StreamBye,
    StreamHello,
    StreamMode,
    StreamNack,
    StreamWelcome,
    WorkerExited,
    WorkerNote,
)
from runlane.transport.records import state_of_exit
from runlane.transport.sockets import (
    Context,
    Rejections,
    Socket,
    bind_router,
    poll_events,
    receive_batch,
    send_control,
)
from runlane.transport.wire import STEP, Frame, decode_control, decode_packed, is_control

WORKER_BURST = 64
SOCKET_HWM = 32
GONE_CHECK_S = 0.5
GONE_PATIENCE_S = 2.0
# A published record may have to be read from the journal; this is how late it may get by our sleeping.
STREAM_WORK_S = 0.02


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
        self._forwarder = Forwarder(settings, self.clock)
        self._exit_code: int | None = None
        self._is_over = False
        self._is_stopping = False
        self._is_finished = False
        self._pids: set[int] = {keeper_pid} if keeper_pid else set()
        self._next_gone_check_s = 0.0
        self._gone_since_s: float | None = None
        self._records_in = 0
        self._seen: dict[tuple[str, str], str] = {}  # run and worker of every stream, and the run's name
        self._stall = StallWatch(settings.proxy.stalled_s)
        self._control = WorkerControl(self._forwarder.relays, run_dir_of(settings), self._tell_worker)

    @property
    def name(self) -> str:
        """Name under which the proxy reports, also the name of its socket and lock."""
        return f"{PROXY_PREFIX}{self.worker}"

    # ---- life ----

    def on_start(self) -> None:
        """Take the role's lock, bind for the worker, connect to the router, look for what our predecessor left."""
        self._context: Context = zmq.Context()
        self._lock = RoleLock(make_run_dir(self.settings), self.name)
        self._endpoint = ipc_endpoint(self.settings, self.name)
        self._worker_side: Socket = bind_router(self._context, self._endpoint, SOCKET_HWM, self.settings.transport)
        self._router_side = self._forwarder.start(self._context)
        self._poller = zmq.Poller()
        self._poller.register(self._router_side, zmq.POLLIN)
        self._poller.register(self._worker_side, zmq.POLLIN)
        self._adopt()

    def _adopt(self) -> bool:
        """Take up journals of our worker that nobody drains; returns whether there were any.

        Our predecessor had them, or the worker died before it could say hello. So it is with parts of it that died:
        a process it had started is called `worker-1`, and has no proxy of its own.
        """
        is_any = False
        for directory, info in orphan_journals(self.settings):
            if info.run != self.run or not (info.worker == self.worker or self._is_dead_part(directory, info.worker)):
                continue
            if self._forwarder.open(directory) is not None:
                is_any = True
                self._seen[info.run, info.worker] = info.run_name
                log_event(log_ids.JOURNAL_ADOPTED, stream=info.stream, worker=info.worker)
        return is_any

    def _is_dead_part(self, directory: Path, worker: str) -> bool:
        is_part = worker.startswith(f"{self.worker}-")
        has_proxy = is_part and is_role_alive(run_dir_of(self.settings), f"{PROXY_PREFIX}{worker}")
        return is_part and not has_proxy and not is_worker_alive(directory)

    def do_work(self, timeout_s: float) -> None:
        """One turn: what the worker sent, what the router answered, what is due to go out."""
        ready = poll_events(self._poller, min(timeout_s, STREAM_WORK_S) if self._forwarder.relays else timeout_s)
        if self._router_side in ready:
            self._forwarder.read_router()
        if self._worker_side in ready:
            self._read_worker()
        now_s = self.clock.monotonic_s()
        self._forwarder.advance(now_s)
        self._control.advance(now_s)
        self._watch_stall(now_s)
        self._check_worker_gone(now_s)
        self._finish()

    def request_stop(self) -> None:
        """Go on until every stream has ended and is acked."""
        self._is_stopping = True

    def is_drained(self) -> bool:
        """Whether every stream has ended and is acked, and the exit too, once it is known.

        A worker that goes on sending keeps us until the deadline.
        """
        return self._is_finished if self._is_over else not self._forwarder.relays

    @property
    def is_finished(self) -> bool:
        """Whether the worker is gone and everything it made is committed: the process may end with code 0."""
        return self._is_finished

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat."""
        found = self._forwarder.statistics()
        rejected = {**self.rejections.by_reason}
        for reason, count in found["rejected"].items():
            rejected[reason] = rejected.get(reason, 0) + count
        return {
            "worker": self.worker,
            "run": self.run,
            "run_name": self.run_name,
            "records_in": self._records_in,
            **found,
            "rejected": rejected,
            "is_stalled": self._stall.is_stalled,
            **self._control.statistics(),
        }

    def on_close(self) -> None:
        """Say what is left unacked, close, remove the socket file, let the lock go."""
        left = self._forwarder.pending_records
        if left:
            log_event(log_ids.PROXY_UNDRAINED, worker=self.worker, records=left)
        self._forwarder.close()
        if hasattr(self, "_worker_side"):
            self._worker_side.close(0)
            unlink_socket(self._endpoint)
        if hasattr(self, "_context"):
            self._context.term()
        if hasattr(self, "_lock"):
            self._lock.release()

    # ---- worker side ----

    def _read_worker(self) -> None:
        for _ in range(WORKER_BURST):
            frames = receive_batch(self._worker_side)
            if frames is None:
                return
            try:
                self._on_worker_frames(frames)
            except WireError as error:
                self.rejections.reject(error, "worker")

    def _on_worker_frames(self, frames: list[Frame]) -> None:
        if len(frames) != 2:
            raise WireError("frames", f"{len(frames)} from worker")
        peer, frame = bytes(frames[0]), frames[1]
        if is_control(frame):
            self._on_worker_control(peer, decode_control(frame))
        else:
            self._on_packed(peer, frame)

    def _on_packed(self, peer: bytes, frame: Frame) -> None:
        for header, parts in decode_packed(frame):
            relay = self._forwarder.relays.get(header.stream)
            if relay is None:
                send_control(self._worker_side, StreamNack(stream=header.stream.hex(), expected_seq=0), peer)
                return
            if any(section.schema_id >= len(relay.info.schemas) for section in header.sections if section.kind == STEP):
                return  # of a shape we have not heard of: the hello is lost, and the journal has both
            size_bytes = sum(map(len, parts))
            relay.on_live(Batch(header.first_seq, header.last_seq, tuple(parts), size_bytes))
            self._records_in += header.records

    def _on_worker_control(self, peer: bytes, message: ControlMessage) -> None:
        if isinstance(message, StreamHello):
            self._on_hello(peer, message)
        elif isinstance(message, StreamMode):
            self._control.on_mode(peer, message)
        elif not isinstance(message, StreamBye):  # the goodbye stands in the journal's head, too
            raise WireError("unexpected", f"{type(message).__name__} from worker")

    def _on_hello(self, peer: bytes, hello: StreamHello) -> None:
        relay = self._forwarder.relays.get(bytes.fromhex(hello.info.stream))
        if relay is not None:
            relay.on_hello(hello.info)
        elif Path(hello.journal).name == hello.info.stream:
            relay = self._forwarder.open(Path(hello.journal), hello.info)
            if relay is not None:
                log_event(log_ids.PROXY_STREAM_OPENED, stream=hello.info.stream, pid=hello.info.pid)
        else:
            raise WireError("invalid", f"stream {hello.info.stream} with journal {hello.journal!r}")
        self._seen[hello.info.run, hello.info.worker] = hello.info.run_name
        if hello.info.host == host_socket.gethostname():
            self._pids.add(hello.info.pid)
        if relay is not None:
            welcome = StreamWelcome(
                stream=hello.info.stream,
                receiver=self.name,
                expected_seq=relay.window.last_seq + 1,
                sent_seq=hello.sent_seq,
            )
            send_control(self._worker_side, welcome, peer)

    def _tell_worker(self, peer: bytes, message: ControlMessage) -> bool:
        return send_control(self._worker_side, message, peer)

    # ---- stalls and ends ----

    def _watch_stall(self, now_s: float) -> None:
        living = [relay for relay in self._forwarder.relays.values() if relay.dead_since_s is None]
        running = [relay for relay in living if not relay.is_closed]
        progress = sum(relay.head.published for relay in running)
        changed = self._stall.look(bool(running), progress, now_s)
        if changed is None:
            return
        log_event(log_ids.PROXY_WORKER_STALLED, worker=self.worker, is_stalled=changed, seconds=self._stall.seconds)
        own = self._forwarder.own(self.run, self.run_name, self.worker)
        own.tell_state("stalled" if changed else "running", reason="no record", seconds=self._stall.seconds)

    def on_message(self, message: ControlMessage) -> None:
        """The supervisor's word: the worker process ended, or something is asked of it."""
        if isinstance(message, SetTelemetryMode):
            self._control.ask(message, self.clock.monotonic_s())
        elif isinstance(message, StopWorker):
            self._control.stop(message)
        elif isinstance(message, WorkerNote):
            self._forwarder.own(message.run, self.run_name, message.worker).tell_log(message.level, message.text)
        elif isinstance(message, WorkerExited) and not self._is_over:
            self._is_over = self._forwarder.is_exit_known = True
            self._exit_code = message.exit_code

    @property
    def answers(self) -> deque[ControlMessage]:
        """What the supervisor is to be told; who sends one takes it out."""
        return self._control.answers

    def _finish(self) -> None:
        """After the worker's exit: drain every journal of it, record the exit, be finished."""
        if not self._is_over or self._is_finished:
            return
        is_told = self._forwarder.is_exit_told
        if not is_told and all(relay.is_done for relay in self._forwarder.relays.values()) and not self._adopt():
            self._forwarder.is_exit_told = True
            if self._exit_code is not None:
                for (run, worker), run_name in (self._seen or {(self.run, self.worker): self.run_name}).items():
                    own = self._forwarder.own(run, run_name, worker)
                    own.tell_state(state_of_exit(self._exit_code), exit_code=self._exit_code)
        if self._forwarder.is_exit_told and self._forwarder.is_idle and self._forwarder.say_bye():
            self._is_finished = True

    def _check_worker_gone(self, now_s: float) -> None:
        """Nobody may tell us of a worker that attached by itself: look whether its processes live."""
        if now_s < self._next_gone_check_s or self._is_over:
            return
        self._next_gone_check_s = now_s + GONE_CHECK_S
        is_quiet = not self._forwarder.relays
        if not is_quiet or not self._pids or any(_is_alive(pid) for pid in self._pids):
            self._gone_since_s = None
        elif self._gone_since_s is None:
            self._gone_since_s = now_s
        elif now_s - self._gone_since_s > GONE_PATIENCE_S:
            self._is_over = True  # each of its streams has its end already, by its own word or by its death


class StallWatch:
    """Decides whether a living worker makes no records. Time is an argument."""

    def __init__(self, stalled_s: float) -> None:
        """`stalled_s` without progress is a stall."""
        self.is_stalled = False
        self.seconds = 0.0
        self._stalled_s = stalled_s
        self._progress = -1
        self._since_s = 0.0

    def look(self, is_running: bool, progress: int, now_s: float) -> bool | None:
        """True when a stall begins, False when it ends, None when nothing changed."""
        if progress != self._progress or not is_running:
            self._progress = progress
            was_stalled, self.is_stalled = self.is_stalled, False
            self.seconds = now_s - self._since_s
            self._since_s = now_s
            return False if was_stalled and is_running else None
        self.seconds = now_s - self._since_s
        if not self.is_stalled and self.seconds >= self._stalled_s:
            self.is_stalled = True
            return True
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
