"""TelemetryModel: the newest steps and episodes as tables, and every figure as a curve, in bounded memory. No Qt.

Fed by the fast path, up to 100,000 records a second: steps are never touched one by one. What the fast path dropped is
known: seqs are counted. What was before the window opened is the store's (`telemetry_history`).
"""

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from runlane.config.errors import WireError
from runlane.gui.column_ring import EPISODE_ROW, OUTCOMES, STEP_ROW, ColumnRing
from runlane.gui.series import Envelope, Floats, Series
from runlane.gui.step_block import Ints, ReturnTracker, StepBlock, step_block
from runlane.transport.messages import StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import EpisodeRecord, MetricRecord, Record
from runlane.transport.wire import BatchHeader

KEPT_STEPS = 50_000
KEPT_EPISODES = 20_000
KEPT_RUNS = 32
KEPT_STREAMS = 512
KEPT_SOURCES = 8_192
KEPT_WORKERS = 64  # of a run
KEPT_NAMES = 48  # curves of a worker
RATE_S = 0.5
KEPT_MARKS = 512
MARK_S = 0.2

# Curves of our own; a metric's name is the user's, and gets a second colon should it begin with one.
RETURN, LENGTH, REWARD, RATE = ":return", ":length", ":reward", ":rate"
OWN = (RETURN, LENGTH, REWARD, RATE)

_OUTCOME_NUMBER = {outcome: number for number, outcome in enumerate(OUTCOMES)}
_MOST = (1 << 63) - 1
_BAD = (WireError, ValueError, OverflowError, KeyError, TypeError)


class SeriesKey(NamedTuple):
    """Which curve."""

    run: str
    worker: str
    name: str


class Source(NamedTuple):
    """Who wrote a row."""

    run: str
    run_name: str
    worker: str


class WorkerHistory(NamedTuple):
    """What the store has of a worker: counters, the newest seq stored of each stream, and curves by name."""

    steps: int
    episodes: int
    last_seqs: dict[str, int]
    series: dict[str, Envelope]


def metric_name(name: str) -> str:
    """Name of the curve of a user's metric."""
    return f":{name}" if name.startswith(":") else name


@dataclass(slots=True, eq=False)
class _Worker:
    """`steps` and `episodes` are the place on the axes; exact, or estimated where records are missing."""

    steps: float = 0.0
    episodes: float = 0.0
    rate_steps: float = 0.0
    rate_s: float = 0.0
    has_begun_late: bool = False
    series: dict[str, Series] = field(default_factory=dict[str, Series])

    def curve(self, name: str) -> Series | None:
        """The curve of a name; None beyond `KEPT_NAMES`."""
        found = self.series.get(name)
        if found is None and len(self.series) < KEPT_NAMES:
            found = self.series[name] = Series()
        return found


class _Mark(NamedTuple):
    seq: int
    steps: float
    episodes: float


@dataclass(slots=True, eq=False)
class _Stream:
    """What we saw of a stream: seqs, and how many steps and episodes were among them."""

    number: int
    key: tuple[str, str]
    first_seq: int = 0  # of the batch taken in last
    next_seq: int = 0  # 0: nothing yet
    seqs: int = 0
    seen: int = 0  # environment steps that came
    share: float = 0.0  # of them, per seq
    steps: float = 0.0  # those that did not come, too, by estimate
    episodes: float = 0.0
    missed: int = 0
    tracker: ReturnTracker = field(default_factory=ReturnTracker)
    marks: deque[_Mark] = field(default_factory=lambda: deque[_Mark](maxlen=KEPT_MARKS))
    marked_s: float = 0.0

    def take(self, header: BatchHeader) -> int | None:
        """Count a batch; returns the seqs missing before it, or None when it was here before."""
        if header.first_seq == self.first_seq:
            return 0  # another section of the same batch
        if header.first_seq < self.next_seq:
            return None
        gap = header.first_seq - (self.next_seq or 1)
        self.first_seq, self.next_seq = header.first_seq, header.last_seq + 1
        self.seqs += header.records
        return gap

    def after(self, seq: int) -> tuple[float, float]:
        """Steps and episodes seen after a seq."""
        if not self.marks or seq >= self.marks[-1].seq:
            return 0.0, 0.0
        seqs = [mark.seq for mark in self.marks]
        steps = np.interp(seq, seqs, [mark.steps for mark in self.marks])
        episodes = np.interp(seq, seqs, [mark.episodes for mark in self.marks])
        return self.steps - float(steps), self.episodes - round(float(episodes))


class TelemetryModel:
    """Owned by the Qt thread. Bad batches are counted in `rejected`, never raised: watching goes on."""

    def __init__(self) -> None:
        self.steps = ColumnRing(STEP_ROW, KEPT_STEPS)
        self.episodes = ColumnRing(EPISODE_ROW, KEPT_EPISODES)
        self.sources: OrderedDict[int, Source] = OrderedDict()
        self.version = 0
        self.received = 0
        self.rejected = 0
        self.missed = 0  # seqs that never came; info records, which the window does not ask for, may be among them
        self.received_steps = 0  # environment steps
        self.received_episodes = 0
        self._runs: OrderedDict[str, dict[str, _Worker]] = OrderedDict()
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._numbers: dict[Source, int] = {}
        self._next_number = itertools.count(1)
        self._asked: set[str] = set()
        self._stored_seqs: dict[str, dict[str, int]] = {}  # by run and stream: what `set_history` has counted
        self._missed: dict[str, int] = {}  # by run

    # ---- what views ask ----

    def runs(self) -> list[str]:
        """Ids of the runs that have curves, the one heard of last at the end."""
        return list(self._runs)

    def keys(self, run: str) -> list[SeriesKey]:
        """The curves of a run, by worker, in the order they came."""
        return [
            SeriesKey(run, worker, name) for worker, found in self._runs.get(run, {}).items() for name in found.series
        ]

    def worker_count(self, run: str) -> int:
        """How many workers of a run have told of themselves: processes, environments or agents."""
        return len(self._runs.get(run, {}))

    def names(self, runs: Iterable[str]) -> list[str]:
        """Names of all curves of some runs, each once; our own first."""
        found = dict.fromkeys(key.name for run in runs for key in self.keys(run))
        return [name for name in OWN if name in found] + sorted(name for name in found if name not in OWN)

    def series(self, key: SeriesKey) -> Series | None:
        """A curve, or None."""
        worker = self._runs.get(key.run, {}).get(key.worker)
        return None if worker is None else worker.series.get(key.name)

    def has(self, run: str) -> bool:
        """Whether there is anything of a run: a curve, a row, or an account of what is missing."""
        return run in self._runs or any(source.run == run for source in self.sources.values())

    def missed_of(self, runs: Iterable[str]) -> int:
        """Records of some runs that never came; as `missed`."""
        return sum(self._missed.get(run, 0) for run in runs)

    def needs_history(self, run: str) -> bool:
        """Whether the store knows more of a run than came live, and was not asked yet."""
        if not run or run in self._asked:
            return False
        workers = self._runs.get(run)
        return not workers or any(worker.has_begun_late for worker in workers.values())

    def forget(self, run: str) -> None:
        """Keep nothing of a run, as after it was deleted."""
        self._drop(run)
        for stream in [name for name, found in self._streams.items() if found.key[0] == run]:
            del self._streams[stream]
        gone = [number for number, source in self.sources.items() if source.run == run]
        if gone:
            for number in gone:
                del self._numbers[self.sources.pop(number)]
            kept = np.array(list(self.sources), np.uint32)
            self.steps.keep(kept)
            self.episodes.keep(kept)
        self.version += 1

    # ---- what comes ----

    def add(self, batches: Sequence[RecordBatch], now_s: float) -> None:
        """Take in batches of the fast path at `now_s` (monotonic), in order."""
        by_stream: dict[str, list[RecordBatch]] = {}
        for batch in batches:
            self.received += len(batch)
            by_stream.setdefault(batch.info.stream, []).append(batch)
        for found in by_stream.values():
            self._add_stream(found[-1].info, found, now_s)
        self.version += 1

    def history_asked(self, run: str) -> None:
        """Somebody asks the store for this run."""
        self._asked.add(run)

    def history_failed(self, run: str) -> None:
        """The store did not answer; ask again some day."""
        self._asked.discard(run)

    def set_history(self, run: str, workers: dict[str, WorkerHistory]) -> None:
        """What the store has of a run goes in front of what came live; counts become exact."""
        for name, history in workers.items():
            worker = self._worker(run, name)
            if worker is None:
                continue
            self._correct(worker, (run, name), history)
            self._stored_seqs.setdefault(run, {}).update(history.last_seqs)
            for curve_name, envelope in history.series.items():
                curve = worker.curve(curve_name)
                if curve is not None:
                    curve.set_history(envelope)
        self.version += 1

    def _correct(self, worker: _Worker, key: tuple[str, str], history: WorkerHistory) -> None:
        steps, episodes = float(history.steps), float(history.episodes)
        for name, stream in self._streams.items():
            if stream.key == key:
                after = stream.after(history.last_seqs.get(name, 0))
                steps, episodes = steps + after[0], episodes + after[1]
        for name, curve in worker.series.items():  # a metric's step is the user's
            curve.shift(steps - worker.steps if name in OWN else 0.0, episodes - worker.episodes)
        worker.rate_steps += steps - worker.steps
        worker.steps, worker.episodes = steps, episodes

    # ---- one stream ----

    def _add_stream(self, info: StreamInfo, batches: list[RecordBatch], now_s: float) -> None:
        worker = self._worker(info.run, info.worker)
        stream = self._stream(info)
        fresh: list[RecordBatch] = []
        for batch in batches:
            is_first = stream.next_seq == 0
            gap = stream.take(batch.header)
            if gap is None:
                continue
            if is_first:  # what the store had is on the axis already
                gap = max(0, gap - self._stored_seqs.get(info.run, {}).get(info.stream, 0))
            fresh.append(batch)
            if gap and worker is not None:
                self._miss(stream, worker, batch, gap, is_first=is_first)
        seqs, places = self._add_steps(stream, worker, [batch for batch in fresh if batch.kind == "step"])
        others = self._records(fresh)
        episodes = [record for record in others if isinstance(record, EpisodeRecord)]
        if episodes:
            self._add_episodes(stream, worker, episodes, seqs, places)
        if worker is not None and len(others) > len(episodes):
            _add_metrics(worker, others)
        stream.share = stream.seen / max(1, stream.seqs)
        if now_s - stream.marked_s >= MARK_S:
            stream.marked_s = now_s
            stream.marks.append(_Mark(stream.next_seq - 1, stream.steps, stream.episodes))

    def _miss(self, stream: _Stream, worker: _Worker, batch: RecordBatch, gap: int, *, is_first: bool) -> None:
        """Seqs that we did not get. How many steps were among them is estimated from those around."""
        if is_first:
            worker.has_begun_late = True  # nobody dropped these: the window was not there
        else:
            stream.missed += gap
            self.missed += gap
            self._missed[stream.key[0]] = self._missed.get(stream.key[0], 0) + gap
        schema = batch.info.schema(batch.section.schema_id) if batch.kind == "step" else None
        envs = max(1, schema.env_count) if schema is not None else 1
        share = stream.share or envs
        stream.steps += gap * share
        worker.steps += gap * share

    def _add_steps(self, stream: _Stream, worker: _Worker | None, batches: list[RecordBatch]) -> tuple[Ints, Floats]:
        """Returns seqs, and environment steps after each, by which other records find their place."""
        seqs: Ints = np.zeros(0, np.int64)
        places: Floats = np.zeros(0)
        for _, group in itertools.groupby(batches, lambda batch: batch.section.schema_id):
            part = list(group)
            try:
                block = step_block(part)
                self._add_block(stream, block)
            except _BAD:
                self.rejected += sum(map(len, part))
                continue
            before = 0.0 if worker is None else worker.steps
            seqs = np.concatenate((seqs, block.seqs))
            places = np.concatenate((places, (before + block.steps_after).astype(np.float64)))
            count = int(block.steps_after[-1])
            stream.steps += count
            stream.seen += count
            self.received_steps += count
            if worker is not None:
                worker.steps += count
                _add_rewards(worker, block, places[-len(block.seqs) :])
        return seqs, places

    def _add_block(self, stream: _Stream, block: StepBlock) -> None:
        returns = stream.tracker.add(block)
        rows = np.zeros(min(len(block), KEPT_STEPS), STEP_ROW)
        newest = slice(len(block) - len(rows), None)
        for name in ("seq", "t_ns", "env_index", "episode", "step", "action", "reward", "flags"):
            rows[name] = getattr(block, name)[newest]
        rows["return"] = returns[newest]
        rows["action_size"] = block.action_size
        rows["source"] = stream.number
        self.steps.add(rows)

    def _records(self, batches: list[RecordBatch]) -> list[Record]:
        """Episodes and metrics, of all batches that hold such and can be read."""
        found: list[Record] = []
        for batch in batches:
            if batch.kind in ("episode", "metric"):
                try:
                    records = batch.records
                    for record in records:  # NumPy's columns hold no larger ones
                        if record.seq > _MOST or not -_MOST <= _largest(record) <= _MOST:
                            raise WireError("range", f"{batch.kind} with a number beyond 63 bits")
                    found += records
                except _BAD:
                    self.rejected += len(batch)
        return found

    def _add_episodes(
        self, stream: _Stream, worker: _Worker | None, records: list[EpisodeRecord], seqs: Ints, places: Floats
    ) -> None:
        columns = list(zip(*map(_episode_fields, records), strict=True))
        rows = np.zeros(len(records), EPISODE_ROW)
        for name, values in zip(_EPISODE_FIELDS, columns, strict=True):
            rows[name] = values
        rows["source"] = stream.number
        self.episodes.add(rows)
        stream.episodes += len(records)
        self.received_episodes += len(records)
        if worker is None:
            return
        numbers = worker.episodes + np.arange(1, len(records) + 1, dtype=np.float64)
        worker.episodes += len(records)
        at = np.searchsorted(seqs, rows["seq"], side="right") - 1
        steps = np.where(at >= 0, places[np.maximum(at, 0)], worker.steps) if len(seqs) else worker.steps
        ended = rows["outcome"] != _OUTCOME_NUMBER["abandoned"]  # the return of an abandoned one says nothing
        x = (np.broadcast_to(steps, len(rows))[ended], numbers[ended], rows["t_ns"][ended] / 1e9)
        for name, column in ((RETURN, "return"), (LENGTH, "length")):
            curve = worker.curve(name)
            if curve is not None:
                curve.add(rows[column][ended].astype(np.float64), *x)

    # ---- who ----

    def _worker(self, run: str, name: str) -> _Worker | None:
        """A worker's curves; None beyond `KEPT_WORKERS`. Of runs the one that was silent for longest is forgotten."""
        workers = self._runs.get(run)
        if workers is None:
            workers = self._runs[run] = {}
            if len(self._runs) > KEPT_RUNS:
                self._drop(next(iter(self._runs)))
        self._runs.move_to_end(run)
        found = workers.get(name)
        if found is None and len(workers) < KEPT_WORKERS:
            found = workers[name] = _Worker()
        return found

    def _drop(self, run: str) -> None:
        self._runs.pop(run, None)
        self._asked.discard(run)
        self._stored_seqs.pop(run, None)
        self._missed.pop(run, None)

    def _stream(self, info: StreamInfo) -> _Stream:
        stream = self._streams.get(info.stream)
        if stream is None:
            number = self._number(Source(info.run, info.run_name or info.run, info.worker))
            stream = self._streams[info.stream] = _Stream(number, (info.run, info.worker))
            if len(self._streams) > KEPT_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(info.stream)
        return stream

    def _number(self, source: Source) -> int:
        number = self._numbers.get(source)
        if number is None:
            number = self._numbers[source] = next(self._next_number)
            self.sources[number] = source
            if len(self.sources) > KEPT_SOURCES:
                _, oldest = self.sources.popitem(last=False)
                del self._numbers[oldest]
        return number


_EPISODE_FIELDS = ("seq", "t_ns", "env_index", "episode", "return", "length", "outcome", "duration_s")


def _episode_fields(record: EpisodeRecord) -> tuple[float, ...]:
    return (
        record.seq,
        record.t_ns,
        record.env_index,
        record.episode,
        record.episode_return,
        record.length,
        _OUTCOME_NUMBER[record.outcome],
        record.duration_s,
    )


def _add_rewards(worker: _Worker, block: StepBlock, places: Floats) -> None:
    """The reward of every step, and from time to time the rate of steps."""
    is_step = block.is_step
    reward, t_s = block.reward[is_step], block.t_ns[is_step] / 1e9
    curve = worker.curve(REWARD)
    if curve is not None and len(reward):
        # Of several environments the steps of one record are steps in a row.
        steps = worker.steps - len(reward) + np.arange(1, len(reward) + 1, dtype=np.float64)
        curve.add(reward, steps, np.full(len(reward), worker.episodes), t_s)
    now_s = float(block.t_ns[-1]) / 1e9
    if not worker.rate_s:
        worker.rate_s, worker.rate_steps = now_s, float(places[-1])
    elif now_s - worker.rate_s >= RATE_S:
        rate = (worker.steps - worker.rate_steps) / (now_s - worker.rate_s)
        worker.rate_s, worker.rate_steps = now_s, worker.steps
        rates = worker.curve(RATE)
        if rates is not None:
            rates.add_one(rate, worker.steps, worker.episodes, now_s)


def _largest(record: Record) -> int:
    """The integer of a record that is furthest from zero."""
    if isinstance(record, EpisodeRecord):
        return max(record.t_ns, record.env_index << 31, record.episode, record.length, -record.t_ns, -record.episode)
    return max(record.t_ns, record.step, -record.step, key=abs) if isinstance(record, MetricRecord) else 0


def _add_metrics(worker: _Worker, records: list[Record]) -> None:
    by_name: dict[str, list[MetricRecord]] = {}
    for record in records:
        if isinstance(record, MetricRecord):
            by_name.setdefault(record.name, []).append(record)
    for name, found in by_name.items():
        curve = worker.curve(metric_name(name))
        if curve is not None:
            curve.add(
                np.array([record.value for record in found], np.float64),
                np.array([record.step for record in found], np.float64),
                np.full(len(found), worker.episodes),
                np.array([record.t_ns for record in found], np.float64) / 1e9,
            )
