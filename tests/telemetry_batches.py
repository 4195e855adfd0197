"""Encoded batches as the bus hands them out; for tests and benchmarks of the window."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runlane.config.names import KINDS
from runlane.transport.columns import step_dtype
from runlane.transport.identity import new_stream_id
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import IS_RESET, TERMINATED, EpisodeRecord, MetricRecord, Record, pack_record
from runlane.transport.wire import KIND_NUMBER, BatchHeader, Section, array_header

EPISODE_STEPS = 100
START_NS = 1_700_000_000_000_000_000
STEP_NS = 1_000_000

_FIXED = (("episode", "<u4"), ("step", "<u4"), ("flags", "|u1"), ("reward", "<f8"), ("action", "<i8"))


def schema_of(env_count: int = 0) -> StepSchema:
    """The columns of a worker's step rows, of one environment or of several together."""
    fields = [StepField("seq", "<u8"), StepField("t_ns", "<i8")]
    if not env_count:
        fields.append(StepField("env_index", "<u4"))
    fields += [StepField(name, code, env_count) for name, code in _FIXED]
    return StepSchema(schema_id=0, fields=fields, env_count=env_count)


class BatchSource:
    """One stream: its records in order, numbered without gaps; `skip` makes one."""

    def __init__(
        self, run: str = "run-1", worker: str = "w", run_name: str = "", env_count: int = 0, start_ns: int = START_NS
    ) -> None:
        self.info = StreamInfo(
            stream=new_stream_id(),
            run=run,
            worker=worker,
            host="",
            pid=1,
            started_ns=0,
            run_name=run_name or run,
            schemas=[schema_of(env_count)],
        )
        self.env_count = env_count
        self.next_seq = 1
        self.t_ns = start_ns
        self.made = 0

    def skip(self, seqs: int) -> None:
        """Records that nobody gets to see."""
        self.next_seq += seqs

    def rows(self, count: int) -> NDArray[np.void]:
        """Step rows to fill in; seq, time, episode and step are, with episodes of `EPISODE_STEPS` steps."""
        rows = np.zeros(count, step_dtype(self.info.schemas[0]))
        number = self.made + np.arange(count)
        rows["seq"] = self.next_seq + np.arange(count)
        rows["t_ns"] = self.t_ns + STEP_NS * np.arange(count)
        shape = (slice(None), None) if self.env_count else slice(None)
        rows["episode"] = (number // EPISODE_STEPS + 1)[shape]
        rows["step"] = (number % EPISODE_STEPS + 1)[shape]
        rows["flags"] = np.where(number % EPISODE_STEPS == EPISODE_STEPS - 1, TERMINATED, 0)[shape]
        rows["reward"] = 1.0
        return rows

    def steps(self, rows: NDArray[np.void] | int) -> RecordBatch:
        """A batch of step rows."""
        found = self.rows(rows) if isinstance(rows, int) else rows
        self.made += len(found)
        self.t_ns += STEP_NS * len(found)
        return self._batch("step", found.tobytes(), len(found))

    def episodes(self, returns: Sequence[float], length: int = EPISODE_STEPS, first: int = 1) -> RecordBatch:
        """A batch of finished episodes of environment 0."""
        return self.records(
            [
                EpisodeRecord(self.next_seq + i, self.t_ns + i, 0, first + i, float(value), length, "terminated", 0.5)
                for i, value in enumerate(returns)
            ]
        )

    def metric(self, name: str, value: float, step: int) -> RecordBatch:
        """A batch of one metric."""
        return self.records([MetricRecord(self.next_seq, self.t_ns, name, value, step)])

    def records(self, records: Sequence[Record]) -> RecordBatch:
        """A batch of any kind but step, which have their seqs already."""
        kind = next(name for name in KINDS if type(records[0]).__name__ == f"{name.title()}Record")
        body = array_header(len(records)) + b"".join(map(pack_record, records))
        return self._batch(kind, body, len(records))

    def garbage(self, kind: str = "step", records: int = 3) -> RecordBatch:
        """A batch whose body is none."""
        return self._batch(kind, b"\xc1garbage", records)

    def _batch(self, kind: str, body: bytes, records: int) -> RecordBatch:
        section = Section(KIND_NUMBER[kind], 0, records, len(body))
        header = BatchHeader(bytes.fromhex(self.info.stream), self.next_seq, records, time.time_ns(), (section,))
        self.next_seq += records
        return RecordBatch(self.info, header, section, body)


def reset_rows(source: BatchSource) -> NDArray[np.void]:
    """The row that an autoreset makes."""
    rows = source.rows(1)
    rows["step"], rows["flags"], rows["reward"] = 0, IS_RESET, np.nan
    return rows
