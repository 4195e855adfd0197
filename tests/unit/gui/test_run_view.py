"""RunView: counts what the fast path brings, in bounded memory, whatever comes."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from runlane.config.names import KINDS
from runlane.gui.run_view import (
    CURVE_POINTS,
    KEPT_BUCKETS,
    KEPT_LOGS,
    KEPT_METRICS,
    KEPT_WORKERS,
    RECENT_EPISODES,
    Curve,
    RateMeter,
    RunView,
    WorkerView,
    accounts_of,
    store_figures_of,
)
from runlane.transport.messages import ChildStatus, Status, StepField, StepSchema, StreamInfo
from runlane.transport.records import (
    IS_RESET,
    EpisodeRecord,
    LogRecord,
    MetricRecord,
    Outcome,
    Record,
    RunRecord,
    RunState,
)
from runlane.transport.subscriber import RecordBatch
from runlane.transport.wire import KIND_NUMBER, BatchHeader, Frame, Section, pack

FLAGS_ONLY = StepSchema(schema_id=0, fields=[StepField("flags", "|u1")])
TWO_ENVS = StepSchema(schema_id=1, fields=[StepField("flags", "|u1", 2)], env_count=2)
NO_FLAGS = StepSchema(schema_id=2, fields=[StepField("reward", "<f8")])


def _info(worker: str = "w", run: str = "r", run_name: str = "") -> StreamInfo:
    schemas = [FLAGS_ONLY, TWO_ENVS, NO_FLAGS]
    return StreamInfo(
        stream="0" * 32, run=run, worker=worker, host="h", pid=1, started_ns=0, run_name=run_name, schemas=schemas
    )


def _batch(info: StreamInfo, kind: str, records: int, body: Frame, schema_id: int = 0) -> RecordBatch:
    section = Section(KIND_NUMBER[kind], schema_id, records, len(body))
    return RecordBatch(info, BatchHeader(b"s" * 16, 1, records, 0, (section,)), section, body)


def _steps(info: StreamInfo, count: int) -> RecordBatch:
    return _batch(info, "step", count, bytes(count))


def _records(info: StreamInfo, *records: Record) -> RecordBatch:
    kind = next(kind for kind in KINDS if type(records[0]).__name__.lower().startswith(kind))
    return _batch(info, kind, len(records), pack(msgspec.to_builtins(list(records))))


def _episode(episode_return: float, outcome: Outcome = "terminated") -> EpisodeRecord:
    return EpisodeRecord(1, 0, 0, 0, episode_return, 1, outcome, 0.1)


def _metric(name: str, value: float = 0.0) -> MetricRecord:
    return MetricRecord(1, 0, name, value, 0)


def _run(state: RunState) -> RunRecord:
    return RunRecord(1, 0, state, {})


def _view(*batches: RecordBatch) -> RunView:
    view = RunView(0.0)
    view.add(batches, 1.0)
    return view


def _worker(view: RunView, name: str = "w") -> WorkerView:
    return view.workers["r", name]


# ---- what it counts --------------------------------------------------------------------------------------


def test_steps_are_counted_per_worker() -> None:
    """Two workers at once never share a count, a rate or a name."""
    view = _view(_steps(_info("a"), 256), _steps(_info("b"), 10), _steps(_info("a"), 4))
    assert (_worker(view, "a").env_steps, _worker(view, "b").env_steps) == (260, 10)
    assert view.records == 270


def test_rows_that_reset_are_no_steps() -> None:
    """An autoreset row is a record, but nothing the agent did."""
    flags = np.array([0, IS_RESET, 1], np.uint8)
    view = _view(_batch(_info(), "step", 3, flags.tobytes()))
    assert (_worker(view).env_steps, view.records) == (2, 3)


def test_a_vector_row_counts_each_environment() -> None:
    """Three rows of two environments, one of them resetting once, are five steps."""
    flags = np.array([[0, 0], [0, IS_RESET], [0, 0]], np.uint8)
    view = _view(_batch(_info(), "step", 3, flags.tobytes(), schema_id=1))
    assert _worker(view).env_steps == 5


def test_rows_without_flags_are_steps() -> None:
    """A source of another language may leave the column out."""
    view = _view(_batch(_info(), "step", 2, bytes(16), schema_id=2))
    assert _worker(view).env_steps == 2


def test_mean_and_best_are_over_episodes_that_ended() -> None:
    """An abandoned episode counts, but its return says nothing about the policy."""
    view = _view(_records(_info(), _episode(1.0), _episode(3.0), _episode(99.0, "abandoned")))
    worker = _worker(view)
    assert (worker.episodes, worker.mean_return, worker.best) == (3, 2.0, 3.0)
    assert worker.curve.values == [1.0, 3.0]


def test_the_mean_forgets_what_is_older_than_its_window() -> None:
    """Mean of the last 100, not of all."""
    episodes = [_episode(0.0)] * 50 + [_episode(7.0)] * RECENT_EPISODES
    assert _worker(_view(_records(_info(), *episodes))).mean_return == 7.0


def test_a_diverged_return_shows_in_the_mean_and_never_as_best() -> None:
    """NaN is news, not a record high."""
    worker = _worker(_view(_records(_info(), _episode(2.0), _episode(math.nan))))
    assert worker.mean_return is not None
    assert math.isnan(worker.mean_return)
    assert worker.best == 2.0


def test_before_the_first_episode_there_is_no_mean() -> None:
    """No number is shown that was not measured."""
    worker = _worker(_view(_steps(_info(), 1)))
    assert (worker.mean_return, worker.best) == (None, None)


def test_the_newest_metric_stands() -> None:
    """A metric of the same name takes the place of the former."""
    worker = _worker(_view(_records(_info(), _metric("loss", 2.0), _metric("loss", 1.0))))
    assert [(name, record.value) for name, record in worker.metrics.items()] == [("loss", 1.0)]


def test_run_names_are_those_of_the_workers() -> None:
    """Each name once; a run without a name is called by its id."""
    view = _view(_steps(_info("a", "r1", "demo"), 1), _steps(_info("b", "r1", "demo"), 1), _steps(_info("c", "r2"), 1))
    assert view.run_names == ["demo", "r2"]


def test_a_proxy_tells_how_its_worker_ended() -> None:
    """The proxy's own stream changes the worker's state and is no worker itself."""
    view = _view(_records(_info(), _run("running")), _records(_info("proxy-w"), _run("killed")))
    assert [(worker.name, worker.state) for worker in view.workers.values()] == [("w", "killed")]


def test_a_proxy_tells_that_its_worker_stalls() -> None:
    """And that it steps again; of a worker that has ended, or of another stream than its newest, it tells nothing."""
    proxy, own = _info("proxy-w"), RunRecord(1, 0, "killed", {"stream": "0" * 32})
    other = RunRecord(1, 0, "killed", {"stream": "1" * 32})
    for said, expected in (
        ([_run("stalled")], "stalled"),
        ([_run("stalled"), _run("running")], "running"),
        ([other], "running"),
        ([own, _run("stalled"), _run("running")], "killed"),
    ):
        view = _view(_records(_info(), _run("running")), _records(proxy, *said))
        assert [(worker.name, worker.state) for worker in view.workers.values()] == [("w", expected)]


def test_a_bad_batch_is_counted_and_watching_goes_on() -> None:
    """Bytes that do not fit their schema, and text that is no record, cost nothing but their own count."""
    wrong_size = _batch(_info(), "step", 3, bytes(2))
    garbage = _batch(_info(), "episode", 1, b"\xc1")
    view = _view(wrong_size, garbage, _steps(_info(), 5))
    assert (view.rejected, view.records, _worker(view).env_steps) == (4, 5, 5)


# ---- what it keeps ---------------------------------------------------------------------------------------


def test_everything_kept_is_bounded() -> None:
    """Workers, metrics, logs and curves stop growing; the newest stay."""
    view = RunView(0.0)
    for number in range(KEPT_WORKERS + 3):
        view.add([_steps(_info(f"w{number}"), 1)], 1.0)
    info = _info("busy")
    view.add([_records(info, *(_metric(f"m{number}") for number in range(KEPT_METRICS + 3)))], 1.0)
    view.add([_records(info, *(LogRecord(1, 0, "info", str(number)) for number in range(KEPT_LOGS + 3)))], 1.0)
    view.add([_records(info, *(_episode(1.0) for _ in range(CURVE_POINTS)))] * 5, 1.0)
    assert (len(view.workers), len(view.logs)) == (KEPT_WORKERS, KEPT_LOGS)
    worker = _worker(view, "busy")
    assert (len(worker.metrics), len(worker.recent)) == (KEPT_METRICS, RECENT_EPISODES)
    assert len(worker.curve.values) <= CURVE_POINTS
    assert "m0" not in worker.metrics
    assert view.logs[-1].text == str(KEPT_LOGS + 2)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 31, 1000])
def test_a_curve_covers_the_whole_series(count: int) -> None:
    """However long the series, the points are means over all of it, in order."""
    curve = Curve(points=8)
    for value in range(count):
        curve.add(float(value))
    values = curve.values
    assert curve.count == count
    assert len(values) <= 8
    assert values == sorted(values)
    if count:
        assert values[0] < 130 * count / 1000 + 1
        assert values[-1] > count - 1 - 130


def test_a_curve_merges_neighbours_exactly() -> None:
    """When it is full, each point is the mean of the two it stands for."""
    curve = Curve(points=4)
    for value in (1.0, 3.0, 5.0, 7.0, 9.0):
        curve.add(value)
    assert curve.values == [2.0, 6.0, 9.0]


# ---- rates -----------------------------------------------------------------------------------------------


def test_the_rate_is_what_the_last_seconds_brought() -> None:
    """100 records every 100 ms are 1,000 a second, at any time of the clock."""
    meter = RateMeter()
    for tick in range(200):
        meter.add(100, 1234.5 + tick / 10)
    assert meter.per_s(1234.5 + 19.99) == pytest.approx(1000, rel=0.05)


def test_silence_brings_the_rate_down_to_nothing() -> None:
    """What is older than the window counts no more, however long ago."""
    meter = RateMeter()
    meter.add(1000, 0.0)
    assert meter.per_s(1.0) == 1000
    assert meter.per_s(2.0) == 500
    assert meter.per_s(60.0) == 0
    assert meter.per_s(1e6) == 0
    assert len(meter.history(1e6)) == KEPT_BUCKETS - 1


def test_a_single_burst_is_no_infinite_rate() -> None:
    """The first instant has no length to divide by."""
    meter = RateMeter()
    meter.add(256, 5.0)
    assert meter.per_s(5.0) == 512
    assert RateMeter().per_s(5.0) == 0


def test_the_rate_of_an_ended_worker_is_that_of_its_last_step() -> None:
    """After the end a view goes on; the figure stays what it was."""
    view = _view(_records(_info(), _run("running")), _steps(_info(), 100))
    assert _worker(view).rate_time_s(90.0) == 90.0
    view.add([_records(_info(), _run("finished"))], 2.0)
    assert _worker(view).rate_time_s(90.0) == 1.0


# ---- figures of a status ---------------------------------------------------------------------------------


def _status(**statistics: dict[str, Any]) -> Status:
    children = [
        ChildStatus(
            name=name,
            kind="router" if name == "router" else "subscriber",
            state="running",
            pid=1,
            restarts=0,
            heartbeat_age_s=0.0,
            exit_code=None,
            statistics=figures,
        )
        for name, figures in statistics.items()
    ]
    return Status(pid=1, uptime_s=1.0, data_dir="/d", run_dir="/r", state="running", children=children)


def test_an_account_says_whether_it_is_balanced() -> None:
    """published = delivered + dropped + queued, where queued is what waits and what is under way."""
    figures = {"published": 10, "delivered": 5, "dropped": {"drop_oldest": 2, "other": 1}, "depth": 1, "in_flight": 1}
    (account,) = accounts_of(_status(router={"subscribers": {"gui": figures}}))
    assert (account.name, account.queued, account.total_dropped, account.is_balanced) == ("gui", 2, 3, True)
    assert not msgspec.structs.replace(account, delivered=6).is_balanced


def test_figures_not_yet_reported_are_zeros() -> None:
    """No status, or children without a heartbeat, are no error."""
    for status in (None, _status(), _status(router={}, db_writer={})):
        assert accounts_of(status) == []
        assert store_figures_of(status).rows_committed == 0
