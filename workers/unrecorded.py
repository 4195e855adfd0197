"""Sessions that record nothing: one that does nothing at all, and one that only shows.

Both have every call of a real session, so that scripts need no `if`.
"""

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from runlane.config.settings import FastLaneSettings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.ring_layout import RingInfo
from runlane.workers.episode_tracker import ONE_STEP, EpisodeTracker, VectorTracker
from runlane.workers.fast_lane import FastLane, NoFastLane
from runlane.workers.guarded_call import never_raising
from runlane.workers.shown_step import ShownStep, Standing


class DetachedSession:
    """What `attach()` returns when nothing can record: every call does nothing."""

    is_attached = False
    is_hooked = False
    faults = 0
    env_count: int = 1
    env_steps: int = 0
    can_show = True
    telemetry_mode = TelemetryMode.FAST_LANE_ONLY  # of one that shows; it cannot be switched, for it has no stream

    def __init__(self) -> None:
        """Nothing is opened."""
        self.fast_lane_settings = FastLaneSettings(enabled=False)
        self.lane: FastLane | NoFastLane = NoFastLane()

    def step(self, *arguments: Any, **options: Any) -> None:
        """Do nothing."""

    step_vector = episode = abandon_vector_episodes = final_observation = final_observations = step
    metric = metrics = log = frame = note_facts = before_close = take_back = step

    def beside(self, worker: str) -> "DetachedSession":  # noqa: ARG002
        """Another that records nothing either."""
        return self

    def close(self, state: str = "finished") -> bool:  # noqa: ARG002
        """Nothing was taken, so nothing is left."""
        self.lane.close()
        return True

    def statistics(self) -> dict[str, Any]:
        """No figures."""
        return {}

    def standing(self, env_index: int) -> Standing:  # noqa: ARG002
        """Nowhere."""
        return Standing(0, 0, 0.0)

    def rolling_return(self) -> float:
        """No episode is known."""
        return 0.0

    def ring_info(self) -> RingInfo:
        """Nobody's."""
        return RingInfo(run="", worker="")


class ShownSession(DetachedSession):
    """A session for `fast_lane.only`: frames and HUD for viewers, no records. For one thread.

    Counts steps and episodes as a recording session does, so that the HUD says the same; `step_seq` is 0.
    """

    def __init__(self, info: RingInfo, run_dir: Path, settings: FastLaneSettings) -> None:
        """`run_dir` is that of the graph whose viewers may look, running or not."""
        super().__init__()
        self.fast_lane_settings = settings
        self._info = info
        self._run_dir = run_dir
        self._shown = ShownStep(settings.return_window)
        self._trackers: dict[int, EpisodeTracker] = {}
        self._vector: VectorTracker | None = None
        self.lane = FastLane(self, run_dir, settings) if settings.enabled else NoFastLane()

    @never_raising
    def step(
        self,
        action: Any = None,  # noqa: ARG002
        reward: float = 0.0,
        terminated: bool = False,
        truncated: bool = False,
        observation: Any = None,  # noqa: ARG002
        info: Any = None,  # noqa: ARG002
        env_index: int = 0,
        is_reset: bool = False,
        is_human: bool = False,  # noqa: ARG002
    ) -> None:
        """Count one step."""
        if is_reset:
            return
        self.env_steps += 1
        tracker = self._track(env_index)
        tracker.place += ONE_STEP
        tracker.episode_return += float(reward)
        if terminated or truncated:
            self._end(tracker, env_index)

    @never_raising
    def step_vector(
        self,
        actions: Any,  # noqa: ARG002
        rewards: Any,
        terminated: Any,
        truncated: Any,
        *,
        observations: Any = None,  # noqa: ARG002
        is_reset: Any = None,
    ) -> None:
        """Count one step of n environments."""
        values = np.asarray(rewards, np.float64).reshape(-1)
        vector = self._vector
        if vector is None or vector.env_count != values.size:
            vector = self._vector = VectorTracker(values.size)
        resets = None if is_reset is None else np.asarray(is_reset, bool)
        vector.count(values, resets, time.time_ns())
        self.env_steps += values.size - (0 if resets is None else int(resets.sum()))
        ended = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        for index in np.flatnonzero(ended if resets is None else ended & ~resets):
            self._end_vector(vector, int(index))

    @never_raising
    def episode(self, episode_return: float | None = None, *_: Any, env_index: int = 0, **__: Any) -> None:
        """End the running episode."""
        tracker = self._track(env_index)
        if episode_return is not None:
            tracker.episode_return = float(episode_return)
        elif not tracker.step:
            return
        self._end(tracker, env_index)

    @never_raising
    def abandon_vector_episodes(self, is_abandoned: Any = None) -> None:
        """End running episodes of a vector environment."""
        vector = self._vector
        if vector is None:
            return
        for index in vector.begun(is_abandoned):
            self._end_vector(vector, index)

    def beside(self, worker: str) -> "ShownSession":
        """Another of the same run."""
        return ShownSession(msgspec.structs.replace(self._info, worker=worker), self._run_dir, self.fast_lane_settings)

    def frame(self, frame: Any, *, reward: float = float("nan"), env_index: int = 0) -> None:
        """As `WorkerSession.frame`."""
        self.lane.offer(frame, reward=reward, env_index=env_index)

    def standing(self, env_index: int) -> Standing:
        """Where an environment stands after the newest step."""
        vector = self._vector
        if vector is not None and env_index < vector.env_count:
            return self._shown.standing(env_index, self.env_steps, *vector.running(env_index))._replace(step_seq=0)
        tracker = self._track(env_index)
        found = self._shown.standing(env_index, self.env_steps, tracker.place, tracker.episode_return)
        return found._replace(step_seq=0)

    def rolling_return(self) -> float:
        """Mean return of the newest episodes."""
        return self._shown.mean_return()

    def ring_info(self) -> RingInfo:
        """What our ring says of itself."""
        return msgspec.structs.replace(self._info, env_count=self.env_count)

    def statistics(self) -> dict[str, Any]:
        """Figures of this session."""
        return {"env_steps": self.env_steps, "faults": self.faults}

    def _track(self, env_index: int) -> EpisodeTracker:
        return self._trackers.setdefault(env_index, EpisodeTracker())

    def _end(self, tracker: EpisodeTracker, env_index: int) -> None:
        self._shown.note_end(env_index, Standing(self.env_steps, tracker.place, tracker.episode_return))
        tracker.begin_next()

    def _end_vector(self, vector: VectorTracker, index: int) -> None:
        self._shown.note_end(index, Standing(self.env_steps, *vector.running(index)))
        vector.begin_next(index)
