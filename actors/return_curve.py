"""A run's returns over all its episodes, in few points, whatever the run's length.

The DB writer has counted episodes together (`rollups.py`). A reader takes the level that still has some buckets for
each point, fills up what is not yet full from the levels below, and puts the buckets of all streams in order of
time. No episode is left out and none counts twice; the least and the greatest return of every point are exact, so a
spike of one episode in a million is seen.
"""

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from runlane.actors.rollups import BASE_LEVEL, LEVEL_STEP
from runlane.actors.run_lookup import find_run
from runlane.actors.sql import Connection
from runlane.actors.store_file import open_readonly, store_errors

BUCKETS_PER_POINT = 2  # at least, so that points are about as wide as each other

_EPISODES = "SELECT coalesce(sum(episodes), 0) FROM streams WHERE run = ?"
_COLUMNS = "b.last_t_ns, b.first_t_ns, b.episodes, b.returns, b.min_return, b.sum_return, b.max_return, b.sum_length"
# CROSS JOIN keeps the order of the tables: from the run's few streams to their rows.
_SINGLE = """
SELECT e.t_ns, e.t_ns, 1, e.episode_return IS NOT NULL, e.episode_return, coalesce(e.episode_return, 0.0),
       e.episode_return, e.length
  FROM streams AS s CROSS JOIN episode_rows AS e
    ON e.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775
 WHERE s.run = ?1
"""
_FULL = f"""
SELECT {_COLUMNS} FROM streams AS s CROSS JOIN episode_rollups AS b ON b.stream_no = s.stream_no AND b.level = ?2
 WHERE s.run = ?1
"""  # noqa: S608  columns of ours
# Of a lower level only what lies behind the last full bucket of the level above.
_REST = f"""
SELECT {_COLUMNS} FROM streams AS s CROSS JOIN episode_rollups AS b
    ON b.stream_no = s.stream_no AND b.level = ?2 AND b.bucket >= (s.episodes >> ?2 + 4) << 4
 WHERE s.run = ?1
"""  # noqa: S608


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Some episodes in a row, from number `first_episode` of the run, counted from 1 in order of time.

    `returns` of them have a return that is a number; the other figures of returns are about those, None without any.
    """

    first_episode: int
    episodes: int
    returns: int
    min_return: float | None
    mean_return: float | None
    max_return: float | None
    steps: int
    first_t_ns: int
    last_t_ns: int


class ReturnCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The points of one run, in order of time."""

    run: str
    name: str
    state: str
    episodes: int
    points: list[CurvePoint]


class _Bucket(NamedTuple):
    """Episodes counted together, as the statements give them; sorts by time."""

    last_t_ns: int
    first_t_ns: int
    episodes: int
    returns: int
    min_return: float | None
    sum_return: float | None
    max_return: float | None
    length: int


def return_curve(path: Path, run: str, points: int = 500) -> ReturnCurve:
    """The returns of one run, which is named as `find_run` says, in at most `points` points.

    Raises `StoreError` when there is no such run. Streams are merged bucket by bucket, so where several workers
    train at once a point may hold an episode that ended in its neighbour's time.
    """
    with closing(open_readonly(path)) as connection, store_errors(path):
        connection.execute("BEGIN")  # one moment for all the questions
        found = find_run(connection, path, run)
        ((name, state),) = connection.execute("SELECT name, state FROM runs WHERE run = ?", (found,)).fetchall()
        buckets = _buckets(connection, found, points)
    curve = _points(sorted(buckets, key=lambda bucket: bucket[0]), points)
    return ReturnCurve(run=found, name=name, state=state, episodes=sum(p.episodes for p in curve), points=curve)


def coarser(points: Sequence[CurvePoint], most: int) -> list[CurvePoint]:
    """The same curve in at most `most` points."""
    buckets = [
        _Bucket(
            point.last_t_ns,
            point.first_t_ns,
            point.episodes,
            point.returns,
            point.min_return,
            None if point.mean_return is None and point.returns else (point.mean_return or 0.0) * point.returns,
            point.max_return,
            point.steps,
        )
        for point in points
    ]
    return _points(buckets, most)


def level_for(episodes: int, points: int) -> int:
    """The highest level with enough buckets for so many points; 0 stands for the episodes themselves."""
    level = 0
    while episodes >> level + LEVEL_STEP >= BUCKETS_PER_POINT * points:
        level += LEVEL_STEP
    return level


def _buckets(connection: Connection, run: str, points: int) -> list[_Bucket]:
    level = level_for(connection.execute(_EPISODES, (run,)).get, points)
    if not level:
        return [_Bucket(*row) for row in connection.execute(_SINGLE, (run,)).fetchall()]
    rows = connection.execute(_FULL, (run, level)).fetchall()
    for lower in range(BASE_LEVEL, level, LEVEL_STEP):
        rows += connection.execute(_REST, (run, lower)).fetchall()
    return [_Bucket(*row) for row in rows]


def _points(buckets: list[_Bucket], most: int) -> list[CurvePoint]:
    """Neighbours put together: as many groups as asked for, each of about as many episodes."""
    total = sum(bucket.episodes for bucket in buckets)
    found: list[CurvePoint] = []
    group: list[_Bucket] = []
    before = seen = 0  # episodes before the group, and before the bucket
    for bucket in buckets:
        if group and seen * most // total != before * most // total:
            found.append(_point(before + 1, group))
            group, before = [], seen
        group.append(bucket)
        seen += bucket.episodes
    if group:
        found.append(_point(before + 1, group))
    return found


def _point(first_episode: int, group: list[_Bucket]) -> CurvePoint:
    returns = sum(bucket.returns for bucket in group)
    sums = [bucket.sum_return for bucket in group if bucket.sum_return is not None]
    total = sum(sums) if len(sums) == len(group) else math.nan
    return CurvePoint(
        first_episode=first_episode,
        episodes=sum(bucket.episodes for bucket in group),
        returns=returns,
        min_return=min((bucket.min_return for bucket in group if bucket.min_return is not None), default=None),
        mean_return=None if math.isnan(total) or not returns else total / returns,
        max_return=max((bucket.max_return for bucket in group if bucket.max_return is not None), default=None),
        steps=sum(bucket.length for bucket in group),
        first_t_ns=min(bucket.first_t_ns for bucket in group),
        last_t_ns=max(bucket.last_t_ns for bucket in group),
    )
