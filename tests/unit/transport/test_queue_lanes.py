"""SubscriberQueue: what is vital has a lane of its own, and what has waited for too long is dropped."""

from typing import Literal

import pytest
from unit.transport.queue_rig import (
    FIRST,
    A,
    B,
    at,
    check,
    make_entry,
    make_mixed,
    make_queue,
    make_vital,
    send_all,
    sized,
)

from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.transport.queue import MAX_QUEUE_BYTES

# ---- the vital lane --------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_no_flood_displaces_what_is_vital(overflow: Literal["drop_oldest", "drop_newest"]) -> None:
    """Vital entries wait in a lane of their own, and leave in the order of arrival."""
    queue = make_queue(QueuePolicy(overflow, MAX_BATCH_RECORDS))
    queue.offer(make_vital(1))
    for seq in range(2, 20):
        queue.offer(make_entry(seq, records=MAX_BATCH_RECORDS))
    queue.offer(make_vital(20))
    assert send_all(queue) == {"drop_oldest": [1, 19, 20], "drop_newest": [1, 2, 20]}[overflow]
    assert queue.account(A).dropped == {overflow: 17 * MAX_BATCH_RECORDS}
    check(queue)


def test_no_flood_of_bytes_displaces_what_is_vital_either() -> None:
    """The bound in bytes, too, is each lane's own."""
    queue = make_queue(QueuePolicy("drop_oldest"))
    queue.offer(sized(make_vital(1), 10))
    assert queue.offer(sized(make_entry(2), MAX_QUEUE_BYTES)) == 0
    assert queue.offer(sized(make_vital(3), 10)) == 0
    assert queue.offer(sized(make_entry(4), MAX_QUEUE_BYTES)) == 100
    assert send_all(queue) == [1, 3, 4]
    check(queue)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_a_flood_of_vital_entries_is_bounded_by_the_same_policy(
    overflow: Literal["drop_oldest", "drop_newest"],
) -> None:
    """Their lane has the bound of the other one, and displaces nothing there."""
    queue = make_queue(QueuePolicy(overflow, MAX_BATCH_RECORDS))
    queue.offer(make_entry(1))
    for seq in (2, 3, 4):
        queue.offer(make_vital(seq, records=600))
    assert send_all(queue) == {"drop_oldest": [1, 4], "drop_newest": [1, 2]}[overflow]
    assert queue.account(A).dropped == {overflow: 1_200}
    check(queue)


def test_a_mixed_entry_that_gives_way_leaves_its_vital_part() -> None:
    """At its own place in the order, and only the rest is counted as dropped."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    queue.offer(make_vital(1))
    queue.offer(make_mixed(2, records=1_000, vital=3))
    queue.offer(make_vital(3))
    assert queue.offer(make_entry(4, records=1_000)) == 997
    assert send_all(queue) == [1, 2, 3, 4]
    assert queue.in_flight_records == 1 + 3 + 1 + 1_000
    assert queue.account(A).dropped == {"drop_oldest": 997}
    check(queue)


def test_a_mixed_entry_that_finds_no_room_leaves_its_vital_part_too() -> None:
    """Under `drop_newest` it is the newcomer that gives way."""
    queue = make_queue(QueuePolicy("drop_newest", MAX_BATCH_RECORDS))
    queue.offer(make_entry(1, records=1_000))
    assert queue.offer(make_mixed(2, records=1_000, vital=3)) == 997
    assert send_all(queue) == [1, 2]
    assert queue.account(A).dropped == {"drop_newest": 997}
    check(queue)


def test_a_vital_part_older_than_a_full_vital_lane_is_dropped() -> None:
    """`drop_oldest` keeps the newest there as well."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    queue.offer(make_mixed(1, records=1_000, vital=30))
    queue.offer(make_vital(2, records=1_000))
    assert queue.offer(make_entry(3, records=1_000)) == 1_000
    assert send_all(queue) == [2, 3]
    check(queue)


def test_a_vital_part_takes_the_place_of_older_vital_entries() -> None:
    """And not of newer ones."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    queue.offer(make_vital(1, records=500))
    queue.offer(make_mixed(2, records=1_000, vital=30))
    queue.offer(make_vital(3, records=500))
    assert queue.offer(make_entry(4, records=1_000)) == 970 + 500
    assert send_all(queue) == [2, 3, 4]
    check(queue)


def test_a_drop_that_leaves_a_vital_part_is_a_change_of_that_stream() -> None:
    """Whoever keeps accounts hears of the stream that lost records, not only of the one that came."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    queue.offer(make_mixed(1, records=1_000, vital=3))
    queue.changed.clear()
    queue.offer(make_entry(1, records=1_000, stream=B))
    assert queue.changed == {A, B}


# ---- what has waited for too long ------------------------------------------------------------------------

FRESH = QueuePolicy("drop_oldest", max_age_ms=500)


def test_what_waits_longer_than_max_age_is_dropped_as_stale() -> None:
    """In either lane, vital part or not; what is exactly as old as allowed stays."""
    queue = make_queue(FRESH)
    for seq, make in enumerate((make_entry, make_vital, make_mixed), start=1):
        queue.offer(at(make(seq, 10), 1.0))
    queue.offer(at(make_entry(4), 1.1))
    assert queue.expire(1.5) == 0
    assert queue.expire(1.6) == 30
    assert send_all(queue) == [4]
    assert queue.account(A).dropped == {"stale": 30}
    check(queue)


def test_latest_forgets_what_is_stale_as_well() -> None:
    """A key's newest is dropped by its own age, not by that of the entry it took the place of."""
    queue = make_queue(QueuePolicy("latest", max_age_ms=500))
    queue.offer(at(make_entry(1, kind=1), 1.0))
    queue.offer(at(make_entry(2, kind=2), 1.0))
    queue.offer(at(make_entry(3, kind=1), 2.0))
    assert queue.expire(2.0) == 100
    assert send_all(queue) == [3]
    assert queue.account(A).dropped == {"superseded": 100, "stale": 100}
    check(queue)


def test_what_is_under_way_is_not_stale() -> None:
    """It will be read."""
    queue = make_queue(FRESH)
    queue.offer(at(make_entry(1), 1.0))
    send_all(queue)
    assert queue.expire(1_000.0) == 0
    queue.on_echo(FIRST + 1)
    assert queue.account(A).delivered == 100


def test_without_max_age_nothing_is_ever_stale() -> None:
    """It is asked for, or does not happen."""
    queue = make_queue(QueuePolicy("drop_oldest"))
    queue.offer(at(make_entry(1), 0.0))
    assert queue.expire(1e9) == 0
    assert queue.depth == 100
