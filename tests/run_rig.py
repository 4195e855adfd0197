"""What the tests of runs share: rows of the store, batches of the bus, and a controller that answers by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from runlane.config.names import KINDS
from runlane.config.settings import Settings
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.store_source import SqlValue
from runlane.transport.messages import ChildStatus, Status, StepField, StepSchema, StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import EpisodeRecord, Record, RunRecord, RunState
from runlane.transport.wire import KIND_NUMBER, BatchHeader, Section, pack

STEP = StepSchema(schema_id=0, fields=[StepField("seq", "<u8"), StepField("flags", "|u1"), StepField("reward", "<f8")])
ROW = np.dtype([("seq", "<u8"), ("flags", "u1"), ("reward", "<f8")])


def row(number: int, **changed: Any) -> dict[str, Any]:
    """A run as the store lists it; a higher number is a newer one."""
    found = {
        "run": f"run{number:06}",
        "name": f"name-{number}",
        "state": "finished",
        "started_ns": 1_000 + number,
        "ended_ns": 2_000 + number,
        "seen_ns": 2_000 + number,
        "workers": 1,
        "steps": 100,
        "episodes": 10,
        "mean_return": 1.0,
        "drops": 0,
    }
    return {**found, **changed}


def info_of(run: str = "run000001", worker: str = "worker", stream: str = "0" * 32, name: str = "bus") -> StreamInfo:
    return StreamInfo(
        stream=stream, run=run, worker=worker, host="here", pid=1, started_ns=5_000, run_name=name, schemas=[STEP]
    )


def batch_of(info: StreamInfo, kind: str, count: int, body: bytes) -> RecordBatch:
    section = Section(KIND_NUMBER[kind], 0, count, len(body))
    return RecordBatch(info, BatchHeader(b"s" * 16, 1, count, 0, (section,)), section, body)


def steps_of(info: StreamInfo, first_seq: int, count: int, reward: float = 0.5) -> RecordBatch:
    rows = np.zeros(count, ROW)
    rows["seq"] = np.arange(first_seq, first_seq + count)
    rows["reward"] = reward
    return batch_of(info, "step", count, rows.tobytes())


def records_of(info: StreamInfo, *records: Record) -> RecordBatch:
    kind = next(kind for kind in KINDS if type(records[0]).__name__.lower().startswith(kind))
    return batch_of(info, kind, len(records), pack(msgspec.to_builtins(list(records))))


def episode(seq: int, episode_return: float) -> EpisodeRecord:
    return EpisodeRecord(seq, 0, 0, 0, episode_return, 1, "terminated", 0.1)


def run_record(seq: int, state: RunState, **facts: Any) -> RunRecord:
    return RunRecord(seq, 0, state, facts)


def status_of(*workers: tuple[str, str, str]) -> Status:
    """A graph whose proxies serve these runs and workers, in these Telemetry Modes."""
    children = [
        ChildStatus(
            name=f"proxy-{worker}",
            kind="proxy",
            state="running",
            pid=1,
            restarts=0,
            heartbeat_age_s=0.1,
            exit_code=None,
            statistics={"run": run, "worker": worker, **({"telemetry_mode": mode} if mode else {})},
        )
        for run, worker, mode in workers
    ]
    return Status(pid=1, uptime_s=1.0, data_dir="d", run_dir="r", state="running", children=children)


class FakeStore:
    """A store with these answers, by a piece of the SQL."""

    def __init__(self, answers: dict[str, list[tuple[Any, ...]]] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[tuple[str, tuple[SqlValue, ...]]] = []
        self.returns: dict[str, list[float]] = {}

    def runs(self) -> list[dict[str, Any]]:
        return []

    def curve(self, run: str, points: int) -> dict[str, Any]:
        found = self.returns.get(run, [])[:points]
        return {"points": [{"mean_return": value, "max_return": value + 1} for value in found]}

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        self.asked.append((sql, tuple(bindings)))
        none: list[tuple[Any, ...]] = []
        return (), next((rows for piece, rows in self.answers.items() if piece in sql), none)

    def size(self) -> tuple[int, int]:
        return 0, 0


class RigController(LiveTelemetryController):
    """A controller without threads: the store answers at once, the graph when `answer` is called."""

    def __init__(self, settings: Settings, store: FakeStore | None = None, client: object = None) -> None:
        self.fake_store = store or FakeStore()
        super().__init__(settings, self.fake_store)
        self.client: Any = client
        self.waiting: list[Callable[[], object]] = []

    def ask_store(
        self,
        key: str,  # noqa: ARG002
        call: Callable[[], Any],
        done: Callable[[Any], object],
        failed: Callable[[str], object] | None = None,  # noqa: ARG002
    ) -> bool:
        done(call())
        return True

    def ask_graph(
        self,
        key: str,  # noqa: ARG002
        call: Callable[[Any], Any],
        done: Callable[[Any], object],
        failed: Callable[[str], object] | None = None,
    ) -> bool:
        def run() -> None:
            try:
                answer = call(self.client)
            except Exception as error:
                if failed is not None:
                    failed(str(error))
            else:
                done(answer)

        self.waiting.append(run)
        return True

    def answer(self) -> None:
        """Let the graph answer what it was asked."""
        waiting, self.waiting = self.waiting, []
        for run in waiting:
            run()

    def tell_status(self, status: Status | None) -> None:
        """As when the graph answered a status request."""
        self.status = status
        self.runs.set_status(status)
        self.status_changed.emit(status)
