"""OwnStream: what a proxy itself has to say of its worker, as a stream of its own.

A source's seq is nobody else's to give, so that a worker died, stalled or lost records is told beside its stream and
not in it. Held in memory until it is acked: should this process die first, its successor sees the same and tells it.
"""

import os
import socket
from collections.abc import Callable

from runlane.actors.topology import proxy_name
from runlane.config.settings import Settings
from runlane.transport.ack import AckWindow, Batch
from runlane.transport.clock import Clock
from runlane.transport.identity import new_stream_id
from runlane.transport.messages import StreamInfo
from runlane.transport.records import DropRecord, LogRecord, Record, RunRecord, RunState
from runlane.transport.stream_sender import Send, StreamSender
from runlane.transport.writer import encode_records_batch


class OwnStream:
    """The stream of one proxy about one worker of one run."""

    def __init__(self, settings: Settings, run: str, run_name: str, worker: str, send: Send, clock: Clock) -> None:
        """`worker` is the one spoken of; `send` leads to the router."""
        self._clock = clock
        info = StreamInfo(
            stream=new_stream_id(),
            run=run,
            worker=proxy_name(worker),
            host=socket.gethostname(),
            pid=os.getpid(),
            started_ns=clock.wall_ns(),
            run_name=run_name,
        )
        self.window = AckWindow(settings.proxy.outbox_bytes)
        self.sender = StreamSender(info, self.window, send)

    @property
    def last_seq(self) -> int:
        """Seq of the newest record told."""
        return self.window.last_seq

    def has_committed(self, seq: int) -> bool:
        """Whether the record `seq` and all before it are stored."""
        return self.window.oldest_seq > seq

    def tell_state(self, state: RunState, **facts: object) -> None:
        """The worker's run, or one stream of it, is in this state."""
        self._append("run", lambda seq, t_ns: RunRecord(seq, t_ns, state, facts))

    def tell_log(self, level: str, text: str) -> None:
        """A line about the worker."""
        self._append("log", lambda seq, t_ns: LogRecord(seq, t_ns, level, text))

    def tell_drop(self, kind: str, reason: str, records: int) -> None:
        """Records of the worker are lost."""
        self._append("drop", lambda seq, t_ns: DropRecord(seq, t_ns, kind, reason, records))

    def _append(self, kind: str, make: Callable[[int, int], Record]) -> None:
        seq, t_ns = self.window.last_seq + 1, self._clock.wall_ns()
        frames = encode_records_batch(self.sender.info.stream, seq, t_ns, {kind: [make(seq, t_ns)]})
        self.window.append(Batch(seq, seq, frames, sum(map(len, frames))))
