"""wrap(env): record a Gymnasium environment as it is stepped. Imports Gymnasium, which the script has imported before.

What the environment returns is passed on untouched. Autoreset, for vector environments (Gymnasium ≥ 1.0,
`metadata["autoreset_mode"]`):

    NEXT_STEP  the step after an episode's end only resets: its action is ignored. Recorded, flagged is_reset.
    SAME_STEP  the reset happens inside the step that ended the episode. Nothing extra to record. So it is in 0.29.
    DISABLED   the script resets by itself, with `options["reset_mask"]` or all at once.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import gymnasium.vector

from runlane.workers import hooked_session
from runlane.workers.attachment import Session, attach
from runlane.workers.env_facts import facts_of
from runlane.workers.env_recorder import EnvRecorder, VectorRecorder
from runlane.workers.run_facts import versions
from runlane.workers.vector_hook import IN_PROCESSES, mask_of

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv, VectorWrapper
else:  # Gymnasium 0.29 calls the wrapper otherwise
    VectorEnv = gymnasium.vector.VectorEnv
    VectorWrapper = getattr(gymnasium.vector, "VectorWrapper", None) or gymnasium.vector.VectorEnvWrapper


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

    `with_observations` stores the observation each action was chosen on, and the final one of each episode.
    `per_env_rows` stores a vector step as n rows instead of one packed row. Closing the environment closes a session
    that `wrap` opened itself. Where the script runs under `runlane run`, what is wrapped here is not recorded twice:
    the parts of an `AsyncVectorEnv` then record themselves where they live, and `env.session` is for all else.
    Raises `TypeError` for anything but a Gymnasium environment.
    """
    if not isinstance(env, gymnasium.Env | VectorEnv):
        raise TypeError(f"wrap() takes a Gymnasium environment, got {type(env).__name__}")
    if isinstance(env, VectorEnv) and hooked_session.is_armed() and _is_in_processes(env):
        return _with_session(env, session, config)
    hooked_session.leave(env)
    is_own = session is None
    chosen = session or attach(name or _name_of(env), worker=worker, config=config)
    chosen.is_hooked = True
    if isinstance(env, VectorEnv):
        return RecordedVectorEnv(env, chosen, is_own, with_observations, per_env_rows)
    return RecordedEnv(env, chosen, is_own, with_observations)


def _is_in_processes(env: Any) -> bool:
    root: Any = env.unwrapped
    return any(each.__name__ == IN_PROCESSES for each in root.__class__.__mro__)


def _with_session(env: Any, session: Session | None, config: Mapping[str, Any] | None) -> "SessionVectorEnv":
    """Its processes have hooks of their own, which cannot be told to leave it: so nothing is recorded here."""
    if config is not None:
        hooked_session.note_config(config)
    chosen = session or hooked_session.session_for_metrics()
    chosen.log(f"the {env.num_envs} parts of {type(env.unwrapped).__name__} record themselves: wrap() records no step")
    return SessionVectorEnv(env, chosen)


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
        self._recorder = EnvRecorder(session, env, with_observations)
        self._is_told = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset. An episode that had not ended is recorded as abandoned."""
        observation, info = self.env.reset(seed=seed, options=options)
        if not self._is_told:
            self._is_told = True
            self.session.note_facts(env=facts_of(self.env, seed), versions=versions())
        self._recorder.note_reset(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, record, return what the environment returned."""
        result = self.env.step(action)
        self._recorder.note_step(action, result)
        return result

    def close(self) -> None:
        """Close the environment, then the session if `wrap` opened it."""
        super().close()
        self._recorder.close()
        if self._is_own:
            self.session.close()


class SessionVectorEnv(VectorWrapper):
    """A vector environment whose parts record themselves, and the session for what is no step of theirs."""

    def __init__(self, env: Any, session: Session) -> None:
        """Use `wrap`."""
        super().__init__(env)
        self.session = session


class RecordedVectorEnv(VectorWrapper):
    """A vector environment whose every step is recorded, with autoreset steps flagged."""

    def __init__(self, env: Any, session: Session, is_own: bool, with_observations: bool, per_env_rows: bool) -> None:
        """Use `wrap`."""
        super().__init__(env)
        self.session = session
        self._is_own = is_own
        self._recorder = VectorRecorder(session, env, with_observations, per_env_rows)
        self._is_told = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all, or those of `options["reset_mask"]`. Episodes that had not ended are abandoned."""
        mask = mask_of(options)  # before: Gymnasium takes it out of the map
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # its hint forbids a list, its code takes one
        if not self._is_told:
            self._is_told = True
            self.session.note_facts(env=facts_of(self.env, seed), versions=versions())
        self._recorder.note_reset(observations, mask)
        return observations, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all, record, return what the environment returned."""
        result = self.env.step(actions)
        self._recorder.note_step(actions, result)
        return result

    def close(self, **options: Any) -> None:
        """Close the environment, then the session if `wrap` opened it."""
        super().close(**options)
        self._recorder.close()
        if self._is_own:
            self.session.close()
