"""A bridge killed at places of its own code that only chance would hit otherwise."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("jsonl_killed.py")
POINTS = 25


@pytest.mark.timeout(300)
def test_there_is_no_wrong_moment_to_kill_a_bridge(short_dir: Path) -> None:
    """Between any two lines of its code, up to four times in a row: every record is made once, episodes go on."""
    seed = os.environ.get("RUNLANE_TEST_SEED") or str(random.SystemRandom().randrange(1 << 30))
    path = os.pathsep.join((str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(short_dir), str(POINTS), seed],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, f"seed {seed}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert f"{POINTS} places of" in done.stdout
