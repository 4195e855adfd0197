"""wrap(env) for PettingZoo: record every agent of an AEC or parallel environment. The script has imported PettingZoo.

What the environment returns is passed on untouched. What counts as a step, and when it is recorded, is said in
`agent_recorder.py`.
"""

from collections.abc import Hashable, Mapping
from importlib import import_module
from typing import Any

from runlane.workers import hooked_session
from runlane.workers.agent_recorder import AgentStreams, ParallelRecorder, TurnRecorder, alive_in, turn_of
from runlane.workers.attachment import Session

_env: Any = import_module("pettingzoo.utils.env")
_wrappers: Any = import_module("pettingzoo.utils.wrappers")
_BaseWrapper: Any = _wrappers.BaseWrapper
_BaseParallelWrapper: Any = _wrappers.BaseParallelWrapper


def wrap(
    env: Any,
    *,
    session: Session | None = None,
    name: str | None = None,
    worker: str | None = None,
    config: Mapping[str, Any] | None = None,
    with_observations: bool = False,
) -> Any:
    """Return `env`, recording: one stream per agent, opened when the agent first has its turn, all of one run.

    `worker` is what their names begin with; the agent's own name follows. A `session` that is given records the first
    agent, and is left open by `env.close()`. `env.session_of(agent)` is an agent's session. What is wrapped here is not
    recorded a second time where the script runs under `runlane run`.
    """
    hooked_session.leave(env)
    streams = AgentStreams(name or str(env), worker, config, session)
    if isinstance(env, _env.ParallelEnv):
        return RecordedParallelEnv(env, streams, with_observations)
    if isinstance(env, _env.AECEnv):
        return RecordedAECEnv(env, streams, with_observations)
    raise TypeError(f"wrap() takes a PettingZoo environment, got {type(env).__name__}")


def _bare(env: Any) -> Any:
    return env


class _Recorded:
    """What both kinds share."""

    env: Any
    _recorder: Any

    @property
    def session(self) -> Session:
        """The session of the first agent, which shows the pictures."""
        session: Session = self._recorder.session_of(self.env)
        return session

    def session_of(self, agent: Hashable) -> Session:
        """The session of an agent."""
        session: Session = self._recorder.session_of(self.env, agent)
        return session

    def close(self) -> None:
        """Close the environment, then the sessions that `wrap` opened."""
        self.env.close()
        self._recorder.close()

    def __str__(self) -> str:
        """The environment's own name."""
        return str(self.env)

    def __reduce__(self) -> Any:
        """A copy, as a planner makes it, is of the environment alone: it is not recorded."""
        return _bare, (self.env,)


class RecordedAECEnv(_Recorded, _BaseWrapper):  # type: ignore[misc]
    """An environment whose agents take turns, each recorded."""

    def __init__(self, env: Any, streams: AgentStreams, with_observations: bool) -> None:
        """Use `wrap`."""
        super().__init__(env)  # pyright: ignore[reportUnknownMemberType, reportCallIssue]
        self._recorder = TurnRecorder(streams, with_observations)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Reset. Episodes that had not ended are recorded as abandoned."""
        self._recorder.before_reset()
        self.env.reset(seed=seed, options=options)
        self._recorder.note_reset(self.env)

    def step(self, action: Any) -> None:
        """Step, and record what has come of the step that the next agent made before."""
        acted = turn_of(self.env)
        self.env.step(action)
        self._recorder.note_step(self.env, acted, action)

    def observe(self, agent: Hashable) -> Any:
        """What the environment says."""
        observation = self.env.observe(agent)
        self._recorder.note_observation(agent, observation)
        return observation

    def last(self, observe: bool = True) -> Any:
        """What the environment says."""
        result = self.env.last(observe=observe)
        if observe:
            self._recorder.note_observation(self.env.agent_selection, result[0])
        return result

    def agent_iter(self, max_iter: int = 2**63) -> Any:
        """The environment's own, with whatever it checks."""
        return self.env.agent_iter(max_iter)


class RecordedParallelEnv(_Recorded, _BaseParallelWrapper):  # type: ignore[misc]
    """An environment whose agents act at once, each recorded."""

    def __init__(self, env: Any, streams: AgentStreams, with_observations: bool) -> None:
        """Use `wrap`."""
        super().__init__(env)  # pyright: ignore[reportUnknownMemberType, reportCallIssue]
        self._recorder = ParallelRecorder(streams, with_observations)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset. Episodes that had not ended are recorded as abandoned."""
        self._recorder.before_reset()
        result = self.env.reset(seed=seed, options=options)
        self._recorder.note_reset(result)
        return result

    def step(self, actions: Any) -> Any:
        """Step, record, return what the environment returned."""
        alive = alive_in(self.env)
        result = self.env.step(actions)
        self._recorder.note_step(self.env, alive, actions, result)
        return result
