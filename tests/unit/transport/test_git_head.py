"""git_head(): commit and branch from git's own files, as git itself says them, and never an error."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runlane.transport.git_head import git_head

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed: apt-get install git")
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git in a new repository with one commit, on a branch with a slash in its name; no settings but ours."""
    for name, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    repository = tmp_path / "repository"
    repository.mkdir()

    def run(*arguments: str, directory: Path = repository) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q", "-b", "try/one")
    (repository / "file").write_text("text\n")
    run("add", "file")
    run("commit", "-q", "-m", "first")
    return run


def test_a_branch_is_read_as_git_says_it(git: Git, tmp_path: Path) -> None:
    """From any directory below, from loose files and from packed ones."""
    wanted = {"commit": git("rev-parse", "HEAD"), "branch": "try/one"}
    below = tmp_path / "repository" / "a" / "b"
    below.mkdir(parents=True)
    assert git_head(below) == wanted
    git("pack-refs", "--all")
    assert not (tmp_path / "repository/.git/refs/heads/try/one").exists()
    assert git_head(below) == wanted


def test_a_worktree_has_a_head_of_its_own(git: Git, tmp_path: Path) -> None:
    """And shares the branches of its repository."""
    other = tmp_path / "other"
    git("worktree", "add", "-q", "-b", "second", str(other))
    git("commit", "-q", "--allow-empty", "-m", "more", directory=other)
    assert git_head(other) == {"commit": git("rev-parse", "second"), "branch": "second"}
    assert git_head(tmp_path / "repository") == {"commit": git("rev-parse", "try/one"), "branch": "try/one"}


def test_a_detached_head_has_no_branch_and_a_new_repository_no_commit(git: Git, tmp_path: Path) -> None:
    """What is not there is not made up."""
    commit = git("rev-parse", "HEAD")
    git("checkout", "-q", "--detach")
    assert git_head(tmp_path / "repository") == {"commit": commit}
    new = tmp_path / "new"
    new.mkdir()
    git("init", "-q", "-b", "begin", directory=new)
    assert git_head(new) == {"branch": "begin"}


@pytest.mark.parametrize("head", [None, b"", b"\xff\xfe", b"hello\n", b"ref: refs/heads/.invalid\n"])
def test_a_repository_that_is_none_says_nothing(tmp_path: Path, head: bytes | None) -> None:
    """Training goes on without the fact."""
    (tmp_path / ".git").mkdir()
    if head is not None:
        (tmp_path / ".git" / "HEAD").write_bytes(head)
    assert git_head(tmp_path) == {}


def test_outside_of_a_repository_there_is_nothing(tmp_path: Path) -> None:
    """Nor in a directory that is gone."""
    assert git_head(tmp_path / "gone") == {}
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert git_head(tmp_path) == {}
