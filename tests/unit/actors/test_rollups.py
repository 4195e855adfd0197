"""Episodes are counted together as they are stored: each once, spikes kept, and never at the price of a commit."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.actors.store_rig import ask, info, open_stream, put

from runlane.actors.store import Store
from runlane.config.settings import DbWriterSettings
from runlane.transport.records import EpisodeRecord

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "runlane.db", DbWriterSettings(synchronous="NORMAL"))) as opened:
        yield opened


def episodes(first: int, last: int, **values: Any) -> list[EpisodeRecord]:
    """Episodes with seqs of a range; each returns its seq and lasts two steps, unless said otherwise."""
    return [
        EpisodeRecord(
            seq, seq * 10, 0, seq, values.get("episode_return", seq), values.get("length", 2), "terminated", 0.1
        )
        for seq in range(first, last + 1)
    ]


def buckets(store: Store, columns: str) -> list[tuple[Any, ...]]:
    return ask(store, f"SELECT {columns} FROM episode_rollups ORDER BY stream_no, level, bucket")  # noqa: S608


def test_a_bucket_says_what_its_episodes_say(store: Store) -> None:
    """Least, sum and greatest return, steps, first and last time and id, from the first commit on."""
    stream_no = open_stream(store)
    put(store, stream_no, "episode", *episodes(1, 3))
    figures = "level, bucket, episodes, returns, min_return, sum_return, max_return, sum_length, first_t_ns, last_t_ns"
    assert buckets(store, figures) == [(4, 0, 3, 3, 1.0, 6.0, 3.0, 6, 10, 30)]
    put(store, stream_no, "episode", *episodes(4, 17))
    assert buckets(store, figures) == [
        (4, 0, 16, 16, 1.0, 136.0, 16.0, 32, 10, 160),
        (4, 1, 1, 1, 17.0, 17.0, 17.0, 2, 170, 170),
    ]
    assert buckets(store, "first_id & 1099511627775, last_id & 1099511627775") == [(1, 16), (17, 17)]


def test_sixteen_full_buckets_make_one_of_the_next_level(store: Store) -> None:
    """At the episode that fills it, in one commit or many; a level higher is not there before."""
    stream_no = open_stream(store)
    for first in range(1, 256, 5):
        put(store, stream_no, "episode", *episodes(first, min(first + 4, 255)))
    assert buckets(store, "DISTINCT level") == [(4,)]
    put(store, stream_no, "episode", *episodes(256, 4096))
    found = ask(store, "SELECT level, count(*), sum(episodes), min(min_return), max(max_return), sum(sum_return)"
                " FROM episode_rollups GROUP BY level")  # fmt: skip
    total = 4096 * 4097 / 2
    assert found == [(level, 4096 >> level, 4096, 1.0, 4096.0, total) for level in (4, 8, 12)]


def test_a_spike_survives_every_level(store: Store) -> None:
    """One episode of a million stands out in the bucket that holds it, whatever the level."""
    stream_no = open_stream(store)
    flat = episodes(1, 300, episode_return=1.0)
    flat[77] = EpisodeRecord(78, 780, 0, 78, 1e6, 2, "terminated", 0.1)
    put(store, stream_no, "episode", *flat)
    assert [row[0] for row in buckets(store, "max_return")].count(1e6) == 2


def test_an_episode_that_comes_again_is_not_counted_again(store: Store) -> None:
    """In the same call, the same transaction, a later one, or after the writer was opened anew."""
    stream_no = open_stream(store)
    store.begin()
    once = episodes(5, 9)
    assert store.insert_records(stream_no, "episode", [*once, *once]) == 5
    assert store.insert_records(stream_no, "episode", [*once]) == 0
    store.commit()
    assert put(store, stream_no, "episode", *episodes(3, 10)) == 3
    store.close()
    with closing(Store(store.path, DbWriterSettings())) as again:
        assert put(again, stream_no, "episode", *episodes(1, 11)) == 3
        assert buckets(again, "episodes, sum_return") == [(11, 66.0)]
        assert ask(again, "SELECT episodes FROM streams") == [(11,)]


def test_a_transaction_that_is_tried_again_counts_once(store: Store) -> None:
    """What was rolled back left nothing, neither in the file nor in the store's memory."""
    stream_no = open_stream(store)
    put(store, stream_no, "episode", *episodes(1, 10))
    for _ in range(2):
        store.begin()
        store.insert_records(stream_no, "episode", [*episodes(11, 40)])
        store.rollback()
    put(store, stream_no, "episode", *episodes(11, 40))
    assert buckets(store, "bucket, episodes") == [(0, 16), (1, 16), (2, 8)]


def test_streams_have_buckets_of_their_own(store: Store) -> None:
    """Each counts its episodes from 0."""
    first, second = open_stream(store), open_stream(store, info(2, worker="v"))
    store.begin()
    for seq in range(1, 21):
        store.insert_records(first, "episode", [*episodes(seq, seq)])
        store.insert_records(second, "episode", [*episodes(seq, seq, episode_return=-1.0)])
    store.commit()
    assert buckets(store, "stream_no, bucket, episodes, min_return") == [
        (1, 0, 16, 1.0),
        (1, 1, 4, 17.0),
        (2, 0, 16, -1.0),
        (2, 1, 4, -1.0),
    ]


def test_a_nan_return_is_an_episode_without_a_return(store: Store) -> None:
    """It counts, and spoils no other figure; of NaN alone there are no figures."""
    stream_no = open_stream(store)
    put(store, stream_no, "episode", *episodes(1, 2, episode_return=NAN))
    figures = "episodes, returns, min_return, sum_return, max_return"
    assert buckets(store, figures) == [(2, 0, None, 0.0, None)]
    put(store, stream_no, "episode", *episodes(3, 4), *episodes(5, 5, episode_return=NAN))
    assert buckets(store, figures) == [(5, 2, 3.0, 7.0, 4.0)]
    put(store, stream_no, "episode", *episodes(6, 256, episode_return=NAN))
    assert buckets(store, f"level, {figures}")[-1] == (8, 256, 2, 3.0, 7.0, 4.0)


def test_infinities_of_both_signs_have_no_sum(store: Store) -> None:
    """In one commit or two, and in every level above; the least and the greatest are what they are."""
    stream_no = open_stream(store)
    put(store, stream_no, "episode", *episodes(1, 1, episode_return=INFINITY))
    put(store, stream_no, "episode", *episodes(2, 2, episode_return=-INFINITY), *episodes(3, 256))
    found = ask(store, "SELECT min_return, sum_return, max_return FROM episode_rollups WHERE bucket = 0")
    assert found == [(-INFINITY, None, INFINITY)] * 2


def test_absurd_lengths_do_not_stop_the_commit(store: Store) -> None:
    """A worker may report any 64-bit number; sums stay within 64 bits, and everybody's records are stored."""
    stream_no = open_stream(store)
    for sign in (1, -1):
        length = sign * ((1 << 63) - 1)
        for first in (1, 21):
            put(store, stream_no, "episode", *episodes(first, first + 19, length=length))
        put(store, stream_no, "episode", *episodes(41, 256, length=length))
        stream_no = open_stream(store, info(2, worker="v"))
    assert {abs(row[0]) >> 61 for row in buckets(store, "sum_length")} == {3, 4}
