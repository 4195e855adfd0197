"""Tiling: where every pixel of every frame comes to lie."""

from typing import Any

import numpy as np
import pytest

from runlane.workers.tiling import GAP, as_pixels, as_rgb, grid_shape, tile

MANY = 1 << 30


def plain(height: int, width: int, value: int, channels: int = 3) -> Any:
    return np.full((height, width, channels) if channels else (height, width), value, np.uint8)


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (4, (2, 2)), (5, (2, 3)), (9, (3, 3)), (10, (3, 4))]
)
def test_a_grid_is_nearly_square(count: int, shape: tuple[int, int]) -> None:
    """And never higher than wide."""
    assert grid_shape(count) == shape


def test_tiles_lie_from_left_to_right_and_from_the_top() -> None:
    """With a dark gap between, and black where the last row has no tile."""
    whole = tile([plain(4, 6, value) for value in (10, 20, 30)], MANY)
    assert whole.shape == (8 + GAP, 12 + GAP, 3)
    assert (whole[:4, :6] == 10).all()
    assert (whole[:4, 6 + GAP :] == 20).all()
    assert (whole[4 + GAP :, :6] == 30).all()
    assert not whole[4 + GAP :, 6 + GAP :].any()
    assert not whole[4 : 4 + GAP].any()


def test_unequal_frames_are_centred_in_the_largest() -> None:
    """Letterboxed, not stretched."""
    whole = tile([plain(4, 8, 1), plain(2, 4, 2)], MANY)
    second = whole[:, 8 + GAP :]
    assert (second[1:3, 2:6] == 2).all()
    assert second.sum() == 2 * 2 * 4 * 3


def test_a_grid_has_no_more_pixels_than_allowed() -> None:
    """Every n-th pixel of each frame is taken, so that nothing is cut off."""
    frame = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    whole = tile([frame] * 4, 2_400)
    assert (whole.shape[0] - GAP) * (whole.shape[1] - GAP) <= 2_400
    assert np.array_equal(whole[:20, :30], frame[::2, ::2])


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_every_kind_of_frame_becomes_rgb(channels: int) -> None:
    """Gray thrice, alpha left out."""
    assert np.array_equal(as_rgb(plain(2, 3, 7, channels)), plain(2, 3, 7))


@pytest.mark.parametrize("frame", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 2)), "text", None, np.array(["a"])])
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    """By its shape or its type, which the error names."""
    with pytest.raises(ValueError, match="a frame"):
        as_pixels(frame)


def test_no_frames_make_no_grid() -> None:
    """Nobody has drawn yet."""
    with pytest.raises(ValueError, match="no frames"):
        tile([], MANY)


def test_floats_are_from_nought_to_one() -> None:
    """As some simulators render; what lies outside is cut, NaN is black."""
    pixels = as_pixels(np.array([[0.0, 0.5, 1.0], [-1.0, 2.0, np.nan]]))
    assert pixels.tolist() == [[0, 127, 255], [0, 255, 0]]
