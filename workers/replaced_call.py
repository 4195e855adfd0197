"""Putting a call of ours in the place of a library's, once. For the hooks of zero edits."""

from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]
MARK = "_runlane_original"


def replace_call(owner: Any, name: str, make: Callable[[Call], Call]) -> None:
    """Replace `owner.name` by what `make` makes of it; nothing where it is not defined there, or replaced already."""
    original: Any = getattr(owner, "__dict__", {}).get(name)
    if not callable(original) or hasattr(original, MARK):
        return
    replacement = make(original)
    setattr(replacement, MARK, original)
    setattr(owner, name, replacement)


def argument_of(arguments: tuple[Any, ...], options: dict[str, Any], place: int, name: str, default: Any = None) -> Any:
    """An argument of a replaced call, given by place or by name."""
    return arguments[place] if len(arguments) > place else options.get(name, default)
