"""The pages "System" and "Log", the health card and the events: what stands there, and that nothing else is done."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from health_rig import FakeStore, status_of
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from runlane.config.names import LOG_DIR
from runlane.config.settings import Settings
from runlane.gui.controls_view import Label
from runlane.gui.events_view import EventsCard
from runlane.gui.health_view import HealthCard, HealthView
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.log_model import LogLine
from runlane.gui.log_view import LogView
from runlane.gui.time_chart_view import TimeChart, scale_of, short, thin, ticks_of
from runlane.gui.tokens import DARK, LIGHT
from runlane.transport.endpoint import data_dir_of


@pytest.fixture
def controller(settings: Settings, qapp: QApplication) -> Iterator[LiveTelemetryController]:
    """Not started: nothing comes but what a test says."""
    found = LiveTelemetryController(settings, FakeStore(), qapp)
    yield found
    found.stop()
    found.deleteLater()


def pixels(widget: QWidget) -> set[str]:
    """Every colour that a widget paints."""
    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    found = np.frombuffer(image.constBits(), np.uint32) & 0xFFFFFF
    return {f"#{value:06x}" for value in np.unique(found).tolist()}


# ---- the page ----


def test_every_process_queue_and_journal_has_a_row(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """With its account closed or open."""
    view = HealthView(controller, DARK)
    qtbot.addWidget(view)
    controller.health.set_status(status_of(published=106), 0.0)
    view.open_part("tables")
    names = [view.processes.text(row, 0) for row in range(view.processes.row_count)]
    assert names == ["supervisor", "router", "db_writer", "proxy-ppo"]
    assert [view.queues.text(row, 3) for row in range(view.queues.row_count)] == ["✓ closed", "✗ 1"]
    assert view.queues.text(0, 4) == "63 / 64"
    assert view.journals.text(0, 4) == "3"


def test_rows_go_when_their_process_does(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """The table is as long as the graph."""
    view = HealthView(controller, DARK)
    qtbot.addWidget(view)
    status = status_of()
    controller.health.set_status(status, 0.0)
    view.open_part("tables")
    controller.health.set_status(msgspec.structs.replace(status, children=status.children[:2]), 1.0)
    view.show_health()
    assert view.processes.row_count == 3
    assert view.journals.row_count == 0


def test_a_page_that_is_not_active_does_nothing(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """Until it is."""
    view = HealthView(controller, DARK)
    qtbot.addWidget(view)
    view.open_part("tables")
    controller.health.set_status(status_of(), 0.0)
    controller.ticked.emit(1.0)
    assert view.processes.row_count == 1  # nobody looked since
    view.set_active(True)
    assert view.processes.row_count == 4


def test_without_a_graph_the_page_says_what_to_do(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """A command that can be copied."""
    view = HealthView(controller, DARK)
    qtbot.addWidget(view)
    view.resize(800, 500)
    view.show()
    view.set_active(True)
    assert any("runlane up" in child.accessibleName() and child.isVisible() for child in view.findChildren(QWidget))


def test_the_figures_can_be_copied(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """As JSON, of all that is shown."""
    view = HealthView(controller, DARK)
    qtbot.addWidget(view)
    controller.health.set_status(status_of(depth=3), 0.0)
    view.copy_figures()
    found: dict[str, Any] = json.loads(QApplication.clipboard().text())
    assert found["graph"]["queues"][0]["depth"] == 3


def test_selected_rows_are_copied_with_their_headings(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """Ctrl+C, as in any table."""
    view = HealthView(controller, DARK)
    qtbot.addWidget(view)
    controller.health.set_status(status_of(), 0.0)
    view.open_part("tables")
    view.processes.selectRow(1)
    QTest.keyClick(view.processes, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].startswith("process\tkind\tstate")
    assert lines[1].startswith("router\trouter\trunning\t10")


# ---- charts ----


def test_a_chart_paints_its_line_and_its_threshold(qtbot: QtBot) -> None:
    """In the colours of the scheme in force."""
    chart = TimeChart(DARK, "0", "ms")
    qtbot.addWidget(chart)
    chart.resize(300, 160)
    chart.show_values(np.linspace(-300, 0, 100), np.full(100, 10.0), 20.0)
    assert {DARK.series[0]} <= pixels(chart)
    assert chart.is_threshold_drawn
    chart.set_tokens(LIGHT)
    found = pixels(chart)
    assert LIGHT.series[0] in found
    assert DARK.series[0] not in found


def test_a_far_threshold_is_not_drawn() -> None:
    """The line would lie flat below it."""
    assert scale_of(np.array([1.0, 2.0]), 32_768.0)[1] < 3
    assert scale_of(np.array([1.0, 2.0]), 10.0)[1] > 10


@pytest.mark.parametrize("values", [[], [0.0], [5.0, 5.0], [-1.0, 3.0], [float("nan")], [1e9, 2e9], [1e-6]])
def test_every_scale_has_room_and_round_ticks(values: list[float]) -> None:
    """Also for nothing, for one value, and for values all alike."""
    low, high = scale_of(np.array(values), None)
    assert high > low
    assert 1 <= len(ticks_of(low, high, 4)) <= 5
    assert all(len(short(tick)) <= 8 for tick in ticks_of(low, high, 4))


def test_thinning_keeps_every_peak() -> None:
    """At most two points for each pixel."""
    x = np.arange(100_000, dtype=float)
    y = np.zeros(100_000)
    y[12_345], y[77_777] = 9.0, -9.0
    thin_x, thin_y = thin(x, y, 200)
    assert len(thin_x) <= 400
    assert (thin_y.max(), thin_y.min()) == (9.0, -9.0)
    assert (np.diff(thin_x) > 0).all()


def test_the_cursor_tells_the_value_under_it(qtbot: QtBot) -> None:
    """And goes when the mouse does."""
    chart = TimeChart(DARK, "0")
    qtbot.addWidget(chart)
    chart.resize(300, 160)
    chart.show_values(np.linspace(-300, 0, 100), np.arange(100.0))
    chart.show()
    before = pixels(chart)
    QTest.mouseMove(chart, QPoint(150, 60))
    qtbot.waitUntil(lambda: DARK.raised in pixels(chart), timeout=2_000)
    assert DARK.raised not in before


# ---- the card ----


def test_the_card_shows_queues_drops_and_warnings(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """As the mock has them."""
    card = HealthCard(controller, DARK)
    qtbot.addWidget(card)
    controller.health.set_status(status_of(), 0.0)
    controller.health.set_status(status_of(depth=560, dropped={"oldest": 2}, published=107), 0.0)
    card.show_health()
    texts = {label.whole_text for label in card.findChildren(Label)}
    assert "560 / 1\u202f000" in texts
    assert "1 warning" in texts
    assert "Drops: UI 2 · DB 0 · sequence gaps 0" in texts


# ---- events ----


def test_events_come_newest_first_and_lead_to_their_run(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """A click on one selects the run, and all count as seen."""
    card = EventsCard(controller, DARK)
    qtbot.addWidget(card)
    card.resize(300, 200)
    card.show()
    controller.health.alerts.on_run("r1", "w", "first", "running", 0.0)
    controller.health.alerts.on_run("r2", "w", "second", "failed", 1.0)
    card.show_alerts(2.0)
    assert card.texts == ["second · failed", "first · started"]
    assert card.unseen == 2
    index = card.list.model().index(0, 0)
    where = card.list.visualRect(index).center()
    QTest.mouseClick(card.list.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, where)
    assert controller.selected == "r2"
    assert card.unseen == 0
    assert QColor(DARK.bad).name() in pixels(card.list.viewport())


# ---- the log ----


def lines_of(count: int, level: str = "INFO") -> list[LogLine]:
    return [LogLine(float(number), level, "router", "ACTOR_STARTED", f"line {number}") for number in range(count)]


def test_log_lines_are_filtered_and_followed(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """The newest stay in view, until somebody scrolls up."""
    view = LogView(controller, DARK)
    qtbot.addWidget(view)
    view.resize(700, 400)
    view.show()
    log = controller.health.log
    log.add_lines(lines_of(100))
    view.set_active(True)
    bar = view.list.verticalScrollBar()
    assert bar.maximum() > 0
    assert bar.value() == bar.maximum()
    bar.setValue(0)
    log.add_lines([LogLine(200.0, "ERROR", "proxy", "", "boom")])
    view.set_active(True)
    assert bar.value() == 0
    view.levels.setCurrentText("ERROR")
    assert [line.text for line in view.lines] == ["boom"]
    view.levels.setCurrentText("INFO")
    view.search.setText("line 42")
    assert [line.text for line in view.lines] == ["line 42"]
    view.search.clear()
    view.processes.setCurrentText("proxy")
    assert [line.text for line in view.lines] == ["boom"]


def test_a_held_log_goes_on_where_it_was(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """Nothing is lost meanwhile."""
    view = LogView(controller, DARK)
    qtbot.addWidget(view)
    view.set_active(True)
    view.set_paused(True)
    controller.health.log.add_lines(lines_of(5))
    view.set_active(True)
    assert view.lines == []
    view.set_paused(False)
    assert len(view.lines) == 5


def test_each_log_id_says_what_it_means(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """As the reference page does."""
    view = LogView(controller, DARK)
    qtbot.addWidget(view)
    at = view.log_ids.findText("RUNBUS_OVERFLOW")
    assert "began to drop" in view.log_ids.itemData(at, Qt.ItemDataRole.ToolTipRole)
    controller.health.log.add_lines(lines_of(1))
    view.set_active(True)
    assert "ACTOR_STARTED" in str(view.list.model().index(0, 0).data(Qt.ItemDataRole.ToolTipRole))


def test_the_files_of_the_graph_are_read(controller: LiveTelemetryController, settings: Settings, qtbot: QtBot) -> None:
    """In the background, by the page that is open."""
    directory = data_dir_of(settings) / LOG_DIR
    directory.mkdir(parents=True)
    Path(directory / "router.log").write_text("2026-11-22T13:18:25.000Z INFO    router ACTOR_STARTED pid=1\n")
    view = LogView(controller, DARK)
    qtbot.addWidget(view)
    view.set_active(True)
    controller.start()
    qtbot.waitUntil(lambda: [line.text for line in view.lines] == ["pid=1"], timeout=5_000)


def test_an_idle_card_asks_for_samples_of_this_window(controller: LiveTelemetryController, qtbot: QtBot) -> None:
    """CPU and memory come from the background thread."""
    card = HealthCard(controller, DARK)
    qtbot.addWidget(card)
    controller.start()

    def is_sampled() -> bool:
        return any(process.pid == os.getpid() and process.rss_bytes for process in controller.health.processes)

    qtbot.waitUntil(is_sampled, timeout=5_000)
