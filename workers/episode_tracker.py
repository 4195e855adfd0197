"""Counts episodes where they happen, so that every row knows its episode and every episode its return.

Episodes and steps count from 1; a reset row has step 0 and counts for nothing.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runlane.transport.records import IS_RESET, TERMINATED, TRUNCATED

# Added to a tracker's `place` for every step.
ONE_STEP = 1 << 32
_EPISODE = ONE_STEP - 1


class EpisodeTracker:
    """One environment's running episode. `place` is episode + (step << 32), as both stand in a row."""

    __slots__ = ("episode_return", "place", "started_ns")

    def __init__(self, episode: int = 1, step: int = 0, episode_return: float = 0.0, started_ns: int = 0) -> None:
        """The first episode, before its first step."""
        self.place = episode + (step << 32)
        self.episode_return = episode_return
        self.started_ns = started_ns

    @property
    def episode(self) -> int:
        """Number of the episode, from 1."""
        return self.place & _EPISODE

    @property
    def step(self) -> int:
        """Steps made in it."""
        return self.place >> 32

    @step.setter
    def step(self, step: int) -> None:
        self.place = self.episode + (step << 32)

    def begin_next(self) -> None:
        """The episode ended; the next one has no step yet."""
        self.place = self.episode + 1
        self.episode_return = 0.0
        self.started_ns = 0


@dataclass(slots=True)
class VectorTracker:
    """The running episodes of n environments, as arrays of n."""

    env_count: int
    episode: NDArray[np.uint32] = field(init=False)
    step: NDArray[np.uint32] = field(init=False)
    episode_return: NDArray[np.float64] = field(init=False)
    started_ns: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        """All in their first episode, before the first step."""
        self.episode = np.ones(self.env_count, np.uint32)
        self.step = np.zeros(self.env_count, np.uint32)
        self.episode_return = np.zeros(self.env_count, np.float64)
        self.started_ns = np.zeros(self.env_count, np.int64)

    def flags(self, terminated: Any, truncated: Any, is_reset: Any) -> NDArray[np.uint8]:
        """One byte of flags per environment."""
        bits = np.asarray(terminated, bool).astype(np.uint8) * TERMINATED
        bits |= np.asarray(truncated, bool).astype(np.uint8) * TRUNCATED
        if is_reset is not None:
            bits |= np.asarray(is_reset, bool).astype(np.uint8) * IS_RESET
        return np.broadcast_to(bits, self.env_count)  # raises `ValueError` where there are more or fewer

    def count(self, rewards: NDArray[np.float64], is_reset: NDArray[np.bool_] | None, t_ns: int) -> None:
        """Add one step to every environment that made one."""
        made = np.ones(self.env_count, bool) if is_reset is None else ~is_reset
        self.started_ns[made & (self.step == 0)] = t_ns
        self.step += made.astype(np.uint32)
        self.episode_return += np.where(made, rewards, 0.0)

    def running(self, index: int) -> tuple[int, float]:
        """Place (as in an `EpisodeTracker`) and return so far of environment `index`."""
        return int(self.episode[index]) + (int(self.step[index]) << 32), float(self.episode_return[index])

    def begun(self, mask: Any = None) -> list[int]:
        """Environments, of those in a mask of n or of all, whose episode has a step."""
        running = self.step > 0
        return np.flatnonzero(running if mask is None else running & np.asarray(mask)).tolist()

    def begin_next(self, index: int) -> None:
        """The episode of environment `index` ended."""
        self.episode[index] += 1
        self.step[index] = 0
        self.episode_return[index] = 0.0
