"""What the database has of the streams a subscriber asked for, read before its live deliveries. Never written here.

The router tells a late joiner, per open stream, the newest seq it will not deliver: the watermark. History is every
stored record up to there; behind it comes what is delivered live, which meanwhile waits in the router's queue. A
stream without a watermark is read as far as it is stored, and what is delivered of it again is left out.

Each query is short and keeps no transaction, because a reader holds back the writer's checkpoints. `sqlite3` of the
standard library does: it only reads, and a subscriber then needs no more than `transport`.
"""

import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np

from runlane.config.errors import StoreError, WireError
from runlane.config.names import KINDS
from runlane.config.settings import Selection, Settings
from runlane.transport.columns import StepColumns, step_dtype
from runlane.transport.endpoint import database_of
from runlane.transport.history_rows import STORED, Group, read_steps
from runlane.transport.messages import StepSchema, StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import Record
from runlane.transport.slicing import after_seq
from runlane.transport.subscriber_link import SubscriberLink
from runlane.transport.wire import KIND_NUMBER, BatchHeader, Frame, Section

# Beyond this what the DB writer has not stored is missing, and said to be.
PATIENCE_S = 10.0
LOOK_S = 0.05
BUSY_S = 0.2
# One read covers so many seqs, or fewer, so that its step rows hold no more than so many bytes.
MAX_SEQS = 4_096
MAX_SEQS_WITHOUT_STEPS = 65_536
MAX_BYTES = 4 << 20

_STREAMS = """
SELECT s.stream_no, s.stream, s.run, s.worker, s.host, s.pid, s.started_ns, s.forked_from, s.resumed_from,
       s.resumed_step, s.schemas, s.last_seq, coalesce(s.first_seq, 1), r.name
  FROM streams AS s JOIN runs AS r USING (run) ORDER BY s.stream_no
"""


class HistoryBatch(RecordBatch):
    """Records of one kind from one stream, as they were when they were live. Already decoded."""

    is_history = True

    def __init__(self, info: StreamInfo, kind: str, group: Group) -> None:
        """`group` holds at least one record, in seq order."""
        number, count = KIND_NUMBER[kind], len(group.content)
        section = Section(number, group.schema_id, count, 0)
        header = BatchHeader(bytes.fromhex(info.stream), group.first_seq, count, 0, (section,))
        super().__init__(info, header, section, b"")
        self._content = group.content

    @property
    def columns(self) -> StepColumns:
        """Step rows as a structured array, laid out as the stream's schema says. Only for kind `step`."""
        if isinstance(self._content, list):
            raise WireError("schema", f"{self.kind} records are no step rows")
        return self._content

    @property
    def records(self) -> list[Record]:
        """Records. For every kind but `step`."""
        if not isinstance(self._content, list):
            raise WireError("kind", "step rows are not MessagePack records")
        return self._content


class _Share(NamedTuple):
    """A stream to be read up to a seq."""

    info: StreamInfo
    stream_no: int
    first_seq: int
    until_seq: int


class History:
    """Reads what is stored for one subscriber, once. Used by whoever uses the subscriber."""

    def __init__(self, settings: Settings, selection: Selection, link: SubscriberLink) -> None:
        """`link` is kept alive meanwhile; nothing is received from it."""
        self.is_done = False
        self.missing: dict[str, int] = {}
        self._path = database_of(settings)
        self._selection = selection
        self._link = link
        self._connection: sqlite3.Connection | None = None
        self._epoch: int = 0
        self._shares: deque[_Share] = deque()
        self._read_seq: dict[str, int] = {}
        self._until_seq: dict[str, int] = {}  # as first planned, for streams without a watermark
        self._passed_steps: dict[str, int] = {}
        self._waits_since_s: float | None = None
        self._has_given_up = False
        self._newest: dict[tuple[bytes, int], int] = {}
        self._floor: dict[tuple[bytes, int], int] = {}

    def poll(self, timeout_s: float, is_woken: Callable[[], bool]) -> list[HistoryBatch]:
        """The next batches, within `timeout_s`; none when the database is not so far, or all is read."""
        clock = self._link.clock
        end_s = clock.monotonic_s() + timeout_s
        wait_s = 0.0
        while True:
            self._link.wait(wait_s, for_data=False)
            if self._link.epoch != self._epoch:
                # A first welcome, or a new router's: what the old one had for us is to be read, too.
                self._epoch = self._link.epoch
                self._shares.clear()
                self._waits_since_s, self._has_given_up = None, False
            batches = self._turn() if self._epoch else []
            left_s = end_s - clock.monotonic_s()
            if batches or self.is_done or left_s <= 0 or is_woken():
                return batches
            wait_s = 0.0 if self._shares else min(left_s, LOOK_S)

    def unseen(self, header: BatchHeader, section: Section, body: Frame) -> tuple[Section, Frame] | None:
        """What of a delivered section was not handed out before; None when all was.

        A new router delivers again what was not acked. Within one epoch nothing comes twice, and under `latest` an
        older batch may rightly come late, so only what former epochs gave is left out.
        """
        if self._link.epoch != self._epoch:
            self._epoch = self._link.epoch
            for known, seq in self._newest.items():
                self._floor[known] = max(seq, self._floor.get(known, 0))
        key = (header.stream, section.kind)
        read_seq = self._read_seq.get(header.stream.hex(), 0)
        floor = max(read_seq, self._floor.get(key, 0))
        self._newest[key] = max(header.last_seq, self._newest.get(key, 0))
        if header.first_seq > floor:
            return section, body
        return after_seq(section, body, floor) if header.last_seq > floor else None

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ---- which streams, how far ----

    def _turn(self) -> list[HistoryBatch]:
        try:
            connection = self._open()
            if not self._shares and (connection is None or not self._plan(connection)):
                self._pause()
            if self._shares and connection is not None:
                return self._read(connection)
        except sqlite3.OperationalError as error:  # busy, or just being made
            if self._has_waited():
                raise StoreError(f"{self._path}: history cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self._path}: {error}") from error
        return []

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and self._path.exists():
            # Whoever polls may be another thread than before; never two at a time.
            uri = f"file:{quote(str(self._path))}?mode=ro"
            self._connection = sqlite3.connect(
                uri, timeout=BUSY_S, isolation_level=None, check_same_thread=False, uri=True
            )
        return self._connection

    def _plan(self, connection: sqlite3.Connection) -> bool:
        """Put the streams that can be read now on the list; False when one must be waited for and none can be read."""
        behind = self._watermarks()
        late: list[_Share] = []
        for row in connection.execute(_STREAMS).fetchall():
            share = self._share(row)
            stored_seq, watermark = row[11], behind.pop(share.info.stream, None)
            if not self._selection.takes(
                share.info.run, share.info.run_name, share.info.worker
            ) or share.until_seq <= self._read_seq.get(share.info.stream, 0):
                continue
            if watermark is None or stored_seq >= watermark:
                self._shares.append(share)
            else:
                late.append(share)
                behind[share.info.stream] = watermark - stored_seq
        if behind and not self._shares and not self._has_given_up:
            if not self._has_waited():
                return False
            self._has_given_up = True
            self.missing |= behind
            self._shares.extend(late)
        self.is_done = not self._shares
        return True

    def _share(self, row: tuple[Any, ...]) -> _Share:
        stream_no, stream, run, worker, host, pid, started_ns, forked, resumed, step, schemas, last_seq, first, name = (
            row
        )
        info = StreamInfo(
            stream=stream,
            run=run,
            worker=worker,
            host=host,
            pid=pid,
            started_ns=started_ns,
            run_name=name,
            schemas=msgspec.json.decode(schemas, type=list[StepSchema]),
            forked_from=forked or "",
            is_resumed=resumed is not None,
            resumed_step=step,
        )
        if stream in self._link.watermarks:
            until_seq = self._link.watermarks[stream]
        else:  # once read, the rest of it comes live
            until_seq = self._until_seq.setdefault(stream, last_seq)
        return _Share(info, stream_no, first, until_seq)

    def _watermarks(self) -> dict[str, int]:
        return {stream: seq for stream, seq in self._link.watermarks.items() if seq > 0}

    def _pause(self) -> None:
        if self._connection is None:
            behind = self._watermarks()
            if not behind or self._has_waited():
                self.missing |= behind
                self.is_done = True

    def _has_waited(self) -> bool:
        now_s = self._link.clock.monotonic_s()
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        return now_s - self._waits_since_s >= PATIENCE_S

    # ---- reading ----

    def _read(self, connection: sqlite3.Connection) -> list[HistoryBatch]:
        """The records of the next stretch of seqs, which may hold none that are wanted."""
        share = self._shares[0]
        stream = share.info.stream
        first_seq = max(share.first_seq, self._read_seq.get(stream, 0) + 1)
        last_seq = min(share.until_seq, first_seq + self._span(share.info) - 1)
        found: list[HistoryBatch] = []
        passed = self._passed_steps.get(stream, 0)
        for kind in KINDS:
            if kind not in self._selection.kinds:
                continue
            if kind == "step":
                steps = read_steps(connection, share.stream_no, first_seq, last_seq, share.info.schemas)
                groups, passed = steps.every_nth(self._selection.decimate, passed)
            else:
                groups = STORED[kind].read(connection, share.stream_no, first_seq, last_seq, share.until_seq)
            found += [HistoryBatch(share.info, kind, group) for group in groups]
        self._passed_steps[stream] = passed
        self._read_seq[stream] = last_seq
        self._waits_since_s = None
        if last_seq >= share.until_seq:
            self._shares.popleft()
        return found

    def _span(self, info: StreamInfo) -> int:
        if "step" not in self._selection.kinds:
            return MAX_SEQS_WITHOUT_STEPS
        row_bytes = max((step_dtype(schema).itemsize for schema in info.schemas), default=1)
        return int(np.clip(MAX_BYTES // max(1, row_bytes), 1, MAX_SEQS))
