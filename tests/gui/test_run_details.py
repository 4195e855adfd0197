"""RunPanel and RunDetailsView: what is known of the selected run, and what is done to it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from run_rig import FakeStore, RigController, episode, info_of, records_of, row, run_record, status_of, steps_of

from runlane.config.errors import GraphError
from runlane.config.settings import Settings
from runlane.gui.confirm_view import ConfirmDialog
from runlane.gui.run_details import NOT_RECORDED, git_text
from runlane.gui.run_details_view import RunDetailsView, RunPanel
from runlane.gui.run_text import count_text, duration_text, return_text
from runlane.gui.tokens import DARK, LIGHT

CONFIG = '{"lr": 0.1, "policy": {"hidden": [64, 64], "act": "tanh"}, "seed": 1}'
OTHER = '{"lr": 0.2, "policy": {"hidden": [64, 64], "act": "relu"}, "seed": 1}'
FACTS: dict[str, Any] = {
    "python": "3.11.7",
    "versions": {"numpy": "2.0", "runlane": "0.1.0"},
    "directory": "/here",
    "arguments": ["--lr", "0.1", "--name", "a b"],
    "env": {"id": "FrozenLake-v1", "kwargs": {"is_slippery": False}, "max_episode_steps": 100},
    "git": {"commit": "0123456789abcdef", "branch": "main", "dirty_bytes": 0, "untracked": 0},
}
OTHER_FACTS = FACTS | {"env": {"id": "Taxi-v3"}, "git": FACTS["git"] | {"dirty_bytes": 52}}


def run_row(run: str, config: str, facts: dict[str, Any]) -> tuple[Any, ...]:
    began = 10**18
    row = (run, "a run", "failed", began, began + 5 * 10**9, 1, -9, "boom", "python t.py", config, "h", 7)
    return (*row, json.dumps(facts))


STREAMS = [
    ("w", 1, "killed", "h", 7, 1200, 10, 1, 1210, 10**18, 10**18 + 10**9, None, None, None, "a" * 32),
    ("w", 2, "failed", "h", 8, 90, 1, 1, 91, 10**18, None, "a" * 32, 1000, None, "b" * 32),
]


@dataclass
class Answer:
    """What a graph answers."""

    pids: list[int] = field(default_factory=list[int])
    state: str = ""
    rows: dict[str, int] = field(default_factory=dict[str, int])


class FakeClient:
    """A graph client that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.deletion: list[str] = ["removing", "removed"]
        self.refusal = ""
        self.refusing = ""  # a worker

    def stop_worker(self, run: str, worker: str, *, is_kill: bool = False) -> Answer:
        self.asked.append((run, worker, is_kill))
        if worker == self.refusing:
            raise GraphError("no such process")
        return Answer(pids=[41])

    def delete_run(self, run: str) -> Answer:
        self.asked.append(("delete", run))
        if self.refusal:
            raise GraphError(self.refusal)
        return Answer(state=self.deletion.pop(0), rows={"step": 5})


class RunStore(FakeStore):
    """Two runs: the second has another configuration."""

    def query(self, sql: str, bindings: Any = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        run = bindings[0] if bindings else ""
        if "run_status" in sql:
            known = {
                "run000001": run_row("run000001", CONFIG, FACTS),
                "run000002": run_row("run000002", OTHER, OTHER_FACTS),
            }
            return (), [known[run]] if run in known else []
        if "FROM streams" in sql:
            return (), STREAMS
        if "account_drops" in sql:
            return (), [("gui", "oldest", 12), ("lost for all", "disk_full", 3)]
        return super().query(sql, bindings)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def controller(qapp: object, settings: Settings, client: FakeClient) -> Iterator[RigController]:  # noqa: ARG001
    found = RigController(settings, RunStore(), client)
    found.runs.set_rows([row(2), row(1, state="running", ended_ns=None)])
    yield found
    found.stop()


@pytest.fixture
def panel(qtbot: QtBot, controller: RigController) -> RunPanel:
    found = RunPanel(controller, DARK)
    qtbot.addWidget(found)
    found.show()
    controller.select("run000001")
    return found


@pytest.fixture
def page(qtbot: QtBot, controller: RigController) -> RunDetailsView:
    found = RunDetailsView(controller, DARK)
    qtbot.addWidget(found)
    found.resize(1000, 700)
    found.show()
    controller.select("run000001")
    found.set_active(True)
    return found


def texts(panel: RunPanel) -> dict[str, str]:
    figures = panel._figures  # pyright: ignore[reportPrivateUsage]
    return {key: figure.accessibleDescription() for key, figure in figures.items()}


def dialog_of(panel: RunPanel | RunDetailsView) -> ConfirmDialog:
    found = panel.findChildren(ConfirmDialog)
    return found[-1]


def press(panel: RunPanel, key: str) -> None:
    QTest.mouseClick(panel.buttons[key], Qt.MouseButton.LeftButton)


def test_the_panel_shows_reward_return_rate_and_progress(panel: RunPanel, controller: RigController) -> None:
    """Of the selected run, as the bus brings them."""
    info = info_of()
    records = records_of(info, run_record(1, "running", config={"total_steps": 1000}))
    controller.runs.add([records, records_of(info, episode(2, 7.5)), steps_of(info, 3, 250, 1.0)], 100.0)
    panel._show()  # pyright: ignore[reportPrivateUsage]
    shown = texts(panel)
    assert shown["last_reward"].startswith("+1.00")
    assert shown["rolling_return"] == "1.00 best 7.50"
    assert shown["progress"].startswith("250 of 1 000 · ")


def test_buttons_offer_what_can_be_done(panel: RunPanel, controller: RigController) -> None:
    """A living run is stopped, an ended one deleted."""
    assert [panel.buttons[key].isEnabled() for key in ("stop", "kill", "delete")] == [True, True, False]
    controller.select("run000002")
    assert [panel.buttons[key].isEnabled() for key in ("stop", "kill", "delete")] == [False, False, True]


@pytest.mark.parametrize(("key", "is_kill"), [("stop", False), ("kill", True)])
def test_stop_and_kill_ask_first_and_tell_what_came_of_it(
    panel: RunPanel, controller: RigController, client: FakeClient, key: str, is_kill: bool
) -> None:
    """Every living worker of the run is asked."""
    controller.tell_status(status_of(("run000001", "w", ""), ("run000001", "v", "")))
    press(panel, key)
    assert controller.waiting == []
    dialog_of(panel).yes.click()
    controller.answer()
    assert client.asked == [("run000001", "w", is_kill), ("run000001", "v", is_kill)]
    assert "41" in panel.message.whole_text


def test_one_worker_that_refuses_to_stop_does_not_save_the_others(
    panel: RunPanel, controller: RigController, client: FakeClient
) -> None:
    """All are asked, and it is said who refused."""
    client.refusing = "w"
    controller.tell_status(status_of(("run000001", "w", ""), ("run000001", "v", "")))
    press(panel, "stop")
    dialog_of(panel).yes.click()
    controller.answer()
    assert [asked[1] for asked in client.asked] == ["w", "v"]
    assert panel.message.whole_text == "w: no such process; 1 of 2 workers were told"


def test_the_panel_says_of_fast_lane_only_that_nothing_is_kept(panel: RunPanel, controller: RigController) -> None:
    """Not that the run makes 0 steps a second."""
    controller.tell_status(status_of(("run000001", "w", "fast_lane_only")))
    panel._show()  # pyright: ignore[reportPrivateUsage]
    assert texts(panel)["step_rate_hz"].startswith("not kept")


@pytest.mark.parametrize(("key", "is_kill"), [("stop", False), ("kill", True)])
def test_the_page_stops_and_kills_by_keyboard_where_there_is_no_room_for_the_panel(
    page: RunDetailsView, controller: RigController, client: FakeClient, key: str, is_kill: bool
) -> None:
    """After the same question, with the same words about what came of it."""
    controller.tell_status(status_of(("run000001", "w", "")))
    button = page.buttons[key]
    assert (button.isVisible(), button.focusPolicy(), bool(button.toolTip())) == (
        True,
        Qt.FocusPolicy.StrongFocus,
        True,
    )
    button.setFocus()
    QTest.keyClick(button, Qt.Key.Key_Space)
    assert controller.waiting == []
    dialog_of(page).yes.click()
    controller.answer()
    assert client.asked == [("run000001", "w", is_kill)]
    assert "41" in page.problem.whole_text


def test_the_page_deletes_what_has_ended_and_only_that(
    page: RunDetailsView, controller: RigController, client: FakeClient
) -> None:
    """Buttons follow the run, also when it ends while it is looked at."""
    assert [page.buttons[key].isEnabled() for key in ("stop", "kill", "delete")] == [True, True, False]
    controller.runs.set_rows([row(2), row(1)])
    controller.ticked.emit(50.0)
    assert [page.buttons[key].isEnabled() for key in ("stop", "kill", "delete")] == [False, False, True]
    client.deletion = ["removed"]
    page.buttons["delete"].click()
    dialog_of(page).yes.click()
    controller.answer()
    assert client.asked == [("delete", "run000001")]
    assert page.problem.whole_text == "deleted"


def test_no_is_the_default_answer(panel: RunPanel, controller: RigController) -> None:
    """Return does nothing."""
    controller.tell_status(status_of(("run000001", "w", "")))
    press(panel, "stop")
    QTest.keyClick(dialog_of(panel), Qt.Key.Key_Return)
    assert controller.waiting == []


def test_a_run_nobody_serves_cannot_be_stopped_and_the_panel_says_so(panel: RunPanel) -> None:
    """One line, at once."""
    press(panel, "stop")
    dialog_of(panel).yes.click()
    assert "no living worker" in panel.message.whole_text


def test_delete_says_what_is_lost_and_goes_on_until_it_is_done(
    qtbot: QtBot, panel: RunPanel, controller: RigController, client: FakeClient
) -> None:
    """It is asked again while rows are being removed."""
    controller.select("run000002")
    press(panel, "delete")
    dialog = dialog_of(panel)
    assert "100 steps, 10 episodes" in dialog.accessibleDescription()
    assert "name-2" in dialog.accessibleName()
    dialog.yes.click()
    controller.answer()
    assert "5 rows removed" in panel.message.whole_text
    qtbot.waitUntil(lambda: len(controller.waiting) == 1, timeout=3_000)
    controller.answer()
    assert panel.message.whole_text == "deleted"
    assert client.asked == [("delete", "run000002")] * 2


def test_a_refusal_is_one_line(panel: RunPanel, controller: RigController, client: FakeClient) -> None:
    """Never a traceback."""
    client.refusal = "run000002 is\nrunning; stop it first"
    controller.select("run000002")
    press(panel, "delete")
    dialog_of(panel).yes.click()
    controller.answer()
    assert panel.message.whole_text == "run000002 is running; stop it first"


def test_the_page_shows_configuration_facts_and_streams(page: RunDetailsView) -> None:
    """Nested settings by dotted names; what nobody recorded is said to be missing."""
    assert page.config.rows == [
        ("lr", "0.1"),
        ("policy.act", "tanh"),
        ("policy.hidden", "[64, 64]"),
        ("seed", "1"),
    ]
    facts = {row[0]: row[1] for row in page.facts.rows}
    assert facts["exit code"] == "signal 9"
    assert facts["error"] == "boom"
    assert facts["versions"] == "numpy 2.0, runlane 0.1.0"
    assert facts["directory"] == "/here"
    assert page.streams.rows[1][-1] == "goes on from w 1 at step 1 000"
    assert page.drops.rows[0] == ("gui", "oldest", "12")


def test_settings_are_searched(page: RunDetailsView) -> None:
    """In names and values."""
    QTest.keyClicks(page.search, "TANH")
    assert page.config.rows == [("policy.act", "tanh")]


def test_two_runs_are_compared_by_what_differs(page: RunDetailsView, controller: RigController) -> None:
    """And only that."""
    controller.ticked.emit(50.0)
    page.compare.setCurrentIndex(page.compare.findData("run000002"))
    page.compare.activated.emit(page.compare.currentIndex())
    assert page.config.rows[:2] == [("lr", "0.1", "0.2"), ("policy.act", "tanh", "relu")]
    controller.select("run000002")
    assert len(page.config.rows) == 4


def test_a_resting_page_asks_nothing(qtbot: QtBot, controller: RigController) -> None:
    """It works only while somebody looks."""
    page = RunDetailsView(controller, DARK)
    qtbot.addWidget(page)
    page.set_tokens(LIGHT)
    controller.select("run000001")
    controller.ticked.emit(50.0)
    assert page.config.rows == []
    page.cleanup()


@pytest.mark.parametrize(
    ("git", "text"),
    [
        ({"branch": "main", "dirty_bytes": 0, "untracked": 0}, "0123456789ab on main, clean"),
        (
            {"branch": "main", "dirty_bytes": 1234, "untracked": 2},
            "0123456789ab on main, 1.23 kB changed, 2 untracked files",
        ),
        ({"dirty_bytes": 0, "untracked": 1}, "0123456789ab, 1 untracked file"),
        ({"is_dirty": True}, "0123456789ab, changed since"),
        ({}, "0123456789ab"),
    ],
)
def test_the_state_of_the_code_is_one_line(git: dict[str, Any], text: str) -> None:
    """Commit and branch, how much was changed since, and what git does not know."""
    assert git_text({"git": {"commit": "0123456789abcdef", **git}}) == text


def test_without_a_commit_the_code_is_not_recorded() -> None:
    """As outside of a repository."""
    assert git_text({"git": {}}) == git_text({}) == git_text({"git": "main"}) == NOT_RECORDED


def test_the_environment_has_a_card_of_its_own(page: RunDetailsView, controller: RigController) -> None:
    """Where it was recorded: id, arguments and all that its spec says."""
    rows = {row[0]: row[1] for row in page.env.rows}
    assert rows == {"id": "FrozenLake-v1", "kwargs.is_slippery": "false", "max_episode_steps": "100"}
    facts = {row[0]: row[1] for row in page.facts.rows}
    assert facts["arguments"] == "--lr 0.1 --name 'a b'"
    assert facts["git"] == "0123456789ab on main, clean"
    controller.select("run000002")
    assert page.env.rows[0] == ("id", "Taxi-v3")


def test_what_surrounds_the_configuration_is_compared_too(page: RunDetailsView, controller: RigController) -> None:
    """Behind it, and marked: it is none of the script's settings."""
    controller.ticked.emit(50.0)
    page.compare.setCurrentIndex(page.compare.findData("run000002"))
    page.compare.activated.emit(page.compare.currentIndex())
    assert page.config.rows[2:] == [
        ("· env.id", "FrozenLake-v1", "Taxi-v3"),
        ("· env.kwargs.is_slippery", "false", "—"),
        ("· env.max_episode_steps", "100", "—"),
        ("· git.dirty_bytes", "0", "52"),
    ]


def test_figures_are_short() -> None:
    """As people read them."""
    assert [count_text(n) for n in (8, 2184, 57344, 6_300_000)] == ["8", "2 184", "57 344", "6.3 M"]
    assert [duration_text(s) for s in (0.85, 12, 1680, 12_000, 190_000)] == [
        "850 ms",
        "12 s",
        "28 min",
        "3 h 20 min",
        "2 d 4 h",
    ]
    assert [return_text(v) for v in (0.714, 318.0, -19.5, 12_345.0, float("nan"))] == [
        "0.71",
        "318.0",
        "-19.5",
        "12 345",
        "—",
    ]
