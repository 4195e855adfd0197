"""Secret: values that must not come into a database, told by the names they have."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

MASK = "***"
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# The user's part of an address, `mysql://user:password@host/name`; a password may have an @ of its own.
_ADDRESS = re.compile(r"(\w://[^/\s:@]*:)[^/\s]+@")
_SINGLE = {
    "apikey",
    "authorization",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "pwd",
    "secret",
    "secrets",
    "token",
}
_PAIRS = {("api", "key"), ("access", "key"), ("private", "key"), ("auth", "key"), ("secret", "key")}


def is_secret(name: str) -> bool:
    """Whether a name looks like that of a password, a token or a key: `wandb_api_key`, `hfToken`, not `tokens`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return not _SINGLE.isdisjoint(words) or any(pair in _PAIRS for pair in itertools.pairwise(words))


def masked(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The map, with text under such names and passwords in addresses replaced, at any depth.

    A number is no secret: `pad_token` may be 0.
    """
    return {name: _masked(str(name), value) for name, value in values.items()}


def masked_arguments(words: Sequence[str]) -> list[str]:
    """A command line, with what follows options under such names replaced: `--api-key X` and `--api-key=X`.

    So are passwords in addresses, and variables before a command, as `HF_TOKEN=X python train.py` in a shell.
    """
    found: list[str] = []
    is_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and is_secret(name):
            found.append(f"{name}={MASK}")
        else:
            found.append(MASK if is_next and not word.startswith("-") else _without_password(word))
        is_next = word.startswith("-") and not equals and is_secret(word)
    return found


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return masked(cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple):
        return [_masked(name, each) for each in cast("list[Any]", value)]
    if isinstance(value, str | bytes) and value and is_secret(name):
        return MASK
    return _without_password(value) if isinstance(value, str) else value


def _without_password(text: str) -> str:
    return _ADDRESS.sub(rf"\1{MASK}@", text)
