"""A run as its database has it: every observation that the script saw, N + 1 of them, and how it came about."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process.test_run import Runner
from unit.workers import final_rig

from runlane.actors.store_reader import query

pytestmark = pytest.mark.timeout(120)
RIG = Path(final_rig.__file__)
CASES = [
    *((mode, way) for mode in ("NEXT_STEP", "SAME_STEP", "DISABLED") for way in ("closed", "per_env")),
    (final_rig.SCALAR, "closed"),
    (final_rig.SCALAR, "left open"),
]
OBSERVATIONS = "SELECT env_index, episode, step, observation, is_final FROM observations ORDER BY env_index, seq"


@pytest.fixture
def runner(short_dir: Path) -> Runner:
    """A fresh directory, no graph running."""
    return Runner(short_dir)


@pytest.mark.parametrize(("mode", "way"), CASES)
def test_the_database_has_every_observation_that_the_script_saw(runner: Runner, mode: str, way: str) -> None:
    """One more than steps in each episode, numbered, the last one final; also where nobody closed anything."""
    report = runner.directory / "seen.json"
    code, _, err = runner.run(sys.executable, str(RIG), mode, way, str(report))
    assert code == 0, err
    found: dict[tuple[int, int], list[list[float]]] = {}
    rows: list[Any] = query(runner.database, OBSERVATIONS)[1]
    for env_index, episode, step, observation, is_final in rows:
        seen = found.setdefault((env_index, episode), [])
        seen.append(np.frombuffer(observation, "<f4").tolist())
        assert step == len(seen)
        assert not is_final or seen[-1][2] == len(seen) - 1
    wanted = {(index, episode): seen for index, episode, seen in json.loads(report.read_text())}
    assert found == wanted
    lengths: list[Any] = query(runner.database, "SELECT env_index, episode, length FROM episodes")[1]
    assert {(index, episode): length + 1 for index, episode, length in lengths} == {
        key: len(seen) for key, seen in wanted.items()
    }
    ((finals,),) = query(runner.database, "SELECT sum(is_final) FROM observations")[1]
    assert finals == len(wanted)


def test_a_run_knows_the_commit_that_it_ran(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what has changed since; its arguments, and its environment with the seed."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    repository = runner.directory / "project"
    repository.mkdir()
    (repository / "file").write_text("one\n")
    for line in ("init -q -b main", "add file", "-c user.name=a -c user.email=a@b commit -q -m first"):
        subprocess.run(["git", *line.split()], cwd=repository, check=True)  # noqa: S607  whichever git there is
    (repository / "file").write_text("two\n")
    (repository / "new").write_text("")
    monkeypatch.chdir(repository)
    command = [sys.executable, str(RIG), final_rig.SCALAR, "closed", str(runner.directory / "seen.json")]
    code, _, err = runner.run(*command)
    assert code == 0, err
    ((text,),) = query(runner.database, "SELECT facts FROM runs")[1]
    facts = json.loads(str(text))
    commit = (repository / ".git/refs/heads/main").read_text().strip()
    diff = subprocess.run(["git", "diff", "HEAD"], cwd=repository, check=True, capture_output=True).stdout  # noqa: S607
    assert facts["git"] == {"commit": commit, "branch": "main", "dirty_bytes": len(diff), "untracked": 1}
    assert facts["arguments"] == command
    assert (facts["env"]["id"], facts["env"]["seed"]) == ("Numbered", 1)
    assert facts["versions"]["gymnasium"]
    assert facts["directory"] == str(repository)
