"""Who is killed, when and how: drawn from a seed, so that a run can be had again."""

import random
from dataclasses import dataclass

SINGLE = ("worker", "proxy", "router", "db_writer", "supervisor")
# How often each is drawn. `several`: two or three of SINGLE at one instant. `group`: everything. `recovery`: all of it,
# and then the process that drains what was left. `paused`: stopped for some seconds and continued; meanwhile another
# one may be killed. `frozen`: stopped for some seconds, then killed.
WEIGHTS = {
    "worker": 22,
    "proxy": 14,
    "router": 14,
    "db_writer": 14,
    "supervisor": 8,
    "several": 12,
    "group": 6,
    "recovery": 3,
    "paused": 4,
    "frozen": 3,
}
VICTIMS = tuple(WEIGHTS)


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow: `victim` is its row in the table, `roles` the processes it hits (none: every one there is).

    `wait_s` passes first. `is_raw` does not wait until a worker records again: it hits a graph that is recovering.
    `hold_s` above 0: SIGSTOP for so long, and `also` is killed in the middle of it.
    """

    victim: str
    roles: tuple[str, ...]
    wait_s: float
    is_raw: bool
    hold_s: float = 0.0
    also: tuple[str, ...] = ()

    @property
    def needs_new_graph(self) -> bool:
        """Whether somebody has to type `runlane up` again."""
        return self.victim not in ("paused", "recovery") and (not self.roles or "supervisor" in self.roles)

    def __str__(self) -> str:
        killed = f" while {self.also[0]} is killed" if self.also else ""
        held = f", stopped for {self.hold_s:.1f} s{killed}" if self.hold_s else ""
        return f"{self.victim} ({' + '.join(self.roles) or 'everything'}{held}) after {self.wait_s:.2f} s"


def round_dice(seed: str, number: int) -> random.Random:
    """The dice of one round. Each round has its own, so that it can be played again alone."""
    return random.Random(f"{seed}/{number}")  # noqa: S311  dice, no secret


def draw(dice: random.Random, blows: int, victims: tuple[str, ...] = VICTIMS, most_wait_s: float = 1.5) -> list[Blow]:
    """The blows of one round."""
    weights = [WEIGHTS[victim] for victim in victims]
    return [_blow(dice, dice.choices(victims, weights)[0], most_wait_s) for _ in range(blows)]


def _blow(dice: random.Random, victim: str, most_wait_s: float) -> Blow:
    roles: tuple[str, ...] = (victim,)
    if victim == "several":
        roles = tuple(dice.sample(SINGLE, dice.choice((2, 2, 3))))
    elif victim in ("group", "recovery"):
        roles = ()
    elif victim in ("paused", "frozen"):
        roles = (dice.choice(SINGLE),)
    wait_s, is_raw = dice.uniform(0.05, most_wait_s), dice.random() < 0.15
    hold_s = dice.uniform(0.5, 4.0) if victim in ("paused", "frozen") else 0.0
    others = [role for role in SINGLE if role not in (*roles, "supervisor")]
    also = (dice.choice(others),) if victim == "paused" and dice.random() < 0.5 else ()
    return Blow(victim, roles, wait_s, is_raw, hold_s, also)
