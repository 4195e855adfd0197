"""The DB writer: the `block` subscriber that commits, then acks. The only process that writes the database.

Deliveries are collected until `commit_rows` or `commit_ms`, written in one transaction, committed, and only
then echoed: the echo is the ack. A delivery that cannot be decoded is stored as a `drops` row, because a
durable path that stops at one bad batch would lose everything behind it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from runlane.actors.deletion_desk import DeletionDesk
from runlane.actors.orphans import journals_dir
from runlane.actors.outage import Outage
from runlane.actors.retention import Retention
from runlane.actors.run_videos import RunVideos
from runlane.actors.store import Store
from runlane.actors.store_figures import CommitTimes, FigureRows, Figures
from runlane.actors.store_file import StoreFullError
from runlane.actors.video_file import VIDEO_DIR
from runlane.config import log_ids
from runlane.config.errors import StoreError, WireError
from runlane.config.names import DB_WRITER, KINDS
from runlane.config.settings import Settings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.columns import decode_records
from runlane.transport.endpoint import RoleLock, data_dir_of, database_of, make_run_dir
from runlane.transport.log import log_event
from runlane.transport.messages import RunDelete, StepSchema, StreamInfo
from runlane.transport.subscriber_link import SubscriberLink
from runlane.transport.wire import STEP, BatchHeader, Delivery, Frame, Section

# What decoding a stranger's records may raise. One bad section must not stop the durable path of all others.
_UNREADABLE = (WireError, RecursionError, OverflowError, ValueError, TypeError)


@dataclass(slots=True)
class _OpenStream:
    """A stream as the open transaction leaves it."""

    info: StreamInfo
    number: int
    stored_seq: int


@dataclass(slots=True)
class _StepRun:
    """Step sections in a row of one stream and layout: decoded together, because each decoding costs its calls."""

    stream: _OpenStream
    schema_id: int
    parts: list[tuple[BatchHeader, Section, Frame]] = field(default_factory=list[tuple[BatchHeader, Section, Frame]])


class DbWriterActor:
    """The DB writer process."""

    name = DB_WRITER

    def __init__(
        self, settings: Settings, clock: Clock | None = None, open_store: Callable[..., Store] = Store
    ) -> None:
        """Nothing is opened before `on_start`."""
        self.settings = settings
        self.clock = clock or SystemClock()
        self._open_store = open_store
        self._pending: list[Delivery] = []
        self._infos: dict[bytes, StreamInfo] = {}  # of the streams among them
        self._pending_rows = 0
        self._pending_since_s = 0.0
        self._pending_since_ns = 0
        self._pending_epoch = 0
        self._outage = Outage()
        self._heard: dict[str, int] = {}  # streams of which the router heard since the last commit, and when we did
        self._commit_times = CommitTimes(self.clock.monotonic_s())
        self._streams: dict[bytes, _OpenStream] = {}
        self._step_run: _StepRun | None = None
        self._is_stopping = False
        self._rows = 0
        self._rejected = 0
        self._last_commit_s = 0.0

    # ---- life ----

    def on_start(self) -> None:
        """Take the role's lock, then begin."""
        self._lock = RoleLock(make_run_dir(self.settings), DB_WRITER)
        self._open()

    def _open(self) -> None:
        """Open the database, then join: nothing is delivered before it can be stored. On a full disk: later."""
        database = database_of(self.settings)
        try:
            self._store = self._open_store(database, self.settings.db_writer, self.clock)
        except StoreFullError as error:
            self._outage.fail(self.clock.monotonic_s(), 0, error)
            return
        self._outage.end(self.clock.monotonic_s())
        log_event(log_ids.DURABLE_OPENED, database=database)
        videos = RunVideos(data_dir_of(self.settings) / VIDEO_DIR)
        self._retention = Retention(self._store, self.settings.retention, self.clock, videos)
        self._desk = DeletionDesk(self._store, self._retention, videos, journals_dir(self.settings), self.clock)
        declared = self.settings.subscribers.get(DB_WRITER)
        window = declared.window if declared is not None else 16
        kinds: list[str] = declared.kinds if declared is not None else list(KINDS)
        self._link = SubscriberLink(self.settings, DB_WRITER, kinds, None, window, self.clock)
        self._figures = Figures(self._link.rejections, self._own_values)
        self._link.on_streams_alive = self._on_streams_alive
        self._link.on_accounts = self._figures.on_accounts
        self._link.on_metrics = self._figures.on_metrics
        self._link.on_run_delete = self._on_run_delete

    @property
    def _is_open(self) -> bool:
        return hasattr(self, "_link")

    def do_work(self, timeout_s: float) -> None:
        """Take what is there; commit when it is enough, old enough, or all that can come for now."""
        now_s = self.clock.monotonic_s()
        if not self._is_open:
            if self._outage.is_over_at(now_s):
                self._open()
            else:
                time.sleep(min(timeout_s, self._outage.pause_s(now_s)))
            return
        if self._pending:
            age_s = now_s - self._pending_since_s
            due_s = max(self.settings.db_writer.commit_ms / 1000 - age_s, self._outage.pause_s(now_s))
            timeout_s = min(timeout_s, max(0.0, due_s))
        elif self._retention.has_work:
            timeout_s = 0.0
        took = self._take()
        if not took:
            self._link.wait(timeout_s, for_data=self._pending_rows < self.settings.db_writer.commit_rows)
            took = self._take()
        if self._is_due():
            self._commit()
        if not self._pending and not took:
            self._store.tend()
        self._retain(is_idle=not took)

    def _retain(self, *, is_idle: bool) -> None:
        """Let retention work where no ack waits for it, or where the disk is full, which it may mend."""
        is_waiting = self._pending and self._outage.is_over_at(self.clock.monotonic_s())
        if not is_waiting and not self._is_stopping:
            self._retention.do_work(is_idle=is_idle)

    def request_stop(self) -> None:
        """Commit what is there until the router says goodbye."""
        self._is_stopping = True

    def is_drained(self) -> bool:
        """Whether the router is gone for good and everything it delivered is committed."""
        if not self._is_open:
            return True
        if self._pending or (self._figures and not self._outage.attempts):  # no stop waits on a full disk for figures
            return False
        return self._link.router_said_bye or not self._link.is_joined

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat."""
        if not self._is_open:
            return {"failed_attempts": self._outage.attempts}
        return {
            "failed_attempts": self._outage.attempts,
            "rows_committed": self._rows,
            "commit_s": self._last_commit_s,
            "pending_rows": self._pending_rows,
            "rejected_batches": self._rejected,
            "removed_rows": self._retention.removed_rows,
            "rejected": dict(self._link.rejections.by_reason),
            "lost_figures": self._figures.lost,
            "is_joined": self._link.is_joined,
            **msgspec.to_builtins(self._store.statistics()),
        }

    def on_close(self) -> None:
        """Leave the bus, close the database, let the lock go."""
        if hasattr(self, "_link"):
            self._link.close()
        if hasattr(self, "_store"):
            self._store.close()
        if hasattr(self, "_lock"):
            self._lock.release()

    # ---- deliveries ----

    def _take(self) -> bool:
        """Collect deliveries that are there, up to one transaction's worth."""
        took = False
        while self._pending_rows < self.settings.db_writer.commit_rows:
            if self._pending and self._pending_epoch != self._link.epoch:
                break  # of a former router: commit these by themselves, their echo goes nowhere
            delivery = self._link.receive()
            if delivery is None:
                break
            if not self._pending:
                self._pending_since_s = self.clock.monotonic_s()
                self._pending_since_ns = self.clock.wall_ns()
                self._pending_epoch = self._link.epoch
            info = self._link.streams.get(delivery.header.stream)
            if info is not None:  # noted now: a router that takes the place of this one's forgets it for a while
                self._infos[delivery.header.stream] = info
            self._pending.append(delivery)
            self._pending_rows += delivery.header.records
            took = True
        return took

    def _on_streams_alive(self, streams: list[str]) -> None:
        """The router's word, once a second. A commit of ours notes it, one with records if there is any."""
        self._heard.update(dict.fromkeys(streams, self.clock.wall_ns()))

    def _on_run_delete(self, question: RunDelete) -> None:
        """A person's wish: noted now, between two transactions; the rows go when retention has its turn."""
        self._link.answer(self._desk.answer(question, self.clock.monotonic_s() - self._link.joined_s))

    def _own_values(self) -> dict[str, float]:
        """Our own figures at this moment, since those of the moment before."""
        store = self._store.statistics()
        return {
            **self._commit_times.take(self.clock.monotonic_s()),
            "pending_rows": self._pending_rows,
            "wal_bytes": store.wal_bytes,
            "database_bytes": store.database_bytes,
        }

    def _is_due(self) -> bool:
        if not self._outage.is_over_at(self.clock.monotonic_s()):
            return False
        if not self._pending:
            return bool(self._heard or self._figures)
        # A full window means the router waits for our echo: waiting for more rows would only wait for it.
        return (
            self._pending_rows >= self.settings.db_writer.commit_rows
            or len(self._pending) >= self._link.window
            or self.clock.monotonic_s() - self._pending_since_s >= self.settings.db_writer.commit_ms / 1000
            or self._pending_epoch != self._link.epoch
            or self._is_stopping
        )

    def _commit(self) -> None:
        """Store all that is pending, or heard, in one transaction, then ack it. On failure all is kept, unacked."""
        started_s = self.clock.monotonic_s()
        try:
            self._store.begin()
            for delivery in self._pending:
                self._store_delivery(delivery)
            self._store_step_run()
            self._store.note_seen(self._heard)
            figures = self._store_figures()
            self._store.commit()
        except StoreError as error:
            self._store.rollback()
            self._streams.clear()
            self._step_run = None
            self._outage.fail(self.clock.monotonic_s(), self._pending_rows, error)
            return
        self._outage.end(self.clock.monotonic_s())
        self._heard.clear()
        self._figures.forget(figures)
        if not self._pending:
            return
        self._link.echo(self._pending[-1].number, self._pending_epoch)
        self._last_commit_s = self.clock.monotonic_s() - started_s
        self._rows += self._pending_rows
        self._commit_times.note(self._last_commit_s, self._pending_rows)
        log_event(log_ids.DURABLE_COMMITTED, rows=self._pending_rows, seconds=self._last_commit_s)
        self._pending = []
        self._infos.clear()
        self._pending_rows = 0

    def _store_figures(self) -> FigureRows:
        """Store a part of the accounts and figures that wait. What cannot be stored is told, and no record waits."""
        rows = self._figures.next_rows()
        if not (rows.accounts or rows.metrics):
            return rows
        try:
            self._store.put_figures(rows, self.clock.wall_ns())
        except StoreFullError:
            raise
        except (StoreError, *_UNREADABLE) as error:
            self._link.rejections.reject(WireError("invalid", str(error)), DB_WRITER)
        return rows

    def _store_delivery(self, delivery: Delivery) -> None:
        header = delivery.header
        stream = self._stream(header)
        expected = stream.stored_seq + 1
        if header.first_seq > expected:
            if not self._outage.attempts:  # each time it is stored, but told once
                log_event(log_ids.DURABLE_GAP, stream=header.stream.hex(), expected=expected, got=header.first_seq)
            self._store.note_gap(stream.number, expected, header.first_seq - 1, header.closed_ns)
        self._store.advance(stream.number, header.last_seq, self._pending_since_ns)
        if header.last_seq < expected:
            return  # sent again, stored before
        for section, body in zip(header.sections, delivery.bodies, strict=True):
            if body is not None:
                self._store_section(stream, header, section, body)
        stream.stored_seq = header.last_seq

    def _store_section(self, stream: _OpenStream, header: BatchHeader, section: Section, body: Frame) -> None:
        if section.kind == STEP:
            run = self._step_run
            if run is None or run.stream is not stream or run.schema_id != section.schema_id:
                self._store_step_run()
                run = self._step_run = _StepRun(stream, section.schema_id)
            run.parts.append((header, section, body))
            return
        try:
            kind = KINDS[section.kind - 1]
            self._store.insert_records(stream.number, kind, decode_records(body, section))
        except _UNREADABLE as error:
            self._reject(stream, header, section, error)

    def _store_step_run(self) -> None:
        """Store the steps collected of one stream and layout. If they do not fit, find out which batch does not."""
        run, self._step_run = self._step_run, None
        if run is None:
            return
        bodies = [body for _, _, body in run.parts]
        records = sum(section.records for _, section, _ in run.parts)
        whole = Section(STEP, run.schema_id, records, sum(map(len, bodies)))
        try:
            self._store.insert_steps(run.stream.number, self._schema(run), bytearray().join(bodies), whole)
        except _UNREADABLE:
            for header, section, body in run.parts:
                try:
                    self._store.insert_steps(run.stream.number, self._schema(run), body, section)
                except _UNREADABLE as error:
                    self._reject(run.stream, header, section, error)

    def _schema(self, run: _StepRun) -> StepSchema:
        # The database knows every schema that was ever announced, also by who is dead now; it is asked only then.
        schema = run.stream.info.schema(run.schema_id)
        if schema is None:
            stored = self._store.schemas(run.stream.number)
            schema = next((known for known in stored if known.schema_id == run.schema_id), None)
        if schema is None:
            raise WireError("schema", f"no schema {run.schema_id} was announced")
        return schema

    def _reject(self, stream: _OpenStream, header: BatchHeader, section: Section, error: Exception) -> None:
        """Note records that came and cannot be read: the durable path must not stop at one bad batch."""
        if not self._outage.attempts:
            self._rejected += 1
            log_event(log_ids.DURABLE_REJECTED, stream=stream.info.stream, first_seq=header.first_seq, error=error)
        kind = KINDS[section.kind - 1]
        self._store.note_reject(
            stream.number, header.first_seq, header.last_seq, header.closed_ns, kind, str(error), section.records
        )

    def _stream(self, header: BatchHeader) -> _OpenStream:
        """The stream's number and watermark, read from the database once; its info as last announced."""
        known = self._streams.get(header.stream)
        info = (
            self._link.streams.get(header.stream) or self._infos.get(header.stream) or (known.info if known else None)
        )
        if info is None:  # never announced: keep what can be kept, under its id
            info = StreamInfo(
                stream=header.stream.hex(),
                run="unannounced",
                worker="unannounced",
                host="",
                pid=0,
                started_ns=header.closed_ns,
            )
        if known is None:
            number = self._store.open_stream(info)
            known = self._streams[header.stream] = _OpenStream(info, number, self._store.watermark(number))
        elif known.info is not info:
            self._store.open_stream(info)
            known.info = info
        return known
