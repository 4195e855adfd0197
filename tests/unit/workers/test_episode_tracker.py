"""Trackers count episodes and steps from 1, and a reset for nothing."""

import struct
from typing import Any

import numpy as np
import pytest

from runlane.transport.records import IS_RESET, TERMINATED, TRUNCATED
from runlane.workers.episode_tracker import ONE_STEP, EpisodeTracker, VectorTracker


def _figures(tracker: EpisodeTracker) -> tuple[int, int, float, int]:
    return tracker.episode, tracker.step, tracker.episode_return, tracker.started_ns


def test_an_episode_begins_with_nothing() -> None:
    """The first is number 1, before its first step."""
    assert _figures(EpisodeTracker()) == (1, 0, 0.0, 0)


def test_the_next_episode_begins_with_nothing() -> None:
    """Only its number rises."""
    tracker = EpisodeTracker(3, 20, 7.5, 99)
    tracker.begin_next()
    assert _figures(tracker) == (4, 0, 0.0, 0)


def test_a_place_is_episode_and_step_as_they_stand_in_a_row() -> None:
    """Eight bytes, both at once, so that one store moves both; a step added is one addition."""
    tracker = EpisodeTracker(3, 20)
    tracker.place += ONE_STEP
    assert _figures(tracker)[:2] == (3, 21)
    tracker.step = 7
    assert _figures(tracker)[:2] == (3, 7)
    assert struct.unpack("<II", tracker.place.to_bytes(8, "little")) == (3, 7)


def test_environments_are_counted_apart() -> None:
    """One that ends does not end its neighbour's episode."""
    vector = VectorTracker(3)
    vector.count(np.array([1.0, 2.0, 3.0]), None, 5)
    vector.begin_next(1)
    vector.count(np.array([1.0, 2.0, 3.0]), None, 9)
    assert vector.episode.tolist() == [1, 2, 1]
    assert vector.step.tolist() == [2, 1, 2]
    assert vector.episode_return.tolist() == [2.0, 2.0, 6.0]
    assert vector.started_ns.tolist() == [5, 9, 5]


def test_a_reset_counts_for_nothing() -> None:
    """Neither as a step nor with its reward, nor does the episode's clock begin."""
    vector = VectorTracker(2)
    vector.count(np.array([1.0, np.nan]), np.array([False, True]), 5)
    assert vector.step.tolist() == [1, 0]
    assert vector.episode_return.tolist() == [1.0, 0.0]
    assert vector.started_ns.tolist() == [5, 0]
    vector.count(np.array([1.0, 1.0]), np.array([False, False]), 9)
    assert vector.started_ns.tolist() == [5, 9]


@pytest.mark.parametrize(
    ("terminated", "truncated", "is_reset", "expected"),
    [
        ([True, False], [False, False], None, [TERMINATED, 0]),
        (np.array([1, 0]), np.array([1, 1]), None, [TERMINATED | TRUNCATED, TRUNCATED]),
        ([False, False], [False, False], [True, False], [IS_RESET, 0]),
        (False, False, None, [0, 0]),
        ([True, True], False, np.array([False, True]), [TERMINATED, TERMINATED | IS_RESET]),
    ],
)
def test_flags_are_one_byte_per_environment(terminated: Any, truncated: Any, is_reset: Any, expected: Any) -> None:
    """Lists, arrays of any truth, and one value for all."""
    flags = VectorTracker(2).flags(terminated, truncated, is_reset)
    assert flags.dtype == np.uint8
    assert flags.tolist() == expected


@pytest.mark.parametrize("size", [0, 3, 4])
def test_flags_of_more_or_fewer_environments_are_refused(size: int) -> None:
    """Never cut or padded: an end would be given to the wrong environment."""
    with pytest.raises(ValueError, match="broadcast"):
        VectorTracker(2).flags([True] * size, [False] * size, None)
