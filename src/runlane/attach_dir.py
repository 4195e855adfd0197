"""AttachDir: what one `runlane run` puts before every Python of its command, and where their slots are claimed.

A directory in the run directory, as long as the command runs: its `sitecustomize.py` leads to `workers/site_hook.py`.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from runlane.config import names
from runlane.config.settings import Settings
from runlane.transport.endpoint import make_run_dir
from runlane.workers.slot import ATTACHED_PREFIX, HOOKED_PREFIX, SLOT_PREFIX

PREFIX = "attach-"
HOOK_FILE = "sitecustomize.py"

UNHOOKED = """Nothing is recorded {when} of `{command}`.
No environment of Gymnasium, gym or PettingZoo was reset in it, and it did not attach by itself. Add three lines:
    from runlane.workers import attach
    lane = attach()
    lane.step(action, reward, terminated, truncated)  # after each step of your environment
or one, where there is an environment: env = runlane.workers.wrap(env)
`runlane run --dry -- COMMAND` says what would be hooked. A program that is not Python: `runlane run --jsonl`."""


class AttachDir:
    """Made on entering a `with`, removed with all that is in it on leaving."""

    def __init__(self, settings: Settings, *, is_hooking: bool) -> None:
        """Without `is_hooking` there are slots, for a script that arms by itself, and no hook."""
        self._settings = settings
        self._is_hooking = is_hooking

    def __enter__(self) -> Self:
        """Make it, and remove those that killed launchers have left."""
        parent = make_run_dir(self._settings)
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
        if self._is_hooking:
            (self.path / HOOK_FILE).symlink_to(_hook_file())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it. A Python that still runs has read it already."""
        shutil.rmtree(self.path, ignore_errors=True)

    def variables(self) -> dict[str, str]:
        """What the command is started with."""
        found = {names.ENV_ATTACH_DIR: str(self.path)}
        if self._is_hooking:
            others = os.environ.get("PYTHONPATH")
            found["PYTHONPATH"] = os.pathsep.join([str(self.path), *([others] if others else [])])
        return found

    def is_hooked(self) -> bool:
        """Whether a library is hooked in some process of the command: it may well be about to step."""
        return self._has(HOOKED_PREFIX)

    def is_attached(self) -> bool:
        """Whether some process of the command records."""
        return self._has(SLOT_PREFIX, ATTACHED_PREFIX)

    def _has(self, *prefixes: str) -> bool:
        with contextlib.suppress(OSError):
            return any(name.startswith(prefixes) for name in os.listdir(self.path))  # noqa: PTH208  names alone
        return False


def _hook_file() -> Path:
    return Path(sys.modules["runlane"].__file__ or "").parent / "workers" / "site_hook.py"


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)
