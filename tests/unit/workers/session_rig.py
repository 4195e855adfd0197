"""What the tests of the worker side share: sessions, a proxy in a thread of its own, and what the journals hold."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from runlane.config.names import JOURNAL_DIR, KINDS
from runlane.config.settings import JournalSettings, Settings
from runlane.transport.columns import decode_records, decode_steps, step_dtype
from runlane.transport.endpoint import RoleLock, data_dir_of
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_reader import JournalReader
from runlane.transport.messages import StreamInfo
from runlane.transport.records import Record
from runlane.transport.testing import FakeProxy, make_info, until
from runlane.transport.wire import STEP, BatchHeader, Frame, decode_header
from runlane.workers.session import WorkerSession

Row = dict[str, Any]
Kind = TypeVar("Kind", bound=Record)
Received = tuple[BatchHeader, Sequence[Frame]]
# The smallest journal there may be: it is full before two thousand steps.
SMALL = JournalSettings(segment_bytes=1 << 16, quota_bytes=1 << 18, min_free_bytes=0)


class SessionRig:
    """A proxy that takes everything, and sessions that record. What they recorded is read in their journals."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self.endpoint = f"ipc://{directory / 'proxy.ipc'}"
        self.sessions: list[WorkerSession] = []
        self.is_reading = threading.Event()
        self._heads: list[JournalHead] = []
        self.start_proxy()

    def start_proxy(self) -> None:
        """A proxy process begins; what an earlier one heard is not known to it."""
        # Its lock: it lives, and a session at its quota may hope for room.
        self._lock = RoleLock(Path(self.endpoint.removeprefix("ipc://")).parent, "proxy")
        self.proxy = FakeProxy(self.settings, self.endpoint)
        self._is_over = threading.Event()
        self.is_reading.set()
        self._thread = threading.Thread(target=self._receive, name="fake-proxy")
        self._thread.start()

    def _receive(self) -> None:
        while not self._is_over.is_set():
            if self.is_reading.wait(0.01):
                self.proxy.turn()

    def stop_proxy(self) -> None:
        """It is gone at once."""
        self._is_over.set()
        self._thread.join()
        self.proxy.close()
        self._lock.release()

    def session(
        self, *, journal: JournalSettings | None = None, endpoint: str = "", is_left: bool = False, **changes: Any
    ) -> WorkerSession:
        """A new session; `changes` are settings of the table `[session]`. One that `is_left` the test closes."""
        chosen = msgspec.structs.replace(self.settings.session, **changes)
        settings = msgspec.structs.replace(
            self.settings, session=chosen, journal=journal or msgspec.structs.replace(SMALL, quota_bytes=1 << 30)
        )
        info = make_info("w", schemas=[])
        session = WorkerSession(info, endpoint or self.endpoint, settings, {"command": "test"})
        if not is_left:
            self.sessions.append(session)
        return session

    def connected(self, **changes: Any) -> WorkerSession:
        """A new session whose connection stands: what is sent before may be lost, and is not missed."""
        session = self.session(**changes)
        self.wait(lambda: session.info.stream in self.proxy.infos)
        return session

    def close(self) -> None:
        """Every session and the proxy."""
        self.proxy.is_acking = True
        for session in self.sessions:
            session.close()
        self.stop_proxy()
        for head in self._heads:
            head.close()

    # ---- what was recorded; by default by the first session ----

    def journal(self, stream: str = "") -> Path:
        """Where a stream's journal lies."""
        return data_dir_of(self.settings) / JOURNAL_DIR / (stream or self.sessions[0].info.stream)

    def head(self, stream: str = "") -> JournalHead:
        """The head of a stream's journal, as its reader sees it."""
        self._heads.append(JournalHead.open(self.journal(stream)))
        return self._heads[-1]

    def streams(self) -> list[str]:
        """Every stream that has a journal."""
        return sorted(path.name for path in (data_dir_of(self.settings) / JOURNAL_DIR).iterdir())

    def info(self, stream: str = "") -> StreamInfo:
        """The stream as its journal says it at its end."""
        return self._read(stream)[0]

    def batches(self, stream: str = "") -> list[Received]:
        """All of a journal, as the batches a proxy would make of it."""
        return self._read(stream)[1]

    def _read(self, stream: str) -> tuple[StreamInfo, list[Received]]:
        reader = JournalReader(self.journal(stream))
        found: list[Received] = []
        try:
            reader.seek(1)
            assert reader.next_seq == 1
            while (batch := reader.read_final(0, 0)) is not None:
                found.append((decode_header(batch.frames[0]), batch.frames[1:]))
            assert reader.info is not None
            return reader.info, found
        finally:
            reader.close()

    def steps(self, stream: str = "") -> list[Row]:
        """Step rows in order of seq."""
        info, batches = self._read(stream)
        return steps_of(info, batches)

    def records(self, kind: type[Kind], stream: str = "") -> list[Kind]:
        """Records of one type in order of seq."""
        found: list[Kind] = []
        for header, bodies in self.batches(stream):
            for section, body in zip(header.sections, bodies, strict=True):
                if section.kind != STEP:
                    found += [record for record in decode_records(body, section) if isinstance(record, kind)]
        return found

    def seqs(self, stream: str = "") -> list[int]:
        """Every seq that was recorded, in order; each batch's own are checked against its header."""
        info, batches = self._read(stream)
        return seqs_of(info, batches)

    # ---- what came over the socket ----

    def sent(self, stream: str = "") -> list[Received]:
        """Batches in order of arrival at the proxy."""
        return list(self.proxy.batches.get(stream or self.sessions[0].info.stream, []))

    def received(self, stream: str = "") -> int:
        """How many records have arrived at the proxy."""
        return sum(header.records for header, _ in self.sent(stream))

    def wait(self, is_met: Callable[[], bool]) -> None:
        """Wait for something that another thread will do."""
        pause = threading.Event()
        until(is_met, lambda: pause.wait(0.005))


def steps_of(info: StreamInfo, batches: Sequence[Received]) -> list[Row]:
    """Step rows of batches."""
    schemas = {schema.schema_id: schema for schema in info.schemas}
    rows: list[Row] = []
    for header, bodies in batches:
        for section, body in zip(header.sections, bodies, strict=True):
            if section.kind == STEP:
                columns = decode_steps(body, section, step_dtype(schemas[section.schema_id]))
                names = columns.dtype.names or ()
                rows += [{name: row[name].tolist() for name in names} for row in columns]
    return rows


def seqs_of(info: StreamInfo, batches: Sequence[Received]) -> list[int]:
    """Seqs of all records of batches, each batch's own sorted and checked against its header."""
    schemas = {schema.schema_id: step_dtype(schema) for schema in info.schemas}
    found: list[int] = []
    for header, bodies in batches:
        seqs: list[int] = []
        for section, body in zip(header.sections, bodies, strict=True):
            if section.kind == STEP:
                own = decode_steps(body, section, schemas[section.schema_id])["seq"].tolist()
            else:
                own = [record.seq for record in decode_records(body, section)]
            assert own == sorted(own), KINDS[section.kind - 1]
            seqs += own
        assert sorted(seqs) == list(range(header.first_seq, header.last_seq + 1))
        found += sorted(seqs)
    return found
