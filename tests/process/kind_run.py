"""Running a worker kind's interpreter beside a graph: what it prints, and what the database then holds."""

import os
import subprocess
import sys

from kinds import ROOT, interpreter_of
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.config.names import ENV_CONFIG

SCRIPTS = ROOT / "tests" / "cleanrl"
DEADLINE_S = 150


class KindRun:
    """Commands of one kind, each in the graph's directory and with this tree's code."""

    def __init__(self, graph: GraphUnderTest, kind: str) -> None:
        self.graph = graph
        self.python = str(interpreter_of(kind))

    def __call__(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run the interpreter with these arguments, to its end."""
        return self.run(self.python, *arguments, **variables)

    def hooked(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run it below `runlane run`."""
        options = ["--config", str(self.graph.config)]
        return self.run(sys.executable, "-m", "runlane", "run", *options, "--", self.python, *arguments, **variables)

    def run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run any command."""
        environment = {**os.environ, ENV_CONFIG: str(self.graph.config), "PYTHONPATH": str(ROOT / "src"), **variables}
        environment.setdefault("OMP_NUM_THREADS", "1")
        return subprocess.run(
            command,
            cwd=self.graph.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def settle(self, streams: int = 1) -> None:
        """Wait until so many streams have ended in the database."""
        statement = "SELECT count(*) FROM streams WHERE state != 'running' AND worker NOT LIKE 'proxy-%'"
        wait_until(lambda: self.graph.sql(statement)[0][0] >= streams, f"{streams} streams have ended")


def script(name: str) -> str:
    """A test script in CleanRL's manner."""
    return str(SCRIPTS / f"{name}_manner.py")


def lines_of(output: str) -> list[tuple[int, float]]:
    """Steps and returns of the lines that tell of an episode."""
    found: list[tuple[int, float]] = []
    for line in output.splitlines():
        if line.startswith("global_step="):
            step, _, value = line.removeprefix("global_step=").partition(", episodic_return=")
            found.append((int(step), float(value.strip("[]"))))
    return found
