"""One round: blows on a graph that records, then the ordered stop, the recovery and the verdict."""

import random
import signal
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from chaos.arena import Arena
from chaos.herd import strike
from chaos.oracle_lines import LINE, written_bytes
from chaos.plan import Blow
from chaos.verdict import Finding, Verdict

APPEAR_S = 40.0
RECOVERY_S = 3.0  # a graph that finds nothing to recover starts none
ORDERED_STOP = "(ordered stop)"

Say = Callable[[str], None]


@dataclass(slots=True)
class Round:
    """`struck` has the moment and the victim of each blow that was struck; the last one is the ordered stop."""

    arena: Arena
    plan: Sequence[Blow]
    dice: random.Random
    say: Say = print
    struck: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def fight(self) -> Verdict:
        """Play it to its end; raises `StuckError` where something does not happen in time."""
        self.arena.up()
        for number, blow in enumerate(self.plan, start=1):
            self._strike(blow)
            self.say(f"  {number}: {blow}, {written_bytes(self.arena.oracle) // LINE.size:,} lines")
            if blow.needs_new_graph:
                self._begin_again()
        if self.dice.random() < 0.7:  # else stop it while it recovers
            self.arena.until_recording()
        self.struck.append((time.monotonic_ns(), ORDERED_STOP))
        self.arena.stop(ends_worker_first=self.dice.random() < 0.5)
        self.arena.drain(self.dice)
        return self.arena.judge()

    def _strike(self, blow: Blow) -> None:
        if not blow.is_raw:
            self.arena.until_recording()
        time.sleep(blow.wait_s)  # the moment is the plan's
        for role in blow.roles:
            self.arena.until(partial(self._has, role), f"a {role} runs", APPEAR_S)
        victims = self.arena.herd.pick(blow.roles, self.dice)
        if blow.hold_s:
            strike(victims, signal.SIGSTOP)
            time.sleep(blow.hold_s / 2)
            strike(self.arena.herd.pick(blow.also, self.dice) if blow.also else (), signal.SIGKILL)
            time.sleep(blow.hold_s / 2)
        self.struck.append((time.monotonic_ns(), blow.victim))
        strike(victims, signal.SIGCONT if blow.victim == "paused" else signal.SIGKILL)
        if blow.victim == "recovery":
            self._kill_recovery()

    def _kill_recovery(self) -> None:
        """The group is dead, and has left something; kill who drains it, soon after it has begun."""
        self.arena.up()
        end_s = time.monotonic() + RECOVERY_S
        while not self.arena.is_up("recovery") and time.monotonic() < end_s:
            time.sleep(0.01)
        time.sleep(self.dice.uniform(0.0, RECOVERY_S / 2))  # it reads Python first
        strike(self.arena.herd.by_role().get("recovery", []), signal.SIGKILL)

    def _has(self, role: str) -> bool:
        self.arena.tend()
        return self.arena.is_up(role)

    def _begin_again(self) -> None:
        """`runlane up` once more: at once, while the orphans drain, or when they are gone."""
        if self.arena.is_attached and self.dice.random() < 0.5:
            time.sleep(self.dice.uniform(0.0, 1.0))  # what it records now, no proxy takes
        self.arena.end_attached(self.dice.choice((signal.SIGINT, signal.SIGKILL)))
        if self.dice.random() < 0.5:
            self.arena.until(self.arena.is_empty, "the orphans are gone", APPEAR_S)
        self.arena.up()

    def blow_after(self, time_ns: int) -> int:
        """Place in `struck` of the blow that followed a moment."""
        return min(bisect_left(self.struck, time_ns, key=lambda blow: blow[0]), len(self.struck) - 1)

    def shown(self, findings: Sequence[Finding], most: int = 20) -> str:
        """Findings as stretches of seqs, with the blows that followed their return."""
        stretches: list[list[Finding]] = []
        for finding in findings:
            last = stretches[-1][-1] if stretches else None
            if last is not None and (*last[:2], last.seq + 1) == (*finding[:2], finding.seq):
                stretches[-1].append(finding)
            else:
                stretches.append([finding])
        lines = [self._stretch(found[0], found[-1]) for found in stretches[:most]]
        return "\n".join([*lines, f"  and {len(stretches) - most} more"] if len(stretches) > most else lines)

    def _stretch(self, first: Finding, last: Finding) -> str:
        blows = f"before blows {self.blow_after(first.time_ns) + 1} to {self.blow_after(last.time_ns) + 1}"
        return f"  {first.what}: stream {first.stream} seq {first.seq} to {last.seq}, {blows}: {first.detail}"
