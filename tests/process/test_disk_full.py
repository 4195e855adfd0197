"""A full disk costs records, each counted, and nothing else: training goes on, and what comes after is kept again."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from process.conftest import small_file_system
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.actors.orphans import journals_dir
from runlane.config import names

pytestmark = pytest.mark.timeout(120)

WORKER = Path(__file__).with_name("ordered_worker.py")
SEGMENT = 1 << 16
TABLES = f"""
[journal]
segment_bytes = {SEGMENT}
quota_bytes = {1 << 20}
min_free_bytes = 0
[session]
overflow = "drop_newest"
close_s = 30.0
"""


class Worker:
    """One that is told what to do, and tells its own counts."""

    def __init__(self, graph: GraphUnderTest, limit: str) -> None:
        started = graph.client.start_worker("w", "run-1", "full disk", 10.0)
        environment = {
            **os.environ,
            names.ENV_CONFIG: str(graph.config),
            names.ENV_PROXY: started.endpoint,
            names.ENV_RUN: started.run,
            names.ENV_WORKER_NAME: started.worker,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), *([limit] if limit else [])],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __call__(self, order: str) -> dict[str, Any]:
        """Give an order and wait until it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        counts: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert counts["faults"] == 0
        return counts

    def end(self) -> None:
        """By its own will, or else by force."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(10)


@contextmanager
def _working(directory: Path, tables: str = TABLES, limit: str = "") -> Generator[tuple[GraphUnderTest, Worker]]:
    with GraphUnderTest(directory, tables) as graph:
        worker = Worker(graph, limit)
        try:
            yield graph, worker
        finally:
            worker.process.kill()
            worker.end()


def _told(graph: GraphUnderTest) -> dict[tuple[str, str], int]:
    rows = graph.sql("SELECT kind, reason, sum(records) FROM drops GROUP BY kind, reason")
    return {(kind, reason): records for kind, reason, records in rows}


def _assert_balance(graph: GraphUnderTest, counts: dict[str, Any]) -> None:
    """Given = stored + dropped, by the database alone, and every seq once."""
    dropped = counts["dropped"].get("step", 0)
    told = sum(records for (kind, _), records in _told(graph).items() if kind == "step")
    assert told == dropped > 0
    [(stored, distinct)] = graph.sql("SELECT count(*), count(DISTINCT seq) FROM steps")
    assert stored == distinct == counts["given"] - dropped


# ---- where no file may grow ------------------------------------------------------------------------------


def test_a_worker_goes_on_where_no_segment_can_be_made(short_dir: Path) -> None:
    """From the start, in the middle and at the end: exact drops, and no hand is needed when there is room again."""
    with _working(short_dir, limit="8192") as (graph, worker):
        assert worker("steps 3000")["dropped"]["step"] == 3_000
        worker("limit")
        worker("keep")
        worker("steps 2000")
        worker("limit 8192")
        worker("drop")
        assert worker("steps 5000")["records"] > 0
        worker("limit")
        worker("keep")
        counts = worker("close")
        assert counts["is_committed"]
        _assert_balance(graph, counts)
        assert {reason for _, reason in _told(graph)} == {"disk_full"}
        worker.end()
        wait_until(lambda: not list(journals_dir(graph.settings).iterdir()), "the journal is drained and removed")


def test_drops_of_a_worker_killed_on_a_full_disk_are_told(short_dir: Path) -> None:
    """No drop record found room: the counts stand in the journal's head, and whoever drains it tells them."""
    with _working(short_dir) as (graph, worker):
        worker("steps 500")
        worker("limit 8192")
        worker("drop")
        counts = worker("steps 5000")
        worker.process.kill()
        worker.process.wait(10)
        wait_until(lambda: _told(graph), "the drops are told")
        _assert_balance(graph, counts)
        assert set(_told(graph)) == {("step", "untold")}
        wait_until(lambda: graph.sql("SELECT state FROM runs WHERE run = 'run-1'") == [("killed",)], "it is dead")


def test_a_worker_whose_disk_was_full_all_its_life_is_accounted_for(short_dir: Path) -> None:
    """Not one record of it could be kept; that it lived, what it lost and how it ended is known."""
    with _working(short_dir, limit="8192") as (graph, worker):
        counts = worker("steps 2000")
        assert counts["dropped"]["step"] == 2_000
        worker.process.kill()
        worker.process.wait(10)
        wait_until(lambda: sum(_told(graph).values()) >= 2_000, "the drops are told")
        _assert_balance(graph, counts)
        assert {reason for _, reason in _told(graph)} == {"untold"}
        assert graph.sql("SELECT state FROM run_states WHERE worker = 'proxy-w'") == [("killed",)]


# ---- a file system of a few megabytes --------------------------------------------------------------------


@pytest.fixture
def small_disk(short_dir: Path) -> Iterator[Path]:
    """A file system of 24 MiB, for the data directory."""
    with small_file_system(short_dir / "data", 24) as path:
        yield path


def _fill(disk: Path, left: int) -> Path:
    """Somebody else takes all of the disk but so many bytes."""
    filler = disk / "checkpoint.pt"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - left)
    return filler


def test_a_whole_graph_lives_through_a_full_disk(short_dir: Path, small_disk: Path) -> None:
    """Database and journals have no block left: training goes on; with room again all that was kept is stored."""
    with _working(short_dir) as (graph, worker):
        worker("steps 5000")
        wait_until(lambda: graph.sql("SELECT count(*) FROM steps") == [(5_000,)], "the first steps are stored")
        filler = _fill(small_disk, 0)
        worker("drop")
        during = worker("steps 20000")
        assert during["dropped"]["step"] > 10_000
        filler.unlink()
        worker("keep")
        worker("steps 5000")
        counts = worker("close")
        assert counts["is_committed"]
        _assert_balance(graph, counts)
        assert all(child.state == "running" for child in graph.status().children if child.kind != "proxy")


def test_the_journal_leaves_a_reserve_to_others(short_dir: Path, small_disk: Path) -> None:
    """It stops at `min_free_bytes`, with which the database still works: what is kept is stored meanwhile."""
    tables = TABLES.replace("min_free_bytes = 0", f"min_free_bytes = {6 << 20}")
    with _working(short_dir, tables) as (graph, worker):
        worker("steps 500")
        filler = _fill(small_disk, 4 << 20)
        worker("drop")
        counts = worker("steps 5000")
        kept = counts["given"] - counts["dropped"]["step"]
        wait_until(lambda: graph.sql("SELECT count(*) FROM steps") == [(kept,)], "what was kept is stored")
        filler.unlink()
        worker("keep")
        _assert_balance(graph, worker("close"))
