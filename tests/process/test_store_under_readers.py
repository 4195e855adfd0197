"""One database, many processes: readers are never locked out, and never make the log grow without end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process.graph_under_test import wait_until

from runlane.actors.store_reader import query
from runlane.actors.wal_keeper import log_holders

SCRIPT = Path(__file__).with_name("store_process.py")
ROUNDS = 300

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runlane.db"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Starts a role of `store_process.py`; kills what is left."""
    started: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}

    def begin(role: str, number: int = 0) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), role, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def end(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """What it said until it ended."""
    said, _ = process.communicate(timeout=50)
    assert process.returncode == code, said
    return said


def line(process: "subprocess.Popen[str]") -> str:
    """The next line it says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_readers_are_never_locked_out_by_a_writer_that_comes_and_goes(start: Start) -> None:
    """Open, commit, truncate and close race with hundreds of open, ask and close: each question is answered."""
    end(start("reopen", 1))
    readers = [start("look", ROUNDS) for _ in range(2)]
    writer = start("reopen", ROUNDS // 4)
    for process in (*readers, writer):
        end(process)


def test_readers_need_no_writer(start: Start) -> None:
    """After a clean end and after a `kill -9`, several at once, who repair the index of the log among themselves."""
    end(start("reopen", 1))
    for _ in range(2):
        for process in [start("look", ROUNDS // 10) for _ in range(3)]:
            end(process)
        end(start("die"), -signal.SIGKILL)


def test_a_question_of_ours_lets_the_log_go(start: Start, path: Path) -> None:
    """It ends with one line that names the remedy, long before its answer; the log is emptied by itself."""
    end(start("reopen", 1))
    reader = start("ask_long")
    assert line(reader) == "ready"
    wait_until(lambda: log_holders(path), "the question is being answered")
    writer = start("write", 2)
    assert "wal_limit_bytes; ask for less at a time" in end(reader)
    assert end(writer).split() == ["ready", "empty"]
    assert query(path, "SELECT count(*) FROM step_rows")[1] == [(80_600,)]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not tell who holds a lock")
def test_a_stranger_that_stays_is_named(start: Start) -> None:
    """In the log and in the figures, by its pid; commits go on; when it leaves, the log is emptied."""
    end(start("reopen", 1))
    stranger = start("hold")
    assert line(stranger) == "ready"
    writer = start("write", 3)
    assert line(writer) == "ready"
    told = line(writer)
    assert told.startswith("DURABLE_WAL_PINNED")
    assert told.endswith(f"pids={stranger.pid}")
    assert line(writer) == f"pinned by {stranger.pid}"
    end(stranger)
    assert "empty" in end(writer)
