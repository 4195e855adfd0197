"""Taking rows out of the database again: a bounded number at a time, and never without saying so.

Only ended runs lose anything. `runs`, `streams` with their counters, `run_rows`, `drop_rows` and accounts stay for
ever, so what there was remains on record. `retention_rows` says what is gone and keeps it gone: a resend is refused by
it.
"""

from typing import Any, NamedTuple

from runlane.actors.sql import Connection
from runlane.transport.row_key import SEQ_BITS

# In the order in which a whole run is removed: `removed_runs` takes a run as removed when its episodes are.
CLASSES = ("step", "info", "log", "metric", "episode")
FOREVER_NS = (1 << 63) - 1
DELETED = "deleted"  # the reason of what a person wants gone

_MAX_CACHED = 4_096
_STREAM_ROWS = 16  # what a stream costs beside its rows, as if it had so many more
_IS_ENDED = "SELECT EXISTS (SELECT 1 FROM ended_runs WHERE run = ? AND ended_ns = ?)"
_BEGUN = """
SELECT DISTINCT r.run, r.ended_ns, t.class, t.reason
  FROM retention_rows AS t JOIN streams AS s USING (stream_no) JOIN ended_runs AS r USING (run)
 WHERE NOT t.is_done LIMIT ?
"""
_DELETIONS = """
SELECT DISTINCT r.run, r.ended_ns
  FROM retention_rows AS t JOIN streams AS s USING (stream_no) JOIN ended_runs AS r USING (run)
 WHERE NOT t.is_done AND t.reason = ? ORDER BY r.ended_ns, r.run LIMIT ?
"""
# What one reason had begun another may have finished.
_END = """
UPDATE retention_rows SET is_done = 1
 WHERE class = ?2 AND NOT is_done AND stream_no IN (SELECT stream_no FROM streams WHERE run = ?1)
"""
_WITH_CLASS = """
SELECT r.run, r.ended_ns, ?1, ?2
  FROM ended_runs AS r
 WHERE r.ended_ns <= ?3
   AND EXISTS (SELECT 1 FROM streams AS s WHERE s.run = r.run AND NOT EXISTS
                (SELECT 1 FROM retention_rows AS t
                  WHERE t.stream_no = s.stream_no AND t.class = ?1 AND t.is_done AND t.last_seq >= s.last_seq))
 ORDER BY r.ended_ns, r.run LIMIT ?4
"""
_KEPT = """
SELECT run, ended_ns FROM
  (SELECT run, ended_ns FROM ended_runs WHERE run NOT IN (SELECT run FROM removed_runs)
    ORDER BY ended_ns DESC, run DESC LIMIT -1 OFFSET ?)
 ORDER BY ended_ns, run LIMIT ?
"""
_STREAMS = """
SELECT s.stream_no, s.last_seq FROM streams AS s
 WHERE s.run = ?1
   AND NOT EXISTS (SELECT 1 FROM retention_rows AS t
                    WHERE t.stream_no = s.stream_no AND t.class = ?2 AND t.is_done AND t.last_seq >= s.last_seq)
 ORDER BY s.stream_no LIMIT ?3
"""
_MARKS = "SELECT class, max(last_seq) FROM retention_rows WHERE stream_no = ? GROUP BY class"
_NOTE = """
INSERT INTO retention_rows VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
  last_seq = max(last_seq, excluded.last_seq), rows = rows + excluded.rows, t_ns = excluded.t_ns,
  is_done = excluded.is_done
"""
# ?1 and ?2 are the ids between which rows go, ?3 how many at most, ?4 the seq that ?2 stands for.
_DELETE_BY_ID = """
DELETE FROM {0} WHERE id BETWEEN ?1 AND ?2 AND ?4 > 0
   AND id <= (SELECT max(id) FROM (SELECT id FROM {0} WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3))
"""
# An info's own seq counts, not its step's. Of one step all go together.
_DELETE_INFOS = """
DELETE FROM info_rows WHERE step_id BETWEEN ?1 AND ?2 AND seq <= ?4
   AND step_id <= (SELECT max(step_id) FROM (SELECT step_id FROM info_rows
                    WHERE step_id BETWEEN ?1 AND ?2 AND seq <= ?4 ORDER BY step_id LIMIT ?3))
"""
_DELETE = {
    "step": (_DELETE_BY_ID.format("step_rows"), _DELETE_BY_ID.format("vector_step_rows")),
    "info": (_DELETE_INFOS,),
    "log": (_DELETE_BY_ID.format("log_rows"),),
    "metric": (_DELETE_BY_ID.format("metric_rows"),),
    "episode": (_DELETE_BY_ID.format("episode_rows"),),
}
_DELETE_ROLLUPS = """
DELETE FROM episode_rollups WHERE stream_no = ?1 AND (level, bucket) IN
  (SELECT level, bucket FROM episode_rollups WHERE stream_no = ?1 AND last_id <= ?2 LIMIT ?3)
"""


class Removal(NamedTuple):
    """One class of one run's records, and the setting that wants it gone, or `deleted`."""

    run: str
    ended_ns: int
    record_class: str
    reason: str


class Removals:
    """What is to be removed, what was, and how. Part of the store: `piece` runs in the transaction the store opens."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._marks: dict[int, dict[str, int]] = {}

    # ---- what is gone -----------------------------------------------------------------------------------

    def last_seq(self, stream_no: int, record_class: str) -> int:
        """Seq up to which records of the class were removed, and are not to come back; 0 for none."""
        marks = self._marks.get(stream_no)
        if marks is None:
            if len(self._marks) >= _MAX_CACHED:
                self._marks.clear()
            marks = dict(self._connection.execute(_MARKS, (stream_no,)).fetchall())
            self._marks[stream_no] = marks
        return marks.get(record_class, 0)

    def forget(self) -> None:
        """Ask the database again, after a rollback."""
        self._marks.clear()

    # ---- what is to go ----------------------------------------------------------------------------------

    def deletions(self, most: int) -> list[Removal]:
        """Whole runs that persons want gone, as long as there is something left of them."""
        return self._whole(self._connection.execute(_DELETIONS, (DELETED, most)).fetchall(), DELETED)

    def begun(self, most: int) -> list[Removal]:
        """Those that were begun and not finished, as by a writer that was killed."""
        return self._found(_BEGUN, most)

    def of_class(self, record_class: str, reason: str, until_ns: int, most: int) -> list[Removal]:
        """Runs that ended until then and still have records of the class, the oldest first."""
        return self._found(_WITH_CLASS, record_class, reason, until_ns, most)

    def of_runs(self, reason: str, kept: int, most: int) -> list[Removal]:
        """Whole runs, the oldest first, but for the newest `kept` of those that have ended and are still there."""
        return self._whole(self._connection.execute(_KEPT, (kept, most)).fetchall(), reason)

    def used_bytes(self) -> int:
        """Size of the database without its free pages, which new rows fill again. The file never shrinks."""
        pages = self._connection.pragma("page_count") - self._connection.pragma("freelist_count")
        return int(pages * self._connection.pragma("page_size"))

    # ---- removing ---------------------------------------------------------------------------------------

    def piece(self, removal: Removal, most_rows: int, t_ns: int) -> tuple[int, bool]:
        """Remove about so many rows at most; returns how many, and whether nothing is left to do.

        A run that goes on again keeps what it still has; the removal is finished when it has ended again.
        """
        if not self._connection.execute(_IS_ENDED, (removal.run, removal.ended_ns)).get:
            return 0, True
        run, _, record_class, reason = removal
        rows, left, is_done = 0, most_rows, True
        most_streams = 1 + most_rows // _STREAM_ROWS
        streams = self._connection.execute(_STREAMS, (run, record_class, most_streams)).fetchall()
        for stream_no, last_seq in streams:
            if left <= 0:
                return rows, False
            gone, is_done = self._delete(record_class, stream_no, last_seq, left)
            self._connection.execute(_NOTE, (stream_no, record_class, reason, last_seq, gone, t_ns, is_done))
            self._marks.pop(stream_no, None)
            rows += gone
            left -= gone + _STREAM_ROWS
        is_done = is_done and len(streams) < most_streams
        if is_done:
            self._connection.execute(_END, (run, record_class))
        return rows, is_done

    def _delete(self, record_class: str, stream_no: int, last_seq: int, most_rows: int) -> tuple[int, bool]:
        """Rows of one stream; returns how many went, and whether all have."""
        first, rows = stream_no << SEQ_BITS, 0
        for sql in _DELETE[record_class]:
            self._connection.execute(sql, (first, first | last_seq, most_rows - rows, last_seq))
            rows += self._connection.changes()
            if rows >= most_rows:
                return rows, False
        if record_class == "episode":
            self._connection.execute(_DELETE_ROLLUPS, (stream_no, first | last_seq, most_rows - rows))
            return rows, self._connection.changes() < most_rows - rows
        return rows, True

    def _whole(self, runs: list[tuple[Any, ...]], reason: str) -> list[Removal]:
        return [Removal(run, ended_ns, name, reason) for run, ended_ns in runs for name in CLASSES]

    def _found(self, sql: str, *values: str | int) -> list[Removal]:
        return [Removal(*row) for row in self._connection.execute(sql, values).fetchall()]
