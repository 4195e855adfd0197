"""`runlane run` as a user types it: real commands, one graph shared, nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.actors.store_reader import list_runs, query
from runlane.config.errors import StoreError

pytestmark = pytest.mark.timeout(120)

STEPPING = """
import sys
from runlane.workers import attach
lane = attach()
for number in range(int(sys.argv[1])):
    lane.step(number % 2, 1.0, number % 10 == 9)
lane.close()
"""


class Runner:
    """Starts `runlane run` with a data directory of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "data" / "runlane.db"
        self.script = directory / "stepping.py"
        self.script.write_text(STEPPING)

    def start(self, *command: str, options: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        places = (f"data_dir={self.directory / 'data'}", f"transport.run_dir={self.directory / 'run'}")
        sets = [part for text in (*places, *options) for part in ("--set", text)]
        arguments = [sys.executable, "-m", "runlane", "run", *sets, "--", *command]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *command: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        process = self.start(*command, options=options)
        out, err = process.communicate(timeout=90)
        return process.returncode, out, err

    def step(self, steps: int) -> tuple[str, ...]:
        return sys.executable, str(self.script), str(steps)

    def has_worker(self) -> bool:
        """Whether a worker's stream has come to the database."""
        try:
            return self.database.exists() and bool(query(self.database, "SELECT 1 FROM streams LIMIT 1")[1])
        except StoreError:  # it is being made
            return False

    def is_gone(self) -> bool:
        """Whether no process of this directory is left."""
        mark = str(self.directory)
        return not [one for one in psutil.process_iter(["cmdline"]) if mark in " ".join(one.info["cmdline"] or ())]


@pytest.fixture
def runner(short_dir: Path) -> Runner:
    """A fresh directory, no graph running."""
    return Runner(short_dir)


def test_the_command_keeps_its_exit_code_and_output(runner: Runner) -> None:
    """Nothing of ours on standard output, its own code, and the run's state says it failed."""
    code, out, err = runner.run(sys.executable, "-c", "print('mine'); raise SystemExit(5)")
    assert (code, out) == (5, "mine\n")
    assert "recorded nothing" in err
    assert [(row.state, row.steps) for row in list_runs(runner.database)] == [("failed", 0)]
    wait_until(runner.is_gone, "the graph it started is gone")


def test_one_command_may_start_several_scripts(runner: Runner) -> None:
    """A pause between them, longer than a proxy waits for a vanished worker, ends nothing."""
    one = " ".join(runner.step(100))
    code, _, err = runner.run("sh", "-c", f"{one} && sleep 3.5 && {one}")
    assert code == 0, err
    assert [(row.state, row.steps) for row in list_runs(runner.database)] == [("finished", 200)]
    wait_until(runner.is_gone, "the graph it started is gone")


def test_commands_at_the_same_moment_share_one_graph(runner: Runner) -> None:
    """Whoever comes first starts it, and it stays until the last one has ended."""
    started = [runner.start(*runner.step(1_000 * number)) for number in (1, 2, 3)]
    results = [process.communicate(timeout=90) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], results
    assert sorted(row.steps for row in list_runs(runner.database)) == [1_000, 2_000, 3_000]
    wait_until(runner.is_gone, "the graph is gone")


def test_settings_reach_the_command(runner: Runner) -> None:
    """What is set for the graph holds for its worker, too."""
    code, out, _ = runner.run(
        sys.executable,
        "-c",
        "from runlane.config.load import load; print(load().session.overflow)",
        options=("session.overflow=drop_newest",),
    )
    assert (code, out) == (0, "drop_newest\n")


@pytest.mark.parametrize("kind", ["missing", "no program"])
def test_a_command_that_cannot_start_leaves_nothing(runner: Runner, kind: str) -> None:
    """One line, code 127, no traceback, and no graph that waits for a worker for ever."""
    command = runner.directory / "command"
    if kind == "no program":
        command.write_text("no first line")
        command.chmod(0o755)
    code, _, err = runner.run(str(command))
    assert code == 127
    assert str(command) in err
    assert "Traceback" not in err
    wait_until(runner.is_gone, "the graph it started is gone")


def test_a_launcher_that_is_killed_leaves_nothing(runner: Runner) -> None:
    """`kill -9` of `runlane run`: its command ends by itself, and the graph after it."""
    process = runner.start(*runner.step(200))
    wait_until(runner.has_worker, "its command records")  # before that the graph would wait 20 s for one
    process.kill()
    process.communicate()
    wait_until(runner.is_gone, "the graph is gone", 60)


def test_stop_ends_a_running_graph(short_dir: Path) -> None:
    """`runlane stop` waits until it is gone; a second one says that none is running."""
    with GraphUnderTest(short_dir) as graph:
        command = [sys.executable, "-m", "runlane", "stop", *graph.options]
        assert subprocess.run(command, check=False, timeout=60).returncode == 0
        assert graph.process.wait(10) == 0
        again = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True, env=dict(os.environ))
        assert again.returncode == 1
        assert "no graph is running" in again.stderr


def test_a_command_of_which_nothing_is_recorded_is_told_so_loudly(runner: Runner) -> None:
    """In the terminal while it runs, with the lines to add; and in its run, for the window. Its secrets in neither."""
    script = "import sys; print('mine', flush=True); sys.stdin.readline()"
    places = (f"data_dir={runner.directory / 'data'}", f"transport.run_dir={runner.directory / 'run'}")
    sets = [part for text in (*places, "attach.unhooked_s=0.2") for part in ("--set", text)]
    command = [sys.executable, "-m", "runlane", "run", *sets, "--", sys.executable, "-c", script, "--token", "s3cret"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        headline = next(line for line in said if "Nothing is recorded after 0.2 s" in line)
        assert "--token" in headline
        assert "s3cret" not in headline
        assert any("lane = attach()" in line for line in said)
        wait_until(lambda: runner.has_worker() and _warnings(runner), "the run says so")
        out, _ = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (0, "mine\n")
    (warning,) = _warnings(runner)
    assert warning.startswith("Nothing is recorded")
    assert "s3cret" not in warning
    wait_until(runner.is_gone, "the graph it started is gone")


def _warnings(runner: Runner) -> list[str]:
    return [str(text) for (text,) in query(runner.database, "SELECT text FROM logs WHERE level = 'warning'")[1]]


def test_an_unedited_script_is_recorded_unless_it_is_not_to_be(runner: Runner) -> None:
    """`--no-hook` records what the script says by itself, which is nothing here."""
    script = runner.directory / "train.py"
    script.write_text(
        "import gymnasium\nenv = gymnasium.make('CartPole-v1')\nenv.reset(seed=1)\n"
        "for _ in range(7): env.step(0)\nenv.close()\n"
    )
    code, _, err = runner.run(sys.executable, str(script))
    assert (code, "7 steps" in err) == (0, True), err
    places = (f"data_dir={runner.directory / 'data'}", f"transport.run_dir={runner.directory / 'run'}")
    sets = [part for text in places for part in ("--set", text)]
    bare = [sys.executable, "-m", "runlane", "run", "--no-hook", *sets, "--", sys.executable, str(script)]
    done = subprocess.run(bare, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, "recorded nothing" in done.stderr) == (0, True)
    wait_until(runner.is_gone, "the graph it started is gone")
