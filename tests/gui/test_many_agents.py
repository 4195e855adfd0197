"""A run of many agents: eight environments, each a stream of its own, stay one run on every page."""

from pathlib import Path

import msgspec
import pytest
from pytestqt.qtbot import QtBot
from run_rig import info_of, records_of, run_record, steps_of
from telemetry_batches import BatchSource

from runlane.config.settings import Settings
from runlane.gui.alert_rules import AlertRules
from runlane.gui.health_model import HealthModel
from runlane.gui.live_strip_view import LiveStrip
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.plot_view import PlotView
from runlane.gui.run_model import RunModel
from runlane.gui.telemetry_model import RETURN
from runlane.gui.telemetry_view import TelemetryView
from runlane.gui.tokens import DARK
from runlane.window import Store

AGENTS = 8
WORKERS = ["sb3", *(f"sb3-{number}" for number in range(1, AGENTS))]


@pytest.fixture
def controller(qapp: object, tmp_path: Path) -> LiveTelemetryController:  # noqa: ARG001
    settings = msgspec.structs.replace(Settings(), data_dir=str(tmp_path))
    found = LiveTelemetryController(settings, Store(tmp_path / "none.db"))
    for number, worker in enumerate(WORKERS):
        source = BatchSource("run-1", worker, "ppo")
        batches = [source.steps(300), source.episodes([1.0 + number, 2.0 + number])]
        found.telemetry.add(batches, 0.0)
        found.runs.add(batches, 0.0)
    found.select("run-1")
    return found


def legend(plot: PlotView) -> str:
    plot.refresh()
    return plot.accessibleDescription()


def test_the_curves_of_many_agents_are_one_with_a_band(qtbot: QtBot, controller: LiveTelemetryController) -> None:
    """Until somebody wants a line for each."""
    view = TelemetryView(controller, DARK)
    qtbot.addWidget(view)
    view.resize(1000, 640)
    view.show()
    view.set_active(True)
    for tick in range(8):
        controller.ticked.emit(100.0 + tick)
    plot = view.grid.plots[RETURN]
    assert len(plot.curves) == AGENTS
    assert legend(plot) == "ppo · mean of 8 agents 5.125"  # 5.5, smoothed
    view.set_split(is_split=True)
    assert legend(plot).startswith("ppo · 0 ")
    assert legend(plot).count("ppo · ") == AGENTS
    assert len({curve.color for curve in plot.curves}) == len(DARK.series)
    view.cleanup()


def test_the_strip_shows_one_curve_of_them_too(qtbot: QtBot, controller: LiveTelemetryController) -> None:
    """Its plots are small."""
    strip = LiveStrip(controller, DARK)
    qtbot.addWidget(strip)
    strip.show()
    strip.set_active(True)
    controller.ticked.emit(100.0)
    assert legend(strip.plots[0]).startswith("ppo · mean of 8 agents")
    strip.cleanup()


def test_the_tables_say_which_agent_made_a_step(qtbot: QtBot, controller: LiveTelemetryController) -> None:
    """And are searched by the run's name alone."""
    view = TelemetryView(controller, DARK)
    qtbot.addWidget(view)
    steps = view.tables.tables["steps"]
    column = next(found for found in steps.columns if found.key == "run")
    rows = controller.telemetry.steps.everything()
    assert set(column.texts(rows)) == {f"ppo · {number}" for number in range(AGENTS)}
    assert set(column.exported(rows)) == {"ppo"}
    view.cleanup()


def test_a_run_of_many_agents_is_one_row_with_all_their_steps() -> None:
    """And says how many they are."""
    model = RunModel(clock=lambda: 10.0)
    for number, worker in enumerate(WORKERS):
        model.add([steps_of(info_of(worker=worker, stream=f"{number:032}"), 1, 5)], 1.0 + number)
    model.set_status(None)
    (entry,) = model.entries()
    assert (entry.steps, entry.workers, entry.envs) == (5 * AGENTS, AGENTS, 1)


def test_what_goes_well_of_many_is_one_event_and_what_does_not_names_the_agent() -> None:
    """Eight lines that say "started" would push out what matters."""
    model = HealthModel()
    for number, worker in enumerate(WORKERS):
        info = info_of(worker=worker, stream=f"{number:032}", name="ppo")
        model.add([records_of(info, run_record(1, "running"))], 1.0)
    rules: AlertRules = model.alerts
    assert [(alert.text, alert.count) for alert in rules.alerts] == [("ppo · started", AGENTS)]
    info = info_of(worker="sb3-3", stream=f"{3:032}", name="ppo")
    model.add([records_of(info, run_record(2, "failed"))], 2.0)
    assert [alert.text for alert in rules.alerts][1:] == ["ppo · sb3-3 · failed"]
