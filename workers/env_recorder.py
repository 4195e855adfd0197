"""What is recorded of an environment that somebody else steps: by the wrapper, and by the zero-edit hook.

An `EnvRecorder` is told of every reset and step of one scalar environment, a `VectorRecorder` of those of a vector
environment. They know sessions and frames, and import no Gymnasium: 0.29, 1.x and the old `gym` are alike here.
"""

import math
import sys
import time
from typing import Any, Literal, cast

import numpy as np

from runlane.config import log_ids
from runlane.transport.log import log_event
from runlane.workers.attachment import Session
from runlane.workers.env_frames import VectorFrames, frames_of
from runlane.workers.final_observation import LastObservation, LastObservations
from runlane.workers.plain_values import number_of

AutoresetText = Literal["NextStep", "SameStep", "Disabled"]

_NUMBERS = {float, int, bool, np.float64, np.float32, np.int64, np.int32}
_PLAIN = {*_NUMBERS, np.ndarray}
_FLAGS = {bool, np.bool_}
_monotonic_ns = time.monotonic_ns


def ends_of(result: Any) -> tuple[Any, Any, bool, bool]:
    """Observation, reward, terminated and truncated of the four values that a `step` of old `gym` returns."""
    observation, reward, is_done, info = result
    is_cut = bool(is_done) and bool(info.get("TimeLimit.truncated", False))
    return observation, reward, bool(is_done) and not is_cut, is_cut


def is_on_device(value: Any) -> bool:
    """Whether it is a tensor on a device, which to read would make the host wait for the device."""
    device = getattr(value, "device", None)
    if callable(device):  # JAX before 0.4.31
        device = device()
    return device is not None and not str(device).lower().startswith(("cpu", "tfrt_cpu"))


class DeviceWatch:
    """Leaves alone what lies on a device, and says so once: it is never read, so it cannot be recorded."""

    def __init__(self, session: Session) -> None:
        """`session` is told."""
        self._session = session
        self._is_told = False

    def holds(self, value: Any) -> bool:
        """Whether this value is to be left alone."""
        if not is_on_device(value):
            return False
        if not self._is_told:
            self._is_told = True
            text = f"values on {value.device} are not recorded: to read them would make every step wait for the device"
            self._session.log(f"{text}; step a copy on the CPU, or record what matters with attach()", "warning")
            log_event(log_ids.WORKER_FAULT, where="hook", error=text, count=1)
        return True


class EnvRecorder:
    """Of one scalar environment."""

    __slots__ = ("_device", "_is_told", "_lane", "_last", "_render", "has_ended", "session")

    def __init__(self, session: Session, shown_env: Any, with_observations: bool) -> None:
        """`shown_env` is what is rendered while somebody watches."""
        self.session = session
        self._last = LastObservation(session) if with_observations else None
        self._lane = session.lane
        self._render = frames_of(shown_env)
        self._device = DeviceWatch(session)
        self._is_told = False
        self.has_ended = False  # by the newest step

    def note_reset(self, observation: Any) -> None:
        """It was reset. An episode that had not ended is recorded as abandoned."""
        self.has_ended = False
        if self._last is None:
            self.session.episode(outcome="abandoned")
        else:
            self._last.begin(observation)

    def note_step(self, action: Any, result: Any, is_reset: bool = False) -> None:
        """It was stepped, and returned that."""
        if len(result) == 5:
            observation, reward, terminated, truncated, _ = result
        else:
            observation, reward, terminated, truncated = ends_of(result)
        if type(reward) not in _NUMBERS or type(terminated) not in _FLAGS or type(action) not in _PLAIN:
            if self._device.holds(reward) or self._device.holds(terminated) or self._device.holds(truncated):
                return
            action = None if self._device.holds(action) else action
            reward = self._number(reward)
        ended = bool(terminated or truncated)
        is_reset = is_reset and not ended
        if (last := self._last) is not None:
            if is_reset:  # its row is there since the episode ended, with the final observation
                last.begin(observation)
            else:
                self.session.step(action, reward, terminated, truncated, observation=last.observation)
                last.note(observation, is_end=ended)
        elif is_reset:
            self.session.step(action, reward, terminated, truncated, is_reset=True)
        else:
            self.session.step(action, reward, terminated, truncated)
        self.has_ended = ended
        lane = self._lane
        if (now_ns := _monotonic_ns()) >= lane.next_ns and lane.is_due(now_ns):
            lane.show(self._render, reward)

    def _number(self, reward: Any) -> float:
        """A reward that is no plain number. One that is several, or none, is recorded as NaN: the step happened."""
        try:
            return number_of(np.asarray(cast("Any", reward)) if isinstance(reward, list | tuple) else reward)
        except (TypeError, ValueError) as error:
            if not self._is_told:
                self._is_told = True
                self.session.log(f"rewards that are no number are recorded as NaN: {error}", "warning")
            return math.nan

    def close(self) -> None:
        """It is closed, or gone: an episode that had not ended is abandoned, if its observations are recorded."""
        if self._last is not None:
            self._last.close()


class VectorRecorder:
    """Of one vector environment, with autoreset steps flagged."""

    def __init__(self, session: Session, env: Any, with_observations: bool, per_env_rows: bool) -> None:
        """`env` is the vector environment that is stepped."""
        self.session = session
        self._count = int(env.num_envs)
        self._per_env_rows = per_env_rows
        mode = autoreset_text(env)
        self._resets_next, self._resets_same = mode == "NextStep", mode == "SameStep"
        self._last: LastObservations | None = None
        if with_observations:
            ways = {"resets_next": self._resets_next, "resets_same": self._resets_same, "per_env": per_env_rows}
            self._last = LastObservations(session, self._count, **ways)
        self._has_ended = np.zeros(self._count, bool)
        self._device = DeviceWatch(session)
        self._lane = session.lane
        self._frames = VectorFrames(env, session.fast_lane_settings)
        session.env_count = self._count

    def note_reset(self, observations: Any, mask: Any) -> None:
        """All were reset, or those of a mask. Episodes that had not ended are abandoned."""
        if self._last is not None:
            self._last.begin(observations, mask)
        elif self._per_env_rows:
            for index in range(self._count) if mask is None else np.flatnonzero(mask):
                self.session.episode(outcome="abandoned", env_index=int(index))
        else:
            self.session.abandon_vector_episodes(mask)
        self._has_ended[:] = False if mask is None else self._has_ended & ~np.asarray(mask, bool)

    def note_step(self, actions: Any, result: Any) -> None:
        """All were stepped, and returned that."""
        observations, rewards, terminated, truncated = result[:4]
        if rewards.__class__ is not np.ndarray or actions.__class__ is not np.ndarray:
            if self._device.holds(rewards) or self._device.holds(terminated):
                return
            actions = None if self._device.holds(actions) else actions
        is_reset = self._has_ended.copy() if self._resets_next else None
        self._record(actions, rewards, terminated, truncated, is_reset)
        self._has_ended = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        if self._last is not None:
            self._last.note(observations, self._has_ended, is_reset, result[4])
        lane = self._lane
        if (now_ns := _monotonic_ns()) >= lane.next_ns and lane.is_due(now_ns):
            shown = self._frames.choose(lane.wants_tile)
            index = shown.env_index
            if self._resets_same and self._has_ended[index]:
                lane.postpone()  # what it would draw is the next episode's first state, which is no step's
            else:
                lane.show(shown.render, rewards[index], index, tiles=shown.tiles)

    def close(self) -> None:
        """As that of an `EnvRecorder`."""
        if self._last is not None:
            self._last.close()

    def _record(self, actions: Any, rewards: Any, terminated: Any, truncated: Any, is_reset: Any) -> None:
        observed = None if self._last is None else self._last.observations
        if not self._per_env_rows:
            self.session.step_vector(actions, rewards, terminated, truncated, observations=observed, is_reset=is_reset)
            return
        for index in range(self._count):
            self.session.step(
                actions[index],
                float(rewards[index]),
                bool(terminated[index]),
                bool(truncated[index]),
                observation=None if observed is None else observed[index],
                env_index=index,
                is_reset=is_reset is not None and bool(is_reset[index]),
            )


def autoreset_text(env: Any) -> AutoresetText:
    """How a vector environment resets, as Gymnasium spells it.

    Where it does not say: in the next step since Gymnasium 1.0, in the same one before.
    """
    metadata: dict[str, Any] = getattr(env, "metadata", None) or {}
    mode = metadata.get("autoreset_mode")
    if mode is None:
        library = sys.modules.get("gymnasium")
        is_new = library is not None and not str(getattr(library, "__version__", "1")).startswith("0.")
        return "NextStep" if is_new else "SameStep"
    text = str(getattr(mode, "value", mode))
    return "SameStep" if text == "SameStep" else "Disabled" if text == "Disabled" else "NextStep"
