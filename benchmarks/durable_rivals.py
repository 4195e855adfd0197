"""The same steps by other ways of keeping every one of them, for bench_durable. Each checks its count.

`mcap_rate`       one JSON message per step into an .mcap file in compressed chunks, forced to disk once at the end
`json_pipe_rate`  one JSON object per line through a pipe to a child process, which inserts into the store's own
                  schema with the standard `sqlite3` module: `executemany` batches, synchronous=FULL
"""

import importlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from runlane.actors.store_file import open_writer
from runlane.config.settings import DbWriterSettings

EPISODE_STEPS = 200
PIPE_BATCH = 1_000
STREAM_KEY = 1 << 40


def records(steps: int) -> Iterator[dict[str, Any]]:
    """Steps as they are made, each with the clock read for it."""
    for number in range(1, steps + 1):
        yield {
            "seq": number,
            "t_ns": time.time_ns(),
            "episode": number // EPISODE_STEPS,
            "step": number % EPISODE_STEPS,
            "action": number & 1,
            "reward": 1.0,
            "terminated": number % EPISODE_STEPS == 0,
        }


def mcap_rate(steps: int, directory: Path | None = None) -> float | None:
    """Steps per second, or None when mcap is not installed."""
    if importlib.util.find_spec("mcap") is None:
        return None
    writers, readers = importlib.import_module("mcap.writer"), importlib.import_module("mcap.reader")
    schema = {"type": "object", "properties": {"seq": {"type": "integer"}, "reward": {"type": "number"}}}
    with tempfile.TemporaryDirectory(prefix="rl-bench-", dir=directory) as folder:
        path = Path(folder) / "steps.mcap"
        started_s = time.perf_counter()
        with path.open("wb") as file:
            writer = writers.Writer(file)  # chunks of 1 MiB, zstd: its defaults
            writer.start()
            schema_id = writer.register_schema("step", "jsonschema", json.dumps(schema).encode())
            channel = writer.register_channel("/steps", "json", schema_id)
            for step in records(steps):
                t_ns = step["t_ns"]
                writer.add_message(channel, t_ns, json.dumps(step).encode(), t_ns, step["seq"])
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        elapsed_s = time.perf_counter() - started_s
        with path.open("rb") as file:
            stored = readers.make_reader(file).get_summary().statistics.message_count
    if stored != steps:
        sys.exit(f"mcap: {stored} stored of {steps}")
    return steps / elapsed_s


def json_pipe_rate(steps: int, directory: Path | None = None) -> float:
    """Steps per second until the child has committed the last one and ended."""
    with tempfile.TemporaryDirectory(prefix="rl-bench-", dir=directory) as folder:
        path = Path(folder) / "steps.db"
        open_writer(path, DbWriterSettings(synchronous="FULL")).close()  # the schema
        command = [sys.executable, str(Path(__file__)), str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
            assert child.stdin is not None
            started_s = time.perf_counter()
            for step in records(steps):
                child.stdin.write(json.dumps(step).encode() + b"\n")
            child.stdin.close()
            code = child.wait()
            elapsed_s = time.perf_counter() - started_s
        with closing(sqlite3.connect(path)) as connection:
            ((stored,),) = connection.execute("SELECT count(*) FROM step_rows")
    if code or stored != steps:
        sys.exit(f"JSON pipe: exit code {code}, {stored} stored of {steps}")
    return steps / elapsed_s


def _insert_lines(path: str) -> None:
    """The child: lines from standard input into the database."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    batch: list[tuple[Any, ...]] = []

    def commit() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR IGNORE INTO step_rows VALUES (?,?,?,?,?,?,?,?,?)", batch)
        connection.execute("COMMIT")
        batch.clear()

    for line in sys.stdin.buffer:
        step = json.loads(line)
        key = STREAM_KEY | step["seq"]
        flags = 1 if step["terminated"] else 0
        batch.append((key, step["t_ns"], step["episode"], step["step"], 0, flags, step["reward"], step["action"], None))
        if len(batch) == PIPE_BATCH:
            commit()
    commit()
    connection.close()


if __name__ == "__main__":
    _insert_lines(sys.argv[1])
