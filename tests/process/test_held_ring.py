"""A ring held for an engine in C: asked for by the session's process, drawn by the engine, outlived by neither."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process.conftest import Processes
from process.graph_under_test import wait_until
from process.test_fast_lane import names
from process.test_ring_writer import newest_of

from runlane.actors.store_reader import query
from runlane.config.settings import FastLaneSettings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.held_ring import HeldRing
from runlane.transport.lane_follower import LaneFollower
from runlane.transport.ring_files import find_rings, sweep_rings
from runlane.transport.ring_layout import RingInfo
from runlane.workers.engine_lane import EngineLane, show_engine
from runlane.workers.unrecorded import DetachedSession, ShownSession

INFO = RingInfo(run="run", worker="engine", stream="stream", run_name="name")
MAX_FPS = 20.0


class Rig:
    """Holder and asker in this process, the engine in its own."""

    def __init__(self, processes: Processes, program: Path, run_dir: Path) -> None:
        self.processes, self.run_dir = processes, run_dir
        self.ring = HeldRing(run_dir)
        self._said = run_dir / "said"
        with self._said.open("wb") as said:
            self.engine = processes.start(
                str(program),
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, **self.ring.environment()},
                pass_fds=(self.ring.fd,),
            )
        self.session = ShownSession(INFO, run_dir, FastLaneSettings(max_fps=MAX_FPS))
        lane = show_engine(self.session, self.ring.path)
        assert isinstance(lane, EngineLane)
        self.lane = lane
        self.follower = LaneFollower(run_dir, rate_hz=200.0)

    def frame(self) -> Any:
        """The next frame."""
        found: list[Any] = []

        def look() -> bool:
            self.lane.look(time.monotonic_ns())
            self.follower.poll(time.monotonic_ns())
            found[:] = [self.follower.read()]
            return found != [None]

        self.processes.until(look, "a frame comes")
        return found[0]

    def draws_nothing_for(self, seconds: float, *, looks: bool) -> bool:
        """Whether no frame comes, though the viewer goes on asking."""
        before, end_s = newest_of(self.ring.path), time.monotonic() + seconds
        while time.monotonic() < end_s:
            if looks:
                self.lane.look(time.monotonic_ns())
            self.follower.poll(time.monotonic_ns())
            time.sleep(0.005)
        return newest_of(self.ring.path) == before

    def end(self) -> dict[str, int]:
        """The engine ends by itself; then what it counted."""
        self.engine.send_signal(signal.SIGTERM)
        assert self.engine.wait(20) == 0
        found: dict[str, int] = json.loads(self._said.read_text())
        return found

    def close(self) -> None:
        """As after any run."""
        self.follower.close()
        self.session.close()
        self.ring.close()


@pytest.fixture
def rig(processes: Processes, ring_dir: Path, ring_writer: Path) -> Iterator[Rig]:
    """An engine that runs and may show itself."""
    rig = Rig(processes, ring_writer, ring_dir)
    yield rig
    rig.close()


def test_an_engine_draws_what_the_session_asks_it_for(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Whose ring it is says the session; `max_fps` holds though the viewer asks for more; and the log tells."""
    caplog.set_level(logging.INFO, "runlane")
    rig.frame()
    [ring] = find_rings(rig.run_dir)
    assert (ring.path, ring.info) == (rig.ring.path, INFO)
    start_s = time.monotonic()
    huds = [rig.frame()[0] for _ in range(20)]
    passed_s = time.monotonic() - start_s
    assert rig.follower.reader is not None
    assert 20 + rig.follower.reader.lapped <= MAX_FPS * passed_s + 2
    steps = [(hud.episode, hud.step) for hud in huds]
    assert steps == sorted(set(steps))
    figures = rig.lane.figures()
    assert figures["frames"] >= 20
    assert (figures["width"], figures["height"], figures["viewers"]) == (160, 120, 1)
    drawn = rig.end()["drawn"]
    rig.close()
    assert names(rig.run_dir) == []
    assert not list(rig.run_dir.glob("fastlane-*"))
    told = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in told if "PUBLISH" not in line and "_CONN" not in line] == [
        "FASTLANE_OPENED",
        "FASTLANE_WATCHED",
        "FASTLANE_CLOSED",
    ]
    assert all("[FASTLANE]" in line for line in told)
    assert told[-1].endswith(f"frames={drawn}")


def test_an_engine_that_nobody_asks_draws_nothing(rig: Rig) -> None:
    """While the session looks and nobody watches."""
    rig.follower.rate_hz = 0.0
    assert rig.draws_nothing_for(0.5, looks=True)
    assert rig.end()["drawn"] == 0


def test_a_mode_without_ui_reaches_the_engine(rig: Rig) -> None:
    """The viewer goes on asking, and is not drawn for until the mode is another one."""
    rig.frame()
    rig.lane.set_mode(TelemetryMode.DURABLE_ONLY)
    rig.lane.look(time.monotonic_ns())
    rig.processes.until(lambda: rig.draws_nothing_for(0.1, looks=True), "the frame under way is done")
    assert rig.draws_nothing_for(0.4, looks=True)
    rig.lane.set_mode(TelemetryMode.DUAL_PATH)
    rig.frame()
    rig.end()


def test_an_engine_whose_session_died_draws_nothing_until_the_next_one(rig: Rig) -> None:
    """What was asked holds for a second. Another session takes the same ring."""
    rig.frame()
    rig.processes.until(lambda: rig.draws_nothing_for(0.3, looks=False), "what was asked is over")
    lane = show_engine(ShownSession(INFO, rig.run_dir, FastLaneSettings()), rig.ring.path)
    assert lane is not None
    rig.lane.close()
    rig.lane = lane
    rig.frame()
    lane.close()
    rig.end()


def test_a_ring_lives_as_long_as_its_engine(rig: Rig) -> None:
    """Its holder dies: the engine has inherited the lock. It dies, too: the ring is swept."""
    rig.frame()
    rig.follower.close()
    rig.session.close()
    os.close(rig.ring.fd)  # as the kernel does for a killed holder
    assert sweep_rings(rig.run_dir) == []
    assert [ring.path for ring in find_rings(rig.run_dir)] == [rig.ring.path]
    rig.engine.kill()
    rig.engine.wait()
    assert sweep_rings(rig.run_dir) == [rig.ring.path.name]
    rig.ring.forget()


def test_a_killed_engine_leaves_nothing(rig: Rig) -> None:
    """`kill -9` of the engine: its holder removes head and slots."""
    rig.frame()
    rig.engine.kill()
    rig.engine.wait()
    rig.close()
    assert names(rig.run_dir) == []


def test_a_session_that_shows_nothing_asks_for_nothing() -> None:
    """Without a lane there is none for an engine."""
    assert show_engine(DetachedSession(), Path("/nowhere")) is None


def test_a_ring_that_is_gone_is_no_error(short_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when shared memory was emptied: the engine goes on without pictures."""
    session = ShownSession(INFO, short_dir, FastLaneSettings())
    lane = show_engine(session, short_dir / "rl-0000000000-00000000")
    assert lane is not None
    for _ in range(3):
        lane.look(time.monotonic_ns())
    session.close()
    assert caplog.records == []


def test_a_program_that_never_says_it_can_draw_is_not_shown(ring_dir: Path) -> None:
    """As one that has a ring of its own, or no pictures at all."""
    ring = HeldRing(ring_dir)
    session = ShownSession(INFO, ring_dir, FastLaneSettings())
    lane = show_engine(session, ring.path)
    assert lane is not None
    for _ in range(3):
        lane.look(time.monotonic_ns())
    assert find_rings(ring_dir) == []
    assert sweep_rings(ring_dir) == []  # and yet it is nobody's to remove
    session.close()
    ring.close()


def test_a_program_of_runlane_run_is_shown_and_recorded(short_dir: Path, ring_writer: Path) -> None:
    """`runlane run --jsonl stdout -- ./ring_writer`: steps are rows, pictures are seen, the exit code is kept."""
    places = ["--set", f"data_dir={short_dir / 'data'}", "--set", f"transport.run_dir={short_dir / 'run'}"]
    command = [sys.executable, "-m", "runlane", "run", *places, "--jsonl", "stdout", "--worker", "ball"]
    log = short_dir / "errors"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--", str(ring_writer)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "FASTLANE": "1"},
        )
    follower = LaneFollower(short_dir / "run", worker="ball", rate_hz=30.0)
    try:
        seen: list[Any] = []

        def look() -> bool:
            assert process.poll() is None, log.read_text()
            follower.poll(time.monotonic_ns())
            found = follower.read()
            seen.extend([found[0]] if found is not None else [])
            return len(seen) >= 10

        wait_until(look, "ten frames come", 60.0)
        assert follower.info is not None
        assert follower.info.stream
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        follower.close()
        if process.poll() is None:
            process.kill()
            process.wait()
    counts = next(json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"steps"'))
    assert counts["drawn"] >= 10
    [[steps]] = query(short_dir / "data" / "runlane.db", "SELECT count(*) FROM steps")[1]
    assert steps == counts["steps"]
    told = [line.split(" [FASTLANE] ")[0].split()[-1] for line in log.read_text().splitlines() if "[FASTLANE]" in line]
    assert told[:2] == ["FASTLANE_OPENED", "FASTLANE_WATCHED"]
    assert told[-1] == "FASTLANE_CLOSED"
    assert names(short_dir / "run") == []
