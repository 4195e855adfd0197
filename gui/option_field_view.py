"""Fields of the launch form, one for each kind of option: number, text, file, choice, switch. All have a `value`."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QLocale, Qt, Signal
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from runlane.gui.controls_view import IconButton, Label
from runlane.gui.tokens import Tokens
from runlane.gui.worker_option import OptionKind, OptionValue, WorkerOption


class NumberField(QDoubleSpinBox):
    """A number without zeros at its end. The wheel passes it by: a form must not change while it is scrolled."""

    def textFromValue(self, value: float) -> str:  # noqa: N802  Qt's name
        """As short as it is exact."""
        text = f"{value:.{self.decimals()}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802  Qt's name
        """For the page."""
        event.ignore()


class ChoiceBox(QComboBox):
    """One of a few; the wheel passes it by, too."""

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802  Qt's name
        """For the page."""
        event.ignore()


class PathField(QWidget):
    """A path to write, or to choose: a file or a directory."""

    changed = Signal()

    def __init__(self, name: str, kind: OptionKind, suffix: str, tokens: Tokens, parent: QWidget | None = None) -> None:
        """`suffix` is what the chooser offers, as `.asl`; everything when empty."""
        super().__init__(parent)
        self._name, self._kind, self._suffix = name, kind, suffix
        self.line = QLineEdit()
        self.line.setAccessibleName(name)
        self.button = IconButton("folder", f"Choose: {name.lower()}", tokens)
        self.button.clicked.connect(self.choose)
        self.line.textChanged.connect(self.changed)
        self.setFocusProxy(self.line)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.line, 1)
        row.addWidget(self.button)

    def choose(self, _checked: bool = False) -> QFileDialog:
        """Open a chooser where the path is now; it does not wait."""
        is_directory = self._kind == "directory"
        dialog = QFileDialog(self.window(), self._name, str(Path(self.line.text()).expanduser().parent))
        dialog.setFileMode(QFileDialog.FileMode.Directory if is_directory else QFileDialog.FileMode.ExistingFile)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        # An interpreter of an environment is a link; what it leads to is another one.
        dialog.setOption(QFileDialog.Option.DontResolveSymlinks)
        if self._suffix:
            dialog.setNameFilters([f"{self._suffix} (*{self._suffix})", "All files (*)"])
        dialog.fileSelected.connect(self.line.setText)
        dialog.open()
        return dialog

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        self.button.set_tokens(tokens)


class OptionField:
    """One option's widget, and how to ask it. `set_value` is what a person would do."""

    def __init__(self, option: WorkerOption, touch: Callable[..., object], tokens: Tokens) -> None:
        """`touch` is called with every change."""
        self.option = option
        self.widget: QWidget
        self.get: Callable[[], OptionValue]
        self.set_value: Callable[[OptionValue], None]
        make = {"number": self._number, "choice": self._choice, "switch": self._switch}.get(option.kind, self._text)
        if option.kind in ("file", "directory"):
            self._path(touch, tokens)
        else:
            make(touch)
        self.widget.setToolTip(option.tip)
        if not self.widget.accessibleName():
            self.widget.setAccessibleName(option.label)

    @property
    def row(self) -> QWidget:
        """The field with its caption; a switch has it beside it."""
        return self.widget if self.option.kind == "switch" else field_row(self.option.label, self.widget)

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        if isinstance(self.widget, PathField):
            self.widget.set_tokens(tokens)

    def _number(self, touch: Callable[..., object]) -> None:
        option = self.option
        field = number_field(float(option.default), option.least, option.most, option.places, option.tip)
        field.valueChanged.connect(touch)
        self.widget, self.get = field, field.value
        self.set_value = lambda value: field.setValue(float(value))

    def _choice(self, touch: Callable[..., object]) -> None:
        field = ChoiceBox()
        field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        field.addItems(list(self.option.choices))
        field.setCurrentText(str(self.option.default))
        field.currentTextChanged.connect(touch)
        self.widget, self.get = field, field.currentText
        self.set_value = lambda value: field.setCurrentText(str(value))

    def _switch(self, touch: Callable[..., object]) -> None:
        field = QCheckBox(self.option.label)
        field.setChecked(bool(self.option.default))
        field.toggled.connect(touch)
        self.widget, self.get = field, field.isChecked
        self.set_value = lambda value: field.setChecked(bool(value))

    def _text(self, touch: Callable[..., object]) -> None:
        field = QLineEdit(str(self.option.default))
        field.setPlaceholderText(self.option.hint)
        field.textChanged.connect(touch)
        self.widget, self.get = field, field.text
        self.set_value = lambda value: field.setText(str(value))

    def _path(self, touch: Callable[..., object], tokens: Tokens) -> None:
        option = self.option
        field = PathField(option.label, option.kind, option.suffix, tokens)
        field.line.setText(str(option.default))
        field.line.setPlaceholderText(option.hint)
        field.changed.connect(touch)
        self.widget, self.get = field, field.line.text
        self.set_value = lambda value: field.line.setText(str(value))


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
