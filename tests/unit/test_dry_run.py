"""`runlane run --dry`: says what would be hooked in the command's own interpreter, and runs nothing of it."""

import sys
from pathlib import Path

import pytest

from runlane.config.settings import Settings
from runlane.dry_run import print_dry_run
from runlane.launch import CommandError


def report(settings: Settings, capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str]:
    """Exit code and text."""
    code = print_dry_run(list(command), settings)
    return code, capsys.readouterr().out


def test_it_names_what_the_script_imports_and_runs_nothing(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the version of the command's interpreter."""
    script = tmp_path / "train.py"
    script.write_text(f"import gymnasium.spaces\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    code, text = report(settings, capsys, sys.executable, str(script))
    assert code == 0
    assert "would hook   gymnasium 1." in text
    assert "(the script imports it)" in text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("flag", ["-I", "-S", "-E", "-IB", "-X dev -I", "-W error -S", "-Xdev -E"])
def test_it_says_why_nothing_can_be_hooked(settings: Settings, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    """These interpreters never look at our directory."""
    code, text = report(settings, capsys, sys.executable, *flag.split(), "train.py")
    assert code == 1
    assert "NOT HOOKED" in text


def test_options_of_the_script_are_not_the_interpreters(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """`train.py -I` is hooked."""
    assert report(settings, capsys, sys.executable, "train.py", "-I")[0] == 0


@pytest.mark.parametrize("words", ["-WError", "-W IES", "-XI -u", "-mSIE -I", "--check-hash-based-pycs -I"])
def test_values_of_options_are_no_options(settings: Settings, capsys: pytest.CaptureFixture[str], words: str) -> None:
    """Whatever letters they have, beside their option or behind it."""
    code, text = report(settings, capsys, sys.executable, *words.split(), "train.py")
    assert code == 0, text


def test_a_program_that_is_only_named_like_a_python_is_not_run(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the command runs."""
    program = tmp_path / "trainer_python.sh"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    code, text = report(settings, capsys, str(program))
    assert code == 0
    assert "is no Python" in text
    assert not (tmp_path / "ran").exists()


def test_what_is_no_python_is_told_of_json_lines(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell may start a Python, though."""
    code, text = report(settings, capsys, "sh", "train.sh")
    assert code == 0
    assert "every Python that it starts is hooked" in text
    assert "--jsonl" in text


def test_a_command_that_is_not_there_is_one_error(settings: Settings) -> None:
    """As without --dry."""
    with pytest.raises(CommandError, match="no such command"):
        print_dry_run(["no-such-program"], settings)
