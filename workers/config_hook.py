"""Hooks for zero edits: the hyper-parameters that a script reads from its command line become the run's config.

`argparse` and `tyro.cli`, where they read the arguments of this process, and only for the script itself: what a
launcher or a child of `multiprocessing` parses is nobody's hyper-parameter. What `argparse` finds is kept by
`site_hook`, and taken from there as soon as a library is hooked.
"""

import functools
import sys
from collections.abc import Mapping
from typing import Any

from runlane.workers import hooked_session
from runlane.workers.replaced_call import Call, argument_of, replace_call
from runlane.workers.secret import masked
from runlane.workers.site_hook import KEPT, is_of_script

MAX_DEPTH = 8


def take_parsed() -> None:
    """Tell the run what `argparse` has found on the command line so far. What it finds from now on is told at once."""
    kept: list[dict[str, Any]] = getattr(sys.modules.get("argparse"), KEPT, [])
    while kept:
        _note(kept.pop(0))


def patch_tyro(module: Any) -> None:
    """Note the dataclass that `tyro.cli` makes of the command line."""
    replace_call(module, "cli", _noting_object)


def _noting_object(cli: Call) -> Call:
    @functools.wraps(cli)
    def parse_and_note(*arguments: Any, **options: Any) -> Any:
        is_wanted = is_of_script(options.get("args"), 2)
        result = cli(*arguments, **options)
        # Given a function, tyro calls it: what comes back then is what the whole script has to say.
        if is_wanted and not hasattr(argument_of(arguments, options, 0, "f"), "__code__"):
            _note(result)
        return result

    return parse_and_note


def _note(result: Any) -> None:
    """Tell the run what was parsed: a map or an object, or a tuple of it and the arguments nobody knew."""
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
