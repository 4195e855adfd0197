"""The groups of fields of the launch form: a shipped worker's, a script's, and those of telemetry."""

import shlex
import sys
from collections.abc import Callable

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLineEdit, QPlainTextEdit, QVBoxLayout, QWidget

from runlane.config.settings import FastLaneSettings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.controls_view import IconButton, Segments
from runlane.gui.interpreter_probe import InterpreterProbe, Need, ProbeAnswer, modules_of, need_of, program_need
from runlane.gui.needs_view import NeedsNote
from runlane.gui.option_field_view import OptionField, PathField, field_row, number_field
from runlane.gui.telemetry_mode import TelemetryModeOptions, TelemetryModeState
from runlane.gui.tokens import Tokens
from runlane.gui.worker_option import OptionValue
from runlane.gui.worker_type import WorkerType

Touch = Callable[..., object]
VIDEO_MODES = (
    ("single", "Single", "Show one environment of a vector"),
    ("grid", "Grid", "Show several environments side by side"),
    ("off", "Off", "Figures only: render nothing"),
)
SPEECHES = (
    ("python", "Python", "Environments it makes are recorded as they are; nothing has to be edited"),
    ("jsonl", "JSON lines", "For a program that is not Python: it writes one JSON object for each step"),
)
ENVIRONMENT_HEIGHT = 64


class TypeFields(QWidget):
    """The options of one shipped worker type, the interpreter it runs with, and whether that has what it needs.

    `need` is what is missing, None until it is known.
    """

    need_changed = Signal()

    def __init__(self, kind: WorkerType, tokens: Tokens, touch: Touch, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.kind = kind
        self.need: Need | None = None
        self._answer: ProbeAnswer | None = None
        self._asked = ""
        self.fields = {option.key: OptionField(option, touch, tokens) for option in kind.options}
        self.python = PathField("Python", "file", "", tokens)
        self.python.line.setPlaceholderText(kind.python_hint or f"this window's: {sys.executable}")
        self.python.setToolTip("The interpreter of the environment that this kind of worker is installed in")
        self.note = NeedsNote(tokens)
        self.probe = InterpreterProbe(self)
        self._arrange()
        self.python.changed.connect(touch)
        self.probe.answered.connect(self._on_answer)

    def _arrange(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(10)
        row = column = 0
        for field in self.fields.values():
            if field.option.is_wide or field.option.kind == "switch":
                row, column = row + (1 if column else 0), 0
                grid.addWidget(field.row, row, 0, 1, 2)
                row += 1
                continue
            grid.addWidget(field.row, row, column)
            row, column = (row + 1, 0) if column else (row, 1)
        row += 1 if column else 0
        if self.kind.packages:
            title = f"Python of {self.kind.label}" if self.kind.python_flag else "Python"
            grid.addWidget(field_row(title, self.python), row, 0, 1, 2)
        grid.addWidget(self.note, row + 1, 0, 1, 2)
        for number in (0, 1):
            grid.setColumnStretch(number, 1)

    def values(self) -> dict[str, OptionValue]:
        """Options by key."""
        return {key: field.get() for key, field in self.fields.items()}

    def look(self, *, is_new: bool = False) -> None:
        """See whether all that is needed is there. An interpreter is asked again when it is another, or `is_new`."""
        program = program_need(self.kind, self.values())
        if not program.is_met:
            self._set(program)
        elif not self.kind.packages:
            self._set(Need())
        else:
            self._look_at_python(is_new=is_new)

    def _look_at_python(self, *, is_new: bool) -> None:
        text = self.python.line.text()
        if self.kind.python_flag and not text.strip():
            remedy = shlex.join(["python3.6", "-m", "pip", "install", *self.kind.pip])
            self._set(Need(f"choose {self.kind.python_hint}", remedy))
        elif is_new or text != self._asked or (self._answer is None and not self.probe.is_asking):
            if text != self._asked or self._answer is None:
                self._answer, self.need = None, None
                self.note.show_text("Looking at what this Python has…", "idle")
            self._asked = text
            self.probe.ask(text, modules_of(self.kind))
        elif self._answer is not None:
            self._set(need_of(self.kind, self._answer))

    def _on_answer(self, answer: ProbeAnswer) -> None:
        self._answer = answer
        self._set(need_of(self.kind, answer))
        self.need_changed.emit()

    def _set(self, need: Need) -> None:
        self.need = need
        if not need.is_met:
            self.note.show_need(need)
        elif self._answer is None:
            self.note.show_text("", "")
        else:
            version = ".".join(map(str, self._answer.version))
            found = " and ".join(self.kind.packages)
            self.note.show_text(f"Python {version} has {found}.", "good")

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        for field in self.fields.values():
            field.set_tokens(tokens)
        self.python.set_tokens(tokens)
        self.note.set_tokens(tokens)


class ScriptFields(QWidget):
    """A command of one's own, where it runs, and what is added to its environment."""

    def __init__(
        self,
        tokens: Tokens,
        touch: Touch,
        choose_file: Touch,
        choose_directory: Touch,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.command = QLineEdit()
        self.command.setPlaceholderText("train.py --lr 3e-4")
        self.command.setToolTip(
            "The command line, as in a terminal. A .py file alone runs in this window's own Python. "
            "{seed} becomes the seed of each copy."
        )
        self.speech = Segments(SPEECHES, "What the program is")
        self.speech.choose("python")
        self.source = QLineEdit("stdout")
        self.source.setToolTip("stdout, a descriptor as fd:3, or the path of a pipe")
        self.source.textChanged.connect(touch)
        self.speech.chosen.connect(self._on_speech)
        self.speech.chosen.connect(touch)
        self.directory = QLineEdit()
        self.directory.setPlaceholderText("where this window was started")
        self.environment = QPlainTextEdit()
        self.environment.setPlaceholderText("NAME=value, one a line")
        self.environment.setTabChangesFocus(True)
        self.environment.setFixedHeight(ENVIRONMENT_HEIGHT)
        self._buttons = [IconButton("folder", "Choose a script", tokens)]
        self._buttons.append(IconButton("folder", "Choose the working directory", tokens))
        for button, action in zip(self._buttons, (choose_file, choose_directory), strict=True):
            button.clicked.connect(action)
        self.command.textChanged.connect(touch)
        self.directory.textChanged.connect(touch)
        self.environment.textChanged.connect(touch)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        column.addWidget(field_row("Command", self.command, self._buttons[0]))
        speech = QHBoxLayout()
        speech.setSpacing(10)
        speech.addWidget(field_row("What it is", self.speech))
        self._source_row = field_row("JSON lines from", self.source)
        speech.addWidget(self._source_row, 1)
        speech.addStretch(0)
        column.addLayout(speech)
        self._on_speech(self.speech.key)
        column.addWidget(field_row("Working directory", self.directory, self._buttons[1]))
        column.addWidget(field_row("Environment", self.environment))

    @property
    def jsonl(self) -> str:
        """Where JSON lines come from; empty for Python."""
        return self.source.text().strip() or "stdout" if self.speech.key == "jsonl" else ""

    def _on_speech(self, key: str) -> None:
        self._source_row.setVisible(key == "jsonl")

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        for button in self._buttons:
            button.set_tokens(tokens)


class TelemetryFields(QWidget):
    """What is kept and what is shown. The Telemetry Mode is the one that the control panel shows, too."""

    def __init__(
        self, lane: FastLaneSettings, mode_state: TelemetryModeState, touch: Touch, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._mode_state = mode_state
        self.mode = TelemetryModeOptions(mode_state)
        self.video = Segments(VIDEO_MODES, "Video")
        self.video.choose(lane.video_mode)
        self.video.chosen.connect(self._on_video)
        self.video.chosen.connect(touch)
        self.slot = number_field(lane.slot, 0, 65_535, 0, "Which environment of a vector is shown")
        self.grid_limit = number_field(lane.grid_limit, 1, 64, 0, "Environments in the grid, at most")
        self.max_fps = number_field(lane.max_fps, 0.1, 1000, 1, "Frames rendered in a second, at most")
        for field in (self.slot, self.grid_limit, self.max_fps):
            field.valueChanged.connect(touch)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        column.addWidget(field_row("Telemetry Mode", self.mode))
        column.addWidget(self._left(field_row("Video", self.video)))
        line = QHBoxLayout()
        line.setSpacing(10)
        self._slot_row = field_row("Slot", self.slot)
        self._grid_row = field_row("Grid limit", self.grid_limit)
        line.addWidget(self._slot_row, 1)
        line.addWidget(self._grid_row, 1)
        line.addWidget(field_row("Max fps", self.max_fps), 1)
        column.addLayout(line)
        mode_state.telemetry_mode_changed.connect(self._on_mode)
        self._on_mode(mode_state.mode.value)

    def _left(self, row: QWidget) -> QWidget:
        """Segments keep their width; the rest of the line stays free."""
        box = QWidget()
        line = QHBoxLayout(box)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(row)
        line.addStretch(1)
        return box

    def _on_mode(self, mode: str) -> None:
        shows = TelemetryMode(mode) is not TelemetryMode.DURABLE_ONLY
        for widget in (self.video, self.slot, self.grid_limit, self.max_fps):
            widget.setEnabled(shows)
        self._on_video(self.video.key)

    def _on_video(self, mode: str) -> None:
        self._slot_row.setVisible(mode == "single")
        self._grid_row.setVisible(mode == "grid")
        self.max_fps.setEnabled(mode != "off" and self.video.isEnabled())
