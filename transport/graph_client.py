"""GraphClient: a command's or a worker's short conversation with the supervisor of a graph, or with its router."""

import os
import time
from types import TracebackType
from typing import Literal, Self

import zmq

from runlane.config.errors import GraphError, WireError
from runlane.config.names import CONTROL_SOCKET, ROUTER, SUPERVISOR, SUPERVISOR_SOCKET
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.endpoint import endpoint_of, is_role_alive, run_dir_of
from runlane.transport.messages import (
    MAX_RUN_TEXT,
    Accounts,
    AccountsRequest,
    ControlMessage,
    Refused,
    RunDelete,
    RunDeletion,
    SetTelemetryMode,
    Status,
    StatusRequest,
    StopRequest,
    StopWorker,
    SubscriberAccount,
    TelemetryModeSet,
    WorkerExited,
    WorkerNote,
    WorkerSignalled,
    WorkerStart,
    WorkerStarted,
)
from runlane.transport.sockets import Context, Socket, connect_dealer, request, send_control
from runlane.transport.wire import decode_control

ASK_AGAIN_S = 1.0
RETRY_S = 0.05
STATUS_S = 2.0
# More than the supervisor takes to answer for a worker.
CONTROL_S = 6.0
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
        raise self._refusal(answer)

    def set_telemetry_mode(
        self, run: str, worker: str, mode: TelemetryMode, timeout_s: float = CONTROL_S
    ) -> TelemetryModeSet:
        """Switch every stream of a running worker; returns once all have said so.

        `run` is the whole id. Raises `GraphError` with the reason where no graph is running, it knows no such worker,
        the worker records nothing, or does not take the mode up.
        """
        answer = self._ask(SetTelemetryMode(run=run, worker=worker, mode=mode), timeout_s)
        if isinstance(answer, TelemetryModeSet):
            return answer
        raise self._refusal(answer)

    def stop_worker(
        self, run: str, worker: str, *, is_kill: bool = False, timeout_s: float = CONTROL_S
    ) -> WorkerSignalled:
        """Send SIGINT, or SIGKILL, to a running worker; returns what was signalled, not that it has ended.

        One that the supervisor has started is not started again. Raises `GraphError` with the reason where no graph is
        running, or there is no process that is sure to be this worker's.
        """
        answer = self._ask(StopWorker(run=run, worker=worker, is_kill=is_kill), timeout_s)
        if isinstance(answer, WorkerSignalled):
            return answer
        raise self._refusal(answer)

    def _refusal(self, answer: ControlMessage | None) -> GraphError:
        reason = answer.reason if isinstance(answer, Refused) else NOT_RUNNING.format(self._settings.data_dir)
        return GraphError(reason)

    def worker_exited(self, worker: str, run: str, exit_code: int, timeout_s: float) -> bool:
        """Tell that a worker ended; True once its proxy has drained."""
        answer = self._ask(WorkerExited(worker=worker, run=run, exit_code=exit_code), timeout_s)
        return isinstance(answer, WorkerExited)

    def note_worker(self, worker: str, run: str, text: str, level: Literal["info", "warning", "error"]) -> bool:
        """Have a line about a worker recorded in its run; True once its proxy was told."""
        answer = self._ask(WorkerNote(worker=worker, run=run, level=level, text=text), CONTROL_S)
        return isinstance(answer, WorkerNote)

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Ask for the ordered stop; True when the supervisor took it up."""
        return isinstance(self._ask(StopRequest(), timeout_s), Status)

    def accounts(self, timeout_s: float = 1.0) -> list[SubscriberAccount] | None:
        """The router's accounts at this moment, or None when it does not give all of them in time."""
        if self._settings.transport.kind == "ipc" and not is_role_alive(run_dir_of(self._settings), ROUTER):
            return None
        endpoint = endpoint_of(self._settings, CONTROL_SOCKET)
        dealer = connect_dealer(self._context, endpoint, 16, self._settings.transport)
        try:
            return _all_parts(dealer, time.monotonic() + timeout_s)
        except WireError:  # a router of another version
            return None
        finally:
            dealer.close(0)

    def delete_run(self, run: str, *, only_ask: bool = False, timeout_s: float = 5.0) -> RunDeletion | None:
        """Delete a run that has ended, or is lost; or only ask what that would be. None when no graph is running.

        Returns at once: while the answer's state is `removing`, ask again to see how far it is. `run` is an id, the
        beginning of one, or a name. Raises `GraphError` when it is refused, or not answered in time, as while the DB
        writer is restarted: what was accepted goes on then.
        """
        if len(run) > MAX_RUN_TEXT:
            raise GraphError(f"no run {run[:32]!r}…: ids and names have at most {MAX_RUN_TEXT} characters")
        if self.status(min(timeout_s, STATUS_S)) is None:
            return None
        router = connect_dealer(
            self._context, endpoint_of(self._settings, CONTROL_SOCKET), 16, self._settings.transport
        )
        try:
            answer = _insist(router, RunDelete(run=run, only_ask=only_ask), time.monotonic() + timeout_s)
        except WireError as error:  # a router of another version
            raise GraphError(f"the graph's answer cannot be read ({error}); start it anew with this runlane") from None
        finally:
            router.close(0)
        if not isinstance(answer, RunDeletion):
            raise GraphError(f"the graph did not answer within {timeout_s:g} s; ask again, or see `runlane status`")
        if answer.refused:
            raise GraphError(answer.refused)
        return answer

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


def _insist(router: Socket, question: RunDelete, end_s: float) -> ControlMessage | None:
    """Ask until there is a final answer: asked twice does nothing twice. Else the last one there was, if any."""
    answer: ControlMessage | None = None
    while (left_s := end_s - time.monotonic()) > 0:
        answer = request(router, question, min(ASK_AGAIN_S, left_s)) or answer
        if isinstance(answer, RunDeletion) and answer.is_final:
            break
        time.sleep(RETRY_S)
    return answer


def _all_parts(router: Socket, end_s: float) -> list[SubscriberAccount] | None:
    found: list[SubscriberAccount] = []
    if not _is_ready(router, zmq.POLLOUT, end_s) or not send_control(router, AccountsRequest()):
        return None
    while _is_ready(router, zmq.POLLIN, end_s):
        message = decode_control(router.recv())
        if isinstance(message, Accounts):
            found += message.accounts
            if message.is_last:
                return found
    return None


def _is_ready(router: Socket, event: int, end_s: float) -> bool:
    return bool(router.poll(max(0, int(1000 * (end_s - time.monotonic()))), event))
