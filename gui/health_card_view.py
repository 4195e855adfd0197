"""HealthCard: the health of the graph and the window in the side column, in five meters and a line."""

from PySide6.QtWidgets import QWidget

from runlane.gui.controls_view import Card, Label, Meter
from runlane.gui.health_asker import ask_health
from runlane.gui.health_figures import QueueFigures
from runlane.gui.health_model import COMMIT_MS, LANE_AGE_MS, HealthModel
from runlane.gui.health_rows import NOTHING, count, milliseconds
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.tokens import Tokens

SHOW_S = 0.5
# A meter is full at twice what is thought to be much, so that half is amber, as for queues.
FULL_LANE_AGE_MS = 2 * LANE_AGE_MS
FULL_COMMIT_MS = 2 * COMMIT_MS


class HealthCard(Card):
    """Shows while it is visible, and then asks what the model needs."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        """`tokens` are not needed: everything here is the style sheet's."""
        super().__init__("System health", parent)
        del tokens
        self._controller = controller
        self._next_s = 0.0
        self._warnings = Label("", "number")
        self.header.addWidget(self._warnings)
        self.meters = {
            "lane": Meter("Fast lane age p99"),
            "window": Meter("UI queue (fast path)"),
            "durable": Meter("DB queue (durable)"),
            "commit": Meter("SQLite commit p99"),
            "skipped": Meter("Frames skipped / s"),
        }
        tips = (
            "How old frames are when they are painted; 99 of 100 are younger",
            "Records that wait in the router for this window, of the most its QoS policy allows",
            "Records that wait in the router for the DB writer. When this queue is full, sources wait",
            "99 of 100 transactions of the last seconds took less",
            "Frames published but not painted, because a newer one was there; beside it the frames painted",
        )
        self.body.setSpacing(10)
        for meter, tip in zip(self.meters.values(), tips, strict=True):
            meter.setToolTip(tip)
            self.body.addWidget(meter)
        self._drops = Label("", "caption", is_elided=True)
        self.setToolTip("Drops of windows are those since this one was opened; the page System has whole accounts")
        self.body.addWidget(self._drops)
        controller.ticked.connect(self._on_tick)
        self.show_health()

    def set_tokens(self, tokens: Tokens) -> None:
        """Everything here is the style sheet's."""

    def _on_tick(self, now_s: float) -> None:
        ask_health(self._controller, now_s)  # also while hidden: histories have no holes
        if self.isVisible() and now_s >= self._next_s:
            self._next_s = now_s + SHOW_S
            self.show_health()

    def show_health(self) -> None:
        """Show what the model says now."""
        model = self._controller.health
        found = model.warnings()
        text = f"{len(found)} warning{'s' * (len(found) != 1)}" if found else "all well"
        self._warnings.show_text(text, "warn" if found else "good")
        self._warnings.setToolTip("\n".join(found))
        lane = model.lane
        age = lane.age_p99_ms if lane.attached else None
        self.meters["lane"].show_share(
            (age or 0.0) / FULL_LANE_AGE_MS, NOTHING if age is None else f"{milliseconds(age)} ms"
        )
        _show_queue(self.meters["window"], model.window_queue)
        _show_queue(self.meters["durable"], model.durable_queue)
        commit = model.commit_p99_ms
        shown = NOTHING if commit is None else f"{milliseconds(commit)} ms"
        self.meters["commit"].show_share((commit or 0.0) / FULL_COMMIT_MS, shown)
        self._show_skipped(model)
        window, durable = model.drops
        line = f"Drops: UI {count(window)} · DB {count(durable)} · sequence gaps {count(model.store_gaps)}"
        self._drops.show_text(line, "bad" if durable or model.store_gaps else "warn" if window else "")

    def _show_skipped(self, model: HealthModel) -> None:
        lane = model.lane
        made = lane.fps + lane.skipped_per_s
        text = f"{lane.skipped_per_s:.0f} / {made:.0f}" if lane.attached else NOTHING
        self.meters["skipped"].show_share(lane.skipped_per_s / made if made else 0.0, text)


def _show_queue(meter: Meter, queue: QueueFigures | None) -> None:
    if queue is None:
        meter.show_share(0.0, NOTHING)
    else:
        meter.show_share(queue.share, f"{count(queue.depth)} / {count(queue.max_queue)}")
