"""The source of bench_bus: sends batches to the router as a proxy does, or to the bare proxy; orders by the line.

`python bus_source.py SETTINGS`: the settings as JSON. Each line of standard input is an `Order`, each line of
standard output its `Outcome`. Ends with its input.

Both ways get the same frames by the same calls: a header made for each batch, which holds its seq and its time, and
a body encoded once. Neither is ever further ahead of its slowest receiver than `AHEAD_BATCHES`.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import zmq
from bus_board import Board, Order, Outcome
from measuring import percentile

from runlane.actors.forwarder import SOCKET_HWM
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import Settings
from runlane.transport.ack import AckWindow, Batch
from runlane.transport.endpoint import endpoint_of, ipc_endpoint
from runlane.transport.identity import new_run_id, new_stream_id
from runlane.transport.messages import StreamInfo
from runlane.transport.sockets import Context, connect_dealer, receive_frames, send_frames
from runlane.transport.stream_sender import StreamSender
from runlane.transport.wire import STEP, Frame, Section, decode_control, encode_header
from runlane.workers.step_layout import StepLayout

BARE_IN = "bare-in"
AHEAD_BATCHES = 256
TURN_BATCHES = 16  # batches between two looks for acks
IDLE_S = 0.001  # far below what the batches under way last; shorter naps would take CPU from the others


class Rows:
    """Batches of one stream: scalar step rows as a worker lays them out, the bodies encoded once for each size."""

    def __init__(self) -> None:
        """A new stream, which starts with seq 1."""
        self.layout = StepLayout(1, 1, None)
        self.info = StreamInfo(
            stream=new_stream_id(),
            run=new_run_id(time.time_ns()),
            worker="bench",
            host="",
            pid=os.getpid(),
            started_ns=time.time_ns(),
            schemas=[self.layout.schema],
        )
        self._key = bytes.fromhex(self.info.stream)
        self._next_seq = 1
        self._bodies: dict[int, bytes] = {}

    def batch(self, records: int, closed_ns: int) -> Batch:
        """The next one."""
        body = self._bodies.get(records)
        if body is None:
            body = self._bodies[records] = os.urandom(self.layout.row_bytes * records)  # nobody reads the rows
        first = self._next_seq
        self._next_seq += records
        section = Section(STEP, self.layout.schema.schema_id, records, len(body))
        head = encode_header(self._key, first, records, closed_ns, [section])
        return Batch(first, self._next_seq - 1, (head, body), len(head) + len(body))


class Way(Protocol):
    """Where batches go."""

    @property
    def rewinds(self) -> int:
        """How often batches had to be sent again."""
        ...

    def offer(self, records: int, closed_ns: int) -> bool:
        """Make a batch and send it; False, and nothing is made, while there is no room."""
        ...

    def turn(self) -> None:
        """Whatever is due besides."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class RouterWay:
    """To the router's ingress: a proxy's own `StreamSender` and `AckWindow`, without a journal behind them."""

    def __init__(self, context: Context, settings: Settings) -> None:
        """Connect; the hello goes out with the first batch."""
        self._rows = Rows()
        self._socket = connect_dealer(context, endpoint_of(settings, INGRESS_SOCKET), SOCKET_HWM, settings.transport)
        self._window = AckWindow(settings.proxy.outbox_bytes)
        self._sender = StreamSender(self._rows.info, self._window, self._send)

    def _send(self, frames: Sequence[Frame]) -> bool:
        return send_frames(self._socket, frames)

    @property
    def rewinds(self) -> int:
        """How often batches had to be sent again."""
        return self._window.rewinds

    def offer(self, records: int, closed_ns: int) -> bool:
        """Into the window of unacked batches, which is bounded, and on from there."""
        if self._window.is_full:
            return False
        self._window.append(self._rows.batch(records, closed_ns))
        self._sender.pump(time.monotonic())
        return True

    def turn(self) -> None:
        """Read acks, keep the stream alive, send what did not fit before."""
        now_s = time.monotonic()
        while (frames := receive_frames(self._socket)) is not None:
            self._sender.on_message(decode_control(frames[0]), now_s)
        self._sender.pump(now_s)

    def close(self) -> None:
        """Say goodbye after the last ack."""
        ends_s = time.monotonic() + 2.0
        while not self._sender.say_bye() and time.monotonic() < ends_s:
            self.turn()
            time.sleep(IDLE_S)
        self._socket.close(200)


class BareWay:
    """To the bare proxy: a PUSH."""

    rewinds = 0

    def __init__(self, context: Context, settings: Settings) -> None:
        """Connect."""
        self._rows = Rows()
        self._socket = context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, SOCKET_HWM)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(ipc_endpoint(settings, BARE_IN))
        self._waiting: tuple[Frame, ...] | None = None

    def offer(self, records: int, closed_ns: int) -> bool:
        """A batch that the socket has no room for is kept, as the one before the next."""
        self.turn()
        if self._waiting is not None:
            return False
        frames = self._rows.batch(records, closed_ns).frames
        if not send_frames(self._socket, frames):
            self._waiting = frames
        return True

    def turn(self) -> None:
        """Send the batch that had no room."""
        if self._waiting is not None and send_frames(self._socket, self._waiting):
            self._waiting = None

    def close(self) -> None:
        """Let go."""
        self._socket.close()


class Burst:
    """One order being carried out."""

    def __init__(self, way: Way, board: Board, order: Order) -> None:
        """Counts start here: what receivers had before does not matter."""
        self._way, self._board, self._order = way, board, order
        self._base = board.records()
        self._started_s = self._moved_s = time.monotonic()
        self._started_ns = board.now_ns()
        self._sent = 0
        self._arrived: list[int] = [0] * board.receivers
        self._held_until_ns = 0
        self._late_us: list[float] = []

    def run(self) -> Outcome:
        """Until everything has arrived, or nothing did for too long."""
        rewinds = self._way.rewinds
        while self._sent < self._order.batches or min(self._arrived) < self._sent * self._order.records:
            if self._sent < self._order.batches and self._is_near() and self._send():
                continue
            self._way.turn()
            if not self._look():
                if time.monotonic() - self._moved_s > self._order.patience_s:
                    break
                time.sleep(IDLE_S)
        wanted = self._sent * self._order.records
        return Outcome(
            elapsed_s=self._moved_s - self._started_s,
            lost=sum(wanted - arrived for arrived in self._arrived),
            late_us=percentile(self._late_us, 99),
            rewinds=self._way.rewinds - rewinds,
        )

    def _look(self) -> bool:
        """Read the board; whether anything has arrived since."""
        arrived = [now - before for now, before in zip(self._board.records(), self._base, strict=True)]
        if arrived == self._arrived:
            return False
        self._arrived, self._moved_s = arrived, time.monotonic()
        return True

    def _is_near(self) -> bool:
        """Whether the slowest receiver is near enough behind."""
        limit = (self._sent - AHEAD_BATCHES) * self._order.records
        return min(self._arrived) >= limit or (self._look() and min(self._arrived) >= limit)

    def _send(self) -> bool:
        """The next batch, at its time if the order has an interval; False while there is no room.

        A batch that is late because an earlier one was held up carries the time it was due: it would have waited.
        """
        now_ns = self._board.now_ns()
        if self._order.interval_s:
            due_ns = self._started_ns + int(self._sent * self._order.interval_s * 1e9)
            if now_ns < due_ns:
                self._way.turn()
                time.sleep(max(0.0, (due_ns - self._board.now_ns()) / 1e9))
                now_ns = self._board.now_ns()
            self._late_us.append((now_ns - due_ns) / 1_000)
            now_ns = due_ns if due_ns < self._held_until_ns else now_ns
        if not self._way.offer(self._order.records, now_ns):
            self._held_until_ns = self._board.now_ns()
            return False
        self._sent += 1
        if self._sent % TURN_BATCHES == 0:
            self._way.turn()
        return True


def main(settings: Settings) -> None:
    """Carry out orders until there are no more."""
    context: Context = zmq.Context()
    ways: dict[str, Way] = {"router": RouterWay(context, settings), "bare": BareWay(context, settings)}
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order)
        with Board(Path(order.board), order.receivers) as board:
            outcome = Burst(ways[order.way], board, order).run()
        print(msgspec.json.encode(outcome).decode(), flush=True)
    for way in ways.values():
        way.close()
    context.term()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Settings))
