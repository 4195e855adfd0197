"""The live table: filter, order, selection, following, copy and export. Rows are checked, and painted pixels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from runlane.gui.column_ring import STEP_ROW, ColumnRing
from runlane.gui.column_table_view import HEADER_PX, ROW_PX, ColumnTableView
from runlane.gui.shown_rows import ShownRows
from runlane.gui.table_columns import Column, parse_filter, step_columns
from runlane.gui.table_export import as_csv, as_json, write_rows
from runlane.gui.tokens import DARK

NAMES = {1: "ppo-s1", 2: "dqn pong"}
MakeTable = Callable[[int], ColumnTableView]


def columns() -> list[Column]:
    return step_columns(lambda number: NAMES.get(number, "?"), lambda number: f"id-{number}", lambda _: "agent")


def ring_of(count: int, capacity: int = 1000) -> ColumnRing:
    ring = ColumnRing(STEP_ROW, capacity)
    add(ring, count)
    return ring


def add(ring: ColumnRing, count: int) -> None:
    rows = np.zeros(count, STEP_ROW)
    number = ring.total + np.arange(count)
    rows["seq"], rows["step"], rows["source"] = number, number % 10, 1 + number % 2
    rows["reward"] = number % 5 - 2.0
    rows["return"] = np.where(number % 7 == 0, np.nan, number * 1.5)
    rows["flags"] = np.where(number % 10 == 9, 1, 0)
    rows["action_size"] = 1
    ring.add(rows)


def seqs(shown: ShownRows) -> list[int]:
    found: list[int] = shown.rows(0, len(shown))["seq"].tolist()
    return found


@pytest.fixture
def make_table(qtbot: QtBot) -> MakeTable:
    def make(count: int) -> ColumnTableView:
        table = ColumnTableView("Steps", ring_of(count), columns(), DARK)
        qtbot.addWidget(table)
        table.resize(900, HEADER_PX + 10 * ROW_PX)
        table.show()
        table.refresh()
        return table

    return make


# ---- which rows ----


FILTERS: list[tuple[str, Callable[[np.void], bool]]] = [
    ("", lambda _row: True),
    ("reward>0", lambda row: row["reward"] > 0),
    ("reward>=0 step!=3", lambda row: row["reward"] >= 0 and row["step"] != 3),
    ("step:4", lambda row: row["step"] == 4),
    ("run:PPO", lambda row: row["source"] == 1),
    ('run="dqn pong"', lambda row: row["source"] == 2),
    ("terminated", lambda row: row["flags"] == 1),
    ("run!=ppo-s1 return>100", lambda row: row["source"] == 2 and row["return"] > 100),
]


@pytest.mark.parametrize(("text", "expected"), FILTERS)
def test_a_filter_shows_the_rows_for_which_every_word_holds(text: str, expected: Callable[[np.void], bool]) -> None:
    """Newest first, as without a filter."""
    ring = ring_of(200)
    shown = ShownRows(ring, columns())
    parsed = parse_filter(text, columns())
    shown.set_filter(parsed)
    assert parsed.problem == ""
    assert seqs(shown) == [int(row["seq"]) for row in ring.everything()[::-1] if expected(row)]


def test_what_is_not_understood_is_said_and_left_out() -> None:
    """The other words hold."""
    parsed = parse_filter("nothing>3 reward>x run>5 step=2", columns())
    assert "no column 'nothing'" in parsed.problem
    assert "'x' in reward is no number" in parsed.problem
    assert "run is text" in parsed.problem
    assert len(parsed.tests) == 1


@given(st.text(max_size=40))
def test_no_filter_raises(text: str) -> None:
    """Whatever is typed, a mask comes out."""
    rows = ring_of(20).everything()
    assert len(parse_filter(text, columns()).mask(rows)) == 20


@given(st.sampled_from(["seq", "reward", "return", "run", "done"]), st.booleans())
def test_sorting_orders_known_values_and_puts_unknown_ones_last(key: str, is_descending: bool) -> None:
    """Rows that are equal stand newest first."""
    ring = ring_of(150)
    shown = ShownRows(ring, columns())
    shown.sort(key, is_descending=is_descending)
    column = next(column for column in columns() if column.key == key)
    keys = column.sort_keys(shown.rows(0, len(shown)))
    known = keys[~np.isnan(keys)]
    order = np.diff(known)
    assert len(shown) == 150
    assert ((order <= 0) if is_descending else (order >= 0)).all()
    assert np.isnan(keys[len(known) :]).all()
    found = np.array(seqs(shown))[: len(known)]
    assert (np.diff(found)[order == 0] < 0).all()


def test_held_rows_stay_while_the_ring_goes_round() -> None:
    """And say how many are newer."""
    ring = ring_of(1000)
    shown = ShownRows(ring, columns())
    shown.refresh()
    shown.hold()
    before = seqs(shown)
    add(ring, 1500)
    assert not shown.refresh()
    assert seqs(shown) == before
    assert shown.newer == 1500
    shown.follow()
    assert seqs(shown)[0] == 2499


def test_ids_stay_with_rows() -> None:
    """Through new rows, filters and orders."""
    ring = ring_of(100)
    shown = ShownRows(ring, columns())
    shown.refresh()
    row_id = int(shown.ids(10, 11)[0])
    add(ring, 5)
    shown.refresh()
    assert shown.place_of(row_id) == 15
    shown.sort("seq", is_descending=False)
    assert shown.place_of(row_id) == row_id
    assert shown.of_ids(np.array([row_id]))["seq"].tolist() == [row_id]


# ---- the widget ----


def test_the_newest_row_is_followed_until_somebody_scrolls(make_table: MakeTable, qtbot: QtBot) -> None:
    """Scrolled back to the top, it goes on."""
    table = make_table(500)
    add(table.shown.ring, 10)
    assert table.refresh()
    assert table.shown.rows(0, 1)["seq"].tolist() == [509]
    with qtbot.waitSignal(table.following_changed, timeout=1000):
        table.verticalScrollBar().setValue(5 * ROW_PX)
    add(table.shown.ring, 10)
    assert not table.refresh()
    assert table.shown.rows(0, 1)["seq"].tolist() == [509]
    table.verticalScrollBar().setValue(0)
    assert table.is_following
    assert table.shown.rows(0, 1)["seq"].tolist() == [519]


def test_a_click_selects_shift_extends_and_the_rows_are_held(make_table: MakeTable) -> None:
    """Ctrl adds one."""
    table = make_table(100)
    viewport = table.viewport()

    def click(row: int, keys: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        QTest.mouseClick(viewport, Qt.MouseButton.LeftButton, keys, QPoint(60, row * ROW_PX + 5))

    click(2)
    assert table.selected_ids.tolist() == [97]
    click(4, Qt.KeyboardModifier.ShiftModifier)
    assert table.chosen_rows()["seq"].tolist() == [97, 96, 95]
    click(7, Qt.KeyboardModifier.ControlModifier)
    assert sorted(table.selected_ids.tolist()) == [92, 95, 96, 97]
    assert not table.is_following


def test_the_keyboard_selects_copies_and_lets_go(make_table: MakeTable) -> None:
    """Arrows, shift, Ctrl+C as tab-separated text, Escape."""
    table = make_table(50)
    QTest.keyClick(table, Qt.Key.Key_Home)
    QTest.keyClick(table, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClick(table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0].split("\t")[:3] == ["seq", "time", "run"]
    assert [line.split("\t")[0] for line in lines[1:]] == ["49", "48"]
    QTest.keyClick(table, Qt.Key.Key_End)
    assert table.verticalScrollBar().value() == table.verticalScrollBar().maximum()
    QTest.keyClick(table, Qt.Key.Key_Escape)
    assert table.is_following
    assert len(table.selected_ids) == 0


def test_a_header_sorts_down_up_and_not(make_table: MakeTable) -> None:
    """By a click on its title."""
    table = make_table(50)
    orders: list[tuple[str, int]] = []
    for _ in range(3):
        table.click_header("reward")
        orders.append((table.shown.sorted_by, int(table.shown.rows(0, 1)["seq"][0])))
    assert orders == [("reward", 49), ("reward", 45), ("", 49)]


def test_a_hidden_column_is_neither_painted_nor_copied(make_table: MakeTable) -> None:
    """The last one cannot be hidden."""
    table = make_table(5)
    for column in columns():
        table.show_column(column.key, is_shown=False)
    assert [column.key for column in table.visible_columns] == ["done"]


def test_rewards_are_painted_good_and_bad_and_rows_in_stripes(make_table: MakeTable) -> None:
    """By pixels: the tokens' colours are there."""
    table = make_table(100)
    picture = table.grab().toImage()
    box = next((x, wide) for column, x, wide in table.column_boxes() if column.key == "reward")
    found = {
        picture.pixelColor(x, y).name()
        for x in range(box[0], box[0] + box[1])
        for y in range(HEADER_PX, picture.height() - 2)
    }
    assert {DARK.stripe} <= found
    assert any(_is_near(name, DARK.good) for name in found)
    assert any(_is_near(name, DARK.bad) for name in found)


def _is_near(name: str, wanted: str) -> bool:
    return all(abs(int(name[at : at + 2], 16) - int(wanted[at : at + 2], 16)) < 40 for at in (1, 3, 5))


# ---- files ----


def test_an_export_holds_every_value_as_it_is(tmp_path: Path) -> None:
    """CSV leaves the unknown empty, JSON says null; infinities are text."""
    rows = ring_of(8).everything()
    rows["reward"][0] = np.inf
    chosen = [column for column in columns() if column.key in ("seq", "run", "reward", "return", "time")]
    assert write_rows(tmp_path / "steps.json", rows, chosen) == 8
    found = json.loads((tmp_path / "steps.json").read_text())
    assert found[0] == {
        "seq": 0,
        "time": "1970-01-01T00:00:00.000000+00:00",
        "run": "ppo-s1",
        "reward": "inf",
        "return": None,
    }
    assert found[3]["return"] == 4.5
    assert as_csv(rows[:2], chosen).splitlines()[1] == "0,1970-01-01T00:00:00.000000+00:00,ppo-s1,inf,"
    assert json.loads(as_json(rows[:0], chosen)) == []
    with pytest.raises(OSError, match="absent"):
        write_rows(tmp_path / "absent" / "x.csv", rows, chosen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps.json"]
