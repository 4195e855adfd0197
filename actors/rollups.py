"""Episodes counted together as they are stored, so that readers of a long run have little to read.

A stream's episodes are numbered in the order they are stored, from 0; its counter in `streams` is the next number.
A bucket of level k holds 2^k numbers in a row. Level 4 is kept up to date by every commit; a bucket of level 8, 12
and so on is added up from 16 of the level below when the last of them is full. So an episode costs its share of one
row and little more, whatever the run's length, and a reader takes full buckets and, behind them, lower levels.
"""

from itertools import pairwise
from typing import Any, cast

from runlane.actors.row_key import SEQ_BITS, SEQ_MASK
from runlane.actors.sql import Connection, SqlRow

LEVEL_STEP = 4  # 16 buckets make one of the next level
BASE_LEVEL = LEVEL_STEP

EPISODE_SQL = "INSERT OR IGNORE INTO episode_rows VALUES (?,?,?,?,?,?,?,?,?)"
_EPISODE_IF_NEW = f"{EPISODE_SQL} RETURNING id"
_NEWEST = "SELECT coalesce(max(id), 0) FROM episode_rows WHERE id BETWEEN ? AND ?"
_NUMBER = "SELECT episodes FROM streams WHERE stream_no = ?"
_ADD = """
INSERT INTO episode_rollups VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
  first_id = min(first_id, excluded.first_id), last_id = max(last_id, excluded.last_id),
  episodes = episodes + excluded.episodes, returns = returns + excluded.returns,
  min_return = min(coalesce(min_return, excluded.min_return), coalesce(excluded.min_return, min_return)),
  sum_return = sum_return + excluded.sum_return,
  max_return = max(coalesce(max_return, excluded.max_return), coalesce(excluded.max_return, max_return)),
  sum_length = CAST(sum_length + excluded.sum_length AS INTEGER),
  first_t_ns = min(first_t_ns, excluded.first_t_ns), last_t_ns = max(last_t_ns, excluded.last_t_ns)
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


class EpisodeRollups:
    """Buckets of the open transaction's episodes. Owned by the store; `write` belongs to its commit."""

    def __init__(self, connection: Connection) -> None:
        self._cursor = connection.cursor()
        self._new: dict[int, list[SqlRow]] = {}  # in the open transaction, by stream
        self._newest: dict[int, int] = {}  # ids, by stream, stored in the open transaction or before
        self._numbers: dict[int, int] = {}  # of a stream's next episode

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
        added: list[SqlRow] = []
        carried: list[SqlRow] = []
        for stream_no, rows in self._new.items():
            if not rows:
                continue
            number = self._numbers.get(stream_no)
            if number is None:
                number = self._cursor.execute(_NUMBER, (stream_no,)).get or 0
            start = 0
            while start < len(rows):
                bucket = number >> BASE_LEVEL
                end = min(len(rows), start + ((bucket + 1) << BASE_LEVEL) - number)
                added.append((stream_no, BASE_LEVEL, bucket, *_summed(rows[start:end])))
                number += end - start
                start = end
                carried += _carried(stream_no, number)
            self._numbers[stream_no] = number
        self._cursor.executemany(_ADD, added)
        if carried:
            self._cursor.executemany(_CARRY, carried)

    def end(self, *, is_committed: bool) -> None:
        """Forget what the transaction brought; after a rollback ask the database again."""
        self._new.clear()
        for cache in (self._newest, self._numbers):
            if not is_committed or len(cache) > _MAX_CACHED:
                cache.clear()


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


def _summed(rows: list[SqlRow]) -> SqlRow:
    """A bucket's columns from `first_id` on."""
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True))
    ids, times = columns[_ID], columns[_T_NS]
    returns = [value for value in columns[_RETURN] if value == value]  # a NaN is not itself
    least, most = (min(returns), max(returns)) if returns else (None, None)
    length = max(-_MOST, min(sum(columns[_LENGTH]), _MOST))
    return (min(ids), max(ids), len(ids), len(returns), least, sum(returns), most, length, min(times), max(times))
