"""What is read ends with the program, whoever goes on writing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runlane.transport.spool import OUT_FILE
from runlane.workers.jsonl_file import LineFile
from runlane.workers.jsonl_lines import Line, LogLine, NotTaken
from runlane.workers.jsonl_pipe import MOST_BYTES, PipeCopier

LINE = b'{"kind":"log","text":"x"}\n'
WRITE_BYTES = 4096


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize(("half", "count"), [(b"", 3), (b'{"kind":', 4)])
def test_what_is_written_behind_the_end_is_not_read(tmp_path: Path, half: bytes, count: int) -> None:
    """What was there is, with the half line before the end; the next chunk, and the rest of that line, are not."""
    path = tmp_path / OUT_FILE
    _append(path, LINE * 3 + half)
    file = LineFile(path)
    file.end_here()
    found: list[Line] = []
    while (lines := file.read()) is not None:
        _append(path, LINE * 5)  # as a child left behind, at each look
        found += lines
        assert len(found) < 100
    found += file.read_last()
    file.close()
    assert found[:3] == [LogLine("x")] * 3
    assert len(found) == count
    assert not half or isinstance(found[3], NotTaken)


def test_the_end_of_a_file_that_is_not_there_is_its_beginning(tmp_path: Path) -> None:
    """Made later by somebody else, it is not read."""
    file = LineFile(tmp_path / OUT_FILE)
    file.end_here()
    _append(file.path, LINE)
    assert file.read() is None
    assert file.read_last() == []
    file.close()


def test_a_pipe_is_drained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a writer that fills it as fast as it is emptied no more is moved than was in it as the copier ended."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    copier = PipeCopier(fifo, tmp_path / OUT_FILE, tmp_path / "lock")
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, bytes(WRITE_BYTES))
    splice: Callable[..., int] = os.splice
    moved: list[int] = []

    def splice_and_write(*arguments: object, **options: object) -> int:
        moved.append(splice(*arguments, **options))
        if len(moved) < 100:
            os.write(writer, bytes(WRITE_BYTES))
        return moved[-1]

    monkeypatch.setattr(os, "splice", splice_and_write)
    copier._over.set()  # pyright: ignore[reportPrivateUsage]
    copier.start()
    copier.stop()
    os.close(writer)
    assert sum(moved) == (tmp_path / OUT_FILE).stat().st_size == WRITE_BYTES < MOST_BYTES
