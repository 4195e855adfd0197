"""A curve accounts for every episode of a run, shows every spike, and reads little however long the run is."""

# The plans of the very statements are looked at:
# pyright: reportPrivateUsage=false

import io
import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner
from unit.actors.store_rig import info, open_stream, put

from runlane.actors import return_curve as module
from runlane.actors.return_curve import BUCKETS_PER_POINT, ReturnCurve, coarser, level_for, return_curve
from runlane.actors.store import Store
from runlane.actors.store_file import open_readonly
from runlane.cli import app
from runlane.config.errors import StoreError
from runlane.config.settings import DbWriterSettings
from runlane.gui import curve_table
from runlane.transport.records import EpisodeRecord

NAN = float("nan")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "runlane.db", DbWriterSettings(synchronous="NORMAL"))) as opened:
        yield opened


def episodes(first: int, last: int, t_ns: int = 0, step_ns: int = 1) -> list[EpisodeRecord]:
    """Episodes whose return is their seq, one after the other in time."""
    return [
        EpisodeRecord(seq, t_ns + step_ns * seq, 0, seq, float(seq), 3, "terminated", 0.1)
        for seq in range(first, last + 1)
    ]


def check_account(curve: ReturnCurve, returns: list[float]) -> None:
    """Every episode in one point, none in two, extremes exact, in order of time."""
    assert curve.episodes == sum(point.episodes for point in curve.points) == len(returns)
    assert sum(point.steps for point in curve.points) == 3 * len(returns)
    assert min(point.min_return or 0.0 for point in curve.points) == min(returns)
    assert max(point.max_return or 0.0 for point in curve.points) == max(returns)
    total = sum((point.mean_return or 0.0) * point.episodes for point in curve.points)
    assert math.isclose(total, sum(returns))
    assert [point.last_t_ns for point in curve.points] == sorted(point.last_t_ns for point in curve.points)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 79, 255, 256, 257, 4095, 4096, 4101])
@pytest.mark.parametrize("points", [1, 3, 40])
def test_every_episode_is_in_one_point(store: Store, count: int, points: int) -> None:
    """At, before and behind the ends of buckets, from single episodes to the third level."""
    put(store, open_stream(store), "episode", *episodes(1, count))
    curve = return_curve(store.path, "R", points)
    assert 1 <= len(curve.points) <= points
    check_account(curve, [float(seq) for seq in range(1, count + 1)])


def test_points_are_about_as_wide_as_each_other(store: Store) -> None:
    """So that a curve over episodes is not bent by how it is stored."""
    put(store, open_stream(store), "episode", *episodes(1, 4000))
    widths = [point.episodes for point in return_curve(store.path, "R", 40).points]
    assert len(widths) == 40
    assert max(widths) <= 2 * min(widths)


def test_a_spike_of_one_episode_is_seen(store: Store) -> None:
    """Also in three points for a thousand episodes."""
    records = episodes(1, 1000)
    records[500] = EpisodeRecord(501, 501, 0, 501, -9000.0, 3, "terminated", 0.1)
    put(store, open_stream(store), "episode", *records)
    assert [point.min_return for point in return_curve(store.path, "R", 3).points] == [1.0, -9000.0, 673.0]


def test_workers_are_merged_by_time(store: Store) -> None:
    """Two workers at once and one after them: one curve over all their episodes."""
    for number, t_ns in ((1, 0), (2, 0), (3, 10**6)):
        put(store, open_stream(store, info(number, worker=f"w{number}")), "episode", *episodes(1, 600, t_ns))
    curve = return_curve(store.path, "R", 6)
    check_account(curve, [float(seq) for seq in range(1, 601)] * 3)
    assert [point.first_t_ns > 10**6 for point in curve.points].count(True) == 2


def test_other_runs_are_not_in_it(store: Store) -> None:
    """Nor is a run without episodes an error."""
    put(store, open_stream(store, info(1, "A")), "episode", *episodes(1, 40))
    open_stream(store, info(2, "B"))
    assert return_curve(store.path, "A").episodes == 40
    assert return_curve(store.path, "B").points == []


def test_nan_returns_count_as_episodes(store: Store) -> None:
    """A point of NaN alone has no returns; beside others it changes none of their figures."""
    records = [EpisodeRecord(seq, seq, 0, seq, NAN if seq <= 32 else 2.0, 3, "terminated", 0.1) for seq in range(1, 65)]
    put(store, open_stream(store), "episode", *records)
    found = [(p.episodes, p.returns, p.min_return, p.mean_return, p.max_return)
             for p in return_curve(store.path, "R", 2).points]  # fmt: skip
    assert found == [(32, 0, None, None, None), (32, 32, 2.0, 2.0, 2.0)]
    assert return_curve(store.path, "R", 1).points[0].mean_return == 2.0


def test_a_coarser_curve_says_the_same(store: Store) -> None:
    """In fewer points, with every episode still in one of them."""
    put(store, open_stream(store), "episode", *episodes(1, 500))
    curve = return_curve(store.path, "R", 100)
    fewer = msgspec.structs.replace(curve, points=coarser(curve.points, 7))
    assert len(fewer.points) == 7
    check_account(fewer, [float(seq) for seq in range(1, 501)])


@pytest.mark.parametrize("count", [0, 10, 10**3, 10**5, 10**7, 10**9])
def test_few_buckets_are_read_of_any_number(count: int) -> None:
    """Never more than 32 for each point, and enough to be even."""
    level = level_for(count, 500)
    assert count >> level < 16 * BUCKETS_PER_POINT * 500
    assert level == 0 or count >> level >= BUCKETS_PER_POINT * 500


def test_a_curve_of_a_long_run_is_found_by_keys(store: Store) -> None:
    """Neither the episodes nor the buckets of other runs are read."""
    with closing(open_readonly(store.path)) as connection:
        for sql in (module._SINGLE, module._FULL, module._REST):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", ("R", 4)[: 1 + sql.count("= ?2")])
            assert not [row[3] for row in plan if row[3].startswith("SCAN")]


# ---- which run -------------------------------------------------------------------------------------------


def test_a_run_is_found_by_id_beginning_or_name(store: Store) -> None:
    """A whole id wins over a name, a name over a beginning."""
    for number, (run, name) in enumerate((("01AA", "cart"), ("01AB", "01A"), ("02", "01AA")), start=1):
        open_stream(store, info(number, run, name=name))
    for text, run in {"01AA": "01AA", "01AB": "01AB", "cart": "01AA", "0": None, "01A": "01AB", "02": "02"}.items():
        if run is not None:
            assert return_curve(store.path, text).run == run
    with pytest.raises(StoreError, match=r"3 runs begin with '0': 02, 01AB, 01AA; give the id of one"):
        return_curve(store.path, "0")


def test_a_name_of_several_runs_is_asked_back(store: Store) -> None:
    """With the ids to choose from, the newest first, and not all of a hundred."""
    for number in range(7):
        open_stream(store, info(number + 1, f"R{number}", name="cart", started_ns=number))
    with pytest.raises(StoreError, match=r"7 runs are named 'cart': R6, R5, R4, R3, R2, …; give the id of one"):
        return_curve(store.path, "cart")


@pytest.mark.parametrize("text", ["nobody", "", "%", "r"])
def test_no_such_run_is_said(store: Store, text: str) -> None:
    """Letters are themselves, also those that a pattern would read otherwise; nothing is not any run."""
    open_stream(store, info(1, "R"))
    with pytest.raises(StoreError, match="no run"):
        return_curve(store.path, text)


# ---- the command -----------------------------------------------------------------------------------------


def test_the_command_prints_json_for_programs(store: Store) -> None:
    """All points with all their figures."""
    put(store, open_stream(store, info(name="cart")), "episode", *episodes(1, 100))
    arguments = ["curve", "cart", "--json", "--points", "4", "--set", f"data_dir={store.path.parent}"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert msgspec.convert(json.loads(found.stdout), ReturnCurve) == return_curve(store.path, "R", 4)


def test_the_command_draws_for_people(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chart that rises with the returns, its least and greatest mean beside it, and ten lines of figures."""
    text = io.StringIO()
    monkeypatch.setattr(curve_table, "console", lambda: Console(file=text, width=100, highlight=False))
    put(store, open_stream(store, info(name="[/cart]")), "episode", *episodes(1, 2000))
    found = CliRunner().invoke(app, ["curve", "R", "--set", f"data_dir={store.path.parent}"])
    assert found.exit_code == 0, found.output
    shown = text.getvalue()
    assert "[/cart]  running  2,000 episodes" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "█" in shown
    assert "1,801 - 2,000" in shown


def test_the_command_draws_a_run_without_returns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says so."""
    text = io.StringIO()
    monkeypatch.setattr(curve_table, "console", lambda: Console(file=text, width=100, highlight=False))
    open_stream(store)
    assert CliRunner().invoke(app, ["curve", "R", "--set", f"data_dir={store.path.parent}"]).exit_code == 0
    assert "no episode with a return yet" in text.getvalue()
