"""LogModel: lines of files and workers, in order, filtered, bounded."""

import os
from pathlib import Path

import pytest

from runlane.config import log_ids
from runlane.gui.log_model import (
    FIRST_BYTES,
    KEPT_LINES,
    MAX_FILES,
    MAX_TEXT,
    LogFilter,
    LogLine,
    LogModel,
    LogTail,
    parse_line,
)
from runlane.transport.records import LogRecord
from runlane.transport.testing import make_info

LINE = "2026-11-22T13:18:24.933Z INFO    router RUNBUS_SUBSCRIBER_JOINED subscriber=gui run=r1\n"


def line(second: int, level: str = "INFO", process: str = "router", log_id: str = "", text: str = "x") -> LogLine:
    return LogLine(float(second), level, process, log_id, text)


def test_a_line_of_an_actor_is_taken_apart() -> None:
    """Time, level, process, log id, facts, and the run where one is named."""
    found = parse_line(LINE.rstrip(), "file", None, 0.0)
    assert found == LogLine(
        1795353504.933, "INFO", "router", log_ids.RUNBUS_SUBSCRIBER_JOINED.name, "subscriber=gui run=r1", "r1"
    )
    assert found.plain == LINE.rstrip()


def test_a_traceback_stands_where_the_line_before_it_does() -> None:
    """It has no time of its own."""
    before = line(7, "ERROR")
    found = parse_line("  File x, line 3", "db_writer", before, 99.0)
    assert (found.t_s, found.level, found.process, found.log_id) == (7.0, "ERROR", "db_writer", "")


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    """A line without its end waits for it."""
    path, tail = tmp_path / "router.log", LogTail()
    path.write_text(LINE)
    assert len(tail.read(tmp_path)) == 1
    with path.open("a") as stream:
        stream.write(LINE + LINE[:30])
    assert len(tail.read(tmp_path)) == 1
    with path.open("a") as stream:
        stream.write(LINE[30:])
    (found,) = tail.read(tmp_path)
    assert found.log_id == "RUNBUS_SUBSCRIBER_JOINED"
    assert tail.read(tmp_path) == []


def test_a_large_file_is_read_from_near_its_end(tmp_path: Path) -> None:
    """Beginning with a whole line."""
    (tmp_path / "router.log").write_text(LINE * 5_000)
    found = LogTail().read(tmp_path)
    assert 0 < len(found) * len(LINE) <= FIRST_BYTES
    assert {one.process for one in found} == {"router"}


def test_rotation_and_truncation_begin_anew(tmp_path: Path) -> None:
    """Another file of that name, or one that is shorter."""
    path, tail = tmp_path / "router.log", LogTail()
    path.write_text(LINE * 3)
    tail.read(tmp_path)
    path.rename(tmp_path / "router.log.1")
    path.write_text(LINE)
    assert len(tail.read(tmp_path)) == 1
    path.write_text(LINE * 4)
    tail.read(tmp_path)
    path.write_text(LINE)
    assert len(tail.read(tmp_path)) == 1


def test_a_missing_directory_and_what_is_no_file_have_no_lines(tmp_path: Path) -> None:
    """Looking never fails."""
    assert LogTail().read(tmp_path / "none") == []
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    assert LogTail().read(tmp_path) == []


def test_many_launches_push_no_log_out_that_is_written_to(tmp_path: Path) -> None:
    """The files written to last are read, it is said how many are not, and one that comes back is not read twice."""
    tail = LogTail()
    for number in range(MAX_FILES + 4):
        path = tmp_path / f"launch-{number:04}.log"
        path.write_text(LINE)
        os.utime(path, (1_000 + number, 1_000 + number))
    for name in ("router", "supervisor"):
        path = tmp_path / f"{name}.log"
        path.write_text(LINE.replace("router", name))
        os.utime(path, (9_000, 9_000))
    found = tail.read(tmp_path)
    assert {"router", "supervisor"} <= {one.process for one in found}
    assert (len(found), tail.left_out) == (MAX_FILES, 6)
    os.utime(tmp_path / "launch-0000.log", (9_500, 9_500))
    assert len(tail.read(tmp_path)) == 1  # which was left out until now
    os.utime(tmp_path / "launch-0006.log", (9_600, 9_600))
    assert tail.read(tmp_path) == []


def test_files_are_merged_by_time(tmp_path: Path) -> None:
    """Whatever their names."""
    (tmp_path / "a.log").write_text("2026-11-22T13:18:25.000Z INFO    a ACTOR_STARTED pid=1\n")
    (tmp_path / "b.log").write_text("2026-11-22T13:18:24.000Z INFO    b ACTOR_STARTED pid=2\n")
    assert [one.process for one in LogTail().read(tmp_path)] == ["b", "a"]


def test_old_lines_of_a_file_go_where_they_belong() -> None:
    """And the list is to be shown anew."""
    model = LogModel()
    model.add_record(LogRecord(1, int(50e9), "info", "hello"), make_info())
    model.add_lines([line(10), line(51)])
    assert [one.t_s for one in model.lines] == [10.0, 50.0, 51.0]
    assert model.generation == 1


def test_a_workers_line_has_its_run() -> None:
    """And its log id, where it begins with one."""
    model = LogModel()
    model.add_record(LogRecord(1, int(1e9), "warning", "WORKER_BLOCKED for=2"), make_info("ppo"))
    (found,) = model.lines
    assert found == LogLine(1.0, "WARNING", "ppo", "WORKER_BLOCKED", "for=2", "run")
    assert model.processes == ["ppo"]


@pytest.mark.parametrize(
    ("only", "texts"),
    [
        (LogFilter(), ["a", "b", "Cat"]),
        (LogFilter(level="WARNING"), ["b"]),
        (LogFilter(process="proxy"), ["Cat"]),
        (LogFilter(log_id="ACTOR_STARTED"), ["a"]),
        (LogFilter(text="CAT"), ["Cat"]),
        (LogFilter(text="actor_"), ["a"]),
        (LogFilter(run="r9"), []),
    ],
)
def test_a_filter_shows_what_passes_all_of_it(only: LogFilter, texts: list[str]) -> None:
    """Each part by itself."""
    model = LogModel()
    model.add_lines(
        [line(1, log_id="ACTOR_STARTED", text="a"), line(2, "ERROR", text="b"), line(3, process="proxy", text="Cat")]
    )
    assert [one.text for one in model.since(0, only)] == texts
    assert [one.text for one in model.since(2, only)] == [text for text in texts if text == "Cat"]


def test_lines_are_bounded_in_number_and_length() -> None:
    """A worker that logs without end fills no memory."""
    model, info = LogModel(), make_info()
    for number in range(KEPT_LINES + 100):
        model.add_record(LogRecord(number + 1, 0, "info", "x" * (MAX_TEXT + 1 if number % 1_000 == 0 else 5)), info)
    assert len(model.lines) == KEPT_LINES
    assert model.total == KEPT_LINES + 100
    assert max(len(one.text) for one in model.lines) <= MAX_TEXT
    assert len(model.since(model.total - 3, LogFilter())) == 3
