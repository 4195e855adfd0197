"""Frames and waits for tests of the window's pictures. No Qt is imported before a test asks for it."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_layout import Hud

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

DEADLINE_MS = 8000
MakeRing = Callable[..., FastLaneWriter]


def quarters(width: int = 8, height: int = 6) -> Any:
    """A frame (height, width, 3) of four plain quarters: red, green, blue, white."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = (255, 0, 0)
    frame[: height // 2, width // 2 :] = (0, 255, 0)
    frame[height // 2 :, : width // 2] = (0, 0, 255)
    frame[height // 2 :, width // 2 :] = (255, 255, 255)
    return frame


def hud(number: int = 1, **facts: Any) -> Hud:
    """A HUD published now."""
    return Hud(step_seq=number, t_ns=time.time_ns(), mono_ns=time.monotonic_ns(), place=number, **facts)


def wait_until(qtbot: "QtBot", is_so: Callable[[], bool]) -> None:
    """Let the window work until it is so, or fail."""
    qtbot.waitUntil(is_so, timeout=DEADLINE_MS)
