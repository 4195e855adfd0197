"""Presenters: what tabs and tiles of each kind of worker are called, and how the agents of one run stand together."""

import pytest

from runlane.gui.presenters import agent_of, beside_their_run, lanes_of, natural, presenter_for
from runlane.gui.worker_type import WORKER_TYPES
from runlane.transport.ring_layout import RingInfo


def rings(*workers: str, run: str = "r1", name: str = "ppo") -> list[RingInfo]:
    return [RingInfo(run=run, worker=worker, run_name=name) for worker in workers]


@pytest.mark.parametrize(
    ("worker", "tab"),
    [
        ("cleanrl", "CleanRL-Live-0"),
        ("cleanrl-3", "CleanRL-Live-3"),
        ("sb3-1", "SB3-Live-1"),
        ("spade", "SPADE-BDI-Live-0"),
        ("coach", "Coach-Live-0"),
        ("godot", "Godot-Live-0"),
        ("vizdoom", "ViZDoom-Live-0"),
        ("worker-player_0", "Python-Live-player_0"),
        ("learner-2", "Python-Live-learner-2"),
    ],
)
def test_a_tab_is_called_by_type_and_agent(worker: str, tab: str) -> None:
    """The plain name is agent 0; a name that is of no type is an agent's own."""
    assert lanes_of(rings(worker))[0].name == tab


def test_every_type_of_the_launch_form_has_a_presenter_of_that_label() -> None:
    """By the name that its worker has in a run."""
    assert {kind.worker: presenter_for(kind.worker).label for kind in WORKER_TYPES} == {
        kind.worker: kind.label for kind in WORKER_TYPES
    }


def test_only_agents_of_one_run_are_told_apart_by_their_names() -> None:
    """A lone worker needs no mark, whatever else runs."""
    lanes = lanes_of([*rings("sb3", "sb3-1"), *rings("cartpole", run="r2")])
    assert [(lane.run, lane.agent) for lane in lanes] == [("r1", "0"), ("r1", "1"), ("r2", "")]


def test_agents_that_come_later_stand_beside_those_of_their_run() -> None:
    """In the order of their numbers, and nobody who was shown changes places."""
    first = lanes_of([*rings("w-1"), *rings("cartpole", run="r2")])
    later = lanes_of(rings("w-10", "w-2", "w"))
    found = beside_their_run(first, [*later, *lanes_of(rings("x", run="r3"))])
    assert [lane.worker for lane in found] == ["w", "w-1", "w-2", "w-10", "cartpole", "x"]


def test_numbers_in_names_count_as_numbers() -> None:
    """Names without any sort by letters."""
    assert sorted(["w-10", "w-9", "w", "a1b2", "a1b"], key=natural) == ["a1b", "a1b2", "w", "w-9", "w-10"]
    assert agent_of("SB3-1") == "1"
