"""With observations, an episode of N steps leaves N + 1 of them, however it ends; without, nothing is added."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from unit.workers.final_rig import ENVS, STEPS, Numbered, Script, Seen, make_vector
from unit.workers.session_rig import SessionRig

from runlane.transport.records import ABSENT, IS_RESET, EpisodeRecord, LogRecord
from runlane.workers import DetachedSession, WorkerSession, wrap
from runlane.workers.final_observation import LastObservations

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


def _recorded(rig: SessionRig) -> Seen:
    """Observations by environment and episode, as the journal has them, a reset's row with the episode before."""
    found: Seen = {}
    for row in rig.steps():
        values = np.atleast_1d(row["flags"])
        observations = np.reshape(row["observation"], (len(values), -1)).tolist()
        for index, (flags, observation) in enumerate(zip(values, observations, strict=True)):
            if flags & ABSENT:
                assert flags == IS_RESET | ABSENT
                continue
            key = (index if len(values) > 1 else row.get("env_index", 0), int(np.atleast_1d(row["episode"])[index]))
            if flags & IS_RESET:
                assert np.atleast_1d(row["step"])[index] == 0
                key = (key[0], key[1] - 1)
            found.setdefault(key, []).append(observation)
    return found


def _lengths(rig: SessionRig) -> dict[tuple[int, int], int]:
    return {(record.env_index, record.episode): record.length for record in rig.records(EpisodeRecord)}


def _check(rig: SessionRig, script: Script) -> None:
    """All that the script saw, and one more observation than steps in every episode."""
    recorded = _recorded(rig)
    assert recorded == script.whole()
    assert {key: len(found) - 1 for key, found in recorded.items()} == _lengths(rig)
    assert rig.sessions[0].faults == 0
    assert rig.sessions[0].env_steps == sum(_lengths(rig).values())


# ---- in every way of stepping ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_closed_first", [True, False], ids=["environment_closed", "session_closed"])
def test_a_scalar_environment_leaves_one_observation_more_than_steps(rig: SessionRig, is_closed_first: bool) -> None:
    """Of episodes that end, of one given up in the middle, and of the last, which nobody ends."""
    env = wrap(Numbered(0), session=rig.session(), with_observations=True)
    script = Script()
    script.drive(env)
    if is_closed_first:
        env.close()
    rig.sessions[0].close()
    _check(rig, script)
    outcomes = [record.outcome for record in rig.records(EpisodeRecord)]
    assert {"terminated", "truncated", "abandoned"} == set(outcomes)
    assert outcomes[-1] == "abandoned"


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("per_env_rows", [False, True], ids=["packed", "per_env"])
@pytest.mark.parametrize("is_closed_first", [True, False], ids=["environment_closed", "session_closed"])
def test_a_vector_environment_leaves_one_observation_more_than_steps(
    rig: SessionRig, mode: AutoresetMode, per_env_rows: bool, is_closed_first: bool
) -> None:
    """In every autoreset mode, beside a reset of all of them by hand, in either kind of rows."""
    env = wrap(make_vector(mode), session=rig.session(), with_observations=True, per_env_rows=per_env_rows)
    script = Script()
    script.drive_vector(env, mode)
    if is_closed_first:
        env.close()
    rig.sessions[0].close()
    _check(rig, script)
    assert len(rig.info().schemas) == 1  # no row has a layout of its own: those would be sent one by one


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("per_env_rows", [False, True], ids=["packed", "per_env"])
def test_without_observations_there_is_no_row_more(rig: SessionRig, mode: AutoresetMode, per_env_rows: bool) -> None:
    """One for each step of all, as before."""
    env = wrap(make_vector(mode), session=rig.session(), per_env_rows=per_env_rows)
    Script().drive_vector(env, mode)
    env.close()
    rig.sessions[0].close()
    assert len(rig.steps()) == STEPS * (ENVS if per_env_rows else 1)


@pytest.mark.parametrize("name", ["final_obs", "final_observation"])
def test_what_an_environment_left_has_one_of_two_names(rig: SessionRig, name: str) -> None:
    """Gymnasium from 1.0 on, and before; an object array, with None for those that have not ended."""
    last = LastObservations(rig.session(), 2, resets_next=False, resets_same=True, per_env=False)
    session = rig.sessions[0]
    last.begin(np.zeros((2, 3), np.float32))
    ended = np.array([False, True])
    session.step_vector([0, 1], [1.0, 1.0], ended, [False, False], observations=last.observations)
    left = np.full(2, None, object)
    left[1] = np.full(3, 7, np.float32)
    last.note(np.ones((2, 3), np.float32), ended, None, {name: left})
    assert _recorded(rig)[1, 1] == [[0.0] * 3, [7.0] * 3]
    last.note(np.ones((2, 3), np.float32), ended, None, {name: [None, "nothing"]})  # of its own ways: no row
    last.note(np.ones((2, 3), np.float32), ended, None, {})
    assert len(rig.steps()) == 2


# ---- a loop of one's own ---------------------------------------------------------------------------------


def test_a_loop_of_ones_own_says_what_an_episode_ended_with(rig: SessionRig) -> None:
    """In the layout of the steps, whatever the action is."""
    for session, action in ((rig.session(), 3), (rig.session(), np.ones(2, np.float32)), (rig.session(), None)):
        session.step(action, 1.0, terminated=True, observation=np.zeros(2))
        session.final_observation(np.ones(2))
        session.step(action, 1.0, observation=np.zeros(2))
        rows = rig.steps(session.info.stream)
        assert [(row["episode"], row["step"], row["flags"]) for row in rows] == [(1, 1, 1), (2, 0, IS_RESET), (2, 1, 0)]
        assert list(rows[1]["observation"]) == [1.0, 1.0]
        assert len(rig.info(session.info.stream).schemas) == 1
        assert (session.env_steps, session.faults) == (2, 0)


def test_a_loop_over_packed_rows_may_say_it_of_one(rig: SessionRig) -> None:
    """Its episode's number is the vector's own."""
    session = rig.session()
    observations = np.zeros((3, 2))
    for number in range(1, 4):
        session.step_vector([0, 0, 0], [1, 1, 1], [False, number == 2, False], [False] * 3, observations=observations)
        if number == 2:
            session.final_observation([5.0, 6.0], env_index=1)
    assert rig.steps()[2]["episode"] == [1, 2, 1]
    assert rig.steps()[2]["flags"] == [IS_RESET | ABSENT, IS_RESET, IS_RESET | ABSENT]
    assert _recorded(rig)[1, 1] == [[0.0, 0.0], [0.0, 0.0], [5.0, 6.0]]
    assert (session.env_steps, session.faults, len(rig.info().schemas)) == (9, 0, 1)


def test_a_final_observation_in_the_middle_of_an_episode_is_refused(rig: SessionRig) -> None:
    """It would pass for that of the episode before. Counted as a fault, nothing is raised or recorded."""
    session = rig.session()
    session.final_observation(1.0)  # no episode at all
    session.step(0, 1.0, terminated=True, observation=0.5)
    session.step(0, 1.0, observation=0.5)
    session.final_observation(1.0)
    assert (session.faults, len(rig.steps())) == (2, 2)
    vector = rig.session()
    vector.step_vector([0, 0], [1, 1], [True, False], [False] * 2, observations=[0.5, 0.5])
    vector.final_observations([1.0, 1.0], [True, True])
    assert (vector.faults, len(rig.steps(vector.info.stream))) == (1, 1)


def test_an_observation_that_is_no_number_ends_an_episode_without_a_row(rig: SessionRig) -> None:
    """As a step is kept without it."""
    session = rig.session()
    session.step(0, 1.0, terminated=True, observation={"a": 1})
    session.final_observation({"a": 1})
    assert (session.faults, len(rig.steps())) == (2, 1)


def test_a_picture_after_the_final_observation_still_shows_the_last_step(rig: SessionRig) -> None:
    """Its row is no step: the HUD stays with the episode that has ended."""
    for env_index in (0, 2):
        session = rig.session()
        session.step(0, 2.0, terminated=True, observation=0.5, env_index=env_index)
        before = session.standing(env_index)
        session.final_observation(1.0, env_index)
        assert session.standing(env_index) == before
        assert (before.step_seq, before.episode_return) == (2, 2.0)
    vector = rig.session()
    vector.step_vector([0, 0], [1, 2], [False, True], [False] * 2, observations=[0.5, 0.5])
    before = vector.standing(1)
    vector.final_observations([1.0, 1.0], [False, True])
    assert vector.standing(1) == before


def test_what_is_called_before_the_close_is_called_once_and_may_fail(rig: SessionRig) -> None:
    """It may still record; a fault in it ends nothing."""
    session = rig.session()
    session.before_close(lambda: session.log("last words"))
    session.before_close(lambda: 1 / 0)
    assert session.close() is True
    assert session.close() is True
    assert session.faults == 1
    assert [record.text for record in rig.records(LogRecord)] == ["last words"]


def test_a_session_that_records_nothing_takes_the_calls(rig: SessionRig) -> None:
    """So a wrapper needs no `if`."""
    session = DetachedSession()
    env = wrap(Numbered(0), session=session, with_observations=True)
    Script().drive(env)
    env.close()
    assert isinstance(rig.session(), WorkerSession)
