"""The shape of the repository: one import name, five flat folders, a light worker side, small files."""

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"actors", "config", "gui", "transport", "workers"}
CODE = [*(ROOT / folder for folder in sorted(FOLDERS)), ROOT / "src/runlane"]
OTHER = [ROOT / "tests", ROOT / "examples", ROOT / "benchmarks"]
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
EMPTY_NAMES = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "core",
    "base",
    "manager",
    "handler",
    "service",
    "data",
    "misc",
}
# The worker side lives in a stranger's training process; pip's resolver and import time are theirs.
HEAVY = {"PySide6", "apsw", "sqlite3", "typer", "rich", "psutil", "gymnasium", "torch", "asyncio", "tkinter", "pandas"}
# Files of gui/ that may import QtWidgets: windows and views draw, everything else is a model first.
DRAWING = re.compile(r"(app|main_window|telemetry_mode|.*_view|.*_tab)\.py")


def _code_files() -> list[Path]:
    return [path for folder in CODE for path in sorted(folder.glob("*.py"))]


def _all_files() -> list[Path]:
    return [*_code_files(), *(path for folder in OTHER for path in sorted(folder.rglob("*.py")))]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), _name(path))


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


# ---- one mapping -----------------------------------------------------------------------------------------


def test_folders_links_and_packaging_name_the_same() -> None:
    """A folder forgotten in one of the four places is missing from the wheel, or from every editor."""
    setup = _project()["tool"]["setuptools"]
    links = {path.name for path in (ROOT / "src/runlane").iterdir() if path.is_symlink()}
    assert links == FOLDERS
    assert setup["package-dir"] == {"runlane": "src/runlane"} | {f"runlane.{folder}": folder for folder in FOLDERS}
    assert set(setup["packages"]) == {"runlane"} | {f"runlane.{folder}" for folder in FOLDERS}
    assert {folder for folder in FOLDERS if (ROOT / folder / "__init__.py").is_file()} == FOLDERS


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_link_leads_to_its_folder_by_a_relative_path(folder: str) -> None:
    """Absolute ones would break in every other checkout."""
    link = ROOT / "src/runlane" / folder
    assert link.readlink() == Path("../..") / folder
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_has_no_folders(folder: str) -> None:
    """One that needs a sub-package is two folders' worth of ideas."""
    assert [path.name for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"] == []


def test_data_files_are_packaged() -> None:
    """What lies beside the code and is no Python is named in package-data, or it is not in the wheel."""
    packaged: dict[str, list[str]] = _project()["tool"]["setuptools"]["package-data"]
    for folder in sorted(FOLDERS):
        patterns = packaged.get(f"runlane.{folder}", [])
        data = [path for path in (ROOT / folder).iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")]
        assert [path.name for path in data if not any(path.match(pattern) for pattern in patterns)] == [], folder


def test_the_version_is_written_once_and_the_same() -> None:
    """The package says what the project says."""
    text = (ROOT / "src/runlane/__init__.py").read_text("utf-8")
    assert f'__version__ = "{_project()["project"]["version"]}"' in text


# ---- imports ---------------------------------------------------------------------------------------------


def _loaded_by(statement: str) -> set[str]:
    """Modules in memory after a statement, in a fresh interpreter far from this checkout."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", script]
    process = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    return set(json.loads(process.stdout))


def test_the_worker_side_is_light() -> None:
    """Nothing that records loads what is heavy, or what is other processes', or takes a bare name."""
    loaded = _loaded_by("import runlane.workers.attachment, runlane.transport.graph_client")
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    assert loaded & FOLDERS == set()
    ours = {name.split(".")[1] for name in loaded if name.startswith("runlane.")}
    assert ours == {"config", "transport", "workers"}


def test_importing_the_worker_side_costs_next_to_nothing() -> None:
    """A script that only may record, or has telemetry switched off, loads no library for it."""
    loaded = _loaded_by("import runlane.workers")
    assert loaded & {"numpy", "zmq", "msgspec", "msgpack", "logging", "socket", "tomllib"} == set()
    ours = {name for name in loaded if name.startswith("runlane")}
    assert ours == {"runlane", "runlane.workers"}


def test_a_session_loads_nothing_it_can_do_without() -> None:
    """Each of these is some milliseconds of every training's start: they are for rare answers only."""
    rare = {"difflib", "importlib.resources", "socket", "tempfile", "shutil", "subprocess", "inspect"}
    assert _loaded_by("import runlane.workers.attachment") & rare - _loaded_by("import numpy, zmq") == set()


@pytest.mark.parametrize("name", ["DetachedSession", "Session", "WorkerSession", "attach", "wrap"])
def test_the_worker_side_has_its_names(name: str) -> None:
    """Also those that are imported when they are asked for, and whatever was imported before."""
    _loaded_by(
        f"import runlane.workers.attachment\nfrom runlane.workers import {name} as x\nassert '<module' not in repr(x)"
    )


@pytest.mark.parametrize("module", ["router", "proxy", "supervisor", "recovery"])
def test_what_only_forwards_starts_without_numpy(module: str) -> None:
    """Its import is more than half of such a process's start, and nothing live needs it."""
    assert "numpy" not in _loaded_by(f"import runlane.actors.{module}")


def test_the_root_package_imports_nothing_of_ours() -> None:
    """`import runlane` costs nothing."""
    assert {name for name in _loaded_by("import runlane") if name.startswith("runlane")} == {"runlane"}


def test_the_command_line_imports_what_it_needs_when_it_needs_it() -> None:
    """`runlane --help` loads no database, no sockets and no training."""
    loaded = _loaded_by("import runlane.cli")
    assert loaded & {"apsw", "zmq", "numpy", "runlane.actors", "runlane.gui", "runlane.workers"} == set()


def test_imports_are_absolute_and_by_the_one_name() -> None:
    """`import transport` would work in the checkout and make a second copy of every class."""
    wrong = [
        (_name(path), name) for path in _all_files() for name in _imports(path) if name.split(".")[0] in {"", *FOLDERS}
    ]
    assert wrong == []


def test_fakes_are_for_tests() -> None:
    """Running code never imports them."""
    users = [_name(path) for path in _code_files() if "runlane.transport.testing" in set(_imports(path))]
    assert users == []


def test_only_what_draws_imports_widgets() -> None:
    """A model, client or consumer can be tested without a window."""
    models = [path for path in sorted((ROOT / "gui").glob("*.py")) if not DRAWING.fullmatch(path.name)]
    assert [(_name(path), name) for path in models for name in _imports(path) if "QtWidgets" in name] == []


# ---- what must not be there ------------------------------------------------------------------------------


def _found(pattern: str, paths: list[Path]) -> list[tuple[str, str]]:
    return [(_name(path), hit) for path in paths for hit in re.findall(pattern, path.read_text("utf-8"))]


def test_nothing_on_a_socket_runs_code() -> None:
    """No pickle in any disguise (CVE-2026-3059 and its family)."""
    pattern = r"\b(?:c?pickle|cloudpickle|dill|marshal|shelve|(?:recv|send)_pyobj)\b"
    assert _found(pattern, _code_files()) == []


def test_no_queue_is_unlimited() -> None:
    """A high-water mark of 0 means: until memory ends."""
    assert _found(r"(?:HWM\s*,\s*|hwm\s*=\s*|HWM\s*=\s*|set_hwm\(\s*)0\b", _code_files()) == []


def test_sockets_are_made_in_one_place() -> None:
    """Where linger, high-water marks and size limits are set; a socket made anywhere else has none."""
    others = [path for path in _code_files() if path != ROOT / "transport/sockets.py"]
    assert _found(r"\.socket\(zmq|context\.socket\(", others) == []


# ---- size and names --------------------------------------------------------------------------------------


def test_a_file_is_one_noun() -> None:
    """At most 500 lines, and named after what is in it."""
    lengths = {_name(path): len(path.read_text("utf-8").splitlines()) for path in _all_files()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}
    assert [_name(path) for path in _all_files() if path.stem in EMPTY_NAMES] == []


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement behind the docstring to the last."""
    has_docstring = ast.get_docstring(function) is not None and len(function.body) > 1
    return (function.end_lineno or 0) - function.body[1 if has_docstring else 0].lineno + 1


def test_a_function_is_one_thought() -> None:
    """At most 60 lines, signature and docstring aside."""
    lengths = {(_name(path), found.name): _body_lines(found) for path in _all_files() for found in _functions(path)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_each_test_is_a_claim() -> None:
    """Its docstring says what must be so."""
    silent = [
        (_name(path), found.name)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for found in _functions(path)
        if found.name.startswith("test_") and not ast.get_docstring(found)
    ]
    assert silent == []


def test_a_unit_test_never_sleeps() -> None:
    """It moves a clock, or waits for an event with a deadline."""
    paths = [path for folder in ("unit", "property") for path in sorted((ROOT / "tests" / folder).rglob("*.py"))]
    assert _found(r"\bsleep\(", paths) == []
