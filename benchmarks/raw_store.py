"""The ceiling of the durable path on this machine: how fast apsw alone can insert the same step rows.

One process, the store's own table and pragmas, rows ready as Python tuples before the clock starts, nothing
decoded and nothing acked. What a pipeline reaches is judged against this. Run it by itself:

    python benchmarks/raw_store.py
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from runlane.actors.sql import SqlRow
from runlane.actors.step_inserts import GROUPS, insert_sql
from runlane.actors.store_file import open_writer
from runlane.actors.wal_keeper import CHECKPOINT_PAGES
from runlane.config.settings import DbWriterSettings
from runlane.transport.row_key import SEQ_BITS

TRANSACTION_ROWS = 5_000
Work = list[tuple[str, list[SqlRow]]]  # statements of one transaction, each with all its bindings


def raw_ceiling(
    rows: int,
    synchronous: Literal["FULL", "NORMAL"],
    observation_bytes: int = 0,
    directory: Path | None = None,
    repeats: int = 3,
) -> float:
    """Rows per second of the fastest way, committed. `directory` should lie where the measured database lies."""
    rates = {
        name: max(_rate(prepare, rows, synchronous, observation_bytes, directory) for _ in range(repeats))
        for name, prepare in ((f"VALUES of {GROUPS[0]}", _in_groups), ("executemany", _one_by_one))
    }
    fastest = max(rates, key=lambda name: rates[name])
    shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    print(f"raw apsw ceiling, synchronous={synchronous}, {rows:,} rows: {shown} rows/s; fastest: {fastest}")
    return rates[fastest]


def step_tuples(rows: int, observation_bytes: int = 0) -> list[SqlRow]:
    """Rows of `step_rows` as CartPole makes them: a Discrete action, and an observation if asked for."""
    started_ns = time.time_ns()
    observation = bytes(range(1, 1 + observation_bytes)) if observation_bytes else None
    return [
        (1 << SEQ_BITS | seq, started_ns + seq * 1_000, seq // 200, seq % 200, 0, 0, 1.0, seq % 2, observation)
        for seq in range(1, rows + 1)
    ]


def _rate(
    prepare: Callable[[list[SqlRow]], Work], rows: int, synchronous: str, observation_bytes: int, directory: Path | None
) -> float:
    tuples = step_tuples(rows, observation_bytes)
    transactions = [prepare(tuples[start : start + TRANSACTION_ROWS]) for start in range(0, rows, TRANSACTION_ROWS)]
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        settings = DbWriterSettings(synchronous="FULL" if synchronous == "FULL" else "NORMAL")
        connection = open_writer(Path(folder) / "raw.db", settings)
        connection.wal_autocheckpoint(CHECKPOINT_PAGES)
        cursor = connection.cursor()
        started_s = time.perf_counter()
        for work in transactions:
            cursor.execute("BEGIN IMMEDIATE")
            for sql, bindings in work:
                cursor.executemany(sql, bindings)
            cursor.execute("COMMIT")
        elapsed_s = time.perf_counter() - started_s
        stored = cursor.execute("SELECT count(*) FROM step_rows").get
        connection.close()
    assert stored == rows
    return rows / elapsed_s


def _in_groups(batch: list[SqlRow]) -> Work:
    size = GROUPS[0]
    whole = len(batch) // size * size
    groups = [tuple(itertools.chain.from_iterable(batch[start : start + size])) for start in range(0, whole, size)]
    return [(insert_sql("step_rows", size), groups), *_one_by_one(batch[whole:])]


def _one_by_one(batch: list[SqlRow]) -> Work:
    return [(insert_sql("step_rows", 1), batch)] if batch else []


if __name__ == "__main__":
    for level in ("FULL", "NORMAL"):
        raw_ceiling(400_000, level)
