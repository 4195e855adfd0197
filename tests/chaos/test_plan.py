"""The plan of a campaign: fixed by its seed, and each record counted for the right blow."""

import random
from pathlib import Path

from chaos.arena import Arena
from chaos.plan import SINGLE, VICTIMS, draw, round_dice
from chaos.round import ORDERED_STOP, Round


def test_a_seed_fixes_the_plan_of_every_round() -> None:
    """So one round of a thousand kills can be played again alone."""
    assert draw(round_dice("s", 12), 25) == draw(round_dice("s", 12), 25)
    assert draw(round_dice("s", 12), 25) != draw(round_dice("s", 13), 25)


def test_a_long_plan_has_every_victim_and_none_that_was_not_asked_for() -> None:
    """Each often enough to say something about it."""
    drawn = [blow.victim for blow in draw(round_dice("s", 1), 1_000)]
    assert min(drawn.count(victim) for victim in VICTIMS) >= 10
    assert {blow.victim for blow in draw(round_dice("s", 1), 50, ("worker", "router"))} == {"worker", "router"}


def test_a_blow_hits_what_its_victim_says() -> None:
    """Several are two at least, a group is everybody, and only these may need a new graph."""
    for blow in draw(round_dice("s", 1), 1_000):
        assert set(blow.roles) <= set(SINGLE)
        assert (blow.roles == ()) == (blow.victim in ("group", "recovery"))
        assert not set(blow.roles) & set(blow.also)
        assert len(blow.roles) >= 2 or blow.victim != "several"
        if blow.needs_new_graph:
            assert not blow.roles or "supervisor" in blow.roles


def test_a_record_counts_for_the_blow_that_followed_its_return(tmp_path: Path) -> None:
    """And the last ones for the ordered stop."""
    with Arena(tmp_path / "a", ["true"]) as arena:
        played = Round(arena, [], random.Random(), struck=[(10, "worker"), (20, "router"), (30, ORDERED_STOP)])  # noqa: S311
        assert [played.blow_after(moment) for moment in (1, 10, 11, 20, 21, 30, 31)] == [0, 0, 1, 1, 2, 2, 2]
