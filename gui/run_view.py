"""RunView: what somebody watching wants to know, in bounded memory. No Rich, no socket, no clock of its own.

Fed by the fast path, so it counts what it saw; what the fast path dropped stands in the accounts of a `Status`.
One thread owns a view. Everything in it is bounded: workers, metrics, log lines, points of a curve.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from runlane.config.errors import WireError
from runlane.config.names import DB_WRITER, PROXY_PREFIX, ROUTER
from runlane.transport.messages import Status, StreamInfo
from runlane.transport.records import ALIVE, IS_RESET, EpisodeRecord, LogRecord, MetricRecord, Record, RunRecord
from runlane.transport.subscriber import RecordBatch

RECENT_EPISODES = 100
CURVE_POINTS = 512
KEPT_WORKERS = 64
KEPT_METRICS = 32
KEPT_LOGS = 32

BUCKET_S = 0.5
KEPT_BUCKETS = 120
RATE_BUCKETS = 10


class Curve:
    """A series of any length as at most `points` means: when it is full, neighbours are merged."""

    # `points` is even, so that every mean has a neighbour.
    def __init__(self, points: int = CURVE_POINTS) -> None:
        self.count = 0
        self._points = points
        self._per_point: int = 1
        self._means: list[float] = []
        self._sum = 0.0
        self._in_sum = 0

    def add(self, value: float) -> None:
        """Append one value."""
        self.count += 1
        self._sum += value
        self._in_sum += 1
        if self._in_sum == self._per_point:
            self._means.append(self._sum / self._in_sum)
            self._sum, self._in_sum = 0.0, 0
        if len(self._means) == self._points:
            self._means = [_mean(pair) for pair in zip(self._means[::2], self._means[1::2], strict=True)]
            self._per_point *= 2

    @property
    def values(self) -> list[float]:
        """The means in order; the last may be over fewer values."""
        return [*self._means, self._sum / self._in_sum] if self._in_sum else list(self._means)


class RateMeter:
    """How many of something per second, over a sliding window, and how that went during the last minute."""

    def __init__(self) -> None:
        self._counts: deque[int] = deque(maxlen=KEPT_BUCKETS)
        self._bucket = 0
        self._started_s = 0.0

    def add(self, count: int, now_s: float) -> None:
        """Count what was seen at `now_s`, which never goes back."""
        if not self._counts:
            self._counts.append(0)
            self._bucket = math.floor(now_s / BUCKET_S)
            self._started_s = now_s
        self._advance(now_s)
        self._counts[-1] += count

    def per_s(self, now_s: float) -> float:
        """Mean rate over the last buckets, the one being filled included."""
        self._advance(now_s)
        recent = list(self._counts)[-RATE_BUCKETS:]
        since_s = max(self._started_s, (self._bucket - len(recent) + 1) * BUCKET_S)
        return sum(recent) / max(now_s - since_s, BUCKET_S)

    def history(self, now_s: float) -> list[float]:
        """Rates of the full buckets, oldest first."""
        self._advance(now_s)
        return [count / BUCKET_S for count in list(self._counts)[:-1]]

    def _advance(self, now_s: float) -> None:
        """Begin the buckets that time has reached; nothing seen is a rate, too."""
        if self._counts:
            bucket = math.floor(now_s / BUCKET_S)
            self._counts.extend([0] * min(bucket - self._bucket, KEPT_BUCKETS))
            self._bucket = max(bucket, self._bucket)


@dataclass(slots=True, eq=False)
class WorkerView:
    """One worker as seen so far. `best` is None before the first episode that ended with a number; `stream` is the
    newest of its streams.
    """

    name: str
    run: str
    run_name: str
    state: str = "running"
    stream: str = ""
    env_steps: int = 0
    episodes: int = 0
    best: float | None = None
    stepped_s: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque[float](maxlen=RECENT_EPISODES))
    curve: Curve = field(default_factory=Curve)
    rate: RateMeter = field(default_factory=RateMeter)
    metrics: OrderedDict[str, MetricRecord] = field(default_factory=OrderedDict[str, MetricRecord])

    def rate_time_s(self, now_s: float) -> float:
        """When to read `rate`: now, or after its end the moment of its last step."""
        return now_s if self.state in ALIVE else min(now_s, self.stepped_s)

    @property
    def mean_return(self) -> float | None:
        """Mean over the last 100 episodes, over fewer if fewer ended, None before the first."""
        return _mean(self.recent) if self.recent else None

    def add_episode(self, record: EpisodeRecord) -> None:
        """Take one finished episode. An abandoned one counts, but its return says nothing."""
        self.episodes += 1
        if record.outcome == "abandoned":
            return
        value = record.episode_return
        self.recent.append(value)
        self.curve.add(value)
        if not math.isnan(value):
            self.best = value if self.best is None else max(self.best, value)

    def add_metric(self, record: MetricRecord) -> None:
        """Keep the newest value of a metric, and of metrics the ones that came last."""
        self.metrics[record.name] = record
        self.metrics.move_to_end(record.name)
        if len(self.metrics) > KEPT_METRICS:
            self.metrics.popitem(last=False)


class RunView:
    """Everything seen since `started_s`, by worker. Bad batches are counted, never raised: watching goes on."""

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self.records = 0
        self.rejected = 0
        self.workers: OrderedDict[tuple[str, str], WorkerView] = OrderedDict()
        self.logs: deque[LogRecord] = deque(maxlen=KEPT_LOGS)

    def add(self, batches: Iterable[RecordBatch], now_s: float) -> None:
        """Take in what a `Subscriber` returned at `now_s`."""
        for batch in batches:
            try:
                self._add(batch, now_s)
            except WireError:
                self.rejected += len(batch)

    @property
    def run_names(self) -> list[str]:
        """Readable names of the runs seen, each once; the id of a run without a name."""
        return list(dict.fromkeys(worker.run_name or worker.run for worker in self.workers.values()))

    def _add(self, batch: RecordBatch, now_s: float) -> None:
        if batch.kind == "step":
            steps = _env_steps(batch)
            worker = self._worker(batch.info)
            worker.env_steps += steps
            worker.rate.add(steps, now_s)
            worker.stepped_s = now_s
        else:
            for record in batch.records:
                self._add_record(batch.info, record)
        self.records += len(batch)

    def _add_record(self, info: StreamInfo, record: Record) -> None:
        if isinstance(record, EpisodeRecord):
            self._worker(info).add_episode(record)
        elif isinstance(record, MetricRecord):
            self._worker(info).add_metric(record)
        elif isinstance(record, LogRecord):
            self.logs.append(record)
        elif isinstance(record, RunRecord):
            self._add_run(info, record)

    def _add_run(self, info: StreamInfo, record: RunRecord) -> None:
        """A worker's own word about its run, or its proxy's word about the worker's process, or one stream of it."""
        if not info.worker.startswith(PROXY_PREFIX):
            if record.state == "running":
                self._worker(info)
            worker = self.workers.get((info.run, info.worker))
            if worker is not None:
                worker.state = record.state
            return
        worker = self.workers.get((info.run, info.worker.removeprefix(PROXY_PREFIX)))
        if worker is None or record.facts.get("stream", worker.stream) != worker.stream:
            return
        if record.state not in ALIVE or worker.state in ALIVE:  # a late word wakes nobody
            worker.state = record.state

    def _worker(self, info: StreamInfo) -> WorkerView:
        """The worker's view. Beyond `KEPT_WORKERS` the one that was silent for longest is forgotten."""
        key = (info.run, info.worker)
        worker = self.workers.get(key)
        if worker is None:
            worker = self.workers[key] = WorkerView(info.worker, info.run, info.run_name)
            if len(self.workers) > KEPT_WORKERS:
                self.workers.popitem(last=False)
        self.workers.move_to_end(key)
        worker.stream = info.stream
        return worker


class SubscriberAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One subscriber's figures in the router's heartbeat, in records."""

    name: str = ""
    overflow: str = ""
    max_queue: int = 0
    published: int = 0
    delivered: int = 0
    dropped: dict[str, int] = {}
    depth: int = 0
    in_flight: int = 0
    peak: int = 0
    is_live: bool = False

    @property
    def queued(self) -> int:
        """Records that wait or are under way."""
        return self.depth + self.in_flight

    @property
    def total_dropped(self) -> int:
        """Records dropped, whatever the reason."""
        return sum(self.dropped.values())

    @property
    def is_balanced(self) -> bool:
        """Whether published = delivered + dropped + queued."""
        return self.published == self.delivered + self.total_dropped + self.queued


class StoreFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The DB writer's figures in its heartbeat; zeros before the first."""

    rows_committed: int = 0
    commits: int = 0
    commit_s: float = 0.0
    database_bytes: int = 0
    wal_bytes: int = 0


def accounts_of(status: Status | None) -> list[SubscriberAccount]:
    """Every subscriber's account, as the router last reported; empty before it did."""
    figures = _statistics_of(status, ROUTER).get("subscribers", {})
    accounts = msgspec.convert(figures, dict[str, SubscriberAccount])
    return [msgspec.structs.replace(account, name=name) for name, account in accounts.items()]


def store_figures_of(status: Status | None) -> StoreFigures:
    """The durable path's figures, as the DB writer last reported."""
    return msgspec.convert(_statistics_of(status, DB_WRITER), StoreFigures)


def _statistics_of(status: Status | None, name: str) -> dict[str, Any]:
    children = status.children if status is not None else []
    return next((child.statistics for child in children if child.name == name), dict[str, Any]())


def _env_steps(batch: RecordBatch) -> int:
    """Environment steps in a step batch: the rows that only reset an environment are none."""
    try:
        flags = batch.columns["flags"]
    except ValueError:  # the stream's schema has no such column
        return len(batch)
    return int(((flags & IS_RESET) == 0).sum())


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)
