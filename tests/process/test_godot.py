"""Godot as a worker: a game engine in its own process, with nothing of Python inside, recorded and shown."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from process.engine_rig import EngineRun
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.transport.endpoint import run_dir_of
from runlane.transport.ring_files import find_rings

ENGINE = "godot3-runner"
HAS_ENGINE = any(shutil.which(name) for name in (ENGINE, "godot3", "godot")) and shutil.which("Xvfb")
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not HAS_ENGINE, reason="NO GODOT 3: `apt-get install godot3-runner xvfb`"),
]
WIDTH, HEIGHT = 320, 240
FOREVER = ("--episodes", "1000000")
# A project of somebody else, which prints what it likes and ends with a code of its own.
FOREIGN = {
    "project.godot": 'config_version=4\n[application]\nrun/main_scene="res://main.tscn"\n',
    "main.tscn": '[gd_scene load_steps=2 format=2]\n[ext_resource path="res://main.gd" type="Script" id=1]\n'
    '[node name="Main" type="Node"]\nscript = ExtResource( 1 )\n',
    "main.gd": 'extends Node\nfunc _ready():\n\tprint("no json")\n\tprint(\'{"kind":"step","reward":2.5}\')\n'
    '\tprinterr("trouble")\n\tget_tree().quit(7)\n',
}
Start = Callable[..., EngineRun]


@pytest.fixture(scope="module")
def graph() -> Iterator[GraphUnderTest]:
    """One for all: each test has a run of its own, and leaves no ring."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as directory, GraphUnderTest(Path(directory)) as graph:
        yield graph


@pytest.fixture
def start(graph: GraphUnderTest) -> Iterator[Start]:
    """Starts the worker; it is gone at the end, with its engine and its display."""
    started: list[EngineRun] = []

    def begin(*options: str, **variables: str) -> EngineRun:
        started.append(EngineRun(graph, Path(sys.executable), "runlane.workers.godot", *options, **variables))
        return started[-1]

    yield begin
    for run in started:
        run.stop()


def test_every_step_of_the_engine_is_a_row(start: Start) -> None:
    """Steps, episodes and returns are those that the engine counted; it learns; and unwatched it never draws."""
    run = start("--episodes", "400")
    run.end()
    counts = run.counts()
    assert run.stored() == (counts["steps"], run.stored()[1], 400, counts["return_sum"])
    assert run.stored()[1] == run.stored()[3]
    assert counts["mean_return"] > 0.5 > counts["return_sum"] / 400
    assert (counts["drawn"], counts["published"]) == (0, 0)
    assert run.state() == "finished"
    assert run.told() == ["FASTLANE_OPENED", "FASTLANE_CLOSED"]
    logs = [text for (text,) in run.sql("SELECT text FROM logs")]
    assert any("Godot Engine" in text for text in logs)
    assert any('"return_sum"' in text for text in logs)
    assert run.rings() == []


@pytest.mark.parametrize("checked", ["0", "1"])
def test_a_viewer_sees_what_the_engine_draws(start: Start, graph: GraphUnderTest, checked: str) -> None:
    """Whole frames in order, the agent in them; with a check in every slot, too, as on a processor that needs it."""
    run = start(*FOREVER, *(["--checked"] if checked == "1" else []))
    follower = run.follower()
    frames = run.frames(follower, 20)
    assert follower.geometry == (WIDTH, HEIGHT, 3)
    steps = [(hud.episode, hud.step) for hud, _ in frames]
    assert steps == sorted(set(steps))
    assert len({pixels for _, pixels in frames}) > 5
    for hud, pixels in frames:
        assert (pixels[:3], len(pixels)) == (bytes((102, 112, 133)), WIDTH * HEIGHT * 3)  # a wall, top left
        assert bytes((255, 153, 51)) in {pixels[at : at + 3] for at in range(0, len(pixels), 3)}  # the agent
        assert abs(hud.t_ns - hud.mono_ns - (frames[0][0].t_ns - frames[0][0].mono_ns)) < 1_000_000_000
        assert hud.step_rate_hz > 0
    assert follower.reader is not None
    metrics = follower.reader.metrics(0)
    assert metrics.frames == 20
    wait_until(lambda: [json.loads(each.read_text())["width"] for each in figures_of(graph)] == [WIDTH], "its figures")
    follower.close()
    wait_until(lambda: run.told()[-1:] == ["FASTLANE_UNWATCHED"], "it is told that nobody watches")
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(30) == 130
    assert run.told() == ["FASTLANE_OPENED", "FASTLANE_WATCHED", "FASTLANE_UNWATCHED", "FASTLANE_CLOSED"]
    assert run.state() == "stopped"


def figures_of(graph: GraphUnderTest) -> list[Path]:
    return list(run_dir_of(graph.settings).glob("fastlane-*.json"))


def test_a_project_of_somebody_else_keeps_its_exit_code(start: Start, tmp_path: Path) -> None:
    """What it prints is a step, or a line of the log."""
    for name, text in FOREIGN.items():
        (tmp_path / name).write_text(text)
    run = start("--project", str(tmp_path))
    run.end(code=7)
    assert run.stored()[:2] == (1, 2.5)
    assert run.state() == "failed"
    assert "no json" in run.output
    assert ("no json",) in [tuple(row) for row in run.sql("SELECT text FROM logs")]


def test_a_killed_engine_loses_no_line(start: Start, tmp_path: Path) -> None:
    """`kill -9` in the middle of it: every whole line it had written is a row."""
    output = tmp_path / "printed"
    run = start(*FOREVER, "--output", str(output))
    wait_until(run.is_stepping, "it steps")
    [engine] = run.children("godot")
    engine.kill()
    run.end(code=137)
    assert run.state() == "killed"
    whole = output.read_bytes().rpartition(b"\n")[0].splitlines()
    written = [json.loads(line) for line in whole if line.startswith(b'{"kind":"step"')]
    assert run.stored()[:2] == (len(written), sum(line["reward"] for line in written))
    assert run.rings() == []


def test_a_killed_worker_takes_engine_and_display_with_it(start: Start, graph: GraphUnderTest) -> None:
    """`kill -9` of the worker: nothing runs on, and the ring is swept."""
    run = start(*FOREVER)
    run.frames(run.follower(), 1)
    below = [*run.children("godot"), *run.children("Xvfb")]
    assert len(below) == 2
    socket = Path("/tmp/.X11-unix") / f"X{below[0].environ()['DISPLAY'][1:]}"
    assert socket.exists()
    run.process.kill()
    run.process.wait()
    _, alive = psutil.wait_procs(below, 10)
    assert alive == []
    assert not socket.exists()
    assert find_rings(run_dir_of(graph.settings)) == []
    wait_until(lambda: not run.rings(), "its ring is swept")
    assert run.state() == "killed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "/nowhere/godot"), "no Godot 3 was found (/nowhere/godot)"),
        (("--project", "/nowhere"), "--project: /nowhere has no project.godot"),
        (("--steps", "-1"), "--steps: -1: give 0 or more"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(options: tuple[str, ...], words: str) -> None:
    """Code 2, the option and what mends it."""
    command = [sys.executable, "-m", "runlane.workers.godot", *options]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert words in found.stderr
    assert "Traceback" not in found.stderr
