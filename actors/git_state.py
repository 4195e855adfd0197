"""What a directory's repository is like as a training starts: asked of git by whoever starts it, never by the training.

Git has a second for it in all. What it has not said by then, and what there is no git or no repository for, is left
out.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from runlane.config import names
from runlane.transport.git_head import git_head

PATIENCE_S = 1.0
# Nothing of the repository's own settings is run, and its index is not written.
_GIT = ("git", "-c", "core.fsmonitor=false", "--no-optional-locks")
_DIFF = (*_GIT, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv")
_UNTRACKED = (*_GIT, "ls-files", "--others", "--exclude-standard", "-z")


def git_state(directory: Path, patience_s: float = PATIENCE_S) -> dict[str, str | int]:
    """`commit`, `branch`, `dirty_bytes` (size of `git diff HEAD`) and `untracked` (number of files); or nothing."""
    found: dict[str, str | int] = {**git_head(directory)}
    if not found:
        return found
    deadline_s = time.monotonic() + patience_s
    counts: dict[str, tuple[tuple[str, ...], Callable[[bytes], int]]] = {
        "dirty_bytes": (_DIFF, len),
        "untracked": (_UNTRACKED, lambda output: output.count(b"\0")),
    }
    for name, (command, count) in counts.items():
        output = _output(command, directory, deadline_s - time.monotonic())
        if output is not None:
            found[name] = count(output)
    return found


def launch_facts() -> dict[str, str]:
    """What a command that is started in this directory is told of it: a variable, or none where nothing is known."""
    with contextlib.suppress(OSError):  # removed under our feet
        state = git_state(Path.cwd())
        if state:
            return {names.ENV_FACTS: json.dumps({"git": state})}
    return {}


def _output(command: tuple[str, ...], directory: Path, patience_s: float) -> bytes | None:
    """What it printed, or None: no such command, an error, or not in time."""
    if patience_s <= 0:
        return None
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, stdin=subprocess.DEVNULL,
            timeout=patience_s, check=True,
        )  # fmt: skip
        return done.stdout
    return None
