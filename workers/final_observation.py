"""The final observation of every episode, kept at hand until the episode has ended, in whatever way it does.

For wrappers that record observations: each tells what an environment returned, and the session gets the observation
that no step's row has (`WorkerSession.final_observation`). An episode that a reset, a `close()` or the end of the
script cuts off is recorded as abandoned, and its final observation is the newest there was.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runlane.workers.attachment import Session

# Gymnasium from 1.0 on, and before. Both reset inside the step that ends an episode, and leave its observation here.
_NAMES = ("final_obs", "final_observation")


class LastObservation:
    """The newest observation of one environment."""

    __slots__ = ("_env_index", "_is_running", "_session", "observation")

    def __init__(self, session: Session, env_index: int = 0) -> None:
        """Nothing is observed yet. The session ends a running episode by this, when it is closed."""
        self._session = session
        self._env_index = env_index
        self._is_running = False
        self.observation: Any = None
        session.before_close(self.finish)

    def begin(self, observation: Any) -> None:
        """A reset returned this. The episode before it, if it had not ended, is abandoned."""
        self.finish()
        self.observation = _copy(observation)

    def note(self, observation: Any, *, is_end: bool) -> None:
        """A step that was recorded led to this. The environment may write its next one into the same array."""
        self.observation = _copy(observation)
        self._is_running = not is_end
        if is_end:
            self._session.final_observation(observation, self._env_index)

    def finish(self) -> None:
        """Nothing follows: abandon a running episode."""
        if self._is_running:
            self._is_running = False
            self._session.episode(outcome="abandoned", env_index=self._env_index)
            self._session.final_observation(self.observation, self._env_index)

    def close(self) -> None:
        """Nothing follows for good: let the session go."""
        self.finish()
        self._session.take_back(self.finish)


class LastObservations:
    """The newest observations of n environments that are stepped together."""

    def __init__(
        self, session: Session, env_count: int, *, resets_next: bool, resets_same: bool, per_env: bool
    ) -> None:
        """How they reset: in the next step, in the same one, or else by hand. `per_env`: rows are those of one each."""
        self._session = session
        self._resets_next = resets_next
        self._resets_same = resets_same
        self._per_env = per_env
        self._is_running = np.zeros(env_count, bool)
        self._is_due = np.zeros(env_count, bool)  # ended, and the reset row that has the final observation is to come
        self.observations: Any = None
        session.before_close(self.finish)

    def begin(self, observations: Any, mask: Any = None) -> None:
        """A reset by hand returned these, of all or of a mask. Episodes that had not ended are abandoned."""
        self.finish(mask)
        self.observations = _copy(observations)

    def note(self, observations: Any, ended: NDArray[np.bool_], is_reset: Any, infos: Mapping[str, Any]) -> None:
        """A step that was recorded led to these."""
        # A vector environment may write its next observations into the same array.
        self.observations = _copy(observations)
        self._is_running = ~ended if is_reset is None else ~(ended | is_reset)
        if self._resets_next:
            self._is_due = ended
        elif ended.any():
            self._write(self._final_of(infos, ended) if self._resets_same else self.observations, ended)

    def finish(self, mask: Any = None) -> None:
        """Nothing follows in all, or in those of a mask: abandon running episodes."""
        chosen = np.ones(len(self._is_running), bool) if mask is None else np.asarray(mask, bool)
        running = self._is_running & chosen
        left = running | (self._is_due & chosen)
        self._is_running, self._is_due = self._is_running & ~chosen, self._is_due & ~chosen
        if running.any() and self._per_env:
            for index in np.flatnonzero(running):
                self._session.episode(outcome="abandoned", env_index=int(index))
        elif running.any():
            self._session.abandon_vector_episodes(running)
        self._write(self.observations, left)

    def close(self) -> None:
        """Nothing follows for good: let the session go."""
        self.finish()
        self._session.take_back(self.finish)

    def _final_of(self, infos: Mapping[str, Any], ended: NDArray[np.bool_]) -> Any:
        """What the environments left of their ended episodes; None where they say nothing."""
        found = next((infos[name] for name in _NAMES if name in infos), None)
        if found is None or not _is_array(self.observations):
            return None
        observations = np.zeros_like(self.observations)
        try:
            for index in np.flatnonzero(ended):
                observations[index] = found[index]
        except (IndexError, KeyError, TypeError, ValueError):  # an environment of its own ways: no final observation
            return None
        return observations

    def _write(self, observations: Any, is_final: NDArray[np.bool_]) -> None:
        if not _is_array(observations) or not is_final.any():
            return
        if self._per_env:
            for index in np.flatnonzero(is_final):
                self._session.final_observation(observations[index], int(index))
        else:
            self._session.final_observations(observations, is_final)


def _copy(observations: Any) -> Any:
    """An array of one's own. What is no array (Dict and Tuple spaces) cannot be packed and is left alone."""
    return observations.copy() if _is_array(observations) else observations


def _is_array(observations: Any) -> bool:
    return hasattr(observations, "dtype")
