"""A whole graph as a user starts it: `runlane up` in its own process, on real sockets and a real database."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from runlane.actors.store_reader import query
from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of, run_dir_of
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import ChildStatus, Status

DEADLINE_S = 30.0
WORKER = Path(__file__).with_name("counting_worker.py")


def wait_until(claim: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true answer of `claim`, or a failure that says what never happened."""
    ends_s = time.monotonic() + deadline_s
    while True:
        found = claim()
        if found:
            return found
        assert time.monotonic() < ends_s, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)  # between two looks; what is waited for is the claim


class GraphUnderTest:
    """`runlane up` with its own data and run directory. Leaving the `with` stops it, by force if need be."""

    def __init__(self, directory: Path, tables: str = "", arguments: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.config = directory / "graph.toml"
        self.config.write_text(
            f'data_dir = "{directory / "data"}"\n{tables}\n[transport]\nrun_dir = "{directory / "run"}"\n'
        )
        self.options = ["--config", str(self.config), *(part for text in arguments for part in ("--set", text))]
        self.settings: Settings = load(self.config, {}, arguments)
        self.log = directory / "supervisor.log"

    def __enter__(self) -> Self:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runlane", "up", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.client = GraphClient(self.settings)
        try:
            wait_until(self._is_up, "the graph is up")
        except BaseException:
            sys.stderr.write(self.logs())
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.logs())
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
                self.process.kill()
                self.process.wait()

    def _is_up(self) -> bool:
        status = self.client.status(0.5)
        return status is not None and status.state == "running"

    def logs(self) -> str:
        """Every log of the graph, for a failure."""
        files = [self.log, *sorted((self.directory / "data" / "logs").glob("*.log"))]
        return "".join(f"\n==> {path.name}\n{path.read_text('utf-8', 'replace')}" for path in files if path.exists())

    def status(self) -> Status:
        """The graph as its supervisor sees it."""
        found = wait_until(lambda: self.client.status(1.0), "the supervisor answers")
        assert isinstance(found, Status)
        return found

    def child(self, name: str) -> ChildStatus:
        """One child's status."""
        return next(child for child in self.status().children if child.name == name)

    def pids(self) -> list[int]:
        """Every process of the graph, with what its children started."""
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def kill(self, name: str) -> None:
        """`kill -9` of a child, and wait until its successor reports."""
        before = self.child(name)
        os.kill(before.pid, signal.SIGKILL)
        wait_until(lambda: self._is_back(name, before), f"{name} is back")

    def _is_back(self, name: str, before: ChildStatus) -> bool:
        now = self.child(name)
        return now.pid != before.pid and now.state == "running" and now.heartbeat_age_s is not None

    def recover(self) -> None:
        """`runlane recover` after the graph has ended: what it left in journals is stored then."""
        command = [sys.executable, "-m", "runlane", "recover", *self.options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a query on the graph's database."""
        return list(query(database_of(self.settings), statement)[1])

    def leftovers(self) -> list[str]:
        """Files in the run directory."""
        directory = run_dir_of(self.settings)
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
