"""The DB writer's store: one SQLite file, one connection that writes, every record once.

Readers (`store_reader.py`) are other processes and see what is committed. Loss here is not normal: what the
store cannot take it raises, and what never came it notes in `drops`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from runlane.actors.record_rows import DROP_SQL, ROW_KINDS, rows_of
from runlane.actors.run_rows import apply_run_record, open_stream
from runlane.actors.step_rows import (
    SEQ_BITS,
    SEQ_MASK,
    RowBuffer,
    ScalarLayout,
    SqlValue,
    StepBatch,
    StepLayout,
    VectorLayout,
    step_layout,
)
from runlane.actors.store_file import open_writer, store_errors
from runlane.actors.wal_keeper import WalKeeper
from runlane.config.errors import EndpointError, StoreError
from runlane.config.names import KINDS
from runlane.config.settings import DbWriterSettings
from runlane.transport.endpoint import RoleLock
from runlane.transport.messages import StepSchema, StreamInfo
from runlane.transport.records import Record, RunRecord
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
  steps = steps + ?4, episodes = episodes + ?5
 WHERE stream_no = ?1
"""


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What this store did since it was opened: new `rows` by kind, records that were `resent`, and its files."""

    rows: dict[str, int]
    resent: int
    commits: int
    rollbacks: int
    wal_bytes: int
    database_bytes: int
    checkpoints: int
    checkpoints_blocked: int


@dataclass(slots=True)
class _Change:
    """What the open transaction adds to one row of `streams`."""

    first_seq: int | None = None
    last_seq: int = 0
    steps: int = 0
    episodes: int = 0


class Store:
    """The database, open for writing. Not thread safe; a second store on the same file is refused.

    Streams and records are taken between `begin` and `commit` only; `rollback` after an error, or to give up.
    A transaction that is tried again, or a batch that is sent again, brings the same records: each is stored
    and counted once.
    """

    def __init__(self, path: Path, settings: DbWriterSettings) -> None:
        """Open or create the database; raises `StoreError` naming the file and the remedy."""
        self.path = path
        self._connection = open_writer(path, settings)
        try:
            self._lock = RoleLock(path.parent, path.name)
        except (EndpointError, OSError) as error:
            self._connection.close()
            raise StoreError(f"{path} has another writer, or its lock cannot be taken: {error}") from error
        self._cursor = self._connection.cursor()
        self._log = WalKeeper(self._connection, settings.wal_limit_bytes)
        self._buffers = {layout: RowBuffer(self._cursor, layout) for layout in (ScalarLayout, VectorLayout)}
        self._layouts: dict[tuple[int, int], tuple[StepSchema, StepLayout]] = {}
        self._newest_steps: dict[int, int] = {}  # by stream, stored or buffered
        self._changes: dict[int, _Change] = {}
        self._counted: Counter[str] = Counter()  # in the open transaction
        self._committed: Counter[str] = Counter()

    # ---- the transaction ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to write; the file's one write lock is taken here, not at the first insert."""
        with store_errors(self.path):
            self._cursor.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make everything since `begin` last. Before this returns nothing of it may be acked."""
        with store_errors(self.path):
            self._flush()
            for stream_no, change in self._changes.items():
                self._update_stream(stream_no, change)
            self._cursor.execute("COMMIT")
        self._committed.update(self._counted)
        self._committed["commits"] += 1
        self._end_transaction()
        for cache in (self._newest_steps, self._layouts):
            if len(cache) > MAX_CACHED:
                cache.clear()
        self._log.after_commit()

    def rollback(self) -> None:
        """Forget everything since `begin`. Harmless when SQLite did so by itself, as on a full disk."""
        self._committed["rollbacks"] += 1
        self._end_transaction()
        self._newest_steps.clear()
        with store_errors(self.path):
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")

    # ---- streams -----------------------------------------------------------------------------------------

    def open_stream(self, info: StreamInfo) -> int:
        """Number of a stream in this database, the same each time; keeps its run and schemas up to date."""
        self._require_transaction()
        with store_errors(self.path):
            return open_stream(self._connection, info)

    def watermark(self, stream_no: int) -> int:
        """Seq up to which the stream is committed without a hole; 0 for none."""
        with store_errors(self.path):
            found = self._cursor.execute("SELECT last_seq FROM streams WHERE stream_no = ?", (stream_no,)).get
        return int(found or 0)

    def advance(self, stream_no: int, last_seq: int) -> None:
        """Move the watermark. It is committed together with the records it speaks of, and never goes back."""
        change = self._change(stream_no)
        change.last_seq = max(change.last_seq, last_seq)

    # ---- records -----------------------------------------------------------------------------------------

    def insert_steps(self, stream_no: int, schema: StepSchema, body: Frame, section: Section) -> int:
        """Store a step section; returns how many of its rows were new.

        Raises `WireError`, and stores nothing of the section, when it does not fit its schema.
        """
        change = self._change(stream_no)
        layout = self._layout(stream_no, schema)
        batch = layout.decode(body, section)
        with store_errors(self.path):
            batch = self._without_stored(stream_no, batch)
            new = len(batch.seqs)
            if new:
                self._buffers[type(layout)].add(layout.values(batch, stream_no))
                self._newest_steps[stream_no] = max(self._newest_steps[stream_no], int(batch.seqs[-1]))
                change.steps += layout.env_steps(batch)
                _note_first(change, int(batch.seqs[0]))
        return self._count("step", new, section.records)

    def insert_records(self, stream_no: int, kind: str, records: list[Record]) -> int:
        """Store records of one kind other than step; returns how many were new. Raises `WireError` as above."""
        change = self._change(stream_no)
        rows = rows_of(kind, records, stream_no)
        if not rows:
            return 0
        with store_errors(self.path):
            new = self._insert(kind, rows)
            ...
        return self._count(kind, new, len(records))
