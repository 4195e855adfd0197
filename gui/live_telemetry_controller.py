"""LiveTelemetryController: the one place where data comes to the Qt thread, and where questions leave it.

    bus reader (thread) -> mailbox ──┐
    store, graph (threads) -> answers┴─> tick, 30 Hz, at most 8 ms -> models -> `ticked` -> the visible page

No signal per record. Models are told on the tick and nowhere else; views look at them when `ticked` comes. No widgets.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from runlane.config.settings import Settings
from runlane.gui.background import Background
from runlane.gui.bus_reader import BusReader, BusStatistics
from runlane.gui.health_model import HealthModel
from runlane.gui.run_model import RunModel
from runlane.gui.store_source import StoreSource
from runlane.gui.telemetry_model import TelemetryModel
from runlane.transport.endpoint import run_dir_of
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import Status

TICK_MS = 33
BUDGET_S = 0.008
TAKE_RECORDS = 2_048
STATUS_S = 0.5
RUNS_S = 1.0
SIZE_S = 2.0
STATUS_TIMEOUT_S = 1.0
RUNS_SHARE = 10.0  # a list of runs is asked for again after so many times what it took
CLOSE_S = 2.0


class LiveTelemetryController(QObject):
    """Owns the threads and the models. `start` once, `stop` once."""

    ticked = Signal(float)
    """After the models took in what has come; carries monotonic seconds."""
    status_changed = Signal(object)
    """The graph's `Status`, twice a second; None while no graph answers."""
    run_started = Signal(str)
    run_completed = Signal(str)
    selection_changed = Signal(str)
    """Id of the run that the window is about; empty for none."""

    def __init__(
        self, settings: Settings, store: StoreSource, parent: QObject | None = None, *, options: Sequence[str] = ()
    ) -> None:
        """Nothing is asked before `start`. `options` are the --config and --set that gave `settings`."""
        super().__init__(parent)
        self.settings = settings
        self.options = list(options)
        self.run_dir = run_dir_of(settings)
        self.store = store
        self.runs = RunModel()
        self.telemetry = TelemetryModel()
        self.health = HealthModel()
        self.status: Status | None = None
        self.selected = ""
        self.store_problem = ""
        self.note = ""  # one line that somebody should see
        self._wanted = ""  # what the command line asked to see
        self._is_chosen = self._has_rows = False
        self._alive: set[str] = set()
        self._bus: BusReader | None = None
        self._store_calls: Background | None = None
        self._status_calls: Background | None = None
        self._graph_calls: Background | None = None
        self._clients: dict[str, GraphClient] = {}
        self._runs_took_s = 0.0
        self._next_s = {"status": 0.0, "runs": 0.0, "size": 0.0}
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)

    # ---- life ----

    def start(self, wanted_run: str = "") -> None:
        """Join the bus, begin to ask; `wanted_run` is an id, the beginning of one, or a name: it is selected."""
        self._wanted = wanted_run
        self._store_calls = Background("runlane-window-store")
        # Orders may take seconds to be answered; what is shown must not grow old behind them.
        self._status_calls = Background("runlane-window-status")
        self._graph_calls = Background("runlane-window-orders")
        self._bus = BusReader(self.settings)
        self._bus.start()
        self._timer.start()

    def stop(self) -> list[str]:
        """Stop timers and threads; returns the names of threads that did not end in time."""
        self._timer.stop()
        late: list[str] = []
        if self._bus is not None and not self._bus.stop():
            late.append("fast path")
        calls = {"status": self._status_calls, "orders": self._graph_calls, "store": self._store_calls}
        for name, background in calls.items():
            if background is not None and not background.close(CLOSE_S):
                late.append(name)
            elif name in self._clients:  # a client belongs to its thread, and that has ended
                self._clients.pop(name).close()
        self._bus = self._status_calls = self._graph_calls = self._store_calls = None
        return late

    # ---- questions ----

    def ask_store(
        self,
        key: str,
        call: Callable[[], Any],
        done: Callable[[Any], object],
        failed: Callable[[str], object] | None = None,
    ) -> bool:
        """Run `call`, which may ask `store`, in a thread; `done` or `failed` come on a later tick."""
        return self._store_calls is not None and self._store_calls.ask(key, call, done, failed)

    def ask_graph(
        self,
        key: str,
        call: Callable[[GraphClient], Any],
        done: Callable[[Any], object],
        failed: Callable[[str], object] | None = None,
    ) -> bool:
        """As `ask_store`, for the supervisor: `call` gets the client, in the one thread that may use it."""
        return self._graph_calls is not None and self._graph_calls.ask(
            key, lambda: call(self._client("orders")), done, failed
        )

    def bus_statistics(self) -> BusStatistics | None:
        """Figures of our place on the RunBus."""
        return None if self._bus is None else self._bus.statistics()

    def select(self, run: str) -> None:
        """Make a run the one that the window is about, as somebody chose it."""
        self._wanted, self._is_chosen = "", True
        self._select(run)

    def _select(self, run: str) -> None:
        if run != self.selected:
            self.selected = run
            self.selection_changed.emit(run)

    # ---- the tick ----

    def _tick(self) -> None:
        now_s = time.monotonic()
        self._take(now_s)
        for background in (self._store_calls, self._status_calls, self._graph_calls):
            if background is not None:
                background.drain()
        self._ask(now_s)
        bus = self.bus_statistics()
        if bus is not None:
            self.health.set_bus(bus, now_s)
        self._tell_runs()
        self.ticked.emit(now_s)

    def _take(self, now_s: float) -> None:
        bus = self._bus
        end_s = time.perf_counter() + BUDGET_S
        while bus is not None:
            batches = bus.take(TAKE_RECORDS)
            if not batches:
                return
            self.runs.add(batches, now_s)
            self.telemetry.add(batches, now_s)
            self.health.add(batches, now_s)
            if time.perf_counter() > end_s:
                return

    def _ask(self, now_s: float) -> None:
        status_calls = self._status_calls
        if status_calls is not None and self._is_due("status", now_s, STATUS_S, status_calls):
            status_calls.ask("status", self._ask_status, self._on_status, self._on_no_status)
        # A list that takes long is asked for less often: a reader holds the write-ahead log while it reads.
        if self._is_due("runs", now_s, max(RUNS_S, RUNS_SHARE * self._runs_took_s), self._store_calls):
            self.ask_store("runs", self._ask_runs, self._on_runs, self._on_store_problem)
        if self._is_due("size", now_s, SIZE_S, self._store_calls):
            self.ask_store("size", self.store.size, self.health.set_store_size)

    def _is_due(self, key: str, now_s: float, period_s: float, background: Background | None) -> bool:
        if background is None or now_s < self._next_s[key] or background.is_pending(key):
            return False
        self._next_s[key] = now_s + period_s
        return True

    def _on_status(self, status: Status | None) -> None:
        self.status = status
        now_s = time.monotonic()
        self.health.set_status(status, now_s)
        self.runs.set_status(status)
        self.status_changed.emit(status)

    def _on_no_status(self, _problem: str) -> None:
        self._on_status(None)

    def _on_runs(self, answer: tuple[list[dict[str, Any]], float]) -> None:
        rows, self._runs_took_s = answer
        self.store_problem = ""
        self.runs.set_rows(rows)
        if not (self._has_rows or self._is_chosen):  # what came live first need not be the newest
            self._select(self.runs.newest())
        self._has_rows = True
        self.note = f"no run {self._wanted!r}: this is the newest" if self._wanted else ""

    def _on_store_problem(self, problem: str) -> None:
        self.store_problem = problem

    def _tell_runs(self) -> None:
        """Select what was asked for, else the newest, once there is something; tell of beginnings and ends."""
        alive = self.runs.alive()
        for run in alive - self._alive:
            self.run_started.emit(run)
        for run in self._alive - alive:
            self.run_completed.emit(run)
        self._alive = alive
        if self._wanted and (found := self.runs.find(self._wanted)):
            self.note = ""
            self.select(found)
        elif not self.selected or self.runs.entry(self.selected) is None:
            self._select(self.runs.newest())

    # ---- in the threads ----

    def _ask_status(self) -> Status | None:
        return self._client("status").status(STATUS_TIMEOUT_S)

    def _ask_runs(self) -> tuple[list[dict[str, Any]], float]:
        began_s = time.monotonic()
        return self.store.runs(), time.monotonic() - began_s

    def _client(self, thread: str) -> GraphClient:
        """Each thread has a client of its own, made in it."""
        if thread not in self._clients:
            self._clients[thread] = GraphClient(self.settings)
        return self._clients[thread]
