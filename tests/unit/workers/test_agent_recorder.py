"""Recorders of agents by themselves: what they are told is in the journals, and no fault of theirs leaves them."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from unit.workers.session_rig import SessionRig

from runlane.transport.records import EpisodeRecord
from runlane.workers.agent_recorder import AgentStreams, ParallelRecorder, TurnRecorder


def _env(*agents: Any) -> Any:
    return SimpleNamespace(agents=list(agents), possible_agents=list(agents))


def _stream(rig: SessionRig, ending: str) -> str:
    (found,) = [stream for stream in rig.streams() if rig.info(stream).worker.endswith(ending)]
    return found


def _step(recorder: ParallelRecorder, env: Any, actions: dict[Any, int], rewards: dict[Any, float], now: int) -> None:
    observations = {agent: np.array([now, 0.5]) for agent in rewards}
    no = dict.fromkeys(rewards, False)
    recorder.note_step(env, frozenset(env.agents), actions, (observations, rewards, no, no, {}))


def _nothing_yet(observe: bool) -> tuple[None, float, bool, bool, None]:  # noqa: ARG001
    return None, 0.0, False, False, None


def test_the_others_join_the_run_of_the_session_that_was_given(rig: SessionRig) -> None:
    """The first agent keeps that session's name, and it stays open; the others are workers beside it."""
    given = rig.session()
    streams = AgentStreams(worker="train", session=given)
    recorder, env = ParallelRecorder(streams), _env("a", "b")
    _step(recorder, env, {"a": 1, "b": 2}, {"a": 0.5, "b": 1.0}, 1)
    recorder.close()
    assert streams.sessions["a"] is given
    given.step(7, 1.0)
    given.close()
    assert [row["action"] for row in rig.steps(given.info.stream)] == [1, 7]
    other = rig.info(_stream(rig, "train-b"))
    assert (other.run, other.run_name, other.host) == (given.info.run, given.info.run_name, given.info.host)
    assert [row["action"] for row in rig.steps(other.stream)] == [2]


def test_an_observation_is_the_one_its_action_was_chosen_on(rig: SessionRig) -> None:
    """Of the reset for the first step, then of the step before; of a map the part that is the observation."""
    recorder, env = ParallelRecorder(AgentStreams(session=rig.session()), with_observations=True), _env("a")
    recorder.note_reset(({"a": {"observation": np.array([0.0, 0.5]), "action_mask": [1]}}, {}))
    for now in (1, 2):
        _step(recorder, env, {"a": now}, {"a": 1.0}, now)
    recorder.finish()
    rig.sessions[0].close()
    assert [row["observation"] for row in rig.steps()] == [[0.0, 0.5], [1.0, 0.5]]


def test_what_cannot_be_understood_is_counted_and_told_once(rig: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    """An environment may be anything, and its step must not end for it."""
    recorder = ParallelRecorder(AgentStreams(session=rig.session()))
    for _ in range(3):
        recorder.note_step(_env("a"), frozenset("a"), {"a": 1}, None)
    turns = TurnRecorder(AgentStreams(session=rig.session()))
    turns.note_step(object(), "a", 1)
    turns.note_reset(object())
    assert (recorder.faults, turns.faults) == (3, 2)
    recorder.close()
    turns.close()
    assert [record.getMessage() for record in caplog.records if "WORKER_FAULT" in record.getMessage()].__len__() == 2


def test_a_forked_child_does_not_tell_the_steps_of_its_parent(rig: SessionRig) -> None:
    """What was pending when it was forked is the parent's alone."""
    session = rig.session(is_left=True)
    recorder = TurnRecorder(AgentStreams(session=session))
    env = SimpleNamespace(
        agents=["a", "b"],
        possible_agents=["a", "b"],
        agent_selection="a",
        _cumulative_rewards={"a": 0.0, "b": 0.0},
        terminations={"a": False, "b": False},
        truncations={"a": False, "b": False},
    )
    env.last = _nothing_yet
    recorder.note_reset(env)
    env.agent_selection = "b"
    recorder.note_step(env, "a", 3)
    child = os.fork()
    if not child:
        recorder.finish()
        os._exit(0)
    os.waitpid(child, 0)
    recorder.close()
    session.close()
    recorded = [len(rig.steps(stream)) for stream in rig.streams() if rig.info(stream).worker == session.info.worker]
    assert recorded == [1]
    assert [record.outcome for record in rig.records(EpisodeRecord, session.info.stream)] == ["abandoned"]
