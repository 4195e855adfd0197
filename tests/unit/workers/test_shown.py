"""Where a session says it stands: a frame's HUD is that of the step record it names, whatever comes behind it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.workers.session_rig import SMALL, SessionRig

from runlane.config.settings import FastLaneSettings
from runlane.transport.ring_layout import RingInfo
from runlane.workers.session import WorkerSession
from runlane.workers.shown_step import Standing
from runlane.workers.unrecorded import ShownSession

Session = WorkerSession | ShownSession


@pytest.fixture(params=["recorded", "shown only"])
def session(request: pytest.FixtureRequest, rig: SessionRig, run_dir: Path) -> Session:
    """Both kinds say the same, but for the seq."""
    if request.param == "recorded":
        return rig.session()
    return ShownSession(RingInfo(run="run-1", worker="w"), run_dir, FastLaneSettings(return_window=3))


def place(episode: int, step: int) -> int:
    return episode + (step << 32)


def stands(session: Session, env_index: int = 0) -> tuple[int, float]:
    """Place and return."""
    found = session.standing(env_index)
    return found.place, found.episode_return


def test_a_session_stands_where_its_newest_step_is(session: Session) -> None:
    """Also at an episode's last step, whose successor has not begun."""
    assert stands(session) == (place(1, 0), 0.0)
    session.step(0, 1.0)
    session.step(0, 2.5)
    assert stands(session) == (place(1, 2), 3.5)
    session.step(0, 1.0, True)
    assert stands(session) == (place(1, 3), 4.5)
    session.step(0, 7.0)
    assert stands(session) == (place(2, 1), 7.0)


def test_each_environment_of_a_vector_stands_for_itself(session: Session) -> None:
    """The one that ended, the one that goes on, and the one that was only reset."""
    session.step_vector([0, 0, 0], [1.0, 2.0, 3.0], [False] * 3, [False] * 3)
    session.step_vector([0, 0, 0], [1.0, 2.0, 3.0], [False, True, True], [False] * 3)
    assert [stands(session, index) for index in range(3)] == [
        (place(1, 2), 2.0),
        (place(1, 2), 4.0),
        (place(1, 2), 6.0),
    ]
    session.step_vector([0] * 3, [1.0, 0.0, 5.0], [False] * 3, [False] * 3, is_reset=np.array([False, True, False]))
    assert stands(session, 0) == (place(1, 3), 3.0)
    assert stands(session, 1) == (place(2, 0), 0.0)
    assert stands(session, 2) == (place(2, 1), 5.0)


def test_the_rolling_return_is_the_mean_of_the_newest_episodes(session: Session) -> None:
    """Of all environments; 0 before the first has ended."""
    assert session.rolling_return() == 0.0
    for total in (1.0, 2.0, 6.0):
        session.step(0, total, True)
    assert session.rolling_return() == pytest.approx(3.0)


def test_only_so_many_episodes_are_kept_for_it(run_dir: Path) -> None:
    """`fast_lane.return_window` of them."""
    session = ShownSession(RingInfo(run="run-1", worker="w"), run_dir, FastLaneSettings(return_window=3))
    for total in (100.0, 1.0, 2.0, 3.0):
        session.step(0, total, True)
    assert session.rolling_return() == pytest.approx(2.0)


# ---- which record ----------------------------------------------------------------------------------------


def behind(session: WorkerSession) -> dict[str, Callable[[], Any]]:
    return {
        "nothing": lambda: None,
        "a metric": lambda: session.metric("loss", 1.0),
        "several": lambda: (session.log("x"), session.metrics({"a": 1.0, "b": 2.0}), session.episode()),
    }


@pytest.mark.parametrize("what", ["nothing", "a metric", "several"])
@pytest.mark.parametrize("options", [{}, {"terminated": True}, {"info": {"why": 1}}, {"env_index": 2}], ids=str)
def test_the_seq_is_that_of_the_newest_step_record(rig: SessionRig, what: str, options: dict[str, Any]) -> None:
    """Whatever was recorded with the step or after it."""
    session = rig.session()
    for _ in range(3):
        session.step(0, 1.0, **options)
        behind(session)[what]()
    found = session.standing(options.get("env_index", 0))
    session.close()
    assert found.step_seq == max(row["seq"] for row in rig.steps())


def test_a_dropped_step_has_no_seq(rig: SessionRig) -> None:
    """No frame may pass for one of another row; the next recorded step has its own again."""
    session = rig.session(journal=SMALL, overflow="drop_newest")
    rig.proxy.is_acking = False
    seqs: list[int] = []
    while not session.dropped["step"]:
        session.step(0, 1.0)
        seqs.append(session.standing(0).step_seq)
    assert seqs[:-1] == sorted(set(seqs[:-1]))
    assert seqs[-1] == 0
    assert session.standing(0).place >> 32 == len(seqs)


def test_a_session_that_only_shows_has_no_seq(run_dir: Path) -> None:
    """There is no row."""
    session = ShownSession(RingInfo(run="run-1", worker="w"), run_dir, FastLaneSettings())
    session.step(0, 1.0, True)
    assert session.standing(0) == Standing(0, place(1, 1), 1.0)
    assert session.close()


@pytest.mark.parametrize("call", ["step", "step_vector", "episode"])
def test_a_session_that_only_shows_never_raises(run_dir: Path, call: str) -> None:
    """A reward that is no number is counted, as by a session that records."""
    session = ShownSession(RingInfo(run="run-1", worker="w"), run_dir, FastLaneSettings())
    arguments = {"step": (0, [1.0, 2.0]), "step_vector": (0, ["a"], [False], [False]), "episode": ("a",)}
    getattr(session, call)(*arguments[call])
    assert session.faults == 1
    session.step(0, 1.0)
    assert stands(session)[1] == 1.0


# ---- several environments ----------------------------------------------------------------------------------


def test_each_environment_of_a_loop_of_ones_own_has_its_own_row(rig: SessionRig) -> None:
    """Whatever order they step in, and whichever ended."""
    session = rig.session()
    told: list[tuple[int, Standing]] = []
    for number in range(30):
        order = (0, 1, 2) if number % 2 else (2, 0, 1)
        for env_index in order:
            session.step(env_index, 1.0, number % 5 == 4, env_index=env_index)
        if number % 7 == 3:
            session.metric("loss", 1.0)
        told += [(env_index, session.standing(env_index)) for env_index in (1, 0, 2)]
    session.close()
    rows = {row["seq"]: row for row in rig.steps()}
    for env_index, found in told:
        row = rows[found.step_seq]
        assert (row["env_index"], row["episode"], row["step"]) == (
            env_index,
            found.place & 0xFFFFFFFF,
            found.place >> 32,
        )


def test_a_step_that_faults_has_no_seq(rig: SessionRig) -> None:
    """It has no row; the one before is another step's."""
    session = rig.session()
    session.step_vector([0, 0], [1.0, 1.0], [False, False], [False, False])
    assert session.standing(0).step_seq > 0
    session.step_vector([0, 0], [1.0, 1.0], [False] * 3, [False, False])
    assert (session.faults, session.standing(0).step_seq) == (1, 0)
