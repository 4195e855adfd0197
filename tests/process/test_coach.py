"""The worker kind `coach`: its shim on every interpreter with a stand-in for Coach, and with the real one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import interpreter_of
from process.graph_under_test import GraphUnderTest

from runlane.workers import coach

pytestmark = pytest.mark.timeout(300)
OLD = Path.home() / ".pyenv/versions/3.6.15/bin/python3.6"

# What of Coach the shim hooks into, and a module `coach` that uses it: enough for the shim's own part.
FILES = {
    "__init__.py": "__version__ = 'stand-in'\n",
    "environments/__init__.py": "",
    "environments/environment.py": """
class Environment(object):
    env_id = "Walk"
    info = {}
    phase = None
    last_action = 0
    def __init__(self):
        self.steps = 0
        self.reward, self.done = 0.0, False
    def step(self, action):
        self.steps += 1
        self.reward, self.done = 0.5, self.steps % 4 == 0
        return self.reward
    def reset_internal_state(self, force_environment_reset=False):
        return "reset"
    def get_rendered_image(self):
        raise RuntimeError("nobody watches")
""",
    "logger.py": """
class BaseLogger(object):
    def create_signal_value(self, signal_name, value, overwrite=True, time=None):
        return (signal_name, value, overwrite, time)
class ScreenLogger(object):
    def ask_yes_no(self, title, default=None):
        return input(title)
""",
    "coach.py": """
import sys
from rl_coach.environments.environment import Environment
from rl_coach.logger import BaseLogger, ScreenLogger
assert sys.argv[1:] == ["--preset", "Walk"], sys.argv
env = Environment()
for number in range(6):
    assert env.step(number) == 0.5
assert env.reset_internal_state() == "reset"
assert BaseLogger().create_signal_value("Loss", 0.25, time=3) == ("Loss", 0.25, True, 3)
BaseLogger().create_signal_value("Loss", float("nan"))
BaseLogger().create_signal_value("Name", "text")
assert ScreenLogger().ask_yes_no("Discard?", False) is False
print("its own output")
raise SystemExit(4)
""",
}


@pytest.mark.parametrize("python", [Path(sys.executable), OLD], ids=["ours", "3.6"])
def test_the_shim_speaks_the_protocol_and_changes_nothing(tmp_path: Path, python: Path) -> None:
    """Steps, a given-up episode and metrics as lines; results, output and exit code are Coach's own."""
    if not python.exists():
        pytest.skip(f"NO PYTHON 3.6 at {python.name}: the shim was tried on this one only; `pyenv install 3.6.15`")
    for name, text in FILES.items():
        path = tmp_path / "rl_coach" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lane = tmp_path / "lane"
    shell = f'exec "{python}" "{coach.SHIM}" 3 --preset Walk 3>"{lane}"'
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["/bin/sh", "-c", shell], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (4, "its own output\n", "")
    lines = [json.loads(line) for line in lane.read_text().splitlines()]
    assert lines[0] == {"kind": "run", "config": {"coach": ["--preset", "Walk"]}}
    assert lines[1]["env"] == {"id": "Walk"}
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["action"] for line in steps] == list(range(6))
    assert [line.get("terminated", False) for line in steps] == [False, False, False, True, False, False]
    assert {"kind": "episode", "outcome": "abandoned", "env_index": 0} in lines
    assert [line["name"] for line in lines if line["kind"] == "metric"] == ["Loss", "Loss"]


@pytest.mark.parametrize("python", [Path(sys.executable), OLD], ids=["ours", "3.6"])
@pytest.mark.parametrize("where", ["coach.py", "logger.py"])
def test_ctrl_c_ends_the_shim_with_130_and_no_traceback(tmp_path: Path, python: Path, where: str) -> None:
    """Amid training, or while Coach is still being imported; what was written stays."""
    if not python.exists():
        pytest.skip(f"NO PYTHON 3.6 at {python.name}: the shim was tried on this one only; `pyenv install 3.6.15`")
    for name, text in {**FILES, where: FILES[where] + "\nraise KeyboardInterrupt\n"}.items():
        path = tmp_path / "rl_coach" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("raise SystemExit(4)", ""))
    lane = tmp_path / "lane"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "LANG": "C.UTF-8"}
    shell = f'exec "{python}" "{coach.SHIM}" 3 --preset Walk 3>"{lane}"'
    done = subprocess.run(
        ["/bin/sh", "-c", shell], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert lane.read_text().startswith('{"kind": "run"')


def test_a_missing_coach_is_one_line() -> None:
    """Exit code 2, the interpreter named, and how to get one."""
    done = subprocess.run(
        [sys.executable, "-m", "runlane.workers.coach", "--python", "/nowhere/python3.6"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "/nowhere/python3.6" in done.stderr
    assert ".ci/kind coach" in done.stderr


def test_the_real_coach_trains_and_is_recorded(short_dir: Path) -> None:
    """A preset under its own old interpreter: as many steps and returns in SQL as Coach itself writes down."""
    python = interpreter_of("coach")
    with GraphUnderTest(short_dir) as graph:
        train = ["-m", "runlane.workers.coach", "--preset", "CartPole_DQN", "--steps", "300", "--seed", "1"]
        train += ["--python", str(python), "--experiments", str(short_dir / "experiments")]
        command = [sys.executable, "-m", "runlane", "run", *graph.options, "--worker", "coach", "--", sys.executable]
        done = subprocess.run(
            [*command, *train],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "FASTLANE": "1"},
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "FASTLANE_OPENED [FASTLANE]" in done.stderr
        ((run_state, worker),) = graph.sql("SELECT runs.state, worker FROM runs JOIN streams USING (run) LIMIT 1")
        assert (run_state, worker) == ("finished", "coach")
        ((steps,),) = graph.sql("SELECT count(*) FROM steps")
        assert steps >= 1_300  # Coach's heat-up and what was asked for
        returns = graph.sql("SELECT sum(episode_return), sum(length), count(*) FROM episodes")
        assert returns[0][0] == returns[0][1]  # CartPole gives 1 a step
        assert graph.sql("SELECT count(*) > 0 FROM metrics WHERE name = 'Training Reward'") == [(1,)]
