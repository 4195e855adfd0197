"""A long table says what a short one says, and is drawn in a moment."""

import io

from rich.cells import cell_len
from rich.console import Console

from runlane.gui.long_table import LONG_ROWS, long_table, print_table


def printed(rows: list[list[str]]) -> str:
    text = io.StringIO()
    print_table(Console(file=text, width=100, highlight=False), ["name", "[value]"], rows)
    return text.getvalue()


def test_long_and_short_tables_hold_the_same_cells() -> None:
    """Markup is text in both."""
    for count in (LONG_ROWS, LONG_ROWS + 1):
        rows = [[f"[/{number}]", f"[red]{number}"] for number in range(count)]
        shown = printed(rows)
        assert "[value]" in shown
        assert all(cell in shown for row in rows for cell in row)


def test_columns_stand_below_each_other() -> None:
    """Also where letters are two columns wide."""
    lines = long_table(["a", "語"], [["語語", "x"], ["ab", "語"]]).splitlines()
    assert {cell_len(line) for line in lines} == {cell_len(lines[0])}
    assert len(lines) == 6


def test_a_row_is_one_line_without_commands_for_the_terminal() -> None:
    """A name may hold anything; a line break or an escape in it moves nothing."""
    lines = long_table(["a"], [["x\ny\x1b[2J"]]).splitlines()
    assert len(lines) == 5
    assert "x y [2J" in lines[3]
