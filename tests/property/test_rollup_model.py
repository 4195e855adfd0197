"""Rollups against lists: whatever is committed, rolled back and sent again, the buckets are those of a simple count."""

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.actors.store_rig import ask, info, open_stream

from runlane.actors.return_curve import return_curve
from runlane.actors.store import Store
from runlane.config.settings import DbWriterSettings
from runlane.transport.records import EpisodeRecord

Stored = dict[int, list[EpisodeRecord]]  # by stream, in the order they were stored

# Halves add up exactly, in whatever order.
RETURNS = st.one_of(st.integers(-64, 64).map(lambda half: half / 2), st.just(math.nan))
BURST = st.tuples(st.just("insert"), st.integers(1, 2), st.integers(1, 900), st.integers(1, 120), RETURNS)
STRAY = st.tuples(st.just("insert"), st.integers(1, 2), st.integers(1, 900), st.just(1), RETURNS)
END = st.tuples(st.sampled_from(["commit", "commit", "rollback", "restart"]), *[st.just(0)] * 3, st.just(0.0))


def expected(stored: Stored) -> list[tuple[Any, ...]]:
    """Rows of `episode_rollups`, counted the slow way."""
    found: list[tuple[Any, ...]] = []
    for stream_no, episodes in stored.items():
        for level in (4, 8):
            width = 1 << level
            for first in range(0, len(episodes), width):
                group = episodes[first : first + width]
                if level == 4 or len(group) == width:
                    found.append((stream_no, level, first >> level, *_figures(stream_no, group)))
    return found


def _figures(stream_no: int, group: list[EpisodeRecord]) -> tuple[Any, ...]:
    ids = [stream_no << 40 | episode.seq for episode in group]
    returns = [episode.episode_return for episode in group if not math.isnan(episode.episode_return)]
    least, most = (min(returns), max(returns)) if returns else (None, None)
    times = [episode.t_ns for episode in group]
    steps = sum(episode.length for episode in group)
    return (min(ids), max(ids), len(ids), len(returns), least, sum(returns), most, steps, min(times), max(times))


def check(store: Store, stored: Stored, points: int) -> None:
    """The buckets are the model's, and the curve of the run accounts for every episode of it once."""
    assert ask(store, "SELECT * FROM episode_rollups ORDER BY 1, 2, 3") == expected(stored)
    every = [episode for episodes in stored.values() for episode in episodes]
    curve = return_curve(store.path, "R", points)
    assert len(curve.points) <= points
    assert curve.episodes == len(every)
    assert sum(point.steps for point in curve.points) == sum(episode.length for episode in every)
    returns = [episode.episode_return for episode in every if not math.isnan(episode.episode_return)]
    assert sum(point.returns for point in curve.points) == len(returns)
    assert max((p.max_return for p in curve.points if p.max_return is not None), default=None) == max(
        returns, default=None
    )
    sums = [point.mean_return * point.returns for point in curve.points if point.mean_return is not None]
    assert math.isclose(sum(sums), sum(returns), abs_tol=1e-6)
    assert [point.first_episode for point in curve.points] == [
        1 + sum(before.episodes for before in curve.points[:index]) for index in range(len(curve.points))
    ]


@settings(deadline=None, max_examples=60)
@given(history=st.lists(st.one_of(BURST, BURST, STRAY, END), max_size=30), points=st.integers(1, 40))
def test_rollups_are_those_of_a_simple_count(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[Any, ...]], points: int
) -> None:
    """For any sequence of commits, rollbacks, restarts and resends, in any order of seqs."""
    path: Path = tmp_path_factory.mktemp("model") / "runlane.db"
    store = Store(path, DbWriterSettings(synchronous="NORMAL"))
    numbers = [open_stream(store, info(number, worker=f"w{number}")) for number in (1, 2)]
    stored: Stored = {number: [] for number in numbers}
    pending: Stored = {number: [] for number in numbers}
    store.begin()
    for action, number, first, count, value in [*history, ("commit", 0, 0, 0, 0.0)]:
        if action == "insert":
            records = [
                EpisodeRecord(first + i, 7 * first + i, 0, i, value + i, i, "terminated", 1.0) for i in range(count)
            ]
            known = {episode.seq for episode in (*stored[number], *pending[number])}
            fresh = [record for record in records if record.seq not in known]
            assert store.insert_records(number, "episode", [*records]) == len(fresh)
            pending[number] += fresh
            continue
        if action == "commit":
            store.commit()
            for stream_no in numbers:
                stored[stream_no] += pending[stream_no]
        elif action == "rollback":
            store.rollback()
        else:
            store.close()
            store = Store(path, DbWriterSettings(synchronous="NORMAL"))
        pending = {number: [] for number in numbers}
        store.begin()
    store.rollback()
    with closing(store):
        check(store, stored, points)
