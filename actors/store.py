"""The DB writer's store: one SQLite file, one connection that writes, every record once.

Readers (`store_reader.py`) are other processes and see what is committed. Loss here is not normal: what the
store cannot take it raises, and what never came it notes in `drops`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from runlane.actors.account_rows import AccountRows
from runlane.actors.deletion_rows import DeletionRows
from runlane.actors.record_rows import DROP_SQL, ROW_KINDS, rows_of
from runlane.actors.removal import Removal, Removals
from runlane.actors.rollups import EpisodeRollups
from runlane.actors.run_rows import apply_run_record, open_stream
from runlane.actors.sql import SqlRow, SqlValue
from runlane.actors.step_rows import StepBatch, StepLayout, step_layout
from runlane.actors.store_figures import FigureRows
from runlane.actors.store_file import DISK_FULL, StoreFullError, make_room, open_writer, store_errors
from runlane.actors.store_metrics import StoreMetrics
from runlane.actors.wal_keeper import WalKeeper
from runlane.config.errors import EndpointError, StoreError
from runlane.config.names import KINDS
from runlane.config.settings import DbWriterSettings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import RoleLock
from runlane.transport.messages import StepSchema, StreamInfo
from runlane.transport.records import Record, RunRecord
from runlane.transport.row_key import SEQ_BITS, SEQ_MASK
from runlane.transport.wire import Frame, Section

MAX_CACHED = 4_096  # streams and layouts remembered; each is found again when it was forgotten

_NEWEST_STEP = """
SELECT max((SELECT coalesce(max(id), 0) FROM step_rows WHERE id BETWEEN ?1 AND ?2),
           (SELECT coalesce(max(id), 0) FROM vector_step_rows WHERE id BETWEEN ?1 AND ?2))
"""
_STORED_STEPS = """
SELECT id FROM step_rows WHERE id BETWEEN ?1 AND ?2 UNION ALL
SELECT id FROM vector_step_rows WHERE id BETWEEN ?1 AND ?2
"""
_UPDATE_STREAM = """
UPDATE streams SET
  first_seq = min(coalesce(first_seq, ?2), coalesce(?2, first_seq)), last_seq = max(last_seq, ?3),
  steps = steps + ?4, episodes = episodes + ?5, seen_ns = coalesce(?6, seen_ns)
 WHERE stream_no = ?1
"""
_NOTE_SEEN = "UPDATE streams SET seen_ns = ?2 WHERE stream = ?1"


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a store did since it was opened: new `rows` by kind, rows that were there before, and its files.

    `wal_pinned_s` is how long readers have kept a log that is too large, `wal_pinned_by` who they are, as last seen.
    """

    rows: dict[str, int]
    resent_rows: int
    rollbacks: int
    database_bytes: int
    wal_bytes: int
    checkpoints: int
    checkpoints_blocked: int
    checkpoints_failed: int
    wal_requests: int
    wal_pinned_s: float
    wal_pinned_by: list[int]


@dataclass(slots=True)
class _Change:
    """What the open transaction adds to one row of `streams`."""

    first_seq: int | None = None
    last_seq: int = 0
    steps: int = 0
    episodes: int = 0
    seen_ns: int = 0


class Store:
    """The database, open for writing. Not thread safe; a second store on the same file is refused.

    Streams and records are taken between `begin` and `commit` only; `rollback` after an error, or to give up.
    A transaction that is tried again, or a batch that is sent again, brings the same records: each is stored
    and counted once.
    """

    def __init__(self, path: Path, settings: DbWriterSettings, clock: Clock | None = None) -> None:
        """Open or create the database; raises `StoreError` naming the file and the remedy."""
        make_room(path)
        self.path = path
        self._lock = _take_lock(path)
        try:
            self._connection = open_writer(path, settings)
        except BaseException:
            self._lock.release()
            raise
        self._cursor = self._connection.cursor()
        self.removals = Removals(self._connection)
        self.deletions = DeletionRows(self._connection)
        self._rollups = EpisodeRollups(self._connection)
        self._accounts = AccountRows(self._connection)
        self._metrics = StoreMetrics(self._connection)
        self._log = WalKeeper(self._connection, path, settings.wal_limit_bytes, clock or SystemClock())
        self._layouts: dict[tuple[int, int], tuple[StepSchema, StepLayout]] = {}
        self._newest_steps: dict[int, int] = {}  # by stream, the open transaction included
        self._changes: dict[int, _Change] = {}
        self._seen: dict[str, int] = {}
        self._counted: Counter[str] = Counter()  # in the open transaction
        self._committed: Counter[str] = Counter()
        self._is_closed = False

    # ---- the transaction ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to write; the file's one write lock is taken here, not at the first insert."""
        with store_errors(self.path):
            self._cursor.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make everything since `begin` last. Before this returns nothing of it may be acked."""
        with store_errors(self.path):
            self._rollups.write()
            for stream_no, change in self._changes.items():
                self._update_stream(stream_no, change)
            if self._seen:
                self._cursor.executemany(_NOTE_SEEN, list(self._seen.items()))
            self._cursor.execute("COMMIT")
        self._committed.update(self._counted)
        self._end_transaction()
        self._rollups.end(is_committed=True)
        for cache in (self._newest_steps, self._layouts):
            if len(cache) > MAX_CACHED:
                cache.clear()
        self._log.after_commit()

    def rollback(self) -> None:
        """Forget everything since `begin`. Harmless when SQLite did so by itself, as on a full disk."""
        self._committed["rollbacks"] += 1
        self._end_transaction()
        self._newest_steps.clear()
        self._rollups.end(is_committed=False)
        self.removals.forget()
        self._metrics.forget()
        with store_errors(self.path):
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")

    def tend(self) -> None:
        """Between transactions, when nothing is committed: empty a log that readers had kept."""
        self._log.tend()

    # ---- streams -----------------------------------------------------------------------------------------

    def open_stream(self, info: StreamInfo) -> int:
        """Number of a stream in this database, the same each time; keeps its run and schemas up to date."""
        self._require_transaction()
        with store_errors(self.path):
            stream_no = open_stream(self._connection, info)
            if not self.watermark(stream_no) and self.deletions.note_stream(stream_no, info):
                self.removals.forget()
            return stream_no

    def schemas(self, stream_no: int) -> list[StepSchema]:
        """Every schema of the stream that was announced so far."""
        with store_errors(self.path):
            found = self._cursor.execute("SELECT schemas FROM streams WHERE stream_no = ?", (stream_no,)).get
        return msgspec.json.decode(found or "[]", type=list[StepSchema])

    def watermark(self, stream_no: int) -> int:
        """Seq up to which the stream is stored without a hole, the open transaction included; 0 for none."""
        with store_errors(self.path):
            found = self._cursor.execute("SELECT last_seq FROM streams WHERE stream_no = ?", (stream_no,)).get
        change = self._changes.get(stream_no)
        return max(found or 0, change.last_seq if change else 0)

    def advance(self, stream_no: int, last_seq: int, seen_ns: int = 0) -> None:
        """Move the watermark. It is committed together with the records it speaks of, and never goes back.

        `seen_ns` is when they came, by our clock.
        """
        change = self._change(stream_no)
        change.last_seq = max(change.last_seq, last_seq)
        change.seen_ns = max(change.seen_ns, seen_ns)

    def note_seen(self, seen: Mapping[str, int]) -> None:
        """Note when streams were last heard of, wall clock by id; unknown ones are passed over.

        A run without it, that has not ended, reads as lost.
        """
        self._require_transaction()
        self._seen.update(seen)

    # ---- figures of the graph ----------------------------------------------------------------------------

    def put_figures(self, rows: FigureRows, now_ns: int) -> None:
        """Store accounts and figures, all or none. On an error that is no full disk the transaction is as before."""
        self._require_transaction()
        with store_errors(self.path):
            self._cursor.execute("SAVEPOINT figures")
            try:
                self._accounts.put(rows.accounts)
                if rows.metrics:
                    self._metrics.put(rows.metrics, now_ns)
            except BaseException:
                self._metrics.forget()
                if self._connection.in_transaction:  # not where SQLite rolled all of it back
                    self._cursor.execute("ROLLBACK TO figures")
                    self._cursor.execute("RELEASE figures")
                raise
            self._cursor.execute("RELEASE figures")

    # ---- records -----------------------------------------------------------------------------------------

    def insert_steps(self, stream_no: int, schema: StepSchema, body: Frame, section: Section) -> int:
        """Store a step section; returns how many of its rows were new. A `bytearray` is the store's from here on.

        Raises `WireError`, and stores nothing of the section, when it does not fit its schema.
        """
        change = self._change(stream_no)
        layout = self._layout(stream_no, schema)
        batch = layout.decode(body, section)
        with store_errors(self.path):
            batch = self._without_stored(stream_no, self._without_removed(stream_no, batch))
            new = len(batch.seqs)
            if new:
                for sql, bindings in layout.inserts(batch, stream_no):
                    self._cursor.executemany(sql, bindings)
                self._newest_steps[stream_no] = max(self._newest_steps[stream_no], int(batch.seqs[-1]))
                change.steps += layout.env_steps(batch)
                _note_first(change, int(batch.seqs[0]))
        return self._count("step", new, section.records)

    def insert_records(self, stream_no: int, kind: str, records: list[Record]) -> int:
        """Store records of one kind other than step; returns how many were new. Raises `WireError` as above."""
        change = self._change(stream_no)
        given = len(records)
        with store_errors(self.path):
            removed_seq = self.removals.last_seq(stream_no, kind)
            if removed_seq:
                records = [record for record in records if record.seq > removed_seq]
            rows = rows_of(kind, records, stream_no)
            if not rows:
                return self._count(kind, 0, given)
            new = self._insert_runs(stream_no, rows, records) if kind == "run" else self._insert(kind, stream_no, rows)
        if kind == "episode":
            change.episodes += new
        _note_first(change, min(record.seq for record in records))
        return self._count(kind, new, given)

    def note_gap(self, stream_no: int, first_seq: int, last_seq: int, t_ns: int) -> None:
        """Note that the records from `first_seq` to `last_seq` never came."""
        self._note(stream_no, first_seq, "", last_seq, t_ns, "gap", last_seq - first_seq + 1)

    def note_reject(
        self, stream_no: int, first_seq: int, last_seq: int, t_ns: int, kind: str, reason: str, records: int
    ) -> None:
        """Note that `records` records of one kind, between two seqs, came and could not be decoded."""
        self._note(stream_no, first_seq, kind, last_seq, t_ns, reason, records)

    # ---- retention ---------------------------------------------------------------------------------------

    def remove(self, removal: Removal, most_rows: int, t_ns: int) -> tuple[int, bool]:
        """Remove about so many rows in a transaction of its own; returns how many, and whether nothing is left.

        What is removed and the note of it in `retention_rows` are one commit. On an error nothing is removed.
        """
        self.begin()
        try:
            with store_errors(self.path):
                removed = self.removals.piece(removal, most_rows, t_ns)
            self.commit()
        except StoreError:
            self.rollback()
            raise
        self._rollups.forget()
        return removed

    def begin_deletion(self, run: str, t_ns: int) -> None:
        """Note in a transaction of its own that all of a run is to go; `removals` has it from then on."""
        self.begin()
        try:
            with store_errors(self.path):
                self.deletions.begin(run, t_ns)
            self.commit()
        except StoreError:
            self.rollback()
            raise
        self.removals.forget()

    # ---- figures and the end -----------------------------------------------------------------------------

    def statistics(self) -> StoreStatistics:
        """Figures of what is committed; file sizes as they are now."""
        return StoreStatistics(
            rows={kind: self._committed[kind] for kind in KINDS},
            resent_rows=self._committed["resent"],
            rollbacks=self._committed["rollbacks"],
            database_bytes=_size(self.path),
            wal_bytes=_size(self.path.with_name(f"{self.path.name}-wal")),
            checkpoints=self._log.checkpoints,
            checkpoints_blocked=self._log.blocked,
            checkpoints_failed=self._log.failed,
            wal_requests=self._log.requests,
            wal_pinned_s=self._log.pinned_s,
            wal_pinned_by=self._log.pinned_by,
        )

    def close(self) -> None:
        """Roll back what is open, move the log into the database, free the file. Again: nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._connection.in_transaction:
                self.rollback()
            self._log.close()
        finally:
            self._connection.close()
            self._lock.release()

    # ---- inside ------------------------------------------------------------------------------------------

    def _require_transaction(self) -> None:
        if not self._connection.in_transaction:
            raise StoreError(f"{self.path}: no transaction is open, or SQLite has rolled it back")

    def _end_transaction(self) -> None:
        self._changes.clear()
        self._seen.clear()
        self._counted.clear()

    def _change(self, stream_no: int) -> _Change:
        self._require_transaction()
        change = self._changes.get(stream_no)
        if change is None:
            change = self._changes[stream_no] = _Change()
        return change

    def _layout(self, stream_no: int, schema: StepSchema) -> StepLayout:
        key = (stream_no, schema.schema_id)
        known = self._layouts.get(key)
        if known is None or known[0] != schema:
            known = self._layouts[key] = (schema, step_layout(schema))
        return known[1]

    def _without_stored(self, stream_no: int, batch: StepBatch) -> StepBatch:
        """The batch without rows that came before. Looks them up only when its seqs are not all newer."""
        key = stream_no << SEQ_BITS
        if stream_no not in self._newest_steps:
            newest: int = self._cursor.execute(_NEWEST_STEP, (key, key | SEQ_MASK)).get
            self._newest_steps[stream_no] = newest & SEQ_MASK
        if not len(batch.seqs) or batch.seqs[0] > self._newest_steps[stream_no]:
            return batch
        between = (key | int(batch.seqs[0]), key | int(batch.seqs[-1]))
        stored = [row[0] & SEQ_MASK for row in self._cursor.execute(_STORED_STEPS, between)]
        is_new = ~np.isin(batch.seqs, stored)
        return StepBatch(batch.rows[is_new], batch.seqs[is_new])

    def _without_removed(self, stream_no: int, batch: StepBatch) -> StepBatch:
        """The batch without rows that were stored once, and that retention has removed since."""
        removed_seq = self.removals.last_seq(stream_no, "step")
        if not removed_seq:
            return batch
        is_new = batch.seqs > removed_seq
        return StepBatch(batch.rows[is_new], batch.seqs[is_new])

    def _insert(self, kind: str, stream_no: int, rows: list[SqlRow]) -> int:
        if kind == "episode":
            return self._rollups.insert(stream_no, rows)
        before = self._connection.total_changes()
        self._cursor.executemany(ROW_KINDS[kind].sql, rows)
        return self._connection.total_changes() - before

    def _insert_runs(self, stream_no: int, rows: list[SqlRow], records: list[Record]) -> int:
        new = 0
        for row, record in zip(rows, records, strict=True):
            if self._insert("run", stream_no, [row]) and isinstance(record, RunRecord):
                apply_run_record(self._connection, stream_no, record)
                new += 1
        return new

    def _note(self, *values: SqlValue) -> None:
        self._require_transaction()
        stream_no, first_seq, *rest = values
        with store_errors(self.path):
            self._cursor.execute(DROP_SQL, (stream_no, "db_writer", first_seq, *rest))

    def _update_stream(self, stream_no: int, change: _Change) -> None:
        values = (stream_no, change.first_seq, change.last_seq, change.steps, change.episodes, change.seen_ns or None)
        self._cursor.execute(_UPDATE_STREAM, values)
        if not self._connection.changes():
            raise StoreError(f"{self.path}: there is no stream number {stream_no}")

    def _count(self, kind: str, new: int, given: int) -> int:
        self._counted[kind] += new
        self._counted["resent"] += given - new
        return new


def _take_lock(path: Path) -> RoleLock:
    try:
        return RoleLock(path.parent, path.name)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StoreFullError(f"{path}: {error.strerror}; free some space, then it goes on") from error
        raise StoreError(f"the lock of {path} cannot be taken: {error}") from error
    except EndpointError as error:
        raise StoreError(f"{path} has another writer, or its lock cannot be taken: {error}") from error


def _note_first(change: _Change, seq: int) -> None:
    change.first_seq = seq if change.first_seq is None else min(change.first_seq, seq)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
