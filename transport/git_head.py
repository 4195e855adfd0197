"""Commit and branch of the repository a directory lies in, read from git's own files: no process is started.

What a training process may do by itself. How much has changed since is asked of git, by whoever starts a training.
"""

import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_BRANCHES = "refs/heads/"


def git_head(directory: Path) -> dict[str, str]:
    """`commit` and `branch`, as far as they are known: a detached head has no branch, a new repository no commit.

    Empty outside of a repository, and where its files are not what they should be. Never raises.
    """
    try:
        place = _git_dir(directory.absolute())
        return {} if place is None else _read(place)
    except (OSError, ValueError):
        return {}


def _git_dir(directory: Path) -> Path | None:
    """The repository's own directory; of a worktree or a submodule it is elsewhere, and a file says where."""
    for parent in (directory, *directory.parents):
        found = parent / ".git"
        if found.is_dir():
            return found
        if found.is_file():
            said, _, path = found.read_text("utf-8").strip().partition(": ")
            return parent / path if said == "gitdir" else None
    return None


def _read(place: Path) -> dict[str, str]:
    head = (place / "HEAD").read_text("utf-8").strip()
    if not head.startswith("ref: "):
        return {"commit": head} if _COMMIT.fullmatch(head) else {}
    ref = head.removeprefix("ref: ")
    if ref == "refs/heads/.invalid":  # the refs are in a form that we do not read
        return {}
    commit = _commit_of(place, ref)
    return ({"commit": commit} if commit else {}) | {"branch": ref.removeprefix(_BRANCHES)}


def _commit_of(place: Path, ref: str) -> str:
    common = place / "commondir"  # a worktree has a head of its own, and shares the branches
    home = place / common.read_text("utf-8").strip() if common.is_file() else place
    loose = home / ref
    if loose.is_file():
        text = loose.read_text("utf-8").strip()
        return text if _COMMIT.fullmatch(text) else ""
    packed = home / "packed-refs"
    if packed.is_file():
        for line in packed.read_text("utf-8").splitlines():
            commit, _, name = line.partition(" ")
            if name == ref and _COMMIT.fullmatch(commit):
                return commit
    return ""
