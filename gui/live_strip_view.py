"""LiveStrip: three curves of the selected run below the wall: its returns, what it learns by, and how fast."""

from PySide6.QtWidgets import QHBoxLayout, QWidget

from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.plot_view import MANY_AGENTS, PlotChoices, PlotCurve, PlotView
from runlane.gui.presenters import agent_of
from runlane.gui.telemetry_model import LENGTH, RATE, RETURN, SeriesKey
from runlane.gui.tokens import Tokens

REFRESH_S = 0.25
SMOOTHING = 0.6


class LiveStrip(QWidget):
    """The middle one is the first loss there is, else the newest metric, else the length of episodes."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._tokens = controller, tokens
        self._is_active = False
        self._next_s = 0.0
        self._shown: list[list[SeriesKey]] = [[], [], []]
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        self.plots = [
            PlotView("Episode return", tokens),
            PlotView("Loss", tokens),
            PlotView("Step rate", tokens, unit="Hz"),
        ]
        for plot in self.plots:
            plot.setMinimumHeight(120)
            layout.addWidget(plot, 1)
        controller.ticked.connect(self._on_tick)
        controller.selection_changed.connect(self._on_selection)

    def set_active(self, is_active: bool) -> None:
        """Draw, or rest."""
        self._is_active = is_active
        self._next_s = 0.0

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in other colours."""
        self._tokens = tokens
        self._shown = [[], [], []]
        for plot in self.plots:
            plot.set_tokens(tokens)

    def cleanup(self) -> None:
        """Stop the plots' timers."""
        self._is_active = False
        for plot in self.plots:
            plot.cleanup()

    def _on_selection(self, _run: str) -> None:
        self._next_s = 0.0

    def _on_tick(self, now_s: float) -> None:
        if not self._is_active or now_s < self._next_s:
            return
        self._next_s = now_s + REFRESH_S
        names = self._names()
        missed = self._controller.telemetry.missed_of([self._controller.selected])
        for number, (plot, name) in enumerate(zip(self.plots, names, strict=True)):
            keys = [key for key in self._controller.telemetry.keys(self._controller.selected) if key.name == name]
            if keys != self._shown[number]:
                self._shown[number] = keys
                plot.show_curves(self._curves(keys), PlotChoices(smoothing=SMOOTHING))
                if number == 1:
                    plot.heading.show_text("Episode length" if name == LENGTH else name.removeprefix(":"))
            plot.show_missed(missed if keys else 0)
            plot.refresh()

    def _names(self) -> tuple[str, str, str]:
        found = self._controller.telemetry.names([self._controller.selected])
        metrics = [name for name in found if not name.startswith(":")]
        losses = [name for name in metrics if "loss" in name.lower()]
        return RETURN, (losses or metrics or [LENGTH])[0], RATE

    def _curves(self, keys: list[SeriesKey]) -> list[PlotCurve]:
        entry = self._controller.runs.entry(self._controller.selected)
        name = "" if entry is None else entry.name or entry.run[:8]
        first = 0 if entry is None else entry.color_index
        curves: list[PlotCurve] = []
        for number, key in enumerate(keys):
            series = self._controller.telemetry.series(key)
            if series is not None:
                is_merged = len(keys) >= MANY_AGENTS
                color = self._tokens.series[(first + (0 if is_merged else number)) % len(self._tokens.series)]
                label = name if len(keys) == 1 else f"{name} · {agent_of(key.worker)}"
                curves.append(PlotCurve(key, label, color, series, name, name if is_merged else ""))
        return curves
