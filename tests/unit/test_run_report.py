"""`runlane run`: which name a command gives its run, which source it takes, and what it says of nothing recorded."""

from pathlib import Path

import pytest

from runlane.run_report import name_of, remedy_of_nothing
from runlane.workers.foreign_program import SourceError, check_source


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python train.py --lr 1", "train"),
        ("python -m runlane.workers.godot --steps 5", "godot"),
        ("python -u -m pkg.__main__", "pkg"),
        ("python -m runlane.workers.cleanrl ppo.py", "cleanrl"),
        ("sh walk.sh", "walk"),
        ("/bin/sh -e walk.sh fast", "walk"),
        ("./engine walk.sh", "engine"),
        ("sh -c walk", "sh"),
        ("sh", "sh"),
    ],
)
def test_a_run_is_named_after_what_runs(
    command: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the interpreter of it."""
    monkeypatch.chdir(tmp_path)
    Path("walk.sh").touch()
    assert name_of(command.split()) == expected


@pytest.mark.parametrize("source", ["fd:3x", "fd:", "fd:9999999", "/no/dir/x", "/tmp", "", "stderr", "stdin"])
def test_what_cannot_be_a_source_is_a_wrong_option(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, the source quoted, and what to give instead."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="give stdout, fd:N, or the path") as caught:
        check_source(source)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"--jsonl {source!r}: ")


@pytest.mark.parametrize("source", ["stdout", "fd:3", "lane", "./stderr", "steps.jsonl"])
def test_what_can_be_a_source_is_taken(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare word where there is a file of that name."""
    monkeypatch.chdir(tmp_path)
    Path("lane").touch()
    assert check_source(source) == source


@pytest.mark.parametrize(
    ("code", "is_hooking", "jsonl", "said"),
    [
        (0, True, "", "--dry"),
        (0, False, "", "drop --no-hook"),
        (0, True, "fd:3", "no JSON line to fd:3"),
        (3, True, "", "ended with code 3"),
        (3, False, "", "ended with code 3"),
    ],
)
def test_what_helps_where_nothing_was_recorded(code: int, is_hooking: bool, jsonl: str, said: str) -> None:
    """Only what would change it: a command that fails says itself why."""
    remedy = remedy_of_nothing(code, is_hooking=is_hooking, jsonl=jsonl)
    assert said in remedy
    assert ("--dry" in remedy) == (said == "--dry")
