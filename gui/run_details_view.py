"""RunDetailsView: all facts of the selected run: configuration, command, code, host, exit, streams and losses."""

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QBoxLayout,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QScrollArea,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from runlane.gui.controls_view import Card, EmptyState, IconButton, Label
from runlane.gui.details_model import KeyValueModel, TableModel
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.run_actions import actions_of
from runlane.gui.run_card_view import state_role
from runlane.gui.run_details import (
    DROP_COLUMNS,
    RETENTION_COLUMNS,
    STREAM_COLUMNS,
    RunDetails,
    fetch_details,
)
from runlane.gui.run_menu_view import ask_delete, ask_kill, ask_stop, copy_text
from runlane.gui.run_panel_view import BUTTONS, RunPanel
from runlane.gui.tokens import Tokens
from runlane.gui.warning_view import WarningBanner

__all__ = ["RunDetailsView", "RunPanel"]

REFRESH_S = 2.0
COMPARED_RUNS = 200  # as many newest runs are offered to compare with
ROW_HEIGHT = 28
WIDE_FROM = 900
NO_COMPARISON = "Compare with…"
ACTIONS = {"stop": ask_stop, "kill": ask_kill, "delete": ask_delete}


class RunDetailsView(QWidget):
    """A page. It asks the store while it is active: at once for another run, every 2 s for one that lives."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._actions = actions_of(controller)
        self._is_active = False
        self._shown: RunDetails | None = None
        self._other = ""  # run that is compared with
        self._next_ask_s = 0.0
        self.setAccessibleName("Run details")
        self._make_header(tokens)
        self._make_cards()
        self._empty = EmptyState("No run selected", "Choose one at the left, or start one:", "runlane demo")
        self._missing = EmptyState("Not in the database", "The store has no run of this id yet; it is asked again.")
        self._stack = QStackedWidget()
        for widget in (self._empty, self._missing, self._area):
            self._stack.addWidget(widget)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        column.addLayout(self._header)
        column.addWidget(self.problem)
        self.warning = WarningBanner(controller, tokens)
        column.addWidget(self.warning)
        column.addWidget(self._stack, 1)
        controller.ticked.connect(self._on_tick)
        controller.selection_changed.connect(self._on_selected)
        self._actions.said.connect(self._on_said)
        self._show_buttons()

    # ---- parts ----

    def _make_header(self, tokens: Tokens) -> None:
        self._header = QHBoxLayout()
        self._header.setSpacing(8)
        self._title = Label("Run", "title", is_elided=True)
        self._state = Label("", "caption")
        self._header.addWidget(self._title, 1)
        self._header.addWidget(self._state)
        self.compare = QComboBox()
        self.compare.setAccessibleName("Run to compare the configuration with")
        self.compare.setToolTip("Show only the settings in which another run differs")
        self.compare.setMinimumWidth(190)
        self.compare.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.compare.addItem(NO_COMPARISON, "")
        self.compare.activated.connect(self._on_compared)
        self.copy = IconButton("copy", "Copy the command line", tokens)
        self.copy.clicked.connect(self._copy_command)
        self._header.addWidget(self.compare)
        self._header.addWidget(self.copy)
        tips = dict(BUTTONS)
        self.buttons = {key: IconButton(key, tips[key], tokens) for key in ACTIONS}
        for key, button in self.buttons.items():
            button.clicked.connect(lambda _checked=False, key=key: self._act(key))
            self._header.addWidget(button)
        self.problem = Label("", "caption", is_elided=True)
        self.problem.setVisible(False)

    def _make_cards(self) -> None:
        self.config, self.env = KeyValueModel(self), KeyValueModel(self)
        self.facts = TableModel(("fact", "value"), self)
        self.streams = TableModel(STREAM_COLUMNS, self)
        self.drops = TableModel(DROP_COLUMNS, self)
        self.retention = TableModel(RETENTION_COLUMNS, self)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search settings…")
        self.search.setClearButtonEnabled(True)
        self.search.setAccessibleName("Search settings")
        self.search.setMaximumWidth(220)
        self.search.textChanged.connect(self.config.search)
        self._config_card = Card("Configuration")
        self._config_card.header.addWidget(self.search)
        self._config_table = _table(self.config, "Configuration")
        self._no_config = Label("", "muted")
        self._no_config.setWordWrap(True)
        self._config_card.body.addWidget(self._no_config)
        self._config_card.body.addWidget(self._config_table)
        self._config_card.body.addStretch(1)
        facts = _table_card("Facts", self.facts, is_headless=True)
        for card in (self._config_card, facts):
            card.heading.setMinimumHeight(self.search.sizeHint().height())
        for table in facts.findChildren(QTableView):
            table.setWordWrap(True)  # command lines are long
        self._env_card = _table_card("Environment", self.env, is_headless=True)
        upper = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        upper.setSpacing(10)
        upper.addWidget(self._config_card, 1)
        upper.addWidget(facts, 1)
        self._upper = upper
        self._lower = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._lower.setSpacing(10)
        self._lower.addWidget(_table_card("Dropped records", self.drops), 1)
        self._lower.addWidget(_table_card("Removed by retention", self.retention), 1)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        column.addLayout(upper)
        column.addWidget(self._env_card)
        column.addWidget(_table_card("Streams", self.streams))
        column.addLayout(self._lower)
        column.addStretch(1)
        self._area = QScrollArea()
        self._area.setWidget(inside)
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)

    # ---- API ----

    def set_active(self, is_active: bool) -> None:
        """Ask and show only while somebody looks."""
        self._is_active = is_active
        self._next_ask_s = 0.0
        if is_active:
            self._on_selected(self._controller.selected)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours; the style sheet does the rest."""
        self.warning.set_tokens(tokens)
        for button in (self.copy, *self.buttons.values()):
            button.set_tokens(tokens)

    def cleanup(self) -> None:
        """Nothing is held."""
        self._is_active = False

    # ---- what a person does ----

    def _copy_command(self) -> None:
        command = next((row[1] for row in self.facts.rows if row[0] == "command"), "")
        if command:
            copy_text(command)

    def _act(self, key: str) -> None:
        entry = self._controller.runs.entry(self._controller.selected)
        if entry is not None:
            ACTIONS[key](self, self._actions, entry)

    def _on_compared(self, place: int) -> None:
        self._other = self.compare.itemData(place) or ""
        if not self._other:
            self.config.compare(None)
            return
        other, name = self._other, self.compare.itemText(place)
        store = self._controller.store

        def done(details: RunDetails) -> None:
            if details.run == self._other:
                self.config.compare(details.config, name, details.around)
                self._fit()

        self._controller.ask_store("compared run", lambda: fetch_details(store, other), done, self._show_problem)

    # ---- what is shown ----

    def _on_selected(self, run: str) -> None:
        if self._shown is not None and self._shown.run != run:
            self._shown = None
            self._other = ""
            self.config.compare(None)
            self._show_problem("")
        self._show_buttons()
        if not self._is_active:
            return
        if not run:
            self._stack.setCurrentWidget(self._empty)
        self._ask(run)

    def _on_tick(self, now_s: float) -> None:
        if not self._is_active:
            return
        self._show_buttons()
        if now_s < self._next_ask_s:
            return
        self._next_ask_s = now_s + REFRESH_S
        entry = self._controller.runs.entry(self._controller.selected)
        shown = self._shown
        has_changed = shown is None or entry is None or ("state", entry.state) not in shown.facts
        if entry is not None and (entry.is_alive or has_changed):
            self._ask(entry.run)
        self._offer_runs()

    def _ask(self, run: str) -> None:
        if run:
            store = self._controller.store
            self._controller.ask_store("run details", lambda: fetch_details(store, run), self._show, self._show_problem)

    def _show(self, details: RunDetails) -> None:
        if details.run != self._controller.selected:
            return
        self._shown = details
        if not details.is_known:
            self._stack.setCurrentWidget(self._missing)
            return
        self._show_problem("")
        self._stack.setCurrentWidget(self._area)
        state = dict(details.facts).get("state", "")
        self._title.show_text(details.name)
        self._state.show_text(f"● {state}", state_role(state))
        self.config.set_values(details.config, details.around)
        self.env.set_values(details.env)
        self._env_card.setVisible(bool(details.env))
        self.facts.set_rows(details.facts)
        self.streams.set_rows(details.streams)
        self.drops.set_rows(details.drops or [("nobody", "nothing was dropped", "0")])
        self.retention.set_rows(details.retention or [("none", "everything is still there", "0", "")])
        has_none = not details.config
        self._no_config.setVisible(has_none)
        self._no_config.show_text(
            "This run recorded no hyper-parameters. Give them to wrap(env, config=…) or attach(config=…)."
            if has_none
            else ""
        )
        self._fit()

    def _show_buttons(self) -> None:
        """A living run is stopped or killed, an ended one deleted."""
        entry = self._controller.runs.entry(self._controller.selected)
        for key, button in self.buttons.items():
            is_enabled = entry is not None and entry.is_alive == (key != "delete")
            if button.isEnabled() != is_enabled:
                button.setEnabled(is_enabled)

    def _show_problem(self, text: str) -> None:
        self._show_line(text, "bad")

    def _show_line(self, text: str, state: str) -> None:
        self.problem.show_text(" ".join(text.split()), state)
        self.problem.setVisible(bool(text))

    def _on_said(self, run: str, text: str, state: str) -> None:
        if run == self._controller.selected:
            self._show_line(text, state)

    def _offer_runs(self) -> None:
        """Other runs to compare with, newest first; rebuilt only when there are others."""
        if self.compare.view().isVisible():
            return
        others = [
            (entry.title, entry.run)
            for entry in self._controller.runs.entries()[: COMPARED_RUNS + 1]
            if entry.run != self._controller.selected
        ]
        wanted = [(NO_COMPARISON, ""), *others]
        count = self.compare.count()
        if [(self.compare.itemText(place), self.compare.itemData(place)) for place in range(count)] == wanted:
            return
        self.compare.clear()
        for text, run in wanted:
            self.compare.addItem(text, run)
        self.compare.setCurrentIndex(max(0, self.compare.findData(self._other)))

    def _fit(self) -> None:
        """Every table is as high as its rows; the page scrolls as a whole."""
        for table in self._area.findChildren(QTableView):
            _fit_table(table)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """Side by side where there is room."""
        super().resizeEvent(event)
        is_wide = self.width() >= WIDE_FROM
        direction = QBoxLayout.Direction.LeftToRight if is_wide else QBoxLayout.Direction.TopToBottom
        for layout in (self._upper, self._lower):
            if layout.direction() != direction:
                layout.setDirection(direction)
        self._fit()


def _table(model: TableModel, name: str, *, is_headless: bool = False) -> QTableView:
    table = QTableView()
    table.setModel(model)
    table.setAccessibleName(name)
    table.setAlternatingRowColors(True)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setTabKeyNavigation(False)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
    table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
    header = table.horizontalHeader()
    header.setVisible(not is_headless)
    header.setHighlightSections(False)
    header.setStretchLastSection(True)
    header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
    return table


def _table_card(title: str, model: TableModel, *, is_headless: bool = False) -> Card:
    card = Card(title)
    card.body.addWidget(_table(model, title, is_headless=is_headless))
    card.body.addStretch(1)
    return card


def _fit_table(table: QTableView) -> None:
    model = table.model()
    columns: Sequence[int] = range(model.columnCount())
    for column in columns[:-1]:
        width = table.sizeHintForColumn(column) + 22
        header = table.horizontalHeader().sectionSizeHint(column) + 6
        table.setColumnWidth(column, min(320, max(56, width, header)))
    header_height = table.horizontalHeader().sizeHint().height() if table.horizontalHeader().isVisibleTo(table) else 0
    is_scrolled = sum(table.columnWidth(column) for column in columns[:-1]) + 80 > table.viewport().width()
    rows = range(model.rowCount())
    if table.wordWrap():
        table.resizeRowsToContents()
        for row in rows:
            if table.rowHeight(row) < 1.35 * ROW_HEIGHT:  # one line
                table.setRowHeight(row, ROW_HEIGHT)
    height = sum(table.rowHeight(row) for row in rows) + header_height + (12 if is_scrolled else 2)
    if table.minimumHeight() != height:
        table.setFixedHeight(height)
