"""TelemetryTables: the live tables of steps and episodes, with what belongs to them: filter, columns, copy, export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QPushButton,
    QSizePolicy,
    QStackedLayout,
    QWidget,
)

from runlane.gui.column_ring import Rows
from runlane.gui.column_table_view import ColumnTableView
from runlane.gui.controls_view import Card, IconButton, Label, set_property
from runlane.gui.figures import whole_number
from runlane.gui.presenters import agent_of
from runlane.gui.table_columns import episode_columns, step_columns
from runlane.gui.table_export import as_tsv, write_rows
from runlane.gui.telemetry_model import Source, TelemetryModel
from runlane.gui.tokens import Tokens

_NOBODY = Source("", "?", "")
_EMPTY = {
    "steps": "No steps yet. They appear as a worker makes them: start one with “New run” or `runlane run -- …`.",
    "episodes": "No episode has ended yet. Earlier ones of a run are in the plots above, and in `runlane sql`.",
}
_ENDED = (
    "The rows of this run are in the database: runlane sql \"SELECT * FROM {key} WHERE run = '{run}'\"; "
    "the table shows what came while this window was open."
)


class Ask(Protocol):
    """The controller's `ask_store`: runs `call` in a thread, then `done` or `failed` in ours."""

    def __call__(
        self,
        key: str,
        call: Callable[[], Any],
        done: Callable[[Any], object],
        failed: Callable[[str], object] | None = None,
    ) -> bool:
        """False when it cannot be asked now."""
        ...


class TelemetryTables(Card):
    """Two tables, one shown. `refresh` paints; nothing else does."""

    def __init__(self, model: TelemetryModel, ask: Ask, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__("Steps", parent)
        self._model = model
        self._ask = ask
        self._tokens = tokens
        names = (self._run_name, self._run_id, self._worker, self._agent_name)
        self.tables = {
            "steps": ColumnTableView("Steps", model.steps, step_columns(*names), tokens),
            "episodes": ColumnTableView("Episodes", model.episodes, episode_columns(*names), tokens),
        }
        self.shown = "steps"
        self.dialog: QFileDialog | None = None
        self._copies = 0
        self._line = Label("", "faint", is_elided=True)
        self._follow = QPushButton("Follow newest")
        self._filter = QLineEdit()
        self._pills: dict[str, QPushButton] = {}
        self._buttons: list[IconButton] = []
        self._fill_header()
        place = QWidget()
        self._stack = QStackedLayout(place)
        self._stack.setContentsMargins(0, 0, 0, 0)
        for key, table in self.tables.items():
            table.empty_text = _EMPTY[key]
            table.copying.connect(self._on_copying)
            table.copied.connect(self._on_copied)
            table.following_changed.connect(self._on_following)
            self._stack.addWidget(table)
        self.body.addWidget(place, 1)
        self.body.setContentsMargins(12, 8, 6, 6)
        self.show_table("steps")

    def _fill_header(self) -> None:
        self.heading.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Preferred)
        self.heading.setMinimumWidth(70)
        self.header.setStretch(0, 0)
        self.header.addWidget(self._line, 3)
        self._follow.setProperty("role", "pill")
        self._follow.setToolTip("The table is held while you read; go on with the newest rows (Escape)")
        self._follow.clicked.connect(self._on_follow)
        self._follow.hide()
        self.header.addWidget(self._follow)
        self._filter.setPlaceholderText("Filter: reward>0 run:ppo")
        self._filter.setToolTip("reward>0  episode=12  run:ppo  truncated: every word must hold; text is searched for")
        self._filter.setAccessibleName("Filter rows")
        self._filter.setClearButtonEnabled(True)
        self._filter.setMinimumWidth(120)
        self._filter.setMaximumWidth(260)
        self._filter.textChanged.connect(self._on_filter)
        self.header.addWidget(self._filter, 2)
        pills = QHBoxLayout()
        pills.setSpacing(6)
        for key, text in (("steps", "Steps"), ("episodes", "Episodes")):
            pill = QPushButton(text)
            pill.setProperty("role", "pill")
            pill.setCheckable(True)
            pill.setAccessibleName(f"Show {text.lower()}")
            pill.clicked.connect(lambda _checked=False, key=key: self.show_table(key))
            self._pills[key] = pill
            pills.addWidget(pill)
        self.header.addLayout(pills)
        for icon, tip, slot in (
            ("columns", "Choose columns", self.choose_columns),
            ("copy", "Copy the selection, or everything shown (Ctrl+C)", self.copy),
        ):
            button = IconButton(icon, tip, self._tokens)
            button.clicked.connect(slot)
            self._buttons.append(button)
            self.header.addWidget(button)

    # ---- what is shown ----

    @property
    def table(self) -> ColumnTableView:
        """The one that is shown."""
        return self.tables[self.shown]

    def show_table(self, key: str) -> None:
        """Show the steps or the episodes."""
        self.shown = key
        self.heading.show_text(self.table.name)
        self._stack.setCurrentWidget(self.table)
        for name, pill in self._pills.items():
            pill.setChecked(name == key)
        self._on_filter(self._filter.text())
        self._on_following(self.table.is_following)
        self.table.refresh()

    def refresh(self) -> bool:
        """Paint what came; whether something had."""
        table = self.table
        if not table.is_following:
            newer = table.shown.newer
            self._follow.setText(f"{whole_number(newer)} newer · follow" if newer else "Follow newest")
        return table.refresh()

    def tell(self, dropped: int) -> None:
        """Say what the ring holds, and what is missing in it. `dropped` by the router, of our fast path."""
        model, table = self._model, self.table
        received = model.received_steps if self.shown == "steps" else model.received_episodes
        parts = [
            f"ring of {whole_number(table.shown.ring.capacity)}",
            "newest first" if not table.shown.sorted_by else "",
        ]
        if table.shown.filter:
            parts.append(f"{whole_number(len(table.shown))} match")
        parts.append(f"{whole_number(dropped)} dropped on the fast path")
        parts.append(f"{whole_number(received)} received")
        if model.rejected:
            parts.append(f"{whole_number(model.rejected)} unreadable")
        self._line.show_text(" · ".join(filter(None, parts)), "warn" if model.rejected else "")

    def set_ended_run(self, run: str) -> None:
        """The run that the window is about, when it has ended: no row of it will come. Empty for one that goes on."""
        for key, table in self.tables.items():
            table.set_empty_text(_ENDED.format(key=key, run=run) if run else _EMPTY[key])

    @property
    def line(self) -> str:
        """What `tell` said."""
        return self._line.whole_text

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._tokens = tokens
        for table in self.tables.values():
            table.set_tokens(tokens)
        for button in self._buttons:
            button.set_tokens(tokens)

    # ---- deeds ----

    def copy(self) -> None:
        """Copy the selection."""
        self.table.copy()

    def _on_copying(self, rows: Rows) -> None:
        self._copies += 1
        number, columns = self._copies, self.table.visible_columns

        def done(text: str) -> None:
            if number == self._copies:  # else something else was copied meanwhile
                QGuiApplication.clipboard().setText(text)
                self._tell_copied(len(rows))

        def failed(problem: str) -> None:
            self._say(f"not copied: {problem}", "bad")

        if self._ask("copy", lambda: as_tsv(rows, columns), done, failed):
            self._say(f"copying {whole_number(len(rows))} rows …", "")
        else:
            failed("the store is busy; try again")

    def _on_copied(self, count: int) -> None:
        self._copies += 1
        self._tell_copied(count)

    def _tell_copied(self, count: int) -> None:
        self._say(f"{whole_number(count)} rows copied", "good")

    def choose_columns(self) -> None:
        """Open the menu of columns."""
        menu = self.table.columns_menu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self._buttons[0].mapToGlobal(self._buttons[0].rect().bottomLeft()))

    def add_exports(self, menu: QMenu) -> None:
        """Entries of an export menu: the selection, or everything shown."""
        count = len(self.table.selected_ids)
        what = f"{whole_number(count)} selected {self.shown}" if count else f"all {self.shown} shown"
        for form in ("csv", "json"):
            action = menu.addAction(f"Export {what} as {form.upper()} …")
            action.triggered.connect(lambda _checked=False, form=form: self.choose_file(form))

    def choose_file(self, form: str) -> None:
        """Ask where to write, without waiting for the answer."""
        dialog = QFileDialog(self, f"Export {self.shown}", f"{self.shown}.{form}")
        dialog.setOption(QFileDialog.Option.DontUseNativeDialog)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(form)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.export)
        dialog.open()
        self.dialog = dialog

    def export(self, path: str) -> None:
        """Write the selection, or everything shown, to a file, in a thread."""
        rows, columns = self.table.chosen_rows(), self.table.visible_columns
        is_asked = self._ask(
            f"export {path}",
            lambda: write_rows(Path(path), rows, columns),
            lambda count: self._say(f"{whole_number(count)} rows written to {path}", "good"),
            lambda problem: self._say(f"not written: {problem}", "bad"),
        )
        if not is_asked:
            self._say("not written: the store is busy; try again", "bad")

    def _say(self, text: str, state: str) -> None:
        self._line.show_text(text, state)

    # ---- events ----

    def _on_filter(self, text: str) -> None:
        problem = self.table.set_filter(text)
        set_property(self._filter, "state", "bad" if problem else "")
        self._filter.setToolTip(problem or "reward>0  episode=12  run:ppo  truncated: every word must hold")

    def _on_follow(self) -> None:
        self.table.follow()

    def _on_following(self, is_following: bool) -> None:
        self._follow.setText("Follow newest")
        self._follow.setVisible(not is_following)

    # ---- names of sources ----

    def _run_name(self, number: int) -> str:
        return self._model.sources.get(number, _NOBODY).run_name

    def _run_id(self, number: int) -> str:
        return self._model.sources.get(number, _NOBODY).run

    def _agent_name(self, number: int) -> str:
        """The run, and which of its agents, where there are several."""
        source = self._model.sources.get(number, _NOBODY)
        is_shared = self._model.worker_count(source.run) > 1
        return f"{source.run_name} · {agent_of(source.worker)}" if is_shared else source.run_name

    def _worker(self, number: int) -> str:
        return self._model.sources.get(number, _NOBODY).worker
