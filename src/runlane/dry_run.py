"""`runlane run --dry -- COMMAND`: what would be hooked, without running the command.

Asks the command's own interpreter what it has installed, and reads the script for what it imports by itself; what its
modules import in turn is not followed.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from runlane.config.settings import Settings
from runlane.launch import CommandError

# The library a person installs, the module a script imports, and what of it is recorded.
LIBRARIES = (
    ("gymnasium", "gymnasium", "every step of every environment, scalar or vector"),
    ("gym", "gym", "every step of every environment, scalar or vector"),
    ("pettingzoo", "pettingzoo", "every agent's steps, a stream for each"),
    ("stable-baselines3", "stable_baselines3", "what its logger logs, as metrics"),
    ("torch", "torch", "scalars of torch.utils.tensorboard, as metrics"),
    ("tensorboardX", "tensorboardX", "scalars, as metrics"),
    ("tyro", "tyro", "the arguments, as the run's config"),
)
ASK_S = 60.0
_QUESTION = """
import importlib.metadata as m, json, sys
found = {}
for name in %r:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
try:
    import runlane.workers.attachment; problem = ""
except Exception as error: problem = "%%s: %%s" %% (type(error).__name__, error)
import importlib.util as u
spec = u.find_spec("sitecustomize")
print(json.dumps({"version": sys.version.split()[0], "found": found, "problem": problem,
                  "sitecustomize": spec.origin if spec else None}))
"""
_PYTHON = re.compile(r"(python|pypy)[\d.]*[td]*")  # nothing else is started: it may be the program itself
_UNHOOKED_FLAGS = {"S": "-S skips sitecustomize", "I": "-I ignores PYTHONPATH", "E": "-E ignores PYTHONPATH"}


def print_dry_run(command: list[str], settings: Settings) -> int:
    """Print a report; returns 0 where something would be hooked, 1 where nothing can be."""
    program = shutil.which(command[0])
    if program is None:
        raise CommandError(command[0])
    print(f"command      {' '.join(command)}")
    flags = [reason for flag, reason in _UNHOOKED_FLAGS.items() if flag in _flags(command)]
    answer = _ask(program) if _PYTHON.fullmatch(Path(program).name) else None
    if answer is None:
        print(f"interpreter  {program} is no Python; every Python that it starts is hooked")
        print("             a program that is not Python at all: runlane run --jsonl stdout -- COMMAND")
        return 0
    print(f"interpreter  {program}, Python {answer['version']}")
    if answer["sitecustomize"]:
        print(f"chained      {answer['sitecustomize']} runs after ours")
    print(f"layer        {settings.attach.layer}: see attach.layer")
    problems = [*flags, *([f"it cannot import runlane.workers: {answer['problem']}"] if answer["problem"] else [])]
    for problem in problems:
        print(f"NOT HOOKED   {problem}")
    imported = _imports(command)
    for name, module, what in LIBRARIES:
        version = answer["found"].get(name)
        if version is None:
            continue
        said = "" if imported is None else " (the script imports it)" if module in imported else " (when imported)"
        print(f"would hook   {name} {version}: {what}{said}")
    if not any(name in answer["found"] for name, _, _ in LIBRARIES):
        print("would hook   nothing: none of the libraries is installed there; call runlane.workers.attach() by hand")
        return 1
    return 1 if problems else 0


def _flags(command: list[str]) -> set[str]:
    """Letters of the interpreter's own options, up to the script."""
    found: set[str] = set()
    words = iter(command[1:])
    for word in words:
        if word in ("-", "--") or not word.startswith("-"):
            break
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, None)
            continue
        letters, last, value = _cluster(word[1:])
        found |= set(letters)
        if last in ("c", "m"):
            break
        if last and not value:
            next(words, None)
    return found


def _cluster(letters: str) -> tuple[str, str, str]:
    """`IXdev` is the letter I, and X with its value `dev`."""
    place = next((place for place, letter in enumerate(letters) if letter in "cmWX"), len(letters))
    return letters[:place], letters[place : place + 1], letters[place + 1 :]


def _ask(program: str) -> dict[str, Any] | None:
    names = tuple(name for name, _, _ in LIBRARIES)
    try:
        done = subprocess.run(
            [program, "-c", _QUESTION % (names,)], capture_output=True, text=True, timeout=ASK_S, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        sys.stderr.write(
            f"runlane: {program} does not answer ({type(error).__name__}); is it a Python of ours, 3.8 on?\n"
        )
        return None
    return found


def _imports(command: list[str]) -> set[str] | None:
    """First parts of what the script itself imports; None where there is no script to read."""
    script = next((Path(word) for word in command[1:] if word.endswith(".py")), None)
    try:
        tree = ast.parse(script.read_text("utf-8")) if script is not None else None
    except (OSError, SyntaxError, ValueError):
        return None
    if tree is None:
        return None
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
