"""The demo's summary: what differs is found, marked and counted; what agrees is not."""

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from runlane.actors.store import Store
from runlane.config.load import shipped
from runlane.config.settings import DbWriterSettings, Settings
from runlane.demo_summary import (
    Evidence,
    Stored,
    WorkerReport,
    compare,
    print_hints,
    print_summary,
    read_report,
    stored_of,
)
from runlane.gui.run_view import SubscriberAccount
from runlane.transport.columns import step_dtype
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.records import EpisodeRecord
from runlane.transport.wire import STEP, Section

STEPS = StepSchema(
    schema_id=0,
    fields=[StepField("seq", "<u8"), StepField("t_ns", "<i8"), StepField("episode", "<u4"), StepField("reward", "<f8")],
)
DURABLE = SubscriberAccount(name="db_writer", overflow="block", max_queue=16384, published=100, delivered=100)
FAST = SubscriberAccount(
    name="gui", overflow="drop_oldest", max_queue=4096, published=100, delivered=60, dropped={"drop_oldest": 40}
)
GOOD = Evidence(
    report=WorkerReport(90, 9, 81.0, 9.0),
    stored=Stored(90, 90, 9, 81.0, 9.0, 0, 2.0),
    accounts=[DURABLE, FAST],
    exit_code=0,
    stop_code=0,
)


def _wrong(evidence: Evidence) -> list[str]:
    return [line.what.strip() for line in compare(evidence) if not line.is_equal]


def _with_stored(**changes: float) -> Evidence:
    assert GOOD.stored is not None
    return msgspec.structs.replace(GOOD, stored=msgspec.structs.replace(GOOD.stored, **changes))


def test_when_all_agrees_no_line_differs() -> None:
    """Drops of a lossy subscriber are accounted for, so they differ from nothing."""
    assert _wrong(GOOD) == []


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        (_with_stored(steps=89), "env steps"),
        (_with_stored(distinct_steps=89), "with a seq of their own"),
        (_with_stored(episodes=8), "episodes that ended"),
        (_with_stored(reward_sum=80.999), "sum of their rewards"),
        (_with_stored(mean_return=8.99), "mean return, last 100"),
        (_with_stored(drops=1), "noted as lost in database"),
        (msgspec.structs.replace(GOOD, report=None), "env steps"),
        (msgspec.structs.replace(GOOD, stored=None), "env steps"),
        (msgspec.structs.replace(GOOD, exit_code=1), "worker, exit code"),
        (msgspec.structs.replace(GOOD, exit_code=None), "worker, exit code"),
        (msgspec.structs.replace(GOOD, stop_code=1), "ordered stop, exit code"),
        (msgspec.structs.replace(GOOD, failure="it stopped"), "graph"),
        (
            msgspec.structs.replace(GOOD, accounts=[msgspec.structs.replace(FAST, delivered=61)]),
            "gui (drop_oldest 4096)",
        ),
    ],
)
def test_each_difference_is_found(evidence: Evidence, line: str) -> None:
    """One thing wrong, one line marked."""
    assert _wrong(evidence) == [line]


def test_a_drop_on_the_durable_path_is_a_failure_though_accounted_for() -> None:
    """There the promise is that nothing is lost, not that losses are counted."""
    dropped = msgspec.structs.replace(DURABLE, delivered=99, dropped={"oops": 1})
    assert _wrong(msgspec.structs.replace(GOOD, accounts=[dropped])) == ["dropped before db_writer"]


def test_sums_of_floats_may_differ_in_the_last_bits() -> None:
    """The worker and SQLite add in another order."""
    assert _wrong(_with_stored(reward_sum=81.0 * (1 + 1e-12))) == []


def test_stopped_early_the_exit_code_of_the_worker_is_no_promise() -> None:
    """It was told to end; its counts must agree all the same."""
    assert _wrong(msgspec.structs.replace(GOOD, exit_code=130, signal=2)) == []


def test_a_report_that_is_not_there_or_not_whole_is_none(tmp_path: Path) -> None:
    """A worker that crashed leaves none."""
    path = tmp_path / "report.json"
    assert read_report(path) is None
    path.write_text('{"steps": 1')
    assert read_report(path) is None
    path.write_text('{"steps": 1, "episodes": 2, "return_sum": 3.0, "mean_return": 1.5}')
    assert read_report(path) == WorkerReport(1, 2, 3.0, 1.5)


def test_without_a_database_nothing_is_stored(tmp_path: Path) -> None:
    """Which is an answer, not an error."""
    assert stored_of(tmp_path / "none.db", "run") is None


def test_the_database_is_asked_for_one_run(tmp_path: Path) -> None:
    """Three steps: two in an episode that ended, one in an abandoned one. Another run's are not counted."""
    store = Store(tmp_path / "runlane.db", DbWriterSettings())
    store.begin()
    for run, stream in (("mine", "a" * 32), ("other's", "b" * 32)):
        number = store.open_stream(
            StreamInfo(stream=stream, run=run, worker="w", host="h", pid=1, started_ns=0, schemas=[STEPS])
        )
        rows = np.array([(1, 0, 0, 2.0), (2, 5 * 10**8, 0, 3.0), (4, 10**9, 1, 7.0)], step_dtype(STEPS)).tobytes()
        store.insert_steps(number, STEPS, rows, Section(STEP, 0, 3, len(rows)))
        store.insert_records(
            number,
            "episode",
            [
                EpisodeRecord(3, 0, 0, 0, 5.0, 2, "terminated", 0.1),
                EpisodeRecord(5, 0, 0, 1, 7.0, 1, "abandoned", 0.1),
            ],
        )
        store.advance(number, 5)
    store.commit()
    store.close()
    expected = Stored(3, 3, 1, 5.0, 5.0, 0, 1.0)
    assert stored_of(tmp_path / "runlane.db", "mine") == expected
    assert stored_of(tmp_path / "runlane.db", "other's") == expected
    assert stored_of(tmp_path / "runlane.db", "none") == Stored(0, 0, 0, 0.0, 0.0, 0, 0.0)


def _printed(evidence: Evidence, settings: Settings, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, record=True, color_system=None, highlight=False)
    print_summary(console, settings, evidence, compare(evidence))
    return console.export_text(styles=False)


def test_the_summary_marks_in_words(settings: Settings) -> None:
    """Colour is not needed to see what differs."""
    text = _printed(_with_stored(steps=89, seconds=0), settings)
    (line,) = [line for line in text.splitlines() if line.startswith("env steps")]
    assert line.split() == ["env", "steps", "90", "89", "DIFFERS"]
    assert "1 of 11 lines differ" in text


def test_the_summary_fits_80_columns(settings: Settings) -> None:
    """No wrapped table at the sizes a demo reaches."""
    account = msgspec.structs.replace(FAST, published=1_058_002, delivered=1_050_002, dropped={"drop_oldest": 8_000})
    evidence = msgspec.structs.replace(_with_stored(seconds=0), accounts=[DURABLE, account])
    lines = _printed(evidence, settings).splitlines()
    assert any("1,050,002 + 8,000 + 0" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_hints_lead_to_the_same_data() -> None:
    """Options of the demo are repeated, its own settings file is not."""
    console = Console(file=io.StringIO(), width=200, record=True, color_system=None, highlight=False)
    print_hints(console, ["--config", str(shipped("demo.toml").absolute()), "--set", "data_dir=/a b"], "01run")
    text = console.export_text(styles=False)
    assert "runlane runs --set 'data_dir=/a b'" in text
    assert "WHERE run = '01run'" in text
    assert "demo.toml" not in text
