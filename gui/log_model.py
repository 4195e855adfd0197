"""LogModel: lines of the actors' log files and log records of the workers, filtered. No Qt.

Log files are read by `tail`, which belongs to the background thread; everything else to the window's.
"""

import os
import re
import stat
import time
from calendar import timegm
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runlane.config.log_ids import REGISTRY
from runlane.transport.messages import StreamInfo
from runlane.transport.records import LogRecord

KEPT_LINES = 10_000
MAX_TEXT = 2_000
LATE_S = 2.0  # clocks of two processes, and the second between two looks at the files, are no disorder
MAX_FILES = 256
FIRST_BYTES = 64 << 10  # of a file that is seen for the first time, its end
READ_BYTES = 256 << 10  # of one file in one look; the rest comes in the next
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_RANKS = {"DEBUG": 0, "INFO": 1, "WARNING": 2, "WARN": 2, "ERROR": 3, "CRITICAL": 3}

# As `transport/log.py` writes: UTC time, level, process, then a log id and facts.
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z (\w+) +(\S+) (.*)", re.DOTALL)
_RUN = re.compile(r"\brun=(\S+)")


class LogLine(NamedTuple):
    """One line. `log_id` is empty for text of other origin; `run` an id, or empty; `t_s` wall-clock seconds."""

    t_s: float
    level: str
    process: str
    log_id: str
    text: str
    run: str = ""

    @property
    def plain(self) -> str:
        """The line as it is copied."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.t_s))
        words = (f"{clock}.{int(self.t_s % 1 * 1000):03d}Z", f"{self.level:<7}", self.process, self.log_id, self.text)
        return " ".join(word for word in words if word)


def rank_of(level: str) -> int:
    """How grave a level is, 0 to 3; what is unknown counts as INFO."""
    return _RANKS.get(level.upper(), 1)


def parse_line(text: str, process: str, before: LogLine | None, t_s: float) -> LogLine:
    """One line of a log file. What is no line of ours, as of a traceback, goes on where `before` is, or at `t_s`."""
    match = _LINE.match(text[:MAX_TEXT])
    if match is None:
        level = before.level if before is not None else "INFO"
        return LogLine(before.t_s if before is not None else t_s, level, process, "", text[:MAX_TEXT])
    clock, thousandths, level, name, rest = match.groups()
    head, _, facts = rest.partition(" ")
    is_ours = head in REGISTRY
    at_s = timegm(time.strptime(clock, "%Y-%m-%dT%H:%M:%S")) + int(thousandths) / 1000
    run = _RUN.search(rest)
    return LogLine(
        at_s, level, name, head if is_ours else "", facts if is_ours else rest, "" if run is None else run.group(1)
    )


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What is shown. Empty means all; `text` is looked for in id, process and text, in any case."""

    log_id: str = ""
    level: str = "DEBUG"
    process: str = ""
    run: str = ""
    text: str = ""

    def passes(self, line: LogLine) -> bool:
        """Whether a line is shown."""
        if rank_of(line.level) < rank_of(self.level):
            return False
        if self.log_id and line.log_id != self.log_id:
            return False
        if self.process and line.process != self.process:
            return False
        if self.run and line.run != self.run:
            return False
        return not self.text or self.text.lower() in f"{line.log_id} {line.process} {line.text}".lower()


class LogModel:
    """The newest `KEPT_LINES` lines, in the order in which they came. One thread owns it, `tail` excepted."""

    def __init__(self) -> None:
        """No line yet."""
        self.lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self.total = 0  # lines that ever came: the newest has this number, the oldest kept `total - len(lines) + 1`
        self.generation = 0  # grows whenever lines took another place: what was shown is to be shown anew
        self.run_names: dict[str, str] = {}  # of the runs among the lines, by id
        self.tail = LogTail()

    @property
    def processes(self) -> list[str]:
        """Whose lines there are, sorted."""
        return sorted({line.process for line in self.lines})

    @property
    def runs(self) -> list[tuple[str, str]]:
        """Id and name of runs that lines are about."""
        found = dict.fromkeys(line.run for line in self.lines if line.run)
        return [(run, self.run_names.get(run, run)) for run in found]

    def add_lines(self, lines: Sequence[LogLine]) -> None:
        """Take in what `tail` found, in order of time: a file is read later than it is written."""
        is_late = bool(lines and self.lines) and lines[0].t_s < self.lines[-1].t_s - LATE_S
        self.lines.extend(lines)
        self.total += len(lines)
        if is_late:
            self.lines = deque(sorted(self.lines, key=lambda line: line.t_s), maxlen=KEPT_LINES)
            self.generation += 1

    def add_record(self, record: LogRecord, info: StreamInfo) -> None:
        """Append a worker's line."""
        head, _, rest = record.text.partition(" ")
        is_ours = head in REGISTRY
        text = (rest if is_ours else record.text)[:MAX_TEXT]
        if info.run_name and (info.run in self.run_names or len(self.run_names) < KEPT_LINES):
            self.run_names[info.run] = info.run_name
        line = LogLine(record.t_ns / 1e9, record.level.upper(), info.worker, head if is_ours else "", text, info.run)
        self.lines.append(line)
        self.total += 1

    def since(self, number: int, only: LogFilter) -> list[LogLine]:
        """Lines that came after the one with this number and pass; 0 for all."""
        count = min(len(self.lines), self.total - number)
        if count <= 0:
            return []
        skipped = len(self.lines) - count
        return [line for index, line in enumerate(self.lines) if index >= skipped and only.passes(line)]


@dataclass(slots=True)
class _File:
    """How far one file was read. `inode` tells it from another of the same name; `rest` is a line without its end.

    `is_cut`: reading began somewhere in a line.
    """

    inode: int
    offset: int
    is_cut: bool
    rest: bytes = b""
    last: LogLine | None = None


class LogTail:
    """Follows `*.log` in a directory. Rotation (another file of that name) and truncation begin it anew."""

    def __init__(self) -> None:
        self.left_out = 0  # files that are not read: `MAX_FILES` are, those written to last
        self._files: dict[Path, _File] = {}

    def read(self, directory: Path) -> list[LogLine]:
        """What has come since the last call, files merged by time. A directory or file that is not there has no lines.

        Blocks on the disk: for a background thread, one call at a time.
        """
        written_s = _log_files(directory)
        for path in self._files.keys() - written_s.keys():
            del self._files[path]  # of one that is left out is remembered how far it was read
        paths = sorted(written_s, key=lambda path: (-written_s[path], path))[:MAX_FILES]
        self.left_out = len(written_s) - len(paths)
        found: list[LogLine] = []
        for path in paths:
            try:
                found += self._read_file(path)
            except OSError:
                self._files.pop(path, None)
        return sorted(found, key=lambda line: line.t_s)

    def _read_file(self, path: Path) -> Iterable[LogLine]:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            known = self._files.get(path)
            if known is None:
                offset = max(0, status.st_size - FIRST_BYTES)
                known = self._files[path] = _File(status.st_ino, offset, offset > 0)
            elif known.inode != status.st_ino or status.st_size < known.offset:
                known = self._files[path] = _File(status.st_ino, 0, is_cut=False)
            stream.seek(known.offset)
            data = stream.read(READ_BYTES)
            known.offset += len(data)
        *lines, known.rest = (known.rest + data).split(b"\n")
        if len(known.rest) > READ_BYTES:  # a line that does not end
            lines, known.rest = [*lines, known.rest], b""
        if known.is_cut and lines:
            known.is_cut = False
            del lines[0]  # only its end was read
        found: list[LogLine] = []
        for raw in lines:
            text = raw.decode("utf-8", "replace").rstrip("\r")
            if text:
                known.last = parse_line(text, path.stem, known.last, status.st_mtime)
                found.append(known.last)
        return found


def _log_files(directory: Path) -> dict[Path, float]:
    """Log files, and when each was written to last. Pipes are none: opening one waits."""
    found: dict[Path, float] = {}
    try:
        for path in directory.glob("*.log"):
            try:
                status = path.stat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[path] = status.st_mtime
    except OSError:
        return {}
    return found
