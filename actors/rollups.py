"""Episodes counted together as they are stored, so that readers of a long run have little to read.

A stream's episodes are numbered in the order they are stored, from 0; its counter in `streams` is the next number.
A bucket of level k holds 2^k numbers in a row. Level 4 is kept up to date by every commit; a bucket of level 8, 12
and so on is added up from 16 of the level below when the last of them is full. So an episode costs its share of one
row and little more, whatever the run's length, and a reader takes full buckets and, behind them, lower levels.
"""

from itertools import pairwise
from typing import Any, cast

from runlane.actors.sql import Connection, SqlRow
from runlane.transport.row_key import SEQ_BITS, SEQ_MASK

LEVEL_STEP = 4  # 16 buckets make one of the next level
BASE_LEVEL = LEVEL_STEP

EPISODE_SQL = "INSERT OR IGNORE INTO episode_rows VALUES (?,?,?,?,?,?,?,?,?)"
_EPISODE_IF_NEW = f"{EPISODE_SQL} RETURNING id"
_NEWEST = "SELECT coalesce(max(id), 0) FROM episode_rows WHERE id BETWEEN ? AND ?"
_NUMBER = "SELECT episodes FROM streams WHERE stream_no = ?"
_PUT = "INSERT OR REPLACE INTO episode_rollups VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
_OPEN = """
SELECT first_id, last_id, episodes, returns, min_return, sum_return, max_return, sum_length, first_t_ns, last_t_ns
  FROM episode_rollups WHERE stream_no = ? AND level = ? AND bucket = ?
"""
# `total` where `sum` would raise: a worker that reports absurd lengths must not stop the commit of all others.
_CARRY = """
INSERT OR REPLACE INTO episode_rollups
SELECT stream_no, ?2 + 4, ?3, min(first_id), max(last_id), sum(episodes), sum(returns), min(min_return),
       iif(count(sum_return) = count(*), total(sum_return), NULL), max(max_return),
       CAST(total(sum_length) AS INTEGER), min(first_t_ns), max(last_t_ns)
  FROM episode_rollups
 WHERE stream_no = ?1 AND level = ?2 AND bucket BETWEEN ?3 << 4 AND ?3 << 4 | 15
 GROUP BY stream_no
"""
_MOST = (1 << 63) - 1
_MAX_CACHED = 4_096
_ID, _T_NS, _RETURN, _LENGTH = 0, 1, 4, 5  # places in a row of episode_rows


# A bucket's columns from `first_id` on.
Figures = tuple[int, int, int, int, float | None, float | None, float | None, int, int, int]


class EpisodeRollups:
    """Buckets of the open transaction's episodes. Owned by the store; `write` belongs to its commit."""

    def __init__(self, connection: Connection) -> None:
        self._cursor = connection.cursor()
        self._new: dict[int, list[SqlRow]] = {}  # in the open transaction, by stream
        self._newest: dict[int, int] = {}  # ids, by stream, stored in the open transaction or before
        self._ends: dict[int, tuple[int, Figures | None]] = {}  # next number, and the bucket it goes into if begun

    def insert(self, stream_no: int, rows: list[SqlRow]) -> int:
        """Store episodes of one stream; returns how many were new. Those are the ones a bucket will count."""
        first, last = cast("int", rows[0][_ID]), cast("int", rows[-1][_ID])
        newest = self._newest.get(stream_no)
        if newest is None:
            newest = self._cursor.execute(_NEWEST, (stream_no << SEQ_BITS, stream_no << SEQ_BITS | SEQ_MASK)).get
        new = rows
        if first > newest and _are_rising(rows):
            self._cursor.executemany(EPISODE_SQL, rows)
            self._newest[stream_no] = last
        else:  # some may have come before: SQLite knows
            new = [row for row in rows if self._cursor.execute(_EPISODE_IF_NEW, row).get is not None]
            self._newest[stream_no] = max(newest, *(cast("int", row[_ID]) for row in rows))
        known = self._new.get(stream_no)
        if known is None:
            self._new[stream_no] = [*new]
        else:
            known += new
        return len(new)

    def write(self) -> None:
        """Bring the buckets up to date, before the counters in `streams` are."""
        put: list[SqlRow] = []
        carried: list[SqlRow] = []
        for stream_no, rows in self._new.items():
            number, figures = self._ends.get(stream_no) or self._end_of(stream_no)
            start = 0
            while start < len(rows):
                bucket = number >> BASE_LEVEL
                end = min(len(rows), start + ((bucket + 1) << BASE_LEVEL) - number)
                figures = _summed(rows[start:end], figures)
                put.append((stream_no, BASE_LEVEL, bucket, *figures))
                number += end - start
                start = end
                if number >> BASE_LEVEL != bucket:
                    figures = None
                    carried += _carried(stream_no, number)
            self._ends[stream_no] = number, figures
        if put:
            self._cursor.executemany(_PUT, put)
        if carried:
            self._cursor.executemany(_CARRY, carried)

    def _end_of(self, stream_no: int) -> tuple[int, Figures | None]:
        number: int = self._cursor.execute(_NUMBER, (stream_no,)).get or 0
        found = self._cursor.execute(_OPEN, (stream_no, BASE_LEVEL, number >> BASE_LEVEL)).fetchall()
        return number, (found[0] if found else None)

    def end(self, *, is_committed: bool) -> None:
        """Forget what the transaction brought."""
        self._new.clear()
        if not is_committed or max(len(self._newest), len(self._ends)) > _MAX_CACHED:
            self.forget()

    def forget(self) -> None:
        """Ask the database again: what is known of it may no longer be so, as after a rollback or a removal."""
        self._newest.clear()
        self._ends.clear()


def _are_rising(rows: list[SqlRow]) -> bool:
    return len(rows) == 1 or all(cast("int", row[_ID]) < cast("int", after[_ID]) for row, after in pairwise(rows))


def _carried(stream_no: int, number: int) -> list[SqlRow]:
    """Buckets of higher levels that end exactly before this number, the lowest first: stream, level below, bucket."""
    found: list[SqlRow] = []
    level = BASE_LEVEL
    while number % (1 << level + LEVEL_STEP) == 0:
        found.append((stream_no, level, (number >> level + LEVEL_STEP) - 1))
        level += LEVEL_STEP
    return found


def _summed(rows: list[SqlRow], before: Figures | None) -> Figures:
    """Figures of new episodes, and of those that their bucket held before."""
    known = cast("list[tuple[Any, ...]]", rows)
    ids, times = [row[_ID] for row in known], [row[_T_NS] for row in known]
    episodes, returns, length = 0, 0, 0
    least: float | None = None
    total: float | None = 0.0
    most: float | None = None
    if before is not None:
        first_id, last_id, episodes, returns, least, total, most, length, first_ns, last_ns = before
        ids += first_id, last_id
        times += first_ns, last_ns
    for row in known:
        length += row[_LENGTH]
        value = row[_RETURN]
        if value == value:  # a NaN is not itself
            returns += 1
            least = value if least is None or value < least else least
            most = value if most is None or value > most else most
            total = None if total is None else total + value
    length = max(-_MOST, min(length, _MOST))
    return min(ids), max(ids), episodes + len(rows), returns, least, total, most, length, min(times), max(times)
