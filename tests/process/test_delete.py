"""`runlane delete` as a person runs it beside a graph, whose DB writer is killed meanwhile."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from process.graph_under_test import GraphUnderTest
from unit.actors.retention_rig import STEPS, add_run, grow

from runlane.actors.store import Store
from runlane.actors.store_reader import list_runs
from runlane.config.settings import DbWriterSettings
from runlane.transport.endpoint import database_of

pytestmark = pytest.mark.timeout(60)
ROWS = 100_000


def test_a_deletion_is_finished_by_the_next_db_writer(short_dir: Path) -> None:
    """The command waits for it, and tells exact counts; the other run is as it was."""
    graph = GraphUnderTest(short_dir)
    with closing(Store(database_of(graph.settings), DbWriterSettings(synchronous="NORMAL"))) as store:
        add_run(store, 1, 10)
        add_run(store, 2, 20)
        grow(store, 1, ROWS)
    with graph:
        accepted = graph.client.delete_run("R1")
        assert accepted is not None
        assert accepted.state == "removing"
        os.kill(graph.child("db_writer").pid, signal.SIGKILL)
        command = [sys.executable, "-m", "runlane", "delete", "R1", "--yes", *graph.options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        again = graph.client.delete_run("R1")
        assert again is not None
        assert again.rows["step"] == ROWS + STEPS + 5
        assert [row.run for row in list_runs(database_of(graph.settings))] == ["R2"]
        assert graph.sql("SELECT run, count(*) FROM steps GROUP BY run") == [("R2", STEPS + 10)]
