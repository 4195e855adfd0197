"""A ring written from C, by the layout page alone, and read by ours: the page says all that a foreign writer needs."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process.c_program import compiled
from process.conftest import Processes
from process.test_fast_lane import FRAMES, STRESS_S, Party, names

from runlane.transport.fast_lane_writer import started_ticks
from runlane.transport.lane_follower import LaneFollower
from runlane.transport.ring_files import find_rings, graph_prefix, sweep_rings

HERE = Path(__file__).parent
RATE_HZ = 50.0
WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's ring, as fast as it can be written."""
    return compiled(HERE / "ring_stress.c", tmp_path_factory.mktemp("c"), "-Wno-unused-function")


class Engine:
    """The example as a process; what it counted it says as it ends."""

    def __init__(self, processes: Processes, ring_writer: Path, ring_dir: Path, *options: str) -> None:
        self._said = ring_dir / "said"
        with self._said.open("wb") as said:
            command = (str(ring_writer), str(ring_dir), *options)
            self.process = processes.start(*command, stdout=subprocess.DEVNULL, stderr=said)

    def counts(self) -> dict[str, int]:
        """Once it has ended."""
        assert self.process.wait(20) == 0
        found: dict[str, int] = json.loads(self._said.read_text())
        return found


@pytest.fixture
def follower(ring_dir: Path) -> Iterator[LaneFollower]:
    """A viewer."""
    follower = LaneFollower(ring_dir, rate_hz=RATE_HZ)
    yield follower
    follower.close()


def frame_of(processes: Processes, follower: LaneFollower) -> Any:
    """The next frame and its HUD."""
    found: list[Any] = []

    def look() -> bool:
        follower.poll(time.monotonic_ns())
        found[:] = [follower.read()]
        return found != [None]

    processes.until(look, "a frame comes")
    return found[0]


@pytest.mark.parametrize("checked", ["plain", "checked"])
@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.timeout(60 + 4 * STRESS_S)
def test_nothing_of_a_foreign_writer_is_torn_at_full_speed(
    processes: Processes,
    ring_dir: Path,
    stress: Path,
    slots: int,
    checked: str,
) -> None:
    """Sizes change all the time, two readers on all processors: each frame is whole, with its own HUD, and in order."""
    foreign = Party(processes, ring_dir, slots, STRESS_S / 2, checked, program=(str(stress),))
    readers = [Party(processes, "read", ring_dir, FRAMES, "closes") for _ in range(2)]
    said = foreign.hear(STRESS_S + 20)
    print(f"\nC slots={slots} {checked} {said}")
    for reader in readers:
        figures = reader.hear()
        print(f"    {figures}")
        assert (figures["wrong"], figures["missing"]) == (0, 0)
        assert 0 < figures["read"] <= said["published"]
        reader.end()
    assert said["generations"] > 1
    foreign.end()


def test_the_head_says_whose_ring_it_is(processes: Processes, ring_dir: Path, ring_writer: Path) -> None:
    """Name, process, start and worker, as the page says; and viewers find it."""
    engine = Engine(processes, ring_writer, ring_dir)
    processes.until(lambda: bool(find_rings(ring_dir)), "its ring is there")
    [ring] = find_rings(ring_dir)
    assert ring.path.name.startswith(graph_prefix(ring_dir))
    assert ring.path.stat().st_mode & 0o777 == 0o600
    assert (ring.header.pid, ring.header.started) == (engine.process.pid, started_ticks(engine.process.pid))
    assert abs(ring.header.created_ns - time.time_ns()) < 60_000_000_000
    assert (ring.info.run, ring.info.worker, ring.info.stream, ring.info.env_count) == ("ball", "ball", "", 1)
    engine.process.send_signal(signal.SIGTERM)
    engine.counts()


def test_any_length_of_a_path_gives_the_right_name(processes: Processes, ring_writer: Path, short_dir: Path) -> None:
    """Its own SHA-256, over a block's end and over several blocks."""
    for length in (54, 55, 56, 63, 64, 65, 119, 120, 200):
        run_dir = Path(str(short_dir / "x").ljust(length, "x"))
        run_dir.mkdir()
        engine = Engine(processes, ring_writer, run_dir)
        processes.until(lambda place=run_dir: bool(find_rings(place)), f"{length} letters: found")
        assert hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:10] in find_rings(run_dir)[0].path.name
        engine.process.terminate()
        engine.counts()


def test_nothing_is_drawn_while_nobody_watches(processes: Processes, ring_dir: Path, ring_writer: Path) -> None:
    """Not once in 50,000 steps; and there are no slots, as there was no frame."""
    engine = Engine(processes, ring_writer, ring_dir, "--steps", "50000", "--pause-us", "0")
    assert engine.counts() == {"steps": 50_000, "episodes": 125, "drawn": 0, "published": 0}


def test_it_is_drawn_as_often_as_asked_while_somebody_does(
    processes: Processes,
    ring_dir: Path,
    ring_writer: Path,
    follower: LaneFollower,
) -> None:
    """Moving frames with their HUD, no more of them than the lease asks for, and none after it."""
    engine = Engine(processes, ring_writer, ring_dir)
    first, _ = frame_of(processes, follower)
    start_s = time.monotonic()
    seen: list[tuple[Any, bytes]] = [frame_of(processes, follower) for _ in range(20)]
    passed_s = time.monotonic() - start_s
    assert follower.geometry == (WIDTH, HEIGHT, 3)
    assert follower.reader is not None
    assert follower.reader.lapped + 20 <= RATE_HZ * passed_s + 2
    assert len({bytes(pixels) for _, pixels in seen}) > 10
    steps = [(hud.episode, hud.step) for hud, _ in seen]
    assert steps == sorted(set(steps))
    assert all(0 < hud.last_reward < 1 and hud.step_rate_hz > 0 and hud.mono_ns > first.mono_ns for hud, _ in seen)
    head = follower.reader.path
    follower.close()
    before = newest_of(head)
    processes.until(lambda: newest_of(head) == before, "it draws no more")
    engine.process.terminate()
    counts = engine.counts()
    assert counts["drawn"] == counts["published"] <= before + 1


def newest_of(head: Path) -> int:
    """Number of the newest frame in a ring, by its head alone."""
    return int.from_bytes(head.read_bytes()[72:80], sys.byteorder)


def test_killed_it_is_swept(
    processes: Processes,
    ring_dir: Path,
    ring_writer: Path,
    follower: LaneFollower,
) -> None:
    """`kill -9`: never taken for alive again, and whoever sweeps removes head and slots."""
    engine = Engine(processes, ring_writer, ring_dir)
    frame_of(processes, follower)
    assert sweep_rings(ring_dir) == []
    [ring] = find_rings(ring_dir)
    engine.process.kill()
    engine.process.wait()
    assert find_rings(ring_dir) == []
    assert sweep_rings(ring_dir) == [ring.path.name]
    assert names(ring_dir) == []


def test_the_commands_show_it(processes: Processes, ring_dir: Path, ring_writer: Path, tmp_path: Path) -> None:
    """`runlane snapshot` and `runlane watch`, as on a worker of ours; no graph is needed."""
    engine = Engine(processes, ring_writer, ring_dir)
    places = ["--set", f"transport.run_dir={ring_dir}", "--set", f"data_dir={tmp_path / 'data'}"]
    runlane = [sys.executable, "-m", "runlane"]
    picture = tmp_path / "ball.png"
    taken = subprocess.run(
        [*runlane, "snapshot", "ball", str(picture), *places], capture_output=True, text=True, timeout=60, check=False
    )
    assert taken.returncode == 0, taken.stderr
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.read_bytes()[16:24] == WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big")
    watched = subprocess.run(
        [*runlane, "watch", "ball", "--frames", "2", *places], capture_output=True, text=True, timeout=60, check=False
    )
    assert watched.returncode == 0, watched.stderr
    assert "episode" in watched.stdout
    engine.process.terminate()
    engine.counts()
