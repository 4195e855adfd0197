"""What the tests of the proxy share: the actor moved by hand, a real journal, and a router that acks when told."""

import os
import socket as host_socket
import time
from pathlib import Path

import msgspec

from runlane.actors.orphans import journals_dir
from runlane.actors.proxy import ProxyActor
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import JournalSettings, ProxySettings, Settings
from runlane.transport.columns import decode_records
from runlane.transport.endpoint import endpoint_of, ipc_endpoint
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_reader import JournalReader
from runlane.transport.messages import StreamHello
from runlane.transport.records import LogRecord, Record
from runlane.transport.testing import FakeClock, FakeReceiver, FakeSource, make_info
from runlane.transport.wire import STEP, Frame, encode_packed
from runlane.workers.journal_writer import JournalWriter

OUTBOX_BYTES = 1 << 18
SMALL = JournalSettings(segment_bytes=1 << 16, min_free_bytes=0)


class JournalWorker:
    """A worker reduced to its journal and its socket: publishes and sends what the test tells it to."""

    def __init__(self, settings: Settings, endpoint: str, pid: int = 0, journal: JournalSettings = SMALL) -> None:
        self.info = msgspec.structs.replace(
            make_info("w", pid or os.getpid(), schemas=[]), host=host_socket.gethostname()
        )
        self.directory = journals_dir(settings) / self.info.stream
        self.writer = JournalWriter(self.directory, self.info, journal, 256)
        self.writer.rotate(0)
        self.socket = FakeSource(settings, endpoint, self.info)
        self._sent_seq = 0

    @property
    def head(self) -> JournalHead:
        """The journal's head, while the worker lives."""
        assert self.writer.head is not None
        return self.writer.head

    def record(self, count: int = 1, text: str = "x") -> None:
        """Append so many records, and publish them."""
        for _ in range(count):
            while needed := self.writer.append("log", lambda seq: LogRecord(seq, seq, "info", text)):
                self.writer.rotate(needed)
        self.head.published = self.writer.seq

    def hello(self) -> None:
        """Introduce the stream."""
        sent = self.writer.seq
        self.socket.say(StreamHello(info=self.info, oldest_seq=1, sent_seq=sent, journal=str(self.directory)))

    def send(self) -> None:
        """Send what was recorded since the last call, live."""
        reader = JournalReader(self.directory)
        reader.seek(self._sent_seq + 1)
        batches: list[tuple[Frame, ...]] = []
        while batch := reader.read(self.writer.seq, time.time_ns()):
            batches.append(batch.frames)
        reader.close()
        self._sent_seq = self.writer.seq
        self.socket.send(encode_packed(batches))

    def end(self) -> None:
        """Close the stream: nothing follows."""
        self.head.closed = self.writer.seq
        self.die()

    def die(self) -> None:
        """As by `kill -9`: the lock is free, nothing was said."""
        self.writer.close()

    def close(self) -> None:
        """Everything."""
        self.writer.close()
        self.socket.close()


class ProxyRig:
    """One proxy in this thread, its worker, and a router that acks when told."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self.settings = msgspec.structs.replace(settings, proxy=ProxySettings(outbox_bytes=OUTBOX_BYTES))
        self.clock = clock
        self.proxy = self.start_proxy()
        self.router: FakeReceiver | None = None
        self.workers: list[JournalWorker] = []

    def start_proxy(self) -> ProxyActor:
        """A proxy process begins."""
        self.proxy = ProxyActor(self.settings, "w", "run", clock=self.clock)
        self.proxy.on_start()
        return self.proxy

    def worker(self, pid: int = 0) -> JournalWorker:
        """A worker that has said hello."""
        worker = JournalWorker(self.settings, ipc_endpoint(self.settings, "proxy-w"), pid)
        self.workers.append(worker)
        worker.hello()
        return worker

    def start_router(self, *, is_acking: bool = True) -> FakeReceiver:
        """A router process begins; what an earlier one had is not known to it."""
        if self.router is not None:
            self.router.close()
        self.router = FakeReceiver(self.settings, endpoint_of(self.settings, INGRESS_SOCKET), is_acking=is_acking)
        return self.router

    def turn(self) -> None:
        """A little time passes; everybody does what is due."""
        self.clock.move(0.05)
        self.proxy.do_work(0.005)
        if self.router is not None:
            self.router.turn()
        for worker in self.workers:
            worker.socket.listen()

    def settle(self, turns: int = 10) -> None:
        """Enough turns to show that something does not happen."""
        for _ in range(turns):
            self.turn()

    def seqs(self, stream: str) -> list[int]:
        """Seqs a router has accepted of a stream, in order."""
        assert self.router is not None
        batches = self.router.batches.get(stream, [])
        return [seq for header, _ in batches for seq in range(header.first_seq, header.last_seq + 1)]

    def own_records(self) -> list[Record]:
        """What the proxy told in streams of its own, in order of arrival."""
        assert self.router is not None
        return [
            record
            for stream, info in self.router.infos.items()
            if info.worker == "proxy-w"
            for header, bodies in self.router.batches.get(stream, [])
            for section, body in zip(header.sections, bodies, strict=True)
            if section.kind != STEP
            for record in decode_records(body, section)
        ]

    def figure(self, name: str) -> int:
        """One of the proxy's figures."""
        return int(self.proxy.statistics()[name])

    def segments(self, worker: JournalWorker) -> list[Path]:
        """Segment files of a worker's journal that are left."""
        return sorted(worker.directory.glob("*.seg"))

    def close(self) -> None:
        """Everybody."""
        for worker in self.workers:
            worker.close()
        self.proxy.on_close()
        if self.router is not None:
            self.router.close()
