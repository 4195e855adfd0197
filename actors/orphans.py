"""Which journals nobody drains: their reader's lock is free. Their workers may be dead or alive."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from runlane.actors.relay import remove_journal
from runlane.config.errors import JournalError
from runlane.config.names import JOURNAL_DIR
from runlane.config.settings import Settings
from runlane.transport.endpoint import data_dir_of, is_role_alive
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import (
    HEAD_FILE,
    HEAD_PART,
    READER_ROLE,
    SEGMENT_HEADER_BYTES,
    decode_segment_header,
    segment_numbers,
    segment_path,
)
from runlane.transport.journal_reader import JournalReader, has_begun
from runlane.transport.messages import StreamInfo

LOOK_S = 1.0
# A worker makes its journal within milliseconds: what has been half made for so long has lost its maker.
HALF_MADE_S = 10.0
PATIENCE_S = 3.0


def journals_dir(settings: Settings) -> Path:
    """Where the journals of a data directory lie."""
    return data_dir_of(settings) / JOURNAL_DIR


def orphan_directories(parent: Path) -> list[Path]:
    """Journals under `parent` that nobody drains, in order of their names. Damaged ones are set aside, and not here."""
    try:
        found = sorted(path for path in parent.iterdir() if is_journal(path))
    except OSError:
        return []
    return [path for path in found if not is_role_alive(path, READER_ROLE) and not _is_empty(path)]


def _is_empty(directory: Path) -> bool:
    """Whether nothing was ever in it: it is just being made, or its worker or its reader died before that was done."""
    if has_begun(directory):
        return False
    try:
        head = JournalHead.open(directory)
    except (JournalError, OSError):
        return not segment_numbers(directory)
    is_empty = not head.untold(0) and (head.published == 0 or not segment_numbers(directory))
    is_alive = head.is_writer_alive
    head.close()
    if is_empty and not is_alive:
        remove_journal(directory)
        with contextlib.suppress(OSError):
            directory.rmdir()
    return is_empty


def sweep_half_made(parent: Path, now_s: float) -> None:
    """Remove what workers left that were killed between making the directory and the head in it.

    `now_s` is in seconds since the epoch, as files' times are.
    """
    with contextlib.suppress(OSError):
        for directory in parent.iterdir():
            if not _has_name(directory) or now_s - directory.stat().st_mtime < HALF_MADE_S:
                continue
            if [path.name for path in directory.iterdir()] in ([], [HEAD_PART]):
                (directory / HEAD_PART).unlink(missing_ok=True)
                directory.rmdir()


def is_journal(directory: Path) -> bool:
    """Whether a directory has the name and the files of a journal."""
    return _has_name(directory) and ((directory / HEAD_FILE).exists() or bool(segment_numbers(directory)))


def _has_name(directory: Path) -> bool:
    return len(directory.name) == 32 and set(directory.name) <= set("0123456789abcdef")


def mend_head(directory: Path) -> None:
    """Give a journal without a readable head a new one: what it said of acks is lost, and the database knows better.

    A damaged head is kept beside it. Leaves a journal alone that has no readable segment either.
    """
    try:
        JournalHead.open(directory).close()
    except (JournalError, OSError):
        for number in segment_numbers(directory):
            try:
                with segment_path(directory, number).open("rb") as file:
                    header = decode_segment_header(file.read(SEGMENT_HEADER_BYTES))
            except (JournalError, OSError):
                continue
            if not header.first_seq:
                continue
            with contextlib.suppress(FileNotFoundError):
                (directory / HEAD_FILE).rename(directory / f"{HEAD_FILE}.damaged")
            head = JournalHead.make(directory, header.stream, 0)
            head.acked = max(0, header.first_seq - 1)  # older segments are deleted only when they are acked
            head.close()
            return


def is_worker_alive(directory: Path) -> bool:
    """Whether a journal's worker lives; of one without a readable head nobody could tell."""
    try:
        head = JournalHead.open(directory)
    except (JournalError, OSError):
        return False
    is_alive = head.is_writer_alive
    head.close()
    return is_alive


def is_beyond_reading(directory: Path) -> bool:
    """Whether a dead worker's journal does not even say whose it was, and never will: no fault of the system's."""
    reader = JournalReader(directory)
    try:
        with contextlib.suppress(JournalError):
            reader.seek_newest()
    except OSError:
        return False
    finally:
        reader.close()
    return (reader.info or _info_of_head(directory)) is None and not is_worker_alive(directory)


def living_workers(parent: Path, run: str) -> list[str]:
    """Workers of a run that live on this host and have a journal, drained by somebody or not."""
    try:
        found = [info_of(path) for path in sorted(parent.iterdir()) if is_journal(path) and is_worker_alive(path)]
    except OSError:
        return []
    return [info.worker for info in found if info is not None and info.run == run]


def orphan_journals(settings: Settings) -> Iterator[tuple[Path, StreamInfo]]:
    """Those of them that say whose they are."""
    for directory in orphan_directories(journals_dir(settings)):
        info = info_of(directory)
        if info is not None:
            yield directory, info


def info_of(directory: Path) -> StreamInfo | None:
    """The stream a journal holds, by its newest segment or else its head; None when neither says."""
    reader = JournalReader(directory)
    with contextlib.suppress(JournalError, OSError):
        reader.seek_newest()
    reader.close()
    return reader.info or _info_of_head(directory)


def _info_of_head(directory: Path) -> StreamInfo | None:
    try:
        head = JournalHead.open(directory)
    except (JournalError, OSError):
        return None
    info = head.info
    head.close()
    return info


class OrphanWatch:
    """Tells the supervisor when journals have no reader for so long that their proxies will not come back."""

    def __init__(self, settings: Settings) -> None:
        """At its first look every orphan counts: it was left by a graph before this one."""
        self._parent = journals_dir(settings)
        self._next_look_s = 0.0
        self._since_s: dict[Path, float] | None = None

    def look(self, now_s: float) -> bool:
        """Whether there is something to recover. Time is an argument."""
        if now_s < self._next_look_s:
            return False
        self._next_look_s = now_s + LOOK_S
        known = self._since_s
        if known is None:  # what is left later waits for the next graph: it holds nothing
            sweep_half_made(self._parent, time.time())
        found = orphan_directories(self._parent)
        self._since_s = {path: (known or {}).get(path, now_s) for path in found}
        if known is None:
            return bool(found)
        return any(now_s - since_s >= PATIENCE_S for since_s in self._since_s.values())
