"""LaunchFormView, its plan and its launcher: what is shown is what is started, and it outlives the window."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot
from run_rig import RigController

from runlane.actors.store_reader import list_runs
from runlane.config.load import load
from runlane.config.names import ENV_LIFELINE, ENV_RUN
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.launch_form_view import LaunchFormView
from runlane.gui.launch_plan import (
    Launch,
    LaunchPlan,
    clean_environment,
    launches_of,
    parse_environment,
)
from runlane.gui.run_launcher import Ended, Launched, RunLauncher, exit_text, tail_of
from runlane.gui.telemetry_mode import TelemetryModeState
from runlane.gui.tokens import DARK, LIGHT
from runlane.gui.worker_option import LaunchError
from runlane.transport.endpoint import data_dir_of, database_of

START_S = 40.0


@pytest.fixture
def controller(qapp: object, settings: Settings) -> Iterator[RigController]:  # noqa: ARG001
    found = RigController(settings)
    yield found
    found.stop()


@pytest.fixture
def form(qtbot: QtBot, controller: RigController) -> Iterator[LaunchFormView]:
    found = LaunchFormView(controller, DARK, TelemetryModeState(controller))
    qtbot.addWidget(found)
    found.show()
    found.set_active(True)
    yield found
    found.set_active(False)
    found.cleanup()


def script(form: LaunchFormView, command: str) -> None:
    form.choice.choose("script")
    form.script.command.setText(command)
    form.refresh()


def after_dashes(launch: Launch) -> list[str]:
    return launch.arguments[launch.arguments.index("--") + 1 :]


# ---- the plan --------------------------------------------------------------------------------------------


def test_a_shipped_worker_gets_only_options_that_differ(settings: Settings) -> None:
    """And always its seed."""
    (launch,) = launches_of(LaunchPlan(worker_type="cartpole", options={"steps": 5_000.0}), settings)
    assert after_dashes(launch) == [
        sys.executable, "-m", "runlane.workers.cartpole", "--steps", "5000", "--seed", "1",
    ]  # fmt: skip
    assert launch.arguments[:6] == [sys.executable, "-m", "runlane", "run", "--name", "cartpole"]


def test_copies_get_seeds_and_names_of_their_own(settings: Settings, tmp_path: Path) -> None:
    """By an option, or in the place of {seed}."""
    (tmp_path / "t.py").touch()
    plan = LaunchPlan(name="x", command="t.py --lr 1", directory=str(tmp_path), copies=2, first_seed=7)
    assert [after_dashes(launch)[1:] for launch in launches_of(plan, settings)] == [
        ["t.py", "--lr", "1", "--seed", "7"],
        ["t.py", "--lr", "1", "--seed", "8"],
    ]
    marked = LaunchPlan(name="x", command="t.py s={seed}", directory=str(tmp_path), copies=2)
    assert [launch.name for launch in launches_of(marked, settings)] == ["x-s1", "x-s2"]
    assert [after_dashes(launch)[-1] for launch in launches_of(marked, settings)] == ["s=1", "s=2"]


def test_the_graph_and_all_of_telemetry_stand_in_the_command(settings: Settings) -> None:
    """Whatever the working directory, and whatever a settings file says there."""
    plan = LaunchPlan(
        worker_type="cartpole", mode=TelemetryMode.DURABLE_ONLY, video_mode="grid", grid_limit=9, slot=5, max_fps=10
    )
    (launch,) = launches_of(plan, settings)
    sets = [text for flag, text in zip(launch.arguments, launch.arguments[1:], strict=False) if flag == "--set"]
    assert sets == [
        f"data_dir={data_dir_of(settings)}",
        f"transport.run_dir={settings.transport.run_dir}",
        "session.telemetry_mode=durable_only",
        "fast_lane.video_mode=grid",
        "fast_lane.max_fps=10",
        "fast_lane.grid_limit=9",
    ]


def loaded_by(launch: Launch) -> Settings:
    """What `runlane run` makes of its options."""
    given = launch.arguments[4 : launch.arguments.index("--")]
    files = [Path(text) for flag, text in pairwise(given) if flag == "--config"]
    sets = [text for flag, text in pairwise(given) if flag == "--set"]
    return load(files[-1] if files else None, {}, sets)


@pytest.mark.parametrize("mode", list(TelemetryMode))
def test_a_run_starts_as_the_form_says_whatever_the_windows_settings_are(
    settings: Settings, tmp_path: Path, mode: TelemetryMode
) -> None:
    """With the window's own file and options, and without them; the rest of those goes to the run, too."""
    file = tmp_path / "graph.toml"
    file.write_text(
        'log_level = "DEBUG"\n'
        '[session]\ntelemetry_mode = "durable_only"\n'
        '[fast_lane]\nvideo_mode = "grid"\nmax_fps = 12\ngrid_limit = 9\n'
        f'[transport]\nrun_dir = "{settings.transport.run_dir}"\n'
    )
    options = ["--config", str(file), "--set", "fast_lane.max_fps=7", "--set", "proxy.stalled_s=3"]
    ours = load(file, {}, ["fast_lane.max_fps=7", "proxy.stalled_s=3"])
    for video in ("grid", "single"):
        plan = LaunchPlan(worker_type="cartpole", mode=mode, video_mode=video, grid_limit=9, slot=2, max_fps=7)
        for given in (options, []):
            (launch,) = launches_of(plan, ours, given)
            found = loaded_by(launch)
            assert found.session.telemetry_mode is mode
            assert (found.fast_lane.video_mode, found.fast_lane.max_fps) == (video, 7)
            assert (found.fast_lane.grid_limit if video == "grid" else found.fast_lane.slot - 2) == (
                9 if video == "grid" else 0
            )
            assert found.transport.run_dir == ours.transport.run_dir
        assert loaded_by(launches_of(plan, ours, options)[0]).proxy.stalled_s == 3


def test_the_form_passes_the_windows_own_options_on(form: LaunchFormView, controller: RigController) -> None:
    """Before its own settings, which so outweigh them."""
    controller.options = ["--set", "proxy.stalled_s=3", "--set", "session.telemetry_mode=durable_only"]
    form.refresh()
    found = loaded_by(
        Launch(name="", arguments=["", "", *shlex.split(form.preview.toPlainText())], directory="", environment={})
    )
    assert (found.proxy.stalled_s, found.session.telemetry_mode) == (3, TelemetryMode.DUAL_PATH)


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (LaunchPlan(command=""), "Command"),
        (LaunchPlan(command="no-such-program-here"), "Command"),
        (LaunchPlan(command="python no-such-file.py"), "Command"),
        (LaunchPlan(command="python 'open"), "Command"),
        (LaunchPlan(worker_type="cartpole", directory="/no/such/place"), "Working directory"),
        (LaunchPlan(worker_type="cartpole", environment="A-B=1"), "Environment"),
        (LaunchPlan(worker_type="cartpole", name="a\nb"), "Run name"),
        (LaunchPlan(worker_type="cartpole", options={"steps": 0.0}), "Total steps"),
        (LaunchPlan(worker_type="cartpole", copies=0), "Copies"),
        (LaunchPlan(command="true", copies=2, seed_flag=" "), "Seed option"),
    ],
)
def test_what_cannot_work_names_field_and_remedy(settings: Settings, plan: LaunchPlan, field: str) -> None:
    """In one line, before anything is started."""
    with pytest.raises(LaunchError) as caught:
        launches_of(plan, settings)
    assert caught.value.field == field
    assert caught.value.remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_variables_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """With comments; and what a supervisor told this window is not told to a worker."""
    assert parse_environment("# threads\nA=1\n\n B=x=y \n") == {"A": "1", "B": "x=y"}
    monkeypatch.setenv(ENV_RUN, "mine")
    monkeypatch.setenv(ENV_LIFELINE, "5")
    assert not {ENV_RUN, ENV_LIFELINE} & clean_environment().keys()


# ---- the form --------------------------------------------------------------------------------------------


def test_the_preview_is_the_command_and_can_be_copied(form: LaunchFormView, tmp_path: Path) -> None:
    """With the variables that are added."""
    (tmp_path / "train it.py").touch()
    script(form, "python 'train it.py' --lr 3e-4")
    form.script.directory.setText(str(tmp_path))
    form.script.environment.setPlainText("A=1 2")
    form.name.setText("mine")
    form.refresh()
    form.copy.click()
    copied = QGuiApplication.clipboard().text()
    assert copied == form.preview.toPlainText()
    assert shlex.split(copied)[:5] == ["A=1 2", "runlane", "run", "--name", "mine"]
    assert shlex.split(copied)[-3:] == ["train it.py", "--lr", "3e-4"]


def test_a_bad_field_is_one_line_and_nothing_can_be_launched(qtbot: QtBot, form: LaunchFormView) -> None:
    """Until it is mended."""
    qtbot.waitUntil(form.launch_button.isEnabled, timeout=10_000)
    script(form, "python no-such-file.py")
    assert "no-such-file.py" in form.problem.whole_text
    assert not form.launch_button.isEnabled()
    script(form, "true")
    assert form.launch_button.isEnabled()


def test_a_change_is_seen_in_the_preview_by_itself(qtbot: QtBot, form: LaunchFormView) -> None:
    """A moment after the last key."""
    form.copies.setValue(3)
    qtbot.waitUntil(lambda: form.launch_button.text() == "Launch 3 runs", timeout=3_000)
    assert len(form.preview.toPlainText().splitlines()) == 3
    form.set_tokens(LIGHT)


# ---- the launcher ----------------------------------------------------------------------------------------


@pytest.fixture
def launcher(qapp: object, tmp_path: Path) -> Iterator[RunLauncher]:  # noqa: ARG001
    found = RunLauncher(tmp_path / "logs")
    yield found
    found.let_go()


def shell(text: str, directory: Path) -> Launch:
    return Launch(name="a b/c", arguments=["/bin/sh", "-c", text], directory=str(directory), environment={"WORD": "w"})


def test_who_ends_at_once_says_why(qtbot: QtBot, launcher: RunLauncher, tmp_path: Path) -> None:
    """Its last lines come with its exit code, and it leaves no zombie."""
    ended: list[Ended] = []
    launcher.ended.connect(ended.append)
    launched = launcher.start(shell("echo one; echo $WORD >&2; exit 3", tmp_path))
    assert launched is not None
    qtbot.waitUntil(lambda: bool(ended), timeout=5_000)
    assert (ended[0].exit_code, ended[0].tail, ended[0].is_soon) == (3, "one\nw", True)
    assert launched.log.name.startswith("launch-a-b-c-")
    assert not psutil.pid_exists(launched.pid)
    assert launcher.watched == []


def test_what_runs_outlives_the_launcher(launcher: RunLauncher, tmp_path: Path) -> None:
    """In a session of its own, without a terminal."""
    launched = launcher.start(shell("exec sleep 30", tmp_path))
    assert launched is not None
    launcher.let_go()
    try:
        assert psutil.pid_exists(launched.pid)
        assert os.getsid(launched.pid) == launched.pid
    finally:
        os.kill(launched.pid, signal.SIGKILL)
        os.waitpid(launched.pid, 0)


def test_what_cannot_be_started_says_why(launcher: RunLauncher, tmp_path: Path) -> None:
    """One line, no exception."""
    told: list[tuple[str, str]] = []

    def note(name: str, reason: str) -> None:
        told.append((name, reason))

    launcher.refused.connect(note)
    launch = Launch(name="x", arguments=["/no/such/program"], directory=str(tmp_path), environment={})
    assert launcher.start(launch) is None
    assert "No such file" in told[0][1]


def test_ends_are_said_in_words(tmp_path: Path) -> None:
    """A signal by its name."""
    assert [exit_text(code) for code in (0, 2, -9)] == ["exit code 0", "exit code 2", "killed by SIGKILL"]
    assert tail_of(tmp_path / "none") == ""


def test_a_run_of_the_form_is_stored_by_a_real_graph(
    qtbot: QtBot, form: LaunchFormView, settings: Settings, tmp_path: Path
) -> None:
    """From the button to the database; the graph is started by the run, and ends after it."""
    (tmp_path / "tiny.py").write_text(
        "from runlane.workers import attach\n"
        "lane = attach(config={'seed': 1})\n"
        "for n in range(20): lane.step(0, 1.0, terminated=n % 10 == 9)\n"
        "lane.close()\n"
    )
    script(form, "tiny.py")
    form.script.directory.setText(str(tmp_path))
    form.name.setText("tiny")
    began: list[Launched] = []
    ended: list[Ended] = []
    form.launcher.began.connect(began.append)
    form.launcher.ended.connect(ended.append)
    form.refresh()
    form.launch_button.click()
    assert len(began) == 1
    qtbot.waitUntil(lambda: bool(ended), timeout=int(1000 * START_S))
    assert ended[0].exit_code == 0, ended[0].tail
    assert "tiny began, pid" in form.output.toPlainText()
    runs = {found.name: (found.state, found.steps, found.episodes) for found in list_runs(database_of(settings))}
    assert runs == {"tiny": ("finished", 20, 2)}
