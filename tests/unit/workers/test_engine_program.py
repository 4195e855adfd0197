"""What an engine prints through a session, and what its end means."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import ROOT
from unit.workers.session_rig import SessionRig

from runlane.transport.records import RunRecord
from runlane.workers import godot
from runlane.workers.engine_program import SessionLines
from runlane.workers.jsonl_lines import lines_of


def test_the_facts_an_engine_tells_are_the_runs(rig: SessionRig) -> None:
    """Its configuration and its environment, as a bridge would record them; not a text in the log."""
    session = rig.session()
    recorder = SessionLines(session)
    recorder.record(lines_of(b'{"kind":"run","config":{"lr":0.5},"env":{"id":"Arena"}}\n{"kind":"step"}'))
    session.close()
    told = [record.facts for record in rig.records(RunRecord)]
    assert {"config": {"lr": 0.5}, "env": {"id": "Arena"}} in told
    assert recorder.steps == 1


@pytest.mark.parametrize(
    ("code", "state"),
    [(0, "finished"), (7, "failed"), (255, "failed"), (137, "killed"), (139, "killed"), (130, "stopped")],
)
def test_an_exit_code_says_what_became_of_the_engine(code: int, state: str) -> None:
    """255 is no signal: Godot ends so where it has no display."""
    assert godot.state_of(code) == state


def test_an_engine_without_a_step_is_told_of(tmp_path: Path) -> None:
    """Exit code 0, and one line that says what to look at."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RUNLANE_DISABLED": "1", "DISPLAY": ":0"}
    done = subprocess.run(
        [sys.executable, "-m", "runlane.workers.godot", "--engine", "/bin/true"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, f"runlane: {godot.NO_STEP}\n")
