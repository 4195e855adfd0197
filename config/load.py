"""Defaults < file < environment < arguments, merged into one frozen `Settings`.

Each value remembers where it came from, so an error names the file, variable or option to mend.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from runlane.config import names
from runlane.config.errors import SettingsError
from runlane.config.settings import Settings, SubscriberSettings, WorkerSettings

Table = dict[str, Any]
Sources = dict[str, str]
T = TypeVar("T")

DEFAULTS_SOURCE = "defaults.toml"
_SWITCHES = ("fast_lane.enabled", "fast_lane.only")  # their variables are 0 or 1


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: Iterable[str] = (),
) -> Settings:
    """Return the settings in force.

    `arguments` are `section.key=value` texts. Raises `SettingsError` naming source, key, value and remedy.
    """
    environment = os.environ if environment is None else environment
    merged: Table = {}
    sources: Sources = {}
    text = shipped(DEFAULTS_SOURCE).read_text("utf-8")
    _merge(merged, tomllib.loads(text), DEFAULTS_SOURCE, sources)
    chosen = file if file is not None else _file_from(environment)
    if chosen is not None:
        _merge(merged, _read(chosen), str(chosen), sources)
    for key, value, source in (*_from_environment(environment), *_from_arguments(arguments)):
        _merge(merged, _nested(key, value), source, sources)
    return _convert(merged, sources)


def shipped(name: str) -> Path:
    """Path of a settings file that ships with the package, as `demo.toml`."""
    return Path(__file__).with_name(name)  # `importlib.resources` takes 4 ms to import


def _file_from(environment: Mapping[str, str]) -> Path | None:
    path = environment.get(names.ENV_CONFIG)
    return Path(path) if path else None


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            "settings file",
            str(path),
            f"cannot be read ({error.strerror})",
            "check the path given with --config",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("syntax", None, f"is not TOML: {error}", "mend that line", str(path)) from None


def _merge(into: Table, new: Table, source: str, sources: Sources, prefix: str = "") -> None:
    for key, value in new.items():
        path = f"{prefix}{key}"
        sources[path] = source
        present = into.get(key)
        if not isinstance(value, dict):
            into[key] = value
            continue
        if not isinstance(present, dict):
            into[key] = {}
        _merge(_table(into[key]), new[key], source, sources, f"{path}.")


def _table(value: object) -> Table:
    """The value as the TOML table it is, or an empty one: what is no table is refused by its type, later."""
    return cast("Table", value) if isinstance(value, dict) else {}


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for variable, key in names.FASTLANE_VARIABLES.items():
        if variable in environment:
            value = environment[variable]
            if key in _SWITCHES:
                value = {"1": "true", "0": "false", "": "false"}.get(value, value)
            found.append((key, value, f"environment variable {variable}"))
    for variable in sorted(environment):
        if variable.startswith(names.ENV_PREFIX) and variable not in names.CONTEXT_VARIABLES:
            key = variable.removeprefix(names.ENV_PREFIX).lower().replace("__", ".")
            found.append((key, environment[variable], f"environment variable {variable}"))
    return found


def _from_arguments(arguments: Iterable[str]) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.strip():
            raise SettingsError(
                "--set", argument, "is not KEY=VALUE", "write for example --set db_writer.synchronous=NORMAL"
            )
        found.append((key.strip(), value.strip(), f"option --set {argument}"))
    return found


def _nested(key: str, text: str) -> Table:
    """`a.b` and a text become `{"a": {"b": value}}`; the text is read as TOML where it is TOML."""
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in reversed(key.split(".")):
        value = {part: value}
    table: Table = value
    return table


def _convert(merged: Table, sources: Sources) -> Settings:
    """Entries of named tables first, one by one, so that an error can name the entry."""
    entry_types: dict[str, type[Any]] = {"subscribers": SubscriberSettings, "workers": WorkerSettings}
    for table, entry_type in entry_types.items():
        entries = merged.get(table)
        for name, entry in _table(entries).items():
            _checked(entry, entry_type, f"{table}.{name}", merged, sources)
    return _checked(merged, Settings, "", merged, sources)


def _checked(value: object, kind: type[T], prefix: str, merged: Table, sources: Sources) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explain(error, kind, prefix, merged, sources) from None


def _explain(
    error: msgspec.ValidationError, kind: type[Any], prefix: str, merged: Table, sources: Sources
) -> SettingsError:
    text, inner = _split_path(str(error))
    path = _join(prefix, inner)
    cause = error.__cause__
    if isinstance(cause, SettingsError):
        key = cause.key if cause.key.startswith(("subscribers.", "workers.")) else _join(path, cause.key)
        return SettingsError(key, cause.value, cause.problem, cause.remedy, _source_of(key, sources))
    unknown = re.search(r"unknown field `([^`]*)`", text)
    if unknown:
        return _unknown_key(_join(path, unknown.group(1)), _type_at(kind, inner), merged, sources)
    missing = re.search(r"missing required field `([^`]*)`", text)
    if missing:
        return SettingsError(
            _join(path, missing.group(1)), None, "is missing", "add this key", _source_of(path, sources)
        )
    problem = text[:1].lower() + text[1:]
    return SettingsError(
        path or "settings",
        _value_at(merged, path),
        problem,
        _remedy(_type_at(kind, inner)),
        _source_of(path, sources),
    )


def _split_path(text: str) -> tuple[str, str]:
    """msgspec writes: Expected `int`, got `str` - at `$.router.lease_s`."""
    match = re.match(r"(.*) - at `\$\.?(.*)`$", text, re.DOTALL)
    return (match.group(1), match.group(2)) if match else (text, "")


def _unknown_key(key: str, kind: Any, merged: Table, sources: Sources) -> SettingsError:
    import difflib  # for this one error

    known = sorted(get_type_hints(kind)) if isinstance(kind, type) else []
    close = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    remedy = f"did you mean {close[0]}" if close else f"choose from {', '.join(known)}"
    return SettingsError(key, _value_at(merged, key), "is no known key", remedy, _source_of(key, sources))


def _type_at(kind: Any, inner: str) -> Any:
    for part in inner.split(".") if inner else []:
        kind = get_type_hints(kind).get(part) if isinstance(kind, type) else None
    return kind


def _remedy(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "choose from " + ", ".join(map(repr, get_args(kind)))
    return "give a value of that type and range"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _value_at(merged: Table, path: str) -> object:
    value: Any = merged
    for part in path.split("."):
        table = _table(value)
        if part not in table:
            return None
        value = table[part]
    return value


def _source_of(path: str, sources: Sources) -> str:
    while path:
        if path in sources:
            return sources[path]
        path = path.rpartition(".")[0]
    return ""
