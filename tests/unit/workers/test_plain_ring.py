"""The ring's writer for other interpreters, read by the ordinary reader; on this Python, and on every one here."""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.ring_files import find_rings
from runlane.workers import plain_ring
from runlane.workers.plain_ring import PlainLane

WORKERS = Path(plain_ring.__file__).parent
NAMES = {"RUNLANE_RUN": "run-1", "RUNLANE_WORKER_NAME": "plain", "RUNLANE_RUN_NAME": "näme"}
SCRIPT = """
import os, sys
sys.path[:0] = [sys.argv[1]]
from plain_ring import PlainLane
lane = PlainLane.from_environment(os.environ, lambda text: sys.stderr.write(text + "\\n"))
sys.stdout.write("made\\n")
sys.stdout.flush()
while lane.ring.frames < 3 and sys.stdin.readline():
    lane.step(0.5, False)
    lane._next_s = 0.0
    lane.offer(lambda: (bytes(range(60)), 5, 4, 3))
    sys.stdout.write("%d\\n" % lane.ring.frames)
    sys.stdout.flush()
sys.stdin.readline()
lane.close()
"""


def interpreters() -> list[Path]:
    """This one, and those of every version from 3.6 on that pyenv has here."""
    found = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    return [Path(sys.executable), *found]


@pytest.fixture
def lane_dir(tmp_path: Path) -> Iterator[Path]:
    """A run directory whose rings are looked for."""
    yield tmp_path
    assert not find_rings(tmp_path)


def lane_of(run_dir: Path, said: list[str], **more: str) -> PlainLane:
    """A lane as a program under `runlane run` makes it."""
    return PlainLane.from_environment({**NAMES, "RUNLANE_RUN_DIR": str(run_dir), **more}, said.append)


@pytest.mark.parametrize("name", ["plain_ring.py", "coach_shim.py"])
def test_what_runs_on_python_3_6_has_its_syntax(name: str) -> None:
    """And imports nothing but the standard library, Coach aside."""
    tree = ast.parse((WORKERS / name).read_text("utf-8"), feature_version=(3, 6))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "rl_coach"}


def test_nothing_is_rendered_unless_somebody_watches(lane_dir: Path) -> None:
    """No lease, no picture; a lease, one picture, with the HUD of its step."""
    said: list[str] = []
    lane = lane_of(lane_dir, said)
    rendered: list[int] = []

    def render() -> tuple[bytes, int, int, int]:
        rendered.append(1)
        return bytes(range(60)), 5, 4, 3

    lane.step(1.5, is_last=False)
    lane.offer(render)
    assert not rendered
    (ring,) = find_rings(lane_dir)
    assert (ring.info.run, ring.info.worker, ring.info.run_name) == ("run-1", "plain", "näme")
    assert ring.header.pid == os.getpid()
    reader = FastLaneReader(ring.path, (lane_dir,))
    try:
        mark(reader)
        lane._next_s = 0.0  # pyright: ignore[reportPrivateUsage]  as if time had passed
        lane.offer(render)
        pixels = bytearray(60)
        hud = reader.read_into(pixels)
        assert hud is not None
        assert bytes(pixels) == bytes(range(60))
        assert reader.geometry == (5, 4, 3)
        assert (hud.episode, hud.step, hud.last_reward) == (1, 1, 1.5)
    finally:
        reader.close()
        lane.close()
    assert len(rendered) == 1
    assert [line.split()[0] for line in said] == ["FASTLANE_OPENED", "FASTLANE_WATCHED", "FASTLANE_CLOSED"]
    assert f"ring={ring.path.name} " in said[-1]


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: path.parts[-3])
def test_every_python_writes_a_ring_that_ours_reads(lane_dir: Path, python: Path) -> None:
    """The file alone, run by an interpreter that knows nothing of runlane; it removes its ring at the end."""
    environment = {**NAMES, "RUNLANE_RUN_DIR": str(lane_dir), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    with subprocess.Popen(
        [str(python), "-c", SCRIPT, str(WORKERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline() == "made\n", writer.stderr.read()
        (ring,) = find_rings(lane_dir)
        reader = FastLaneReader(ring.path, (lane_dir,))
        try:
            for number in (1, 2, 3):
                mark(reader)
                writer.stdin.write("go\n")
                writer.stdin.flush()
                assert writer.stdout.readline() == f"{number}\n"
                pixels = bytearray(60)
                hud = reader.read_into(pixels)
                assert hud is not None
                assert (bytes(pixels), hud.step, hud.episode_return) == (bytes(range(60)), number, number / 2)
            writer.stdin.close()
            assert writer.wait(20) == 0
            assert not reader.is_writer_alive
            assert not ring.path.exists()
        finally:
            reader.close()
            writer.kill()


def mark(reader: FastLaneReader) -> None:
    """Say that we watch."""
    reader.lease.ask_anew()
    reader.lease.mark(time.monotonic_ns(), 30.0)


def test_a_lane_without_a_graph_does_nothing(tmp_path: Path) -> None:
    """As when a program is started by hand, or FASTLANE is 0: no ring, no error, no picture."""
    for lane in (PlainLane.from_environment({}, print), lane_of(tmp_path, [], FASTLANE="0")):
        lane.step(1.0, is_last=True)
        lane.offer(pytest.fail)
        lane.close()
        assert lane.ring is None


def test_a_picture_that_fails_ends_pictures_and_nothing_else(lane_dir: Path) -> None:
    """What `render` raises is told once, and the ring is gone."""
    said: list[str] = []
    lane = lane_of(lane_dir, said)
    (ring,) = find_rings(lane_dir)
    reader = FastLaneReader(ring.path, (lane_dir,))
    mark(reader)
    lane.offer(lambda: (b"too short", 5, 4, 3))
    lane.offer(lambda: (b"too short", 5, 4, 3))
    reader.close()
    assert [line.split()[0] for line in said] == [
        "FASTLANE_OPENED",
        "FASTLANE_WATCHED",
        "FASTLANE_WRITER_ERROR",
        "FASTLANE_CLOSED",
    ]
    assert "9 bytes" in said[2]
