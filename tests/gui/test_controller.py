"""LiveTelemetryController: which run the window is about, and who waits for whom. No graph is running here."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from run_rig import row

from runlane.config.errors import StoreError
from runlane.config.settings import Settings
from runlane.gui.live_telemetry_controller import LiveTelemetryController

DEADLINE_MS = 10_000


class ListedStore:
    """A store whose list of runs comes when the test says so."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] | None = None
        self.may_answer = threading.Event()

    def runs(self) -> list[dict[str, Any]]:
        self.may_answer.wait(10)
        if self.rows is None:
            raise StoreError("no database; run `runlane demo`")
        return self.rows

    def curve(self, run: str, points: int) -> dict[str, Any]:
        raise StoreError(f"no run {run} in {points} points")

    def query(self, sql: str, bindings: Sequence[Any] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        raise StoreError(f"{sql} {bindings}")

    def size(self) -> tuple[int, int]:
        return 0, 0


@pytest.fixture
def store() -> ListedStore:
    return ListedStore()


@pytest.fixture
def controller(settings: Settings, store: ListedStore, qtbot: QtBot) -> Iterator[LiveTelemetryController]:
    del qtbot
    made = LiveTelemetryController(settings, store)
    yield made
    store.may_answer.set()
    assert made.stop() == []


def _row(run: str, started_ns: int) -> dict[str, Any]:
    return row(1, run=run, name=f"name-{run}", started_ns=started_ns)


def test_the_window_opens_on_the_newest_run(
    controller: LiveTelemetryController, store: ListedStore, qtbot: QtBot
) -> None:
    """Also when an older one was heard of first, over the bus."""
    controller.runs.set_rows([_row("older", 1)])
    controller.start()
    qtbot.waitUntil(lambda: controller.selected == "older", timeout=DEADLINE_MS)
    store.rows = [_row("newer", 2), _row("older", 1)]
    store.may_answer.set()
    qtbot.waitUntil(lambda: controller.selected == "newer", timeout=DEADLINE_MS)


def test_a_choice_of_a_person_stays(controller: LiveTelemetryController, store: ListedStore, qtbot: QtBot) -> None:
    """However the list comes out later."""
    controller.runs.set_rows([_row("older", 1)])
    controller.start()
    controller.select("older")
    store.rows = [_row("newer", 2), _row("older", 1)]
    store.may_answer.set()
    qtbot.waitUntil(lambda: controller.runs.entry("newer") is not None, timeout=DEADLINE_MS)
    qtbot.waitSignal(controller.ticked, timeout=DEADLINE_MS).wait()
    assert controller.selected == "older"


def test_a_run_that_is_not_there_is_named_and_awaited(
    controller: LiveTelemetryController, store: ListedStore, qtbot: QtBot
) -> None:
    """`runlane gui later`: the newest meanwhile, and a line that says so; `later` as soon as it begins."""
    store.rows = [_row("newest", 5)]
    store.may_answer.set()
    controller.start("name-later")
    qtbot.waitUntil(lambda: controller.selected == "newest", timeout=DEADLINE_MS)
    qtbot.waitUntil(lambda: "name-later" in controller.note, timeout=DEADLINE_MS)
    store.rows = [_row("later", 6), _row("newest", 5)]
    qtbot.waitUntil(lambda: controller.selected == "later", timeout=DEADLINE_MS)
    assert controller.note == ""


def test_an_order_that_waits_holds_up_no_status(
    controller: LiveTelemetryController, store: ListedStore, qtbot: QtBot
) -> None:
    """What is shown does not grow old while a graph takes its time to switch a worker."""
    store.may_answer.set()
    controller.start()
    release = threading.Event()
    controller.ask_graph("order", lambda _client: release.wait(10), lambda _: None)
    for _ in range(2):
        qtbot.waitSignal(controller.status_changed, timeout=DEADLINE_MS).wait()
    release.set()


def test_a_store_that_cannot_be_asked_is_a_line_and_no_end(
    controller: LiveTelemetryController, store: ListedStore, qtbot: QtBot
) -> None:
    """A window may be opened before the first run."""
    store.may_answer.set()
    controller.start()
    qtbot.waitUntil(lambda: "runlane demo" in controller.store_problem, timeout=DEADLINE_MS)
    store.rows = [_row("first", 1)]
    qtbot.waitUntil(lambda: controller.selected == "first", timeout=DEADLINE_MS)
    assert controller.store_problem == ""
