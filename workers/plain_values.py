"""Free maps from user code → values MessagePack can hold. What has no such form becomes text, never an error."""

from collections.abc import Mapping
from typing import Any, cast

from runlane.transport.wire import pack, plain

# What one record may carry beside its numbers. A full batch of such records would be too large a body, so the reader
# of the journal cuts at `journal_reader.MAX_BATCH_BYTES`. That leaves one record alone, which must stay below
# `wire.MAX_BODY_BYTES`: a body above it would be refused for ever, and everything behind it with it.
MAX_TEXT_CHARACTERS = 8_192  # four bytes each at the most
MAX_MAP_BYTES = 32_768
MAX_FACTS_BYTES = 1 << 20
MAX_NAME_CHARACTERS = 256
MAX_DEPTH = 32


def plain_map(info: Mapping[str, Any], max_bytes: int = MAX_MAP_BYTES) -> dict[str, Any]:
    """A free map with string keys only and values MessagePack can hold; one too large is replaced by its size."""
    found = _plain_map(info)
    size = len(pack(found))
    return found if size <= max_bytes else {"too_large": f"{size} bytes, at most {max_bytes}", "keys": len(found)}


def number_of(value: Any) -> float:
    """A value as a number: also an array of one. Raises `TypeError` or `ValueError` for anything else."""
    if getattr(value, "ndim", 0) and value.size == 1:
        value = value.reshape(())
    return float(value)


def short_text(text: object, most: int = MAX_TEXT_CHARACTERS) -> str:
    """The text, cut where it is longer than a record may carry, with a mark that says so."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 40]} ... ({len(whole)} characters)"


def _plain_map(info: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    return {str(key): _plain(value, depth + 1) for key, value in info.items()}


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, str | bool | float | bytes):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if depth > MAX_DEPTH:
        return f"<{type(value).__name__} nested deeper than {MAX_DEPTH}>"  # its text may be as deep
    if isinstance(value, Mapping):
        return _plain_map(value, depth)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in cast("list[Any]", value)]
    found = plain(value)
    return _plain(found, depth + 1) if isinstance(found, str | bool | float | int | list) else str(found)
