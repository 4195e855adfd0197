"""The telemetry page on a real controller, ticked by hand: which runs and plots it shows, what it asks the store."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot
from telemetry_batches import BatchSource

from runlane.config.settings import Settings
from runlane.gui.figures import whole_number
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.run_model import MOST_STRUCTURAL
from runlane.gui.store_source import SqlValue
from runlane.gui.telemetry_model import LENGTH, RATE, RETURN, REWARD, SeriesKey
from runlane.gui.telemetry_view import HISTORY_RETRY_S, TelemetryView
from runlane.gui.tokens import DARK, LIGHT

TICK_S = 0.5


class FakeStore:
    """No rows; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def runs(self) -> list[dict[str, Any]]:
        return []

    def curve(self, run: str, points: int) -> dict[str, Any]:
        return {"run": run, "points": [], "asked": points}

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        self.asked.append(f"{sql} {bindings}")
        return ("x",), []

    def size(self) -> tuple[int, int]:
        return 0, 0


class Page:
    """The view and what feeds it. Questions to the store are kept, and answered by `answer`."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.controller = LiveTelemetryController(
            msgspec.structs.replace(Settings(), data_dir=str(tmp_path)), FakeStore()
        )
        self.questions: dict[
            str, tuple[Callable[[], Any], Callable[[Any], object], Callable[[str], object] | None]
        ] = {}
        monkeypatch.setattr(self.controller, "ask_store", self._ask)
        self.view = TelemetryView(self.controller, DARK)
        self.view.resize(1000, 640)
        self.view.show()
        self.view.set_active(True)
        self.now_s = 100.0

    def _ask(
        self,
        key: str,
        call: Callable[[], Any],
        done: Callable[[Any], object],
        failed: Callable[[str], object] | None = None,
    ) -> bool:
        self.questions[key] = (call, done, failed)
        return True

    def answer(self, key: str) -> None:
        call, done, _ = self.questions.pop(key)
        done(call())

    def fail(self, key: str) -> None:
        failed = self.questions.pop(key)[2]
        assert failed is not None
        failed("the disk thinks")

    def feed(self, *batches: Any) -> None:
        self.controller.runs.add(list(batches), self.now_s)
        for batch in batches:
            self.controller.telemetry.add([batch], self.now_s)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.now_s += TICK_S
            self.controller.ticked.emit(self.now_s)


@pytest.fixture
def page(qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    made = Page(tmp_path, monkeypatch)
    qtbot.addWidget(made.view)
    yield made
    made.view.cleanup()
    made.controller.stop()


def some(run: str = "run-1", name: str = "ppo-s1") -> tuple[BatchSource, list[Any]]:
    source = BatchSource(run, run_name=name, start_ns=time.time_ns())
    batches = [source.steps(1200), source.episodes([1.0, 2.0, 3.0]), source.metric("loss/policy", 0.5, 100)]
    return source, [*batches, source.steps(600)]


def test_the_selected_run_has_a_plot_of_everything_it_records(page: Page) -> None:
    """Return, the loss, length and rate; the reward when it is asked for."""
    page.controller.select("run-1")
    page.feed(*some()[1])
    page.tick(8)
    assert list(page.view.grid.plots) == [RETURN, "loss/policy", LENGTH, RATE]
    page.view.show_plot(REWARD, is_shown=True)
    page.view.show_plot(LENGTH, is_shown=False)
    page.tick(4)
    assert list(page.view.grid.plots) == [RETURN, "loss/policy", RATE, REWARD]
    assert [curve.label for curve in page.view.grid.plots[RETURN].curves] == ["ppo-s1"]


def test_runs_are_laid_over_each_other_in_their_own_colours(page: Page) -> None:
    """The same colour as everywhere: by the run's number in the list of runs."""
    page.controller.select("run-1")
    page.feed(*some()[1], *some("run-2", "ppo-s2")[1])
    page.view.overlay("run-2", is_shown=True)
    page.tick(8)
    assert page.view.runs_shown() == ["run-1", "run-2"]
    curves = page.view.grid.plots[RETURN].curves
    entries = [page.controller.runs.entry(run) for run in ("run-1", "run-2")]
    assert [curve.color for curve in curves] == [
        DARK.series[entry.color_index % len(DARK.series)] for entry in entries if entry is not None
    ]
    assert {curve.group for curve in curves} == {"ppo"}
    page.view.overlay("run-2", is_shown=False)
    assert page.view.runs_shown() == ["run-1"]


def test_a_page_that_nobody_looks_at_draws_nothing(page: Page) -> None:
    """It goes on where it is when it is shown again."""
    page.controller.select("run-1")
    page.view.set_active(False)
    page.feed(*some()[1])
    page.tick(6)
    assert page.view.tables.table.shown.rows(0, 10).size == 0
    page.view.set_active(True)
    page.tick(6)
    assert page.view.tables.table.shown.rows(0, 1)["seq"].size == 1


def test_a_pause_holds_plots_and_table(page: Page) -> None:
    """Nothing is lost meanwhile: going on shows it."""
    page.controller.select("run-1")
    source, batches = some()
    page.feed(*batches)
    page.tick(8)
    page.view.toggle_pause()
    newest = int(page.view.tables.table.shown.rows(0, 1)["seq"][0])
    page.feed(source.steps(50))
    page.tick(4)
    assert int(page.view.tables.table.shown.rows(0, 1)["seq"][0]) == newest
    page.view.toggle_pause()
    assert int(page.view.tables.table.shown.rows(0, 1)["seq"][0]) == newest + 50


def test_a_run_from_before_the_window_is_asked_of_the_store_once(page: Page) -> None:
    """One seen from its first record is not."""
    page.controller.select("old")
    page.tick(4)
    assert list(page.questions) == ["history old"]
    page.answer("history old")
    page.tick(4)
    assert page.questions == {}
    page.feed(*some()[1])
    page.controller.select("run-1")
    page.tick(4)
    assert page.questions == {}


def test_history_that_failed_is_asked_for_again_after_a_while(page: Page) -> None:
    """Not at once, and no more once it came; the note about it goes."""
    page.controller.select("old")
    page.tick(4)
    page.fail("history old")
    assert page.view.note == "no history: the disk thinks"
    page.tick(round(HISTORY_RETRY_S / TICK_S) - 1)
    assert page.questions == {}
    page.tick(2)
    page.answer("history old")
    assert page.view.note == ""
    page.tick(40)
    assert page.questions == {}


def test_a_zoom_into_merged_values_asks_for_the_rows(page: Page) -> None:
    """Where every value is there already, nothing is asked."""
    source, batches = some()
    page.feed(*batches)
    page.controller.select("run-1")
    page.tick(8)
    page.view.grid.zoomed.emit(RETURN, 0.0, 5000.0)
    assert page.questions == {}
    page.feed(source.episodes([float(number) for number in range(9000)], length=1))
    page.view.grid.plots[RETURN].zoom_to(0.0, 5000.0)
    page.view.grid.zoomed.emit(RETURN, 0.0, 5000.0)
    assert list(page.questions) == [f"raw {RETURN}"]


def test_the_table_says_what_it_holds_and_what_is_missing(page: Page) -> None:
    """Figures of the model, and of the router's account."""
    page.feed(*some()[1], BatchSource("x").garbage())
    page.tick(4)
    assert page.view.tables.line == (
        "ring of 50 000 · newest first · 0 dropped on the fast path · 1 800 received · 3 unreadable"
    )
    page.view.tables.show_table("episodes")
    page.tick(4)
    assert "ring of 20 000" in page.view.tables.line
    assert "· 3 received" in page.view.tables.line


def row(run: str, state: str = "running") -> dict[str, Any]:
    """What the store lists of a run."""
    counts = {"steps": 0, "episodes": 0, "workers": 1, "drops": 0}
    times = {"started_ns": 1, "ended_ns": None, "seen_ns": 1}
    return {"run": run, "name": run, "state": state, "mean_return": None, **times, **counts}


@pytest.mark.parametrize("others", [1, MOST_STRUCTURAL + 1])
def test_a_deleted_run_goes_from_curves_and_tables_though_nobody_looks(page: Page, others: int) -> None:
    """As soon as the list of runs does not know it any more, be it one of many; those that stay keep theirs."""
    page.view.set_active(False)
    gone = [f"gone-{number}" for number in range(others)]
    page.controller.runs.set_rows([row(run) for run in ["stays", *gone]])
    page.feed(*some("gone-0")[1], *some("stays")[1])
    page.controller.runs.set_rows([row("stays")])
    assert page.controller.telemetry.series(SeriesKey("gone-0", "w", RETURN)) is None
    assert page.controller.telemetry.runs() == ["stays"]
    assert len(page.controller.telemetry.steps) == 1800
    assert len(page.controller.telemetry.episodes) == 3


def test_every_plot_says_what_its_runs_missed(page: Page) -> None:
    """Those of all runs that are drawn, and no others."""
    page.controller.select("run-1")
    for run, lost in (("run-1", 20), ("run-2", 5), ("run-3", 100)):
        source, batches = some(run)
        page.feed(*batches)
        source.skip(lost)
        page.feed(source.steps(10))
    page.tick(10)
    assert {plot.missed for plot in page.view.grid.plots.values()} == {"20 records missed"}
    page.view.overlay("run-2", is_shown=True)
    page.tick(4)
    assert page.view.grid.plots[RETURN].missed == "25 records missed"


def test_the_empty_table_of_an_ended_run_says_where_its_rows_are(page: Page) -> None:
    """No step of it will come; of one that goes on they will."""
    page.controller.runs.set_rows([row("run-1", "finished"), row("run-2")])
    page.controller.select("run-1")
    page.tick(2)
    table = page.view.tables.table
    assert "are in the database: runlane sql" in table.empty_text
    assert "run-1" in table.empty_text
    page.controller.select("run-2")
    page.tick(2)
    assert table.empty_text.startswith("No steps yet")


def test_many_rows_are_copied_in_the_background(page: Page) -> None:
    """The table's line says so; what is copied meanwhile is not overwritten."""
    source, batches = some()
    page.feed(*batches, source.steps(40_000))
    page.tick(4)
    tables, clipboard = page.view.tables, QGuiApplication.clipboard()
    clipboard.setText("before")
    tables.copy()
    assert clipboard.text() == "before"
    assert tables.line == f"copying {whole_number(41_800)} rows …"
    page.answer("copy")
    assert len(clipboard.text().splitlines()) == 41_801
    assert tables.line == f"{whole_number(41_800)} rows copied"
    tables.copy()
    tables.table.select(0, 4)
    tables.copy()
    assert len(clipboard.text().splitlines()) == 6
    page.answer("copy")
    assert len(clipboard.text().splitlines()) == 6


@pytest.mark.parametrize("size", [(1280, 720), (700, 560)])
def test_nothing_is_cut_however_small_the_page(page: Page, size: tuple[int, int]) -> None:
    """Every control fits, and two plots lie beside each other."""
    page.controller.select("run-1")
    page.feed(*some()[1])
    page.view.resize(*size)
    page.tick(10)
    view = page.view
    assert view.minimumSizeHint().width() <= size[0]
    assert view.minimumSizeHint().height() <= size[1]
    plots = list(view.grid.plots.values())
    assert plots[0].y() == plots[1].y()


def test_colours_change_with_the_scheme(page: Page) -> None:
    """Plots and tables take them; curves keep their number."""
    page.controller.select("run-1")
    page.feed(*some()[1])
    page.tick(8)
    page.view.set_tokens(LIGHT)
    assert page.view.grid.plots[RETURN].curves[0].color in LIGHT.series


def test_an_export_is_written_in_the_background(page: Page, tmp_path: Path) -> None:
    """The selection alone, when there is one."""
    page.feed(*some()[1])
    page.tick(4)
    page.view.tables.table.select(0, 4)
    path = tmp_path / "steps.csv"
    page.view.tables.export(str(path))
    assert not path.exists()
    page.answer(f"export {path}")
    assert len(path.read_text().splitlines()) == 6
    assert "5 rows written" in page.view.tables.line
