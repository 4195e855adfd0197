"""A spool: what a program of another language has written and the journal has not yet taken over.

A directory of its own, `<data_dir>/spools/<id>/`. The launcher makes it, the program appends to `out.jsonl`, one
bridge at a time reads it and removes the directory once all is recorded. A file, not a pipe: writing never blocks,
and what was written is the kernel's, whoever dies.

    info.json       whose it is: `SpoolInfo`                                     written by the launcher
    end.json        how the program ended: `SpoolEnd`; not there while it lives  written by the launcher
    out.jsonl       what it has written; read space is given back as holes       written by the program
    place           how far the bridge is (`workers/jsonl_place.py`)             written by the bridge
    STREAM.head     the head of the bridge's journal, by a second name           made by the bridge
    launcher.lock, bridge.lock
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from runlane.config.errors import SpoolError
from runlane.config.names import SPOOL_DIR
from runlane.config.settings import Settings
from runlane.transport.endpoint import data_dir_of, is_role_alive
from runlane.transport.messages import Name
from runlane.transport.records import RunState

LAUNCHER_ROLE = "launcher"
BRIDGE_ROLE = "bridge"
INFO_FILE = "info.json"
END_FILE = "end.json"
OUT_FILE = "out.jsonl"
PLACE_FILE = "place"
HEAD_SUFFIX = ".head"
DAMAGED_SUFFIX = ".damaged"
# What a bridge ends with that cannot read its spool on, however often it is started.
UNREADABLE_CODE = 70  # EX_SOFTWARE
# A launcher says whose a spool is within milliseconds; a bridge that is killed as it removes one leaves less.
HALF_MADE_S = 10.0


class SpoolInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Whose spool it is. `path` is the program's own file, empty where `out.jsonl` is read; `offset` where to begin.

    `pid` and `started` are the program's, as in a ring's head; 0 while it is being started. `fifo` is the named pipe
    that is copied into `out.jsonl`.
    """

    run: Name
    worker: Name
    run_name: str = ""
    command: str = ""
    source: str = ""
    path: str = ""
    fifo: str = ""
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    pid: Annotated[int, msgspec.Meta(ge=0)] = 0
    started: Annotated[int, msgspec.Meta(ge=0)] = 0
    is_resumed: bool = False


class SpoolEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How the program ended."""

    state: RunState
    exit_code: int | None = None
    error: str = ""


Stored = TypeVar("Stored", SpoolInfo, SpoolEnd)


def spools_dir(settings: Settings) -> Path:
    """Where the spools of a data directory lie."""
    return data_dir_of(settings) / SPOOL_DIR


def make_spool(settings: Settings) -> Path:
    """A new, empty spool directory."""
    directory = spools_dir(settings) / secrets.token_hex(8)
    directory.mkdir(mode=0o700, parents=True)
    return directory


def write_info(directory: Path, info: SpoolInfo) -> None:
    """Say whose it is; whole or not at all."""
    _write(directory / INFO_FILE, info)


def write_end(directory: Path, end: SpoolEnd) -> None:
    """Say how the program ended, so that the bridge reads to the end of the file and ends, too."""
    _write(directory / END_FILE, end)


def read_info(directory: Path) -> SpoolInfo:
    """Whose it is; raises `SpoolError`."""
    found = _read(directory / INFO_FILE, SpoolInfo)
    if found is None:
        raise SpoolError(f"{directory}: no spool of runlane, it has no {INFO_FILE}")
    return found


def read_end(directory: Path) -> SpoolEnd | None:
    """How the program ended; None while nobody has said so. Raises `SpoolError`."""
    return _read(directory / END_FILE, SpoolEnd)


def is_program_alive(directory: Path, info: SpoolInfo) -> bool:
    """Whether the program may still write: its process lives, or somebody holds the lock it has inherited."""
    if info.pid and process_started(info.pid) == info.started:
        return True
    if info.path or info.fifo:
        return False
    return is_written(directory / OUT_FILE)


def process_started(pid: int) -> int:
    """When a running process began, in the kernel's ticks since boot; 0 when there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return 0 if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def is_written(path: Path) -> bool:
    """Whether any process has the spool open as the program's output: all of them share one lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def orphan_spools(settings: Settings) -> Iterator[tuple[Path, SpoolInfo]]:
    """Spools with neither launcher nor bridge. Their programs may be alive or dead."""
    try:
        found = sorted(spools_dir(settings).iterdir())
    except OSError:
        return
    for directory in found:
        if directory.name.endswith(DAMAGED_SUFFIX):
            continue
        with contextlib.suppress(SpoolError, OSError):
            if not (is_role_alive(directory, LAUNCHER_ROLE) or is_role_alive(directory, BRIDGE_ROLE)):
                yield directory, read_info(directory)


def sweep_half_made(settings: Settings, now_s: float) -> None:
    """Remove spools that say nothing of themselves and whose launchers are dead. `now_s` is that of files' times."""
    with contextlib.suppress(OSError):
        for directory in spools_dir(settings).iterdir():
            if directory.name.endswith(DAMAGED_SUFFIX):
                continue
            is_old = now_s - directory.stat().st_mtime > HALF_MADE_S
            if is_old and not (directory / INFO_FILE).exists() and not is_role_alive(directory, LAUNCHER_ROLE):
                remove_spool(directory)


def set_aside(directory: Path) -> Path:
    """Keep a spool that no bridge can read on under another name, where nobody tries again; returns its place."""
    kept = directory.with_name(directory.name + DAMAGED_SUFFIX)
    with contextlib.suppress(OSError):
        directory.rename(kept)
    return kept


def remove_spool(directory: Path) -> None:
    """All of it is recorded. What says whose it is goes first: without it there is nothing to do twice."""
    (directory / INFO_FILE).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _write(path: Path, value: SpoolInfo | SpoolEnd) -> None:
    partial = path.with_suffix(".part")
    partial.write_bytes(msgspec.json.encode(value))
    partial.replace(path)


def _read(path: Path, kind: type[Stored]) -> Stored | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpoolError(f"{path}: {error}; remove its directory if nothing of it is needed") from None
