"""Slots: which of the environments of one command this one is. Handed out exactly once, in whatever process it lives.

A slot is a file that only one can make (O_EXCL) in the directory that `runlane run` made for its command.
"""

import contextlib
import os
from pathlib import Path

from runlane.config.names import ENV_ATTACH_DIR

MAX_SLOTS = 65_536
SLOT_PREFIX = "slot-"
ATTACHED_PREFIX = "attached-"
HOOKED_PREFIX = "hooked-"
_own: set[int] = set()  # where no launcher made a directory, one process counts for itself


def claim_slot() -> int:
    """The lowest slot that is free; ours until this command ends."""
    directory = os.environ.get(ENV_ATTACH_DIR)
    for slot in range(MAX_SLOTS):
        if not directory or not Path(directory).is_dir():
            if slot not in _own:
                _own.add(slot)
                return slot
            continue
        with contextlib.suppress(FileExistsError):
            _make(Path(directory) / f"{SLOT_PREFIX}{slot}")
            return slot
    raise OSError(f"{MAX_SLOTS} environments of one command have a slot already; close some")


def note_attached() -> None:
    """Let the launcher see that this process records, by whatever way."""
    directory = os.environ.get(ENV_ATTACH_DIR)
    if directory:
        with contextlib.suppress(OSError):
            _make(Path(directory) / f"{ATTACHED_PREFIX}{os.getpid()}")


def note_hooked() -> None:
    """Let the launcher see that a library is hooked in this process, though nothing may have been stepped yet."""
    directory = os.environ.get(ENV_ATTACH_DIR)
    if directory:
        with contextlib.suppress(OSError):
            _make(Path(directory) / f"{HOOKED_PREFIX}{os.getpid()}")


def _make(path: Path) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # a full disk: the name is what counts
        os.write(descriptor, f"{os.getpid()}\n".encode())
    os.close(descriptor)
