"""Watching is free: nothing is rendered without a living lease, and a picture is a row of the database."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.config import names
from runlane.transport.endpoint import run_dir_of
from runlane.transport.lane_follower import LaneFollower
from runlane.transport.ring_files import find_rings, graph_prefix, ring_directories, sweep_rings
from runlane.transport.ring_layout import Hud

pytestmark = pytest.mark.timeout(120)

WORKER = Path(__file__).with_name("shown_worker.py")
RATE_HZ = 30.0
_runs = itertools.count(1)
# A lease ends within a second of its viewer's death: 0.9 s after its last mark, and the frame that was due then.
LEASE_S = 1.0
VIEWER = """
import sys, time
from pathlib import Path
from runlane.transport.lane_follower import LaneFollower
follower = LaneFollower(Path(sys.argv[1]), rate_hz=30.0)
seen = 0
while True:
    follower.poll(time.monotonic_ns())
    if follower.read() is not None and not seen:
        seen = 1
        print("seen", flush=True)
    time.sleep(0.005)
"""


class ShownWorker:
    """The worker as a process, asked for its counts."""

    run = ""

    def __init__(self, environment: dict[str, str], count: int = 0, log: Path | None = None) -> None:
        with (log or Path(os.devnull)).open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER), str(count)],
                env={**os.environ, **environment},
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def counts(self) -> dict[str, Any]:
        """Steps and renders so far, and when that was."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("counts\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def after_steps(self, steps: int) -> dict[str, Any]:
        """The counts once so many more steps are made."""
        until = self.counts()["steps"] + steps
        return wait_until(lambda: found if (found := self.counts())["steps"] >= until else None, "it steps")  # type: ignore[no-any-return]

    def end(self) -> None:
        """By its own will."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            if not pipe.closed:
                pipe.close()
        self.process.wait(20)


@contextmanager
def working(graph: GraphUnderTest, **options: Any) -> Generator[ShownWorker]:
    started = graph.client.start_worker("w", f"run-{next(_runs)}", "drawn", 10.0)
    environment = {
        names.ENV_CONFIG: str(graph.config),
        names.ENV_PROXY: started.endpoint,
        names.ENV_RUN: started.run,
        names.ENV_WORKER_NAME: started.worker,
    }
    worker = ShownWorker(environment | options.pop("environment", {}), **options)
    worker.run = started.run
    try:
        yield worker
    finally:
        if worker.process.poll() is None and sys.exc_info()[0] is not None:
            worker.process.kill()
        worker.end()


@pytest.fixture(scope="module")
def graph() -> Iterator[GraphUnderTest]:
    """One for all: each test has a run of its own, and leaves no ring."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as directory, GraphUnderTest(Path(directory)) as graph:
        yield graph


def follow(graph: GraphUnderTest, rate_hz: float = RATE_HZ, tile: int = 0) -> LaneFollower:
    follower = LaneFollower(run_dir_of(graph.settings), rate_hz=rate_hz)
    follower.tile = tile
    return follower


def next_frame(follower: LaneFollower) -> tuple[Hud, Any]:
    """The next frame, as an array."""

    def look() -> Any:
        follower.poll(time.monotonic_ns())
        return follower.read()

    hud, pixels = wait_until(look, "a frame comes")
    geometry = follower.geometry
    assert geometry is not None
    return hud, np.frombuffer(pixels, np.uint8).reshape(geometry.shape)


def steps_in(frame: Any) -> int:
    return int.from_bytes(frame.reshape(-1)[:4].tobytes(), "little")


def names_left(graph: GraphUnderTest) -> list[str]:
    run_dir = run_dir_of(graph.settings)
    prefix = graph_prefix(run_dir)
    return [path.name for place in ring_directories(run_dir) if place.is_dir() for path in place.glob(f"{prefix}*")]


def test_nothing_is_rendered_unwatched_and_no_more_than_asked_for_watched(graph: GraphUnderTest) -> None:
    """No call of render() in 50,000 steps; then a viewer at 30 Hz, in mid-run; then none again once it has gone."""
    with working(graph) as worker:
        assert worker.after_steps(50_000)["renders"] == 0
        follower = follow(graph)
        next_frame(follower)
        before = worker.counts()
        frames = 1
        while time.monotonic() < before["t_s"] + 2.0:
            next_frame(follower)
            frames += 1
        after = worker.counts()
        passed_s = after["t_s"] - before["t_s"]
        assert frames - 1 <= after["renders"] - before["renders"] + 1
        assert after["renders"] - before["renders"] <= RATE_HZ * passed_s + 2  # one more at either end
        follower.close()
        renders = worker.after_steps(20_000)["renders"]
        assert worker.after_steps(50_000)["renders"] == renders


def test_a_picture_is_a_row(graph: GraphUnderTest) -> None:
    """Seq, episode, step and return in the HUD are those of the stored row, and the pixels are of that very step."""
    seen: list[tuple[Hud, int]] = []
    with working(graph) as worker:
        follower = follow(graph, rate_hz=200.0)
        while len(seen) < 30:
            hud, frame = next_frame(follower)
            seen.append((hud, steps_in(frame)))
        follower.close()
        stream = find_rings(run_dir_of(graph.settings))[0].info.stream
        worker.end()
    assert len({hud.step_seq for hud, _ in seen}) == len(seen)
    wait_until(lambda: (worker.run, "finished") in graph.sql("SELECT run, state FROM runs"), "all is stored")
    found = graph.sql("SELECT stream, seq, episode, step, reward FROM steps")
    rows = {seq: rest for of, seq, *rest in found if of == stream}
    for hud, steps in seen:
        assert rows[hud.step_seq] == [hud.episode, hud.step, hud.last_reward]
        assert hud.episode_return == hud.step
        assert steps == (hud.episode - 1) * 50 + hud.step


def test_rendering_ends_within_a_second_of_its_viewers_death(graph: GraphUnderTest) -> None:
    """`kill -9` of the viewer: its lease dies with it."""
    with working(graph) as worker:
        viewer = subprocess.Popen(
            [sys.executable, "-c", VIEWER, str(run_dir_of(graph.settings))], stdout=subprocess.PIPE, text=True
        )
        assert viewer.stdout is not None
        with viewer.stdout:
            assert viewer.stdout.readline() == "seen\n"
            viewer.kill()
            viewer.wait()
        dead_s = time.monotonic()
        wait_until(lambda: worker.counts()["t_s"] > dead_s + LEASE_S, "its lease has ended")
        renders = worker.counts()["renders"]
        assert renders > 0
        assert worker.after_steps(50_000)["renders"] == renders


def test_a_grid_shows_the_first_environments_and_a_viewer_promotes_one(graph: GraphUnderTest) -> None:
    """FASTLANE_VIDEO_MODE=grid: four tiles in one frame; a tile asked for comes alone, in mid-run."""
    environment = {"FASTLANE_VIDEO_MODE": "grid", "FASTLANE_GRID_LIMIT": "4", "FASTLANE": "1"}
    log = graph.directory / "errors.log"
    with working(graph, count=6, environment=environment, log=log):
        follower = follow(graph)
        hud, frame = next_frame(follower)
        assert hud.tile == 4
        tiles = [frame[row:, column:].reshape(-1, 3)[:2].reshape(-1)[4] for row in (0, 50) for column in (0, 66)]
        assert tiles == [0, 1, 2, 3]
        assert follower.info is not None
        assert follower.info.env_count == 6
        follower.promote(6)
        hud, frame = wait_until(
            lambda: found if (found := next_frame(follower))[0].tile == 0 else None, "the tile comes alone"
        )
        assert (hud.env_index, frame.shape, frame.reshape(-1)[4]) == (5, (48, 64, 3), 5)
        follower.close()
    assert "FASTLANE_WATCHED [FASTLANE] viewers=1" in log.read_text()


def test_a_killed_workers_ring_is_removed_and_never_seen_as_live(graph: GraphUnderTest) -> None:
    """Head, slots and figures: gone soon after the kill, by whoever of the graph looks first."""
    with working(graph) as worker:
        follower = follow(graph)
        next_frame(follower)
        run_dir = run_dir_of(graph.settings)
        [figures] = wait_until(lambda: list(run_dir.glob("fastlane-*.json")), "its figures are written")

        def is_counting() -> bool:
            follower.poll(time.monotonic_ns())
            return bool(json.loads(figures.read_text())["frames"])

        wait_until(is_counting, "its figures count frames")
        worker.process.kill()
        worker.process.wait()
        assert find_rings(run_dir) == []
        wait_until(lambda: not names_left(graph) and not figures.exists(), "they are swept")
        wait_until(lambda: follower.poll(time.monotonic_ns()) is False and follower.reader is None, "the viewer knows")


def test_frames_alone_need_no_graph(short_dir: Path) -> None:
    """FASTLANE_ONLY=1: frames and HUD, and nothing on disk. FASTLANE=1: what happens is told on standard error."""
    log = short_dir / "errors.log"
    environment = {
        "FASTLANE_ONLY": "1",
        "FASTLANE": "1",
        "RUNLANE_DATA_DIR": str(short_dir / "data"),
        "RUNLANE_TRANSPORT__RUN_DIR": str(short_dir / "run"),
    }
    worker = ShownWorker(environment, log=log)
    follower = LaneFollower(short_dir / "run")
    hud, frame = next_frame(follower)
    assert (hud.step_seq, hud.episode_return) == (0, hud.step)
    assert steps_in(frame) == (hud.episode - 1) * 50 + hud.step
    worker.end()
    follower.close()
    assert not (short_dir / "data").exists()
    told = [line.split(" [FASTLANE] ")[0].split()[-1] for line in log.read_text().splitlines() if "[FASTLANE]" in line]
    assert told[:2] == ["FASTLANE_OPENED", "FASTLANE_WATCHED"]
    assert told[-1] == "FASTLANE_CLOSED"


CARTPOLE = """
import gymnasium
from runlane.workers import wrap
env = wrap(gymnasium.make("CartPole-v1", render_mode="rgb_array"))
env.reset(seed=1)
while True:
    _, _, terminated, truncated, _ = env.step(env.action_space.sample())
    if terminated or truncated:
        env.reset()
"""


def test_who_is_watched_can_still_be_ended(short_dir: Path) -> None:
    """CartPole draws with pygame, whose SDL would take SIGTERM for itself at the first picture, unnoticed."""
    pytest.importorskip("pygame")
    environment = {
        "FASTLANE_ONLY": "1",
        "RUNLANE_DATA_DIR": str(short_dir / "data"),
        "RUNLANE_TRANSPORT__RUN_DIR": str(short_dir / "run"),
    }
    with subprocess.Popen(
        [sys.executable, "-c", CARTPOLE], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    ) as worker:
        follower = LaneFollower(short_dir / "run")
        try:
            next_frame(follower)
            worker.terminate()
            assert worker.wait(20) == -signal.SIGTERM
        finally:
            worker.kill()
            follower.close()
    sweep_rings(short_dir / "run")  # a killed script's ring is its graph's to remove, and there is none
