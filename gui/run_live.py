"""RunLive: what the fast path says of one run, in bounded memory. Counts what it saw; no Qt, no clock of its own."""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runlane.config.names import PROXY_PREFIX
from runlane.gui.run_view import RECENT_EPISODES, Curve, RateMeter
from runlane.gui.run_warning import is_nothing_recorded
from runlane.transport.messages import StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import ALIVE, IS_RESET, EpisodeRecord, LogRecord, RunRecord

KEPT_WORKERS = 64
KEPT_STREAMS = 256
SPARK_POINTS = 64


_NO_ROWS: npt.NDArray[np.int64] = np.zeros(0, np.int64)


@dataclass(slots=True)
class _Count:
    """Environment steps of one stream; rows up to `told_seq` are among those that its worker told."""

    steps: int = 0
    told_seq: int = 0


class RunLive:
    """One run as seen on the bus since `since_s`, monotonic. A record that comes twice counts once."""

    def __init__(self, info: StreamInfo, since_s: float) -> None:
        self.started_ns = info.started_ns
        self.host = info.host
        self.seen_s = since_s
        self.told_s = -math.inf
        self.steps = self.episodes = 0
        self.envs = 0
        self.best: float | None = None
        self.last_reward: float | None = None
        self.facts: dict[str, Any] = {}
        self.warning = ""  # that nothing is recorded
        self.rate = RateMeter()
        self.recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.curve = Curve(SPARK_POINTS)
        self._states: OrderedDict[str, str] = OrderedDict()
        self._streams: dict[str, str] = {}
        self._marks: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._newest = ("", _NO_ROWS, _NO_ROWS)  # stream, seqs and steps of the rows that came last

    @property
    def mean_return(self) -> float | None:
        """Mean of the newest 100 returns seen, None before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else None

    @property
    def state(self) -> str:
        """What its workers' last words make of the run; empty before the first. A failure outweighs all else."""
        words = set(self._states.values())
        for state in ("failed", "killed", "stopped", "running", "stalled", "finished"):
            if state in words:
                return state
        return ""

    @property
    def workers(self) -> int:
        """Workers seen."""
        return len(self._states)

    def add(self, batch: RecordBatch, now_s: float) -> None:
        """Take one batch; raises `WireError` on one that cannot be read."""
        self.seen_s = now_s
        info = batch.info
        if batch.kind == "step":
            self._add_steps(batch, now_s)
        elif batch.kind == "episode":
            for record in batch.records:
                if isinstance(record, EpisodeRecord) and self._is_new(info, "episode", record.seq):
                    self._add_episode(record)
        elif batch.kind == "log" and info.worker.startswith(PROXY_PREFIX):
            self._add_log(batch)
        elif batch.kind == "run":
            for record in batch.records:
                if isinstance(record, RunRecord) and self._is_new(info, "run", record.seq):
                    self._add_run(info, record, now_s)

    def _add_log(self, batch: RecordBatch) -> None:
        for record in batch.records:
            if isinstance(record, LogRecord) and is_nothing_recorded(batch.info, record):
                self.warning = record.text

    def _add_steps(self, batch: RecordBatch, now_s: float) -> None:
        columns = batch.columns
        info = batch.info
        fields = columns.dtype.names or ()
        if not len(columns) or ("seq" in fields and not self._is_new(info, "step", int(columns["seq"][-1]))):
            return
        before = self._states.get(info.worker)
        if before is None or self._streams.get(info.worker) != info.stream:
            self._note(info, "running")  # an end may overtake the last steps of its stream, and those wake nobody
        made = np.ones(len(columns), np.int64)
        if "flags" in fields:
            is_step = (columns["flags"] & IS_RESET) == 0
            made = is_step.reshape(len(columns), -1).sum(axis=1)
            self.envs = 1 if is_step.ndim == 1 else is_step.shape[1]
            if "reward" in fields and made.any():
                self.last_reward = float(columns["reward"][is_step][-1])
        self.rate.add(int(made.sum()), now_s)
        known = self._count_of(info.stream)
        if "seq" in fields:
            seqs = columns["seq"].copy()
            self._newest = info.stream, seqs, made
            made = made[seqs > known.told_seq]
        known.steps += int(made.sum())
        self.steps += int(made.sum())

    def _count_of(self, stream: str) -> "_Count":
        known = self._counts.setdefault(stream, _Count())
        self._counts.move_to_end(stream)
        if len(self._counts) > KEPT_STREAMS:
            self._counts.popitem(last=False)
        return known

    def _add_told(self, stream: str, seq: int, env_steps: int) -> None:
        """Catch up with what a worker says of itself as it switches its mode: of steps not kept no record comes.

        Rows behind the switch may have come before it: a batch has its steps first.
        """
        known = self._count_of(stream)
        newest, seqs, made = self._newest
        behind = int(made[seqs > seq].sum()) if newest == stream else 0
        missed = max(0, env_steps - (known.steps - behind))
        known.steps += missed
        known.told_seq = seq
        self.steps += missed

    def _add_episode(self, record: EpisodeRecord) -> None:
        self.episodes += 1
        value = record.episode_return
        if record.outcome == "abandoned" or math.isnan(value):
            return
        self.recent.append(value)
        self.curve.add(value)
        self.best = value if self.best is None else max(self.best, value)

    def _add_run(self, info: StreamInfo, record: RunRecord, now_s: float) -> None:
        """A worker's own word, or its proxy's word about the worker's process or one stream of it."""
        if not info.worker.startswith(PROXY_PREFIX):
            self.facts |= record.facts if record.state == "running" else {}
            self._note(info, record.state)
            self.told_s = now_s
            env_steps = record.facts.get("env_steps")
            if isinstance(env_steps, int) and "telemetry_mode" in record.facts:
                self._add_told(info.stream, record.seq, env_steps)
            return
        worker = info.worker.removeprefix(PROXY_PREFIX)
        before = self._states.get(worker)
        if before is None or record.facts.get("stream", self._streams.get(worker)) != self._streams.get(worker):
            return
        if record.state not in ALIVE or before in ALIVE:  # a late word wakes nobody
            self._states[worker] = record.state
            self.told_s = now_s

    def _note(self, info: StreamInfo, state: str) -> None:
        self._states[info.worker] = state
        self._states.move_to_end(info.worker)
        self._streams[info.worker] = info.stream
        if len(self._states) > KEPT_WORKERS:
            forgotten, _ = self._states.popitem(last=False)
            self._streams.pop(forgotten, None)

    def _is_new(self, info: StreamInfo, kind: str, seq: int) -> bool:
        """Whether this was not counted yet: records of one kind of a stream come in order of seq."""
        key = info.stream, kind
        if seq <= self._marks.get(key, 0):
            return False
        self._marks[key] = seq
        self._marks.move_to_end(key)
        if len(self._marks) > KEPT_STREAMS:
            self._marks.popitem(last=False)
        return True
