"""The BDI worker as a user starts it: a real agent, a real server, a real graph."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import psutil
import pytest
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.config import names
from runlane.transport.endpoint import run_dir_of
from runlane.transport.lane_follower import LaneFollower

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
MODULES = ("spade", "spade_bdi", "pyjabber", "greenlet", "gymnasium", "pygame")
LOOPBACK = {"127.0.0.1", "::1"}
COUNT = re.compile(r"(\d+) steps, (\d+) episodes, (\d+) with a reward, return sum (\S+),")


class Spade:
    """Starts the worker in the interpreter that has its packages; the graph is found by the settings file."""

    def __init__(self, directory: Path) -> None:
        self.python = str(kinds.interpreter_of("spade", *MODULES))
        self.temporary = directory / "tmp"
        self.temporary.mkdir()

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(self.temporary), **variables}
        return subprocess.Popen(
            [self.python, "-m", "runlane.workers.spade_bdi", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def spade(short_dir: Path) -> Spade:
    """Skipped where its packages are absent."""
    return Spade(short_dir)


def _counted(out: str) -> tuple[int, int, float]:
    found = COUNT.match(out)
    assert found, out
    return int(found[1]), int(found[2]), float(found[4])


def _recorded(graph: GraphUnderTest) -> tuple[int, int, float]:
    ((steps,),) = graph.sql("SELECT count(*) FROM steps")
    ((episodes, total),) = graph.sql("SELECT count(*), sum(episode_return) FROM episodes WHERE outcome <> 'abandoned'")
    return steps, episodes, total


def test_all_that_the_agent_does_and_believes_is_in_the_database(short_dir: Path, spade: Spade) -> None:
    """Its own count is that of SQL; each step has its beliefs and intentions; `FASTLANE=1` shows its lines."""
    report = short_dir / "report.json"
    with GraphUnderTest(short_dir) as graph:
        code, out, err = spade.run(
            "--episodes",
            "25",
            RUNLANE_CONFIG=str(graph.config),
            FASTLANE="1",
            **{names.ENV_WORKER_REPORT: str(report)},
        )
        assert code == 0, err
        assert _counted(out) == (150, 25, 25.0)
        assert _recorded(graph) == (150, 25, 25.0)
        told = json.loads(report.read_text())
        assert (told["steps"], told["episodes"], told["rewarded"]) == (150, 25, 25)
        assert "[FASTLANE]" in err
        assert graph.sql("SELECT worker, state FROM streams") == [("spade", "finished")]
        ((config,),) = graph.sql("SELECT config FROM runs")
        assert json.loads(config)["program"] == "spade_frozen_lake.asl"
        infos = [json.loads(info) for (info,) in graph.sql("SELECT info FROM infos ORDER BY seq")]
        assert len(infos) == 150
        assert [info["intentions"] for info in infos[:2]] == [["turn(1)", "cross"], ["turn(2)", "cross"]]
        cells = [next(belief for belief in info["beliefs"] if belief.startswith("state(")) for info in infos[:6]]
        assert cells == ["state(0)", "state(4)", "state(8)", "state(9)", "state(13)", "state(14)"]
        lines = [text for (text,) in graph.sql("SELECT text FROM logs ORDER BY seq")]
        assert [line for line in lines if line.startswith("beliefs -state(0) -turn(1) +reward(0")], lines[:5]
        assert "episode 25 ended: return 1" in lines
        assert list(spade.temporary.iterdir()) == []


def test_it_listens_on_loopback_alone_is_watched_and_interrupted(short_dir: Path, spade: Spade) -> None:
    """A free port of 127.0.0.1 and no other; a viewer sees the lake; after Ctrl-C nothing of it is left."""
    with GraphUnderTest(short_dir) as graph:
        process = spade.start("--episodes", "1000000", "--slippery", RUNLANE_CONFIG=str(graph.config))
        try:
            wait_until(lambda: graph.sql("SELECT 1 FROM streams WHERE steps > 20"), "it steps", 60)
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            sockets = [found for each in tree for found in each.net_connections("inet")]
            listening = {found.laddr for found in sockets if found.status == psutil.CONN_LISTEN}
            assert listening
            assert {address.ip for address in listening} <= LOOPBACK, listening
            assert not {address.port for address in listening} & {5222, 5269, 9090}
            assert {found.raddr.ip for found in sockets if found.raddr} <= LOOPBACK
            assert len(tree) == 1, "it has started processes"
            follower = LaneFollower(run_dir_of(graph.settings), rate_hz=30.0)
            try:
                (frame,) = wait_until(
                    lambda: [found] if (found := _frame(follower)) is not None else [], "a picture of the lake", 60
                )
            finally:
                follower.close()
            assert frame.shape[2] == 3
            assert frame.std() > 10, "it is blank"
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert wait_until(lambda: graph.sql("SELECT state FROM streams WHERE state <> 'running'"), "it has ended") == [
            ("stopped",)
        ]
        assert _recorded(graph) == _counted(out)
        assert list(spade.temporary.iterdir()) == []


def _frame(follower: LaneFollower) -> Any:
    follower.poll(time.monotonic_ns())
    found, geometry = follower.read(), follower.geometry
    return None if found is None or geometry is None else np.frombuffer(found[1], np.uint8).reshape(geometry.shape)


@pytest.mark.parametrize(
    ("arguments", "program", "code", "said"),
    [
        (("--bogus",), "", 2, "--bogus"),
        (("--episodes", "0"), "", 2, "--episodes: 0"),
        (("--env", "Nothing-v9"), "", 2, "--env Nothing-v9"),
        (("--env", "MountainCarContinuous-v0"), "", 2, "Discrete"),
        (("--program", "none.asl"), "", 2, "none.asl"),
        ((), "+turn(T <- ", 2, "program.asl:1"),
        ((), "+turn(_) <- .act(sideways).", 1, "sideways"),
        ((), "+turn(_) <- !go. +!go : never <- .act(1).", 1, "no applicable plan"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    spade: Spade, short_dir: Path, arguments: tuple[str, ...], program: str, code: int, said: str
) -> None:
    """With the place in the program, where it is that; and its own exit status."""
    if program:
        path = short_dir / "program.asl"
        path.write_text(program)
        arguments = ("--program", str(path))
    found, out, err = spade.run(*arguments, RUNLANE_DISABLED="1")
    assert (found, out) == (code, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert list(spade.temporary.iterdir()) == []
