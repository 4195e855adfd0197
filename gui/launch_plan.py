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

from runlane.config.errors import RunlaneError
from runlane.config.load import load
from runlane.config.names import CONTEXT_VARIABLES, ENV_CONFIG
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.endpoint import data_dir_of

MAX_COPIES = 16
MAX_NAME = 200
SEED_MARK = "{seed}"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class LaunchError(RunlaneError):
    """One field of the form does not do. `field`, `value` and `remedy` say which and what to write instead."""

    def __init__(self, field_name: str, value: str, problem: str, remedy: str) -> None:
        """One line."""
        self.field, self.value, self.remedy = field_name, value, remedy
        super().__init__(f"{field_name} {value!r} {problem}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOption:
    """A number that a shipped worker takes on its command line. `places` 0 is a whole number."""

    key: str
    label: str
    flag: str
    default: float
    least: float
    most: float
    places: int = 0
    tip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerType:
    """A worker that ships with runlane. `worker` is its name in a run, by which the window knows its type."""

    key: str
    label: str
    about: str
    worker: str
    module: str
    needs: str = ""
    options: tuple[WorkerOption, ...] = ()
    seed_flag: str = "--seed"


WORKER_TYPES = (
    WorkerType(
        key="cartpole",
        label="CartPole",
        about="PPO in NumPy learns to balance a pole, in some ten seconds.",
        worker="cartpole",
        module="runlane.workers.cartpole",
        needs="gymnasium",
        options=(
            WorkerOption(
                key="steps",
                label="Total steps",
                flag="--steps",
                default=300_000,
                least=1,
                most=1e12,
                tip="Environment steps, at most",
            ),
            WorkerOption(
                key="target",
                label="Target return",
                flag="--target-return",
                default=475,
                least=-1e9,
                most=1e9,
                places=1,
                tip="It ends when the mean of 100 episodes is this high",
            ),
            WorkerOption(
                key="rate",
                label="Learning rate",
                flag="--learning-rate",
                default=0.001,
                least=1e-8,
                most=1,
                places=6,
                tip="At the start; it falls to zero",
            ),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What to run: a shipped `worker_type` with `options` by key, or a `command` line of one's own.

    Several `copies` get the seeds from `first_seed` on and are named `{name}-s{seed}`. A seed takes the place of
    `{seed}` in a command; where that has none, each of several copies gets it behind `seed_flag`.
    """

    name: str = ""
    worker_type: str = ""
    options: dict[str, float] = field(default_factory=dict[str, float])
    command: str = ""
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
    kind = _type_of(plan.worker_type)
    found: list[Launch] = []
    for seed in range(plan.first_seed, plan.first_seed + plan.copies):
        own = f"{name}-s{seed}" if plan.copies > 1 else name
        worker = ["--worker", kind.worker] if kind is not None else []
        command = _command(plan, kind, seed, directory)
        arguments = [*fixed, "--name", own, *worker, *options, *sets, "--", *command]
        found.append(Launch(name=own, arguments=arguments, directory=directory, environment=environment))
    return found


def default_name(plan: LaunchPlan) -> str:
    """What a run is called for which no name was written."""
    kind = _type_of(plan.worker_type)
    if kind is not None:
        return kind.key
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


def _type_of(key: str) -> WorkerType | None:
    return next((kind for kind in WORKER_TYPES if kind.key == key), None)


def _command(plan: LaunchPlan, kind: WorkerType | None, seed: int, directory: str) -> list[str]:
    if kind is not None:
        flags: list[str] = []
        for option in kind.options:
            value = plan.options.get(option.key, option.default)
            if value != option.default:
                flags += [option.flag, _number(value, option)]
        return [sys.executable, "-m", kind.module, *flags, kind.seed_flag, str(seed)]
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


def _number(value: float, option: WorkerOption) -> str:
    if not option.least <= value <= option.most:
        raise LaunchError(option.label, f"{value:g}", "is out of range", f"choose {option.least:g} to {option.most:g}")
    return str(int(value)) if option.places == 0 else f"{value:g}"


def _transport_texts(settings: Settings) -> list[str]:
    """What makes a command in any directory meet the graph that this window watches."""
    usual: dict[str, Any] = msgspec.to_builtins(load(environment={}).transport)
    ours: dict[str, Any] = msgspec.to_builtins(settings.transport)
    for key in ("run_dir", "keys_dir"):
        if ours.get(key):
            ours[key] = str(Path(ours[key]).absolute())
    return [f"transport.{key}={value}" for key, value in ours.items() if value != usual.get(key)]
