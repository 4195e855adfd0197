"""InterpreterProbe: a real interpreter is asked, in a process of its own, and the form says what is missing."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot
from run_rig import RigController

from runlane.config.settings import Settings
from runlane.gui.interpreter_probe import (
    OURS,
    InterpreterProbe,
    Need,
    ProbeAnswer,
    modules_of,
    need_of,
    parse_answer,
    program_need,
)
from runlane.gui.launch_form_view import LaunchFormView
from runlane.gui.telemetry_mode import TelemetryModeState
from runlane.gui.tokens import DARK, LIGHT
from runlane.gui.worker_type import WorkerType, worker_type_named

ANSWER_MS = 20_000


def kind_of(key: str) -> WorkerType:
    found = worker_type_named(key)
    assert found is not None
    return found


@pytest.fixture
def probe(qapp: object) -> Iterator[InterpreterProbe]:  # noqa: ARG001
    found = InterpreterProbe()
    yield found
    found.close()


def answer_of(qtbot: QtBot, probe: InterpreterProbe, python: str, *modules: str) -> ProbeAnswer:
    answers: list[ProbeAnswer] = []
    probe.answered.connect(answers.append)
    probe.ask(python, modules)
    qtbot.waitUntil(lambda: bool(answers), timeout=ANSWER_MS)
    probe.answered.disconnect(answers.append)
    return answers[0]


def program(directory: Path, text: str) -> str:
    path = directory / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_says_what_it_lacks(qtbot: QtBot, probe: InterpreterProbe) -> None:
    """Nothing is imported for it."""
    found = answer_of(qtbot, probe, "", OURS, "no_such_package", "json")
    assert (found.missing, found.version, found.problem) == (("no_such_package",), sys.version_info[:3], "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("exit 3", "exit code 3"), ("echo hello", "does not answer"), ("echo '[1]'", "does not answer")],
)
def test_a_program_that_is_no_python_is_told_so(
    qtbot: QtBot, probe: InterpreterProbe, tmp_path: Path, text: str, problem: str
) -> None:
    """In one line."""
    assert problem in answer_of(qtbot, probe, program(tmp_path, text)).problem


def test_a_path_that_is_no_program_is_answered_at_once(qtbot: QtBot, probe: InterpreterProbe) -> None:
    """Without a process."""
    assert answer_of(qtbot, probe, "/no/such/python").problem == "is no program"


def test_an_interpreter_that_never_answers_is_given_up(qtbot: QtBot, tmp_path: Path) -> None:
    """And its process ends."""
    probe = InterpreterProbe(timeout_ms=50)
    assert answer_of(qtbot, probe, program(tmp_path, "exec sleep 60")).problem == "does not answer"
    assert not probe.is_asking
    probe.close()


def test_a_newer_question_is_the_one_that_is_answered(qtbot: QtBot, probe: InterpreterProbe, tmp_path: Path) -> None:
    """The older one's process ends."""
    probe.ask(program(tmp_path, "exec sleep 60"), ())
    assert answer_of(qtbot, probe, "", "json").python == sys.executable


def test_what_a_site_hook_prints_is_passed_over() -> None:
    """The answer is the last line."""
    found = parse_answer("p", 'welcome\n{"version": [3, 12, 1], "missing": ["a"]}\n')
    assert (found.version, found.missing) == ((3, 12, 1), ("a",))


def test_the_remedy_is_one_command_for_that_interpreter() -> None:
    """With runlane itself where that is missing; the window's own environment gets no pins of others."""
    sb3, cleanrl = kind_of("sb3"), kind_of("cleanrl")
    other = ProbeAnswer("/e/bin/python", (3, 12, 0), (OURS, "stable_baselines3"))
    need = need_of(sb3, other)
    assert need.reason == "this Python has no runlane, stable_baselines3"
    assert need.remedy.startswith("/e/bin/python -m pip install runlane stable-baselines3")
    assert need_of(sb3, replace(other, missing=(OURS,))).remedy == "/e/bin/python -m pip install runlane"
    ours = need_of(cleanrl, ProbeAnswer(sys.executable, (3, 12, 0), ("torch",)))
    assert ours.remedy.startswith(f"{sys.executable} -m venv .venvs/cleanrl && .venvs/cleanrl/bin/python -m pip")
    assert need_of(sb3, replace(other, missing=())) == Need()


def test_an_interpreter_that_is_too_old_for_us_does_for_coach_alone() -> None:
    """Which is why there is a kind like that."""
    old = ProbeAnswer("/old/python", (3, 6, 15))
    assert "needs 3.11" in need_of(kind_of("sb3"), old).reason
    assert need_of(kind_of("coach"), old).is_met
    assert OURS not in modules_of(kind_of("coach"))


def test_programs_are_looked_for_on_the_path() -> None:
    """Unless somebody says where the engine is; a display has to be made only where there is none."""
    godot = kind_of("godot")
    here = {"DISPLAY": ":0"}
    assert program_need(godot, {}, {"godot3": "x"}.get, here).is_met
    missing = program_need(godot, {}, {}.get, {})
    assert missing.reason == "there is no godot3-runner and no Xvfb on the PATH"
    assert missing.remedy == "apt-get install godot3-runner xvfb"
    assert program_need(godot, {"engine": "/opt/godot"}, {}.get, here).is_met


# ---- in the form ----------------------------------------------------------------------------------------


@pytest.fixture
def form(qtbot: QtBot, settings: Settings) -> Iterator[LaunchFormView]:
    controller = RigController(settings)
    found = LaunchFormView(controller, DARK, TelemetryModeState(controller))
    qtbot.addWidget(found)
    found.show()
    found.set_active(True)
    yield found
    found.set_active(False)
    found.cleanup()
    controller.stop()


def test_a_kind_whose_needs_are_missing_is_shown_and_cannot_be_launched(
    qtbot: QtBot, form: LaunchFormView, tmp_path: Path
) -> None:
    """With the reason and the remedy, which can be copied; an interpreter that has them mends it."""
    bare = program(tmp_path, """echo '{"version": [3, 12, 0], "missing": ["vizdoom"]}'""")
    fields = form.types["vizdoom"]
    form.choice.choose("vizdoom")
    fields.python.line.setText(bare)
    qtbot.waitUntil(lambda: "no vizdoom" in form.problem.whole_text, timeout=ANSWER_MS)
    assert not form.launch_button.isEnabled()
    assert fields.note.line.whole_text == "This Python has no vizdoom."
    fields.note.copy.click()
    assert QGuiApplication.clipboard().text() == f"{bare} -m pip install vizdoom"
    assert form.choice.buttons["vizdoom"].property("lacks") == "yes"
    (tmp_path / "other").mkdir()
    whole = program(tmp_path / "other", """echo '{"version": [3, 12, 0], "missing": []}'""")
    fields.python.line.setText(whole)
    qtbot.waitUntil(form.launch_button.isEnabled, timeout=ANSWER_MS)
    assert whole in form.preview.toPlainText()
    assert form.choice.buttons["vizdoom"].property("lacks") == "no"
    form.set_tokens(LIGHT)


def test_all_kinds_are_looked_at_without_being_chosen(qtbot: QtBot, form: LaunchFormView) -> None:
    """One after the other."""
    qtbot.waitUntil(lambda: all(fields.need is not None for fields in form.types.values()), timeout=3 * ANSWER_MS)
    need = form.types["cartpole"].need
    assert need is not None
    assert need.is_met
    assert form.choice.buttons["coach"].property("lacks") == "yes"  # nobody said where its Python is


def test_a_field_of_each_sort_gives_its_value(form: LaunchFormView, tmp_path: Path) -> None:
    """As the plan takes it."""
    fields = form.types["sb3"].fields
    fields["algo"].set_value("td3")
    fields["envs"].set_value(4)
    assert form.types["sb3"].values() == {
        "algo": "td3",
        "env": "CartPole-v1",
        "steps": 50_000.0,
        "envs": 4.0,
        "vec": "dummy",
    }
    script = form.types["cleanrl"].fields
    script["compat"].set_value(True)
    script["script"].set_value(str(tmp_path))
    assert form.types["cleanrl"].values() == {"compat": True, "script": str(tmp_path), "arguments": ""}


def test_json_lines_are_chosen_for_a_program_of_another_language(form: LaunchFormView) -> None:
    """From its output, unless somebody says otherwise."""
    form.choice.choose("script")
    form.script.command.setText("true")
    form.script.speech.choose("jsonl")
    form.refresh()
    assert "--jsonl stdout" in form.preview.toPlainText()
    form.script.source.setText("fd:3")
    form.refresh()
    assert "--jsonl fd:3" in form.preview.toPlainText()
    form.script.speech.choose("python")
    form.refresh()
    assert "--jsonl" not in form.preview.toPlainText()
