"""Taking rows out of the database again: a bounded number at a time, and never without saying so.

Only ended runs lose anything. `runs`, `streams` with their counters, `run_rows` and `drop_rows` stay for ever, so
what there was remains on record. `retention_rows` says what is gone and keeps it gone: a resend is refused by it.
"""

from typing import NamedTuple

from runlane.actors.row_key import SEQ_BITS
from runlane.actors.sql import Connection

# In the order in which a whole run is removed: `removed_runs` takes a run as removed when its episodes are.
CLASSES = ("step", "info", "log", "metric", "episode")
FOREVER = (1 << 63) - 1, "\U0010ffff"  # after every (ended_ns, run)

_MAX_CACHED = 4_096
_TABLES = {
    "step": ("step_rows", "vector_step_rows"),
    "info": ("info_rows",),
    "log": ("log_rows",),
    "metric": ("metric_rows",),
    "episode": ("episode_rows",),
}
_KEYS = {"info_rows": "step_id"}

_IS_ENDED = "SELECT EXISTS (SELECT 1 FROM ended_runs WHERE run = ?)"
_BEGUN = """
SELECT s.run, s.stream_no, t.class, t.reason, t.last_seq
  FROM retention_rows AS t JOIN streams AS s USING (stream_no) JOIN ended_runs AS r USING (run)
 WHERE NOT t.is_done LIMIT 1
"""
_NEXT = """
SELECT s.run, s.stream_no, ?1, ?2, s.last_seq
  FROM ended_runs AS r JOIN streams AS s USING (run)
 WHERE (r.ended_ns, r.run) <= (?3, ?4)
   AND NOT EXISTS (SELECT 1 FROM retention_rows AS t
                    WHERE t.stream_no = s.stream_no AND t.class = ?1 AND t.is_done AND t.last_seq >= s.last_seq)
 ORDER BY r.ended_ns, r.run, s.stream_no LIMIT 1
"""
_NEWEST = """
SELECT ended_ns, run FROM ended_runs WHERE run NOT IN (SELECT run FROM removed_runs)
 ORDER BY ended_ns DESC, run DESC LIMIT 1 OFFSET ?
"""
_OLDEST = """
SELECT ended_ns, run FROM ended_runs WHERE run NOT IN (SELECT run FROM removed_runs) ORDER BY ended_ns, run LIMIT 1
"""
_MARKS = "SELECT class, max(last_seq) FROM retention_rows WHERE stream_no = ? GROUP BY class"
_NOTE = """
INSERT INTO retention_rows VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
  last_seq = max(last_seq, excluded.last_seq), rows = rows + excluded.rows, t_ns = excluded.t_ns,
  is_done = excluded.is_done
"""
_REMOVE_ROLLUPS = """
DELETE FROM episode_rollups WHERE stream_no = ?1 AND (level, bucket) IN
  (SELECT level, bucket FROM episode_rollups WHERE stream_no = ?1 AND last_id <= ?2 LIMIT ?3)
"""

Moment = tuple[int, str]  # when a run ended, and which; orders runs by their end


class Removal(NamedTuple):
    """One class of one stream's records, up to a seq, and the setting that wants it gone."""

    run: str
    stream_no: int
    record_class: str
    reason: str
    last_seq: int


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

    def begun(self) -> Removal | None:
        """One that was begun and not finished, as by a writer that was killed."""
        return self._removal(_BEGUN)

    def next_of(self, record_class: str, reason: str, until: Moment) -> Removal | None:
        """Of the runs that ended until then, the oldest that still has records of the class."""
        return self._removal(_NEXT, record_class, reason, *until)

    def newest_ended(self, skipped: int) -> Moment | None:
        """The newest ended run after so many newer ones, removed ones not counted."""
        return self._moment(_NEWEST, skipped)

    def oldest_ended(self) -> Moment | None:
        """The ended run that has waited longest, removed ones not counted."""
        return self._moment(_OLDEST)

    def used_bytes(self) -> int:
        """Size of the database without its free pages, which new rows fill again. The file never shrinks."""
        pages = self._connection.pragma("page_count") - self._connection.pragma("freelist_count")
        return int(pages * self._connection.pragma("page_size"))

    # ---- removing ---------------------------------------------------------------------------------------

    def piece(self, removal: Removal, most_rows: int, t_ns: int) -> tuple[int, bool]:
        """Remove about so many rows at most; returns how many, and whether nothing is left to do.

        A run that goes on again keeps what it still has; the removal is finished when it has ended again.
        """
        if not self._connection.execute(_IS_ENDED, (removal.run,)).get:
            return 0, True
        rows, left = 0, most_rows
        for table in _TABLES[removal.record_class]:
            rows += self._delete(table, removal, left)
            left = most_rows - rows
            if left <= 0:
                break
        if left > 0 and removal.record_class == "episode":
            left -= self._delete_rollups(removal, left)
        is_done = left > 0
        _, stream_no, record_class, reason, last_seq = removal
        self._connection.execute(_NOTE, (stream_no, record_class, reason, last_seq, rows, t_ns, is_done))
        self._marks.pop(stream_no, None)
        return rows, is_done

    def _delete(self, table: str, removal: Removal, most_rows: int) -> int:
        key = _KEYS.get(table, "id")
        is_ours = f"{key} BETWEEN ?1 AND ?2" + (" AND seq <= ?4" if table == "info_rows" else "")
        last = f"SELECT max({key}) FROM (SELECT {key} FROM {table} WHERE {is_ours} ORDER BY {key} LIMIT ?3)"  # noqa: S608
        first = removal.stream_no << SEQ_BITS
        values = (first, first | removal.last_seq, most_rows, removal.last_seq)[: 4 if table == "info_rows" else 3]
        self._connection.execute(
            f"DELETE FROM {table} WHERE {is_ours} AND {key} <= ({last})",  # noqa: S608 - names of ours
            values,
        )
        return self._connection.changes()

    def _delete_rollups(self, removal: Removal, most_rows: int) -> int:
        key = removal.stream_no << SEQ_BITS
        self._connection.execute(_REMOVE_ROLLUPS, (removal.stream_no, key | removal.last_seq, most_rows))
        return self._connection.changes()

    def _removal(self, sql: str, *values: str | int) -> Removal | None:
        found = self._connection.execute(sql, values).fetchall()
        return Removal(*found[0]) if found else None

    def _moment(self, sql: str, *values: int) -> Moment | None:
        found = self._connection.execute(sql, values).fetchall()
        return (int(found[0][0]), str(found[0][1])) if found else None
