"""place: where each thread is among the calls of environments, and the tables that a hooked call looks into.

One look at a thread-local gives a plain object with all of it, because that look is what a hooked call pays for most.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

streams: dict[int, Any] = {}  # by the id of a layer: the stream of its environment, None where none is recorded
vectors: dict[int, Any] = {}  # of a vector environment, likewise
made: dict[int, int] = {}  # where that is the recorded layer: ids of what `make` has returned, and of what is in it
left: dict[int, Any] = {}  # by the id of an innermost environment: those that the script records by itself
total_recorded = [0]  # calls of environments by something that is no environment, of all threads


class Place:
    """Where one thread is: how deep inside an environment's call, and what was called in there."""

    __slots__ = (
        "depth",
        "inner_reset",
        "left",
        "made",
        "moved",
        "outer_is_vector",
        "recorded",
        "streams",
        "total",
        "vector_depth",
        "vectors",
    )

    def __init__(self) -> None:
        """Outside of all."""
        self.depth = 0
        self.vector_depth = 0
        self.outer_is_vector = False  # whether the outermost environment wraps a vector environment
        self.moved: Any = None  # what was stepped in there last and is no wrapper of Gymnasium's kind
        self.inner_reset = 0  # id of what was reset in there
        self.recorded = 0  # this thread's part of the total
        self.total = total_recorded
        self.streams: Mapping[int, Any] = streams
        self.vectors: Mapping[int, Any] = vectors
        self.made: Mapping[int, int] = made
        self.left: Mapping[int, Any] = left


class Places(threading.local):
    """Of every thread its own, as `here`."""

    def __init__(self) -> None:
        """Called by each thread that looks for the first time."""
        self.here = Place()

    def __reduce__(self) -> "tuple[Callable[[], Places], tuple[()]]":
        """Classes that are pickled by value take their methods with them, and those name this."""
        return _the_places, ()


def _the_places() -> Places:
    return place


place = Places()
