"""What the tests of the worker side share: a session, and the far end of its socket in a thread of its own."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from runlane.config.names import KINDS
from runlane.config.settings import Settings
from runlane.transport.columns import decode_records, decode_steps, step_dtype
from runlane.transport.messages import StreamInfo
from runlane.transport.records import Record
from runlane.transport.testing import FakeReceiver, make_info, until
from runlane.transport.wire import STEP, BatchHeader
from runlane.workers.session import WorkerSession

Row = dict[str, Any]
Kind = TypeVar("Kind", bound=Record)


class SessionRig:
    """A receiver that takes everything, and sessions that send to it. What arrived is read when they are closed."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self.endpoint = f"ipc://{directory / 'proxy.ipc'}"
        self.receiver = FakeReceiver(settings, self.endpoint)
        self.sessions: list[WorkerSession] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="fake-receiver")
        self._thread.start()

    def _receive(self) -> None:
        while not self._is_over.is_set():
            self.receiver.turn()

    def session(self, **changes: Any) -> WorkerSession:
        """A new session; `changes` are settings of the table `[session]`."""
        chosen = msgspec.structs.replace(self.settings.session, **changes)
        settings = msgspec.structs.replace(self.settings, session=chosen)
        info = make_info("w", schemas=[])
        session = WorkerSession(info, self.endpoint, settings, {"command": "test"})
        self.sessions.append(session)
        return session

    def close(self) -> None:
        """Every session and the receiver."""
        self.receiver.is_acking = True
        for session in self.sessions:
            session.close()
        self._is_over.set()
        self._thread.join()
        self.receiver.close()

    # ---- what arrived; by default of the first session ----

    def info(self, stream: str = "") -> StreamInfo:
        """The stream as it was announced last."""
        return self.receiver.infos[stream or self.sessions[0].info.stream]

    def batches(self, stream: str = "") -> list[tuple[BatchHeader, list[bytes]]]:
        """Batches in order of arrival."""
        return list(self.receiver.batches.get(stream or self.sessions[0].info.stream, []))

    def steps(self, stream: str = "") -> list[Row]:
        """Step rows in order of seq."""
        schemas = {schema.schema_id: schema for schema in self.info(stream).schemas}
        rows: list[Row] = []
        for header, bodies in self.batches(stream):
            for section, body in zip(header.sections, bodies, strict=True):
                if section.kind == STEP:
                    columns = decode_steps(body, section, step_dtype(schemas[section.schema_id]))
                    names = columns.dtype.names or ()
                    rows += [{name: row[name].tolist() for name in names} for row in columns]
        return rows

    def records(self, kind: type[Kind], stream: str = "") -> list[Kind]:
        """Records of one type in order of seq."""
        found: list[Kind] = []
        for header, bodies in self.batches(stream):
            for section, body in zip(header.sections, bodies, strict=True):
                if section.kind != STEP:
                    found += [record for record in decode_records(body, section) if isinstance(record, kind)]
        return found

    def seqs(self, stream: str = "") -> list[int]:
        """Every seq that arrived, sorted; each batch's own are checked against its header."""
        found: list[int] = []
        for header, bodies in self.batches(stream):
            seqs = [row["seq"] for row in self._rows_of(header, bodies, stream)]
            assert sorted(seqs) == list(range(header.first_seq, header.last_seq + 1))
            found += sorted(seqs)
        return found

    def _rows_of(self, header: BatchHeader, bodies: list[bytes], stream: str) -> list[Row]:
        schemas = {schema.schema_id: schema for schema in self.info(stream).schemas}
        rows: list[Row] = []
        for section, body in zip(header.sections, bodies, strict=True):
            if section.kind == STEP:
                columns = decode_steps(body, section, step_dtype(schemas[section.schema_id]))
                seqs = [{"seq": int(seq)} for seq in columns["seq"]]
            else:
                seqs = [{"seq": record.seq} for record in decode_records(body, section)]
            assert seqs == sorted(seqs, key=lambda row: row["seq"]), KINDS[section.kind - 1]
            rows += seqs
        return rows

    def wait(self, is_met: Callable[[], bool]) -> None:
        """Wait for something that the receiver's thread will see."""
        pause = threading.Event()
        until(is_met, lambda: pause.wait(0.005))

    def received(self, stream: str = "") -> int:
        """How many records have arrived."""
        return sum(header.records for header, _ in self.batches(stream))
