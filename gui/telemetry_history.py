"""What the store has of a run's curves: all of it in few points, or the raw rows of a stretch. Asked in a thread.

Each question is one short transaction, over the views and tables of `docs/reference/schema.md`.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from runlane.gui.plot_lines import coarser
from runlane.gui.series import Envelope, Floats
from runlane.gui.store_source import SqlValue, StoreSource
from runlane.gui.telemetry_model import (
    LENGTH,
    RATE,
    RATE_S,
    RETURN,
    REWARD,
    SeriesKey,
    WorkerHistory,
    metric_name,
)

HISTORY_POINTS = 1024
MAX_SINGLE_EPISODES = 200_000  # of a worker; beyond it, the DB writer's own counts are read
MAX_STREAMS = 256
MAX_METRICS = 40
MAX_NAMES = 4_096  # of all runs together, among which those of a worker are looked for
METRIC_ROWS = 12_000  # of one name, exactly; what is older is sampled
SAMPLES = 256
SAMPLE_ROWS = 16  # of each sample; so at most 4,096 rows more, and 16 for each stream
RAW_ROWS = 8_192
MAX_SEQS = 4_000_000  # of one stream; a wider stretch is no zoom

_SEQ = (1 << 40) - 1
_STREAMS = """
SELECT stream_no, stream, worker, steps, episodes, last_seq FROM streams
 WHERE run = ? AND worker NOT GLOB 'proxy-*' ORDER BY stream_no LIMIT ?
"""
_EPISODES = """
SELECT count(*), count(v), min(v), max(v), sum(v), min(length), max(length), sum(length), max(t_ns)
  FROM (SELECT episode_return AS v, length, t_ns, (row_number() OVER (ORDER BY incarnation, seq) - 1) / ?3 AS bucket
          FROM episodes WHERE run = ?1 AND worker = ?2 AND outcome <> 'abandoned')
 GROUP BY bucket ORDER BY bucket LIMIT 4096
"""
_ROLLUPS = """
SELECT b.episodes, b.returns, b.min_return, b.max_return, b.sum_return, NULL, NULL, b.sum_length, b.last_t_ns
  FROM streams AS s JOIN episode_rollups AS b USING (stream_no)
 WHERE s.run = ?1 AND s.worker = ?2 AND b.level = ?3 ORDER BY b.stream_no, b.bucket LIMIT 65536
"""
# Never by going over all rows of a worker: names are hopped over in the index, firsts are looked up.
_METRIC_NAMES = """
WITH RECURSIVE known(name) AS (
  SELECT min(name) FROM metric_rows
   UNION ALL
  SELECT (SELECT min(r.name) FROM metric_rows AS r WHERE r.name > known.name) FROM known WHERE known.name IS NOT NULL
   LIMIT ?4)
SELECT name, min(first) FROM (
  SELECT known.name, (SELECT r.id FROM metric_rows AS r WHERE r.name = known.name
                         AND r.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775
                       ORDER BY r.id LIMIT 1) AS first
    FROM known CROSS JOIN streams AS s WHERE s.run = ?1 AND s.worker = ?2)
 WHERE first IS NOT NULL GROUP BY name ORDER BY min(first), name LIMIT ?3
"""
_NEWEST = """
SELECT s.incarnation, r.id, r.value, r.step, r.t_ns FROM streams AS s CROSS JOIN metric_rows AS r
    ON r.name = ?3 AND r.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775
 WHERE s.run = ?1 AND s.worker = ?2 ORDER BY s.incarnation DESC, r.id DESC LIMIT ?4
"""
_METRIC_COUNT = f"SELECT count(*) FROM ({_NEWEST})"  # noqa: S608  text of ours
_METRIC = f"""
SELECT count(*), min(value), max(value), avg(value), max(step), max(t_ns),
       min((incarnation << 40) | (id & 1099511627775))
  FROM (SELECT *, (row_number() OVER (ORDER BY incarnation DESC, id DESC) - 1) / ?5 AS bucket FROM ({_NEWEST}))
 GROUP BY bucket ORDER BY bucket DESC
"""  # noqa: S608  text of ours
_METRIC_SPANS = """
SELECT first, last FROM (
  SELECT s.incarnation,
         (SELECT r.id FROM metric_rows AS r WHERE r.name = ?3 AND r.id BETWEEN s.stream_no << 40
             AND s.stream_no << 40 | 1099511627775 ORDER BY r.id LIMIT 1) AS first,
         (SELECT r.id FROM metric_rows AS r WHERE r.name = ?3 AND r.id BETWEEN s.stream_no << 40
             AND s.stream_no << 40 | CASE s.incarnation WHEN ?4 >> 40 THEN (?4 & 1099511627775) - 1
                                     ELSE 1099511627775 END
           ORDER BY r.id DESC LIMIT 1) AS last
    FROM streams AS s WHERE s.run = ?1 AND s.worker = ?2 AND s.incarnation <= ?4 >> 40)
 WHERE last IS NOT NULL ORDER BY incarnation LIMIT ?5
"""
_SAMPLES = """
SELECT count(*), min(r.value), max(r.value), avg(r.value), max(r.step), max(r.t_ns), max(r.id),
       p.value ->> 0, p.value ->> 1
  FROM json_each(?1) AS p CROSS JOIN metric_rows AS r
    ON r.id IN (SELECT id FROM metric_rows WHERE name = ?2 AND id BETWEEN p.value ->> 0 AND p.value ->> 1
                 ORDER BY id LIMIT ?3)
 GROUP BY p.key ORDER BY p.key
"""


@dataclass(frozen=True, slots=True)
class RawRows:
    """Rows of one curve in a stretch of time. `rows` were read for it; `is_whole`: each bucket is one row."""

    envelope: Envelope
    rows: int
    is_whole: bool


def load_history(store: StoreSource, run: str) -> dict[str, WorkerHistory]:
    """Every curve of a run by worker, in about `HISTORY_POINTS` points each. Raises `StoreError`."""
    _, streams = store.query(_STREAMS, (run, MAX_STREAMS))
    found: dict[str, WorkerHistory] = {}
    for worker in dict.fromkeys(str(row[2]) for row in streams):
        own = [row for row in streams if row[2] == worker]
        steps, episodes = sum(row[3] for row in own), sum(row[4] for row in own)
        series = _episode_series(store, run, worker, episodes) if episodes else {}
        series |= _metric_series(store, run, worker, series.get(RETURN))
        found[worker] = WorkerHistory(steps, episodes, {row[1]: row[5] for row in own}, series)
    return found


def _numbers(value: list[SqlValue]) -> Floats:
    return np.array([math.nan if item is None else item for item in value], np.float64)


def _episode_series(store: StoreSource, run: str, worker: str, episodes: int) -> dict[str, Envelope]:
    if episodes <= MAX_SINGLE_EPISODES:
        _, rows = store.query(_EPISODES, (run, worker, max(1, -(-episodes // HISTORY_POINTS))))
    else:
        _, rows = store.query(_ROLLUPS, (run, worker, 4 if episodes <= 1_000_000 else 8))
    if not rows:
        return {}
    count, known, low, high, total, short, long, length, t_ns = (
        _numbers(list(column)) for column in zip(*rows, strict=True)
    )
    x = (np.cumsum(length), np.cumsum(count), t_ns / 1e9)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, mean_length, reward = total / known, length / count, total / length
    short, long = np.where(np.isnan(short), mean_length, short), np.where(np.isnan(long), mean_length, long)
    series = {
        RETURN: coarser(Envelope(count, low, high, mean, *x), HISTORY_POINTS),
        LENGTH: coarser(Envelope(count, short, long, mean_length, *x), HISTORY_POINTS),
        REWARD: coarser(Envelope(length, reward, reward, reward, *x), HISTORY_POINTS),
    }
    return series | _rates(*x)


def _rates(steps: Floats, episodes: Floats, time: Floats) -> dict[str, Envelope]:
    """Steps per second between episodes far enough apart to tell."""
    least_s = max(RATE_S, float(time[-1] - time[0]) / HISTORY_POINTS)
    _, marks = np.unique(np.floor((time - time[0]) / least_s), return_index=True)
    marks = np.unique(np.append(marks, len(time) - 1))
    elapsed = np.diff(time[marks])
    far = elapsed >= least_s / 2
    at = marks[1:][far]
    if not len(at):
        return {}
    rate = np.diff(steps[marks])[far] / elapsed[far]
    return {RATE: Envelope(np.ones(len(at)), rate, rate, rate, steps[at], episodes[at], time[at])}


def _metric_series(store: StoreSource, run: str, worker: str, episodes: Envelope | None) -> dict[str, Envelope]:
    found: dict[str, Envelope] = {}
    _, names = store.query(_METRIC_NAMES, (run, worker, MAX_METRICS, MAX_NAMES))
    for name, _ in names:
        rows = _metric_rows(store, run, worker, name)
        count, low, high, mean, step, t_ns = (_numbers(list(column)) for column in zip(*rows, strict=True))
        time = t_ns / 1e9
        number = np.interp(time, episodes.time, episodes.episode) if episodes is not None else np.zeros(len(time))
        envelope = Envelope(count, low, high, mean, step, number, time)
        found[metric_name(name)] = coarser(envelope, HISTORY_POINTS)
    return found


def _metric_rows(store: StoreSource, run: str, worker: str, name: str) -> list[tuple[Any, ...]]:
    """Buckets of a metric, oldest first: the newest `METRIC_ROWS` exactly, what is older by samples."""
    who = (run, worker, name)
    _, ((count,),) = store.query(_METRIC_COUNT, (*who, METRIC_ROWS))
    points = HISTORY_POINTS if count < METRIC_ROWS else HISTORY_POINTS // 2
    _, newest = store.query(_METRIC, (*who, METRIC_ROWS, max(1, -(-count // points))))
    older: list[tuple[Any, ...]] = []
    if count >= METRIC_ROWS:
        _, spans = store.query(_METRIC_SPANS, (*who, newest[0][6], MAX_STREAMS))
        places = json.dumps(_places([(first, last) for first, last in spans]))
        _, samples = store.query(_SAMPLES, (places, name, SAMPLE_ROWS))
        older = [(_estimate(row), *row[1:6]) for row in samples]
    return older + [row[:6] for row in newest]


def _places(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches of ids of about one length, at most `SAMPLES` and one a span."""
    width = max(1, -(-sum(last - first + 1 for first, last in spans) // SAMPLES))
    return [(start, min(start + width - 1, last)) for first, last in spans for start in range(first, last + 1, width)]


def _estimate(sample: tuple[Any, ...]) -> int:
    """How many rows a stretch has of which the first `SAMPLE_ROWS` were read: as dense as those are."""
    rows, newest, first, last = sample[0], sample[6], sample[7], sample[8]
    return int(rows) if rows < SAMPLE_ROWS else max(rows, round(rows * (last - first + 1) / (newest - first + 1)))


# ---- raw rows ----


def raw_rows(store: StoreSource, key: SeriesKey, shown: Envelope, from_s: float, until_s: float) -> RawRows | None:
    """Rows of the store behind a stretch of a curve that is `shown`; None when there are none, or far too many.

    Up to `RAW_ROWS` rows come as they are, more as buckets made by SQLite. Step and episode of a row are read off the
    curve at its time.
    """
    if key.name == RATE:
        return None
    _, streams = store.query(_STREAMS, (key.run, MAX_STREAMS))
    parts: list[RawRows] = []
    for stream_no, _, worker, _, _, last_seq in streams:
        if worker == key.worker and last_seq:
            tables = ("step_rows", "vector_step_rows") if key.name == REWARD else (_table(key.name),)
            parts += [
                part
                for table in tables
                if (part := _stretch(store, key, table, stream_no, last_seq, shown, from_s, until_s)) is not None
            ]
    if not parts:
        return None
    whole = parts[0].envelope
    for part in parts[1:]:
        whole = whole.then(part.envelope)
    return RawRows(whole, sum(part.rows for part in parts), all(part.is_whole for part in parts))


def _table(name: str) -> str:
    return "episode_rows" if name in (RETURN, LENGTH) else "metric_rows"


def _stretch(
    store: StoreSource,
    key: SeriesKey,
    table: str,
    stream_no: int,
    last_seq: int,
    shown: Envelope,
    from_s: float,
    until_s: float,
) -> RawRows | None:
    base = stream_no << 40
    first = _first_since(store, table, base, last_seq, from_s)
    last = _first_since(store, table, base, last_seq, until_s)
    if last < first or last - first > MAX_SEQS:
        return None
    if table == "vector_step_rows":
        return _vector_stretch(store, base + first, base + last, shown)
    value = {RETURN: "episode_return", LENGTH: "length", REWARD: "reward"}.get(key.name, "value")
    where, bindings = "id BETWEEN ? AND ?", list[SqlValue]([base + first, base + last])
    if table == "metric_rows":
        where, bindings = f"{where} AND name = ?", [*bindings, _user_name(key.name)]
    if table == "step_rows":
        where += " AND flags & 4 = 0"
    _, ((rows,),) = store.query(f"SELECT count(*) FROM {table} WHERE {where}", bindings)  # noqa: S608  names of ours
    if not rows:
        return None
    if rows <= RAW_ROWS:
        sql = f"SELECT 1, {value}, {value}, {value}, t_ns FROM {table} WHERE {where} ORDER BY id LIMIT {RAW_ROWS}"  # noqa: S608
    else:
        width = -(-(last - first + 1) // (RAW_ROWS // 2))
        sql = (
            f"SELECT count(*), min({value}), max({value}), avg({value}), max(t_ns) FROM {table} WHERE {where} "  # noqa: S608
            f"GROUP BY (id - {base + first}) / {width} ORDER BY id LIMIT {RAW_ROWS}"
        )
    _, found = store.query(sql, bindings)
    count, low, high, mean, t_ns = (_numbers(list(column)) for column in zip(*found, strict=True))
    return RawRows(_placed(count, low, high, mean, t_ns / 1e9, shown), int(rows), rows <= RAW_ROWS)


def _user_name(name: str) -> str:
    return name.removeprefix(":")


def _vector_stretch(store: StoreSource, first: int, last: int, shown: Envelope) -> RawRows | None:
    """Every row is a step of several environments: its rewards are one bucket."""
    where = "FROM vector_step_rows WHERE id BETWEEN ? AND ?"
    _, ((rows,),) = store.query(f"SELECT count(*) {where}", (first, last))
    if not 0 < rows <= RAW_ROWS:
        return None
    _, found = store.query(f"SELECT reward, t_ns {where} ORDER BY id LIMIT {RAW_ROWS}", (first, last))
    rewards = [_numbers(json.loads(reward or "[null]")) for reward, _ in found]
    time = np.array([t_ns for _, t_ns in found], np.float64) / 1e9
    count = np.array([len(values) for values in rewards], np.float64)
    low, high = (np.array([pick.reduce(values) for values in rewards]) for pick in (np.fmin, np.fmax))
    mean = np.array([values[~np.isnan(values)].mean() if not np.isnan(values).all() else np.nan for values in rewards])
    return RawRows(_placed(count, low, high, mean, time, shown), int(count.sum()), is_whole=False)


def _placed(count: Floats, low: Floats, high: Floats, mean: Floats, time: Floats, shown: Envelope) -> Envelope:
    step, episode = (np.interp(time, shown.time, x) for x in (shown.step, shown.episode))
    return Envelope(count, low, high, mean, step, episode, time)


def _first_since(store: StoreSource, table: str, base: int, last_seq: int, since_s: float) -> int:
    """Least seq whose record is at or after a time; ids are in order of time, so it is found by halving."""
    low, high = 0, last_seq + 1
    sql = f"SELECT id & {_SEQ}, t_ns FROM {table} WHERE id >= ? AND id <= ? ORDER BY id LIMIT 1"  # noqa: S608
    while low < high:
        middle = (low + high) // 2
        _, rows = store.query(sql, (base + middle, base + last_seq))
        if not rows or rows[0][1] >= since_s * 1e9:
            high = middle
        else:
            low = int(rows[0][0]) + 1
    return low
