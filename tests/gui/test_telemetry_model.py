"""The telemetry model: rings, curves, returns as they grow, and what it knows to be missing. No window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry_batches import EPISODE_STEPS, START_NS, BatchSource, reset_rows

from runlane.gui import telemetry_model
from runlane.gui.column_ring import EPISODE_ROW, STEP_ROW, ColumnRing
from runlane.gui.series import Envelope, Series
from runlane.gui.telemetry_model import (
    KEPT_STEPS,
    LENGTH,
    RATE,
    RETURN,
    REWARD,
    SeriesKey,
    TelemetryModel,
    WorkerHistory,
)
from runlane.transport.messages import StreamInfo
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import EpisodeRecord, LogRecord


def curve(model: TelemetryModel, name: str, run: str = "run-1") -> Envelope:
    series = model.series(SeriesKey(run, "w", name))
    assert series is not None
    return series.envelope()


def test_steps_stand_in_the_ring_as_they_were_sent() -> None:
    """Every column of a step arrives, and its source is known by number."""
    model, source = TelemetryModel(), BatchSource(run_name="ppo")
    rows = source.rows(3)
    rows["reward"], rows["action"], rows["env_index"] = [0.5, -1.0, np.nan], [2, 0, 1], 7
    model.add([source.steps(rows)], 0.0)
    kept = model.steps.everything()
    assert kept["seq"].tolist() == [1, 2, 3]
    assert kept["step"].tolist() == [1, 2, 3]
    assert kept["action"].tolist() == [2.0, 0.0, 1.0]
    assert kept["env_index"].tolist() == [7, 7, 7]
    assert kept["t_ns"][0] == START_NS
    assert np.array_equal(kept["reward"], [0.5, -1.0, np.nan], equal_nan=True)
    assert model.sources[int(kept["source"][0])].run_name == "ppo"


def test_the_return_grows_with_the_episode_across_batches() -> None:
    """It begins anew with every episode, whatever the batches' borders."""
    model, source = TelemetryModel(), BatchSource()
    for count in (30, 1, 90, 129):
        model.add([source.steps(count)], 0.0)
    expected = [float(number % EPISODE_STEPS + 1) for number in range(250)]
    assert model.steps.everything()["return"].tolist() == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 5))
def test_the_return_is_the_sum_of_rewards_for_each_environment(counts: list[int], envs: int) -> None:
    """Rows of several environments in any order of batches: each return is the plain sum since step 1."""
    model, source = TelemetryModel(), BatchSource(env_count=envs)
    rng = np.random.default_rng(len(counts))
    rewards: list[np.ndarray] = []
    for count in counts:
        rows = source.rows(count)
        rows["reward"] = rng.normal(size=(count, envs))
        rewards.append(np.array(rows["reward"]))
        model.add([source.steps(rows)], 0.0)
    every = np.concatenate(rewards)
    begun = np.arange(len(every)) // EPISODE_STEPS * EPISODE_STEPS
    expected = [every[begun[i] : i + 1].sum(axis=0) for i in range(len(every))]
    assert model.steps.everything()["return"].reshape(-1, envs) == pytest.approx(np.array(expected))


def test_a_return_is_unknown_from_a_missing_step_to_the_end_of_its_episode() -> None:
    """No guess is shown; the next episode is known again."""
    model, source = TelemetryModel(), BatchSource()
    model.add([source.steps(50)], 0.0)
    lost = source.steps(10)
    model.add([source.steps(60)], 0.1)
    returns = model.steps.everything()["return"]
    assert len(lost) == model.missed == 10
    assert np.isnan(returns[50:90]).all()
    assert returns[90:].tolist() == [float(number) for number in range(1, 21)]


def test_a_window_that_opens_in_an_episode_does_not_know_its_return() -> None:
    """What came before is not counted as dropped, either."""
    model, source = TelemetryModel(), BatchSource()
    source.steps(40)
    model.add([source.steps(20)], 0.0)
    assert np.isnan(model.steps.everything()["return"]).all()
    assert model.missed == 0
    assert model.needs_history("run-1")


def test_a_reset_is_no_step() -> None:
    """It has its row in the table, and no part in rates, rewards and returns."""
    model, source = TelemetryModel(), BatchSource()
    model.add([source.steps(reset_rows(source)), source.steps(source.rows(5))], 0.0)
    assert model.received_steps == 5
    assert len(model.steps) == 6
    assert len(curve(model, REWARD)) == 5


def test_an_episode_is_placed_by_its_seq_among_the_steps() -> None:
    """x by environment step is exact for a stream seen from its beginning."""
    model, source = TelemetryModel(), BatchSource()
    model.add([source.steps(100), source.episodes([1.0]), source.steps(100), source.episodes([5.0])], 0.0)
    found = curve(model, RETURN)
    assert found.mean.tolist() == [1.0, 5.0]
    assert found.step.tolist() == [100.0, 200.0]
    assert found.episode.tolist() == [1.0, 2.0]
    assert curve(model, LENGTH).mean.tolist() == [100.0, 100.0]
    assert model.episodes.everything()["return"].tolist() == [1.0, 5.0]


def test_a_vector_step_counts_for_every_environment() -> None:
    """8 environments make 8 steps with one record."""
    model, source = TelemetryModel(), BatchSource(env_count=8)
    model.add([source.steps(10), source.episodes([3.0])], 0.0)
    assert model.received_steps == len(model.steps) == 80
    assert curve(model, RETURN).step.tolist() == [80.0]
    assert sorted(set(model.steps.everything()["env_index"].tolist())) == list(range(8))


def test_metrics_stand_at_the_users_own_step() -> None:
    """A name with a colon in front does not meet one of ours."""
    model, source = TelemetryModel(), BatchSource()
    model.add([source.metric("loss", 0.5, 1000), source.metric(":return", 0.25, 2000)], 0.0)
    assert curve(model, "loss").step.tolist() == [1000.0]
    assert curve(model, "::return").mean.tolist() == [0.25]
    assert model.names(["run-1"]) == ["::return", "loss"]


def test_the_rate_is_by_the_workers_clock() -> None:
    """A millisecond a step is 1,000 steps a second."""
    model, source = TelemetryModel(), BatchSource()
    for _ in range(12):
        model.add([source.steps(100)], 0.0)
    assert curve(model, RATE).mean == pytest.approx([1000.0] * 2, rel=0.01)


def test_missing_records_move_the_axis_by_about_as_many_steps() -> None:
    """The step axis goes on where the worker is, and not where we are."""
    model, source = TelemetryModel(), BatchSource()
    model.add([source.steps(1000)], 0.0)
    source.skip(500)
    model.add([source.steps(100), source.episodes([1.0])], 1.0)
    assert curve(model, RETURN).step.tolist() == [1600.0]


def test_a_batch_that_comes_twice_counts_once() -> None:
    """As after a router's restart."""
    model, source = TelemetryModel(), BatchSource()
    batch, other = source.steps(10), source.steps(10)
    model.add([batch, other, batch], 0.0)
    model.add([batch], 0.0)
    assert len(model.steps) == 20


def test_bad_batches_are_counted_and_never_raised() -> None:
    """Garbage, a schema nobody announced, numbers beyond 63 bits; and what follows is taken in."""
    model, source = TelemetryModel(), BatchSource()
    unknown = source.steps(4)
    info = StreamInfo(stream=source.info.stream, run="run-1", worker="w", host="", pid=1, started_ns=0)
    bad = [
        source.garbage("step"),
        source.garbage("episode"),
        source.garbage("metric"),
        RecordBatch(info, unknown.header, unknown.section, unknown.body),
        source.records([EpisodeRecord(source.next_seq, 1, 1 << 40, 1 << 70, 1.0, 5, "terminated", 0.1)]),
    ]
    for batch in bad:
        model.add([batch], 0.0)
    assert model.rejected == 10
    model.add([source.records([LogRecord(source.next_seq, 1, "info", "x")]), source.steps(5)], 0.0)
    assert model.rejected == 10
    assert len(model.steps) == 5


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, runs, workers and names: the newest stay."""
    for name, most in (("KEPT_RUNS", 3), ("KEPT_WORKERS", 2), ("KEPT_NAMES", 6), ("KEPT_STREAMS", 4)):
        monkeypatch.setattr(telemetry_model, name, most)
    model = TelemetryModel()
    for number in range(5):
        source = BatchSource(f"run-{number}")
        model.add([source.steps(20_000), *(source.metric(f"m{i}", 1.0, i) for i in range(10))], 0.0)
    assert model.runs() == ["run-2", "run-3", "run-4"]
    assert len(model.keys("run-4")) == 6
    assert len(model.steps) == KEPT_STEPS
    for number in range(5):
        model.add([BatchSource("run-4", f"w{number}").steps(10)], 0.0)
    assert len({key.worker for key in model.keys("run-4")}) == 2


def test_a_removed_run_leaves_nothing() -> None:
    """No curve, no row of its own; those of others stay."""
    model, gone, stays = TelemetryModel(), BatchSource("gone"), BatchSource("stays")
    model.add([gone.steps(10), stays.steps(7), gone.episodes([1.0])], 0.0)
    model.forget("gone")
    assert model.runs() == ["stays"]
    assert len(model.steps) == 7
    assert len(model.episodes) == 0
    assert [source.run for source in model.sources.values()] == ["stays"]
    model.add([gone.steps(5)], 0.0)
    assert len(model.steps) == 12


def test_history_goes_in_front_and_makes_the_axes_exact() -> None:
    """What the store has counts up to what it has stored; what came live since is added."""
    model, source = TelemetryModel(), BatchSource()
    source.steps(1_000)
    source.episodes([0.0] * 10)
    model.add([source.steps(100), source.episodes([7.0])], 0.0)
    assert model.needs_history("run-1")
    model.history_asked("run-1")
    assert not model.needs_history("run-1")
    old = np.array([1.0, 2.0])
    before = Envelope(old, old, old, old, old * 500, old * 5, old)
    history = WorkerHistory(1_100, 11, {source.info.stream: source.next_seq - 1}, {RETURN: before})
    model.set_history("run-1", {"w": history})
    found = curve(model, RETURN)
    assert found.mean.tolist() == [1.0, 2.0, 7.0]
    assert found.step.tolist() == [500.0, 1000.0, 1100.0]
    assert found.episode.tolist() == [5.0, 10.0, 11.0]


def test_what_comes_after_history_goes_on_where_the_store_ends() -> None:
    """What was before the first batch is on the axis already; only what the store had not yet is added."""
    for unstored in (0, 50):
        model, source = TelemetryModel(), BatchSource()
        source.steps(1_000)
        source.episodes([0.0] * 10)
        old = np.array([1.0, 2.0])
        before = Envelope(old, old, old, old, old * 500, old * 5, old)
        history = WorkerHistory(1_000, 10, {source.info.stream: source.next_seq - 1}, {RETURN: before})
        model.set_history("run-1", {"w": history})
        source.steps(unstored)
        model.add([source.steps(100), source.episodes([7.0])], 0.0)
        found = curve(model, RETURN)
        assert found.mean.tolist() == [1.0, 2.0, 7.0]
        assert found.step.tolist() == [500.0, 1000.0, 1100.0 + unstored]
        assert found.episode.tolist() == [5.0, 10.0, 11.0]
        assert model.missed == 0


def test_missing_records_are_counted_by_run() -> None:
    """A plot says what its own runs miss; a run that is forgotten misses nothing."""
    model, one, other = TelemetryModel(), BatchSource("one"), BatchSource("other")
    for source, lost in ((one, 30), (other, 4)):
        model.add([source.steps(10)], 0.0)
        source.skip(lost)
        model.add([source.steps(10)], 1.0)
    assert (model.missed_of(["one"]), model.missed_of(["one", "other"]), model.missed) == (30, 34, 34)
    assert model.missed_of(["unknown"]) == 0
    model.forget("one")
    assert model.missed_of(["one", "other"]) == 4


def test_a_run_seen_from_its_first_record_needs_no_history() -> None:
    """One that nobody heard of does."""
    model, source = TelemetryModel(), BatchSource()
    model.add([source.steps(10)], 0.0)
    assert not model.needs_history("run-1")
    assert model.needs_history("another")
    assert not model.needs_history("")


# ---- series ----


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.integers(0, 10**6))
def test_a_series_keeps_every_spike_and_the_exact_mean(counts: list[int], seed: int) -> None:
    """However it is fed, and however often neighbours are merged."""
    rng, series = np.random.default_rng(seed), Series(points=64)
    parts = [rng.normal(size=count) for count in counts]
    values, at = np.concatenate(parts), 0
    values[int(rng.integers(len(values)))] = 1e6
    for count in counts:
        x = np.arange(at + 1, at + count + 1, dtype=np.float64)
        series.add(values[at : at + count], x, x * 2, x * 3)
        at += count
    found = series.envelope()
    assert len(found) <= 64
    assert found.count.sum() == len(values)
    assert found.high.max() == values.max()
    assert found.low.min() == values.min()
    assert (found.mean * found.count).sum() == pytest.approx(values.sum())
    assert found.step[-1] == len(values)
    assert (np.diff(found.step) > 0).all()
    starts = np.concatenate(([0], np.cumsum(found.count)[:-1])).astype(int)
    assert np.array_equal(found.high, np.maximum.reduceat(values, starts))


def test_nan_is_passed_over_and_infinity_is_kept() -> None:
    """A bucket of NaN alone has no number."""
    series = Series(points=4)
    for number, value in enumerate([np.nan, np.nan, 1.0, np.nan, np.inf, 2.0, 3.0, 4.0]):
        series.add_one(value, number, number, number)
    found = series.envelope()
    assert np.array_equal(found.low, [np.nan, 1.0, 2.0, 3.0], equal_nan=True)
    assert np.array_equal(found.high, [np.nan, 1.0, np.inf, 4.0], equal_nan=True)


def test_an_odd_number_of_points_is_refused() -> None:
    """Every bucket needs a neighbour."""
    with pytest.raises(ValueError, match="points=5"):
        Series(points=5)


# ---- ring ----


@given(st.lists(st.integers(0, 37), max_size=20))
def test_a_ring_holds_the_newest_rows_in_order(counts: list[int]) -> None:
    """Their numbers say which they are."""
    ring, at = ColumnRing(EPISODE_ROW, 16), 0
    for count in counts:
        rows = np.zeros(count, EPISODE_ROW)
        rows["seq"] = np.arange(at, at + count)
        ring.add(rows)
        at += count
        assert ring.total == at
        assert ring.everything()["seq"].tolist() == list(range(max(0, at - 16), at))
        assert ring.part(at - 3, at + 5)["seq"].tolist() == list(range(max(0, at - 16, at - 3), at))


def test_rows_of_a_ring_are_copies() -> None:
    """What a table holds still does not change under it."""
    ring = ColumnRing(STEP_ROW, 4)
    ring.add(np.zeros(4, STEP_ROW))
    held = ring.everything()
    rows = np.zeros(4, STEP_ROW)
    rows["seq"] = 9
    ring.add(rows)
    assert held["seq"].tolist() == [0, 0, 0, 0]
