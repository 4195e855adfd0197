"""Which journals nobody drains: their reader's lock is free. Their workers may be dead or alive."""

from collections.abc import Iterator
from pathlib import Path

from runlane.config.errors import JournalError
from runlane.config.names import JOURNAL_DIR
from runlane.config.settings import Settings
from runlane.transport.endpoint import data_dir_of, is_role_alive
from runlane.transport.journal_layout import HEAD_FILE, READER_ROLE
from runlane.transport.journal_reader import JournalReader
from runlane.transport.messages import StreamInfo


def journals_dir(settings: Settings) -> Path:
    """Where the journals of a data directory lie."""
    return data_dir_of(settings) / JOURNAL_DIR


def orphan_directories(parent: Path) -> list[Path]:
    """Journals under `parent` that nobody drains, in order of their names. Damaged ones are set aside, and not here."""
    try:
        found = sorted(path for path in parent.iterdir() if len(path.name) == 32 and (path / HEAD_FILE).exists())
    except OSError:
        return []
    return [path for path in found if not is_role_alive(path, READER_ROLE)]


def orphan_journals(settings: Settings) -> Iterator[tuple[Path, StreamInfo]]:
    """Those of them that say whose they are."""
    for directory in orphan_directories(journals_dir(settings)):
        info = info_of(directory)
        if info is not None:
            yield directory, info


def info_of(directory: Path) -> StreamInfo | None:
    """The stream a journal holds, by its newest segment; None when that cannot be read."""
    reader = JournalReader(directory)
    try:
        reader.seek_newest()
    except (JournalError, OSError):
        return None
    finally:
        reader.close()
    return reader.info
