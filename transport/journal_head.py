"""JournalHead: the few words that a journal's writer and its reader share. Each word has one writer.

Words are aligned and stored whole; nothing is lost if one is read a moment too early. They outlive `kill -9` of
both sides like any other page of the file.
"""

import contextlib
import fcntl
import mmap
import os
from pathlib import Path
from typing import Self

import msgspec

from runlane.config.errors import JournalError, WireError
from runlane.config.names import KINDS
from runlane.transport.journal_layout import (
    ACKED,
    CLOSED,
    HEAD_BYTES,
    HEAD_FILE,
    HEAD_PART,
    PUBLISHED,
    TELLING,
    UNTOLD,
    decode_head,
    decode_head_info,
    encode_head,
)
from runlane.transport.messages import StreamInfo
from runlane.transport.wire import pack, unpack


class JournalHead:
    """A mapped head file. `make` is for the worker, which holds the writer's lock from then on; `open` for readers."""

    def __init__(self, fd: int) -> None:
        """Map an open head file; the descriptor is ours from here on. Raises `JournalError` when it is no head."""
        self._fd = fd
        try:
            self._map = mmap.mmap(fd, HEAD_BYTES)
        except (OSError, ValueError) as error:
            os.close(fd)
            raise JournalError(f"the head cannot be mapped: {error}") from None
        try:
            self.stream = decode_head(self._map[:HEAD_BYTES])
        except JournalError:
            self._map.close()
            os.close(fd)
            raise
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def make(cls, directory: Path, stream: bytes, created_ns: int, info: StreamInfo | None = None) -> Self:
        """Make and lock the head of a new journal, so that nobody sees it without its living writer.

        `info` says whose it is until a segment does, which on a full disk may be never.
        Raises `OSError` when there is no room or no right, `JournalError` when the journal exists already.
        """
        path = directory / HEAD_FILE
        part = directory / HEAD_PART
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, HEAD_BYTES)
            packed = b"" if info is None else pack(msgspec.to_builtins(info))
            os.pwrite(fd, encode_head(stream, created_ns, packed), 0)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                os.link(part, path)
            except FileExistsError:
                raise JournalError(f"{directory} has a writer already, or had one: a stream has only one") from None
            finally:
                part.unlink()
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Map the head of an existing journal; raises `JournalError`, `FileNotFoundError` when there is none."""
        return cls(os.open(directory / HEAD_FILE, os.O_RDWR | os.O_CLOEXEC))

    @property
    def is_writer_alive(self) -> bool:
        """Whether the worker lives. Not for the worker's own head, which has the lock."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask at once are no writers
        except OSError:
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    @property
    def info(self) -> StreamInfo | None:
        """Whose journal it is, as known when it was made; None when that is not in it, or unreadable."""
        packed = decode_head_info(self._map[:HEAD_BYTES])
        with contextlib.suppress(WireError, msgspec.ValidationError):
            return msgspec.convert(unpack(packed), StreamInfo) if packed else None
        return None

    @property
    def published(self) -> int:
        """Newest seq a reader may take while the writer lives."""
        return self._words[PUBLISHED]

    @published.setter
    def published(self, seq: int) -> None:
        self._words[PUBLISHED] = seq

    @property
    def closed(self) -> int:
        """Last seq of a stream that was closed; 0 while it is open."""
        return self._words[CLOSED]

    @closed.setter
    def closed(self, seq: int) -> None:
        self._words[CLOSED] = seq

    @property
    def acked(self) -> int:
        """Everything up to this seq is committed."""
        return self._words[ACKED]

    @acked.setter
    def acked(self, seq: int) -> None:
        self._words[ACKED] = seq

    def count_untold(self, kind: str, records: int = 1) -> None:
        """Note records dropped, here where a kill cannot lose the count; a drop record will tell it."""
        self._words[UNTOLD + KINDS.index(kind)] += records

    def begin_to_tell(self, kind: str, seq: int) -> int:
        """The record with this seq is about to tell what was dropped of a kind: so many."""
        index = KINDS.index(kind)
        self._words[TELLING + index] = seq
        return self._words[UNTOLD + index]

    def have_told(self, kind: str) -> None:
        """It is in the journal."""
        index = KINDS.index(kind)
        self._words[UNTOLD + index] = 0
        self._words[TELLING + index] = 0

    def untold(self, last_seq: int) -> dict[str, int]:
        """Dropped records by kind that no drop record up to `last_seq`, the last one in the journal, has told."""
        found: dict[str, int] = {}
        for index, kind in enumerate(KINDS):
            records, telling = self._words[UNTOLD + index], self._words[TELLING + index]
            if records and not 0 < telling <= last_seq:
                found[kind] = records
        return found

    def close(self) -> None:
        """Unmap; the writer's lock goes with it. Again: nothing.

        A forked child must call this on its parent's head: the lock is of the open file, which both have.
        """
        if self._fd >= 0:
            self._words.release()
            self._map.close()
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
