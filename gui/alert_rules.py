"""AlertRules: what is worth a line among the events of the window, and when to say it again. No Qt, no clock.

A condition is told as it begins. While it lasts, and whenever it comes back within `REPEAT_S`, nothing new is said: the
line counts. So a queue that trembles around its mark, or a worker that makes a thousand NaN, is one line.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.health_figures import GraphFigures, JournalFigures, ProcessFigures, QueueFigures

Level = Literal["good", "idle", "warn", "bad"]

KEPT_ALERTS = 200
KEPT_KEYS = 2_048
REPEAT_S = 60.0
QUEUE_ON = 0.5
QUEUE_OFF = 0.4  # once above `QUEUE_ON`, a queue counts as over until it is below this
RATE_S = 5.0  # a step rate is the mean of so long
RATE_DROP = 0.5
LEAST_RATE = 20.0  # records a second; below, a worker is too slow for its rate to say much
WARM_UP_S = 10.0
LANE_SILENT_S = 1.5
LANE_WATCHED_S = 2.0  # before that a lane that has just been asked for is not yet expected to have answered
LANE_LOOK_S = 1.0  # a window that looks less often than this stood still itself: watching begins anew
KEPT_WORKERS = 256


@dataclass(slots=True, eq=False)
class Alert:
    """One line. `count` is how often it happened since `at_s` (monotonic seconds); `run` is an id, or empty."""

    key: str
    level: Level
    text: str
    at_s: float
    run: str = ""
    count: int = 1
    last_s: float = 0.0


@dataclass(slots=True)
class _Rate:
    """What one worker has made: counts at two moments, and the best rate so far."""

    since_s: float
    from_s: float
    from_records: int
    modes: tuple[str, ...] = ()
    best: float = 0.0


class AlertRules:
    """One thread owns it. Time is an argument, in monotonic seconds, and never goes back."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.alerts: deque[Alert] = deque(maxlen=KEPT_ALERTS)  # oldest first
        self.unseen = 0
        self.revision = 0  # grows with every change of `alerts`
        self._newest: dict[str, Alert] = {}
        self._on: dict[str, float] = {}  # conditions that hold, and since when
        self._restarts: dict[str, tuple[int, int]] = {}  # by name: pid and count
        self._dropped: dict[str, int] = {}
        self._states: dict[str, str] = {}
        self._rates: dict[str, _Rate] = {}
        self._lanes: dict[str, float] = {}  # watched, and since when
        self._lanes_s = 0.0  # when they were looked at last

    # ---- what is seen ----

    @property
    def warnings(self) -> int:
        """Conditions that hold now."""
        return len(self._on)

    def mark_seen(self) -> None:
        """Somebody has looked at the list."""
        self.unseen = 0

    # ---- what comes ----

    def on_graph(self, graph: GraphFigures, now_s: float) -> None:
        """A graph's figures, a few times a second. The first are what later ones are compared with."""
        self._hold("graph", not graph.pid, "bad", "no graph answers: start one with `runlane up`", now_s)
        if not graph.pid:
            self._forget_workers(set())
            return
        for process in graph.processes:
            self._on_process(process, now_s)
        for queue in graph.queues:
            self._on_queue(queue, now_s)
        for journal in graph.journals:
            self._on_journal(journal, now_s)
        held = f"ingress waits for {', '.join(graph.blocked_by) or 'a block subscriber'}"
        self._hold("ingress", graph.is_blocked, "warn", held, now_s)
        failed = graph.store.failed_attempts
        self._hold("commit", failed > 0, "bad", "commits fail: nothing is acked meanwhile", now_s)
        self._forget_workers({f"{journal.run} {journal.worker}" for journal in graph.journals})

    def on_run(
        self,
        run: str,
        worker: str,
        name: str,
        state: str,
        now_s: float,
        exit_code: int | None = None,
        *,
        is_one_of_many: bool = False,
    ) -> None:
        """A word about the life of a run, by one of its workers or by that one's proxy, who may know an exit code.

        Both tell of the same end: it is one line. What goes well of many workers is one line, too, with their count,
        and so is the end of the one process that they may be; a failure names the worker.
        """
        who = f"{name} · {worker}" if is_one_of_many else name
        if exit_code:
            self.tell(f"exit {run} {exit_code}", "bad", f"{name} · worker exit {exit_code}", now_s, run)
        key = f"run {run} {worker}"
        if state == "stalled" or self._states.get(key) == state:
            return  # of a stall its proxy tells twice a second, and when it is over
        self._states[key] = state
        _bound(self._states, KEPT_KEYS)
        level: Level = "good" if state in ("running", "finished") else "idle" if state == "stopped" else "bad"
        what = "started" if state == "running" else state
        is_bad = level == "bad"
        line = f"{key} {state}" if is_bad else f"run {run}  {state}"
        self.tell(line, level, f"{who if is_bad else name} · {what}", now_s, run)

    def on_not_finite(self, run: str, name: str, what: str, value: float, now_s: float) -> None:
        """A return or a metric that is no number."""
        shown = "NaN" if math.isnan(value) else "infinite"
        self.tell(f"nan {run} {name} {what}", "bad", f"{name} · {what} is {shown}", now_s, run)

    def on_lanes(self, silent_s: Iterable[tuple[str, float]], now_s: float) -> None:
        """For each lane that is watched, for how many seconds no frame came."""
        silent = dict(silent_s)
        before = self._lanes if now_s - self._lanes_s <= LANE_LOOK_S else {}
        self._lanes = {name: before.get(name, now_s) for name in silent}
        self._lanes_s = now_s
        for name, seconds in silent.items():
            is_silent = seconds > LANE_SILENT_S and now_s - self._lanes[name] >= LANE_WATCHED_S
            self._hold(f"lane {name}", is_silent, "warn", f"{name} · lane silent", now_s)
        for key in [key for key in self._on if key.startswith("lane ") and key.removeprefix("lane ") not in silent]:
            del self._on[key]  # it is watched no more

    def tell(self, key: str, level: Level, text: str, now_s: float, run: str = "") -> None:
        """Say that something happened: as a line of its own, or as one more in the last line of this key."""
        known = self._newest.get(key)
        self.revision += 1
        if known is not None and now_s - known.last_s < REPEAT_S:
            known.count += 1
            known.last_s = now_s
            return
        alert = self._newest[key] = Alert(key, level, text, now_s, run, last_s=now_s)
        self.alerts.append(alert)
        self.unseen = min(self.unseen + 1, KEPT_ALERTS)
        _bound(self._newest, KEPT_KEYS)

    # ---- rules ----

    def _hold(self, key: str, is_on: bool, level: Level, text: str, now_s: float, run: str = "") -> None:
        if is_on and key not in self._on:
            self._on[key] = now_s
            self.tell(key, level, text, now_s, run)
        elif not is_on:
            self._on.pop(key, None)

    def _on_process(self, process: ProcessFigures, now_s: float) -> None:
        known = self._restarts.get(process.name)
        self._restarts[process.name] = process.pid, process.restarts
        _bound(self._restarts, KEPT_WORKERS)
        if known is not None and process.restarts > known[1]:
            text = f"{process.name} restarted · pid {known[0]} → {process.pid}"
            self.tell(f"restart {process.name}", "warn", text, now_s)
        is_bad = process.state == "ended" and process.exit_code not in (None, 0)
        self._hold(f"ended {process.name}", is_bad, "bad", f"{process.name} · exit {process.exit_code}", now_s)

    def _on_queue(self, queue: QueueFigures, now_s: float) -> None:
        key = f"queue {queue.name}"
        mark = QUEUE_OFF if key in self._on else QUEUE_ON
        # A full `block` queue is how the durable path holds sources back; a full lossy one is about to drop.
        self._hold(key, queue.share >= mark, "warn", f"{queue.name} queue over {QUEUE_ON:.0%}", now_s)
        stalled = queue.state == "stalled"
        self._hold(f"taker {queue.name}", stalled, "warn", f"{queue.name} takes nothing", now_s)
        self._hold(f"balance {queue.name}", queue.balance != 0, "bad", f"{queue.name} account is open", now_s)
        before = self._dropped.get(queue.name)
        self._dropped[queue.name] = queue.total_dropped
        _bound(self._dropped, KEPT_WORKERS)
        if before is not None:  # what was dropped before we looked is in the table; it does not begin now
            text = f"{queue.name} drops records ({', '.join(queue.dropped)})"
            self._hold(f"drops {queue.name}", queue.total_dropped > before, "warn", text, now_s)

    def _on_journal(self, journal: JournalFigures, now_s: float) -> None:
        worker, run = journal.worker, journal.run
        name = f"{run} {worker}"
        self._hold(f"stalled {name}", journal.is_stalled, "warn", f"{worker} · stalled", now_s, run)
        self._hold(f"damaged {name}", journal.damaged > 0, "bad", f"{worker} · journal damaged", now_s, run)
        self._on_rate(journal, name, now_s)

    def _on_rate(self, journal: JournalFigures, name: str, now_s: float) -> None:
        """Records a second, compared with the best while the mode is the same: what is not kept is no fewer steps."""
        rate = self._rates.get(name)
        # A new proxy counts from 0.
        if rate is None or journal.records_in < rate.from_records or journal.modes != rate.modes:
            self._rates[name] = _Rate(now_s, now_s, journal.records_in, journal.modes)
            self._on.pop(f"rate {name}", None)
            return
        elapsed_s = now_s - rate.from_s
        if elapsed_s < RATE_S or TelemetryMode.FAST_LANE_ONLY in journal.modes:
            return
        per_s = (journal.records_in - rate.from_records) / elapsed_s
        rate.from_s, rate.from_records = now_s, journal.records_in
        if now_s - rate.since_s < WARM_UP_S or rate.best < LEAST_RATE:
            rate.best = max(rate.best, per_s)
            return
        is_low = per_s < rate.best * (1 - RATE_DROP) and not journal.is_stalled
        text = f"{journal.worker} · step rate {per_s / rate.best - 1:+.0%}"
        self._hold(f"rate {name}", is_low, "warn", text, now_s, journal.run)
        # The best fades, so that one burst at the start is no measure for hours.
        rate.best = max(per_s, rate.best * 0.95)

    def _forget_workers(self, alive: set[str]) -> None:
        """What belongs to workers that are gone holds no more."""
        for name in [name for name in self._rates if name not in alive]:
            del self._rates[name]
            for rule in ("stalled", "damaged", "rate"):
                self._on.pop(f"{rule} {name}", None)


def _bound(known: dict[str, Any], most: int) -> None:
    """Forget what came first."""
    while len(known) > most:
        del known[next(iter(known))]
