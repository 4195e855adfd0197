"""The groups of fields of the launch form: a shipped worker's, a script's, and those of telemetry."""

from collections.abc import Callable

from PySide6.QtCore import QLocale, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from runlane.config.settings import FastLaneSettings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.controls_view import IconButton, Label, Segments
from runlane.gui.launch_plan import WorkerType
from runlane.gui.telemetry_mode import TelemetryModeOptions, TelemetryModeState
from runlane.gui.tokens import Tokens

Touch = Callable[..., object]
VIDEO_MODES = (
    ("single", "Single", "Show one environment of a vector"),
    ("grid", "Grid", "Show several environments side by side"),
    ("off", "Off", "Figures only: render nothing"),
)
ENVIRONMENT_HEIGHT = 64


class NumberField(QDoubleSpinBox):
    """A number without zeros at its end. The wheel passes it by: a form must not change while it is scrolled."""

    def textFromValue(self, value: float) -> str:  # noqa: N802  Qt's name
        """As short as it is exact."""
        text = f"{value:.{self.decimals()}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802  Qt's name
        """For the page."""
        event.ignore()


def number_field(value: float, least: float, most: float, places: int, tip: str) -> QDoubleSpinBox:
    """A field for numbers from `least` to `most`."""
    found = NumberField()
    found.lineEdit().setTextMargins(8, 0, 8, 0)  # the style sheet's padding does not reach it
    found.setLocale(QLocale(QLocale.Language.C))
    found.setDecimals(places)
    found.setRange(least, most)
    found.setValue(value)
    found.setToolTip(tip)
    found.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    found.setMinimumWidth(80)
    return found


def field_row(caption: str, *widgets: QWidget) -> QWidget:
    """A caption above its field, or fields."""
    row = QWidget()
    column = QVBoxLayout(row)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(4)
    label = Label(caption, "caption")
    label.setBuddy(widgets[0])
    column.addWidget(label)
    line = QHBoxLayout()
    line.setSpacing(6)
    for number, widget in enumerate(widgets):
        line.addWidget(widget, 1 if number == 0 else 0)
    column.addLayout(line)
    if not widgets[0].accessibleName():
        widgets[0].setAccessibleName(caption)
    return row


class TypeFields(QWidget):
    """The options of one shipped worker type."""

    def __init__(self, kind: WorkerType, touch: Touch, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(10)
        self.fields: dict[str, QDoubleSpinBox] = {}
        for number, option in enumerate(kind.options):
            field = number_field(option.default, option.least, option.most, option.places, option.tip)
            field.valueChanged.connect(touch)
            self.fields[option.key] = field
            grid.addWidget(field_row(option.label, field), number // 2, number % 2)
        for column in (0, 1):
            grid.setColumnStretch(column, 1)
        if kind.needs:
            grid.addWidget(Label(f"Needs {kind.needs}.", "faint"), (len(kind.options) + 1) // 2, 0, 1, 2)

    def values(self) -> dict[str, float]:
        """Options by key."""
        return {key: field.value() for key, field in self.fields.items()}


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
        column.addWidget(field_row("Working directory", self.directory, self._buttons[1]))
        column.addWidget(field_row("Environment", self.environment))

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
