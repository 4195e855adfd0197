"""LaunchFormView: what to run, how it is watched and kept, and with which seeds; then the very command that does it."""

import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from runlane.config.errors import RunlaneError
from runlane.gui.controls_view import Card, IconButton, Label
from runlane.gui.launch_fields_view import ScriptFields, TelemetryFields, TypeFields
from runlane.gui.launch_plan import MAX_COPIES, Launch, LaunchPlan, default_name, launches_of
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.option_field_view import field_row, number_field
from runlane.gui.run_launcher import Ended, Launched, RunLauncher, exit_text, log_dir_of
from runlane.gui.run_menu_view import copy_text
from runlane.gui.run_text import duration_text
from runlane.gui.telemetry_mode import TelemetryModeState
from runlane.gui.tokens import Tokens
from runlane.gui.worker_choice_view import SCRIPT, WorkerChoice
from runlane.gui.worker_type import WORKER_TYPES
from runlane.transport.endpoint import data_dir_of

PREVIEW_MS = 120
PREVIEW_HEIGHT = 96
OUTPUT_HEIGHTS = (84, 280)
KEPT_LINES = 200
WIDE_FROM = 640


class LaunchFormView(QWidget):
    """A page. The command shown is the command started; it is made anew when a field changes, while active."""

    def __init__(
        self,
        controller: LiveTelemetryController,
        tokens: Tokens,
        mode_state: TelemetryModeState,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._controller = controller
        self._is_active = False
        self._launches: list[Launch] = []
        self.launcher = RunLauncher(log_dir_of(data_dir_of(controller.settings)), self)
        self.setAccessibleName("Launch a run")
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PREVIEW_MS)
        self._timer.timeout.connect(self.refresh)
        self.choice = WorkerChoice(tokens)
        self.types = {kind.key: TypeFields(kind, tokens, self._touch) for kind in WORKER_TYPES}
        for fields in self.types.values():
            fields.need_changed.connect(self.refresh)
        self.script = ScriptFields(tokens, self._touch, self._choose_file, self._choose_directory)
        self.telemetry = TelemetryFields(controller.settings.fast_lane, mode_state, self._touch)
        self._make_page(tokens)
        self.choice.chosen.connect(self._on_chosen)
        mode_state.telemetry_mode_changed.connect(self._touch)
        self.launcher.began.connect(self._on_began)
        self.launcher.refused.connect(self._on_refused)
        self.launcher.ended.connect(self._on_ended)
        self._mode_state = mode_state
        self._on_chosen(self.choice.key)

    # ---- parts ----

    def _make_page(self, tokens: Tokens) -> None:
        left, right = QVBoxLayout(), QVBoxLayout()
        for column in (left, right):
            column.setContentsMargins(0, 0, 0, 0)
            column.setSpacing(10)
        left.addWidget(self._make_what_card())
        left.addWidget(self._make_run_card())
        left.addStretch(1)
        telemetry = Card("Telemetry")
        telemetry.body.setSpacing(10)
        telemetry.body.addWidget(self.telemetry)
        right.addWidget(telemetry)
        right.addWidget(self._make_command_card(tokens))
        right.addWidget(self._make_output_card(), 1)
        right.addStretch(0)
        inside = QWidget()
        self._columns = QBoxLayout(QBoxLayout.Direction.LeftToRight, inside)
        self._columns.setContentsMargins(0, 0, 0, 0)
        self._columns.setSpacing(10)
        self._columns.addLayout(left, 1)
        self._columns.addLayout(right, 1)
        area = QScrollArea()
        area.setWidget(inside)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        page = QVBoxLayout(self)
        page.setContentsMargins(0, 0, 0, 0)
        page.setSpacing(10)
        page.addLayout(self._make_header())
        page.addWidget(area, 1)

    def _make_header(self) -> QHBoxLayout:
        self.problem = Label("", "caption", is_elided=True)
        self.problem.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.problem.setAccessibleName("What is wrong with the form")
        self.launch_button = QPushButton("Launch")
        self.launch_button.setProperty("role", "primary")
        self.launch_button.setToolTip("Start it now; it goes on when this window is closed")
        self.launch_button.clicked.connect(self.launch)
        row = QHBoxLayout()
        row.setSpacing(10)
        row.addWidget(Label("New run", "title"))
        row.addWidget(self.problem, 1)
        row.addWidget(self.launch_button)
        return row

    def _make_what_card(self) -> Card:
        card = Card("What to run")
        card.body.setSpacing(10)
        card.body.addWidget(self.choice)
        for fields in (*self.types.values(), self.script):
            card.body.addWidget(fields)
        return card

    def _make_run_card(self) -> Card:
        card = Card("Run")
        card.body.setSpacing(10)
        self.name = QLineEdit()
        self.name.setMaxLength(200)
        self.name.setToolTip("Readable name of the run; of several copies its beginning")
        self.name.textChanged.connect(self._touch)
        self.copies = number_field(1, 1, MAX_COPIES, 0, "How many copies are started, each with its own seed")
        self.first_seed = number_field(1, 0, 2**31 - 1, 0, "Seed of the first copy; the next have the next ones")
        self.seed_flag = QLineEdit("--seed")
        self.seed_flag.setToolTip("How your script takes a seed; or write {seed} into the command")
        self.seed_flag.textChanged.connect(self._touch)
        self._seed_row = field_row("Seed option", self.seed_flag)
        for number in (self.copies, self.first_seed):
            number.valueChanged.connect(self._touch)
        card.body.addWidget(field_row("Run name", self.name))
        pair = QHBoxLayout()
        pair.setSpacing(10)
        pair.addWidget(field_row("Copies", self.copies), 1)
        pair.addWidget(field_row("First seed", self.first_seed), 1)
        card.body.addLayout(pair)
        card.body.addWidget(self._seed_row)
        return card

    def _make_command_card(self, tokens: Tokens) -> Card:
        card = Card("Command")
        self.copy = IconButton("copy", "Copy the command", tokens)
        self.copy.clicked.connect(self._copy_command)
        card.header.addWidget(self.copy)
        self.preview = QPlainTextEdit()
        self.preview.setReadOnly(True)
        self.preview.setTabChangesFocus(True)
        self.preview.setAccessibleName("Command that will be run")
        self.preview.setFixedHeight(PREVIEW_HEIGHT)
        card.body.addWidget(self.preview)
        return card

    def _make_output_card(self) -> Card:
        card = Card("Started here")
        self.output = QPlainTextEdit()
        self.output.setReadOnly(True)
        self.output.setTabChangesFocus(True)
        self.output.setMaximumBlockCount(KEPT_LINES)
        self.output.setPlaceholderText("Nothing was started from this window yet.")
        self.output.setAccessibleName("What was started here, and how it ended")
        self.output.setMinimumHeight(OUTPUT_HEIGHTS[0])
        self.output.setMaximumHeight(OUTPUT_HEIGHTS[1])
        card.body.addWidget(self.output, 1)
        return card

    # ---- API ----

    def set_active(self, is_active: bool) -> None:
        """Make the preview only while somebody looks."""
        self._is_active = is_active
        if is_active:
            self._look(is_new=True)  # somebody may have installed something meanwhile
            self.refresh()
        else:
            self._timer.stop()

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        self.copy.set_tokens(tokens)
        self.script.set_tokens(tokens)
        for fields in self.types.values():
            fields.set_tokens(tokens)

    def cleanup(self) -> None:
        """Let go of what was started: it runs on."""
        self._timer.stop()
        for fields in self.types.values():
            fields.probe.close()
        self.launcher.let_go()

    def plan(self) -> LaunchPlan:
        """What the form says now."""
        key = self.choice.key
        is_script = key == SCRIPT
        return LaunchPlan(
            name=self.name.text(),
            worker_type="" if is_script else key,
            options={} if is_script else self.types[key].values(),
            python="" if is_script else self.types[key].python.line.text(),
            command=self.script.command.text(),
            jsonl=self.script.jsonl if is_script else "",
            directory=self.script.directory.text() if is_script else "",
            environment=self.script.environment.toPlainText() if is_script else "",
            copies=int(self.copies.value()),
            first_seed=int(self.first_seed.value()),
            seed_flag=self.seed_flag.text(),
            mode=self._mode_state.mode,
            video_mode=self.telemetry.video.key,
            slot=int(self.telemetry.slot.value()),
            grid_limit=int(self.telemetry.grid_limit.value()),
            max_fps=float(self.telemetry.max_fps.value()),
        )

    def refresh(self) -> None:
        """Make the command lines anew, or say in one line which field does not do."""
        plan = self.plan()
        problem = ""
        try:
            self._launches = launches_of(plan, self._controller.settings, self._controller.options)
        except RunlaneError as error:
            self._launches, problem = [], str(error)
        with contextlib.suppress(RunlaneError):
            self.name.setPlaceholderText(default_name(plan))
        self._look()
        text = "\n".join(self._line(launch) for launch in self._launches)
        if self.preview.toPlainText() != text:
            self.preview.setPlainText(text)
        self._show_problem(problem)
        count = len(self._launches)
        self.launch_button.setText(f"Launch {count} runs" if count > 1 else "Launch")

    def _show_problem(self, problem: str) -> None:
        """What is wrong with a field outweighs what is missing on this machine; either keeps the run from starting."""
        is_untouched = self.choice.key == SCRIPT and not self.script.command.text().strip()
        fields = self.types.get(self.choice.key)
        need = None if fields is None else fields.need
        text, state = "It goes on when this window is closed.", "idle"
        if is_untouched:
            text = "Write a command, or choose a script."
        elif problem:
            text, state = problem, "bad"
        elif need is not None and not need.is_met:
            text, state = f"{self.types[self.choice.key].kind.label}: {need.reason}", "warn"
        self.problem.show_text(text, state)
        is_able = fields is None or (need is not None and need.is_met)
        self.launch_button.setEnabled(bool(self._launches) and is_able)

    def _look(self, *, is_new: bool = False) -> None:
        """See what the chosen kind needs; then what each of the others does, one after the other."""
        if not self._is_active:
            return
        fields = self.types.get(self.choice.key)
        if fields is not None:
            fields.look(is_new=is_new)
        others = (known for known in self.types.values() if known.need is None)
        for other in [] if any(known.probe.is_asking for known in self.types.values()) else others:
            other.look()
            if other.probe.is_asking:
                break  # its answer brings us back here
        for key, known in self.types.items():
            self.choice.mark(key, known.need)

    def _copy_command(self) -> None:
        copy_text(self.preview.toPlainText())

    def launch(self) -> None:
        """Start what the preview shows."""
        self.refresh()
        for launch in self._launches if self.launch_button.isEnabled() else ():
            self.launcher.start(launch)

    # ---- what happens ----

    def _on_chosen(self, key: str) -> None:
        for other, fields in self.types.items():
            fields.setVisible(other == key)
        self.script.setVisible(key == SCRIPT)
        self._seed_row.setVisible(key == SCRIPT)
        self.refresh()

    def _touch(self, *_values: object) -> None:
        if self._is_active:
            self._timer.start()

    def _choose_file(self, _checked: bool = False) -> None:
        self._choose("Choose a script", QFileDialog.FileMode.ExistingFile, self._on_file)

    def _choose_directory(self, _checked: bool = False) -> None:
        self._choose("Choose the working directory", QFileDialog.FileMode.Directory, self.script.directory.setText)

    def _choose(self, title: str, mode: QFileDialog.FileMode, done: Callable[[str], object]) -> None:
        dialog = QFileDialog(self.window(), title, self.script.directory.text())
        dialog.setFileMode(mode)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if mode == QFileDialog.FileMode.ExistingFile:
            dialog.setNameFilters(["Python scripts (*.py)", "All files (*)"])
        dialog.fileSelected.connect(done)
        dialog.open()

    def _on_file(self, path: str) -> None:
        self.script.command.setText(shlex.quote(path))
        if not self.script.directory.text().strip():
            self.script.directory.setText(str(Path(path).parent))

    @staticmethod
    def _line(launch: Launch) -> str:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in launch.environment.items())
        return f"{variables} {launch.line}".strip()

    def _on_began(self, launched: Launched) -> None:
        self.output.appendPlainText(f"{launched.name} began, pid {launched.pid}, log {launched.log}")

    def _on_refused(self, name: str, reason: str) -> None:
        self.output.appendPlainText(f"{name} did not begin: {reason}")

    def _on_ended(self, ended: Ended) -> None:
        after = duration_text(ended.lived_s)
        self.output.appendPlainText(f"{ended.launched.name} ended after {after}: {exit_text(ended.exit_code)}")
        if ended.is_soon and ended.tail:
            self.output.appendPlainText("\n".join(f"    {line}" for line in ended.tail.splitlines()))

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """Two columns where there is room."""
        super().resizeEvent(event)
        is_wide = self.width() >= WIDE_FROM
        direction = QBoxLayout.Direction.LeftToRight if is_wide else QBoxLayout.Direction.TopToBottom
        if self._columns.direction() != direction:
            self._columns.setDirection(direction)
