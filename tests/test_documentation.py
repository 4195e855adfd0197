"""Documents cannot drift: what the code has stands in the pages, and what the pages claim is in the code.

Each test walks the code (commands, settings, messages, records, log ids) and searches the reference pages, in
both directions where a page is a list. A page's table is read by the heading above it.
"""

import ast
import importlib
import inspect
import json
import logging
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from msgspec import inspect as types
from reference_page import (
    ROOT,
    anchors,
    blocks,
    code_of,
    default_text,
    fields_of,
    headings,
    invocations,
    page,
    part,
    table,
    type_text,
    without_blocks,
)
from typer.main import get_command

from runlane.actors import child, guard, runner, seat
from runlane.cli import app
from runlane.config import errors, names, settings
from runlane.config.load import load
from runlane.config.log_ids import REGISTRY
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport import messages, records
from runlane.transport.messages import ControlMessage
from runlane.transport.wire import (
    KIND_NUMBER,
)

SKIPPED = {".venv", ".git", ".runlane", "node_modules", ".hypothesis", ".pytest_cache", "build", "dist"}
PAGES = sorted(path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts[:-1]))

# The words with one meaning each, and those that have none here.
TERMS = (
    "account",
    "ack",
    "actor",
    "batch",
    "bridge",
    "child spec",
    "credits",
    "delivery",
    "drop",
    "durable path",
    "echo",
    "fast lane",
    "fast path",
    "generation",
    "graph",
    "HUD",
    "incarnation",
    "journal",
    "kind",
    "lapped",
    "lease",
    "ledger",
    "lifeline",
    "lost",
    "outbox",
    "proxy",
    "QoS policy",
    "record",
    "recovery",
    "restart intensity",
    "ring",
    "run",
    "run directory",
    "RunBus",
    "section",
    "segment",
    "seq",
    "session",
    "slot",
    "slow lane",
    "spool",
    "stalled",
    "stream",
    "subscriber",
    "supervisor",
    "telemetry mode",
    "torn",
    "viewer",
    "vital",
    "watermark",
    "window",
    "worker",
)


# ---- settings --------------------------------------------------------------------------------------------

TABLES: dict[str, type[msgspec.Struct]] = {
    "": settings.Settings,
    "transport": settings.TransportSettings,
    "router": settings.RouterSettings,
    "proxy": settings.ProxySettings,
    "session": settings.SessionSettings,
    "journal": settings.JournalSettings,
    "fast_lane": settings.FastLaneSettings,
    "attach": settings.AttachSettings,
    "recorder": settings.RecorderSettings,
    "db_writer": settings.DbWriterSettings,
    "retention": settings.RetentionSettings,
    "supervisor": settings.SupervisorSettings,
    "subscribers.NAME": settings.SubscriberSettings,
    "workers.NAME": settings.WorkerSettings,
}


def setting_rows() -> dict[str, tuple[str, str]]:
    """Every key with its type and default, as the page has to write them."""
    shipped = load(environment={})
    found: dict[str, tuple[str, str]] = {}
    for section, struct in TABLES.items():
        for field in fields_of(struct):
            key = f"{section}.{field.name}" if section else field.name
            if key in ("subscribers", "workers") or key in TABLES:
                continue
            value: Any = field.default
            if section in ("", *msgspec.structs.asdict(shipped)) and not field.required:
                value = getattr(getattr(shipped, section) if section else shipped, field.name)
            found[key] = (_setting_type(field.type), _setting_default(field, value))
    return found


def _setting_type(kind: types.Type) -> str:
    if isinstance(kind, types.UnionType):
        kind = next(inner for inner in kind.types if not isinstance(inner, types.NoneType))
    return type_text(kind)


def _setting_default(field: types.Field, value: Any) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value == list(names.KINDS):
        return "all kinds"
    return "not set" if value is None else f"`{json.dumps(value)}`"


def test_every_setting_stands_in_its_page_with_type_and_default() -> None:
    """The page has each key once, with the type, the range and the default the code has, and no other key."""
    listed = {code_of(row[0]): (row[1], row[2]) for row in table(page("settings")) if len(row) == 4}
    assert listed == setting_rows()


def test_every_table_in_defaults_toml_is_described() -> None:
    """What the shipped file declares beyond single keys, the durable path, stands in the page value by value."""
    shipped = tomllib.loads((ROOT / "config" / "defaults.toml").read_text("utf-8"))
    described = part(page("settings"), "The durable path as shipped")
    for key, value in shipped["subscribers"]["db_writer"].items():
        assert f"{key} = {json.dumps(value)}" in described, key


# ---- command line ----------------------------------------------------------------------------------------


class CommandSpec(NamedTuple):
    """One command: options by spelling, and the names of its arguments."""

    options: set[str]
    arguments: set[str]


def commands() -> dict[str, CommandSpec]:
    """The command line as Typer has built it."""
    found: dict[str, CommandSpec] = {}
    group = cast("Any", get_command(app))
    for name, command in group.commands.items():
        spellings = [cast("list[str]", parameter.opts) for parameter in command.params]
        found[str(name)] = CommandSpec(
            {option for options in spellings for option in options if option.startswith("-")},
            {options[0] for options in spellings if not options[0].startswith("-")},
        )
    return found


def test_every_command_stands_in_its_page() -> None:
    """A heading for each command, and no heading for what is no command."""
    listed = {found.group(1) for text in headings(page("cli")) if (found := re.fullmatch(r"`runlane (\w+)`", text))}
    assert listed == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_of_a_command_stands_under_its_heading(name: str) -> None:
    """Options by every spelling, arguments by name, nothing invented; and an example."""
    text = part(page("cli"), f"`runlane {name}`")
    listed = {spelling for row in table(text) for spelling in re.findall(r"`([^`]+)`", row[0])}
    known = commands()[name]
    assert listed == known.options | known.arguments
    assert f"$ runlane {name}" in text


# ---- log ids, variables, exit codes, terms ---------------------------------------------------------------


def test_every_log_id_stands_in_its_page() -> None:
    """Each id once, with the level and the meaning the registry has."""
    listed = {code_of(row[0]): (row[1], row[2]) for row in table(page("log-ids"))}
    assert listed == {name: (logging.getLevelName(known.level), known.meaning) for name, known in REGISTRY.items()}


def test_every_context_variable_stands_in_its_page() -> None:
    """Each variable once, with the meaning the code gives it."""
    rows = table(part(page("environment"), "Context variables"))
    assert {code_of(row[0]): row[1] for row in rows} == names.CONTEXT_VARIABLES


def exit_codes() -> set[int]:
    """Every code a command or a process of ours ends with by its own decision."""
    of_errors = {value.exit_code for value in _classes(errors) if issubclass(value, errors.RunlaneError)}
    return {0, 128 + 2, *of_errors, runner.UNFORESEEN, runner.UNDRAINED, guard.CANNOT_RUN, guard.NOT_FOUND}


def _classes(module: Any) -> list[type]:
    return [value for _, value in inspect.getmembers(module, inspect.isclass)]


def test_every_exit_code_stands_in_its_page() -> None:
    """Each code the code names has a row, also the one of a child that could not be started."""
    listed = {int(code_of(row[0])) for row in table(page("exit-codes")) if code_of(row[0]).isdigit()}
    assert exit_codes() <= listed
    assert seat.CANNOT_START in listed


def test_every_error_stands_beside_its_exit_code() -> None:
    """The tree of errors is named in full."""
    text = page("exit-codes")
    for value in _classes(errors):
        assert f"`{value.__name__}`" in text


@pytest.mark.parametrize("term", TERMS)
def test_every_term_has_one_meaning_and_a_home_that_exists(term: str) -> None:
    """One row per term, in order of the alphabet; the file that is its home is there."""
    rows = [row for row in table(page("terms")) if row[0] == f"**{term}**"]
    assert len(rows) == 1
    for home in re.findall(r"`([^`]+)`", rows[0][2]):
        assert (ROOT / home).exists(), home


def test_the_terms_page_has_no_other_terms() -> None:
    """A new term is added to the list above, too, and the page stays sorted."""
    listed = [row[0].strip("*") for row in table(page("terms"))]
    assert listed == sorted(TERMS, key=str.lower)


def test_every_telemetry_mode_stands_among_the_terms() -> None:
    """Each with the label and the sentence that a person chooses by, and no other."""
    text = part(page("terms"), "Telemetry modes")
    listed = re.findall(r"^- `(\w+)`, \*\*(.+)\*\*: (.+)$", text, re.MULTILINE)
    assert listed == [(mode.value, mode.label, mode.description) for mode in TelemetryMode]


# ---- wire format -----------------------------------------------------------------------------------------

MESSAGES: dict[str, type[msgspec.Struct]] = {
    str(message.__struct_config__.tag): message for message in cast("Any", ControlMessage).__args__
}
PARTS: dict[str, type[msgspec.Struct]] = {
    struct.__name__: struct
    for struct in (
        messages.StreamInfo,
        messages.StepSchema,
        messages.StepField,
        messages.ChildStatus,
        messages.SubscriberAccount,
        settings.QueuePolicy,
    )
}


def test_every_control_message_stands_in_its_page() -> None:
    """A heading for each message by its tag, and no heading for one that is none."""
    listed = {found.group(1) for text in headings(page("wire-format")) if (found := re.fullmatch(r"`(\w+)`", text))}
    assert listed == {*MESSAGES, *PARTS, *names.KINDS}


@pytest.mark.parametrize("heading", [*MESSAGES, *PARTS])
def test_every_field_of_a_message_stands_under_its_heading(heading: str) -> None:
    """Fields in the order of the wire, with type and default."""
    struct = (MESSAGES | PARTS)[heading]
    rows = table(part(page("wire-format"), f"`{heading}`"))
    assert [tuple(row[:3]) for row in rows] == [
        (f"`{field.name}`", type_text(field.type), default_text(field)) for field in fields_of(struct)
    ]


@pytest.mark.parametrize("kind", records.RECORD_TYPES)
def test_every_record_stands_in_its_page_field_by_field(kind: str) -> None:
    """A record is an array, so the order of the rows is the order on the wire."""
    rows = table(part(page("wire-format"), f"`{kind}`"))
    fields = fields_of(records.RECORD_TYPES[kind])
    assert [(row[0], f"`{field.name}`", row[2]) for row, field in zip(rows, fields, strict=True)] == [
        (str(index), rows[index][1], type_text(field.type)) for index, field in enumerate(fields)
    ]
    assert [code_of(row[1]) for row in rows] == [field.name for field in fields]


def test_every_kind_has_its_number() -> None:
    """The numbers of the section headers."""
    rows = table(part(page("wire-format"), "Kinds"))
    assert {code_of(row[1]): int(row[0]) for row in rows} == KIND_NUMBER


@pytest.mark.parametrize(("name", "least"), [("wire-format", 15), ("journal-layout", 10), ("ring-layout", 15)])
def test_every_constant_in_the_page_has_its_value(name: str, least: int) -> None:
    """Rows that name `module.NAME` give the value the code has."""
    rows = [row for row in table(page(name)) if re.fullmatch(r"`[a-z_]+\.[a-z_]+\.[A-Z_]+`", row[0])]
    assert len(rows) >= least
    for row in rows:
        module, _, constant = code_of(row[0]).rpartition(".")
        assert code_of(row[1]) == str(getattr(importlib.import_module(f"runlane.{module}"), constant)), row[0]


def test_every_reason_of_a_refusal_stands_in_its_page() -> None:
    """The first argument of every `WireError` in running code is a row, and every row is one."""
    reasons: set[str] = set()
    for path in [*(ROOT / "transport").glob("*.py"), *(ROOT / "actors").glob("*.py"), *(ROOT / "workers").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "WireError":
                reasons.add(ast.literal_eval(node.args[0]))
    assert {code_of(row[0]) for row in table(part(page("wire-format"), "Reasons of a refusal"))} == reasons


# ---- every page ------------------------------------------------------------------------------------------


def identity(path: Path) -> str:
    """A page's name in a test report."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_relative_links_resolve(path: Path) -> None:
    """Files and headings that a page points to are there."""
    text = without_blocks(path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text("utf-8")), target


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_commands_in_a_page_exist(path: Path) -> None:
    """Every `runlane COMMAND` with its options, every `make TARGET` and every script of ours is real."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    known = commands()
    for words in invocations(path):
        if not words:
            continue
        program, rest = words[0].rpartition("/")[2], words[1:]
        if program == "make":
            assert set(rest) <= targets, words
        elif program == "runlane" and rest != ["--help"]:
            assert rest[0] in known, words
            own = rest[1 : rest.index("--")] if "--" in rest else rest[1:]
            assert {word.partition("=")[0] for word in own if word.startswith("-")} <= known[rest[0]].options, words
        for word in rest:
            if re.match(r"(examples|benchmarks|config)/", word):
                assert (ROOT / word).exists(), words


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_settings_named_in_a_page_are_settings(path: Path) -> None:
    """Every `--set key=value` and every TOML block loads without an error."""
    for words in invocations(path):
        options = [after for before, after in pairwise(words) if before in ("--set", "-s")]
        load(environment={}, arguments=options)


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_blocks_of_a_page_are_what_they_say(path: Path, tmp_path: Path) -> None:
    """TOML is a settings file, Python compiles, JSON parses."""
    for number, block in enumerate(blocks(path.read_text("utf-8"))):
        if block.language == "toml":
            file = tmp_path / f"block-{number}.toml"
            file.write_text(block.text)
            load(file, environment={})
        elif block.language == "python":
            compile(block.text, f"{path.name}, block {number}", "exec")
        elif block.language == "json":
            json.loads(block.text)


def test_the_documentation_has_its_pages() -> None:
    """The map lists every page below it."""
    text = (ROOT / "docs" / "README.md").read_text("utf-8")
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    found = {str(path.relative_to(ROOT / "docs")) for path in PAGES if (ROOT / "docs") in path.parents}
    assert found - {"README.md"} <= linked


def test_pages_name_no_place_of_one_machine() -> None:
    """Paths of somebody's home or build directory are of no use to a reader."""
    for path in PAGES:
        assert not re.search(r"/(work|root|home/(?!you\b))[/\w]", path.read_text("utf-8")), path


def test_variables_in_pages_are_known() -> None:
    """Every `RUNLANE_…` in a page is a context variable or spells a setting."""
    keys = {f"{names.ENV_PREFIX}{key.upper().replace('.', '__')}" for key in setting_rows()}
    placeholders = {"RUNLANE_SECTION__KEY", "RUNLANE_"}
    for path in PAGES:
        used = set(re.findall(r"\bRUNLANE_[A-Z_]*", path.read_text("utf-8")))
        assert used <= {*keys, *names.CONTEXT_VARIABLES, *placeholders}, path


def test_names_that_a_supervisor_keeps_from_its_children_are_context_variables() -> None:
    """The page on the environment says of each whether it is inherited."""
    text = page("environment")
    for name in child._NOT_INHERITED:  # pyright: ignore[reportPrivateUsage]
        assert f"`{name}`" in part(text, "What a child inherits"), name
