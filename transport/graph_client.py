"""GraphClient: a command's or a worker's short conversation with the supervisor of a graph."""

import os
from types import TracebackType
from typing import Self

import zmq

from runlane.config.errors import GraphError
from runlane.config.names import SUPERVISOR, SUPERVISOR_SOCKET
from runlane.config.settings import Settings
from runlane.transport.endpoint import endpoint_of, is_role_alive, run_dir_of
from runlane.transport.messages import (
    ControlMessage,
    Refused,
    Status,
    StatusRequest,
    StopRequest,
    WorkerExited,
    WorkerStart,
    WorkerStarted,
)
from runlane.transport.sockets import Context, connect_dealer, request

NOT_RUNNING = "no graph is running for data directory {}; start one with `runlane up`"


class GraphClient:
    """One DEALER to the supervisor. A question without an answer in time means: no graph is running."""

    def __init__(self, settings: Settings) -> None:
        """Connecting waits for nothing: the first question finds out whether somebody is there."""
        self._settings = settings
        self._endpoint = endpoint_of(settings, SUPERVISOR_SOCKET)
        self._context: Context = zmq.Context()
        try:
            self._open()
        except BaseException:
            self._context.term()
            raise

    def _open(self) -> None:
        self._dealer = connect_dealer(self._context, self._endpoint, 16, self._settings.transport)

    def _ask(self, message: ControlMessage, timeout_s: float) -> ControlMessage | None:
        if self._settings.transport.kind == "ipc" and not is_role_alive(run_dir_of(self._settings), SUPERVISOR):
            return None  # nobody is there: no need to wait for an answer
        answer = request(self._dealer, message, timeout_s)
        if answer is None:  # a late answer must not be taken for the next one
            self._dealer.close(0)
            self._open()
        return answer

    def status(self, timeout_s: float = 1.0) -> Status | None:
        """The graph as it stands, or None when none is running."""
        answer = self._ask(StatusRequest(), timeout_s)
        return answer if isinstance(answer, Status) else None

    def start_worker(self, worker: str, run: str, run_name: str, timeout_s: float = 10.0) -> WorkerStarted:
        """Get a proxy for a worker; raises `GraphError` when no graph is running or it refuses."""
        question = WorkerStart(worker=worker, run=run, run_name=run_name, pid=os.getpid())
        answer = self._ask(question, timeout_s)
        if isinstance(answer, WorkerStarted):
            return answer
        reason = answer.reason if isinstance(answer, Refused) else NOT_RUNNING.format(self._settings.data_dir)
        raise GraphError(reason)

    def worker_exited(self, worker: str, run: str, exit_code: int, timeout_s: float) -> bool:
        """Tell that a worker ended; True once its proxy has drained."""
        answer = self._ask(WorkerExited(worker=worker, run=run, exit_code=exit_code), timeout_s)
        return isinstance(answer, WorkerExited)

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Ask for the ordered stop; True when the supervisor took it up."""
        return isinstance(self._ask(StopRequest(), timeout_s), Status)

    def close(self) -> None:
        """Close the socket."""
        self._dealer.close(0)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
