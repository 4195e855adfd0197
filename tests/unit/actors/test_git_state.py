"""git_state(): what git says of a directory, within its time; a fact that is missing stops nothing."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from runlane.actors.git_state import git_state, launch_facts
from runlane.config import names

GIT = shutil.which("git") or ""
pytestmark = pytest.mark.skipif(not GIT, reason="git is not installed: apt-get install git")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit on `main`, nothing changed."""
    for name, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "file").write_text("one\n")
    for line in ("init -q -b main", "add file", "-c user.name=a -c user.email=a@b commit -q -m first"):
        subprocess.run([GIT, *line.split()], cwd=tmp_path, check=True)
    return tmp_path


def test_what_has_changed_is_told_by_size(repository: Path) -> None:
    """Zero for a clean one; then as many bytes as `git diff HEAD` prints, and the files git does not know."""
    clean = git_state(repository)
    assert len(str(clean.pop("commit"))) == 40
    assert clean == {"branch": "main", "dirty_bytes": 0, "untracked": 0}
    (repository / "file").write_text("two\n")
    (repository / "new one").write_text("")
    (repository / "another").write_text("")
    diff = subprocess.run([GIT, "diff", "HEAD"], cwd=repository, check=True, capture_output=True).stdout
    found = git_state(repository)
    assert (found["dirty_bytes"], found["untracked"]) == (len(diff), 2)
    assert len(diff) > 0


def test_a_git_that_takes_too_long_or_is_not_there_leaves_commit_and_branch(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those are read without it."""
    assert set(git_state(repository, 0.0)) == {"commit", "branch"}
    monkeypatch.setenv("PATH", str(repository))
    assert set(git_state(repository)) == {"commit", "branch"}


def test_a_git_that_hangs_is_given_up(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a training waits no longer than it was told."""
    slow = repository / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:/usr/bin:/bin")
    assert set(git_state(repository, 0.1)) == {"commit", "branch"}


def test_a_command_is_told_as_a_variable(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a repository; else there is none."""
    monkeypatch.chdir(repository)
    assert json.loads(launch_facts()[names.ENV_FACTS]) == {"git": git_state(repository)}
    shutil.rmtree(repository / ".git")
    assert launch_facts() == {}
