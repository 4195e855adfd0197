"""Hooks for zero edits: the hyper-parameters that a script reads from its command line become the run's config.

`argparse` and `tyro.cli`, where they read the arguments of this process, and only for the script itself: what a
launcher or a child of `multiprocessing` parses is nobody's hyper-parameter. Imports little: many a program below
`runlane run` reads a command line and trains nothing.
"""

import functools
import sys
import threading
from collections.abc import Mapping
from typing import Any

from runlane.workers import hooked_session
from runlane.workers.replaced_call import Call, argument_of, replace_call
from runlane.workers.secret import masked

# Whose command lines are no hyper-parameters. tyro is told by its own hook.
_OTHERS = {"torch", "multiprocessing", "unittest", "pytest", "_pytest", "runlane", "runpy", "tyro", "pdb", "IPython"}
MAX_DEPTH = 8


class _Parsing(threading.local):
    """How many calls of a parser are inside each other in this thread."""

    depth = 0


_parsing = _Parsing()


def patch_argparse(module: Any) -> None:
    """Note what `ArgumentParser.parse_args` and `parse_known_args` find on the command line."""
    replace_call(module.ArgumentParser, "parse_args", _noting_namespace)
    replace_call(module.ArgumentParser, "parse_known_args", _noting_namespace)


def patch_tyro(module: Any) -> None:
    """Note the dataclass that `tyro.cli` makes of the command line."""
    replace_call(module, "cli", _noting_object)


def _noting_namespace(parse: Call) -> Call:
    @functools.wraps(parse)
    def parse_and_note(parser: Any, *arguments: Any, **options: Any) -> Any:
        given = argument_of(arguments, options, 0, "args")
        is_wanted = _parsing.depth == 0 and _is_command_line(given) and not _is_of_others(2)
        _parsing.depth += 1
        try:
            result = parse(parser, *arguments, **options)
        finally:
            _parsing.depth -= 1
        if is_wanted:
            _note(result)
        return result

    return parse_and_note


def _noting_object(cli: Call) -> Call:
    @functools.wraps(cli)
    def parse_and_note(*arguments: Any, **options: Any) -> Any:
        is_wanted = _is_command_line(options.get("args")) and not _is_of_others(2)
        result = cli(*arguments, **options)
        # Given a function, tyro calls it: what comes back then is what the whole script has to say.
        if is_wanted and not hasattr(argument_of(arguments, options, 0, "f"), "__code__"):
            _note(result)
        return result

    return parse_and_note


def _is_command_line(given: Any) -> bool:
    """Whether it is this process's command line that is parsed."""
    try:
        return given is None or list(given) == sys.argv[1:]
    except Exception:  # nothing that can be compared
        return False


def _is_of_others(frames: int) -> bool:
    """Whether the caller is no part of the script; `frames` is how many calls lie between it and here."""
    multiprocessing: Any = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return True
    name = str(sys._getframe(frames).f_globals.get("__name__", ""))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return name.partition(".")[0] in _OTHERS


def _note(result: Any) -> None:
    """Tell the run what was parsed: a namespace or an object, or a tuple of it and the arguments nobody knew."""
    try:
        found: Any = result[0] if isinstance(result, tuple) and result else result  # pyright: ignore[reportUnknownVariableType]
        values = _fields_of(found)
        if values:
            hooked_session.note_config(masked(values))
    except Exception as error:
        hooked_session.count_fault(error)


def _fields_of(found: Any, depth: int = 0) -> dict[str, Any]:
    """The fields of a namespace, dataclass or mapping; those that are such objects as maps, too."""
    if _is_dataclass(found):
        attributes = {name: getattr(found, name, None) for name in found.__dataclass_fields__}
    else:
        attributes = dict(found if _is_mapping(found) else getattr(found, "__dict__", {}))
    return {str(name): _plain(value, depth + 1) for name, value in attributes.items()}


def _plain(value: Any, depth: int) -> Any:
    is_group = _is_mapping(value) or _is_dataclass(value) or type(value).__name__ == "Namespace"
    return _fields_of(value, depth) if is_group and depth < MAX_DEPTH else value


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_dataclass(value: Any) -> bool:
    return hasattr(value.__class__, "__dataclass_fields__")
