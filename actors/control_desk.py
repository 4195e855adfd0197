"""What the supervisor does for whoever steers running workers: finds the one that can, passes on, brings the answer.

A worker that the supervisor has started itself it signals itself, and does not start again. Everything else is its
proxy's to do. A mode is passed on again with each of the proxy's heartbeats until it is answered, because the proxy
may restart meanwhile; a signal is passed on once, because twice would mean something else.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from runlane.actors.absent_worker import why_absent
from runlane.actors.graph import Graph
from runlane.actors.seat import Seat, SeatState
from runlane.config import log_ids
from runlane.transport.log import log_event
from runlane.transport.messages import (
    ControlMessage,
    Refused,
    SetTelemetryMode,
    StopWorker,
    TelemetryModeSet,
    WorkerSignalled,
)

# More than a proxy takes to answer, also when it has to be started again first.
ANSWER_S = 5.0

Send = Callable[[bytes, ControlMessage], bool]
Question = SetTelemetryMode | StopWorker
Answer = TelemetryModeSet | WorkerSignalled | Refused


@dataclass(slots=True)
class _Asked:
    """A question on its way, and who waits for its answer."""

    asker: bytes
    question: Question
    proxy: str
    until_s: float
    is_sent: bool = False


class ControlDesk:
    """Askers and what they wait for. `send` returns False when the peer is gone; it never waits."""

    def __init__(self, graph: Graph, run_dir: Path, send: Send, wall_ns: int) -> None:
        """`wall_ns` begins the numbers of requests, so that none is an earlier supervisor's."""
        self._graph = graph
        self._run_dir = run_dir
        self._send = send
        self._request = wall_ns
        self._asked: dict[int, _Asked] = {}

    def on_question(self, asker: bytes, question: Question, now_s: float) -> None:
        """Answer at once, or ask the worker's proxy."""
        if isinstance(question, StopWorker):
            seat = self._graph.seats.get(question.worker)
            if seat is not None and (seat.spec.kind, seat.spec.run) == ("worker", question.run):
                self._send(asker, self._signal(seat, question))
                return
        proxy = self._proxy_of(question.run, question.worker)
        if proxy is None:
            self._send(asker, Refused(reason=why_absent(self._run_dir, question.run, question.worker)))
            return
        self._request += 1
        numbered = msgspec.structs.replace(question, request=self._request)
        asked = self._asked[self._request] = _Asked(asker, numbered, proxy.name, now_s + ANSWER_S)
        self._pass_on(proxy, asked)

    def on_answer(self, answer: Answer) -> None:
        """A proxy's. One that nobody waits for any more is passed over."""
        asked = self._asked.pop(answer.request, None)
        if asked is not None:
            self._send(asked.asker, answer)

    def on_heartbeat(self, seat: Seat) -> None:
        """A proxy lives, and may be another process than the one that was asked."""
        for asked in self._asked.values():
            if asked.proxy == seat.name and not (asked.is_sent and isinstance(asked.question, StopWorker)):
                self._pass_on(seat, asked)

    def advance(self, now_s: float) -> None:
        """Answer those whose answer does not come."""
        for request, asked in list(self._asked.items()):
            if now_s >= asked.until_s:
                del self._asked[request]
                why = f"{asked.proxy} gave no answer within {ANSWER_S:g} s; see its log, and ask again"
                self._send(asked.asker, Refused(reason=why))

    def next_deadline_s(self) -> float | None:
        """When `advance` has something to do though nobody called."""
        return min((asked.until_s for asked in self._asked.values()), default=None)

    def _pass_on(self, proxy: Seat, asked: _Asked) -> None:
        if proxy.identity is not None and self._send(proxy.identity, asked.question):
            asked.is_sent = True

    def _proxy_of(self, run: str, worker: str) -> Seat | None:
        """The living proxy that serves this worker: by what it was started for, or by what it has heard of since."""
        living = [
            seat
            for seat in self._graph.seats.values()
            if seat.spec.kind == "proxy" and seat.spec.worker and seat.state is not SeatState.ENDED
        ]
        for seat in living:
            if (seat.spec.run, seat.spec.worker) == (run, worker):
                return seat
        for seat in living:
            workers: list[dict[str, Any]] = self._graph.statistics(seat.name).get("workers", [])
            if any((each.get("run"), each.get("worker")) == (run, worker) for each in workers):
                return seat
        return None

    def _signal(self, seat: Seat, question: StopWorker) -> ControlMessage:
        if seat.state in (SeatState.ENDED, SeatState.WAITING):
            return Refused(reason=f"worker {seat.name} of run {question.run} does not run; see `runlane status`")
        signum = signal.SIGKILL if question.is_kill else signal.SIGINT
        pids = [seat.pid] if seat.is_alive else []
        self._graph.dismiss(seat, signum)
        log_event(log_ids.SUPERVISOR_WORKER_SIGNALLED, name=seat.name, signal=signum.name, pids=pids)
        return WorkerSignalled(
            run=question.run, worker=question.worker, signal="SIGKILL" if question.is_kill else "SIGINT", pids=pids
        )
