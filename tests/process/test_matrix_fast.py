"""Unedited scripts, bare and under `runlane run`: the quick part of the matrix. `make matrix` runs the whole."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from matrix.case import FAST_CASES, Case, title
from matrix.evidence import Evidence
from matrix.script_run import ScriptRun
from matrix.verdict import contradictions, differences
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.transport.endpoint import database_of, run_dir_of
from runlane.transport.ring_files import find_rings

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def graph() -> Iterator[GraphUnderTest]:
    """One for all: each case has a run of its own."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as directory, GraphUnderTest(Path(directory)) as graph:
        yield graph


@pytest.mark.parametrize("case", FAST_CASES, ids=title)
def test_a_script_is_the_same_and_each_of_its_steps_is_stored(
    case: Case, graph: GraphUnderTest, tmp_path: Path
) -> None:
    """Exit code, stdout and results are those of the bare run; steps, episodes and returns in SQL the script's own."""
    run = ScriptRun(case, tmp_path)
    run_dir = run_dir_of(graph.settings)
    bare = run.bare()
    recorded = run.recorded(graph.options, run_dir if case.is_watched else None)
    found = [*differences(case, bare, recorded)]
    found += contradictions(case, recorded.result, Evidence(database_of(graph.settings), case.name))
    assert not found, "\n".join(found)
    wait_until(lambda: not run.alive(), f"all that the run started is gone: {run.alive()}", 10)
    assert find_rings(run_dir) == []
