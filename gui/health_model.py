"""HealthModel: how the graph and the window itself do, now and over the last minutes. No widgets, no clock.

The controller tells it everything in the window's thread; `sampler` and `log.tail` belong to the background thread. All
of it is bounded: traces, workers, alerts, log lines.
"""

import math
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runlane.config.errors import WireError
from runlane.config.names import DB_WRITER, GUI, PROXY_PREFIX
from runlane.gui.alert_rules import QUEUE_ON, AlertRules
from runlane.gui.bus_reader import BusStatistics
from runlane.gui.health_figures import (
    ABSENT,
    GraphFigures,
    JournalFigures,
    ProcessFigures,
    QueueFigures,
    graph_figures,
    is_window,
    number,
)
from runlane.gui.log_model import LogModel
from runlane.gui.process_sampler import ProcessSample, ProcessSampler
from runlane.gui.run_text import size_text
from runlane.gui.run_warning import is_nothing_recorded
from runlane.gui.trace import WINDOW_S, Trace
from runlane.transport.messages import Status, StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import EpisodeRecord, LogRecord, MetricRecord, RunRecord

KEPT_WORKERS = 64
SAMPLE_S = 1.0
FIGURES_S = 5.0
COMMIT_GAP_S = 25.0  # the store tells of its commits every ten seconds
LANE_AGE_MS = 20.0
COMMIT_MS = 80.0
STALL_MS = 16.0
_NOT_FINITE = (b"\xcb\x7f\xf8", b"\xcb\xff\xf8", b"\xcb\x7f\xf0", b"\xcb\xff\xf0")  # MessagePack: NaN, inf, as float64
TRACES = ("lane_age", "ui_queue", "db_queue", "events", "commit", "stall")


@dataclass(slots=True)
class _Worker:
    """A worker whose records came by: its process may be on this host."""

    info: StreamInfo
    seen_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneFigures:
    """The fast lane as the window sees it: `fps` of all lanes together, ages at paint, None while nothing is shown."""

    fps: float = 0.0
    age_p50_ms: float | None = None
    age_p99_ms: float | None = None
    skipped: int = 0
    skipped_per_s: float = 0.0
    attached: int = 0
    lanes: int = 0


class HealthModel:
    """Figures by name, histories in `traces`, alerts and log lines beside them. `revision` grows with every change."""

    def __init__(self) -> None:
        """Nothing is known."""
        self.revision = 0
        self.now_s = 0.0  # when something was told last
        self.graph: GraphFigures = ABSENT
        self.bus: BusStatistics | None = None
        self.lane = LaneFigures()
        self.loop_p99_ms = 0.0
        self.fps = 0.0
        self.database_bytes: int = 0
        self.wal_bytes: int = 0
        self.commit_p50_ms: float | None = None
        self.commit_p99_ms: float | None = None
        self.store_gaps = 0  # holes that the DB writer stored as such, records
        self.events_per_s = 0.0
        self.is_local = True
        self.traces = {name: Trace("last" if name == "events" else "largest") for name in TRACES}
        self.alerts = AlertRules()
        self.log = LogModel()
        self.sampler = ProcessSampler()
        self._samples: Mapping[int, ProcessSample] = {}
        self._workers: OrderedDict[str, _Worker] = OrderedDict()
        self._dropped: dict[str, int] = {}  # by window: drops before this one saw its queue
        self._skipped: tuple[int, float] | None = None
        self._due_s = {"sample": 0.0, "figures": 0.0}
        self._is_filled = False

    # ---- what comes ----

    def set_status(self, status: Status | None, now_s: float) -> None:
        """The graph's word, twice a second; None while none answers."""
        self.revision += 1
        self.now_s = now_s
        self.graph = graph_figures(status)
        self.alerts.on_graph(self.graph, now_s)
        # What windows before this one did not take, as when they were closed, is no news.
        self._dropped = {
            queue.name: min(self._dropped.get(queue.name, queue.total_dropped), queue.total_dropped)
            for queue in self._window_queues()
        }
        if status is None:
            self._samples = {}
            self.events_per_s = 0.0
            for name in ("ui_queue", "db_queue", "events"):
                if len(self.traces[name]):
                    self.traces[name].add(math.nan, now_s)
            return
        window, durable = self.window_queue, self.graph.queue(DB_WRITER)
        if window is not None:
            self.traces["ui_queue"].add(window.depth, now_s)
        if durable is not None:
            self.traces["db_queue"].add(durable.depth, now_s)
        if self.graph.records_per_s is not None:
            self.events_per_s = self.graph.records_per_s
            self.traces["events"].add(self.events_per_s, now_s)

    def set_bus(self, bus: BusStatistics, now_s: float) -> None:
        """Our own place on the RunBus, every tick."""
        if self.bus is not None and bus.is_joined != self.bus.is_joined:
            self.revision += 1
        self.bus, self.now_s = bus, now_s

    def set_store_size(self, sizes: tuple[int, int]) -> None:
        """Bytes of the database and of its write-ahead log."""
        if sizes != (self.database_bytes, self.wal_bytes):
            self.revision += 1
            self.database_bytes, self.wal_bytes = sizes

    def set_lane(self, figures: Mapping[str, Any], now_s: float) -> None:
        """What the live wall says of itself (`FastLaneTab.figures`), a few times a second.

        Of its keys: `fps`, `age_p50_ms`, `age_p99_ms`, `skipped` (a total), `attached`, `lanes`; `silent_s` may hold
        pairs of a lane's name and the seconds since its last frame.
        """
        skipped = int(number(figures.get("skipped")) or 0)
        per_s = self.lane.skipped_per_s
        if self._skipped is None or skipped < self._skipped[0]:
            self._skipped, per_s = (skipped, now_s), 0.0
        elif now_s - self._skipped[1] >= 1.0:
            per_s = (skipped - self._skipped[0]) / (now_s - self._skipped[1])
            self._skipped = skipped, now_s
        found = LaneFigures(
            fps=number(figures.get("fps")) or 0.0,
            age_p50_ms=_known(figures.get("age_p50_ms")),
            age_p99_ms=_known(figures.get("age_p99_ms")),
            skipped=skipped,
            skipped_per_s=per_s,
            attached=int(number(figures.get("attached")) or 0),
            lanes=int(number(figures.get("lanes")) or 0),
        )
        if found != self.lane:
            self.revision += 1
            self.lane = found
        if found.age_p99_ms is not None and found.attached:
            self.traces["lane_age"].add(found.age_p99_ms, now_s)
        self.alerts.on_lanes(figures.get("silent_s") or (), now_s)

    def set_loop(self, stall_p99_ms: float, fps: float, now_s: float) -> None:
        """How late the event loop comes to its ticks, and how often it paints."""
        if (stall_p99_ms, fps) != (self.loop_p99_ms, self.fps):
            self.revision += 1
            self.loop_p99_ms, self.fps = stall_p99_ms, fps
        self.traces["stall"].add(stall_p99_ms, now_s)

    def set_samples(self, samples: Mapping[int, ProcessSample]) -> None:
        """CPU and memory by pid, as `sampler` found them."""
        self.revision += 1
        self._samples = samples

    def add(self, batches: Iterable[RecordBatch], now_s: float) -> None:
        """Records of the fast path: log lines, lives of runs, numbers that are none. Steps are only passed over."""
        for batch in batches:
            self._note_worker(batch.info, now_s)
            if batch.kind == "step":
                continue
            try:
                self._add(batch, now_s)
            except WireError:
                continue  # the telemetry model counts what cannot be read

    # ---- what is asked for, in a background thread ----

    def is_due(self, what: str, now_s: float) -> bool:
        """Whether to ask again for the `sample` of processes or the store's `figures`. Once true, false for a while."""
        if now_s < self._due_s[what]:
            return False
        self._due_s[what] = now_s + (SAMPLE_S if what == "sample" else FIGURES_S)
        return True

    def pids(self) -> list[int]:
        """Processes to sample: children, workers, and this one. Only our own where the graph is elsewhere."""
        if not self.is_local:
            return [os.getpid()]
        return [os.getpid(), *(process.pid for process in (*self.graph.processes, *self._worker_processes()))]

    def set_store_figures(self, rows: Sequence[Sequence[Any]], gaps: int, now_s: float, wall_ns: int) -> None:
        """Rows `source, name, value, t_ns` of the view `graph_metrics`, rising; and how many records are missing."""
        self.store_gaps = gaps
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for source, name, value, t_ns in rows:
            if value is not None:
                found.setdefault((source, name), []).append((now_s - (wall_ns - t_ns) / 1e9, float(value)))
        commits = [(at_s, 1000 * value) for at_s, value in found.get((DB_WRITER, "commit_p99_s"), [])]
        trace = self.traces["commit"]
        for at_s, value in commits:
            if at_s > trace.newest_s + 1.0 and at_s > now_s - WINDOW_S:
                trace.add(value, at_s)
        p50 = found.get((DB_WRITER, "commit_p50_s"), [])
        is_fresh = bool(commits) and now_s - commits[-1][0] < COMMIT_GAP_S
        self.commit_p99_ms = commits[-1][1] if is_fresh else None
        self.commit_p50_ms = 1000 * p50[-1][1] if is_fresh and p50 else None
        if not self._is_filled:  # so that a window that has just opened shows what was before
            self._is_filled = True
            for name, key in (
                ("events", ("router", "records_per_s")),
                ("db_queue", (f"subscriber {DB_WRITER}", "depth")),
                ("ui_queue", (f"subscriber {self.window_name}", "depth")),
            ):
                self.traces[name].fill(found.get(key, []), now_s)
        self.revision += 1

    # ---- what is shown ----

    @property
    def window_name(self) -> str:
        """Under which name this window reads the bus."""
        return self.bus.name if self.bus is not None else GUI

    @property
    def window_queue(self) -> QueueFigures | None:
        """This window's queue in the router."""
        return self.graph.queue(self.window_name)

    @property
    def durable_queue(self) -> QueueFigures | None:
        """The DB writer's queue in the router."""
        return self.graph.queue(DB_WRITER)

    @property
    def queues(self) -> tuple[QueueFigures, ...]:
        """Every subscriber's queue."""
        return self.graph.queues

    @property
    def journals(self) -> tuple[JournalFigures, ...]:
        """Every worker's journal."""
        return self.graph.journals

    @property
    def processes(self) -> list[ProcessFigures]:
        """Supervisor, children, workers, windows and this window; with CPU and memory where they are on this host."""
        known = {process.pid for process in self.graph.processes}
        window = ProcessFigures(name="this window", kind=GUI, state="running", pid=os.getpid())
        others = [process for process in (*self._worker_processes(), window) if process.pid not in known]
        return [self._with_sample(process) for process in (*self.graph.processes, *others)]

    @property
    def drops(self) -> tuple[int, int]:
        """Records dropped towards windows since this one first saw their queues, and towards the store ever."""
        window = sum(queue.total_dropped - self._dropped.get(queue.name, 0) for queue in self._window_queues())
        durable = self.durable_queue
        return window, 0 if durable is None else durable.total_dropped

    def run_names(self) -> dict[str, str]:
        """Names of the runs seen, by id."""
        return {worker.info.run: worker.info.run_name for worker in self._workers.values()}

    def warnings(self) -> list[str]:
        """What is not well now, one line each."""
        found: list[str] = []
        if not self.graph.pid:
            return ["no graph answers"]
        for queue in self.queues:
            if queue.share >= QUEUE_ON:
                found.append(f"{queue.name} queue {queue.share:.0%} full")
            if queue.balance:
                found.append(f"{queue.name} account is open by {queue.balance}")
        if self.lane.attached and (self.lane.age_p99_ms or 0.0) > 2 * LANE_AGE_MS:
            found.append(f"fast lane age p99 is {self.lane.age_p99_ms:.0f} ms")
        if self.commit_p99_ms is not None and self.commit_p99_ms > COMMIT_MS:
            found.append(f"commits take {self.commit_p99_ms:.0f} ms")
        if self.graph.store.failed_attempts:
            found.append("commits fail")
        found += [f"{journal.worker} stalled" for journal in self.journals if journal.is_stalled]
        if self.bus is not None and not self.bus.is_joined:
            found.append("the window is not on the RunBus")
        return found

    def summary(self) -> list[tuple[str, str, str]]:
        """For the status bar: key, text and state of the store's sizes and of queues that fill. Empty text: nothing."""
        durable = self.durable_queue
        sizes = f"{size_text(self.database_bytes)} · WAL {size_text(self.wal_bytes)}" if self.database_bytes else ""
        is_filling = durable is not None and durable.share >= QUEUE_ON
        queue = f"DB queue {durable.share:.0%}" if durable is not None and is_filling else ""
        return [("sizes", sizes, ""), ("db_queue", queue, "warn")]

    # ---- inside ----

    def _window_queues(self) -> list[QueueFigures]:
        return [queue for queue in self.queues if is_window(queue.name)]

    def _add(self, batch: RecordBatch, now_s: float) -> None:
        info = batch.info
        name = info.run_name or info.run
        if batch.kind in ("episode", "metric"):
            body = bytes(batch.body)
            if not any(mark in body for mark in _NOT_FINITE):
                return  # a search of the bytes costs a hundredth of decoding them
        elif batch.kind not in ("log", "run"):
            return
        for record in batch.records:
            if isinstance(record, LogRecord):
                self.log.add_record(record, info)
                if is_nothing_recorded(info, record):
                    text = f"{name} · nothing is recorded"
                    self.alerts.tell(f"unhooked {info.run}", "warn", text, now_s, info.run)
            elif isinstance(record, RunRecord):
                self._add_run(info, name, record, now_s)
            elif isinstance(record, EpisodeRecord) and not math.isfinite(record.episode_return):
                self.alerts.on_not_finite(info.run, name, "return", record.episode_return, now_s)
            elif isinstance(record, MetricRecord) and not math.isfinite(record.value):
                self.alerts.on_not_finite(info.run, name, record.name, record.value, now_s)

    def _add_run(self, info: StreamInfo, name: str, record: RunRecord, now_s: float) -> None:
        """The worker tells of its run; its proxy tells how its process ended."""
        exit_code: Any = record.facts.get("exit_code")
        worker = info.worker.removeprefix(PROXY_PREFIX)
        is_many = len({known.info.worker for known in self._workers.values() if known.info.run == info.run}) > 1
        code = exit_code if isinstance(exit_code, int) else None
        self.alerts.on_run(info.run, worker, name, record.state, now_s, code, is_one_of_many=is_many)

    def _note_worker(self, info: StreamInfo, now_s: float) -> None:
        if info.worker.startswith(PROXY_PREFIX):
            return
        worker = self._workers.get(info.stream)
        if worker is None:
            worker = self._workers[info.stream] = _Worker(info, now_s)
            if len(self._workers) > KEPT_WORKERS:
                self._workers.popitem(last=False)
        worker.seen_s = now_s

    def _worker_processes(self) -> list[ProcessFigures]:
        """Workers that a proxy still serves, each process once."""
        served = {(journal.run, journal.worker): journal for journal in self.graph.journals}
        found: dict[int, ProcessFigures] = {}
        for worker in self._workers.values():
            info = worker.info
            journal = served.get((info.run, info.worker))
            if journal is not None and info.host == _HOST:
                state = "stalled" if journal.is_stalled else "running"
                label = f"{info.run_name or info.run} · {info.worker}"
                found[info.pid] = ProcessFigures(name=label, kind="worker", state=state, pid=info.pid)
        return list(found.values())

    def _with_sample(self, process: ProcessFigures) -> ProcessFigures:
        sample = self._samples.get(process.pid)
        if sample is None:
            return process
        return replace(process, cpu_percent=sample.cpu_percent, rss_bytes=sample.rss_bytes)


def _known(value: Any) -> float | None:
    found = number(value)
    return None if found is None or math.isnan(found) else found


_HOST = os.uname().nodename


def wall_of(at_s: float, now_s: float) -> float:
    """Wall-clock seconds of a moment told in monotonic ones."""
    return time.time() - (now_s - at_s)
