"""What the tests of the store share: streams, step sections, transactions of one call, and a reader."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from runlane.actors.store import Store
from runlane.actors.store_file import open_readonly
from runlane.transport.columns import step_dtype
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.wire import Section

SCHEMA = StepSchema(
    1,
    [
        StepField("seq", "<u8"),
        StepField("t_ns", "<i8"),
        StepField("episode", "<u4"),
        StepField("step", "<u4"),
        StepField("env_index", "<u4"),
        StepField("flags", "|u1"),
        StepField("reward", "<f8"),
        StepField("action", "<i8"),
    ],
)
VECTOR = StepSchema(
    2,
    [
        StepField("seq", "<u8"),
        StepField("t_ns", "<i8"),
        StepField("episode", "<u4", 2),
        StepField("step", "<u4", 2),
        StepField("flags", "|u1", 2),
        StepField("reward", "<f8", 2),
        StepField("action", "<f4", 4),
        StepField("observation", "<i8", 2),
    ],
    env_count=2,
)


def info(
    stream: int = 1, run: str = "R", worker: str = "w", name: str = "", started_ns: int = 100, **more: Any
) -> StreamInfo:
    fields: dict[str, Any] = {"host": "h", "pid": stream, "started_ns": started_ns, "run_name": name, **more}
    return StreamInfo(stream=f"{stream:032x}", run=run, worker=worker, **fields)


def open_stream(store: Store, of: StreamInfo | None = None) -> int:
    store.begin()
    stream_no = store.open_stream(of or info())
    store.commit()
    return stream_no


def body(seqs: Sequence[int], schema: StepSchema = SCHEMA, **columns: Any) -> tuple[bytes, Section]:
    packed = np.zeros(len(seqs), step_dtype(schema))
    packed["seq"] = seqs
    for name, values in columns.items():
        packed[name] = values
    return packed.tobytes(), Section(1, schema.schema_id, len(seqs), packed.nbytes)


def put_steps(store: Store, stream_no: int, seqs: Sequence[int], schema: StepSchema = SCHEMA, **columns: Any) -> int:
    """One transaction with one step section."""
    store.begin()
    new = store.insert_steps(stream_no, schema, *body(seqs, schema, **columns))
    store.advance(stream_no, int(seqs[-1]))
    store.commit()
    return new


def put(store: Store, stream_no: int, kind: str, *records: Any) -> int:
    store.begin()
    new = store.insert_records(stream_no, kind, list(records))
    store.commit()
    return new


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """Ask on a connection of its own. Never with `sqlite3`: of two SQLite libraries in one process, one closing
    the file drops the locks of the other.
    """
    with closing(open_readonly(store.path)) as connection:
        return connection.execute(sql).fetchall()


def counters(store: Store) -> tuple[Any, ...]:
    return ask(store, "SELECT steps, episodes, first_seq, last_seq FROM streams")[0]
