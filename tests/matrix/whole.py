"""The whole matrix, each case with a graph of its own that `runlane run` starts: `make matrix`, never `make test`.

pytest collects this file only where it is named. A case whose environment is missing is skipped, loudly.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from matrix.case import CASES, Case, title
from matrix.evidence import Evidence
from matrix.script_run import ScriptRun
from matrix.verdict import contradictions, differences
from process.graph_under_test import wait_until

from runlane.config.load import load
from runlane.transport.endpoint import database_of, run_dir_of
from runlane.transport.ring_files import graph_prefix, ring_directories

pytestmark = pytest.mark.timeout(500)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Of few letters: the path of a socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize("case", CASES, ids=title)
def test_a_script_is_the_same_and_leaves_nothing_but_its_rows(case: Case, directory: Path) -> None:
    """As the quick part; and when it is over no process, ring, socket or attach directory is left."""
    places = (f"data_dir={directory / 'data'}", f"transport.run_dir={directory / 'run'}", *case.settings)
    settings = load(environment={}, arguments=list(places))
    run_dir = run_dir_of(settings)
    run = ScriptRun(case, directory)
    bare = run.bare()
    recorded = run.recorded([part for text in places for part in ("--set", text)], run_dir if case.is_watched else None)
    found = [*differences(case, bare, recorded)]
    found += contradictions(case, recorded.result, Evidence(database_of(settings), case.name))
    wait_until(lambda: not run.alive(), f"all that the run started is gone: {run.alive()}", 20)
    prefix = graph_prefix(run_dir)
    found += [f"left: {path}" for place in ring_directories(run_dir) for path in place.glob(f"{prefix}*")]
    found += [f"left: {path}" for path in run_dir.iterdir()] if run_dir.exists() else []
    assert not found, "\n".join(found)
