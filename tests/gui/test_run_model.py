"""RunModel: the store's rows and the bus's records make one list, which never counts twice and never runs back."""

import time
from typing import Any

import pytest
from PySide6.QtCore import QModelIndex
from pytestqt.qtbot import QtBot
from run_rig import episode, info_of, records_of, row, run_record, status_of, steps_of

from runlane.gui.run_card_view import rate_words
from runlane.gui.run_entry import RunEntry, facts_of, script_of
from runlane.gui.run_filter import RunFilter
from runlane.gui.run_model import KEPT_LIVE, LIVE_WORD_S, UNSTORED_S, RunModel, RunRole


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock_s() -> Clock:
    return Clock()


@pytest.fixture
def model(clock_s: Clock) -> RunModel:
    return RunModel(clock=clock_s)


def entry_of(model: RunModel, number: int = 1) -> RunEntry:
    found = model.entry(f"run{number:06}")
    assert found is not None
    return found


def test_runs_stand_newest_first_whatever_comes_when(model: RunModel) -> None:
    """A run of the bus that the store does not know yet takes its place by its start."""
    model.set_rows([row(3), row(1)])
    model.add([steps_of(info_of("run000002"), 1, 4)], 100.0)
    assert [entry.run for entry in model.entries()] == ["run000002", "run000003", "run000001"]
    assert model.newest() == "run000002"


def test_live_and_stored_steps_are_never_added(model: RunModel, clock_s: Clock) -> None:
    """The larger count is shown: 50 of the bus are among the store's 100."""
    model.set_rows([row(1, state="running")])
    model.add([steps_of(info_of(), 51, 50)], clock_s.now_s)
    assert entry_of(model).steps == 100
    model.add([steps_of(info_of(), 101, 100)], clock_s.now_s + 1)
    assert entry_of(model).steps == 150


def test_a_count_never_runs_backwards(model: RunModel) -> None:
    """An older answer of the store does not take back what was shown."""
    model.set_rows([row(1, steps=500, episodes=50)])
    model.set_rows([row(1, steps=400, episodes=40)])
    assert (entry_of(model).steps, entry_of(model).episodes) == (500, 50)


def test_a_record_that_comes_twice_counts_once(model: RunModel) -> None:
    """As after a router's restart."""
    info = info_of()
    model.add([steps_of(info, 1, 10), steps_of(info, 1, 10), records_of(info, episode(11, 3.0))], 100.0)
    model.add([records_of(info, episode(11, 3.0))], 101.0)
    assert (entry_of(model).steps, entry_of(model).episodes) == (10, 1)


def test_returns_and_rewards_are_live(model: RunModel) -> None:
    """Rolling and best return, newest reward, rate."""
    info = info_of()
    model.add([records_of(info, episode(1, 3.0), episode(2, 5.0)), steps_of(info, 3, 60, 0.25)], 100.0)
    model.add([steps_of(info, 63, 60, 0.75)], 101.0)
    entry = entry_of(model)
    assert (entry.mean_return, entry.best_return, entry.last_reward) == (4.0, 5.0, 0.75)
    assert entry.sparkline == (3.0, 5.0)
    assert entry.step_rate_hz == pytest.approx(120.0, rel=0.6)


def test_a_rate_falls_to_nothing_without_records(model: RunModel, clock_s: Clock) -> None:
    """Each answer of the store looks at the clock, too."""
    model.add([steps_of(info_of(), 1, 1000)], clock_s.now_s)
    clock_s.now_s += 20
    model.set_rows([row(1, state="running")])
    assert entry_of(model).step_rate_hz == 0.0


def test_an_end_is_seen_at_once_and_an_older_answer_does_not_undo_it(model: RunModel, clock_s: Clock) -> None:
    """The bus's word counts for some seconds; then the store's does."""
    model.set_rows([row(1, state="running")])
    assert model.alive() == {"run000001"}
    info = info_of()
    model.add([records_of(info, run_record(1, "running"))], clock_s.now_s)
    model.add([records_of(info, run_record(2, "finished"))], clock_s.now_s + 1)
    model.set_rows([row(1, state="running")])
    assert model.alive() == set()
    clock_s.now_s += LIVE_WORD_S + 2
    model.set_rows([row(1, state="lost")])
    assert entry_of(model).state == "lost"


def test_a_proxys_word_ends_the_worker_it_serves(model: RunModel) -> None:
    """A killed worker cannot say so itself."""
    model.add([records_of(info_of(), run_record(1, "running"))], 100.0)
    model.add([records_of(info_of(worker="proxy-worker", stream="1" * 32), run_record(1, "killed"))], 101.0)
    assert entry_of(model).state == "killed"


def test_late_steps_do_not_wake_an_ended_run(model: RunModel) -> None:
    """An end may overtake the last steps of its stream in a lossy queue."""
    info = info_of()
    model.add([records_of(info, run_record(1, "running")), records_of(info, run_record(9, "finished"))], 100.0)
    model.add([steps_of(info, 2, 7)], 101.0)
    assert entry_of(model).state == "finished"
    assert entry_of(model).steps == 7


def test_config_tells_environment_algorithm_progress_and_eta(model: RunModel, clock_s: Clock) -> None:
    """By the names that people use."""
    config = {"env_id": "ALE/Pong-v5", "algo": "DQN", "total_timesteps": 400, "tags": ["a", "b"]}
    info = info_of()
    model.add([records_of(info, run_record(1, "running", config=config)), steps_of(info, 2, 100)], clock_s.now_s)
    entry = entry_of(model)
    assert (entry.subtitle, entry.tags, entry.progress) == ("DQN · ALE/Pong-v5", ("a", "b"), 0.25)
    assert entry.eta_s == pytest.approx(300 / entry.step_rate_hz)


def test_steps_that_were_not_kept_count_by_the_workers_own_word(model: RunModel, clock_s: Clock) -> None:
    """Told as it switches its mode; progress and the time left go on from there."""
    info = info_of()
    config = {"total_timesteps": 1_000}
    model.add([records_of(info, run_record(1, "running", config=config)), steps_of(info, 2, 100)], clock_s.now_s)
    off = run_record(102, "running", telemetry_mode="fast_lane_only", env_steps=100)
    model.add([records_of(info, off)], clock_s.now_s + 1)
    assert entry_of(model).steps == 100
    on = run_record(104, "running", telemetry_mode="dual_path", env_steps=400)
    model.add([steps_of(info, 105, 50), records_of(info, on)], clock_s.now_s + 2)  # a batch has its steps first
    assert entry_of(model).steps == 450
    model.add([steps_of(info, 155, 50)], clock_s.now_s + 3)
    entry = entry_of(model)
    assert (entry.steps, entry.progress) == (500, 0.5)
    assert entry.eta_s == pytest.approx(500 / entry.step_rate_hz)


def test_a_workers_word_never_counts_steps_twice(model: RunModel) -> None:
    """Of each stream by itself, and not where all of them came by."""
    one, two = info_of(), info_of(stream="1" * 32)
    model.add([steps_of(one, 1, 100), steps_of(two, 1, 30)], 100.0)
    told = run_record(101, "running", telemetry_mode="durable_only", env_steps=100)
    model.add([records_of(one, told), records_of(one, told)], 101.0)
    assert entry_of(model).steps == 130


def test_what_is_not_kept_is_not_shown_as_standing_still(model: RunModel) -> None:
    """A card says so in place of a rate of 0."""
    model.set_rows([row(1, state="running")])
    assert rate_words(entry_of(model)) == "0 steps/s"
    model.set_status(status_of(("run000001", "a", "fast_lane_only")))
    assert rate_words(entry_of(model)) == "not kept"
    model.set_status(status_of(("run000001", "a", "fast_lane_only"), ("run000001", "b", "dual_path")))
    assert rate_words(entry_of(model)) == "0 steps/s"
    model.set_status(None)
    assert rate_words(entry_of(model)) == "0 steps/s"


def test_facts_of_the_store_are_read_as_the_bus_told_them() -> None:
    """JSON of two columns; what is none is passed over."""
    assert facts_of('{"env": "X"}', '{"host": "h"}') == {"host": "h", "config": {"env": "X"}}
    assert facts_of(None, "{broken")["config"] is None
    assert script_of("/usr/bin/python -m a.b --x 1") == "a.b"
    assert script_of("python /here/train.py --x 1") == "train.py"


def test_workers_and_mode_come_from_the_status(model: RunModel) -> None:
    """And go with the graph."""
    model.set_rows([row(1, state="running")])
    model.set_status(status_of(("run000001", "a", "dual_path"), ("run000001", "b", "durable_only")))
    assert entry_of(model).worker_names == ("a", "b")
    assert entry_of(model).telemetry_mode == "mixed"
    model.set_status(status_of(("run000001", "a", "durable_only"), ("run000001", "b", "durable_only")))
    assert entry_of(model).telemetry_mode == "durable_only"
    both = [{"run": "run000001", "worker": "c", "telemetry_mode": "fast_lane_only"}, {"run": "x", "worker": "d"}]
    status = status_of(("run000001", "a", ""))
    status.children[0].statistics["workers"] = both
    model.set_status(status)
    assert (entry_of(model).worker_names, entry_of(model).telemetry_mode) == (("c",), "fast_lane_only")
    model.set_status(None)
    assert (entry_of(model).worker_names, entry_of(model).telemetry_mode) == ((), "")


def test_a_run_is_found_by_id_beginning_or_name(model: RunModel) -> None:
    """A beginning that two have is none."""
    model.set_rows([row(12, name="same"), row(11, name="same"), row(2)])
    assert model.find("run000012") == "run000012"
    assert model.find("run000002"[:9]) == "run000002"
    assert model.find("run00001") == ""
    assert model.find("same") == "run000012"
    assert model.find("") == ""


def test_a_deleted_run_leaves_and_an_unknown_one_is_forgotten_when_silent(model: RunModel, clock_s: Clock) -> None:
    """What the store no longer has is gone; what it never had stays as long as it is heard of."""
    model.set_rows([row(2), row(1)])
    model.set_rows([row(2)])
    assert [entry.run for entry in model.entries()] == ["run000002"]
    model.add([steps_of(info_of("run000009"), 1, 5)], clock_s.now_s)
    model.set_rows([row(2)])
    assert model.newest() == "run000009"
    clock_s.now_s += UNSTORED_S + 1
    model.set_rows([row(2)])
    assert model.newest() == "run000002"
    assert model.alive() == set()


def test_colours_stay_when_runs_come(model: RunModel) -> None:
    """The oldest has the first colour, also when the bus told of a newer one first."""
    model.add([steps_of(info_of("run000002"), 1, 1)], 100.0)
    model.set_rows([row(2), row(1)])
    before = entry_of(model, 1).color_index, entry_of(model, 2).color_index
    model.set_rows([row(3), row(2), row(1)])
    assert before == (0, 1)
    assert [entry.color_index for entry in model.entries()] == [2, 1, 0]


def test_only_changed_rows_are_told(qtbot: QtBot, model: RunModel) -> None:
    """The same answer again tells nothing; one other row tells of that row."""
    model.set_rows([row(3), row(2), row(1)])
    with qtbot.assertNotEmitted(model.dataChanged), qtbot.assertNotEmitted(model.modelReset):
        model.set_rows([row(3), row(2), row(1)])
    told: list[tuple[int, int]] = []

    def note(first: QModelIndex, last: QModelIndex) -> None:
        told.append((first.row(), last.row()))

    model.dataChanged.connect(note)
    model.set_rows([row(3), row(2, steps=101), row(1)])
    assert told == [(1, 1)]


def test_what_is_kept_of_the_bus_is_bounded(model: RunModel) -> None:
    """Of more runs than that the figures seen are forgotten, the longest silent first."""
    for number in range(KEPT_LIVE + 40):
        model.add([steps_of(info_of(f"run{number:06}"), 1, 1)], 100.0)
    assert len(model._live) == KEPT_LIVE  # pyright: ignore[reportPrivateUsage]
    assert model.rowCount() == KEPT_LIVE + 40


def test_ten_thousand_runs_cost_little_each_second(model: RunModel) -> None:
    """An answer with one changed row stays far below what a tick may take."""
    rows = [row(number) for number in range(10_000, 0, -1)]
    model.set_rows(rows)
    rows[5_000] = {**rows[5_000], "steps": 101}
    took_s = min(_timed(lambda: model.set_rows([dict(known) for known in rows])) for _ in range(3))
    assert model.rowCount() == 10_000
    assert took_s < 0.1, f"{took_s * 1e3:.0f} ms"


def test_a_search_through_ten_thousand_runs_is_quick(model: RunModel) -> None:
    """As somebody types."""
    model.set_rows([row(number, state="failed" if number % 10 else "running") for number in range(10_000, 0, -1)])
    found = RunFilter(model)
    took_s = _timed(lambda: found.set_text("state:failed name-99"))
    assert found.rowCount() == sum(str(n).startswith("99") and n % 10 != 0 for n in range(1, 10_001))
    assert took_s < 0.3, f"{took_s * 1e3:.0f} ms"


def _timed(call: Any) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


def test_views_and_qml_read_the_same_values(model: RunModel) -> None:
    """By role."""
    model.set_rows([row(1)])
    index = model.index(0)
    assert index.data(RunRole.ENTRY) is model.entry("run000001")
    assert (index.data(RunRole.RUN), index.data(RunRole.STEPS), index.data()) == ("run000001", 100, "name-1")
    assert bytes(model.roleNames()[RunRole.STATE].data()) == b"state"
