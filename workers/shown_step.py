"""ShownStep: which step a frame shows, found after the step at no cost to it.

A frame belongs to the newest step record, but other records (its episode's, its info, a metric) may be in the journal
behind it, and its episode's tracker has begun anew. So these rarer moments leave a note here; the step leaves none.
"""

from collections import deque
from typing import NamedTuple


class Standing(NamedTuple):
    """Where an environment stands: seq of its step record (0: not recorded), place, return of the episode so far.

    `place` is episode + (step << 32), as in an `EpisodeTracker`.
    """

    step_seq: int
    place: int
    episode_return: float


class ShownStep:
    """Notes of one stream; `returns` are those of its newest ended episodes."""

    __slots__ = ("_behind_seq", "_ended", "_other_seq", "_row_seqs", "_step_seq", "returns")

    def __init__(self, window: int) -> None:
        """`window` is how many returns are kept."""
        self.returns: deque[float] = deque(maxlen=window)
        self._behind_seq = 0
        self._step_seq = 0
        self._ended: dict[int, Standing] = {}
        # Rows of environments beside the first one, and the newest of them; the first one's when others came after it.
        self._row_seqs: dict[int, int] = {}
        self._other_seq = -1

    def step_seq(self, newest_seq: int) -> int:
        """Seq of the newest step record, when `newest_seq` is that of the newest record of any kind."""
        return self._step_seq if newest_seq == self._behind_seq else newest_seq

    def note_behind(self, newest_seq: int, step_seq: int) -> None:
        """The newest record is `newest_seq` and no step; the step before it is `step_seq`, 0 if that was dropped."""
        self._behind_seq, self._step_seq = newest_seq, step_seq

    def note_row(self, env_index: int, before_seq: int, row_seq: int) -> None:
        """A row of one environment of several is `row_seq`, 0 if dropped; the newest step before it is `before_seq`."""
        if env_index:
            if before_seq != self._other_seq:
                self._row_seqs[0] = before_seq
            self._other_seq = row_seq
            self._row_seqs[env_index] = row_seq

    def row_seq(self, env_index: int, newest_seq: int) -> int:
        """Seq of the newest row of an environment that has rows of its own."""
        step_seq = self.step_seq(newest_seq)
        if env_index or step_seq == self._other_seq:
            return self._row_seqs.get(env_index, 0)
        return step_seq

    def note_end(self, env_index: int, standing: Standing) -> None:
        """An environment's episode ended with this step."""
        self._ended[env_index] = standing
        self.returns.append(standing.episode_return)

    def standing(self, env_index: int, step_seq: int, place: int, episode_return: float) -> Standing:
        """Where an environment stands after the step `step_seq`; the rest is as its tracker says now."""
        ended = self._ended.get(env_index)
        if ended is not None and ended.step_seq == step_seq and not place >> 32:
            return ended
        return Standing(step_seq, place, episode_return)

    def mean_return(self) -> float:
        """Mean of the returns kept; 0 before the first."""
        return sum(self.returns) / len(self.returns) if self.returns else 0.0
