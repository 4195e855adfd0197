"""The oracle can fail: each kind of damage done to a database by hand is found, and named for what it is."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from chaos.arena import Arena
from chaos.oracle_lines import NO_DIGEST, SUFFIX, Kind, OracleFile, read_oracle
from chaos.verdict import Verdict, judge

SEQ = 1_099_511_627_775
STRANGER = "7" * 32
PICKED = "(SELECT id FROM step_rows ORDER BY id LIMIT 1 OFFSET 5)"


class Evidence:
    """A database and an oracle that agree, for a test to spoil."""

    def __init__(self, directory: Path) -> None:
        self.database = directory / "runlane.db"
        self.oracle = directory / "oracle"
        [(self.stream, self.lines)] = read_oracle(self.oracle).items()

    def doctor(self, sql: str) -> None:
        """Change the database."""
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute(sql)
            connection.commit()

    def judge(self) -> Verdict:
        return judge(self.database, self.oracle)

    def found(self) -> list[str]:
        """What is found, each sort once."""
        return sorted({finding.what for finding in self.judge().findings})


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real graph stored and a real oracle noted, with nobody killed."""
    place = tmp_path_factory.mktemp("e", numbered=True)
    worker = ["{python}", "-m", "chaos.oracle_worker", str(place / "a" / "oracle"), "genuine", "4000"]
    with Arena(place / "a", worker) as arena:
        arena.up()
        arena.until_recording()
        arena.until(lambda: len(next(iter(read_oracle(arena.oracle).values()))) > 3_000, "3,000 records returned", 30)
        arena.stop()
        shutil.copy(arena.database, place)
        shutil.copytree(arena.oracle, place / "oracle")
    return place


@pytest.fixture
def evidence(genuine: Path, tmp_path: Path) -> Evidence:
    """A copy."""
    shutil.copytree(genuine, tmp_path / "copy")
    return Evidence(tmp_path / "copy")


def test_what_is_right_is_found_right(evidence: Evidence) -> None:
    """Nothing was killed: every record the oracle knows is there, and close() kept its word."""
    verdict = evidence.judge()
    assert verdict.findings == []
    assert len(verdict.returned_ns) == sum(line.is_record for line in evidence.lines) > 3_000
    assert evidence.lines[-1].kind is Kind.CLOSED


@pytest.mark.parametrize("kind", ["step", "episode", "metric", "log", "run"])
def test_a_record_that_is_gone_is_lost(evidence: Evidence, kind: str) -> None:
    """One row of any kind, and only that one."""
    evidence.doctor(f"DELETE FROM {kind}_rows WHERE id = (SELECT min(id) FROM {kind}_rows)")  # noqa: S608
    assert evidence.judge().count("lost") == 1


def test_an_info_that_is_gone_is_lost(evidence: Evidence) -> None:
    """It has a seq of its own."""
    evidence.doctor("DELETE FROM info_rows WHERE seq = (SELECT min(seq) FROM info_rows)")
    assert evidence.found() == ["lost"]


def test_a_record_that_is_stored_under_two_kinds_is_doubled(evidence: Evidence) -> None:
    """The key of a table cannot see it."""
    evidence.doctor(f"INSERT INTO log_rows SELECT id, t_ns, 'info', 'again' FROM step_rows WHERE id = {PICKED}")  # noqa: S608
    assert evidence.found() == ["doubled"]


def test_records_in_a_stream_nobody_made_are_doubled(evidence: Evidence) -> None:
    """A journal that is drained under a new id would look like this."""
    evidence.doctor(
        "INSERT INTO streams (stream_no, stream, run, worker, incarnation, host, pid, started_ns) "  # noqa: S608
        f"SELECT 77, '{STRANGER}', run, worker, 77, host, pid, started_ns FROM streams LIMIT 1"
    )
    assert evidence.found() == []
    evidence.doctor(
        f"INSERT INTO step_rows SELECT (id & {SEQ}) | (77 << 40), t_ns, episode, step, env_index, flags, reward, "  # noqa: S608
        f"action, observation FROM step_rows WHERE id = {PICKED}"
    )
    assert evidence.found() == ["doubled"]


@pytest.mark.parametrize(
    "change",
    [
        "reward = coalesce(reward, 0) + 1e-9",
        "action = 77",
        "observation = x'00'",
        "episode = episode + 1",
        "step = step + 1",
        "env_index = 3",
        "flags = 15 - flags",
    ],
)
def test_a_changed_field_is_wrong(evidence: Evidence, change: str) -> None:
    """Any of them."""
    evidence.doctor(f"UPDATE step_rows SET {change} WHERE id = {PICKED}")  # noqa: S608
    assert evidence.found() == ["wrong"]


def test_records_in_the_place_of_others_are_wrong(evidence: Evidence) -> None:
    """Every row is there, and every seq."""
    evidence.doctor(
        "UPDATE metric_rows SET (name, value) = (SELECT name, value FROM metric_rows AS o WHERE o.id <> metric_rows.id)"
    )
    assert evidence.found() == ["wrong"]


def test_a_counter_that_counts_wrong_is_wrong(evidence: Evidence) -> None:
    """`streams.steps` promises to save counting the rows."""
    evidence.doctor("UPDATE streams SET steps = steps + 1 WHERE steps > 0")
    assert evidence.found() == ["wrong"]


@pytest.mark.parametrize("change", ["episodes = episodes + 1", "max_return = 1e9", "sum_length = sum_length - 1"])
def test_a_bucket_that_is_not_the_sum_of_its_episodes_is_wrong(evidence: Evidence, change: str) -> None:
    """As when an episode that came twice was stored once, and counted twice."""
    evidence.doctor(f"UPDATE episode_rollups SET {change} WHERE level = 4 AND bucket = 1")  # noqa: S608
    assert evidence.found() == ["wrong"]


def test_a_dead_stream_that_is_said_to_run_is_wrong(evidence: Evidence) -> None:
    """Every worker of an arena is dead when it is judged."""
    evidence.doctor("UPDATE streams SET state = 'running' WHERE steps > 0")
    assert evidence.found() == ["wrong"]


def test_a_gap_that_is_none_is_wrong(evidence: Evidence) -> None:
    """Accounts that tell of a loss there was not."""
    evidence.doctor(
        "INSERT INTO drop_rows SELECT stream_no, 'db_writer', 5, '', 9, 0, 'gap', 5 FROM streams WHERE steps > 0"
    )
    assert evidence.found() == ["wrong"]


def test_many_records_that_nobody_made_are_wrong(evidence: Evidence) -> None:
    """A few may be stored whose call did not return; a flood may not."""
    last = evidence.lines[-1].seq
    [path] = evidence.oracle.glob(f"*{SUFFIX}")
    path.write_bytes(path.read_bytes()[: 32 * (len(evidence.lines) - 100)])
    assert last - 100 > 0
    assert evidence.found() == ["wrong"]


def test_a_call_that_returned_and_gave_no_seq_is_lost(evidence: Evidence) -> None:
    """What the source gave up is lost, however well it is accounted."""
    OracleFile(evidence.oracle, evidence.stream).append([(evidence.lines[-1].seq, Kind.DROPPED, NO_DIGEST)])
    assert evidence.found() == ["lost"]


def test_a_close_that_promised_too_much_is_a_loss(evidence: Evidence) -> None:
    """It said that everything is committed."""
    OracleFile(evidence.oracle, evidence.stream).append([(evidence.lines[-1].seq + 2, Kind.CLOSED, NO_DIGEST)])
    assert evidence.judge().count("lost") == 2


def test_a_line_cut_off_by_a_kill_is_passed_over(evidence: Evidence) -> None:
    """Its call had returned, but nobody can say which it was."""
    [path] = evidence.oracle.glob(f"*{SUFFIX}")
    path.write_bytes(path.read_bytes()[:-7])
    assert evidence.found() == []
