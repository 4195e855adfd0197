"""Tiling: frames of several environments side by side in one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
GAP = 2  # dark pixels between two tiles


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns of a grid of so many tiles, as near to a square as can be."""
    columns = math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def tile(frames: Sequence[Any], max_pixels: int) -> Pixels:
    """One RGB frame (height, width, 3) with all of them, from left to right and from the top.

    Every tile has the size of the largest frame; a smaller one is centred in it on black. When the whole would have
    more than `max_pixels`, every n-th pixel of each frame is taken. Frames are uint8 of shape (height, width) or
    (height, width, channels), and of any size. Raises `ValueError` without a frame.
    """
    if not frames:
        raise ValueError("no frames to tile")
    pictures = [as_rgb(frame) for frame in frames]
    rows, columns = grid_shape(len(pictures))
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    stride = max(1, math.ceil(math.sqrt(rows * height * columns * width / max_pixels)))
    height, width = -(-height // stride), -(-width // stride)
    whole = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), np.uint8)
    for index, picture in enumerate(pictures):
        small = picture[::stride, ::stride]
        row, column = divmod(index, columns)
        top = row * (height + GAP) + (height - small.shape[0]) // 2
        left = column * (width + GAP) + (width - small.shape[1]) // 2
        whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole


def as_rgb(frame: Any) -> Pixels:
    """A frame of gray, RGB or RGBA as RGB; the alpha channel is left out. Raises `ValueError` for no frame."""
    pixels = as_pixels(frame)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return pixels[:, :, :3]


def as_pixels(frame: Any) -> Pixels:
    """A frame as an array of uint8 (height, width) or (height, width, 1, 3 or 4); raises `ValueError` for no frame.

    Floats are taken as 0 to 1, as some simulators render.
    """
    pixels: NDArray[Any] = np.asarray(frame)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)) or not pixels.size:
        raise ValueError(f"a frame is an array (height, width[, 1, 3 or 4]), this is {_shown(frame, pixels)}")
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(pixels.dtype, np.floating):
        return np.asarray(np.clip(np.nan_to_num(pixels), 0.0, 1.0) * 255, np.uint8)
    if not np.issubdtype(pixels.dtype, np.integer):
        raise ValueError(f"a frame has numbers, this is {_shown(frame, pixels)}")
    return pixels.astype(np.uint8, copy=False)


def _shown(frame: Any, pixels: NDArray[Any]) -> str:
    return f"{type(frame).__name__} of shape {pixels.shape} and type {pixels.dtype}"
