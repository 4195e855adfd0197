"""WorkerOption: something that a shipped worker takes on its command line, and the words it becomes there. No Qt.

A value that cannot work raises `LaunchError`, naming field, value and remedy.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runlane.config.errors import RunlaneError

OptionKind = Literal["number", "text", "words", "file", "directory", "choice", "switch"]
OptionValue = float | str | bool
MAX_TEXT = 4_000


class LaunchError(RunlaneError):
    """One field of the form does not do. `field`, `value` and `remedy` say which and what to write instead."""

    def __init__(self, field_name: str, value: str, problem: str, remedy: str) -> None:
        """One line."""
        self.field, self.value, self.remedy = field_name, value, remedy
        super().__init__(f"{field_name} {value!r} {problem}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOption:
    """One field. Without a `flag` its words stand behind all flags, in the order of the options.

    A number lies between `least` and `most`; `places` 0 is a whole one. Of a file or directory `suffix` says what is
    offered. `words` are split as a shell does. What is not `is_required` and is as the worker has it by itself, or
    empty, is left out of the command.
    """

    key: str
    label: str
    flag: str = ""
    kind: OptionKind = "number"
    default: OptionValue = ""
    least: float = 0
    most: float = 1e12
    places: int = 0
    choices: tuple[str, ...] = ()
    suffix: str = ""
    hint: str = ""
    tip: str = ""
    is_required: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether its field takes a whole line."""
        return self.kind in ("words", "file", "directory")


def words_of(option: WorkerOption, value: OptionValue, directory: str) -> list[str]:
    """What an option adds to the command line; raises `LaunchError`. `directory` is where the command will run."""
    if isinstance(value, str):
        if not value.strip() and option.is_required:
            raise LaunchError(option.label, value, "is empty", option.hint or f"give it as {option.flag or 'a word'}")
        if len(value) > MAX_TEXT or "\0" in value:
            raise LaunchError(option.label, value[:40], "is no text for a command line", "shorten it")
    if option.kind == "switch":
        return [option.flag] if value else []
    if value == option.default and not option.is_required:
        return []
    if option.kind == "words":
        return _split(option, str(value))
    text = _text(option, value, directory)
    if not text:
        return []
    return [option.flag, text] if option.flag else [text]


def _split(option: WorkerOption, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise LaunchError(option.label, text[:60], f"cannot be split ({error})", "close the quotation marks") from None


def _text(option: WorkerOption, value: OptionValue, directory: str) -> str:
    if option.kind == "number":
        return _number(option, float(value))
    text = str(value).strip()
    if option.kind == "choice" and text not in option.choices:
        raise LaunchError(option.label, text, "is not offered", f"choose {', '.join(option.choices)}")
    if text and option.kind in ("file", "directory"):
        return _path(option, text, directory)
    return text


def _path(option: WorkerOption, text: str, directory: str) -> str:
    path = Path(directory) / Path(text).expanduser()
    is_there = path.is_file() if option.kind == "file" else path.is_dir()
    if not is_there:
        raise LaunchError(option.label, text, f"is no {option.kind}", f"choose a {option.kind} that exists")
    return str(path)


def _number(option: WorkerOption, value: float) -> str:
    if not option.least <= value <= option.most:
        limits = f"choose {option.least:g} to {option.most:g}"
        raise LaunchError(option.label, f"{value:g}", "is out of range", limits)
    return str(int(value)) if option.places == 0 else f"{value:g}"
