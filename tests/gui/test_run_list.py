"""RunListView: cards, search, filters and selection, as a person uses them."""

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from run_rig import FakeStore, RigController, row

from runlane.config.settings import Settings
from runlane.gui.controls_view import EmptyState
from runlane.gui.run_list_view import RunListView
from runlane.gui.run_menu_view import run_menu
from runlane.gui.tokens import DARK, LIGHT

ROWS = [
    row(5, name="ppo-breakout", state="running", ended_ns=None),
    row(4, name="dqn-pong", state="failed"),
    row(3, name="sac-racing", state="stalled", ended_ns=None),
    row(2, name="old", state="finished"),
    row(1, name="cut", state="lost", ended_ns=None),
]
FACTS = [
    ("run000005", '{"env_id": "ALE/Breakout-v5", "algo": "PPO", "total_timesteps": 200}', None),
    ("run000004", '{"env_id": "ALE/Pong-v5", "algo": "DQN"}', None),
]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore({"SELECT run, config, facts": FACTS})


@pytest.fixture
def controller(qapp: object, settings: Settings, store: FakeStore) -> Iterator[RigController]:  # noqa: ARG001
    found = RigController(settings, store)
    yield found
    found.stop()


@pytest.fixture
def view(qtbot: QtBot, controller: RigController) -> RunListView:
    found = RunListView(controller, DARK)
    qtbot.addWidget(found)
    found.resize(268, 600)
    found.show()
    controller.runs.set_rows(ROWS)
    controller.ticked.emit(10.0)
    return found


def names_of(view: RunListView) -> list[str]:
    return [view.filter.entry(number).name for number in range(view.filter.rowCount())]


def press(view: RunListView, number: int) -> None:
    center = view.list.visualRect(view.filter.index(number, 0)).center()
    QTest.mouseClick(view.list.viewport(), Qt.MouseButton.LeftButton, pos=center)


def test_without_runs_it_says_what_to_do(qtbot: QtBot, controller: RigController) -> None:
    """The command is there to be copied."""
    view = RunListView(controller, DARK)
    qtbot.addWidget(view)
    view.show()
    shown = [found.accessibleName() for found in view.findChildren(EmptyState) if found.isVisible()]
    assert len(shown) == 1
    assert "runlane run -- python train.py" in shown[0]


def test_a_click_selects_and_a_selection_from_elsewhere_is_shown(view: RunListView, controller: RigController) -> None:
    """Both ways."""
    press(view, 1)
    assert controller.selected == "run000004"
    controller.select("run000002")
    assert view.list.currentIndex().row() == 3


def test_keys_walk_through_the_runs(view: RunListView, controller: RigController) -> None:
    """Arrow keys select as clicks do."""
    press(view, 0)
    QTest.keyClick(view.list, Qt.Key.Key_Down)
    assert controller.selected == "run000004"


def test_a_filter_never_changes_the_selection(view: RunListView, controller: RigController) -> None:
    """A run that is filtered out stays selected, and is shown again with the filter gone."""
    press(view, 1)
    view.search.setText("breakout")
    QTest.keyClick(view.search, Qt.Key.Key_Return)
    assert names_of(view) == ["ppo-breakout"]
    assert controller.selected == "run000004"
    view.clear_filters()
    assert view.list.currentIndex().row() == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("state:failed", ["dqn-pong"]),
        ("env:pong", ["dqn-pong"]),
        ("algo:ppo", ["ppo-breakout"]),
        ("ale", ["ppo-breakout", "dqn-pong"]),
        ("ale running", ["ppo-breakout"]),
        ("run000003", ["sac-racing"]),
        ("nothing", []),
    ],
)
def test_words_find_names_environments_algorithms_ids_and_states(
    view: RunListView, text: str, wanted: list[str]
) -> None:
    """All words count."""
    view.search.setText(text)
    QTest.keyClick(view.search, Qt.Key.Key_Return)
    assert names_of(view) == wanted


@pytest.mark.parametrize(
    ("number", "wanted"),
    [(0, 5), (1, 2), (2, 1), (3, 2)],
)
def test_pills_count_and_filter(view: RunListView, number: int, wanted: int) -> None:
    """All, Live, Done, Failed."""
    pill = list(view._pills.values())[number]  # pyright: ignore[reportPrivateUsage]
    assert pill.text().endswith(f" {wanted}")
    QTest.mouseClick(pill, Qt.MouseButton.LeftButton)
    assert view.filter.rowCount() == wanted


def test_the_filter_menu_writes_into_the_search_field(view: RunListView) -> None:
    """So that what is filtered by is always in sight."""
    menu = view.filter_menu()
    next(action for action in menu.actions() if action.text().startswith("ALE/Pong-v5")).trigger()
    assert view.search.text() == "env:ALE/Pong-v5"
    assert names_of(view) == ["dqn-pong"]


def test_cards_are_painted_in_the_colours_of_the_scheme(view: RunListView) -> None:
    """The selected one in another."""
    press(view, 0)
    for tokens in (DARK, LIGHT):
        view.set_tokens(tokens)
        image = view.list.viewport().grab().toImage()
        boxes = [view.list.visualRect(view.filter.index(number, 0)) for number in (0, 1)]
        found = [image.pixelColor(box.topLeft() + QPoint(8, 40)) for box in boxes]
        assert found == [QColor(tokens.selected), QColor(tokens.card)]


def test_returns_are_asked_for_runs_in_sight_once(view: RunListView, store: FakeStore) -> None:
    """And drawn as sparklines; their greatest is the best return."""
    store.returns = {"run000005": [1.0, 2.0], "run000004": [3.0]}
    controller = view._controller  # pyright: ignore[reportPrivateUsage]
    for number in range(8):
        controller.ticked.emit(100.0 + number)
    entry = controller.runs.entry("run000004")
    assert entry is not None
    assert (entry.sparkline, entry.best_return) == ((3.0,), 4.0)


def test_a_context_menu_offers_only_what_can_be_done(view: RunListView, controller: RigController) -> None:
    """Delete for what has ended, stop and kill for what lives."""
    offered: dict[str, list[str]] = {}
    for run in ("run000005", "run000004"):
        entry = controller.runs.entry(run)
        assert entry is not None
        menu = run_menu(view, view._actions, entry, DARK)  # pyright: ignore[reportPrivateUsage]
        offered[run] = [action.text() for action in menu.actions() if action.isEnabled() and action.text()]
    assert offered["run000005"][-2:] == ["Stop…", "Kill…"]
    assert offered["run000004"][-1:] == ["Delete…"]
