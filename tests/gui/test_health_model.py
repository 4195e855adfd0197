"""HealthModel: figures of a status, histories of a fixed size, records that are worth a line."""

import math
import os
from typing import Any

import msgspec
import numpy as np
import pytest
from health_rig import child, status_of

from runlane.config.names import KINDS
from runlane.gui.bus_reader import BusStatistics
from runlane.gui.health_figures import graph_figures
from runlane.gui.health_model import KEPT_WORKERS, SAMPLE_S, HealthModel
from runlane.gui.process_sampler import ProcessSampler
from runlane.gui.run_text import size_text
from runlane.gui.trace import STEP_S, WINDOW_S, Trace
from runlane.transport.messages import StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import EpisodeRecord, LogRecord, MetricRecord, Record, RunRecord, pack_record
from runlane.transport.testing import make_info
from runlane.transport.wire import BatchHeader, Section


def batch_of(info: StreamInfo, kind: str, *records: Record, body: bytes = b"") -> RecordBatch:
    body = body or bytes([0x90 | len(records)]) + b"".join(map(pack_record, records))  # an array of up to 15
    section = Section(KINDS.index(kind) + 1, 0, max(1, len(records)), len(body))
    header = BatchHeader(bytes.fromhex(info.stream), 1, max(1, len(records)), 0, (section,))
    return RecordBatch(info, header, section, body)


def here(info: StreamInfo) -> StreamInfo:
    return msgspec.structs.replace(info, host=os.uname().nodename, run_name="cart")


# ---- a status ----


def test_a_status_is_told_apart_by_process_queue_journal_and_store() -> None:
    """Everything the page shows of a graph."""
    graph = graph_figures(status_of(depth=20))
    assert [process.name for process in graph.processes] == ["supervisor", "router", "db_writer", "proxy-ppo"]
    queue = graph.queue("db_writer")
    assert queue is not None
    assert (queue.depth, queue.share, queue.credits, queue.window, queue.balance) == (20, 0.02, 63, 64, 0)
    (journal,) = graph.journals
    assert (journal.worker, journal.backlog_records, journal.in_flight_bytes) == ("ppo", 3, 99)
    assert (graph.store.rows_committed, graph.store.pending_rows) == (100, 4)


@pytest.mark.parametrize(
    "statistics", [{}, {"subscribers": 3}, {"subscribers": {"x": 4}}, {"subscribers": {"x": {"depth": "y"}}}]
)
def test_figures_that_are_not_there_are_no_error(statistics: dict[str, Any]) -> None:
    """An actor of an older version, or one that has not begun."""
    status = msgspec.structs.replace(status_of(), children=[child("router", "router", statistics)])
    assert all(queue.depth == 0 for queue in graph_figures(status).queues)


def test_a_journal_knows_the_modes_of_all_its_workers() -> None:
    """A proxy may serve several; one of an older version tells none."""
    told = [{"worker": "a", "telemetry_mode": "fast_lane_only"}, {"worker": "b", "telemetry_mode": "dual_path"}]
    for statistics, modes in (
        ({"worker": "a", "workers": told, "telemetry_mode": "dual_path"}, ("dual_path", "fast_lane_only")),
        ({"worker": "a", "telemetry_mode": "fast_lane_only"}, ("fast_lane_only",)),
        ({"worker": "a", "workers": 3}, ()),
    ):
        status = msgspec.structs.replace(status_of(), children=[child("proxy-a", "proxy", statistics)])
        assert graph_figures(status).journals[0].modes == modes


def test_an_account_that_is_open_is_a_warning() -> None:
    """published = delivered + dropped + depth + in flight."""
    model = HealthModel()
    model.set_status(status_of(published=106), 0.0)
    assert model.warnings() == ["gui account is open by 1"]


def test_a_queue_that_fills_is_told_in_the_status_bar() -> None:
    """From half on."""
    model = HealthModel()
    model.set_status(status_of(depth=499), 0.0)
    assert {key: text for key, text, _ in model.summary()}["db_queue"] == ""
    model.set_status(status_of(depth=560), 1.0)
    assert ("db_queue", "DB queue 56%", "warn") in model.summary()


def test_drops_are_counted_by_window_and_store() -> None:
    """Those of windows since this one was opened: what came before is in the account, and no news."""
    model = HealthModel()
    model.set_status(status_of(dropped={"subscriber_restart": 500}, published=605), 0.0)
    assert model.drops == (0, 0)
    model.set_status(status_of(dropped={"subscriber_restart": 500, "oldest": 4}, published=609), 1.0)
    assert model.drops == (4, 0)


def test_no_graph_is_a_warning_and_a_gap_in_the_histories() -> None:
    """The line does not go on as if nothing had been."""
    model = HealthModel()
    model.set_status(status_of(depth=3), 0.0)
    model.set_status(None, 1.0)
    model.set_status(status_of(depth=5), 2.0)
    _, values = model.traces["db_queue"].arrays(2.0)
    assert values.tolist()[0] == 3
    assert math.isnan(values[1])
    model.set_status(None, 3.0)
    assert model.warnings() == ["no graph answers"]
    assert model.events_per_s == 0.0


# ---- processes ----


def test_cpu_and_memory_stand_beside_the_process_they_belong_to() -> None:
    """The supervisor here is this very process."""
    model, sampler = HealthModel(), ProcessSampler()
    model.set_status(status_of(), 0.0)
    model.set_samples(sampler.sample_processes([os.getpid()]))
    model.set_samples(sampler.sample_processes([os.getpid()]))
    found = {process.name: process for process in model.processes}
    rss_bytes, cpu_percent = found["supervisor"].rss_bytes, found["supervisor"].cpu_percent
    assert rss_bytes is not None
    assert rss_bytes > 1 << 20
    assert cpu_percent is not None
    assert found["router"].rss_bytes is None


def test_a_process_that_is_gone_has_no_figures() -> None:
    """And nothing fails."""
    assert ProcessSampler().sample_processes([0, -1, 2**22 + 1]) == {}


def test_workers_on_this_host_are_processes_while_their_proxy_serves_them() -> None:
    """By the pid that their stream names."""
    model, info = HealthModel(), here(make_info("ppo", pid=4_242))
    model.set_status(status_of(), 0.0)
    model.add([batch_of(info, "step", body=b"x"), batch_of(make_info("far", pid=1), "step", body=b"x")], 0.0)
    assert ("cart · ppo", 4_242) in [(process.name, process.pid) for process in model.processes]
    assert 4_242 in model.pids()
    model.set_status(status_of(worker="another"), 1.0)
    assert 4_242 not in model.pids()


def test_a_remote_graph_is_not_looked_up_in_this_hosts_processes() -> None:
    """Its pids mean nothing here."""
    model = HealthModel()
    model.set_status(status_of(), 0.0)
    model.is_local = False
    assert model.pids() == [os.getpid()]


def test_a_sample_is_due_once_a_second() -> None:
    """Whoever asks."""
    model = HealthModel()
    assert [model.is_due("sample", second) for second in (10.0, 10.1, 10.0 + SAMPLE_S)] == [True, False, True]


# ---- records ----


def test_log_lines_go_to_the_log() -> None:
    """With worker and run."""
    model = HealthModel()
    model.add([batch_of(here(make_info("ppo")), "log", LogRecord(1, 1, "info", "hello"))], 0.0)
    assert [(line.process, line.text) for line in model.log.lines] == [("ppo", "hello")]
    assert model.log.runs == [("run", "cart")]


def test_a_run_that_ends_badly_is_told() -> None:
    """By its proxy, with the exit code."""
    model, info = HealthModel(), here(make_info("proxy-ppo"))
    model.add([batch_of(info, "run", RunRecord(1, 1, "failed", {"exit_code": 137}))], 0.0)
    assert [alert.text for alert in model.alerts.alerts] == ["cart · worker exit 137", "cart · failed"]


def test_a_number_that_is_none_is_told() -> None:
    """A return, or a metric with its name; numbers that are well are not even decoded."""
    model, info = HealthModel(), here(make_info("ppo"))
    good = EpisodeRecord(1, 1, 0, 1, 5.0, 10, "terminated", 0.1)
    bad = EpisodeRecord(2, 1, 0, 2, math.nan, 10, "terminated", 0.1)
    model.add(
        [batch_of(info, "episode", good, bad), batch_of(info, "metric", MetricRecord(3, 1, "loss", -math.inf, 1))], 0.0
    )
    assert [alert.text for alert in model.alerts.alerts] == ["cart · return is NaN", "cart · loss is infinite"]
    model.add([batch_of(info, "metric", body=b"no MessagePack at all")], 0.0)
    assert len(model.alerts.alerts) == 2


def test_bytes_that_cannot_be_read_stop_nobody() -> None:
    """The telemetry model counts them."""
    model = HealthModel()
    model.add(
        [batch_of(make_info(), "log", body=b"\xff\xff"), batch_of(make_info(), "metric", body=b"\xcb\x7f\xf8")], 0.0
    )
    assert len(model.log.lines) == 0


def test_steps_are_not_looked_at_and_workers_are_bounded() -> None:
    """Only their streams are looked at."""
    model = HealthModel()
    for number in range(KEPT_WORKERS * 3):
        info = msgspec.structs.replace(make_info(), run=f"r{number}")
        model.add([batch_of(info, "step", body=b"x" * 10_000)], float(number))
    assert len(model.run_names()) == KEPT_WORKERS


# ---- the lane, the loop, the store ----


def test_frames_skipped_are_told_by_the_second() -> None:
    """From a total that may begin anew with another wall."""
    model = HealthModel()
    for second, skipped in enumerate((100, 103, 106, 2)):
        model.set_lane({"fps": 60.0, "age_p99_ms": 12.0, "skipped": skipped, "attached": 2, "lanes": 3}, float(second))
        if second == 2:
            assert model.lane.skipped_per_s == 3.0
    assert model.lane.skipped_per_s == 0.0
    assert (model.lane.attached, model.lane.lanes) == (2, 3)


def test_a_lane_without_frames_leaves_its_history_alone() -> None:
    """No age is not the age 0."""
    model = HealthModel()
    model.set_lane({"fps": 0.0, "age_p99_ms": None, "skipped": 0, "attached": 0, "lanes": 1}, 0.0)
    assert len(model.traces["lane_age"]) == 0
    model.set_loop(4.0, 30.0, 0.0)
    assert model.traces["stall"].newest == 4.0


def test_what_the_store_knows_is_there_when_the_window_opens() -> None:
    """Five minutes of the router's rate, and of commits."""
    model, wall_ns = HealthModel(), 10**18
    model.set_status(status_of(), 1_000.0)
    rows: list[tuple[str, str, float | None, int]] = []
    for ago_s in range(300, 0, -10):
        t_ns = wall_ns - ago_s * 10**9
        rows += [("router", "records_per_s", 100.0, t_ns), ("db_writer", "commit_p99_s", 0.01, t_ns)]
    model.set_store_figures(rows, 3, 1_000.0, wall_ns)
    seconds, values = model.traces["events"].arrays(1_000.0)
    assert (seconds[0], values[0], values[-1]) == (-300.0, 100.0, 500.0)
    assert not np.isnan(values).any()
    assert model.commit_p99_ms == pytest.approx(10.0)
    assert model.store_gaps == 3
    before = len(model.traces["commit"])
    model.set_store_figures(rows, 3, 1_001.0, wall_ns + 10**9)
    assert len(model.traces["commit"]) == before
    model.set_store_figures(rows, 3, 1_100.0, wall_ns + 100 * 10**9)
    assert model.commit_p99_ms is None


def test_this_window_is_the_queue_it_reads_from() -> None:
    """A second window is called otherwise."""
    model = HealthModel()
    model.set_bus(BusStatistics("gui-2", True, 1, 0, 1, {}, ""), 0.0)
    model.set_status(status_of(), 0.0)
    assert model.window_name == "gui-2"
    assert model.window_queue is None


@pytest.mark.parametrize(("size_bytes", "text"), [(12, "12 B"), (9_420_000, "9.42 MB"), (1_840_000_000, "1.84 GB")])
def test_sizes_are_said_as_people_say_them(size_bytes: int, text: str) -> None:
    """Three figures or so."""
    assert size_text(size_bytes) == text


# ---- histories ----


def test_a_history_is_as_long_as_its_window_and_no_longer() -> None:
    """However often it is told."""
    trace = Trace()
    for number in range(100_000):
        trace.add(float(number), number / 10)
    seconds, values = trace.arrays(9_999.9)
    assert len(trace) <= WINDOW_S / STEP_S + 1
    assert seconds[0] >= -WINDOW_S
    assert values[-1] == 99_999


def test_of_one_step_the_largest_value_stays() -> None:
    """A peak between two paints is not lost; of a rate the newest counts."""
    largest, last = Trace(), Trace("last")
    for trace in (largest, last):
        for at_s, value in ((0.0, 1.0), (0.1, 9.0), (0.2, 2.0)):
            trace.add(value, at_s)
    assert (largest.newest, last.newest) == (9.0, 2.0)
    assert largest.largest(0.2, 10.0) == 9.0


def test_a_long_silence_interrupts_the_line() -> None:
    """By a NaN where it ends."""
    trace = Trace()
    trace.add(1.0, 0.0)
    trace.add(2.0, 100.0)
    seconds, values = trace.arrays(100.0)
    assert seconds.tolist() == [-100.0, 0.0, 0.0]
    assert math.isnan(values[1])
