"""WorkerType and its options: the very words of every kind's command line, and what is refused before it is started."""

import sys
from pathlib import Path
from typing import Any

import pytest

from runlane.config.settings import Settings
from runlane.gui.launch_plan import LaunchPlan, default_name, launches_of
from runlane.gui.worker_option import LaunchError, OptionValue
from runlane.gui.worker_type import WORKER_TYPES


def command(settings: Settings, kind: str, python: str = "", **options: OptionValue) -> list[str]:
    (launch,) = launches_of(LaunchPlan(worker_type=kind, options=dict(options), python=python), settings)
    words = launch.arguments
    return words[words.index("--") + 1 :]


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "ppo.py"
    path.touch()
    return str(path)


def test_every_kind_is_a_module_of_ours_with_a_worker_name() -> None:
    """And its name has no dash: what stands behind one is an agent."""
    assert len({kind.worker for kind in WORKER_TYPES}) == len(WORKER_TYPES)
    assert not [kind.worker for kind in WORKER_TYPES if "-" in kind.worker]
    assert {kind.module for kind in WORKER_TYPES} >= {
        f"runlane.workers.{name}" for name in ("cleanrl", "sb3", "spade_bdi", "coach", "godot", "vizdoom")
    }


def test_a_scripts_own_arguments_stand_behind_it_and_the_seed_is_among_them(settings: Settings, script: str) -> None:
    """Flags of the worker come before the script."""
    found = command(settings, "cleanrl", script=script, arguments="--env-id 'A B' --lr 1e-3", compat=True)
    assert found == [
        sys.executable, "-m", "runlane.workers.cleanrl", "--compat", script,
        "--env-id", "A B", "--lr", "1e-3", "--seed", "1",
    ]  # fmt: skip


def test_what_a_worker_cannot_guess_is_always_said(settings: Settings) -> None:
    """Of the others what differs."""
    assert command(settings, "sb3")[3:] == ["--algo", "ppo", "--env", "CartPole-v1", "--seed", "1"]
    found = command(settings, "sb3", algo="sac", env="Pendulum-v1", envs=8.0, vec="subproc")
    assert found[3:] == [
        "--algo", "sac", "--env", "Pendulum-v1", "--envs", "8", "--vec", "subproc", "--seed", "1",
    ]  # fmt: skip


def test_a_kind_runs_with_the_interpreter_of_its_own_environment(settings: Settings, tmp_path: Path) -> None:
    """A link stays a link: what it leads to would not know the environment's packages."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    assert command(settings, "vizdoom", str(python))[:3] == [str(python), "-m", "runlane.workers.vizdoom"]


def test_an_interpreter_that_cannot_run_us_is_told_to_the_worker(settings: Settings, tmp_path: Path) -> None:
    """Coach's own; the module runs in ours."""
    python = tmp_path / "python3.6"
    python.symlink_to(sys.executable)
    assert command(settings, "coach", str(python), preset="CartPole_DQN") == [
        sys.executable, "-m", "runlane.workers.coach", "--python", str(python),
        "--preset", "CartPole_DQN", "--seed", "1",
    ]  # fmt: skip


def test_switches_files_and_folders(settings: Settings, tmp_path: Path, script: str) -> None:
    """A path is whole, whatever the working directory."""
    assert command(settings, "spade", slippery=True, program=script)[3:] == [
        "--program", script, "--slippery", "--seed", "1",
    ]  # fmt: skip
    assert command(settings, "godot", project=str(tmp_path))[3:] == ["--project", str(tmp_path), "--seed", "1"]


@pytest.mark.parametrize(
    ("kind", "python", "options", "field"),
    [
        ("cleanrl", "", {}, "Script"),
        ("cleanrl", "", {"script": "no-such.py"}, "Script"),
        ("sb3", "", {"algo": "made-up"}, "Algorithm"),
        ("sb3", "", {"env": " "}, "Environment"),
        ("sb3", "", {"envs": 1000.0}, "Environments"),
        ("sb3", "/no/such/python", {}, "Python"),
        ("spade", "", {"program": "no-such.asl"}, "Program"),
        ("godot", "", {"project": "no-such-folder"}, "Project"),
        ("coach", "", {"preset": "x"}, "Python"),
        ("coach", "", {"preset": "a\0b"}, "Preset"),
    ],
)
def test_what_cannot_work_names_field_and_remedy(
    settings: Settings, kind: str, python: str, options: dict[str, Any], field: str
) -> None:
    """In one line."""
    plan = LaunchPlan(worker_type=kind, python=python or ("python3" if field == "Preset" else ""), options=options)
    with pytest.raises(LaunchError) as caught:
        launches_of(plan, settings)
    assert caught.value.field == field
    assert caught.value.remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_is_named_after_what_it_runs(script: str) -> None:
    """The script, the algorithm and its environment; else the kind."""
    assert default_name(LaunchPlan(worker_type="cleanrl", options={"script": script})) == "ppo"
    assert default_name(LaunchPlan(worker_type="cleanrl")) == "cleanrl"
    assert default_name(LaunchPlan(worker_type="sb3", options={"env": "ALE/Pong-v5"})) == "ppo-Pong-v5"
    assert default_name(LaunchPlan(worker_type="spade")) == "spade"


@pytest.mark.parametrize(("source", "word"), [("stdout", "stdout"), ("fd:3", "fd:3"), ("pipe", "{here}/pipe")])
def test_a_program_that_is_not_python_gives_json_lines(
    settings: Settings, tmp_path: Path, source: str, word: str
) -> None:
    """On its output, on a descriptor, or in a file or pipe."""
    plan = LaunchPlan(command="true", jsonl=source, directory=str(tmp_path))
    (launch,) = launches_of(plan, settings)
    at = launch.arguments.index("--jsonl")
    assert at < launch.arguments.index("--")
    assert launch.arguments[at + 1] == word.format(here=tmp_path)


@pytest.mark.parametrize("source", ["fd:x", "fd:", "no/such/folder/pipe"])
def test_a_place_that_gives_no_lines_is_refused(settings: Settings, tmp_path: Path, source: str) -> None:
    """Before anything is started."""
    with pytest.raises(LaunchError, match="JSON lines from"):
        launches_of(LaunchPlan(command="true", jsonl=source, directory=str(tmp_path)), settings)
