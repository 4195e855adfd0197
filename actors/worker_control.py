"""WorkerControl: what is asked of running workers through their proxy, until it is done or has taken too long.

Decides only: the relays say which streams are open, messages leave by the functions it is given. A mode is asked for
again and again, because the worker's connection may be new, and is done when each open stream of the worker has said
that it is in it; streams that open later are told likewise, as long as the worker has one open.
"""

import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runlane.actors.absent_worker import why_absent
from runlane.actors.relay import Relay
from runlane.actors.worker_signal import signal_worker
from runlane.config import log_ids
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.journal_layout import HEAD_FILE
from runlane.transport.log import log_event
from runlane.transport.messages import (
    ControlMessage,
    Refused,
    SetTelemetryMode,
    StopWorker,
    StreamInfo,
    StreamMode,
    TelemetryModeSet,
    WorkerSignalled,
)

# A worker takes up a mode within one look of its flusher, so longer means: stopped, or no room in its journal.
SWITCH_S = 3.0
# A proxy that has just begun hears of its worker's streams within so long.
HELLO_S = 1.5
AGAIN_S = 0.25
KEPT_ANSWERS = 64

Key = tuple[str, str]
Tell = Callable[[bytes, ControlMessage], bool]


@dataclass(slots=True)
class _Switch:
    """A mode that was asked for and is not in force everywhere yet."""

    question: SetTelemetryMode
    since_s: float
    again_s: float


class WorkerControl:
    """One proxy's. `answers` are for the supervisor; who sends them takes them out."""

    def __init__(self, relays: Mapping[bytes, Relay], run_dir: Path, tell: Tell) -> None:
        """`relays` by stream, as they are at each call; `tell` sends to a worker by its connection's name."""
        self.answers: deque[ControlMessage] = deque()
        self._relays = relays
        self._run_dir = run_dir
        self._tell = tell
        self._said: dict[bytes, tuple[bytes, TelemetryMode]] = {}  # by stream: who, and which mode
        self._switches: dict[Key, _Switch] = {}
        self._settled: dict[Key, TelemetryMode] = {}
        self._stopped: dict[int, ControlMessage] = {}

    # ---- in ----

    def on_mode(self, peer: bytes, message: StreamMode) -> None:
        """A worker's word on one of its streams."""
        stream = bytes.fromhex(message.stream)
        relay = self._relays.get(stream)
        if relay is None:
            return
        self._said[stream] = (peer, message.mode)
        key = (relay.info.run, relay.info.worker)
        settled = self._settled.get(key)
        if settled is not None and key not in self._switches and message.mode is not settled:
            self._tell(peer, StreamMode(stream=message.stream, mode=settled))  # a stream that opened since

    def ask(self, question: SetTelemetryMode, now_s: float) -> None:
        """A mode for a worker. Again: nothing; another one: the one before is given up."""
        key = (question.run, question.worker)
        known = self._switches.get(key)
        if known is not None:
            if known.question == question:
                return
            self._refuse(known.question, f"{question.mode.value} was asked for meanwhile")
        self._settled.pop(key, None)
        self._switches[key] = _Switch(question, now_s, now_s)
        self.advance(now_s)

    def stop(self, question: StopWorker) -> None:
        """Signal a worker's processes. Asked again, as the supervisor does, it only answers again."""
        answer = self._stopped.get(question.request)
        if answer is None:
            answer = self._stopped[question.request] = self._signal(question)
            if len(self._stopped) > KEPT_ANSWERS:
                del self._stopped[next(iter(self._stopped))]
        self.answers.append(answer)

    def _signal(self, question: StopWorker) -> ControlMessage:
        signum = signal.SIGKILL if question.is_kill else signal.SIGINT
        relays = [relay for relay in self._open(question.run, question.worker) if relay.head.is_writer_alive]
        streams = [(relay.info, relay.directory / HEAD_FILE) for relay in relays]
        if not streams:
            why = why_absent(self._run_dir, question.run, question.worker)
            return Refused(reason=why, request=question.request)
        pids, problem = signal_worker(streams, signum)
        if not pids:
            why = f"worker {question.worker} of run {question.run} was not signalled: {problem}"
            return Refused(reason=why, request=question.request)
        log_event(log_ids.PROXY_WORKER_SIGNALLED, worker=question.worker, signal=signum.name, pids=pids)
        return WorkerSignalled(
            run=question.run,
            worker=question.worker,
            signal="SIGKILL" if question.is_kill else "SIGINT",
            pids=pids,
            request=question.request,
        )

    # ---- due ----

    def advance(self, now_s: float) -> None:
        """Tell again, find what is done, give up what takes too long; forget streams that are gone."""
        for stream in [stream for stream in self._said if stream not in self._relays]:
            del self._said[stream]
        for key in [key for key in self._settled if not any(True for _ in self._open(*key))]:
            del self._settled[key]
        for key, switch in list(self._switches.items()):
            self._advance_switch(key, switch, now_s)

    def _advance_switch(self, key: Key, switch: _Switch, now_s: float) -> None:
        question, waited_s = switch.question, now_s - switch.since_s
        streams = [bytes.fromhex(relay.info.stream) for relay in self._open(*key)]
        late = [stream for stream in streams if self._mode_of(stream) is not question.mode]
        if streams and not late:
            self._settled[key] = question.mode
            del self._switches[key]
            self.answers.append(
                TelemetryModeSet(
                    run=question.run,
                    worker=question.worker,
                    mode=question.mode,
                    streams=len(streams),
                    request=question.request,
                )
            )
        elif waited_s > (SWITCH_S if streams else HELLO_S):
            del self._switches[key]
            self._refuse(question, self._why_late(key, streams, late))
        elif now_s >= switch.again_s:
            switch.again_s = now_s + AGAIN_S
            for stream in late:
                if stream in self._said:
                    self._tell(self._said[stream][0], StreamMode(stream=stream.hex(), mode=question.mode))

    def _why_late(self, key: Key, streams: list[bytes], late: list[bytes]) -> str:
        if not streams:
            return why_absent(self._run_dir, *key)
        return (
            f"{len(late)} of {len(streams)} streams of worker {key[1]} did not take the mode up within {SWITCH_S:g} s: "
            "its process is stopped, or its journal or disk is full, and may take it up later; "
            "see `runlane status`, and ask again"
        )

    def _refuse(self, question: SetTelemetryMode, reason: str) -> None:
        self.answers.append(Refused(reason=reason, request=question.request))

    # ---- what is known ----

    def _open(self, run: str, worker: str) -> Iterator[Relay]:
        """Relays of a worker that lives, as far as is known, and has not closed the stream."""
        for relay in self._living():
            if (relay.info.run, relay.info.worker) == (run, worker):
                yield relay

    def _living(self) -> list[Relay]:
        return [relay for relay in self._relays.values() if relay.dead_since_s is None and not relay.is_closed]

    def _mode_of(self, stream: bytes) -> TelemetryMode | None:
        return self._said[stream][1] if stream in self._said else None

    def statistics(self) -> dict[str, Any]:
        """The newest stream's mode, and every running worker with its own: who may be asked, by run and worker."""
        newest: dict[Key, StreamInfo] = {}
        for relay in sorted(self._living(), key=lambda relay: relay.info.started_ns):
            newest[relay.info.run, relay.info.worker] = relay.info
        infos = sorted(newest.values(), key=lambda info: info.started_ns)
        workers = [
            {
                "run": info.run,
                "run_name": info.run_name,
                "worker": info.worker,
                "started_ns": info.started_ns,
                "telemetry_mode": self._mode_of(bytes.fromhex(info.stream)) or "",
            }
            for info in infos
        ]
        return {"telemetry_mode": workers[-1]["telemetry_mode"] if workers else "", "workers": workers}
