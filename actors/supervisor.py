"""The supervisor: starts the graph in order, watches and restarts it, answers questions, stops it in order.

Single-threaded, and the only one that starts children (see `child.py`). It decides nothing itself: `graph.py`
moves the children on, `shutdown.py` the stop, `worker_desk.py` the proxies of workers, `control_desk.py` what is asked
of running workers; this file waits for what happens and tells them.
"""

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Any

import zmq

from runlane.actors.control_desk import ControlDesk
from runlane.actors.graph import Graph
from runlane.actors.lifeline import Lifeline
from runlane.actors.orphans import OrphanWatch
from runlane.actors.seat import SeatState
from runlane.actors.shutdown import OrderedStop
from runlane.actors.signal_watch import SignalWatch
from runlane.actors.topology import Topology
from runlane.actors.worker_desk import WorkerDesk
from runlane.config import log_ids, names
from runlane.config.errors import WireError
from runlane.config.settings import Settings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import (
    RoleLock,
    data_dir_of,
    endpoint_of,
    make_run_dir,
    run_dir_of,
    sweep_run_dir,
    unlink_socket,
)
from runlane.transport.log import log_event
from runlane.transport.messages import (
    ControlMessage,
    Heartbeat,
    Refused,
    SetTelemetryMode,
    Status,
    StatusRequest,
    StopRequest,
    StopWorker,
    TelemetryModeSet,
    WorkerExited,
    WorkerNote,
    WorkerSignalled,
    WorkerStart,
)
from runlane.transport.ring_files import sweep_rings
from runlane.transport.sockets import (
    Context,
    Rejections,
    Socket,
    bind_router,
    poll_events,
    receive_frames,
    send_control,
    terminate,
)
from runlane.transport.wire import decode_control

CONTROL_HWM = 256
CONTROL_BURST = 256
IDLE_S = 1.0
# The last answers get a moment to leave.
LINGER_MS = 100

_SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# A graph started for one command waits so long for its first worker, and so long for another one.
FIRST_WORKER_S = 20.0
IDLE_STOP_S = 0.3
# Rings of dead workers are looked for so often, and whenever a child has ended.
SWEEP_S = 5.0


class Supervisor:
    """The supervisor process. `run` is all a command line needs; a test calls the parts by hand."""

    name = names.SUPERVISOR

    def __init__(
        self,
        settings: Settings,
        child_arguments: Sequence[str] = (),
        *,
        clock: Clock | None = None,
        topology: Topology | None = None,
        until_idle: bool = False,
        with_gui: bool = False,
    ) -> None:
        """`child_arguments` are the `--config` and `--set` options this process got, for its actors.

        With `until_idle` the graph stops by itself after its last worker: who started it for one command need
        not outlive another command's worker.
        """
        self.settings = settings
        self.clock = clock or SystemClock()
        self.topology = topology or Topology(settings, self.clock.wall_ns(), child_arguments, with_gui=with_gui)
        self.graph = Graph(settings.supervisor, data_dir_of(settings) / names.LOG_DIR)
        self.rejections = Rejections({})
        self.exit_code = 0
        self._desk = WorkerDesk(settings, self.topology, self.graph, self._send)
        self._control = ControlDesk(self.graph, run_dir_of(settings), self._send, self.clock.wall_ns())
        self._orphans = OrphanWatch(settings)
        self._stop: OrderedStop | None = None
        self._started_s = self.clock.monotonic_s()
        self._was_up = False
        self._until_idle = until_idle
        self._busy_s = self._started_s + FIRST_WORKER_S
        self._interrupts = 0
        self._next_sweep_s = 0.0
        self._signals: SignalWatch | None = None
        self._lifeline: Lifeline | None = None
        self._poller = zmq.Poller()

    def run(self) -> int:
        """Loop until the graph is stopped: 0 after SIGTERM or a request, 130 after SIGINT, 1 when giving up.

        Raises a `RunlaneError` when it cannot begin, as when a supervisor is there already.
        """
        with SignalWatch(_SIGNALS) as self._signals:
            self._watch(self._signals.fileno())
            self._lifeline = Lifeline.from_environment(os.environ)
            self._watch(self._lifeline.fileno())
            try:
                self.on_start()
                while not self.is_drained():
                    self.do_work(IDLE_S)
            finally:
                self.on_close()
        return self.exit_code

    def _watch(self, fd: int) -> None:
        if fd >= 0:
            self._poller.register(fd, zmq.POLLIN)

    # ---- life ----

    def on_start(self) -> None:
        """Take the lock, sweep what dead processes left, bind. The children follow in `do_work`."""
        specs = self.topology.specs()
        run_dir = make_run_dir(self.settings)
        self._lock = RoleLock(run_dir, self.name)
        for name in sweep_run_dir(run_dir):
            log_event(log_ids.SUPERVISOR_SWEPT, name=name)
        (data_dir_of(self.settings) / names.LOG_DIR).mkdir(parents=True, exist_ok=True)
        self._context: Context = zmq.Context()
        endpoint = endpoint_of(self.settings, names.SUPERVISOR_SOCKET)
        self._socket: Socket = bind_router(self._context, endpoint, CONTROL_HWM, self.settings.transport)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an answer to nobody is an error, not silence
        self._poller.register(self._socket, zmq.POLLIN)
        self.graph.add(specs)

    def do_work(self, timeout_s: float) -> None:
        """Wait for a message, a signal or a due time, then do all that is due."""
        ready = poll_events(self._poller, min(timeout_s, self._idle_s()))
        self._take_signals()
        self._look_at_lifeline()
        if self._socket in ready:
            self._receive()
        now_s = self.clock.monotonic_s()
        for seat in self.graph.advance(now_s):
            self._desk.on_ended(seat)
            self._next_sweep_s = 0.0
        self._control.advance(now_s)
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + SWEEP_S
            sweep_rings(run_dir_of(self.settings))
        if self.graph.gave_up is not None:
            self._begin_stop(f"{self.graph.gave_up.name} restarts too often", 1)
        if self._stop is not None:
            self._stop.advance(now_s)
        elif not self._was_up and self.graph.is_up:
            self._was_up = True
            log_event(log_ids.SUPERVISOR_STARTED, children=len(self.graph.seats))
        else:
            if self.settings.supervisor.recovers and self._orphans.look(now_s):
                self._recover(now_s)
            if self._until_idle:
                self._look_for_work(now_s)

    def _recover(self, now_s: float) -> None:
        """Journals without a reader: start what drains them, unless it runs."""
        seat = self.graph.seats.get(names.RECOVERY)
        if seat is None or seat.state is SeatState.ENDED:
            self.graph.start_dynamic(self.topology.recovery(), now_s)

    def _look_for_work(self, now_s: float) -> None:
        if any(seat.is_alive for seat in self.graph.seats.values() if seat.spec.kind in ("worker", "proxy")):
            self._busy_s = now_s
        elif now_s - self._busy_s > IDLE_STOP_S:
            self._begin_stop("idle", 0)

    def request_stop(self) -> None:
        """Begin the ordered stop; exit code 0."""
        self._begin_stop("asked", 0)

    def is_drained(self) -> bool:
        """Whether the ordered stop is over."""
        return self._stop is not None and self._stop.is_done

    def statistics(self) -> dict[str, Any]:
        """Figures of the supervisor itself."""
        return {"children": len(self.graph.seats), "rejected": dict(self.rejections.by_reason)}

    def on_close(self) -> None:
        """Kill what an error left running, close, let the lock go, sweep. Called once, also after an error."""
        self.graph.close()
        if self._lifeline is not None:
            self._lifeline.close()
        if hasattr(self, "_socket"):
            self._socket.close(LINGER_MS)
            unlink_socket(endpoint_of(self.settings, names.SUPERVISOR_SOCKET))
        if hasattr(self, "_context"):
            terminate(self._context)
        if hasattr(self, "_lock"):
            self._lock.release()
            log_event(log_ids.SUPERVISOR_STOPPED, code=self.exit_code)
        with contextlib.suppress(OSError):  # a run directory of somebody else, which on_start has refused
            for name in sweep_run_dir(run_dir_of(self.settings)):
                log_event(log_ids.SUPERVISOR_SWEPT, name=name)

    def _idle_s(self) -> float:
        """How long nothing is due. A millisecond more than needed: the poll counts in whole ones."""
        deadlines = (
            self.graph.next_deadline_s(),
            self._control.next_deadline_s(),
            self._stop.next_deadline_s() if self._stop is not None else None,
        )
        due = [deadline for deadline in deadlines if deadline is not None]
        cap_s = min(IDLE_S, self.settings.supervisor.heartbeat_timeout_s / 4)
        if self._until_idle:
            cap_s = min(cap_s, IDLE_STOP_S)
        return cap_s if not due else min(cap_s, max(0.0, min(due) - self.clock.monotonic_s() + 0.001))

    # ---- signals and the stop ----

    def _take_signals(self) -> None:
        for signum in self._signals.take() if self._signals is not None else ():
            if signum == signal.SIGINT:
                self._interrupts += 1
                self._begin_stop("SIGINT", 128 + signum)
            elif signum != signal.SIGCHLD:
                self._begin_stop(signal.Signals(signum).name, 0)
        if self._interrupts > 1 and self._stop is not None:
            self._interrupts = 1
            self._stop.kill_all(self.clock.monotonic_s())

    def _look_at_lifeline(self) -> None:
        """A command line may have started this graph for itself; when it is gone, so is the need."""
        if self._lifeline is not None and self._lifeline.is_broken():
            if self._lifeline.fileno() >= 0:
                self._poller.unregister(self._lifeline.fileno())
            self._lifeline.close()
            self._lifeline = None
            log_event(log_ids.ACTOR_ORPHANED)
            self._begin_stop("lifeline", 0)

    def _begin_stop(self, reason: str, exit_code: int) -> None:
        """The first reason counts; later ones change nothing."""
        if self._stop is not None:
            return
        log_event(log_ids.SUPERVISOR_STOPPING, reason=reason)
        self.exit_code = exit_code
        for seat in self.graph.hold():
            self._desk.on_ended(seat)
        self._stop = OrderedStop(self.graph.seats.values(), self.settings.supervisor, self.clock.monotonic_s())

    # ---- messages ----

    def _receive(self) -> None:
        for _ in range(CONTROL_BURST):
            frames = receive_frames(self._socket)
            if frames is None:
                return
            try:
                if len(frames) != 2:
                    raise WireError("frames", f"{len(frames)} to the supervisor")
                self._on_message(frames[0], decode_control(frames[1]))
            except WireError as error:
                self.rejections.reject(error, "supervisor")

    def _on_message(self, peer: bytes, message: ControlMessage) -> None:
        now_s = self.clock.monotonic_s()
        match message:
            case Heartbeat():
                seat = self.graph.on_heartbeat(message, peer, now_s)
                if seat is not None:
                    self._desk.on_heartbeat(seat)
                    self._control.on_heartbeat(seat)
            case WorkerStart():
                self._desk.on_worker_start(peer, message, now_s, is_stopping=self._stop is not None)
            case WorkerExited():
                self._desk.on_worker_exited(peer, message)
            case WorkerNote():
                self._desk.on_worker_note(peer, message)
            case SetTelemetryMode() | StopWorker():
                self._control.on_question(peer, message, now_s)
            case TelemetryModeSet() | WorkerSignalled() | Refused():
                self._control.on_answer(message)
            case StatusRequest():
                self._send(peer, self.status())
            case StopRequest():
                self.request_stop()
                self._send(peer, self.status())
            case _:
                raise WireError("unexpected", f"{type(message).__name__} to the supervisor")

    def status(self) -> Status:
        """The graph as it stands."""
        now_s = self.clock.monotonic_s()
        return Status(
            pid=os.getpid(),
            uptime_s=now_s - self._started_s,
            data_dir=str(data_dir_of(self.settings)),
            run_dir=str(run_dir_of(self.settings)),
            state="stopping" if self._stop is not None else "running" if self._was_up else "starting",
            children=self.graph.status(now_s),
        )

    def _send(self, peer: bytes, message: ControlMessage) -> bool:
        """False when the peer is gone or does not read; answers never wait."""
        try:
            return send_control(self._socket, message, peer)
        except zmq.ZMQError:  # EHOSTUNREACH
            return False
