"""wrap(env): record a Gymnasium environment as it is stepped. The only file here that imports Gymnasium.

What the environment returns is passed on untouched. Autoreset, for vector environments (Gymnasium ≥ 1.0,
`metadata["autoreset_mode"]`):

    NEXT_STEP  the step after an episode's end only resets: its action is ignored. Recorded, flagged is_reset.
    SAME_STEP  the reset happens inside the step that ended the episode. Nothing extra to record.
    DISABLED   the script resets by itself, with `options["reset_mask"]` or all at once.
"""

import time
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from runlane.workers.attach import Session, attach
from runlane.workers.env_frames import VectorFrames, frames_of
from runlane.workers.final_observation import LastObservation, LastObservations

_monotonic_ns = time.monotonic_ns


def wrap(
    env: Any,
    *,
    session: Session | None = None,
    name: str | None = None,
    worker: str | None = None,
    config: Mapping[str, Any] | None = None,
    with_observations: bool = False,
    per_env_rows: bool = False,
) -> Any:
    """Return `env`, recording. Scalar and vector environments both; `env.session` is the session.

    `with_observations` stores the observation each action was chosen on, and of each episode the final one, too.
    `per_env_rows` stores a vector step as
    n rows instead of one packed row. Closing the environment closes a session that `wrap` opened itself.
    Raises `TypeError` for anything but a Gymnasium environment.
    """
    if not isinstance(env, gymnasium.Env | VectorEnv):
        raise TypeError(f"wrap() takes a Gymnasium environment, got {type(env).__name__}")
    is_own = session is None
    chosen = session or attach(name or _name_of(env), worker=worker, config=config)
    if isinstance(env, VectorEnv):
        return RecordedVectorEnv(env, chosen, is_own, with_observations, per_env_rows)
    return RecordedEnv(env, chosen, is_own, with_observations)


def _name_of(env: Any) -> str | None:
    spec = getattr(env, "spec", None)
    return str(spec.id) if spec is not None else None


class RecordedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A scalar environment whose every step is recorded."""

    def __init__(self, env: Any, session: Session, is_own: bool, with_observations: bool) -> None:
        """Use `wrap`."""
        super().__init__(env)
        self.session = session
        self._is_own = is_own
        self._last = LastObservation(session) if with_observations else None
        self._lane = session.lane
        self._render = frames_of(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset. An episode that had not ended is recorded as abandoned."""
        observation, info = self.env.reset(seed=seed, options=options)
        if self._last is None:
            self.session.episode(outcome="abandoned")
        else:
            self._last.begin(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, record, return what the environment returned."""
        result = self.env.step(action)
        observation, reward, terminated, truncated, _ = result
        if (last := self._last) is not None:
            self.session.step(action, reward, terminated, truncated, observation=last.observation)  # type: ignore[arg-type]
            last.note(observation, is_end=bool(terminated or truncated))
        else:
            self.session.step(action, reward, terminated, truncated)  # type: ignore[arg-type]
        lane = self._lane
        if (now_ns := _monotonic_ns()) >= lane.next_ns and lane.is_due(now_ns):
            lane.show(self._render, reward)
        return result

    def close(self) -> None:
        """Close the environment, then the session if `wrap` opened it."""
        super().close()
        if self._last is not None:
            self._last.finish()
        if self._is_own:
            self.session.close()


class RecordedVectorEnv(VectorWrapper):
    """A vector environment whose every step is recorded, with autoreset steps flagged."""

    def __init__(self, env: Any, session: Session, is_own: bool, with_observations: bool, per_env_rows: bool) -> None:
        """Use `wrap`."""
        super().__init__(env)
        self.session = session
        self._is_own = is_own
        self._per_env_rows = per_env_rows
        self._resets_next = autoreset_mode(env) is AutoresetMode.NEXT_STEP
        self._resets_same = autoreset_mode(env) is AutoresetMode.SAME_STEP
        self._last: LastObservations | None = None
        if with_observations:
            ways = {"resets_next": self._resets_next, "resets_same": self._resets_same, "per_env": per_env_rows}
            self._last = LastObservations(session, env.num_envs, **ways)
        self._has_ended = np.zeros(env.num_envs, bool)
        self._lane = session.lane
        self._frames = VectorFrames(env, session.fast_lane_settings)
        session.env_count = env.num_envs

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all, or those of `options["reset_mask"]`. Episodes that had not ended are abandoned."""
        mask = options.get("reset_mask") if options else None  # Gymnasium takes it out of the map
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # its hint forbids a list, its code takes one
        if self._last is not None:
            self._last.begin(observations, mask)
        elif self._per_env_rows:
            for index in range(self.num_envs) if mask is None else np.flatnonzero(mask):
                self.session.episode(outcome="abandoned", env_index=int(index))
        else:
            self.session.abandon_vector_episodes(mask)
        self._has_ended[:] = False if mask is None else self._has_ended & ~np.asarray(mask, bool)
        return observations, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all, record, return what the environment returned."""
        result = self.env.step(actions)
        observations, rewards, terminated, truncated, infos = result
        is_reset = self._has_ended.copy() if self._resets_next else None
        self._record(actions, rewards, terminated, truncated, is_reset)
        self._has_ended = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        if self._last is not None:
            self._last.note(observations, self._has_ended, is_reset, infos)
        lane = self._lane
        if (now_ns := _monotonic_ns()) >= lane.next_ns and lane.is_due(now_ns):
            shown = self._frames.choose(lane.wants_tile)
            index = shown.env_index
            if self._resets_same and self._has_ended[index]:
                lane.postpone()  # what it would draw is the next episode's first state, which is no step's
            else:
                lane.show(shown.render, rewards[index], index, tiles=shown.tiles)
        return result

    def _record(self, actions: Any, rewards: Any, terminated: Any, truncated: Any, is_reset: Any) -> None:
        observed = None if self._last is None else self._last.observations
        if not self._per_env_rows:
            self.session.step_vector(actions, rewards, terminated, truncated, observations=observed, is_reset=is_reset)
            return
        for index in range(self.num_envs):
            self.session.step(
                actions[index],
                float(rewards[index]),
                bool(terminated[index]),
                bool(truncated[index]),
                observation=None if observed is None else observed[index],
                env_index=index,
                is_reset=is_reset is not None and bool(is_reset[index]),
            )

    def close(self, **options: Any) -> None:
        """Close the environment, then the session if `wrap` opened it."""
        super().close(**options)
        if self._last is not None:
            self._last.finish()
        if self._is_own:
            self.session.close()


def autoreset_mode(env: Any) -> AutoresetMode:
    """How a vector environment resets; Gymnasium's default where it does not say."""
    metadata: dict[str, Any] = env.metadata or {}
    mode = metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    return mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
