"""Free maps from user code → values MessagePack can hold. What has no such form becomes text, never an error."""

from collections.abc import Mapping
from typing import Any, cast

from runlane.transport.wire import plain


def plain_map(info: Mapping[str, Any]) -> dict[str, Any]:
    """A free map with string keys only and values MessagePack can hold."""
    return {str(key): _plain(value) for key, value in info.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | float | bytes):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, Mapping):
        return plain_map(value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    return _plain_or_text(plain(value))


def _plain_or_text(value: Any) -> Any:
    return _plain(value) if isinstance(value, str | bool | float | int | list) else str(value)
