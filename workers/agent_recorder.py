"""What is recorded of a multi-agent environment that somebody else steps: by the wrapper, and by the zero-edit hook.

One stream per agent, all of one run, opened when the agent first acts. A `TurnRecorder` is told of the resets and
steps of an environment whose agents take turns (PettingZoo's AEC), a `ParallelRecorder` of one whose agents act at
once. They import no PettingZoo.

What counts, so that steps, returns and lengths are those that a script sums up by itself:

    a step     an action that is not None. In turns its reward and its end are what `last()` says when the turn comes
               back to the agent; so it is recorded then, or when the episode is over. One that is given up before
               has the reward 0: nobody was told another
    a carry    what an agent was rewarded before its first action counts in its first step; if it never acts, in its
               episode's return
    an end     of one agent. The others go on; a reset ends what is left, as abandoned
"""

import atexit
import os
import sys
import time
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from runlane.config import names
from runlane.transport.records import Outcome
from runlane.workers.attachment import Session, attach, attach_beside, script_name
from runlane.workers.env_frames import frames_of
from runlane.workers.guarded_call import never_raising
from runlane.workers.hooked_session import MAX_WORKER

MAX_AGENT = 20
MAKE = 'make it with render_mode="rgb_array"'

_monotonic_ns = time.monotonic_ns
_RECORDERS: "weakref.WeakSet[AgentRecorder]" = weakref.WeakSet()


class AgentStreams:
    """A session for every agent that acts, in the run of the first one."""

    def __init__(
        self,
        name: str | None = None,
        worker: str | None = None,
        config: Mapping[str, Any] | None = None,
        session: Session | None = None,
    ) -> None:
        """Nothing is opened yet. A `session` that is given becomes the first agent's, under the name it has."""
        self._name, self._config = name, config
        self._worker = worker or base_name()
        self._given = session
        self._taken: set[str] = set()
        self._first: Session | None = None
        self.sessions: dict[Hashable, Session] = {}

    def open(self, agent: Hashable) -> Session:
        """The session of an agent, opened if it has none."""
        first = self._first
        if first is None:
            found = self._first = self._open_first(agent)
        else:
            found = attach_beside(first, self._worker_of(agent))
        self.sessions[agent] = found
        return found

    def _open_first(self, agent: Hashable) -> Session:
        worker = self._worker_of(agent)
        return self._given or attach(self._name, worker=worker, config=self._config)

    def _worker_of(self, agent: Hashable) -> str:
        worker = worker_of(self._worker, agent, self._taken)
        self._taken.add(worker)
        return worker

    def close(self) -> None:
        """Close every session, but for one that was given."""
        for session in self.sessions.values():
            if session is not self._given:
                session.close()


def base_name() -> str:
    """What the names of a process's workers begin with."""
    return os.environ.get(names.ENV_WORKER_NAME) or script_name()


def plain_agent(agent: Hashable) -> str:
    """An agent's name in few and plain letters."""
    marks = (mark if mark.isascii() and (mark.isalnum() or mark in "_-.") else "-" for mark in str(agent))
    return "".join(marks).strip("-.")[-MAX_AGENT:] or "agent"


def worker_of(base: str, agent: Hashable, taken: "set[str]") -> str:
    """A plain worker name for an agent, like none of those taken."""
    plain = plain_agent(agent)
    found = name = f"{base[: MAX_WORKER - 1 - len(plain)]}-{plain}"
    number = 1
    while found in taken:
        number += 1
        ending = f".{number}"
        found = name[: MAX_WORKER - len(ending)] + ending
    return found


@dataclass(slots=True)
class Agent:
    """One agent in its running episode."""

    session: Session
    action: Any = None
    observation: Any = None
    carried: float = 0.0  # rewarded, and in no step yet
    total: float = 0.0  # rewarded in steps
    is_acting: bool = False  # has acted, and its step is not recorded yet
    is_over: bool = False

    def step(self, reward: float, terminated: bool, truncated: bool) -> None:
        """Record the step it has made."""
        reward += self.carried
        self.session.step(self.action, reward, terminated, truncated, observation=self.observation)
        self.is_acting, self.action, self.carried = False, None, 0.0
        self.total += reward
        if terminated or truncated:
            self.begin_next()

    def end(self, outcome: Outcome) -> None:
        """Record the end of its episode, behind its last step."""
        if self.carried or outcome != "abandoned":
            self.session.episode(self.total + self.carried, outcome=outcome)
        else:
            self.session.episode(outcome=outcome)  # of one without a step there is nothing to tell
        self.begin_next()

    def begin_next(self) -> None:
        """Its episode is over; it may come back."""
        self.is_over, self.is_acting = True, False
        self.carried = self.total = 0.0
        self.action = None


class AgentRecorder:
    """What both kinds share: the agents, the pictures, the end."""

    def __init__(self, streams: AgentStreams, with_observations: bool = False) -> None:
        """Nothing is opened before the first step."""
        self.streams = streams
        self.faults = 0
        self._with_observations = with_observations
        self._agents: dict[Hashable, Agent] = {}
        self._shown: Agent | None = None
        self._reward: Any = 0.0
        _RECORDERS.add(self)

    def session_of(self, env: Any, agent: Hashable = None) -> Session:
        """The session of an agent, or of the first one, which shows the pictures."""
        return self._agent(env, self._first_of(env) if agent is None else agent).session

    def _agent(self, env: Any, agent: Hashable) -> Agent:
        found = self._agents.get(agent)
        if found is None:
            first = self._first_of(env)
            if self._shown is None and first is not None and first != agent:
                self._shown = self._open(first)
            found = self._open(agent)
            self._shown = self._shown or found
        return found

    def _open(self, agent: Hashable) -> Agent:
        found = self._agents[agent] = Agent(self.streams.open(agent))
        # What is pending has to be told before sessions close at exit: the last to be registered is called first.
        atexit.unregister(self.finish)
        atexit.register(self.finish)
        util = sys.modules.get("multiprocessing.util")
        if util is not None and len(self._agents) == 1:  # multiprocessing ends children without `atexit`
            util.Finalize(self, self.finish, exitpriority=101)
        return found

    def _first_of(self, env: Any) -> Hashable:
        possible = getattr(env, "possible_agents", None) or getattr(env, "agents", None)
        return cast("Hashable", possible[0]) if possible else None

    def _show(self, env: Any) -> None:
        """Offer a picture: of all agents, by the first one's stream."""
        if self._shown is None:
            return
        lane = self._shown.session.lane
        if (now_ns := _monotonic_ns()) >= lane.next_ns and lane.is_due(now_ns):
            lane.show(frames_of(env, MAKE), self._reward)

    @never_raising
    def finish(self) -> None:
        """The environment is closed, gone, or the interpreter ends: nothing more will come of this episode."""
        self._finish()

    def close(self) -> None:
        """As `finish`, and close the sessions."""
        self.finish()
        atexit.unregister(self.finish)
        self.streams.close()

    def _finish(self) -> None:
        for agent in self._agents.values():
            if not agent.is_over:
                agent.end("abandoned")
            agent.is_over = False

    def forget(self) -> None:
        """In a forked child: the running episodes are the parent's."""
        for agent in self._agents.values():
            agent.begin_next()
            agent.is_over = False


class TurnRecorder(AgentRecorder):
    """Of an environment whose agents take turns."""

    def __init__(self, streams: AgentStreams, with_observations: bool = False) -> None:
        """As `AgentRecorder`."""
        super().__init__(streams, with_observations)
        self._turn: Hashable = None  # of the agent whose `last()` was taken, and who has not acted since
        self._opening: tuple[Hashable, float] | None = None  # of the first turn of all, when no stream is open yet
        self._tables: tuple[Mapping[Hashable, Any], ...] = ({}, {}, {})
        self._seen: dict[Hashable, Any] = {}

    def note_observation(self, agent: Hashable, observation: Any) -> None:
        """The script was given this observation of an agent."""
        if self._with_observations:
            self._seen[agent] = plain_observation(observation)

    @never_raising
    def before_reset(self) -> None:
        """It is about to be reset. Episodes that had not ended are abandoned."""
        self._finish()

    @never_raising
    def note_reset(self, env: Any) -> None:
        """It was reset."""
        if self._agents:
            self._take_turn(env)
        elif env.agents:
            self._opening = (env.agent_selection, float(env.last(observe=False)[1]))

    @never_raising
    def note_step(self, env: Any, acted: Hashable, action: Any) -> None:
        """The agent whose turn it was has acted, and the turn has passed on. None: there was nobody left to act."""
        if acted is None:
            return
        if self._opening is not None:
            first, reward = self._opening
            self._agent(env, first).carried = reward
            self._opening = None
        if action is not None:
            agent = self._agent(env, acted)
            agent.action, agent.is_acting, agent.is_over = action, True, False
            agent.observation = self._seen.pop(acted, None)
        self._turn = None
        self._take_turn(env)
        self._show(env)

    def _take_turn(self, env: Any) -> None:
        """The turn has come to an agent: what `last()` says is what its step before has brought."""
        self._tables = (env._cumulative_rewards, env.terminations, env.truncations)  # noqa: SLF001  as `last()` does
        if not env.agents:
            return
        turn = self._turn = env.agent_selection
        _, reward, terminated, truncated, _ = env.last(observe=False)
        agent = self._agent(env, turn)
        self._settle(agent, float(reward), bool(terminated), bool(truncated))

    def _settle(self, agent: Agent, reward: float, terminated: bool, truncated: bool) -> None:
        is_end = terminated or truncated
        if agent.is_over:
            if is_end:  # it is asked for the None of the dead
                return
            agent.is_over = False
        if agent.is_acting:
            agent.step(reward, terminated, truncated)
        else:
            agent.carried += reward
            if is_end:
                agent.end("terminated" if terminated else "truncated")
        if agent is self._shown:
            self._reward = reward

    def _finish(self) -> None:
        rewards, terminations, truncations = self._tables
        for name, agent in self._agents.items():
            if agent.is_over or name == self._turn:
                continue
            # Its turn never came. What it would have been told then stands only where its end is told.
            ends = bool(terminations.get(name)), bool(truncations.get(name))
            if any(ends):
                self._settle(agent, float(rewards.get(name, 0.0)), *ends)
            elif agent.is_acting:
                agent.step(0.0, False, False)
        self._turn, self._tables = None, ({}, {}, {})
        self._seen.clear()
        super()._finish()

    def forget(self) -> None:
        """In a forked child: the running episodes are the parent's."""
        super().forget()
        self._tables = ({}, {}, {})


class ParallelRecorder(AgentRecorder):
    """Of an environment whose agents act at once."""

    def __init__(self, streams: AgentStreams, with_observations: bool = False) -> None:
        """As `AgentRecorder`."""
        super().__init__(streams, with_observations)
        self._observations: Mapping[Hashable, Any] = {}

    @never_raising
    def before_reset(self) -> None:
        """It is about to be reset. Episodes that had not ended are abandoned."""
        self._finish()

    @never_raising
    def note_reset(self, result: Any) -> None:
        """It was reset, and returned that."""
        if self._with_observations:
            self._observations = dict(result[0])

    @never_raising
    def note_step(self, env: Any, alive: "frozenset[Hashable]", actions: Mapping[Hashable, Any], result: Any) -> None:
        """It was stepped, and returned that. `alive` are those that were in it before; only they can act."""
        observations, rewards, terminations, truncations = result[:4]
        for name, reward in rewards.items():
            terminated, truncated = bool(terminations.get(name)), bool(truncations.get(name))
            has_acted = actions.get(name) is not None and name in alive
            if not has_acted and name not in alive and (terminated or truncated):
                known = self._agents.get(name)
                if known is None or known.is_over:  # dead, and told of again
                    continue
            agent = self._agent(env, name)
            agent.is_over = False
            if has_acted:
                agent.action = actions[name]
                agent.observation = plain_observation(self._observations.get(name))
                agent.step(float(reward), terminated, truncated)
            else:
                agent.carried += float(reward)
                if terminated or truncated:
                    agent.end("terminated" if terminated else "truncated")
            if agent is self._shown:
                self._reward = reward
        if self._with_observations:
            self._observations = dict(observations)
        self._show(env)


def turn_of(env: Any) -> Hashable:
    """The agent that a step would be of; None before the first reset and at the end, where a step raises by itself."""
    turn = getattr(env, "agent_selection", None)
    return turn if turn in getattr(env, "agents", ()) else None


def alive_in(env: Any) -> "frozenset[Hashable]":
    """The agents that can act."""
    return frozenset(getattr(env, "agents", ()))


def plain_observation(observation: Any) -> Any:
    """The array of an observation; PettingZoo's games put it in a map, beside the mask of legal actions."""
    if isinstance(observation, Mapping):
        return cast("Mapping[str, Any]", observation).get("observation")
    return observation


def _after_fork_in_child() -> None:
    for recorder in list(_RECORDERS):
        recorder.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
