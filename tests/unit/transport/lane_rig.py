"""Rings for tests: frames that say which they are, and readers that look whether HUD and pixels belong together."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.ring_layout import Hud, RingInfo

INFO = RingInfo(run="run", worker="worker")
SHAPE = (4, 5, 3)

Make = Callable[..., FastLaneWriter]
Attach = Callable[..., FastLaneReader]


def writers(run_dir: Path) -> Iterator[Make]:
    """What makes rings, and closes them in the end."""
    made: list[FastLaneWriter] = []

    def make(slots: int = 4, *, is_checked: bool | None = None) -> FastLaneWriter:
        made.append(FastLaneWriter(run_dir, INFO, FastLaneConfig(slots, is_checked)))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


def readers(run_dir: Path) -> Iterator[Attach]:
    """What attaches readers, and closes them in the end."""
    made: list[FastLaneReader] = []

    def attach(writer: FastLaneWriter) -> FastLaneReader:
        made.append(FastLaneReader(writer.path, [run_dir]))
        return made[-1]

    yield attach
    for reader in made:
        reader.close()


def frame(number: int, shape: tuple[int, ...] = SHAPE) -> Any:
    """A frame whose every pixel says which it is."""
    return np.full(shape, number % 256, np.uint8)


def show(writer: FastLaneWriter, *numbers: int, shape: tuple[int, ...] = SHAPE) -> None:
    """Publish frames whose HUD says which they are."""
    for number in numbers:
        writer.publish(frame(number, shape), Hud(step_seq=number, mono_ns=number * 1_000_000))


def seen(reader: FastLaneReader) -> int | None:
    """Number of the frame that is read now, after a look whether HUD and pixels belong together; None for none."""
    found = reader.read()
    if found is None:
        return None
    hud, pixels = found
    assert set(pixels) == {hud.step_seq % 256}
    return hud.step_seq


def open_files() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in directory.iterdir())


def fill(monkeypatch: pytest.MonkeyPatch, has_room: Callable[[Path, int], bool]) -> list[tuple[Path, int]]:
    """File systems with room only for what `has_room` says; what was asked for is noted."""
    asked: list[tuple[Path, int]] = []
    allocate = os.posix_fallocate

    def asking(fd: int, offset: int, size: int) -> None:
        path = path_of(fd)
        asked.append((path, size))
        if not has_room(path, size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", asking)
    return asked


def path_of(fd: int) -> Path:
    """Where an open file lies."""
    return Path(f"/proc/self/fd/{fd}").readlink()
