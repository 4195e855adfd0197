"""LayerTable: what belongs to an environment, found by any of its layers, and kept alive by none of them."""

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

Stream = TypeVar("Stream")


def layers_of(env: Any, most: int) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The layers of an environment from the outermost inwards, each with its own attributes; no more than so many."""
    inner = env
    while inner is not None and most > 0:
        own: dict[str, Any] = getattr(inner, "__dict__", {})
        yield inner, own
        inner, most = own.get("env"), most - 1


class LayerTable(Generic[Stream]):
    """By the id of a layer: environments need be neither hashable nor alike in `==`. None: nothing is recorded of it.

    `streams` is for a quick look: an id in it is that of a living layer.
    """

    def __init__(self, on_gone: Callable[[Stream], None], streams: dict[int, Stream | None] | None = None) -> None:
        """`on_gone` is told of a stream whose last layer is no more, in the middle of whatever the thread does."""
        self.streams: dict[int, Stream | None] = {} if streams is None else streams
        self._layers: dict[int, weakref.ref[Any]] = {}
        self._on_gone = on_gone

    def remember(self, layer: Any, stream: Stream | None) -> None:
        """This layer belongs to that stream."""
        key = id(layer)
        self.streams[key] = stream
        self._layers[key] = weakref.ref(layer, functools.partial(self._forget, key))

    def pop(self, layer: Any) -> Stream | None:
        """The stream of a layer, which with all its other layers is known no more."""
        stream = self.streams.get(id(layer))
        if stream is not None:
            for key in [key for key, found in self.streams.items() if found is stream]:
                self.streams.pop(key, None)
                self._layers.pop(key, None)
        return stream

    def _forget(self, key: int, gone: Any) -> None:
        if self._layers.get(key) is gone:
            self._layers.pop(key, None)
            stream = self.streams.pop(key, None)
            if stream is not None and stream not in self.streams.values():
                self._on_gone(stream)
