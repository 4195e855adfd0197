"""LaunchPlan: what the launch form is about to start, as the exact command lines. No Qt, no process.

A plan that cannot work raises `LaunchError` naming field, value and remedy.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from runlane.config.load import load
from runlane.config.names import CONTEXT_VARIABLES, ENV_CONFIG
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.worker_option import LaunchError, OptionValue, words_of
from runlane.gui.worker_type import WorkerType, worker_type_named
from runlane.transport.endpoint import data_dir_of

MAX_COPIES = 16
MAX_NAME = 200
SEED_MARK = "{seed}"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DESCRIPTOR = re.compile(r"fd:\d{1,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What to run: a shipped `worker_type` with `options` by key, or a `command` line of one's own.

    `python` is the interpreter of a shipped worker, ours when empty. `jsonl` says where a command that is no Python
    writes its JSON lines: `stdout`, `fd:N` or a path; empty when it is attached in the ordinary way.
    Several `copies` get the seeds from `first_seed` on and are named `{name}-s{seed}`. A seed takes the place of
    `{seed}` in a command; where that has none, each of several copies gets it behind `seed_flag`.
    """

    name: str = ""
    worker_type: str = ""
    options: dict[str, OptionValue] = field(default_factory=dict[str, OptionValue])
    python: str = ""
    command: str = ""
    jsonl: str = ""
    directory: str = ""
    environment: str = ""
    copies: int = 1
    first_seed: int = 1
    seed_flag: str = "--seed"
    mode: TelemetryMode = TelemetryMode.DUAL_PATH
    video_mode: str = "single"
    slot: int = 0
    grid_limit: int = 4
    max_fps: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One process to start: `arguments` as for exec, `environment` what is added to ours."""

    name: str
    arguments: list[str]
    directory: str
    environment: dict[str, str]

    @property
    def line(self) -> str:
        """The command line as a person would type it."""
        return shlex.join(["runlane", *self.arguments[3:]])


def launches_of(plan: LaunchPlan, settings: Settings, options: Sequence[str] = ()) -> list[Launch]:
    """What to start, in order; raises `LaunchError`. `options` are the window's own: --config and --set."""
    name = plan.name.strip() or default_name(plan)
    if len(name) > MAX_NAME or not name.isprintable():
        raise LaunchError("Run name", name[:40], "is too long or not printable", f"write up to {MAX_NAME} letters")
    if not 1 <= plan.copies <= MAX_COPIES:
        raise LaunchError("Copies", str(plan.copies), "is out of range", f"choose 1 to {MAX_COPIES}")
    directory = _directory(plan)
    environment = parse_environment(plan.environment)
    fixed = [sys.executable, "-m", "runlane", "run"]
    # What stands later counts, so the form's own settings come behind those of the window.
    sets = [part for text in settings_texts(plan, settings) for part in ("--set", text)]
    kind = worker_type_named(plan.worker_type)
    foreign = ["--jsonl", _source(plan.jsonl.strip(), directory)] if plan.jsonl.strip() and kind is None else []
    found: list[Launch] = []
    for seed in range(plan.first_seed, plan.first_seed + plan.copies):
        own = f"{name}-s{seed}" if plan.copies > 1 else name
        worker = ["--worker", kind.worker] if kind is not None else []
        command = _command(plan, kind, seed, directory)
        arguments = [*fixed, "--name", own, *worker, *foreign, *options, *sets, "--", *command]
        found.append(Launch(name=own, arguments=arguments, directory=directory, environment=environment))
    return found


def default_name(plan: LaunchPlan) -> str:
    """What a run is called for which no name was written."""
    kind = worker_type_named(plan.worker_type)
    if kind is not None:
        given = {option.key: str(plan.options.get(option.key, option.default)) for option in kind.options}
        name = "-".join(Path(given[key]).stem for key in kind.name_keys if given[key].strip()) or kind.key
        return "".join(mark for mark in name if mark.isprintable())[:MAX_NAME]
    words = _words(plan.command)
    script = next((word for word in words if word.endswith(".py")), words[0] if words else "run")
    return Path(script).stem or "run"


def settings_texts(plan: LaunchPlan, settings: Settings) -> list[str]:
    """The `--set` texts: which graph is meant, and all that the form says of telemetry.

    All of it: what a run would find by itself hangs on files and variables of where the command is run.
    """
    texts = [f"data_dir={data_dir_of(settings)}", *_transport_texts(settings)]
    texts.append(f"session.telemetry_mode={plan.mode.value}")
    chosen = {"video_mode": plan.video_mode, "max_fps": plan.max_fps}
    chosen |= {"slot": plan.slot} if plan.video_mode == "single" else {}
    chosen |= {"grid_limit": plan.grid_limit} if plan.video_mode == "grid" else {}
    return texts + [f"fast_lane.{key}={value}" for key, value in chosen.items()]


def parse_environment(text: str) -> dict[str, str]:
    """Lines `NAME=value`; empty lines and those that begin with # are passed over. Raises `LaunchError`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.strip().partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            raise LaunchError("Environment", line.strip(), "is no NAME=value", "write for example OMP_NUM_THREADS=1")
        if "\0" in value:
            raise LaunchError("Environment", name, "holds a zero byte", "remove it")
        found[name] = value
    return found


def clean_environment() -> dict[str, str]:
    """Our environment without what a supervisor told this window: a lifeline or a run of ours is not the worker's."""
    return {name: value for name, value in os.environ.items() if name not in CONTEXT_VARIABLES or name == ENV_CONFIG}


def _command(plan: LaunchPlan, kind: WorkerType | None, seed: int, directory: str) -> list[str]:
    if kind is not None:
        return [*_module(plan, kind), *_option_words(plan, kind, seed, directory)]
    words = _words(plan.command)
    if not words:
        raise LaunchError("Command", plan.command, "is empty", "write for example: python train.py, or choose a file")
    if words[0].endswith(".py"):
        words = [sys.executable, *words]
    elif words[0] in ("python", "python3") and shutil.which(words[0]) is None:
        words[0] = sys.executable
    _check_program(words, directory)
    if any(SEED_MARK in word for word in words):
        return [word.replace(SEED_MARK, str(seed)) for word in words]
    if plan.copies > 1:
        flag = plan.seed_flag.strip()
        if not flag:
            raise LaunchError(
                "Seed option", flag, "is empty, so all copies would be alike", f"write --seed, or {SEED_MARK}"
            )
        return [*words, flag, str(seed)]
    return words


def _module(plan: LaunchPlan, kind: WorkerType) -> list[str]:
    """The interpreter and the module; where the interpreter is another program's, ours runs the module."""
    chosen = plan.python.strip()
    python = interpreter_path(chosen)
    if python is None:
        raise LaunchError("Python", chosen, "is no program", "choose an environment's bin/python, or leave it empty")
    if kind.python_flag:
        if not chosen:
            raise LaunchError("Python", chosen, "is empty", f"choose {kind.python_hint or 'an interpreter'}")
        return [sys.executable, "-m", kind.module, kind.python_flag, python]
    return [python, "-m", kind.module]


def _option_words(plan: LaunchPlan, kind: WorkerType, seed: int, directory: str) -> list[str]:
    """Flags first, then what has none, as the script of CleanRL; the seed comes last, and so is the script's own."""
    flags: list[str] = []
    others: list[str] = []
    for option in kind.options:
        words = words_of(option, plan.options.get(option.key, option.default), directory)
        (flags if option.flag else others).extend(words)
    seeds = [kind.seed_flag, str(seed)] if kind.seed_flag else []
    return [*flags, *others, *seeds]


def interpreter_path(text: str) -> str | None:
    """The program that a text in a field `Python` means; ours for an empty one, None when there is none.

    A link stays one: what it leads to would not know the packages of its environment.
    """
    found = shutil.which(str(Path(text.strip()).expanduser())) if text.strip() else sys.executable
    return None if found is None else str(Path(found).absolute())


def _source(text: str, directory: str) -> str:
    """Where JSON lines come from, as `runlane run --jsonl` takes it; raises `LaunchError`."""
    if text == "stdout" or _DESCRIPTOR.fullmatch(text):
        return text
    if text.startswith("fd:"):
        raise LaunchError("JSON lines from", text, "is no descriptor", "write for example fd:3")
    path = Path(directory) / Path(text).expanduser()
    if not path.parent.is_dir() or path.is_dir():
        raise LaunchError(
            "JSON lines from", text, "is no place for a file", "write stdout, fd:3, or the path of a pipe"
        )
    return str(path)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise LaunchError("Command", command[:60], f"cannot be split ({error})", "close the quotation marks") from None


def _check_program(words: Sequence[str], directory: str) -> None:
    if shutil.which(words[0]) is None and shutil.which(str(Path(directory) / words[0])) is None:
        raise LaunchError("Command", words[0], "is no program here", "check its path, or begin with python")
    script = next((word for word in words[1:2] if word.endswith(".py")), None)
    if script is not None and not (Path(directory) / script).is_file():
        raise LaunchError("Command", script, f"is no file in {directory}", "choose the file, or the working directory")


def _directory(plan: LaunchPlan) -> str:
    text = plan.directory.strip()
    path = Path(text).expanduser() if text else Path.cwd()
    if not path.is_dir():
        raise LaunchError("Working directory", text, "is no directory", "choose one that exists")
    return str(path.absolute())


def _transport_texts(settings: Settings) -> list[str]:
    """What makes a command in any directory meet the graph that this window watches."""
    usual: dict[str, Any] = msgspec.to_builtins(load(environment={}).transport)
    ours: dict[str, Any] = msgspec.to_builtins(settings.transport)
    for key in ("run_dir", "keys_dir"):
        if ours.get(key):
            ours[key] = str(Path(ours[key]).absolute())
    return [f"transport.{key}={value}" for key, value in ours.items() if value != usual.get(key)]
