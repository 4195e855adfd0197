"""What the window reads of a run's past, from a database that the store itself wrote."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.actors.store_rig import SCHEMA, VECTOR, info, open_stream, put, put_steps

from runlane.actors.store import Store
from runlane.actors.store_reader import query
from runlane.config.settings import DbWriterSettings
from runlane.gui import telemetry_history
from runlane.gui.series import Envelope
from runlane.gui.store_source import SqlValue
from runlane.gui.telemetry_history import load_history, raw_rows
from runlane.gui.telemetry_model import LENGTH, RATE, RETURN, REWARD, SeriesKey, WorkerHistory
from runlane.transport.records import IS_RESET, EpisodeRecord, MetricRecord, Outcome

S = 1_000_000_000
STEP_NS = 10_000_000


class Reader:
    """The window's place at the database; keeps what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, Sequence[SqlValue]]] = []

    def runs(self) -> list[dict[str, Any]]:
        return []

    def curve(self, run: str, points: int) -> dict[str, Any]:
        return {"run": run, "points": [], "asked": points}

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        self.asked.append((sql, bindings))
        return query(self.path, sql, bindings)

    def size(self) -> tuple[int, int]:
        return 0, 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "runlane.db", DbWriterSettings(synchronous="NORMAL"))) as opened:
        yield opened


@pytest.fixture
def reader(store: Store) -> Reader:
    return Reader(store.path)


def episode(seq: int, value: float, length: int = 2, outcome: Outcome = "terminated") -> EpisodeRecord:
    return EpisodeRecord(seq, S + seq * STEP_NS, 0, seq, value, length, outcome, 0.1)


def metric(seq: int, value: float, name: str = "loss", step: int = 0) -> MetricRecord:
    return MetricRecord(seq, S + seq * STEP_NS, name, value, step or 10 * seq)


def finish(store: Store, stream_no: int, last_seq: int) -> None:
    store.begin()
    store.advance(stream_no, last_seq)
    store.commit()


def times(seqs: Sequence[int]) -> list[int]:
    return [S + seq * STEP_NS for seq in seqs]


def history(reader: Reader, worker: str = "w") -> WorkerHistory:
    return load_history(reader, "R")[worker]


def whole(curve: Envelope) -> tuple[float, float, float, float]:
    """Count, least, greatest and mean of all values behind a curve."""
    return (
        float(curve.count.sum()),
        float(np.nanmin(curve.low)),
        float(np.nanmax(curve.high)),
        float((curve.mean * curve.count).sum() / curve.count.sum()),
    )


# ---- curves ----


def test_curves_of_episodes_are_what_was_stored(store: Store, reader: Reader) -> None:
    """Return, length and reward a step by worker; an abandoned episode says nothing, another worker's neither."""
    stream_no, other = open_stream(store), open_stream(store, info(2, worker="other"))
    put_steps(store, stream_no, [1, 2, 3], SCHEMA, t_ns=times([1, 2, 3]), step=[1, 2, 3], reward=1.0)
    put(store, stream_no, "episode", episode(4, 3.0, 3), episode(5, 9.0, 7, "abandoned"), episode(6, -1.0, 5))
    put(store, other, "episode", episode(1, 100.0))
    finish(store, stream_no, 6)
    finish(store, other, 1)
    found = history(reader)
    assert (found.steps, found.episodes, found.last_seqs) == (3, 3, {f"{1:032x}": 6})
    assert found.series[RETURN].mean.tolist() == [3.0, -1.0]
    assert found.series[RETURN].step.tolist() == [3.0, 8.0]
    assert found.series[RETURN].episode.tolist() == [1.0, 2.0]
    assert found.series[RETURN].time == pytest.approx([1.04, 1.06])
    assert found.series[LENGTH].mean.tolist() == [3.0, 5.0]
    assert found.series[REWARD].mean.tolist() == [1.0, -0.2]
    assert history(reader, "other").series[RETURN].mean.tolist() == [100.0]


@pytest.mark.parametrize("most", [10_000, 1_000])
def test_long_histories_come_in_few_points_that_lose_no_spike(
    store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """From the rows, and beyond `MAX_SINGLE_EPISODES` from the DB writer's own counts, alike."""
    monkeypatch.setattr(telemetry_history, "MAX_SINGLE_EPISODES", most)
    stream_no, count = open_stream(store), 5_000
    values = [math.sin(number) for number in range(count)]
    values[1234] = 1e6
    put(store, stream_no, "episode", *(episode(1 + number, value) for number, value in enumerate(values)))
    finish(store, stream_no, count)
    found = history(reader)
    curve = found.series[RETURN]
    assert len(curve) <= telemetry_history.HISTORY_POINTS
    assert whole(curve) == pytest.approx((count, min(values), 1e6, sum(values) / count))
    assert (curve.step[-1], curve.episode[-1]) == (2 * count, count)
    assert np.nanmax(found.series[RATE].mean) == pytest.approx(200.0, rel=0.05)  # 2 steps in 10 ms


def test_metrics_of_all_incarnations_are_what_was_stored(store: Store, reader: Reader) -> None:
    """In order, at the user's step; NaN is a gap, a name of ours gets a second colon."""
    first, second = open_stream(store), open_stream(store, info(2, started_ns=200))
    put(store, first, "metric", metric(1, 0.5), metric(2, math.nan), metric(3, 7.0, ":return"))
    put(store, second, "metric", metric(1, 0.25, step=50), metric(2, 8.0, "other"))
    finish(store, first, 3)
    finish(store, second, 2)
    found = history(reader)
    assert list(found.series) == ["loss", "::return", "other"]
    assert np.array_equal(found.series["loss"].mean, [0.5, np.nan, 0.25], equal_nan=True)
    assert found.series["loss"].step.tolist() == [10.0, 20.0, 50.0]
    assert found.series["::return"].mean.tolist() == [7.0]


def test_names_are_limited_and_those_of_other_runs_do_not_count(
    store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first `MAX_METRICS` a worker logged."""
    monkeypatch.setattr(telemetry_history, "MAX_METRICS", 3)
    other, stream_no = open_stream(store, info(2, run="other")), open_stream(store)
    put(store, other, "metric", *(metric(1 + number, 1.0, f"a{number}") for number in range(20)))
    put(store, stream_no, "metric", *(metric(1 + number, 1.0, name) for number, name in enumerate("zyxba")))
    finish(store, stream_no, 5)
    assert list(history(reader).series) == ["z", "y", "x"]


def test_a_long_metric_is_sampled_and_its_newest_part_exact(
    store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more rows than the limits are read; counts and values of the old part are near, in order, and zoomable."""
    for name, value in (("METRIC_ROWS", 1_000), ("SAMPLES", 32), ("SAMPLE_ROWS", 8)):
        monkeypatch.setattr(telemetry_history, name, value)
    first, second = open_stream(store), open_stream(store, info(2, started_ns=200))
    put(store, first, "metric", *(metric(seq, float(seq)) for seq in range(1, 8_001)))
    put(store, second, "metric", *(metric(seq, 8_000.0 + seq, step=80_000 + seq) for seq in range(1, 4_001)))
    finish(store, first, 8_000)
    finish(store, second, 4_000)
    curve = history(reader).series["loss"]
    assert len(curve) <= telemetry_history.HISTORY_POINTS
    assert curve.high[-1] == 12_000.0
    is_newest = curve.low > 11_000.0
    assert whole(curve.part(is_newest)) == (1_000, 11_001.0, 12_000.0, 11_500.5)
    assert (np.diff(curve.step) > 0).all()
    assert curve.count[~is_newest].sum() == pytest.approx(11_000, rel=0.02)
    assert curve.count[~is_newest].min() > 1
    middle = np.cumsum(curve.count) - curve.count / 2
    assert curve.mean[~is_newest] == pytest.approx(middle[~is_newest], abs=400)
    assert curve.low[0] == 1.0


def test_no_question_about_metrics_sorts_or_goes_over_a_workers_rows(
    store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite looks up by index, newest first, and stops at the limit."""
    stream_no = open_stream(store)
    put(store, stream_no, "metric", *(metric(seq, 1.0) for seq in range(1, 100)))
    finish(store, stream_no, 99)
    monkeypatch.setattr(telemetry_history, "METRIC_ROWS", 50)
    history(reader)
    questions = [(sql, bindings) for sql, bindings in reader.asked if "metric_rows" in sql]
    assert len(questions) == 5
    for sql, bindings in questions:
        plan = [str(row[3]) for row in query(store.path, f"EXPLAIN QUERY PLAN {sql}", bindings)[1]]
        assert not [line for line in plan if line.startswith(("SCAN metric_rows", "SCAN r"))], plan
        if sql.startswith("SELECT count(*) FROM"):
            assert not [line for line in plan if "TEMP B-TREE" in line], plan


# ---- raw rows ----


def shown(last_seq: int) -> Envelope:
    """A merged curve over seqs 1 to `last_seq`: step and episode are the seq."""
    x = np.array([1.0, float(last_seq)])
    return Envelope(x, x, x, x, x, x, np.array(times([1, last_seq])) / 1e9)


def stretch(reader: Reader, name: str, first: int, last: int, most: int = 100) -> tuple[list[float], Any]:
    """Values of the rows from `first` to `last`, and what was answered."""
    found = raw_rows(reader, SeriesKey("R", "w", name), shown(most), 1 + first * 0.01 - 0.005, 1 + last * 0.01 - 0.005)
    return ([] if found is None else found.envelope.mean.tolist()), found


def test_rewards_of_a_stretch_are_the_rows(store: Store, reader: Reader) -> None:
    """Each step by itself, placed on the curve's axes by its time; the row of a reset is none."""
    stream_no, seqs = open_stream(store), list(range(1, 101))
    flags = [IS_RESET if seq == 25 else 0 for seq in seqs]
    put_steps(store, stream_no, seqs, SCHEMA, t_ns=times(seqs), reward=[seq / 2 for seq in seqs], flags=flags)
    values, found = stretch(reader, REWARD, 20, 30)
    assert values == [seq / 2 for seq in range(20, 31) if seq != 25]
    assert found.is_whole
    assert found.rows == 10
    assert found.envelope.step == pytest.approx([seq for seq in range(20, 31) if seq != 25])


def test_rewards_of_vector_steps_are_one_bucket_a_row(store: Store, reader: Reader) -> None:
    """Least, greatest and mean of all environments; NaN left out."""
    stream_no, seqs = open_stream(store), list(range(1, 11))
    rewards = [[seq, math.nan if seq == 4 else -seq] for seq in seqs]
    put_steps(store, stream_no, seqs, VECTOR, t_ns=times(seqs), reward=rewards)
    values, found = stretch(reader, REWARD, 3, 5)
    assert values == [0.0, 4.0, 0.0]
    assert found.envelope.low.tolist() == [-3.0, 4.0, -5.0]
    assert found.envelope.high.tolist() == [3.0, 4.0, 5.0]
    assert (found.rows, found.is_whole) == (6, False)


def test_returns_lengths_and_metrics_of_a_stretch_are_the_rows(store: Store, reader: Reader) -> None:
    """Of this name, in this stretch; there is no row of a rate."""
    stream_no = open_stream(store)
    put(store, stream_no, "episode", *(episode(seq, seq * 1.5, seq) for seq in range(1, 50)))
    put(store, stream_no, "metric", *(metric(seq, -seq, ("loss", ":x")[seq % 2]) for seq in range(50, 100)))
    finish(store, stream_no, 99)
    assert stretch(reader, RETURN, 10, 13)[0] == [15.0, 16.5, 18.0, 19.5]
    assert stretch(reader, LENGTH, 10, 13)[0] == [10.0, 11.0, 12.0, 13.0]
    assert stretch(reader, "loss", 60, 65)[0] == [-60.0, -62.0, -64.0]
    assert stretch(reader, "::x", 60, 65)[0] == [-61.0, -63.0, -65.0]
    assert stretch(reader, "unknown", 60, 65)[1] is None
    assert stretch(reader, RATE, 10, 13)[1] is None


def test_a_wide_stretch_comes_in_buckets_and_too_wide_a_one_not_at_all(
    store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No spike is lost in them."""
    stream_no, seqs = open_stream(store), list(range(1, 1001))
    rewards = [1e6 if seq == 500 else float(seq) for seq in seqs]
    put_steps(store, stream_no, seqs, SCHEMA, t_ns=times(seqs), reward=rewards)
    monkeypatch.setattr(telemetry_history, "RAW_ROWS", 100)
    _, found = stretch(reader, REWARD, 101, 900, 1000)
    assert len(found.envelope) <= 100
    assert (found.rows, found.is_whole) == (800, False)
    assert whole(found.envelope) == pytest.approx((800, 101.0, 1e6, sum(rewards[100:900]) / 800))
    monkeypatch.setattr(telemetry_history, "MAX_SEQS", 500)
    assert stretch(reader, REWARD, 101, 900, 1000)[1] is None
