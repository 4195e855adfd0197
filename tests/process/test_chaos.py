"""`kill -9` of anything loses nothing, doubles nothing and changes nothing: the short form of `make chaos`."""

import os
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from chaos.arena import Arena
from chaos.campaign import Campaign
from chaos.oracle_lines import Kind, Line, read_oracle
from chaos.plan import SINGLE, VICTIMS, Blow
from chaos.report import table
from chaos.round import Round
from chaos.sudden_worker import CALLS, LARGE_KILLS, MARKS, RELEASE, THREADS
from chaos.verdict import Verdict

pytestmark = pytest.mark.timeout(120)


def oracle_worker(directory: Path) -> list[str]:
    """The command of the worker that records until it is stopped."""
    return ["{python}", "-m", "chaos.oracle_worker", str(directory / "oracle"), "test", "4000"]


def sudden_worker(directory: Path, how: str) -> list[str]:
    """The command of the worker that ends in this way."""
    return ["{python}", "-m", "chaos.sudden_worker", str(directory / "oracle"), how]


def returned(arena: Arena) -> list[list[Line]]:
    """What the oracle knows to have returned, stream by stream."""
    return [[line for line in lines if line.kind is not Kind.CLOSED] for lines in read_oracle(arena.oracle).values()]


def assert_exact(verdict: Verdict) -> None:
    """Nothing was found; else the first findings, and how many there are of each sort."""
    if verdict.findings:
        counts = Counter(finding.what for finding in verdict.findings)
        pytest.fail("\n".join([str(dict(counts)), *(str(finding) for finding in verdict.findings[:10])]), pytrace=False)


@pytest.mark.timeout(240)
def test_twenty_kills_of_everything_keep_every_record(short_dir: Path) -> None:
    """Every victim of the kill matrix at least once, in two graphs: no record lost, doubled or changed."""
    campaign = Campaign(seed="ci-516", kills=20, round_kills=10, most_wait_s=0.6)
    is_exact = campaign.run(short_dir)
    print(table(campaign))
    assert is_exact, "\n".join(campaign.failures)
    assert {victim for victim in VICTIMS if not campaign.scores[victim].kills} == set()
    assert campaign.total.returned > 10_000


@pytest.mark.parametrize(
    "victims",
    [("worker", "proxy"), ("proxy", "db_writer"), SINGLE],
    ids="+".join,
)
def test_kills_at_the_same_instant_keep_every_record(short_dir: Path, victims: tuple[str, ...]) -> None:
    """Of a record's last two holders, for instance: the worker that made it and the proxy that had it."""
    with Arena(short_dir / "a", oracle_worker(short_dir / "a")) as arena:
        played = Round(arena, [Blow("several", victims, 0.4, False)], random.Random(1))  # noqa: S311  dice, no secret
        verdict = played.fight()
        assert_exact(verdict)
        assert len(verdict.returned_ns) > 500


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_an_end_right_after_the_last_call_keeps_every_record(short_dir: Path, how: str) -> None:
    """`os._exit(0)` or SIGKILL: the proxy drains what is left by itself, and no recovery is needed."""
    with Arena(short_dir / "a", sudden_worker(short_dir / "a", how), "temporary") as arena:
        arena.up()
        arena.until(lambda: any(len(lines) > CALLS for lines in returned(arena)), "it has recorded", 30)
        arena.until(lambda: not arena.is_up("proxy"), "its proxy has drained and ended", 30)
        arena.stop()
        assert arena.left_in_journals() == []
        verdict = arena.judge()
        assert_exact(verdict)
        assert len(verdict.returned_ns) > CALLS


@pytest.mark.parametrize("how", ["fork-exit", "fork-kill"])
def test_a_forked_child_that_is_killed_keeps_every_record(short_dir: Path, how: str) -> None:
    """The child is a stream of its own, complete up to its last call; its parent's is complete, too."""
    with Arena(short_dir / "a", sudden_worker(short_dir / "a", how), "temporary") as arena:
        arena.up()
        arena.until(lambda: len(read_oracle(arena.oracle)) == 2, "both record", 30)
        arena.until(lambda: not arena.is_up("proxy"), "their proxy has drained and ended", 30)
        arena.stop()
        verdict = arena.judge()
        assert_exact(verdict)
        child, parent = sorted(len(lines) for lines in returned(arena))
        assert CALLS < child < parent


def test_a_killed_worker_whose_child_lives_on_keeps_every_record(short_dir: Path) -> None:
    """A data loader inherits what its parent had open. The proxy must see that the parent is dead all the same."""
    with Arena(short_dir / "a", sudden_worker(short_dir / "a", "linger"), is_attached=True) as arena:
        arena.up()
        arena.until(lambda: arena.is_up("db_writer"), "the graph is up", 30)
        while not returned(arena):  # it ends by itself as long as no graph answers
            arena.tend()
            arena.until(lambda: arena.attached is None or arena.attached.poll() is not None, "the worker died", 30)
        arena.until(lambda: not arena.is_up("proxy"), "its proxy has drained and ended", 30)
        assert arena.is_up("worker")
        (arena.oracle / RELEASE).touch()
        arena.stop()
        assert_exact(arena.judge())
        assert arena.left_in_journals() == []


def test_workers_that_are_killed_while_they_attach_leave_nothing_behind(short_dir: Path) -> None:
    """No journal that is half made stays for ever, and none is called damaged."""
    with Arena(short_dir / "a", sudden_worker(short_dir / "a", "attach"), "temporary") as arena:
        arena.up()
        arena.until(lambda: returned(arena), "the first one has recorded", 30)
        arena.until(lambda: not arena.is_up("proxy"), "their proxy has drained and ended", 60)
        arena.stop()
        for directory in arena.journals.iterdir():  # long ago, so that nobody can be about to fill them
            os.utime(directory, (0, 0))
        assert arena.run("recover") == 0, arena.circumstances()
        assert_exact(arena.judge())
        assert sorted(arena.journals.iterdir()) == []


def test_a_recovery_starts_no_worker(short_dir: Path) -> None:
    """The settings declare one, but who asks for a recovery does not ask for another training."""
    with Arena(short_dir / "a", oracle_worker(short_dir / "a")) as arena:
        arena.up()
        arena.until_recording()
        arena.herd.sweep()
        assert arena.run("recover") == 0
        assert_exact(arena.judge())
        assert "name=oracle" not in (arena.data / "logs" / "supervisor.log").read_text()


def test_a_kill_among_threads_that_record_keeps_every_record(short_dir: Path) -> None:
    """Whatever thread made it: what returned is there once, and its seqs have no hole."""
    with Arena(short_dir / "a", sudden_worker(short_dir / "a", "threads"), "temporary") as arena:
        arena.up()
        arena.until(lambda: arena.is_up("worker") or written(arena), "it runs", 30)
        arena.until(lambda: not arena.is_up("proxy"), "its proxy has drained and ended", 60)
        arena.stop()
        marks = written(arena)
        assert sorted(marks) == list(range(THREADS))
        with closing(sqlite3.connect(arena.database)) as connection:
            stored = {thread: numbers_of(connection, thread) for thread in marks}
        for thread, numbers in stored.items():
            missing = set(range(1, marks[thread] + 1)) - set(numbers)
            assert not missing, f"thread {thread}: {len(missing)} of {marks[thread]} are missing: {sorted(missing)[:9]}"
            assert marks[thread] <= len(numbers) == len(set(numbers)) <= marks[thread] + 1


def written(arena: Arena) -> dict[int, int]:
    """How many calls of each thread returned."""
    return {int(path.stem.split(".")[1]): path.stat().st_size for path in arena.oracle.glob(f"*{MARKS}")}


def numbers_of(connection: sqlite3.Connection, thread: int) -> list[int]:
    """The numbers one thread counted, as they are stored, whatever their kind."""
    sql = (
        "SELECT action FROM steps WHERE env_index = :thread UNION ALL "
        "SELECT step FROM metrics WHERE name = 'thread ' || :thread UNION ALL "
        "SELECT CAST(text AS INTEGER) FROM logs WHERE level = 'thread ' || :thread"
    )
    return [int(number) for (number,) in connection.execute(sql, {"thread": thread})]


def test_a_kill_in_the_middle_of_a_large_row_keeps_all_before_it(short_dir: Path) -> None:
    """Half a row is no record, and not the end of the others either. Eight workers, each killed a little later."""
    with Arena(short_dir / "a", sudden_worker(short_dir / "a", "large"), "transient") as arena:
        arena.up()
        arena.until(lambda: len(read_oracle(arena.oracle)) == LARGE_KILLS, "all of them recorded", 60)
        arena.until(lambda: not arena.is_up("proxy"), "their proxy has drained and ended", 60)
        arena.stop()
        verdict = arena.judge()
        assert_exact(verdict)
        assert len(returned(arena)) == LARGE_KILLS
