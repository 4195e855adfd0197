"""PlotGrid: plots in one or two columns, as many rows as fit, the others below."""

from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QScrollArea, QWidget

from runlane.gui.plot_view import PlotView
from runlane.gui.telemetry_model import LENGTH, RATE, RETURN, REWARD
from runlane.gui.tokens import Tokens

TITLES = {RETURN: "Episode return", LENGTH: "Episode length", REWARD: "Reward", RATE: "Step rate"}
UNITS = {RATE: "Hz"}
MAX_PLOTS = 16
MIN_PLOT_PX = 132
TWO_COLUMNS_PX = 560
THREE_COLUMNS_PX = 1800
SPACING_PX = 10


def title_of(name: str) -> str:
    """What a curve of this name is called."""
    return TITLES.get(name, name.removeprefix(":"))


class PlotGrid(QScrollArea):
    """Owns the plots. `zoomed` tells of a plot by the name of its curves, and of the stretch of x."""

    zoomed = Signal(str, float, float)

    def __init__(self, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tokens = tokens
        self._plots: dict[str, PlotView] = {}
        self._turn = 0
        self._columns = 0
        inner = QWidget()
        self._layout = QGridLayout(inner)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(SPACING_PX)
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)

    @property
    def plots(self) -> dict[str, PlotView]:
        """The plots by the name of their curves, in order."""
        return dict(self._plots)

    def set_names(self, names: Sequence[str]) -> bool:
        """Show a plot for each name, in this order; plots that stay keep their zoom.

        A plot takes 30 ms to make, so one call makes one; False says that more are to be made, by the next.
        """
        wanted = list(names[:MAX_PLOTS])
        if wanted == list(self._plots):
            return True
        missing = [name for name in wanted if name not in self._plots][1:]
        wanted = [name for name in wanted if name not in missing]
        for name in [name for name in self._plots if name not in wanted]:
            plot = self._plots.pop(name)
            self._layout.removeWidget(plot)
            plot.cleanup()
            plot.setParent(None)
            plot.deleteLater()
        self._plots = {name: self._plots.get(name) or self._new(name) for name in wanted}
        self._columns = 0
        self._arrange()
        return not missing

    def refresh_next(self, count: int = 1) -> None:
        """Draw the next plots in turn that are on screen and have something new: one a tick never stalls."""
        names = list(self._plots)
        for _ in range(len(names)):
            if count <= 0:
                return
            self._turn = (self._turn + 1) % len(names)
            plot = self._plots[names[self._turn]]
            if not plot.visibleRegion().isEmpty() and plot.refresh():
                count -= 1

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._tokens = tokens
        for plot in self._plots.values():
            plot.set_tokens(tokens)

    def cleanup(self) -> None:
        """Release the plots."""
        for plot in self._plots.values():
            plot.cleanup()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802  Qt's name
        """Other columns, other heights."""
        super().resizeEvent(event)
        self._arrange()

    def _new(self, name: str) -> PlotView:
        plot = PlotView(title_of(name), self._tokens, unit=UNITS.get(name, ""))
        plot.zoomed.connect(partial(self.zoomed.emit, name))
        return plot

    def _arrange(self) -> None:
        width, height = self.viewport().width(), self.viewport().height()
        columns = 1 if width < TWO_COLUMNS_PX else 2 if width < THREE_COLUMNS_PX else 3
        rows = -(-len(self._plots) // columns)
        shown = max(1, min(rows, (height + SPACING_PX) // (MIN_PLOT_PX + SPACING_PX), 2))
        row_px = max(MIN_PLOT_PX, (height - SPACING_PX * (shown - 1)) // shown)
        if columns != self._columns:
            self._columns = columns
            for number, plot in enumerate(self._plots.values()):
                is_last_alone = number == len(self._plots) - 1 and number % columns == 0 and columns == 2
                self._layout.addWidget(plot, number // columns, number % columns, 1, 2 if is_last_alone else 1)
            for column in range(3):
                self._layout.setColumnStretch(column, 1 if column < columns else 0)
        for plot in self._plots.values():
            plot.setFixedHeight(row_px)
