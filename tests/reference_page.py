"""Reading the documentation: a page's headings, tables and blocks, and the words it uses for a type."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import inspect as types

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def page(name: str) -> str:
    """Text of a reference page."""
    return (REFERENCE / f"{name}.md").read_text("utf-8")


def blocks(text: str) -> list[Block]:
    """Fenced blocks in order."""
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(language, body) for language, body in found]


def without_blocks(text: str) -> str:
    """The text with its fenced blocks left out."""
    return re.sub(r"^```[a-z]*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[str]:
    """Headings of every level, without their marks."""
    return re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)


def part(text: str, heading: str) -> str:
    """What stands under a heading, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found.group(1)


def table(text: str) -> list[list[str]]:
    """Rows of all tables in the text, without head and rule; `\\|` is a bar inside a cell."""
    found: list[list[str]] = []
    for before, line in pairwise(["", *text.splitlines(), ""]):
        is_rule = re.fullmatch(r"\|[-:| ]+\|", line) is not None
        if not line.startswith("|") or is_rule:
            if is_rule and before.startswith("|"):
                found.pop()  # the head
            continue
        cells = re.split(r"(?<!\\)\|", line.strip("|"))
        found.append([cell.strip().replace("\\|", "|") for cell in cells])
    return found


def code_of(cell: str) -> str:
    """The first code span of a cell."""
    found = re.search(r"`([^`]+)`", cell)
    assert found, f"no code in {cell!r}"
    return found.group(1)


def anchors(text: str) -> set[str]:
    """Targets of `#…` links, as code hosts make them from headings."""
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings(text)]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def shell_lines(path: Path) -> Iterator[str]:
    """Commands of a page: lines after `$ ` in console blocks, continued lines joined."""
    for block in blocks(path.read_text("utf-8")):
        if block.language == "console":
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    yield line.removeprefix("$ ")


def invocations(path: Path) -> Iterator[list[str]]:
    """Words of each command, variables before it left out, up to a pipe or the like."""
    for line in shell_lines(path):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                yield words
                words = []
            elif words or "=" not in word:
                words.append(word)


# ---- describing types ------------------------------------------------------------------------------------


def type_text(kind: types.Type) -> str:
    """How the pages write a type, bounds included."""
    simple: dict[type[types.Type], str] = {
        types.BoolType: "true or false",
        types.DictType: "map",
        types.NoneType: "nil",
    }
    match kind:
        case types.IntType():
            return "integer" + _bounds(kind)
        case types.FloatType():
            return "number" + _bounds(kind)
        case types.StrType():
            return "text" + _lengths(kind, "characters") + (f", `{kind.pattern}`" if kind.pattern else "")
        case types.LiteralType():
            return " or ".join(f"`{value}`" for value in kind.values)
        case types.EnumType():
            return " or ".join(f"`{member.value}`" for member in kind.cls)
        case types.ListType():
            return f"list of {type_text(kind.item_type)}" + _lengths(kind, "items")
        case types.UnionType():
            return " or ".join(type_text(inner) for inner in kind.types)
        case types.StructType():
            return f"`{kind.cls.__name__}`"
        case _:
            return simple[type(kind)]


def _bounds(kind: types.IntType | types.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f", {kind.ge} to {kind.le}"
    said = [
        f"{word} {bound}"
        for word, bound in (("at least", kind.ge), ("above", kind.gt), ("at most", kind.le), ("below", kind.lt))
        if bound is not None
    ]
    return "".join(f", {text}" for text in said)


def _lengths(kind: types.StrType | types.ListType, what: str) -> str:
    least, most = kind.min_length, kind.max_length
    if least is not None and most is not None:
        return f", {least} to {most} {what}"
    if least == 1:
        return ", not empty"
    return f", at most {most} {what}" if most is not None else ""


def fields_of(struct: type[msgspec.Struct]) -> tuple[types.Field, ...]:
    """Fields of a struct in order."""
    described = types.type_info(struct)
    assert isinstance(described, types.StructType)
    return described.fields


def default_text(field: types.Field) -> str:
    """How the wire page writes a default; a dash where the field must be sent."""
    if field.required:
        return "-"
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return "nil" if value is None else f"`{json.dumps(value)}`"
