"""WarningBanner: loud while nothing is recorded of the selected run, and gone as soon as steps come."""

from collections.abc import Iterator

import pytest
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot
from run_rig import FakeStore, RigController, info_of, records_of, row, run_record, steps_of

from runlane.config.settings import Settings
from runlane.gui.live_page_view import LivePage
from runlane.gui.run_card_view import rate_words
from runlane.gui.run_list_view import RunListView
from runlane.gui.run_panel_view import RunPanel
from runlane.gui.tokens import DARK, LIGHT
from runlane.gui.warning_view import WarningBanner
from runlane.transport.records import LogRecord

TEXT = "Nothing is recorded after 10 s of `t.py`.\nAdd:\n    from runlane.workers import attach\n    lane = attach()"
RUN = "run000001"
PROXY = info_of(worker="proxy-worker", stream="1" * 32, name="silent")


@pytest.fixture
def controller(qapp: object, settings: Settings) -> Iterator[RigController]:  # noqa: ARG001
    found = RigController(settings)
    found.runs.set_rows([row(2), row(1, state="running", ended_ns=None, steps=0, episodes=0, mean_return=None)])
    found.select(RUN)
    yield found
    found.stop()


@pytest.fixture
def banner(qtbot: QtBot, controller: RigController) -> WarningBanner:
    found = WarningBanner(controller, DARK)
    qtbot.addWidget(found)
    return found


def warn(controller: RigController, now_s: float = 1.0) -> None:
    batch = records_of(PROXY, LogRecord(1, 0, "warning", TEXT))
    controller.runs.add([batch], now_s)
    controller.health.add([batch], now_s)
    controller.ticked.emit(now_s)


def warning_of(controller: RigController, run: str = RUN) -> str:
    entry = controller.runs.entry(run)
    assert entry is not None
    return entry.warning


def test_the_banner_comes_with_the_launchers_word(controller: RigController, banner: WarningBanner) -> None:
    """With its lines, which can be copied; and not before."""
    assert banner.isHidden()
    warn(controller)
    assert not banner.isHidden()
    assert banner.headline.whole_text == "Nothing is recorded after 10 s of `t.py`."
    banner.copy.click()
    assert QGuiApplication.clipboard().text() == "from runlane.workers import attach\nlane = attach()"
    banner.set_tokens(LIGHT)


def test_it_goes_as_soon_as_steps_come(controller: RigController, banner: WarningBanner) -> None:
    """And does not come back when the warning is told again."""
    warn(controller)
    controller.runs.add([steps_of(info_of(), 1, 3)], 2.0)
    controller.ticked.emit(2.0)
    assert banner.isHidden()
    warn(controller, 3.0)
    assert banner.isHidden()


def test_it_is_about_the_selected_run_alone(controller: RigController, banner: WarningBanner) -> None:
    """Another run is none of its business."""
    warn(controller)
    controller.select("run000002")
    assert banner.isHidden()
    controller.select(RUN)
    assert not banner.isHidden()


def test_a_run_of_which_only_its_proxy_speaks_is_in_the_list(controller: RigController) -> None:
    """The window may hear of it before the store does."""
    other = info_of(run="run000009", worker="proxy-worker", stream="2" * 32)
    controller.runs.add([records_of(other, run_record(1, "running"))], 1.0)
    assert controller.runs.entry("run000009") is None
    controller.runs.add([records_of(other, LogRecord(2, 0, "warning", TEXT))], 1.0)
    assert warning_of(controller, "run000009") == TEXT


def test_the_card_and_the_events_say_so_too(qtbot: QtBot, controller: RigController) -> None:
    """In the list of runs, in the selected run's card, on the live page, and as an event of that run."""
    panel, page = RunPanel(controller, DARK), LivePage(controller, DARK)
    for widget in (panel, page):
        qtbot.addWidget(widget)
    warn(controller)
    entry = controller.runs.entry(RUN)
    assert entry is not None
    assert rate_words(entry) == "Nothing is recorded"
    assert not panel.warning.isHidden()
    assert not page.warning.isHidden()
    assert [(alert.text, alert.level, alert.run) for alert in controller.health.alerts.alerts] == [
        ("silent · nothing is recorded", "warn", RUN)
    ]
    page.cleanup()


def test_a_window_that_was_opened_later_asks_the_store(qtbot: QtBot, settings: Settings) -> None:
    """Of runs in sight that have no steps."""
    store = FakeStore({"FROM logs": [(RUN, TEXT)], "config, facts": [(RUN, None, None)]})
    controller = RigController(settings, store)
    controller.runs.set_rows([row(1, steps=0, episodes=0), row(2)])
    found = RunListView(controller, DARK)
    qtbot.addWidget(found)
    found.show()
    controller.ticked.emit(1.0)
    assert warning_of(controller) == TEXT
    assert [bindings for sql, bindings in store.asked if "FROM logs" in sql] == [
        (RUN, "proxy-%", "warning", "Nothing is recorded%")
    ]
    controller.stop()
