"""The strip below the wall: three curves of the selected run, and what it missed of them."""

from pathlib import Path

import msgspec
from pytestqt.qtbot import QtBot
from telemetry_batches import BatchSource

from runlane.config.settings import Settings
from runlane.gui.live_strip_view import LiveStrip
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.tokens import DARK
from runlane.window import Store


def test_the_strip_says_what_its_run_missed(qtbot: QtBot, tmp_path: Path) -> None:
    """At every plot that has a curve; of another run's losses nothing."""
    controller = LiveTelemetryController(
        msgspec.structs.replace(Settings(), data_dir=str(tmp_path)), Store(tmp_path / "none.db")
    )
    strip = LiveStrip(controller, DARK)
    qtbot.addWidget(strip)
    strip.set_active(True)
    for run, lost in (("run-1", 7), ("run-2", 100)):
        source = BatchSource(run)
        controller.telemetry.add([source.steps(600), source.episodes([1.0])], 0.0)
        source.skip(lost)
        controller.telemetry.add([source.steps(600)], 1.0)
    controller.select("run-1")
    controller.ticked.emit(1.0)
    assert [plot.missed for plot in strip.plots] == ["7 records missed"] * 3
    strip.cleanup()
    controller.stop()
