"""RunlaneCallback: records a Stable-Baselines3 training. The only file that imports Stable-Baselines3 for it.

Every step of every environment of the `VecEnv`, as the callback is told it: SB3 resets an environment inside the step
that ended its episode, so there are no rows of resets. `info["TimeLimit.truncated"]` tells an end by the time limit
from a real one. Rewards are the environment's own where `VecNormalize` scales them.
"""

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from runlane.config import log_ids
from runlane.transport.log import log_event
from runlane.transport.records import RunState
from runlane.workers import Session, attach, hooked_session
from runlane.workers.env_frames import VectorFrames
from runlane.workers.sb3_config import config_of
from runlane.workers.scalar import record_scalars

_callbacks: Any = import_module("stable_baselines3.common.callbacks")
_logger: Any = import_module("stable_baselines3.common.logger")
_monotonic_ns = time.monotonic_ns


class RunlaneCallback(_callbacks.BaseCallback):  # type: ignore[misc]
    """`model.learn(..., callback=RunlaneCallback())`: steps, episodes, logged values and, while watched, frames.

    The session stays open between two calls of `learn`, so that one callback may be used for both; `close()` ends it,
    or else the end of the process. Where `runlane run` has hooked the environments and the logger already, this
    records nothing a second time; `records_anyway` says that the script has taken its environments out of that.
    """

    def __init__(
        self,
        *,
        session: Session | None = None,
        name: str | None = None,
        worker: str | None = None,
        config: Mapping[str, Any] | None = None,
        records_anyway: bool = False,
        verbose: int = 0,
    ) -> None:
        """`session` is one of your own; `name`, `worker` and `config` are for the one opened otherwise.

        To the model's hyper-parameters `config` adds yours.
        """
        _callbacks.BaseCallback.__init__(self, verbose)
        self.session = session
        self.faults = 0
        self._options = {"name": name, "worker": worker}
        self._config = dict(config or {})
        self._is_off = False
        self._records_anyway = records_anyway
        self._frames: VectorFrames | None = None
        self._format: Any = None
        self._normaliser: Any = None

    def _on_training_start(self) -> None:
        try:
            self._open(self.training_env)
        except Exception as error:
            self._fault(error)

    def _open(self, env: Any) -> None:
        """Find or open the session, and ask SB3's logger for what it logs."""
        config = {**config_of(self.model, self.locals.get("total_timesteps")), **self._config}
        self._is_off = hooked_session.is_armed() and not self._records_anyway
        if self._is_off:
            hooked_session.note_config(config)
            return
        if self.session is None:
            name = self._options["name"] or config["environment"].get("id")
            self.session = attach(name, worker=self._options["worker"], config=config)
        self.session.env_count = env.num_envs
        self._abandon()
        self._frames = VectorFrames(ShownVecEnv(env), self.session.fast_lane_settings)
        self._normaliser = self.model.get_vec_normalize_env()
        if self._format is None:
            self._format = _output_format(self.session)
        if self._format not in self.logger.output_formats:
            self.logger.output_formats.append(self._format)

    def _abandon(self) -> None:
        """Episodes of an earlier `learn` that this one's reset has cut off."""
        if self.session is not None and self.locals.get("reset_num_timesteps", True):
            self.session.abandon_vector_episodes()

    def _on_step(self) -> bool:
        if self.session is not None and self._frames is not None and not self._is_off:
            try:
                self._record(self.session, self._frames)
            except Exception as error:  # a `VecEnv` of somebody's own: whatever it is, training goes on
                self._fault(error)
        return True

    def _record(self, session: Session, frames: VectorFrames) -> None:
        """The step that was just made, and a frame where one is due."""
        found = self.locals
        ends = np.asarray(found["dones"], bool)
        is_cut = np.zeros(len(ends), bool)
        for index in np.flatnonzero(ends):
            is_cut[index] = bool(found["infos"][index].get("TimeLimit.truncated", False))
        # What the environment got: a Gaussian policy's actions are clipped to the space on their way.
        actions = found.get("clipped_actions", found["actions"])
        rewards = found["rewards"] if self._normaliser is None else self._normaliser.get_original_reward()
        session.step_vector(actions, rewards, ends & ~is_cut, is_cut)
        lane = session.lane
        if (now_ns := _monotonic_ns()) >= lane.next_ns and lane.is_due(now_ns):
            shown = frames.choose(lane.wants_tile)
            if ends[shown.env_index]:
                lane.postpone()  # it was reset inside this step: its picture is no step's
            else:
                lane.show(shown.render, rewards[shown.env_index], shown.env_index, tiles=shown.tiles)

    def _fault(self, error: Exception) -> None:
        self.faults += 1
        if self.faults == 1:
            shown = f"{type(error).__name__}: {error}"
            log_event(log_ids.WORKER_FAULT, where="RunlaneCallback", error=shown, count=1)

    def _on_training_end(self) -> None:
        if self._format in self.logger.output_formats:
            self.logger.output_formats.remove(self._format)

    def close(self, state: RunState = "finished") -> None:
        """Close the session and wait for its last ack."""
        if self.session is not None:
            self.session.close(state)


class ShownVecEnv:
    """A `VecEnv` as `VectorFrames` wants it: environments that can be drawn one by one, wherever they live."""

    def __init__(self, vec_env: Any) -> None:
        """`vec_env` may be a `DummyVecEnv`, a `SubprocVecEnv`, or either in wrappers."""
        self.num_envs = int(vec_env.num_envs)
        self.envs = [_ShownEnv(vec_env, index) for index in range(self.num_envs)]
        self.unwrapped = self


class _ShownEnv:
    def __init__(self, vec_env: Any, index: int) -> None:
        self._vec_env, self._index = vec_env, index
        self.render_mode = getattr(vec_env, "render_mode", None)
        self.unwrapped = self

    def render(self) -> Any:
        return self._vec_env.env_method("render", indices=[self._index])[0]


def _output_format(session: Session) -> Any:
    """SB3's own way to hand on what it logs."""

    class RunlaneOutputFormat(_logger.KVWriter):  # type: ignore[misc]
        is_runlane = True  # for the zero-edit hook, which then does not record the same

        def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:  # noqa: ARG002
            record_scalars(session, key_values, step)

        def close(self) -> None:
            """The session is closed by whoever opened it."""

    return RunlaneOutputFormat()
