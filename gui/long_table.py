"""Tables of plain texts. Rich draws the short ones; it takes 2 ms for a row, so long ones are drawn by hand."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

LONG_ROWS = 100


def print_table(out: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns' names. Long tables do not fit themselves to the terminal: lines may be wider."""
    if len(rows) > LONG_ROWS:
        out.file.write(long_table(columns, rows))
        return
    table = Table(*map(escape, columns))
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


def long_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table as one text, every row on one line."""
    lines = [[_one_line(text) for text in row] for row in (columns, *rows)]
    widths = [max(map(_columns, texts)) for texts in zip(*lines, strict=True)]
    head, *body = ("│ " + " │ ".join(map(_padded, texts, widths)) + " │\n" for texts in lines)
    bars = ["─" * (width + 2) for width in widths]
    top, rule, bottom = f"┌{'┬'.join(bars)}┐\n", f"├{'┼'.join(bars)}┤\n", f"└{'┴'.join(bars)}┘\n"
    return "".join((top, head, rule, *body, bottom))


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(mark if mark.isprintable() else " " for mark in text)


def _columns(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))
