"""JSON lines of foreign programs, end to end: real programs, a real graph, SQLite, and `kill -9` of everybody."""

import os
import random
import signal
import sys
from pathlib import Path

import pytest
from process.graph_under_test import GraphUnderTest, wait_until
from process.jsonl_rig import PROGRAM, ForeignRun, bridge_pid, expected, read_bytes, stored

pytestmark = pytest.mark.timeout(200)
SEED = int(os.environ.get("RUNLANE_TEST_SEED") or random.SystemRandom().randrange(1 << 30))


def test_every_line_is_stored_once_however_often_the_bridge_is_killed(short_dir: Path) -> None:
    """`kill -9` of the bridge at random points: no record is lost, none is there twice, episodes go on."""
    lines, kills = 60_000, 12
    dice = random.Random(SEED)
    sys.stderr.write(f"RUNLANE_TEST_SEED={SEED}\n")
    with GraphUnderTest(short_dir) as graph, ForeignRun(graph, "stdout", sys.executable, str(PROGRAM), str(lines), str(SEED)) as run:
        spool = run.spool()
        total = 0
        size = 0
        for number in range(kills):
            size = wait_until(lambda: (spool / "out.jsonl").stat().st_size, "the program writes")
            target = dice.randrange(size * (number + 1) // (kills + 1) + 1)

            def is_there(target: int = target) -> bool:
                return not spool.exists() or (read_bytes(spool) >= target and bridge_pid(spool) > 0)

            wait_until(is_there, f"the bridge has read {target} bytes")
            pid = bridge_pid(spool) if spool.exists() else 0
            if not pid:
                break
            os.kill(pid, signal.SIGKILL)
            total += 1
            wait_until(lambda pid=pid: bridge_pid(spool) not in (0, pid) or not spool.exists(), "the next bridge")
        code, _, err = run.end()
        assert code == 0, err
        sys.stderr.write(f"kills {total}\n")
        assert total > 3
        assert stored(graph) == expected(lines, SEED)
        assert not run.spools()
