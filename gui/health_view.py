"""HealthView: the page "System": six histories, every process, every queue with its account, journals, the store."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from runlane.gui.alert_rules import QUEUE_ON
from runlane.gui.controls_view import Card, EmptyState, Figure, IconButton, Label, Segments
from runlane.gui.figure_table_view import Column, FigureTable
from runlane.gui.health_asker import ask_health
from runlane.gui.health_card_view import HealthCard
from runlane.gui.health_figures import QueueFigures
from runlane.gui.health_model import COMMIT_MS, LANE_AGE_MS, STALL_MS, HealthModel
from runlane.gui.health_rows import count, journal_rows, process_rows, queue_rows, store_figures
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.time_chart_view import TimeChartCard
from runlane.gui.tokens import Tokens

__all__ = ["HealthCard", "HealthView"]

SHOW_S = 0.5
ONE_COLUMN_WIDTH = 560
CHART_HEIGHT = 170

PROCESS_COLUMNS = (
    Column("process", "name in the graph", is_number=False),
    Column("kind", "what it does", is_number=False, is_spare=True),
    Column("state", "as the supervisor sees it; an exit code in brackets", is_number=False),
    Column("pid", "process id on its host"),
    Column("CPU", "of one core, over the last second"),
    Column("memory", "resident set"),
    Column("restarts", "how often the supervisor started it again"),
    Column("heartbeat", "how long ago it last reported"),
)
QUEUE_COLUMNS = (
    Column("subscriber", "who takes from this queue", is_number=False),
    Column("QoS policy", "what it does when it is full, and how many records it holds", is_number=False, is_spare=True),
    Column("state", "live, away, or stalled: takes nothing", is_number=False),
    Column("account", "published = delivered + dropped + depth + in flight", is_number=False),
    Column("credits", "batches it still allows to be under way, of its window"),
    Column("depth", "records that wait"),
    Column("in flight", "records under way", is_spare=True),
    Column("peak", "most records that ever waited"),
    Column("published", "records meant for it", is_spare=True),
    Column("delivered", "records it took, or committed", is_spare=True),
    Column("p50 / p99 ms", "how long deliveries took", is_spare=True),
    Column("dropped", "records its policy dropped, by reason"),
)
JOURNAL_COLUMNS = (
    Column("worker", "whose journal", is_number=False),
    Column("run", "of which run", is_number=False),
    Column("state", "whether it makes records", is_number=False),
    Column("records", "made so far, since its proxy started"),
    Column("backlog", "records in the journal that are not committed yet"),
    Column("in flight", "bytes sent and not acked"),
    Column("rewinds", "how often unacked batches were sent again"),
    Column("damaged", "journals that cannot be read to their end"),
)


class _Chart(NamedTuple):
    """One history: its trace in the model, and how it is drawn."""

    trace: str
    title: str
    unit: str
    tip: str


CHARTS = (
    _Chart("lane_age", "Fast lane: frame age p99", "ms", "How old frames are when they are painted"),
    _Chart("ui_queue", "Fast path: UI queue", "", "Records that wait in the router for this window"),
    _Chart("db_queue", "Durable path: DB queue", "", "Records that wait in the router for the DB writer"),
    _Chart("events", "Events / s", "", "Records that reach the router in a second"),
    _Chart("commit", "SQLite commit p99", "ms", "99 of 100 transactions took less; told every ten seconds"),
    _Chart("stall", "GUI loop stall p99", "ms", "How late the window's event loop comes to its ticks"),
)
GRAPH_TRACES = ("ui_queue", "db_queue", "events", "commit")


class HealthView(QWidget):
    """Works while it is active. Everything shown is the model's; nothing here asks a process."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._is_active = False
        self._next_s = 0.0
        self._waiting: list[str] = []  # charts whose turn comes at one of the next ticks
        self._columns = 0
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        layout.addLayout(self._make_header(tokens))
        self._stack = QStackedWidget()
        self._empty = EmptyState(
            "No graph answers", "Start one, or the demo, in the directory of your runs.", "runlane up"
        )
        self._stack.addWidget(self._make_charts(tokens))
        self._stack.addWidget(self._make_tables(tokens))
        self._stack.addWidget(self._empty)
        layout.addWidget(self._stack, 1)
        self.setAccessibleName("System health")
        controller.ticked.connect(self._on_tick)

    # ---- parts ----

    def _make_header(self, tokens: Tokens) -> QHBoxLayout:
        header = QHBoxLayout()
        header.setSpacing(8)
        self._problem = Label("", "caption", is_elided=True)
        self.parts = Segments(
            (
                ("charts", "Charts", "The last five minutes"),
                ("tables", "Processes and queues", "Every process, queue and journal as it is now"),
            ),
            "What is shown of the system",
        )
        self.parts.choose("charts")
        self.parts.chosen.connect(self.open_part)
        self._copy = IconButton("copy", "Copy these figures as JSON", tokens)
        self._copy.clicked.connect(self.copy_figures)
        header.addWidget(Label("System health", "title"))
        header.addWidget(self._problem, 1)
        header.addWidget(self.parts)
        header.addWidget(self._copy)
        return header

    def _make_charts(self, tokens: Tokens) -> QScrollArea:
        self.charts = {
            chart.trace: TimeChartCard(chart.title, str(number), chart.unit, chart.tip, tokens)
            for number, chart in enumerate(CHARTS)
        }
        inside = QWidget()
        self._grid = QGridLayout(inside)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(10)
        for card in self.charts.values():
            card.setMinimumHeight(CHART_HEIGHT)
        self._arrange(2)
        return _scrolled(inside, "Histories")

    def _make_tables(self, tokens: Tokens) -> QScrollArea:
        self.processes = FigureTable("Processes", PROCESS_COLUMNS, tokens)
        self.queues = FigureTable("Queues", QUEUE_COLUMNS, tokens)
        self.journals = FigureTable("Journals", JOURNAL_COLUMNS, tokens)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        store = Card("Store")
        row = QHBoxLayout()
        row.setSpacing(24)
        self.store_figures = [Figure(caption) for caption, *_ in store_figures(self._controller.health)]
        for figure in self.store_figures:
            row.addWidget(figure, 1)
        store.body.addLayout(row)
        self._notes: dict[str, Label] = {}
        for key, title, table in (
            ("processes", "Processes", self.processes),
            ("queues", "Queues of the RunBus", self.queues),
            ("journals", "Journals", self.journals),
        ):
            card = Card(title)
            self._notes[key] = Label("", "caption")
            card.header.addWidget(self._notes[key])
            card.body.addWidget(table)
            column.addWidget(card)
            if key == "queues":
                column.addWidget(store)
        column.addStretch(1)
        return _scrolled(inside, "Processes, queues and journals")

    # ---- what is asked of it ----

    def set_active(self, is_active: bool) -> None:
        """Work, or rest while another page is open."""
        self._is_active = is_active
        if is_active:
            self.show_health()

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        for card in self.charts.values():
            card.set_tokens(tokens)
        for table in (self.processes, self.queues, self.journals):
            table.set_tokens(tokens)
        self._copy.set_tokens(tokens)

    def cleanup(self) -> None:
        """Rest for ever. Again: nothing."""
        self._is_active = False

    def open_part(self, key: str) -> None:
        """`charts` or `tables`."""
        self.parts.choose(key)
        self.show_health()

    def copy_figures(self) -> None:
        """Everything that the tables show, as JSON, into the clipboard."""
        model = self._controller.health
        found = {
            "graph": msgspec.to_builtins(model.graph),
            "processes": msgspec.to_builtins(model.processes),
            "lane": msgspec.to_builtins(model.lane),
            "commit_p50_ms": model.commit_p50_ms,
            "commit_p99_ms": model.commit_p99_ms,
            "loop_p99_ms": model.loop_p99_ms,
            "warnings": model.warnings(),
        }
        QGuiApplication.clipboard().setText(json.dumps(found, indent=2))

    # ---- the tick ----

    def _on_tick(self, now_s: float) -> None:
        if not self._is_active:
            return
        ask_health(self._controller, now_s)
        if now_s >= self._next_s:
            self._next_s = now_s + SHOW_S
            self._waiting = list(self.charts)
            self.show_health(now_s, are_charts_due=False)
        elif self._waiting and self.parts.key == "charts":  # one a tick: six at once would be a late frame of the wall
            self._show_charts(self._controller.health, now_s, [self._waiting.pop(0)])

    def show_health(self, now_s: float | None = None, *, are_charts_due: bool = True) -> None:
        """Show what the model says; only the part that is open, of that the charts if they are due."""
        model = self._controller.health
        found = model.warnings()
        self._problem.show_text(" · ".join(found), "warn" if found else "")
        is_charts = self.parts.key == "charts"
        is_empty = not model.graph.pid and not any(len(model.traces[key]) for key in GRAPH_TRACES)
        self._stack.setCurrentIndex(2 if is_empty else 0 if is_charts else 1)
        if is_charts and are_charts_due:
            self._show_charts(model, model.now_s if now_s is None else now_s, list(self.charts))
        elif not is_charts:
            self._show_tables(model)

    def _show_charts(self, model: HealthModel, now_s: float, names: Sequence[str]) -> None:
        limits = {"lane_age": LANE_AGE_MS, "commit": COMMIT_MS, "stall": STALL_MS}
        limits |= _queue_limit("ui_queue", model.window_queue) | _queue_limit("db_queue", model.durable_queue)
        newest = {
            "lane_age": model.lane.age_p99_ms if model.lane.attached else None,
            "ui_queue": None if model.window_queue is None else float(model.window_queue.depth),
            "db_queue": None if model.durable_queue is None else float(model.durable_queue.depth),
            "events": model.events_per_s if model.graph.pid else None,
            "commit": model.commit_p99_ms,
            "stall": model.loop_p99_ms,
        }
        for trace in names:
            limit = limits.get(trace)
            seconds, values = model.traces[trace].arrays(now_s)
            text = f"of {count(2 * limit)}" if limit is not None and trace.endswith("queue") else ""
            self.charts[trace].show_trace(seconds, values, newest[trace], limit, text)

    def _show_tables(self, model: HealthModel) -> None:
        processes = model.processes
        self.processes.show_rows(process_rows(processes))
        self.queues.show_rows(queue_rows(model.queues))
        self.journals.show_rows(journal_rows(model.journals, model.run_names()))
        for figure, (_, value, note, state) in zip(self.store_figures, store_figures(model), strict=True):
            figure.show_value(value, note, state)
        self._notes["processes"].show_text(f"{len(processes)} processes")
        waits = (
            f"ingress waits for {', '.join(model.graph.blocked_by)}" if model.graph.is_blocked else "ingress is open"
        )
        self._notes["queues"].show_text(waits if model.queues else "no router reports yet")
        backlog = sum(journal.backlog_records for journal in model.journals)
        self._notes["journals"].show_text(f"backlog {count(backlog)} records" if model.journals else "no worker runs")

    # ---- Qt ----

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """One column of charts where two would be too narrow."""
        super().resizeEvent(event)
        self._arrange(1 if self.width() < ONE_COLUMN_WIDTH else 2)

    def _arrange(self, columns: int) -> None:
        if columns == self._columns:
            return
        self._columns = columns
        while self._grid.takeAt(0) is not None:
            pass
        for number, card in enumerate(self.charts.values()):
            self._grid.addWidget(card, number // columns, number % columns)


def _queue_limit(trace: str, queue: QueueFigures | None) -> dict[str, float]:
    return {} if queue is None or not queue.max_queue else {trace: QUEUE_ON * queue.max_queue}


def _scrolled(inside: QWidget, name: str) -> QScrollArea:
    area = QScrollArea()
    area.setWidget(inside)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setAccessibleName(name)
    return area
