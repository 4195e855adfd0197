"""TelemetryView: curves of several runs, and the newest steps and episodes. One page of the window."""

from functools import partial

import numpy as np
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QAction, QColor, QIcon, QPixmap
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QMenu, QPushButton, QSplitter, QToolButton, QVBoxLayout, QWidget

from runlane.gui.controls_view import EmptyState, IconButton, Label
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.plot_grid_view import PlotGrid, title_of
from runlane.gui.plot_lines import group_name, inside
from runlane.gui.plot_view import MANY_AGENTS, PlotChoices, PlotCurve
from runlane.gui.presenters import agent_of
from runlane.gui.series import AXES, Axis, Envelope
from runlane.gui.telemetry_history import RawRows, load_history, raw_rows
from runlane.gui.telemetry_model import LENGTH, OWN, RATE, RETURN, SeriesKey, WorkerHistory
from runlane.gui.telemetry_tables_view import TelemetryTables
from runlane.gui.tokens import Tokens
from runlane.gui.warning_view import WarningBanner
from runlane.transport.records import ALIVE

SMOOTHINGS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.99)
AXIS_TEXTS: dict[Axis, str] = {"step": "x: env steps", "episode": "x: episodes", "time": "x: wall time"}
CURVES_S = 0.4  # between looks for curves that are new
TELL_S = 0.5
HISTORY_RETRY_S = 5.0  # after the store could not tell of what was before
TABLE_TICKS = 2  # the table is painted 15 times a second, and a plot in between
MAX_MENU_RUNS = 40
MAX_OVERLAID = 12
DEFAULT_METRICS = 6
COLOR_PX = 12


class TelemetryView(QWidget):
    """Draws on the controller's tick, while it is active. Asks the store for what was before the window opened."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "page")
        self._controller = controller
        self._model = controller.telemetry
        self._tokens = tokens
        self._choices = PlotChoices()
        self._overlaid: list[str] = []
        self._hidden: set[str] = set()  # names of plots that were unticked
        self._ticked: set[str] = set()  # and those that were ticked
        self._is_active = self._is_paused = self._is_split = False
        self._ticks = 0
        self._next_curves_s = self._next_tell_s = 0.0
        self._keys: object = None
        self._now_s = 0.0
        self._history_due_s: dict[str, float] = {}  # by run: when to ask again
        self._before_reset: set[str] = set()
        self.grid = PlotGrid(tokens)
        self.tables = TelemetryTables(controller.telemetry, controller.ask_store, tokens)
        self._empty = EmptyState(
            "No curves yet",
            "Curves are drawn as soon as a worker records steps, episodes or metrics. Start one, or choose a run.",
            "runlane run -- python train.py",
        )
        self._buttons: list[IconButton] = []
        self._arrange()
        self.grid.zoomed.connect(self._on_zoomed)
        controller.ticked.connect(self._on_tick)
        controller.selection_changed.connect(self._on_selection)
        controller.runs.rowsAboutToBeRemoved.connect(self._on_removed)
        controller.runs.modelAboutToBeReset.connect(self._on_reset)
        controller.runs.modelReset.connect(self._on_was_reset)

    # ---- layout ----

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        layout.addLayout(self._header())
        self.warning = WarningBanner(self._controller, self._tokens)
        layout.addWidget(self.warning)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        splitter.setHandleWidth(10)
        plots = QWidget()
        box = QVBoxLayout(plots)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.grid)
        box.addWidget(self._empty)
        self.grid.hide()
        plots.setMinimumHeight(140)
        self.tables.setMinimumHeight(130)
        splitter.addWidget(plots)
        splitter.addWidget(self.tables)
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 2)
        splitter.setSizes([600, 360])
        layout.addWidget(splitter, 1)

    def _header(self) -> QHBoxLayout:
        header = QHBoxLayout()
        header.setSpacing(8)
        self._note = Label("", "faint", is_elided=True)
        header.addWidget(Label("Telemetry", "title"))
        header.addWidget(self._note, 1)
        self._runs = QToolButton()
        self._runs.setText("Runs")
        self._runs.setToolTip("Runs drawn over each other")
        self._runs.setAccessibleName("Runs that are drawn")
        self._runs.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._runs_menu = QMenu(self._runs)
        self._runs_menu.aboutToShow.connect(self._fill_runs)
        self._runs.setMenu(self._runs_menu)
        header.addWidget(self._runs)
        self._axis = QComboBox()
        self._axis.addItems([AXIS_TEXTS[axis] for axis in AXES])
        self._axis.setToolTip("What the curves are drawn over")
        self._axis.setAccessibleName("Axis of the plots")
        self._axis.currentIndexChanged.connect(self._on_axis)
        self._smoothing = QComboBox()
        self._smoothing.addItems([f"Smoothing {weight:g}" for weight in SMOOTHINGS])
        self._smoothing.setCurrentIndex(SMOOTHINGS.index(self._choices.smoothing))
        self._smoothing.setToolTip("Weight of what came before in the strong line; the faint one is always the raw one")
        self._smoothing.setAccessibleName("Smoothing")
        self._smoothing.currentIndexChanged.connect(self._on_smoothing)
        self._band = QPushButton("mean ± band")
        self._band.setCheckable(True)
        self._band.setToolTip(
            "Draw runs that differ by a seed (-s1, seed=1) at the end of their names as mean ± standard deviation"
        )
        self._band.setAccessibleName("Mean and band of seeds")
        self._band.toggled.connect(self._on_banded)
        for widget in (self._axis, self._smoothing, self._band):
            header.addWidget(widget)
        for icon, tip, slot in (
            ("pause", "Hold plots and tables; recording goes on (Space)", self.toggle_pause),
            ("export", "Export the table", self._on_export),
            ("settings", "Choose plots", self._on_choose_plots),
        ):
            button = IconButton(icon, tip, self._tokens)
            button.clicked.connect(slot)
            self._buttons.append(button)
            header.addWidget(button)
        pause = QAction(self)
        pause.setShortcut(Qt.Key.Key_Space)
        pause.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        pause.triggered.connect(self.toggle_pause)
        self.addAction(pause)
        return header

    # ---- for the window ----

    def set_active(self, is_active: bool) -> None:
        """Draw, or rest while nobody looks."""
        self._is_active = is_active
        if is_active:
            self._next_curves_s = self._next_tell_s = 0.0

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._tokens = tokens
        self._keys = None
        self.warning.set_tokens(tokens)
        self.grid.set_tokens(tokens)
        self.tables.set_tokens(tokens)
        for button in self._buttons:
            button.set_tokens(tokens)
        self._look_for_curves()
        self.grid.refresh_next(len(self.grid.plots))

    def cleanup(self) -> None:
        """Release plots; the controller is not listened to any more."""
        self._controller.ticked.disconnect(self._on_tick)
        self._controller.selection_changed.disconnect(self._on_selection)
        self._controller.runs.rowsAboutToBeRemoved.disconnect(self._on_removed)
        self._controller.runs.modelAboutToBeReset.disconnect(self._on_reset)
        self._controller.runs.modelReset.disconnect(self._on_was_reset)
        self._is_active = False
        self.grid.cleanup()

    # ---- choices ----

    def runs_shown(self) -> list[str]:
        """Ids of the runs that are drawn: the selected one, then those laid over it."""
        selected = self._controller.selected
        return list(dict.fromkeys(([selected] if selected else []) + self._overlaid))

    def overlay(self, run: str, *, is_shown: bool) -> None:
        """Draw a run beside the selected one, or no longer."""
        self._overlaid = [other for other in self._overlaid if other != run]
        if is_shown:
            self._overlaid = [*self._overlaid, run][-MAX_OVERLAID:]
        self._look_for_curves()

    def set_axis(self, axis: Axis) -> None:
        """Draw over environment steps, episodes or wall time."""
        self._axis.setCurrentIndex(AXES.index(axis))
        self._choose(PlotChoices(axis, self._choices.smoothing, self._choices.is_banded))

    def set_smoothing(self, weight: float) -> None:
        """Smooth the strong line; the raw one stays."""
        if weight in SMOOTHINGS:
            self._smoothing.setCurrentIndex(SMOOTHINGS.index(weight))
        self._choose(PlotChoices(self._choices.axis, weight, self._choices.is_banded))

    def set_banded(self, *, is_banded: bool) -> None:
        """Draw seeds of a group as mean ± band."""
        self._band.setChecked(is_banded)
        self._choose(PlotChoices(self._choices.axis, self._choices.smoothing, is_banded))

    def toggle_pause(self) -> None:
        """Hold everything on this page, or go on."""
        self._is_paused = not self._is_paused
        self._buttons[0].set_icon("play" if self._is_paused else "pause", self._tokens)
        self._buttons[0].setToolTip("Go on (Space)" if self._is_paused else "Hold plots and tables (Space)")
        for table in self.tables.tables.values():
            if self._is_paused:
                table.hold()
            else:
                table.follow()
        self._note.show_text("held" if self._is_paused else "")

    @property
    def note(self) -> str:
        """What it says beside its title."""
        return self._note.whole_text

    @property
    def is_paused(self) -> bool:
        """Whether it is held."""
        return self._is_paused

    def show_plot(self, name: str, *, is_shown: bool) -> None:
        """Show the plot of a curve's name, or hide it."""
        self._hidden = self._hidden - {name} if is_shown else self._hidden | {name}
        self._ticked = self._ticked | {name} if is_shown else self._ticked - {name}
        self._look_for_curves()

    def plots_shown(self) -> list[str]:
        """Names of the curves that have a plot, in order: return, the first metric, length, rate, then the others."""
        names = self._model.names(self.runs_shown())
        metrics = sorted((name for name in names if name not in OWN), key=lambda name: "loss" not in name.lower())
        usual = [RETURN, *metrics[:1], LENGTH, RATE, *metrics[1:DEFAULT_METRICS]]
        chosen = [name for name in usual if name in names and name not in self._hidden]
        return chosen + [name for name in names if name in self._ticked and name not in chosen]

    def _choose(self, choices: PlotChoices) -> None:
        if choices != self._choices:
            self._choices = choices
            self._keys = None
            self._look_for_curves()
            self.grid.refresh_next(len(self.grid.plots))

    # ---- the tick ----

    def _on_tick(self, now_s: float) -> None:
        self._now_s = now_s
        if not self._is_active:
            return
        if now_s >= self._next_tell_s:
            self._next_tell_s = now_s + TELL_S
            self._tell()
        if now_s >= self._next_curves_s:
            self._next_curves_s = now_s + CURVES_S
            self._look_for_curves()
        self._ticks += 1
        # Never both in one tick: what is taken in, a plot and a table together would hold the loop for 15 ms.
        if self._ticks % TABLE_TICKS == 0:
            self.tables.refresh()
        elif not self._is_paused:
            self.grid.refresh_next()

    def _on_selection(self, _run: str) -> None:
        self._look_for_curves()

    def _tell(self) -> None:
        """Say what is missing, in the tables and in the plots."""
        statistics = self._controller.bus_statistics()
        entry = self._controller.runs.entry(self._controller.selected)
        self.tables.set_ended_run(entry.run if entry is not None and entry.state not in ALIVE else "")
        self.tables.tell(sum(statistics.dropped.values()) if statistics is not None else 0)
        for plot in self.grid.plots.values():
            plot.show_missed(self._model.missed_of({curve.key.run for curve in plot.curves}))

    # ---- runs that go: their rows and curves too, whether anybody looks or not ----

    def _on_removed(self, _parent: QModelIndex, first: int, last: int) -> None:
        for row in range(first, last + 1):
            self._forget(self._controller.runs.at(row).run)

    def _on_reset(self) -> None:
        self._before_reset = {entry.run for entry in self._controller.runs.entries()}

    def _on_was_reset(self) -> None:
        for run in self._before_reset - {entry.run for entry in self._controller.runs.entries()}:
            self._forget(run)
        self._before_reset = set()

    def _forget(self, run: str) -> None:
        self._overlaid = [other for other in self._overlaid if other != run]
        self._history_due_s.pop(run, None)
        if self._model.has(run):
            self._model.forget(run)

    # ---- curves ----

    def _look_for_curves(self) -> None:
        """Ask for what is not known of the runs drawn; give every plot the curves that there are."""
        runs = self.runs_shown()
        for run in runs:
            if self._model.needs_history(run) and self._now_s >= self._history_due_s.get(run, 0.0):
                self._load(run)
        keys = [key for run in runs for key in self._model.keys(run)]
        names = self.plots_shown()
        titles = [self._title(run) for run in runs]
        state = (keys, names, titles, [id(self._model.series(key)) for key in keys])
        if state == self._keys:
            return
        self._keys = state
        self.grid.setVisible(bool(names))
        self._empty.setVisible(not names)
        if not self.grid.set_names(names):
            self._keys = None  # the others on the next ticks
            self._next_curves_s = 0.0
        self._runs.setText(f"Runs {len(runs)}" if len(runs) > 1 else "Runs")
        for name, plot in self.grid.plots.items():
            plot.show_curves([curve for key in keys if key.name == name and (curve := self._curve(key))], self._choices)

    def _title(self, run: str) -> str:
        entry = self._controller.runs.entry(run)
        return entry.title if entry is not None else run[:12]

    def _color(self, run: str, place: int = 0) -> str:
        entry = self._controller.runs.entry(run)
        first = entry.color_index if entry is not None else 0
        return self._tokens.series[(first + place) % len(self._tokens.series)]

    def _curve(self, key: SeriesKey) -> PlotCurve | None:
        series = self._model.series(key)
        if series is None:
            return None
        title = self._title(key.run)
        same = [other.worker for other in self._model.keys(key.run) if other.name == key.name]
        label = title if len(same) == 1 else f"{title} · {agent_of(key.worker)}"
        is_merged = len(same) >= MANY_AGENTS and not self._is_split
        # Of several runs each keeps its colour; of one alone, each agent has one.
        place = 0 if is_merged or len(self.runs_shown()) > 1 else same.index(key.worker)
        color = self._color(key.run, place)
        return PlotCurve(key, label, color, series, group_name(title), title if is_merged else "")

    # ---- the store ----

    def _load(self, run: str) -> None:
        store = self._controller.store

        def done(workers: dict[str, WorkerHistory]) -> None:
            if self._history_due_s.pop(run, None) is not None:
                self._note.show_text("held" if self._is_paused else "", "")
            self._model.set_history(run, workers)
            self._look_for_curves()

        def failed(problem: str) -> None:
            self._history_due_s[run] = self._now_s + HISTORY_RETRY_S
            self._model.history_failed(run)
            self._note.show_text(f"no history: {problem}", "warn")

        if self._controller.ask_store(f"history {run}", lambda: load_history(store, run), done, failed):
            self._model.history_asked(run)

    def _on_zoomed(self, name: str, low: float, high: float) -> None:
        """Where the curve has merged values, the store's own rows of the stretch are drawn instead."""
        plot = self.grid.plots.get(name)
        if plot is None:
            return
        axis, store = self._choices.axis, self._controller.store
        stretches = {
            curve.key: (envelope, stretch)
            for curve in plot.curves
            if (stretch := _stretch((envelope := curve.series.envelope()), axis, low, high)) is not None
        }

        def call() -> dict[SeriesKey, RawRows]:
            found = {key: raw_rows(store, key, envelope, *times) for key, (envelope, times) in stretches.items()}
            return {key: rows for key, rows in found.items() if rows is not None}

        def done(rows: dict[SeriesKey, RawRows]) -> None:
            if self.grid.plots.get(name) is plot and plot.range_x == (low, high):
                plot.set_raw(rows)
                plot.refresh()

        if stretches:
            self._controller.ask_store(f"raw {name}", call, done)

    # ---- controls ----

    def _on_axis(self, number: int) -> None:
        self.set_axis(AXES[number])

    def _on_smoothing(self, number: int) -> None:
        self.set_smoothing(SMOOTHINGS[number])

    def _on_banded(self, is_banded: bool) -> None:
        self.set_banded(is_banded=is_banded)

    def set_split(self, is_split: bool) -> None:
        """Draw every agent of a run by itself, and not the mean of all ± standard deviation."""
        self._is_split, self._keys = is_split, None
        self._look_for_curves()
        self.grid.refresh_next(len(self.grid.plots))

    def _on_overlay(self, run: str, is_shown: bool) -> None:
        self.overlay(run, is_shown=is_shown)

    def _on_plot(self, name: str, is_shown: bool) -> None:
        self.show_plot(name, is_shown=is_shown)

    def _fill_runs(self) -> None:
        menu, shown = self._runs_menu, set(self.runs_shown())
        menu.clear()
        for entry in self._controller.runs.entries()[:MAX_MENU_RUNS]:
            action = menu.addAction(_square(self._color(entry.run)), f"{entry.title}  ·  {entry.state}")
            action.setCheckable(True)
            action.setChecked(entry.run in shown)
            action.setEnabled(entry.run != self._controller.selected)
            action.toggled.connect(partial(self._on_overlay, entry.run))
        if menu.isEmpty():
            menu.addAction("No runs yet").setEnabled(False)

    def _on_export(self) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.tables.add_exports(menu)
        menu.popup(self._buttons[1].mapToGlobal(self._buttons[1].rect().bottomLeft()))

    def _on_choose_plots(self) -> None:
        menu, shown = QMenu(self), self.plots_shown()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if any(self._model.worker_count(run) >= MANY_AGENTS for run in self.runs_shown()):
            split = menu.addAction("A line for each agent")
            split.setCheckable(True)
            split.setChecked(self._is_split)
            split.toggled.connect(self.set_split)
            menu.addSeparator()
        for name in self._model.names(self.runs_shown()):
            action = menu.addAction(title_of(name))
            action.setCheckable(True)
            action.setChecked(name in shown)
            action.toggled.connect(partial(self._on_plot, name))
        if menu.isEmpty():
            menu.addAction("No curves yet").setEnabled(False)
        menu.popup(self._buttons[2].mapToGlobal(self._buttons[2].rect().bottomLeft()))


def _square(color: str) -> QIcon:
    picture = QPixmap(COLOR_PX, COLOR_PX)
    picture.fill(QColor(color))
    return QIcon(picture)


def _stretch(envelope: Envelope, axis: Axis, low: float, high: float) -> tuple[float, float] | None:
    """From when until when a stretch of a curve was; None where every value of it is there already."""
    part = inside(envelope.x(axis), (low, high))
    times, counts = envelope.time[part], envelope.count[part]
    if not len(times) or counts.max() <= 1:
        return None
    return float(np.min(times)), float(np.max(times))
