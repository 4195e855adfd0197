"""Worker kinds that are engines, as processes beside a whole graph: what the engine counted against what is stored."""

import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.config import names
from runlane.transport.endpoint import run_dir_of
from runlane.transport.lane_follower import LaneFollower
from runlane.transport.ring_files import graph_prefix, ring_directories

SOURCES = Path(__file__).parents[2] / "src"
_runs = itertools.count(1)


class EngineRun:
    """One worker process of a kind, in a run of its own."""

    def __init__(self, graph: GraphUnderTest, interpreter: Path, module: str, *options: str, **variables: str) -> None:
        self.graph = graph
        worker = module.rpartition(".")[2]
        started = graph.client.start_worker(worker, f"{worker}-{next(_runs)}", "drawn", 10.0)
        self.run = started.run
        self._out, self._err = (graph.directory / f"{self.run}.{kind}" for kind in ("out", "err"))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DISPLAY"},
            names.ENV_CONFIG: str(graph.config),
            names.ENV_PROXY: started.endpoint,
            names.ENV_RUN: started.run,
            names.ENV_WORKER_NAME: started.worker,
            "PYTHONPATH": str(SOURCES),
            "FASTLANE": "1",
            **variables,
        }
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [str(interpreter), "-m", module, *options]
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)

    @property
    def output(self) -> str:
        """All it has printed."""
        return self._out.read_text("utf-8", "replace")

    @property
    def errors(self) -> str:
        """All it has said on standard error."""
        return self._err.read_text("utf-8", "replace")

    def end(self, code: int = 0) -> None:
        """It ends by itself, with this code, and all of it is stored."""
        assert self.process.wait(60) == code, self.errors
        self.state()

    def state(self) -> str:
        """The run's, once it has ended."""

        def look() -> Any:
            found = self.sql("SELECT state FROM runs")
            return found and found[0][0] != "running" and found[0][0]

        return str(wait_until(look, "the run has ended"))

    def sql(self, select: str, more: str = "") -> Any:
        """What the database says of this run."""
        return self.graph.sql(f"{select} WHERE run = '{self.run}' {more}")

    def is_stepping(self) -> bool:
        """Whether the first of its steps are stored."""
        return bool(self.sql("SELECT 1 FROM steps", "LIMIT 1"))

    def told(self) -> list[str]:
        """Ids of its [FASTLANE] lines."""
        return [line.split(" [FASTLANE] ")[0].split()[-1] for line in self.errors.splitlines() if "[FASTLANE]" in line]

    def counts(self) -> dict[str, Any]:
        """The engine's own count, the last line of JSON that it printed."""
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def stored(self) -> tuple[int, float, int, float]:
        """Steps, sum of rewards, episodes that came to their end, sum of their returns."""
        [[steps, rewards]] = self.sql("SELECT count(*), total(reward) FROM steps")
        ended = "AND outcome != 'abandoned'"
        [[episodes, returns]] = self.sql("SELECT count(*), total(episode_return) FROM episodes", ended)
        return steps, rewards, episodes, returns

    def follower(self, rate_hz: float = 30.0) -> LaneFollower:
        """A viewer of it."""
        return LaneFollower(run_dir_of(self.graph.settings), run=self.run, rate_hz=rate_hz)

    def frames(self, follower: LaneFollower, count: int) -> list[tuple[Any, bytes]]:
        """So many frames, each with its HUD."""
        found: list[tuple[Any, bytes]] = []

        def look() -> bool:
            assert self.process.poll() is None, self.errors
            follower.poll(time.monotonic_ns())
            frame = follower.read()
            if frame is not None:
                found.append((frame[0], bytes(frame[1])))
            return len(found) >= count

        wait_until(look, f"{count} frames come")
        return found

    def children(self, name: str) -> list[psutil.Process]:
        """Processes below it whose program is called so."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in below if name in child.name()]

    def rings(self) -> list[Path]:
        """Files of rings of the graph, dead or alive."""
        run_dir = run_dir_of(self.graph.settings)
        prefix = graph_prefix(run_dir)
        return [path for place in ring_directories(run_dir) for path in place.glob(f"{prefix}*")]

    def stop(self) -> None:
        """Whatever the test did, nothing is left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
