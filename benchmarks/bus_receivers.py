"""Some receivers of bench_bus in one process, each with a context of its own: Subscribers, or plain SUB sockets.

`python bus_receivers.py WAY BOARD RECEIVERS FIRST COUNT SETTINGS`: `COUNT` of the board's `RECEIVERS` live here, from
number `FIRST` on. Each counts on the board what has arrived. Ends when standard input does.
"""

import select
import sys
import time
from pathlib import Path
from typing import Protocol

import msgspec
import zmq
from bus_board import Board

from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.endpoint import ipc_endpoint
from runlane.transport.sockets import Context, Socket, receive_batch
from runlane.transport.subscriber import Subscriber
from runlane.transport.wire import decode_header

BARE_OUT = "bare-out"
BARE_HWM = 1_024  # above what the source is ever ahead, so that a PUB drops nothing
# Room for all the source is ever ahead: what the router drops then, it drops for another reason.
POLICY = QueuePolicy("drop_oldest", 1 << 18)
WAIT_S = 0.05
BURST = 16
MIN_IDLE_S, MAX_IDLE_S = 0.0005, 0.02


class Receiver(Protocol):
    """One consumer."""

    def take(self, timeout_s: float) -> tuple[int, int] | None:
        """Records and closing time of the next batch, or None."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class BusReceiver:
    """A Subscriber of all kinds, as a user would write it."""

    def __init__(self, name: str, settings: Settings) -> None:
        """Join under this name."""
        self._subscriber = Subscriber(name, policy=POLICY, settings=settings)

    def take(self, timeout_s: float) -> tuple[int, int] | None:
        """One delivery. A batch of steps has one section."""
        batches = self._subscriber.poll(timeout_s)
        return (sum(map(len, batches)), batches[0].header.closed_ns) if batches else None

    def close(self) -> None:
        """Leave."""
        self._subscriber.close()


class BareReceiver:
    """A SUB that reads the same header."""

    def __init__(self, settings: Settings) -> None:
        """Connect and subscribe to everything."""
        self._context: Context = zmq.Context()
        self._socket: Socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, BARE_HWM)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(ipc_endpoint(settings, BARE_OUT))
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")

    def take(self, timeout_s: float) -> tuple[int, int] | None:
        """One message."""
        frames = receive_batch(self._socket)
        if frames is None:
            if not timeout_s or not self._socket.poll(int(timeout_s * 1000)):
                return None
            frames = receive_batch(self._socket)
        if frames is None:
            return None
        header = decode_header(frames[0])
        return header.records, header.closed_ns

    def close(self) -> None:
        """Leave."""
        self._socket.close()
        self._context.term()


def is_over() -> bool:
    """Whether whoever started this process wants it to end, or is gone."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def receive_one(receiver: Receiver, number: int, board: Board) -> None:
    """A receiver alone in its process waits in its socket."""
    while True:
        taken = receiver.take(WAIT_S)
        if taken is not None:
            board.take(number, *taken)
        elif is_over():
            return


def receive_several(receivers: dict[int, Receiver], board: Board) -> None:
    """Several in a process are asked in turn; when there is nothing, pauses grow, to leave the cores to others."""
    idle_s = MIN_IDLE_S
    while True:
        is_idle = True
        for number, receiver in receivers.items():
            for _ in range(BURST):
                taken = receiver.take(0.0)
                if taken is None:
                    break
                board.take(number, *taken)
                is_idle = False
        if not is_idle:
            idle_s = MIN_IDLE_S
            continue
        if is_over():
            return
        time.sleep(idle_s)
        idle_s = min(MAX_IDLE_S, 2 * idle_s)


def main(way: str, path: str, total: int, first: int, count: int, settings: Settings) -> None:
    """Receive until told to end."""
    receivers: dict[int, Receiver] = {
        number: BusReceiver(f"bench-{total}-{number}", settings) if way == "router" else BareReceiver(settings)
        for number in range(first, first + count)
    }
    with Board(Path(path), total) as board:
        if count == 1:
            receive_one(receivers[first], first, board)
        else:
            receive_several(receivers, board)
    for receiver in receivers.values():
        receiver.close()


if __name__ == "__main__":
    chosen_way, board_path, total_count, first_number, own_count, settings_text = sys.argv[1:]
    chosen = msgspec.json.decode(settings_text, type=Settings)
    main(chosen_way, board_path, int(total_count), int(first_number), int(own_count), chosen)
