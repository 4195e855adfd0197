"""A graph of one's own for a benchmark: started in a directory that is gone afterwards, with one proxy asked for."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runlane.actors.store_reader import query
from runlane.config import names
from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.launch import GraphProcess, tail
from runlane.transport.endpoint import data_dir_of, database_of
from runlane.transport.graph_client import GraphClient
from runlane.transport.identity import new_run_id, new_stream_id
from runlane.transport.messages import Status, StreamInfo, WorkerStarted
from runlane.workers.session import WorkerSession

CLOSE_S = 120.0  # a close() that may take as long as the database needs


class Times(NamedTuple):
    """Seconds until a worker's last call had returned, and until all of it was committed."""

    returned_s: float
    committed_s: float


@dataclass(frozen=True, slots=True)
class RunningGraph:
    """Supervisor, router, DB writer and one proxy, each a process; the worker is the benchmark's."""

    settings: Settings
    client: GraphClient
    worker: WorkerStarted
    status: Status

    @property
    def data_dir(self) -> Path:
        """Where journals and database lie."""
        return data_dir_of(self.settings)

    @property
    def environment(self) -> dict[str, str]:
        """For a worker in a process of its own."""
        return {
            **os.environ,
            names.ENV_PROXY: self.worker.endpoint,
            names.ENV_RUN: self.worker.run,
            "RUNLANE_DATA_DIR": str(self.data_dir),
            "RUNLANE_SESSION__CLOSE_S": str(CLOSE_S),
        }

    def open_session(self) -> WorkerSession:
        """A worker's session in this process."""
        info = StreamInfo(
            stream=new_stream_id(),
            run=self.worker.run,
            worker=self.worker.worker,
            host="",
            pid=os.getpid(),
            started_ns=time.time_ns(),
        )
        return WorkerSession(info, self.worker.endpoint, self.settings, {})

    def open_gui(self) -> "subprocess.Popen[bytes]":
        """`runlane gui` on this graph, offscreen, remembering nothing of anybody's window."""
        environment = {**self.environment, "QT_QPA_PLATFORM": "offscreen", "XDG_CONFIG_HOME": str(self.data_dir)}
        command = [sys.executable, "-m", "runlane", "gui"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def record(self, steps: int) -> "Times":
        """Let a worker in a process of its own record so many as fast as it can; checks that all are there, once."""
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("durable_worker.py")), str(steps)],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        self.client.worker_exited(self.worker.worker, self.worker.run, 0, 10)
        times: dict[str, float] = json.loads(done.stdout)
        stored = self.stored_steps()
        if stored != steps or not times["is_committed"]:
            sys.exit(f"not exact: {stored} stored of {steps}, {times}")
        return Times(times["returned_s"], times["committed_s"])

    def stored_steps(self) -> int:
        """Steps in the database. Their key is unique, so no step is counted twice."""
        _, rows = query(database_of(self.settings), "SELECT count(*) FROM step_rows")
        return int(str(rows[0][0]))

    def tell_state(self) -> None:
        """What every process says of itself, and the ends of their logs, on standard error."""
        status = self.client.status()
        for child in status.children if status is not None else []:
            print(child.name, child.state, f"restarts={child.restarts}", child.statistics, file=sys.stderr)
        for log in sorted((self.data_dir / names.LOG_DIR).glob("*.log")):
            print(f"{log.name}:\n{tail(log)}", file=sys.stderr)


@contextlib.contextmanager
def running_graph(*options: str, directory: Path | None = None) -> Generator[RunningGraph]:
    """A fresh graph with a fresh database; `options` are as for `--set`. Stopped in order at the end."""
    with tempfile.TemporaryDirectory(prefix="rl-bench-", dir=directory) as folder:
        chosen = [f"data_dir={folder}/data", f"session.close_s={CLOSE_S:g}", *options]
        settings = load(environment={}, arguments=chosen)
        arguments = [argument for option in chosen for argument in ("--set", option)]
        graph = GraphProcess([*arguments, "--set", "log_level=WARNING"], settings)
        status = graph.start()
        try:
            with GraphClient(settings) as client:
                worker = client.start_worker("bench", new_run_id(time.time_ns()), "bench")
                running = RunningGraph(settings, client, worker, client.status() or status)
                try:
                    yield running
                except SystemExit:  # the benchmark found something wrong: show what is left to see
                    running.tell_state()
                    raise
        finally:
            graph.stop()


def settle(session: WorkerSession, deadline_s: float = 60.0) -> None:
    """Wait until everything recorded so far is committed."""
    ends_s = time.monotonic() + deadline_s
    while session.statistics()["acked"] < session.statistics()["records"]:
        if time.monotonic() > ends_s:
            sys.exit(f"not committed within {deadline_s} s: {session.statistics()}")
        time.sleep(0.01)  # between two looks at a figure that another process moves
