"""Rota: whose turn it is in a thread that several streams share, and how long it rests. No thread, no clock."""

from collections.abc import Iterator
from typing import Protocol

from runlane.config import log_ids
from runlane.transport.log import log_event

# A rest is not stretched further than this after the start of the round before it: what is recorded meanwhile is shown
# to nobody, and nothing is heard. A round that waited long for the interpreter has burnt CPU time, and rested as well.
LONGEST_REST_S = 0.25
# How soon those who are closing have their next turn: a session waits for each.
CLOSING_S = 0.002


class Member(Protocol):
    """One stream's part in a shared thread, which makes all its turns."""

    @property
    def interval_s(self) -> float:
        """Rest between two turns, unless turns are dear."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether it is to come to its end, by turns that follow each other quickly."""
        ...

    def turns(self) -> Iterator[bool]:
        """Each `next` is a turn, and their end the end of it all. True: more is left than goes into one turn."""
        ...

    def end(self) -> None:
        """No turn follows, for whatever reason."""
        ...


class Rota:
    """All members of one thread. What one of them raises ends its own turns, and is told."""

    def __init__(self, name: str, rest: float) -> None:
        """After a round that took t seconds of CPU time all rest for `rest` times t, where that is longer."""
        self._name = name
        self._rest = rest
        self._members: list[tuple[Member, Iterator[bool]]] = []
        self._interval_s = 0.0
        self._due_s = 0.0
        self._begun_s = 0.0
        self._used_s = 0.0
        self._is_round = True
        self._is_hurried = False

    @property
    def is_empty(self) -> bool:
        """Whether nobody is left."""
        return not self._members

    def add(self, member: Member) -> None:
        """Somebody new. What it costs to begin does not stretch the rest after it."""
        self._take([*self._members, (member, member.turns())])
        self._is_hurried = True

    def turn(self, now_s: float, is_woken: bool) -> None:
        """Turns of all, if they are due or somebody has woken us; else of those that are closing, who come first."""
        is_round = self._is_round = is_woken or now_s >= self._due_s
        if is_round:
            self._begun_s = now_s
        closing = [entry for entry in self._members if entry[0].is_closing]
        others = [entry for entry in self._members if entry not in closing] if is_round else []
        over = [entry for entry in (*closing, *others) if not self._go(*entry)]
        if over:
            self._take([entry for entry in self._members if entry not in over])

    def wait_s(self, now_s: float, used_s: float) -> float:
        """How long to wait after `turn`. `used_s` is the CPU time of the thread since it began."""
        if self._is_round:
            self._due_s = now_s + self._interval_s
            if not self._is_hurried:
                rested_s = now_s + (used_s - self._used_s) * self._rest
                self._due_s = max(self._due_s, min(rested_s, self._begun_s + LONGEST_REST_S))
            self._used_s = used_s
            self._is_hurried = False
        wait_s = max(0.0, self._due_s - now_s)
        return min(wait_s, CLOSING_S) if any(member.is_closing for member, _ in self._members) else wait_s

    def close(self) -> None:
        """End all that are left."""
        for member, _ in self._members:
            member.end()
        self._take([])

    def _take(self, members: list[tuple[Member, Iterator[bool]]]) -> None:
        self._members = members
        self._interval_s = min((member.interval_s for member, _ in members), default=0.0)

    def _go(self, member: Member, turns: Iterator[bool]) -> bool:
        """One turn; False when it was the last one."""
        try:
            if next(turns):
                self._is_hurried = True
        except StopIteration:
            pass
        except Exception as error:  # whatever it is: the others go on, and so does training
            log_event(log_ids.WORKER_FAULT, where=self._name, error=f"{type(error).__name__}: {error}", count=1)
        else:
            return True
        member.end()
        return False
