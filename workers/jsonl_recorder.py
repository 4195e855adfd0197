"""LineRecorder: lines into the calls of a session; and, after a kill, lines passed over or finished.

What a line means for the episodes that run is the same whether it is recorded or only passed over, so a new bridge
gets to where the one before was by reading the same lines again.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from runlane.config import log_ids
from runlane.transport.log import log_event
from runlane.transport.records import Outcome
from runlane.workers.attachment import Session
from runlane.workers.episode_tracker import ONE_STEP, EpisodeTracker
from runlane.workers.jsonl_lines import (
    EpisodeLine,
    Line,
    LogLine,
    MetricLine,
    MetricsLine,
    NotTaken,
    RunLine,
    StepLine,
    Text,
)
from runlane.workers.jsonl_place import LINE_SHIFT, BridgeState, Place, RunningEpisode
from runlane.workers.jsonl_session import BridgeSession

NAN = math.nan


class Numbers:
    """Actions or observations of one program as one type: JSON of many languages writes 1.0 as 1.

    Whole numbers are integers until the first with a fraction comes; from then on all are floats.
    """

    def __init__(self, *, is_float: bool) -> None:
        """`is_float`: one with a fraction has come already."""
        self.is_float = is_float
        self.plain: type = float if is_float else int  # a value of this class stays as it is

    def of(self, value: Any) -> Any:
        """The value as what is recorded. What is no number, nor an array of them, the session refuses."""
        kind = value.__class__
        if kind is list:
            return self._array(value)
        if kind is float:
            self._turn()
        elif kind is int and self.is_float:
            return float(value)
        elif kind is bool:
            return self.of(int(value))
        return value

    def _array(self, values: list[Any]) -> Any:
        try:
            array = np.asarray(values, np.float64 if self.is_float else None)
        except (TypeError, ValueError, OverflowError):
            return str(values)  # ragged, or with text in it
        if array.dtype.kind == "f" and not self.is_float:
            self._turn()
        return array.astype(np.int64) if array.dtype.kind == "b" else array

    def _turn(self) -> None:
        self.is_float, self.plain = True, float


class Follower:
    """Running episodes, followed without a session: what lines mean that are recorded already."""

    def __init__(self, state: BridgeState) -> None:
        """Begin where a place says."""
        self.trackers = {
            index: EpisodeTracker(one.episode, one.step, one.episode_return, one.started_ns)
            for index, one in state.trackers.items()
        }
        self.env_steps = state.env_steps
        self.action = Numbers(is_float=state.action_is_float)
        self.observation = Numbers(is_float=state.observation_is_float)
        self.not_taken = dict(state.not_taken)

    def pass_over(self, line: Line) -> None:
        """Take a line into account that is recorded."""
        if isinstance(line, StepLine):
            self.step(line)
            self.end_step(line)
        elif isinstance(line, EpisodeLine):
            tracker = self._tracker(line.env_index)
            if tracker.step or line.episode_return is not None:
                tracker.begin_next()
        elif isinstance(line, NotTaken):
            self.not_taken[line.sort] = self.not_taken.get(line.sort, 0) + 1

    def end_step(self, line: StepLine) -> None:
        """The end of the episode, if the step is the last one of it."""
        if (line.terminated or line.truncated) and not line.is_reset:
            self._tracker(line.env_index).begin_next()

    def step(self, line: StepLine) -> None:
        """A step without its episode's end."""
        self.action.of(line.action)
        self.observation.of(line.observation)
        if not line.is_reset:
            self.env_steps += 1
            tracker = self._tracker(line.env_index)
            tracker.place += ONE_STEP
            tracker.episode_return += NAN if line.reward is None else line.reward

    def state(self) -> BridgeState:
        """What a session has to go on with."""
        running = {
            index: RunningEpisode(one.episode, one.step, one.episode_return, one.started_ns)
            for index, one in self.trackers.items()
        }
        return BridgeState(
            trackers=running,
            env_steps=self.env_steps,
            action_is_float=self.action.is_float,
            observation_is_float=self.observation.is_float,
            not_taken=self.not_taken,
        )

    def _tracker(self, env_index: int) -> EpisodeTracker:
        return self.trackers.setdefault(env_index, EpisodeTracker())


class LineRecorder:
    """Records lines through a session, and notes each in the place."""

    def __init__(self, session: BridgeSession, place: Place, state: BridgeState, show: Callable[[str], object]) -> None:
        """Go on from `state`. What is no record is given to `show`, too."""
        self._show = show
        self._session = session
        self._place = place
        self._action = Numbers(is_float=state.action_is_float)
        self._observation = Numbers(is_float=state.observation_is_float)
        self.not_taken = dict(state.not_taken)

    def record(self, lines: list[Line]) -> None:
        """Record lines in order. The place says after each that it is done: `Place.set` came before the first."""
        session, words, at = self._session, self._place.words, self._place.progress_at
        step, action, observation = session.step, self._action, self._observation
        one_line, base_seq = 1 << LINE_SHIFT, self._place.base_seq
        done = 0
        for line in lines:
            if isinstance(line, StepLine):
                act, seen, reward = line.action, line.observation, line.reward
                step(
                    act if act.__class__ is action.plain else action.of(act),
                    NAN if reward is None else reward,
                    line.terminated,
                    line.truncated,
                    None if seen is None else observation.of(seen),
                    line.info,
                    line.env_index,
                    line.is_reset,
                    line.is_human,
                )
            else:
                self._record_other(line)
            done += one_line
            words[at] = done + session.seq - base_seq

    def _record_other(self, line: Line) -> None:
        if isinstance(line, RunLine):
            self._session.tell_facts(facts_of(line))
        elif isinstance(line, NotTaken):
            self._note(line)
        else:
            record_plain(self._session, line, self._show)

    def _note(self, line: NotTaken) -> None:
        """Count a line that is not taken; the first of its sort is quoted."""
        before = self.not_taken.get(line.sort, 0)
        self.not_taken[line.sort] = before + 1
        if not before:
            log_event(log_ids.JSONL_NOT_TAKEN, sort=line.sort, problem=line.problem, quote=line.quote)
            self._session.log(f"line not taken, {line.sort} ({line.problem}): {line.quote}", "warning")

    def finish(self, line: Line, done: int) -> None:
        """Record the rest of a line of which `done` records, at least one, are in the journal of the bridge before.

        The session's episodes are as after the line's step, and not yet ended.
        """
        session = self._session
        if isinstance(line, StepLine):
            if (line.terminated or line.truncated) and not line.is_reset:
                if done < 2:
                    outcome: Outcome = "terminated" if line.terminated else "truncated"
                    session.episode(outcome=outcome, env_index=line.env_index)
                done -= 1
            if line.info and done < 2:  # the step is in the stream before, where no row of ours can point to
                session.log(f"info of environment {line.env_index}'s step before: {json.dumps(line.info)}")
        elif isinstance(line, MetricsLine):
            rest = dict(list(line.values.items())[done:])
            if rest:
                self._record_other(MetricsLine(rest, line.step))

    def state(self, stream: str) -> BridgeState:
        """What a successor has to know now, but for its place in the file."""
        session = self._session
        return BridgeState(
            stream=stream,
            trackers=session.running(),
            env_steps=session.env_steps,
            action_is_float=self._action.is_float,
            observation_is_float=self._observation.is_float,
            not_taken=self.not_taken,
        )

    def close(self, state: BridgeState) -> None:
        """Give up the episodes that run, each noted in the place as a line would be."""
        session = self._session
        words, at, base_seq = self._place.words, self._place.progress_at, self._place.base_seq
        for number, index in enumerate(closing_order(state), 1):
            session.episode(outcome="abandoned", env_index=index)
            words[at] = (number << LINE_SHIFT) + session.seq - base_seq

    def tell_not_taken(self) -> None:
        """Say how many lines were not taken, at the end."""
        if self.not_taken:
            counts = ", ".join(f"{count} {sort}" for sort, count in sorted(self.not_taken.items()))
            self._session.log(f"lines not taken: {counts}", "warning")


def record_plain(session: Session, line: Line, show: Callable[[str], object]) -> None:
    """Record a line that needs nothing but a session's call, through any session. Text is given to `show`, too."""
    if isinstance(line, MetricLine):
        session.metric(line.name, NAN if line.value is None else line.value, line.step)
    elif isinstance(line, MetricsLine):
        values = {name: NAN if value is None else value for name, value in line.values.items()}
        session.metrics(values, line.step)
    elif isinstance(line, EpisodeLine):
        session.episode(
            line.episode_return, line.length, outcome=line.outcome, info=line.info, env_index=line.env_index
        )
    elif isinstance(line, LogLine):
        session.log(line.text, line.level)
    elif isinstance(line, Text):
        session.log(line.text)
        show(line.text)


def closing_order(state: BridgeState) -> list[int]:
    """Environments whose episodes are given up at the end, in this order."""
    return sorted(index for index, one in state.trackers.items() if one.step)


def facts_of(line: RunLine) -> dict[str, Any]:
    """What a run's line adds to the facts of the run."""
    given = {"config": line.config, "env": line.env, "versions": line.versions}
    return {name: value for name, value in given.items() if value is not None}
