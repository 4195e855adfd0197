"""A campaign: rounds of blows on a graph that records, each followed by a verdict on all that had returned."""

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from chaos.arena import Arena, StuckError
from chaos.plan import VICTIMS, draw, round_dice
from chaos.round import ORDERED_STOP, Round, Say
from chaos.verdict import Verdict

MOST_STUCK = 3  # rounds that came to no end; each costs a minute, and one more says no more
# Each second round: segments that are full after half a second, so that many begin, end and are removed.
SMALL_SEGMENTS = "[journal]\nsegment_bytes = 65536\n"
ATTACHED_EVERY = 3  # of so many rounds one has a worker that the supervisor did not start


@dataclass(slots=True)
class Score:
    """One row of the table: the records that returned before these blows, and what became of them."""

    kills: int = 0
    returned: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether every record was stored once and as it was."""
        return not (self.lost or self.doubled or self.wrong)


@dataclass(slots=True)
class Campaign:
    """What to do and what came of it. `scores` has a row per victim, in the order of the table."""

    seed: str
    kills: int
    victims: tuple[str, ...] = VICTIMS
    first_round: int = 1
    round_kills: int = 25
    rate: float = 4_000.0
    most_wait_s: float = 1.5
    say: Say = print
    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    failures: list[str] = field(default_factory=list[str])
    rounds: int = 0
    unreturned: int = 0
    seconds: float = 0.0
    is_recoverable: bool = True
    stuck: int = 0

    def __post_init__(self) -> None:
        """A row for each victim that may be drawn."""
        self.scores = {victim: Score() for victim in (*self.victims, ORDERED_STOP)}

    @property
    def total(self) -> Score:
        """All rows together."""
        whole = Score()
        for score in self.scores.values():
            for name in Score.__slots__:
                setattr(whole, name, getattr(whole, name) + getattr(score, name))
        return whole

    def run(self, parent: Path | None = None) -> bool:
        """All rounds; whether everything was exact. A round that was not leaves its directory."""
        started_s = time.monotonic()
        left, number = self.kills, self.first_round
        while left > 0 and self.stuck < MOST_STUCK:
            blows = min(left, self.round_kills)
            self._round(number, blows, parent)
            left, number = left - blows, number + 1
            self.rounds += 1
        self.seconds = time.monotonic() - started_s
        return not self.failures

    def _round(self, number: int, blows: int, parent: Path | None) -> None:
        directory = Path(tempfile.mkdtemp(prefix="rlc-", dir=parent or "/tmp"))
        dice = round_dice(self.seed, number)
        plan = draw(dice, blows, self.victims, self.most_wait_s)
        is_attached = number % ATTACHED_EVERY == 0
        tables = SMALL_SEGMENTS if number % 2 == 0 else ""
        kind = "attached" if is_attached else "declared"
        self.say(f"round {number}, a worker {kind}{', small segments' if tables else ''}")
        with Arena(directory, self._worker(directory, number), is_attached=is_attached, tables=tables) as arena:
            played = Round(arena, plan, dice, self.say)
            try:
                verdict = played.fight()
            except StuckError as error:
                self.stuck += 1
                self._fail(f"round {number}, blow {len(played.struck)}: {error}", directory, number)
            else:
                self.is_recoverable &= arena.is_recoverable
                self._count(verdict, played)
                self.say(f"  {len(verdict.returned_ns):,} records returned, {len(verdict.findings)} findings")
                if verdict.findings:
                    self._fail(f"round {number}:\n{played.shown(verdict.findings)}", directory, number)
        for _, victim in played.struck:
            self.scores[victim].kills += victim != ORDERED_STOP
        if not any(str(directory) in failure for failure in self.failures):
            shutil.rmtree(directory, ignore_errors=True)

    def _worker(self, directory: Path, number: int) -> list[str]:
        seed, rate = f"{self.seed}/{number}", f"{self.rate:g}"
        return ["{python}", "-m", "chaos.oracle_worker", str(directory / "oracle"), seed, rate]

    def _fail(self, text: str, directory: Path, number: int) -> None:
        again = f"make chaos KILLS={self.round_kills} SEED={self.seed} FROM={number}"
        self.failures.append(f"{text}\nkept: {directory}\nagain: {again}")
        self.say(f"FAILED {self.failures[-1]}")

    def _count(self, verdict: Verdict, played: Round) -> None:
        """A record belongs to the blow that followed its return."""

        def row(time_ns: int) -> Score:
            return self.scores[played.struck[played.blow_after(time_ns)][1]]

        for time_ns in verdict.returned_ns:
            row(time_ns).returned += 1
        for finding in verdict.findings:
            score = row(finding.time_ns)
            setattr(score, finding.what, getattr(score, finding.what) + 1)
        self.unreturned += verdict.unreturned
