"""RunListView: every run as a card, with search and filters. Choosing one makes the window be about it."""

from collections import OrderedDict
from typing import Any

from PySide6.QtCore import QItemSelectionModel, QModelIndex, QPoint, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QMenu,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from runlane.config.names import PROXY_PREFIX
from runlane.gui import icons
from runlane.gui.controls_view import EmptyState, IconButton, Label
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.run_actions import actions_of
from runlane.gui.run_card_view import RunCardDelegate
from runlane.gui.run_entry import RunEntry, facts_of
from runlane.gui.run_filter import GROUPS, RunFilter
from runlane.gui.run_menu_view import run_menu
from runlane.gui.run_model import RunRole
from runlane.gui.run_warning import LEVEL, NOTHING_RECORDED
from runlane.gui.tokens import Tokens

PILLS = (("all", "All"), ("live", "Live"), ("done", "Done"), ("failed", "Failed"))
LOOK_S = 0.25
COUNT_S = 1.0
CURVE_POINTS = 48
CURVE_S = 5.0  # returns of a living run are asked for again after this
KEPT_CURVES = 512
FACTS_AT_ONCE = 200
RETRY_S = 3.0
SEARCH_MS = 90
MENU_NAMES = 12
COMMAND = "runlane run -- python train.py"
WARNING_SQL = """
SELECT run, text FROM logs WHERE run = ? AND worker LIKE ? AND level = ? AND text LIKE ? ORDER BY t_ns DESC LIMIT 1
"""
WARNING_WORDS = (f"{PROXY_PREFIX}%", LEVEL, f"{NOTHING_RECORDED}%")


class _List(QListView):
    """Tells of what a person chose, and of nothing that a filter did."""

    chosen = Signal(QModelIndex)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802  Qt's name
        before = self.currentIndex().row()
        super().keyPressEvent(event)
        if self.currentIndex().row() != before:
            self.chosen.emit(self.currentIndex())

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802  Qt's name
        super().mousePressEvent(event)
        index = self.indexAt(event.position().toPoint())
        if index.isValid():
            self.chosen.emit(index)


class RunListView(QWidget):
    """The left column. It works while it is visible; facts and returns are asked for the runs in sight."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._tokens = tokens
        self._actions = actions_of(controller)
        self._next_look_s = self._next_count_s = self._next_facts_s = 0.0
        self._is_asking_facts = self._is_asking_curve = False
        self._asked: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.setAccessibleName("Runs")
        self.filter = RunFilter(controller.runs, self)
        self._search_timer = QTimer(self, singleShot=True, interval=SEARCH_MS)
        self._search_timer.timeout.connect(self._apply_search)
        self._make_header(tokens)
        self._make_list(tokens)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addLayout(self._header)
        column.addWidget(self.search)
        column.addLayout(self._pill_row)
        column.addWidget(self._stack, 1)
        controller.ticked.connect(self._on_tick)
        controller.selection_changed.connect(self._show_selection)
        for signal in (self.filter.modelReset, self.filter.rowsInserted, self.filter.rowsRemoved):
            signal.connect(self._on_rows)
        self._show_counts()
        self._on_rows()

    # ---- parts ----

    def _make_header(self, tokens: Tokens) -> None:
        self._header = QHBoxLayout()
        self._header.addWidget(Label("Runs", "title"), 1)
        self.menu_button = IconButton("filter", "Filter runs by state, environment or algorithm", tokens)
        self.menu_button.clicked.connect(self._open_filters)
        self._header.addWidget(self.menu_button)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search runs, env, algo…")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("Words to find. state:failed, env:Pong, algo:ppo, tag:… and host:… look at one thing.")
        self.search.setAccessibleName("Search runs")
        self.search.textChanged.connect(self._on_typed)
        self.search.returnPressed.connect(self._apply_search)
        self._search_icon = QAction(self)
        self.search.addAction(self._search_icon, QLineEdit.ActionPosition.LeadingPosition)
        self._search_icon.setIcon(icons.icon("search", tokens.muted))
        self._pill_row = QHBoxLayout()
        self._pill_row.setSpacing(6)
        self._pills: dict[str, QPushButton] = {}
        group = QButtonGroup(self)
        for key, text in PILLS:
            pill = QPushButton(text)
            pill.setProperty("role", "pill")
            pill.setCheckable(True)
            pill.setChecked(key == "all")
            pill.clicked.connect(lambda _checked=False, key=key: self.filter.set_group(key))
            pill.setToolTip("Every run" if key == "all" else f"Only runs that are {', '.join(sorted(GROUPS[key]))}")
            group.addButton(pill)
            self._pills[key] = pill
            self._pill_row.addWidget(pill)
        self._pill_row.addStretch(1)

    def _make_list(self, tokens: Tokens) -> None:
        self.delegate = RunCardDelegate(tokens, self)
        self.list = _List()
        self.list.setModel(self.filter)
        self.list.setItemDelegate(self.delegate)
        self.list.setUniformItemSizes(True)
        self.list.setMouseTracking(True)
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.list.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setIconSize(QSize(1, 1))
        self.list.setAccessibleName("List of runs")
        self.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.list.customContextMenuRequested.connect(self._open_menu)
        self.list.chosen.connect(self._on_chosen)
        self._empty = EmptyState("No runs yet", "Start one with the form behind “New run”, or in a terminal:", COMMAND)
        self._nothing = EmptyState("No run matches", "Clear the search, or choose another filter.")
        self._stack = QStackedWidget()
        for widget in (self.list, self._empty, self._nothing):
            self._stack.addWidget(widget)

    # ---- API ----

    def focus_search(self) -> None:
        """Go to the search field, its text selected."""
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        self._tokens = self.delegate.tokens = tokens
        self.menu_button.set_tokens(tokens)
        self._search_icon.setIcon(icons.icon("search", tokens.muted))
        self.list.viewport().update()

    # ---- what a person does ----

    def _on_chosen(self, index: QModelIndex) -> None:
        run = index.data(RunRole.RUN)
        if isinstance(run, str):
            self._controller.select(run)

    def _on_typed(self, _text: str) -> None:
        self._search_timer.start()

    def _apply_search(self) -> None:
        self._search_timer.stop()
        self.filter.set_text(self.search.text())
        self._on_rows()

    def _open_menu(self, place: QPoint) -> None:
        index = self.list.indexAt(place)
        entry = index.data(RunRole.ENTRY) if index.isValid() else None
        if isinstance(entry, RunEntry):
            self._controller.select(entry.run)
            menu = run_menu(self, self._actions, entry, self._tokens)
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            menu.popup(self.list.viewport().mapToGlobal(place))

    def _open_filters(self) -> None:
        menu = self.filter_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.menu_button.mapToGlobal(QPoint(0, self.menu_button.height() + 4)))

    def filter_menu(self) -> QMenu:
        """What there is to filter by: each choice writes itself into the search field."""
        menu = QMenu(self)
        entries = self._controller.runs.entries()
        found: list[tuple[str, dict[str, int]]] = [("state", {}), ("env", {}), ("algo", {})]
        for entry in entries:
            for (_, counts), value in zip(found, (entry.state, entry.env_id, entry.algo), strict=True):
                if value:
                    counts[value] = counts.get(value, 0) + 1
        for key, counts in found:
            for value, count in sorted(counts.items(), key=lambda pair: -pair[1])[:MENU_NAMES]:
                text = f"{key}:{value}"
                action = menu.addAction(f"{value}  ({count:,})".replace("&", "&&"))
                action.setCheckable(True)
                action.setChecked(text in self.search.text().split())
                action.triggered.connect(lambda _checked=False, text=text: self._toggle_word(text))
            menu.addSeparator()
        menu.addAction("Clear all filters").triggered.connect(self.clear_filters)
        return menu

    def _toggle_word(self, word: str) -> None:
        key, is_wanted = word.partition(":")[0], word not in self.search.text().split()
        words = [known for known in self.search.text().split() if known.partition(":")[0] != key]
        # A search word ends at a space; what follows in a name of several words is found without it.
        self.search.setText(" ".join([*words, word.split(maxsplit=1)[0]] if is_wanted else words))
        self._apply_search()

    def clear_filters(self) -> None:
        """Show everything."""
        self.search.clear()
        self._pills["all"].click()
        self._apply_search()

    # ---- what is shown ----

    def _on_rows(self) -> None:
        is_known = self._controller.runs.rowCount() > 0
        wanted = self.list if self.filter.rowCount() else self._nothing if is_known else self._empty
        if self._stack.currentWidget() is not wanted:
            self._stack.setCurrentWidget(wanted)
        self._show_selection(self._controller.selected)

    def _show_selection(self, run: str) -> None:
        row = self._controller.runs.row_of(run)
        index = self.filter.mapFromSource(self._controller.runs.index(row)) if row >= 0 else QModelIndex()
        if index == self.list.currentIndex() and (not index.isValid() or self.list.selectionModel().isSelected(index)):
            return
        selection = self.list.selectionModel()
        if index.isValid():
            selection.setCurrentIndex(index, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        else:
            selection.clear()

    def _show_counts(self) -> None:
        counts = self._controller.runs.counts()
        for key, text in PILLS:
            states = GROUPS.get(key)
            count = sum(number for state, number in counts.items() if states is None or state in states)
            shown = f"{text} {_compact(count)}"
            if self._pills[key].text() != shown:
                self._pills[key].setText(shown)

    def _on_tick(self, now_s: float) -> None:
        if not self.isVisible() or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_S
        if now_s >= self._next_count_s:
            self._next_count_s = now_s + COUNT_S
            self._show_counts()
        self._ask_facts(now_s)
        self._ask_curve(now_s)

    # ---- what the store knows of the runs in sight ----

    def _ask_facts(self, now_s: float) -> None:
        runs = self._controller.runs.without_facts(FACTS_AT_ONCE)
        if not runs or self._is_asking_facts or now_s < self._next_facts_s:
            return
        marks = ",".join("?" * len(runs))
        sql = f"SELECT run, config, facts FROM runs WHERE run IN ({marks})"  # noqa: S608  only question marks
        self._next_facts_s = now_s

        silent = [run for run in runs if (entry := self._controller.runs.entry(run)) is not None and not entry.steps]

        def call() -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
            told = (store.query(WARNING_SQL, (run, *WARNING_WORDS))[1] for run in silent)
            return store.query(sql, runs)[1], [row for rows in told for row in rows]

        def done(answer: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]) -> None:
            self._is_asking_facts = False
            found = {str(run): facts_of(config, facts) for run, config, facts in answer[0]}
            self._controller.runs.set_facts({run: found.get(run, {}) for run in runs})
            self._controller.runs.set_warnings({str(run): str(text) for run, text in answer[1]})

        def failed(_problem: str) -> None:
            self._is_asking_facts = False
            self._next_facts_s += RETRY_S

        store = self._controller.store
        self._is_asking_facts = True
        if not self._controller.ask_store("run facts", call, done, failed):
            self._is_asking_facts = False

    def _ask_curve(self, now_s: float) -> None:
        run = None if self._is_asking_curve else self._next_curve(now_s)
        if run is None:
            return
        entry = self._controller.runs.entry(run)
        self._asked[run] = (now_s, entry.episodes if entry is not None else 0)
        self._asked.move_to_end(run)
        if len(self._asked) > KEPT_CURVES:
            self._asked.popitem(last=False)

        def done(curve: dict[str, Any]) -> None:
            self._is_asking_curve = False
            self._controller.runs.set_curve(run, curve)

        def failed(_problem: str) -> None:
            self._is_asking_curve = False

        store = self._controller.store
        self._is_asking_curve = True
        if not self._controller.ask_store("run curve", lambda: store.curve(run, CURVE_POINTS), done, failed):
            self._is_asking_curve = False

    def _next_curve(self, now_s: float) -> str | None:
        """The first run in sight whose returns are not known, or are old."""
        first = self.list.indexAt(QPoint(4, 4)).row()
        for row in range(max(0, first), self.filter.rowCount()):
            if self.list.visualRect(self.filter.index(row, 0)).top() > self.list.viewport().height():
                break
            entry = self.filter.entry(row)
            asked_s, episodes = self._asked.get(entry.run, (0.0, 0))
            is_due = entry.episodes > episodes and now_s - asked_s >= CURVE_S
            if is_due and not self._controller.runs.has_whole_curve(entry.run):
                return entry.run
        return None


def _compact(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.3g}k"
