"""SubscriberQueue: each policy drops exactly what it says, and every record is somewhere at every instant."""

import pytest

from runlane.config.errors import WireError
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.transport.queue import Entry, SubscriberQueue

A, B = b"a" * 16, b"b" * 16
FIRST = 1_000


def _entry(last_seq: int, records: int = 100, stream: bytes = A, kind: int = 1) -> Entry:
    return Entry(stream, last_seq, records, 1, [b"head"], (stream, kind))


def _queue(policy: QueuePolicy, window: int = 100) -> SubscriberQueue:
    return SubscriberQueue(policy, window, FIRST)


def _send(queue: SubscriberQueue, count: int = 1_000) -> list[int]:
    """Send what the window allows; returns the last seqs."""
    sent: list[int] = []
    while len(sent) < count and queue.can_send:
        sent.append(queue.peek().last_seq)
        queue.mark_sent()
    return sent


def _check(queue: SubscriberQueue) -> None:
    """published = delivered + dropped + queued, in total and for each stream."""
    total = queue.statistics()
    assert total.published == total.delivered + sum(total.dropped.values()) + total.depth + total.in_flight
    assert sum(account.queued for account in queue.accounts.values()) == queue.depth + queue.in_flight_records
    assert all(account.queued >= 0 for account in queue.accounts.values())


# ---- the four policies -----------------------------------------------------------------------------------


def test_drop_oldest_keeps_the_newest() -> None:
    """Room is made at the front, batch by batch, and counted to the record."""
    queue = _queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    assert [queue.offer(_entry(seq, records=400)) for seq in (1, 2, 3, 4)] == [0, 0, 400, 400]
    assert _send(queue) == [3, 4]
    assert queue.account(A).dropped == {"drop_oldest": 800}
    _check(queue)


def test_drop_oldest_may_drop_several_for_one() -> None:
    """A full batch takes the place of as many small ones as it needs."""
    queue = _queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    for seq in range(1, 11):
        queue.offer(_entry(seq, records=100))
    assert queue.offer(_entry(11, records=400)) == 400
    assert _send(queue) == [5, 6, 7, 8, 9, 10, 11]
    _check(queue)


def test_drop_newest_keeps_the_oldest() -> None:
    """What does not fit is dropped itself; a smaller one behind it may still fit."""
    queue = _queue(QueuePolicy("drop_newest", MAX_BATCH_RECORDS))
    assert [queue.offer(_entry(seq, records=400)) for seq in (1, 2, 3)] == [0, 0, 400]
    assert queue.offer(_entry(4, records=224)) == 0
    assert queue.offer(_entry(5, records=1)) == 1
    assert _send(queue) == [1, 2, 4]
    assert queue.account(A).dropped == {"drop_newest": 401}
    _check(queue)


def test_latest_keeps_one_batch_per_stream_and_kind() -> None:
    """A newer one supersedes; other streams and kinds are not touched."""
    queue = _queue(QueuePolicy("latest"))
    offers = [_entry(1), _entry(2, kind=2, records=5), _entry(3, stream=B, records=7), _entry(4), _entry(5)]
    assert [queue.offer(entry) for entry in offers] == [0, 0, 0, 100, 100]
    assert sorted(_send(queue)) == [2, 3, 5]
    assert queue.account(A).dropped == {"superseded": 200}
    assert queue.account(B).dropped == {}
    _check(queue)


def test_latest_lets_what_is_under_way_arrive() -> None:
    """A batch already sent is not superseded: it will be read."""
    queue = _queue(QueuePolicy("latest"))
    queue.offer(_entry(1))
    _send(queue)
    assert queue.offer(_entry(2)) == 0
    assert queue.in_flight_records == queue.depth == 100
    _check(queue)


def test_block_drops_nothing_and_says_when_it_is_full() -> None:
    """Full is said while one more batch of the greatest size still fits, so a taken batch is never lost."""
    queue = _queue(QueuePolicy("block", 2 * MAX_BATCH_RECORDS))
    assert queue.offer(_entry(1, records=MAX_BATCH_RECORDS)) == 0
    assert not queue.is_full
    assert queue.offer(_entry(2, records=1)) == 0
    assert queue.is_full
    assert queue.offer(_entry(3, records=MAX_BATCH_RECORDS)) == 0
    assert _send(queue) == [1, 2, 3]
    assert not queue.is_full
    _check(queue)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest"])
def test_a_lossy_queue_never_stops_ingress(overflow: str) -> None:
    """`is_full` is a word of `block` alone."""
    policies = {
        "drop_oldest": QueuePolicy("drop_oldest", MAX_BATCH_RECORDS),
        "drop_newest": QueuePolicy("drop_newest", MAX_BATCH_RECORDS),
        "latest": QueuePolicy("latest"),
    }
    queue = _queue(policies[overflow])
    for seq in range(1, 50):
        queue.offer(_entry(seq, records=MAX_BATCH_RECORDS))
        assert not queue.is_full
    _check(queue)


# ---- window, numbers, echoes -----------------------------------------------------------------------------


def test_the_window_bounds_what_is_under_way() -> None:
    """Nothing goes out beyond the window until an echo frees a place."""
    queue = _queue(QueuePolicy("block"), window=2)
    for seq in range(1, 6):
        queue.offer(_entry(seq, records=1))
    assert _send(queue) == [1, 2]
    assert not queue.can_send
    queue.on_echo(FIRST + 1)
    assert _send(queue) == [3]
    _check(queue)


def test_numbers_follow_the_first_one_and_only_rise() -> None:
    """Delivery numbers start after `first_number`, and a number is never used twice, not even after a requeue."""
    queue = _queue(QueuePolicy("block"))
    queue.offer(_entry(1))
    assert queue.next_number == FIRST + 1
    _send(queue)
    queue.requeue_in_flight()
    assert queue.next_number == FIRST + 2


def test_an_echo_delivers_everything_up_to_its_number() -> None:
    """One echo may stand for many deliveries; the entries come back in order."""
    queue = _queue(QueuePolicy("drop_oldest"))
    for seq in range(1, 5):
        queue.offer(_entry(seq, records=10))
    _send(queue)
    assert [entry.last_seq for entry in queue.on_echo(FIRST + 3)] == [1, 2, 3]
    assert queue.account(A).delivered == 30
    assert queue.in_flight_records == 10
    _check(queue)


@pytest.mark.parametrize("number", [0, FIRST, FIRST + 1])
def test_an_old_echo_is_harmless(number: int) -> None:
    """Echoes may repeat."""
    queue = _queue(QueuePolicy("drop_oldest"))
    queue.offer(_entry(1))
    queue.offer(_entry(2))
    _send(queue)
    queue.on_echo(FIRST + 1)
    assert queue.on_echo(number) == []
    _check(queue)


def test_an_echo_from_the_future_is_refused() -> None:
    """Nobody can have consumed what was never sent: WireError, and nothing is counted as delivered."""
    queue = _queue(QueuePolicy("block"))
    queue.offer(_entry(1))
    queue.offer(_entry(2))
    _send(queue, 1)
    with pytest.raises(WireError) as caught:
        queue.on_echo(FIRST + 2)
    assert caught.value.reason == "echo"
    assert (queue.account(A).delivered, queue.in_flight_records, queue.depth) == (0, 100, 100)


# ---- a subscriber that went away -------------------------------------------------------------------------


def test_requeue_keeps_the_order() -> None:
    """What was under way goes back in front of what waits, oldest first; nothing is counted twice."""
    queue = _queue(QueuePolicy("block"))
    for seq in range(1, 6):
        queue.offer(_entry(seq))
    _send(queue, 3)
    queue.on_echo(FIRST + 1)
    assert queue.requeue_in_flight() == 200
    assert (queue.depth, queue.in_flight_records) == (400, 0)
    assert _send(queue) == [2, 3, 4, 5]
    assert queue.statistics().published == 500
    _check(queue)


def test_an_echo_for_a_delivery_that_was_requeued_delivers_nothing() -> None:
    """The number belongs to the dead process: only the new delivery of the same batch counts."""
    queue = _queue(QueuePolicy("block"))
    queue.offer(_entry(1))
    _send(queue)
    queue.requeue_in_flight()
    assert queue.on_echo(FIRST + 1) == []
    _send(queue)
    assert [entry.last_seq for entry in queue.on_echo(FIRST + 2)] == [1]


def test_drop_in_flight_counts_what_nobody_can_vouch_for() -> None:
    """What waits stays; what was under way is dropped under the given reason."""
    queue = _queue(QueuePolicy("drop_oldest"))
    for seq in range(1, 4):
        queue.offer(_entry(seq))
    _send(queue, 2)
    assert queue.drop_in_flight("subscriber_restart") == 200
    assert queue.account(A).dropped == {"subscriber_restart": 200}
    assert _send(queue) == [3]
    _check(queue)


@pytest.mark.parametrize("policy", [QueuePolicy("drop_oldest"), QueuePolicy("latest"), QueuePolicy("block")])
def test_drop_all_empties_the_queue(policy: QueuePolicy) -> None:
    """Waiting or under way, all of it is counted as dropped and nothing is left."""
    queue = _queue(policy)
    queue.offer(_entry(1))
    _send(queue)
    queue.offer(_entry(2))
    queue.offer(_entry(3, stream=B, records=9))
    assert queue.drop_all("subscriber_left") == 209
    assert (queue.depth, queue.in_flight_records, queue.can_send) == (0, 0, False)
    assert queue.account(B).dropped == {"subscriber_left": 9}
    _check(queue)


# ---- figures ---------------------------------------------------------------------------------------------


def test_accounts_are_kept_per_stream() -> None:
    """What one stream lost is not on another's account."""
    queue = _queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    queue.offer(_entry(1, records=800))
    queue.offer(_entry(1, records=800, stream=B))
    _send(queue)
    queue.on_echo(FIRST + 1)
    assert (queue.account(A).published, queue.account(A).dropped) == (800, {"drop_oldest": 800})
    assert (queue.account(B).published, queue.account(B).delivered) == (800, 800)
    _check(queue)


def test_statistics_are_frozen_figures() -> None:
    """Depth, in flight, peak and window as they are now; `peak` is the greatest depth ever."""
    queue = _queue(QueuePolicy("block", 2_000), window=1)
    for seq in (1, 2, 3):
        queue.offer(_entry(seq))
    _send(queue)
    figures = queue.statistics()
    assert (figures.depth, figures.in_flight, figures.peak, figures.in_flight_batches) == (200, 100, 300, 1)
    assert (figures.overflow, figures.max_queue, figures.window) == ("block", 2_000, 1)
    with pytest.raises(AttributeError):
        figures.depth = 0  # pyright: ignore[reportAttributeAccessIssue]


def test_latest_has_no_bound_to_show() -> None:
    """`max_queue` 0 means: one batch per stream and kind."""
    assert _queue(QueuePolicy("latest")).statistics().max_queue == 0
