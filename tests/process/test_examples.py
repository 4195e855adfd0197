"""The examples, each as a process beside a whole graph with a worker that records: what they print and write."""

import ast
import json
import math
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from process.graph_under_test import WORKER, GraphUnderTest, wait_until

from runlane.config.names import ENV_CONFIG

pytestmark = pytest.mark.timeout(120)

EXAMPLES = Path(__file__).parents[2] / "examples"
MAX_CODE_LINES = 30
STEPS = 500_000  # far more than a test waits for
RATE = 2_000
# Steps quickly at first, then gives a NaN and slows down, then says nothing more.
ODD_WORKER = """
import math, time
from runlane.workers import attach
lane = attach(worker=None)
for number in range(4_000):
    lane.step(0, 1.0)
    time.sleep(0.001)
lane.step(0, math.nan)
for number in range(250):
    lane.step(0, 1.0)
    time.sleep(0.01)
time.sleep(600)
"""


class Example:
    """One example as a process, and all it has printed so far."""

    def __init__(self, graph: GraphUnderTest, name: str, *arguments: str) -> None:
        self._output = graph.directory / f"{name}.out"
        environment = {**os.environ, ENV_CONFIG: str(graph.config), "PYTHONUNBUFFERED": "1"}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLES / name), *arguments], stdout=output, stderr=output, env=environment
            )

    @property
    def output(self) -> str:
        """Standard output and errors."""
        return self._output.read_text()

    def wait_for(self, claim: Callable[[str], Any], what: str) -> Any:
        """What the claim finds in the output."""

        def look() -> Any:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            return claim(self.output)

        try:
            return wait_until(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def wait_for_end(self) -> None:
        """It ends by itself, in peace."""
        assert self.process.wait(20) == 0, self.output


@contextmanager
def running(
    directory: Path, name: str, *arguments: str, worker: list[str] | None = None
) -> Generator[tuple[GraphUnderTest, Example]]:
    """A graph with a worker, and an example beside it. The graph is stopped at the end; the example must end, too."""
    counting = [str(WORKER), str(directory / "report.json"), str(STEPS), str(RATE)]
    command = json.dumps(["{python}", *(worker or counting)])
    example = None
    try:
        with GraphUnderTest(directory, f"[workers.counter]\ncommand = {command}\nrun_name = 'counted'\n") as graph:
            example = Example(graph, name, *arguments)
            yield graph, example
            assert example.process.poll() is None, example.output
        example.wait_for_end()
    finally:
        if example is not None and example.process.poll() is None:
            example.process.kill()
            example.process.wait()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    """At most 30 statements' lines: docstrings and comments aside, one thought to read."""
    tree = ast.parse(path.read_text("utf-8"))
    lines = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for line in ([node.lineno] if hasattr(node, "body") else range(node.lineno, (node.end_lineno or 0) + 1))
    }
    assert len(lines) <= MAX_CODE_LINES


def test_print_episodes_prints_each_episode(short_dir: Path) -> None:
    """Worker and record, in order."""
    with running(short_dir, "print_episodes.py") as (_, example):
        pattern = r"^counter EpisodeRecord\(.*episode=(\d+), episode_return=50\.0, length=50"
        found = example.wait_for(
            lambda text: (found := re.findall(pattern, text, re.MULTILINE)) and len(found) >= 20 and found,
            "20 episodes",
        )
        episodes = [int(number) for number in found]
        assert episodes == list(range(episodes[0], episodes[0] + len(episodes)))


def _figures(url: str) -> dict[str, float]:
    """The exporter's page, by name and labels."""
    with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310  its own address, which it printed
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[:7] == "runlane"}


def test_the_exporter_serves_records_and_speed(short_dir: Path) -> None:
    """What Prometheus would read: counters by kind that rise, and steps per second."""
    with running(short_dir, "prometheus_exporter.py", "0") as (_, example):
        url = example.wait_for(lambda text: re.search(r"http://127.0.0.1:\d+/metrics", text), "the address")[0]
        steps, episodes = (f'runlane_records_total{{kind="{kind}",worker="counter"}}' for kind in ("step", "episode"))
        fps = 'runlane_fps{worker="counter"}'
        found: dict[str, float] = example.wait_for(
            lambda _text: (found := _figures(url)).get(steps, 0) > 3_000 and found.get(fps, 0) and found, "figures"
        )
        assert found[episodes] >= found[steps] / 50 - 20
        assert 100 < found[fps] < 2 * RATE
        example.wait_for(lambda _text: _figures(url)[steps] > found[steps], "the counters rise")


def test_the_rules_raise_their_alerts(short_dir: Path) -> None:
    """A NaN reward, half the speed and then silence, each once."""
    worker = short_dir / "odd.py"
    worker.write_text(ODD_WORKER)
    with running(short_dir, "alert_rules.py", "3", worker=[str(worker)]) as (_, example):
        example.wait_for(lambda text: "no step for 3 s" in text, "the last alert")
        for alert in ("counter: reward is NaN", "counter: below half its best speed", "counter: no step for 3 s"):
            assert example.output.count(f"ALERT {alert}\n") >= 1, example.output
        assert example.output.count("NaN") == 1


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that grows."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_the_recorder_begins_with_what_is_stored_and_goes_on_live(short_dir: Path) -> None:
    """It joins late, and yet every record is in the file once, from the first on, without a gap."""
    path = short_dir / "all.jsonl"
    with GraphUnderTest(short_dir, _counter_table(short_dir, 20_000)) as graph:
        wait_until(lambda: graph.sql("SELECT count(*) > 3000 FROM steps")[0][0], "some steps are stored")
        example = Example(graph, "record_jsonl.py", str(path))
        try:
            wait_until((short_dir / "report.json").exists, "the worker ended", 60)
            records = json.loads((short_dir / "report.json").read_text())["records"]
            example.wait_for(lambda _text: len(_lines(path)) >= records, f"{records} records in the file")
            found = [line["seq"] for line in _lines(path) if line["worker"] == "counter"]
            assert sorted(found) == list(range(1, records + 1))
            rewards = [line["reward"] for line in _lines(path) if line["kind"] == "step"]
            assert len(rewards) == 20_000
            assert math.isclose(sum(rewards), 20_000)
        finally:
            graph.process.terminate()
            example.process.wait(20)
    assert example.process.returncode == 0, example.output


def _counter_table(directory: Path, steps: int) -> str:
    command = ["{python}", str(WORKER), str(directory / "report.json"), str(steps), "4000"]
    return f"[workers.counter]\ncommand = {json.dumps(command)}\nrun_name = 'counted'\n"


def test_the_async_consumer_counts_beside_another_task(short_dir: Path) -> None:
    """Its report comes every second while batches do, and the total when the graph stops."""
    with running(short_dir, "async_consumer.py") as (_, example):
        example.wait_for(lambda text: text.count("'step'") >= 3, "three reports")
        counts = [ast.literal_eval(line) for line in example.output.splitlines() if line.startswith("{'")]
        assert [each["step"] for each in counts] == sorted(each["step"] for each in counts)
    assert re.search(r"^total \{.*'step': \d+", example.output, re.MULTILINE)


def test_record_jsonl_without_a_file_says_how_it_is_used() -> None:
    """No traceback."""
    command = [sys.executable, str(EXAMPLES / "record_jsonl.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "usage: python examples/record_jsonl.py FILE\n")
