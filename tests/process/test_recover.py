"""`runlane recover` as a person runs it: journals of dead workers, whole or damaged, into the database."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_journal import flip
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.actors.orphans import journals_dir
from runlane.actors.store_reader import query
from runlane.config import names
from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of

pytestmark = pytest.mark.timeout(120)

WORKER = Path(__file__).with_name("killed_worker.py")
STEPS = 3_000
RECORDS = 1 + STEPS + STEPS // 10 + STEPS // 100  # the run's state, steps, episodes, metrics


@dataclass(slots=True)
class Home:
    """A data directory without a graph."""

    directory: Path
    settings: Settings
    options: list[str]

    def environment(self) -> dict[str, str]:
        """That of a worker whose proxy and graph are gone."""
        return {
            **os.environ,
            f"{names.ENV_PREFIX}DATA_DIR": self.settings.data_dir,
            f"{names.ENV_PREFIX}JOURNAL__SEGMENT_BYTES": str(1 << 16),
            names.ENV_PROXY: f"ipc://{self.directory / 'nobody.ipc'}",
            names.ENV_RUN: "run-1",
            names.ENV_RUN_NAME: "left behind",
            names.ENV_WORKER_NAME: "w",
        }

    def dead_worker(self) -> Path:
        """The journal that a killed worker leaves."""
        report = self.directory / "report"
        command = [sys.executable, str(WORKER), str(report), str(STEPS)]
        done = subprocess.run(command, env=self.environment(), timeout=60, check=False)
        assert done.returncode == -9
        records, stream = report.read_text().split()
        assert int(records) == RECORDS
        return journals_dir(self.settings) / stream

    def recover(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The command, to its end."""
        command = [sys.executable, "-m", "runlane", "recover", *arguments, *self.options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        return list(query(database_of(self.settings), statement)[1])

    def left(self) -> list[str]:
        """What lies among the journals."""
        return sorted(path.name for path in journals_dir(self.settings).iterdir())


@pytest.fixture
def home(short_dir: Path) -> Home:
    """Its settings file, and nothing else."""
    config = short_dir / "graph.toml"
    config.write_text(f'data_dir = "{short_dir / "data"}"\n[transport]\nrun_dir = "{short_dir / "run"}"\n')
    return Home(short_dir, load(config, {}, []), ["--config", str(config)])


def _assert_all_is_stored(home: Home) -> None:
    assert home.sql("SELECT count(*), count(DISTINCT seq), sum(reward) FROM steps") == [(STEPS, STEPS, STEPS * 1.0)]
    assert home.sql("SELECT count(*), sum(length) FROM episodes") == [(STEPS // 10, STEPS)]
    assert home.sql("SELECT count(*), max(value) FROM metrics") == [(STEPS // 100, STEPS / 100)]
    assert home.sql("SELECT count(*) FROM drops") == [(0,)]


def test_a_killed_workers_journal_is_stored_by_one_command(home: Home) -> None:
    """Without a graph before it or after it: every record once, the run called killed; then nothing is left."""
    stream = home.dead_worker().name
    done = home.recover()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{stream}: worker w of run run-1: records up to seq {RECORDS} are stored",
        f"all is stored in {database_of(home.settings)}",
    ]
    _assert_all_is_stored(home)
    assert home.sql("SELECT state FROM runs WHERE name = 'left behind'") == [("killed",)]
    assert home.left() == []
    again = home.recover()
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"nothing to recover under {journals_dir(home.settings)}\n"
    _assert_all_is_stored(home)
    assert not (home.directory / "run").exists()


def test_a_running_graph_is_used(home: Home) -> None:
    """It goes on after that, and has the rows."""
    with GraphUnderTest(home.directory, "[supervisor]\nrecovers = false") as graph:
        journal = home.dead_worker()
        done = home.recover(str(journal))
        assert (done.returncode, done.stderr) == (0, "")
        _assert_all_is_stored(home)
        assert graph.status().state == "running"
        assert home.left() == []


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_journal_is_stored_up_to_the_damage(home: Home, how: str) -> None:
    """One message that says from which seq on, exit code 1; what is lost is a row, and the files are kept."""
    journal = home.dead_worker()
    segments = sorted(journal.glob("*.seg"))
    assert len(segments) >= 3  # and a spare one, if the flusher was so quick
    if how == "cut":
        with segments[1].open("r+b") as file:
            file.truncate(30_000)
    else:
        flip(segments[1], 30_000)
    done = home.recover(str(journal))
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    stored = home.sql("SELECT count(*), max(seq) FROM (SELECT seq FROM steps UNION SELECT seq FROM episodes "
                      "UNION SELECT seq FROM metrics UNION SELECT seq FROM run_states WHERE worker = 'w')")  # fmt: skip
    [(count, last)] = stored
    assert count == last < RECORDS
    assert f"everything before seq {last + 1} is whole" in message
    assert message.startswith(f"runlane: {segments[1]}: ")
    [(reason, records)] = home.sql("SELECT reason, records FROM drops")
    assert reason == "journal_damaged"
    assert 1 <= records <= RECORDS - last
    assert home.left() == [f"{journal.name}.damaged"]
    assert home.recover().stdout.startswith("nothing to recover")


def test_a_single_segment_is_stored_and_not_touched(home: Home) -> None:
    """Wherever it was kept: its records, and only they, under their own seqs."""
    journal = home.dead_worker()
    segment = sorted(journal.glob("*.seg"))[1]
    data = segment.read_bytes()
    done = home.recover(str(segment))
    assert (done.returncode, done.stderr) == (0, "")
    [(count, first, last)] = home.sql("SELECT count(*), min(seq), max(seq) FROM steps")
    assert 0 < count < last - first + 2 < STEPS
    assert segment.read_bytes() == data
    assert home.left() == [journal.name]


@pytest.mark.xfail(strict=True, reason="the DB writer takes what lies before its newest seq for stored already")
def test_what_lies_before_a_single_segment_can_still_be_stored(home: Home) -> None:
    """First a later segment alone, then the whole journal: no record less, and none twice."""
    journal = home.dead_worker()
    assert home.recover(str(sorted(journal.glob("*.seg"))[1])).returncode == 0
    assert home.recover().returncode == 0
    _assert_all_is_stored(home)


def test_what_is_no_journal_is_one_message(home: Home) -> None:
    """A path that is not there, a foreign file: exit code 1, no graph, no traceback, and the file is as it was."""
    photo = home.directory / "photo.seg"
    photo.write_bytes(b"\xff\xd8\xff\xe0" * 1_000)
    for path, words in ((home.directory / "nowhere", "no such file"), (photo, "no segment of a runlane journal")):
        done = home.recover(str(path))
        assert (done.returncode, done.stdout) == (1, "")
        (message,) = done.stderr.splitlines()
        assert message.startswith(f"runlane: {path}: ")
        assert words in message
    assert photo.read_bytes() == b"\xff\xd8\xff\xe0" * 1_000
    assert not (home.directory / "data").exists()


def test_a_living_workers_journal_is_left_alone(home: Home) -> None:
    """It is still being written; the message says who drains it."""
    report = home.directory / "report"
    command = [sys.executable, str(WORKER), str(report), "0"]
    with subprocess.Popen(command, env=home.environment()) as worker:
        try:
            wait_until(lambda: report.exists() and report.read_text(), "the worker records")
            done = home.recover()
        finally:
            worker.kill()
    assert (done.returncode, done.stderr) == (0, "")
    assert "its worker is alive" in done.stdout
    assert home.recover().returncode == 0
    assert home.sql("SELECT state FROM runs WHERE name = 'left behind'") == [("killed",)]
