"""What the supervisor does for workers: a proxy for one that somebody else starts, word to it when one ended.

Every answer waits for a fact (the proxy reported; the proxy is gone), so each asker is remembered until then.
A word to a proxy is repeated with each of its heartbeats until it has ended: the proxy may restart meanwhile.
"""

from collections.abc import Callable

from runlane.actors.graph import Graph
from runlane.actors.seat import Seat, SeatState
from runlane.actors.topology import Topology, proxy_name, unique_name
from runlane.config.errors import RunlaneError, SettingsError
from runlane.config.settings import Settings, check_name
from runlane.transport.endpoint import ipc_endpoint
from runlane.transport.messages import ControlMessage, Refused, WorkerExited, WorkerNote, WorkerStart, WorkerStarted

Send = Callable[[bytes, ControlMessage], bool]


class WorkerDesk:
    """Askers and what they wait for. `send` returns False when the peer is gone; it never waits."""

    def __init__(self, settings: Settings, topology: Topology, graph: Graph, send: Send) -> None:
        self._settings = settings
        self._topology = topology
        self._graph = graph
        self._send = send
        self._starting: dict[str, tuple[bytes, WorkerStart]] = {}
        self._exits: dict[str, WorkerExited] = {}
        self._waiting: dict[str, set[bytes]] = {}

    def on_worker_start(self, asker: bytes, message: WorkerStart, now_s: float, *, is_stopping: bool) -> None:
        """Start a proxy; the answer follows with its first heartbeat. Asking twice starts one."""
        if (asker, message) in self._starting.values():
            return
        try:
            worker = self._free_name(message, is_stopping=is_stopping)
            ipc_endpoint(self._settings, proxy_name(worker))
        except RunlaneError as error:
            self._send(asker, Refused(reason=str(error)))
            return
        spec = self._topology.proxy(worker, message.run, message.run_name, message.pid)
        self._starting[spec.name] = (asker, message)
        self._graph.start_dynamic(spec, now_s)

    def on_worker_exited(self, asker: bytes, message: WorkerExited) -> None:
        """Let the proxy drain and end; the same message goes back once it is gone, so the asker can wait."""
        seat = self._graph.seats.get(proxy_name(message.worker))
        if seat is None or seat.spec.run != message.run or seat.state is SeatState.ENDED:
            self._send(asker, message)
            return
        if not seat.is_dynamic:
            self._send(asker, Refused(reason=f"{message.worker} is watched by the supervisor itself"))
            return
        self._waiting.setdefault(seat.name, set()).add(asker)
        self._tell(seat, message)

    def on_worker_note(self, asker: bytes, message: WorkerNote) -> None:
        """Pass a line on to the worker's proxy, which records it."""
        seat = self._graph.seats.get(proxy_name(message.worker))
        if seat is None or seat.spec.run != message.run or seat.identity is None:
            self._send(asker, Refused(reason=f"no proxy serves {message.worker} of run {message.run} just now"))
        else:
            self._send(seat.identity, message)
            self._send(asker, message)

    def on_heartbeat(self, seat: Seat) -> None:
        """A proxy is ready, or due to be told again that its worker is gone."""
        if seat.name in self._starting:
            self._answer_start(seat)
        if seat.name in self._exits:
            self._tell(seat, self._exits[seat.name])

    def on_ended(self, seat: Seat) -> None:
        """A seat ended for good: a worker's proxy learns it, a proxy's askers get their answers."""
        if seat.spec.kind == "worker" and seat.exit_code is not None:
            proxy = self._graph.seats.get(proxy_name(seat.spec.worker))
            if proxy is not None and proxy.state is not SeatState.ENDED:
                self._tell(proxy, WorkerExited(worker=seat.spec.worker, run=seat.spec.run, exit_code=seat.exit_code))
        asker, _ = self._starting.pop(seat.name, (None, None))
        if asker is not None:
            self._send(asker, Refused(reason=f"{seat.name} ended with exit code {seat.exit_code}; see its log"))
        message = self._exits.pop(seat.name, None)
        for waiting in self._waiting.pop(seat.name, set()):
            if message is not None:
                self._send(waiting, message)

    def _free_name(self, message: WorkerStart, *, is_stopping: bool) -> str:
        """A name that no living child has; names become paths and variables, so bad ones are refused."""
        if is_stopping:
            raise RunlaneError("the graph is stopping")
        check_name(message.worker, "worker")
        for key, text in (("run", message.run), ("run_name", message.run_name)):
            if "\0" in text:
                raise SettingsError(key, text, "holds a zero byte", "choose a printable name")
        living = [seat for seat in self._graph.seats.values() if seat.state is not SeatState.ENDED]
        taken = {seat.spec.worker for seat in living} | {seat.name.removeprefix(proxy_name("")) for seat in living}
        return unique_name(message.worker, taken | set(self._settings.workers))

    def _answer_start(self, seat: Seat) -> None:
        asker, message = self._starting.pop(seat.name)
        endpoint = ipc_endpoint(self._settings, seat.name)
        if not self._send(asker, WorkerStarted(worker=seat.spec.worker, run=message.run, endpoint=endpoint)):
            # The asker left, so no worker will come.
            self._tell(seat, WorkerExited(worker=seat.spec.worker, run=message.run, exit_code=0))

    def _tell(self, seat: Seat, message: WorkerExited) -> None:
        self._exits[seat.name] = message
        if seat.identity is not None:
            self._send(seat.identity, message)
