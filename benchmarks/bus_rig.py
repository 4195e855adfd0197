"""The processes of bench_bus: a router as the graph starts it, a bare proxy, one source for both, crowds of receivers.

The router is a supervisor's child in all but name: started by the supervisor's own `Child` with the topology's spec,
with lifeline and heartbeat. The heartbeats come here, and tell what the router dropped.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import zmq
from bus_board import Board, Order, Outcome
from bus_receivers import BARE_HWM, BARE_OUT
from bus_source import BARE_IN

from runlane.actors.child import Child
from runlane.actors.topology import Topology
from runlane.config import names
from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.transport.endpoint import endpoint_of, ipc_endpoint, make_run_dir
from runlane.transport.messages import Heartbeat
from runlane.transport.sockets import Context, Socket, bind_router, receive_frames
from runlane.transport.wire import decode_control

HERE = Path(__file__).parent
BATCH_RECORDS = 256
START_S = 20.0
STOP_S = 5.0
HEARTBEAT_S = 3.0
PROBE_S = 0.1
# More receiving processes than this would measure how the kernel shares few cores among many processes.
MAX_PROCESSES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """One burst. `cpu_us` is of the process in the middle, and `ends_us` of source and receivers, both for each record
    and receiver.
    """

    records_s: float
    cpu_us: float
    ends_us: float
    lost: int
    late_us: float
    latencies_us: list[float]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Receivers of one way that count on one board."""

    way: str
    count: int
    board_path: Path
    board: Board
    pids: list[int]

    @property
    def names(self) -> list[str]:
        """Of its subscribers, as the router knows them."""
        return [f"bench-{self.count}-{number}" for number in range(self.count)]


@dataclass(slots=True)
class BusRig:
    """Everything that runs, and what can be asked of it."""

    settings: Settings
    folder: Path
    router: Child
    forwarder: "subprocess.Popen[str]"
    source: "subprocess.Popen[str]"
    heartbeats: Socket
    statistics: dict[str, Any] = field(default_factory=dict[str, Any])

    @contextlib.contextmanager
    def crowd(self, way: str, count: int, processes: int = 0) -> Generator[Crowd]:
        """So many receivers, in as many processes or at most `MAX_PROCESSES`; ready when the body begins."""
        path = self.folder / f"board-{way}-{count}"
        processes = processes or min(count, MAX_PROCESSES)
        firsts = [number * count // processes for number in range(processes + 1)]
        with Board(path, count, is_new=True) as board, contextlib.ExitStack() as stack:
            peers: list[subprocess.Popen[str]] = []
            for first, following in pairwise(firsts):
                arguments = [way, str(path), str(count), str(first), str(following - first)]
                peers.append(stack.enter_context(_peer("bus_receivers.py", *arguments, _as_text(self.settings))))
            crowd = Crowd(way, count, path, board, [peer.pid for peer in peers])
            self._probe(crowd)
            yield crowd

    def _probe(self, crowd: Crowd) -> None:
        """One batch after the other until one reached all: only then has every receiver joined."""
        ends_s = time.monotonic() + START_S
        while self._order(crowd, 1, BATCH_RECORDS, patience_s=PROBE_S).lost:
            if time.monotonic() > ends_s:
                sys.exit(
                    f"{crowd.way}: {crowd.board.records()} records at {crowd.count} receivers, not all have joined"
                )

    def burst(self, crowd: Crowd, batches: int, records: int = BATCH_RECORDS, interval_s: float = 0.0) -> Found:
        """Send batches to a crowd and wait until they have arrived."""
        pid = self.router.pid if crowd.way == "router" else self.forwarder.pid
        ends = [self.source.pid, *crowd.pids]
        since, cpu_s, ends_s = crowd.board.batches(), cpu_s_of(pid), sum(map(cpu_s_of, ends))
        outcome = self._order(crowd, batches, records, interval_s)
        cpu_s, ends_s = cpu_s_of(pid) - cpu_s, sum(map(cpu_s_of, ends)) - ends_s
        deliveries = batches * records * crowd.count
        if outcome.rewinds:
            print(f"  {crowd.way}: {outcome.rewinds} times batches had to be sent again", file=sys.stderr)
        return Found(
            records_s=(batches * records - outcome.lost / crowd.count) / outcome.elapsed_s,
            cpu_us=cpu_s / deliveries * 1e6,
            ends_us=ends_s / deliveries * 1e6,
            lost=outcome.lost,
            late_us=outcome.late_us,
            latencies_us=crowd.board.latencies_us(since),
        )

    def _order(
        self, crowd: Crowd, batches: int, records: int, interval_s: float = 0.0, patience_s: float = 5.0
    ) -> Outcome:
        assert self.source.stdin is not None
        assert self.source.stdout is not None
        order = Order(
            way=crowd.way,
            board=str(crowd.board_path),
            receivers=crowd.count,
            batches=batches,
            records=records,
            interval_s=interval_s,
            patience_s=patience_s,
        )
        self.source.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self.source.stdin.flush()
        line = self.source.stdout.readline()
        if not line:
            sys.exit(f"the source has ended with {self.source.wait(STOP_S)}")
        return msgspec.json.decode(line, type=Outcome)

    def dropped(self, crowd: Crowd) -> int:
        """Records the router says it dropped for a crowd, in a heartbeat made after this call."""
        asked_s = time.monotonic()
        self._hear(0.0)
        while not self._hear(HEARTBEAT_S) and time.monotonic() - asked_s < HEARTBEAT_S:
            pass
        known: dict[str, Any] = self.statistics.get("subscribers", {})
        return sum(sum(known[name]["dropped"].values()) for name in crowd.names)

    def _hear(self, timeout_s: float) -> bool:
        """Take in heartbeats, waiting for the first at most so long; whether there was one."""
        is_heard = False
        while self.heartbeats.poll(0 if is_heard else int(timeout_s * 1000)):
            frames = receive_frames(self.heartbeats)
            message = decode_control(frames[1]) if frames is not None else None
            if isinstance(message, Heartbeat):
                self.statistics, is_heard = message.statistics, True
        return is_heard

    def wait_for_router(self) -> None:
        """Its first heartbeat means: ready."""
        ends_s = time.monotonic() + START_S
        while not self._hear(0.1):
            if self.router.poll() is not None or time.monotonic() > ends_s:
                log = (self.folder / f"{names.ROUTER}.log").read_text()
                sys.exit(f"the router did not start, exit code {self.router.exit_code}:\n{log}")


def cpu_s_of(pid: int) -> float:
    """CPU seconds of a process over all its threads: to the nanosecond where the kernel counts so, else in ticks."""
    try:
        threads = [file.read_text().split()[0] for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    except FileNotFoundError:  # a thread that has just ended
        threads = []
    if threads:
        return sum(map(int, threads)) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running_bus() -> Generator[BusRig]:
    """Router, bare proxy and source. All have ended when the body has."""
    with tempfile.TemporaryDirectory(prefix="rl-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        arguments = _arguments(folder)
        settings = load(environment={}, arguments=arguments)
        make_run_dir(settings)
        context: Context = stack.enter_context(zmq.Context())
        heartbeats = bind_router(context, endpoint_of(settings, names.SUPERVISOR_SOCKET), 1_000, settings.transport)
        stack.callback(heartbeats.close, 0)
        options = [text for argument in arguments for text in ("--set", argument)]
        spec = next(spec for spec in Topology(settings, time.time_ns(), options).specs() if spec.name == names.ROUTER)
        router = Child(spec, folder)
        stack.callback(_stop, router)
        bare = [ipc_endpoint(settings, BARE_IN), ipc_endpoint(settings, BARE_OUT), str(BARE_HWM)]
        forwarder = stack.enter_context(_peer("bus_forwarder.py", *bare))
        source = stack.enter_context(_peer("bus_source.py", _as_text(settings)))
        rig = BusRig(settings, folder, router, forwarder, source, heartbeats)
        rig.wait_for_router()
        yield rig


def _arguments(folder: Path) -> list[str]:
    """Settings of a graph without a DB writer: its subscriber wants nothing that is sent, and so holds nothing up."""
    return [
        f"data_dir={folder}/data",
        f"transport.run_dir={folder}/run",
        "log_level=WARNING",
        "subscribers.db_writer.overflow=drop_oldest",
        'subscribers.db_writer.kinds=["run"]',
    ]


def _stop(router: Child) -> None:
    router.signal(signal.SIGTERM)
    if router.reap(STOP_S) is None:
        router.kill()
        router.reap(STOP_S)


@contextlib.contextmanager
def _peer(script: str, *arguments: str) -> Generator["subprocess.Popen[str]"]:
    """A process of ours that ends with its standard input."""
    command = [sys.executable, str(HERE / script), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _as_text(settings: Settings) -> str:
    return msgspec.json.encode(settings).decode()
