"""Processes around one database: writers and readers of the store, each told by its argument what to do.

    store_process.py ROLE DATABASE [NUMBER]

A role that fails prints the error and ends with 1. `ready` on a line of its own means: it has begun.
"""

import os
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from unit.actors.store_rig import open_stream, put_steps

from runlane.actors.store import Store
from runlane.actors.store_file import open_readonly
from runlane.actors.store_reader import query
from runlane.config.errors import StoreError
from runlane.config.settings import DbWriterSettings

ENDLESS = """
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000000000)
SELECT count(*), (SELECT count(*) FROM streams) FROM c
"""
LIMIT = 1 << 20
SETTINGS = DbWriterSettings(synchronous="NORMAL", wal_limit_bytes=LIMIT)


def say(text: str) -> None:
    """One line for the test."""
    print(text, flush=True)


def reopen(path: Path, number: int) -> None:
    """Open, commit, truncate, close, `number` times: whatever a writer does to a file that is being read."""
    for count in range(number):
        with closing(Store(path, SETTINGS)) as store:
            stream_no = open_stream(store)
            for _ in range(3):
                first = store.watermark(stream_no) + 1
                put_steps(store, stream_no, range(first, first + 200))
            if count % 2:
                store._log.truncate(0)  # pyright: ignore[reportPrivateUsage]


def die(path: Path, _number: int) -> None:
    """Commit, then die inside the next transaction."""
    store = Store(path, SETTINGS)
    stream_no = open_stream(store)
    first = store.watermark(stream_no) + 1
    put_steps(store, stream_no, range(first, first + 200))
    store.begin()
    store.advance(stream_no, first + 1_000)
    os.kill(os.getpid(), signal.SIGKILL)


def look(path: Path, number: int) -> None:
    """Open, ask, close, `number` times; each answer is at least as new as the one before."""
    newest = 0
    say("ready")
    for _ in range(number):
        with closing(open_readonly(path)) as connection:
            found = connection.execute("SELECT max(id) FROM step_rows").get
        assert found >= newest, (found, newest)
        newest = found


def write(path: Path, number: int) -> None:
    """Write far above the limit, then tend the log until it is empty; say what became of it."""
    with closing(Store(path, SETTINGS)) as store:
        stream_no = open_stream(store)
        say("ready")
        for _ in range(number):
            first = store.watermark(stream_no) + 1
            put_steps(store, stream_no, range(first, first + 40_000), reward=0.1, t_ns=1 << 60)
        while store.statistics().wal_bytes > LIMIT:
            store.tend()
            time.sleep(0.01)
            for pid in store.statistics().wal_pinned_by:
                say(f"pinned by {pid}")
        say("empty")


def ask_long(path: Path, _number: int) -> None:
    """A query of ours that would take minutes."""
    say("ready")
    try:
        query(path, ENDLESS)
    except StoreError as error:
        say(str(error))


def hold(path: Path, _number: int) -> None:
    """A stranger's read transaction, left open until somebody writes to us."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM streams").fetchall()
        say("ready")
        sys.stdin.read()


if __name__ == "__main__":
    roles = {role.__name__: role for role in (reopen, die, look, write, ask_long, hold)}
    roles[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
