"""The table of docs/reference/attach-matrix.md, made of the cases.

Written into the page by `PYTHONPATH=tests:src python -m matrix.page`.
"""

import tomllib
from pathlib import Path
from typing import Any

from matrix.case import CASES, STREAMS, Case

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "attach-matrix.md"
BEGIN, END = "<!-- made of tests/matrix/case.py -->\n\n", "\n<!-- end -->"


def table() -> str:
    """One row for each library, in the order of the cases."""
    rows = ["| library | versions asked for | a stream is | told apart | scripts |", "|---|---|---|---|---|"]
    for library in dict.fromkeys(case.library for case in CASES):
        cases = [case for case in CASES if case.library == library]
        stream, apart = STREAMS[library]
        names = "; ".join(case.name + ("" if case.is_fast else "\\*") for case in cases)
        rows.append(f"| {library} | {_versions(cases)} | {stream} | {apart} | {names} |")
    return "\n".join(rows) + "\n"


def _versions(cases: list[Case]) -> str:
    """What the dependency groups ask for, of the libraries that these cases need."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups: dict[str, list[Any]] = project["dependency-groups"]
    found: dict[str, None] = {}
    for case in cases:
        group = groups[f"kind-{case.kind}" if case.kind else "test"]
        wanted = [text for text in group if isinstance(text, str) and _module(text) in (*case.modules, case.kind)]
        found |= dict.fromkeys(f"`{text}`" for text in wanted)
    return ", ".join(found) or "any"


def _module(requirement: str) -> str:
    """The module's name in a requirement."""
    name = requirement
    for mark in "[<>=~!; ":
        name = name.partition(mark)[0]
    return name.replace("-", "_")


def written() -> str:
    """The page with the table as it has to be."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
