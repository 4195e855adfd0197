"""SubscriberQueue: each policy drops exactly what it says, and every record is somewhere at every instant."""

import pytest
from unit.transport.queue_rig import FIRST, A, B, check, make_entry, make_queue, send_all

from runlane.config.errors import WireError
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.transport.queue import ROUTER_RESTART, Account, Entry, SubscriberQueue
from runlane.transport.testing import make_batch, make_info

# ---- the four policies -----------------------------------------------------------------------------------


def test_drop_oldest_keeps_the_newest() -> None:
    """Room is made at the front, batch by batch, and counted to the record."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    assert [queue.offer(make_entry(seq, records=400)) for seq in (1, 2, 3, 4)] == [0, 0, 400, 400]
    assert send_all(queue) == [3, 4]
    assert queue.account(A).dropped == {"drop_oldest": 800}
    check(queue)


def test_drop_oldest_may_drop_several_for_one() -> None:
    """A full batch takes the place of as many small ones as it needs."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    for seq in range(1, 11):
        queue.offer(make_entry(seq, records=100))
    assert queue.offer(make_entry(11, records=400)) == 400
    assert send_all(queue) == [5, 6, 7, 8, 9, 10, 11]
    check(queue)


def test_drop_newest_keeps_the_oldest() -> None:
    """What does not fit is dropped itself; a smaller one behind it may still fit."""
    queue = make_queue(QueuePolicy("drop_newest", MAX_BATCH_RECORDS))
    assert [queue.offer(make_entry(seq, records=400)) for seq in (1, 2, 3)] == [0, 0, 400]
    assert queue.offer(make_entry(4, records=224)) == 0
    assert queue.offer(make_entry(5, records=1)) == 1
    assert send_all(queue) == [1, 2, 4]
    assert queue.account(A).dropped == {"drop_newest": 401}
    check(queue)


def test_latest_keeps_one_batch_per_stream_and_kind() -> None:
    """A newer one supersedes; other streams and kinds are not touched."""
    queue = make_queue(QueuePolicy("latest"))
    offers = [
        make_entry(1),
        make_entry(2, kind=2, records=5),
        make_entry(3, stream=B, records=7),
        make_entry(4),
        make_entry(5),
    ]
    assert [queue.offer(entry) for entry in offers] == [0, 0, 0, 100, 100]
    assert sorted(send_all(queue)) == [2, 3, 5]
    assert queue.account(A).dropped == {"superseded": 200}
    assert queue.account(B).dropped == {}
    check(queue)


def test_latest_lets_what_is_under_way_arrive() -> None:
    """A batch already sent is not superseded: it will be read."""
    queue = make_queue(QueuePolicy("latest"))
    queue.offer(make_entry(1))
    send_all(queue)
    assert queue.offer(make_entry(2)) == 0
    assert queue.in_flight_records == queue.depth == 100
    check(queue)


def test_block_drops_nothing_and_says_when_it_is_full() -> None:
    """Full is said while one more batch of the greatest size still fits, so a taken batch is never lost."""
    queue = make_queue(QueuePolicy("block", 2 * MAX_BATCH_RECORDS))
    assert queue.offer(make_entry(1, records=MAX_BATCH_RECORDS)) == 0
    assert not queue.is_full
    assert queue.offer(make_entry(2, records=1)) == 0
    assert queue.is_full
    assert queue.offer(make_entry(3, records=MAX_BATCH_RECORDS)) == 0
    assert send_all(queue) == [1, 2, 3]
    assert not queue.is_full
    check(queue)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest"])
def test_a_lossy_queue_never_stops_ingress(overflow: str) -> None:
    """`is_full` is a word of `block` alone."""
    policies = {
        "drop_oldest": QueuePolicy("drop_oldest", MAX_BATCH_RECORDS),
        "drop_newest": QueuePolicy("drop_newest", MAX_BATCH_RECORDS),
        "latest": QueuePolicy("latest"),
    }
    queue = make_queue(policies[overflow])
    for seq in range(1, 50):
        queue.offer(make_entry(seq, records=MAX_BATCH_RECORDS))
        assert not queue.is_full
    check(queue)


# ---- window, numbers, echoes -----------------------------------------------------------------------------


def test_the_window_bounds_what_is_under_way() -> None:
    """Nothing goes out beyond the window until an echo frees a place."""
    queue = make_queue(QueuePolicy("block"), window=2)
    for seq in range(1, 6):
        queue.offer(make_entry(seq, records=1))
    assert send_all(queue) == [1, 2]
    assert not queue.can_send
    queue.on_echo(FIRST + 1)
    assert send_all(queue) == [3]
    check(queue)


def test_numbers_follow_the_first_one_and_only_rise() -> None:
    """Delivery numbers start after `first_number`, and a number is never used twice, not even after a requeue."""
    queue = make_queue(QueuePolicy("block"))
    queue.offer(make_entry(1))
    assert queue.next_number == FIRST + 1
    send_all(queue)
    queue.requeue_in_flight()
    assert queue.next_number == FIRST + 2


def test_an_echo_delivers_everything_up_to_its_number() -> None:
    """One echo may stand for many deliveries; the entries come back in order."""
    queue = make_queue(QueuePolicy("drop_oldest"))
    for seq in range(1, 5):
        queue.offer(make_entry(seq, records=10))
    send_all(queue)
    assert [entry.last_seq for entry in queue.on_echo(FIRST + 3)] == [1, 2, 3]
    assert queue.account(A).delivered == 30
    assert queue.in_flight_records == 10
    check(queue)


@pytest.mark.parametrize("number", [0, FIRST, FIRST + 1])
def test_an_old_echo_is_harmless(number: int) -> None:
    """Echoes may repeat."""
    queue = make_queue(QueuePolicy("drop_oldest"))
    queue.offer(make_entry(1))
    queue.offer(make_entry(2))
    send_all(queue)
    queue.on_echo(FIRST + 1)
    assert queue.on_echo(number) == []
    check(queue)


def test_an_echo_from_the_future_is_refused() -> None:
    """Nobody can have consumed what was never sent: WireError, and nothing is counted as delivered."""
    queue = make_queue(QueuePolicy("block"))
    queue.offer(make_entry(1))
    queue.offer(make_entry(2))
    send_all(queue, 1)
    with pytest.raises(WireError) as caught:
        queue.on_echo(FIRST + 2)
    assert caught.value.reason == "echo"
    assert (queue.account(A).delivered, queue.in_flight_records, queue.depth) == (0, 100, 100)


# ---- a subscriber that went away -------------------------------------------------------------------------


def test_requeue_keeps_the_order() -> None:
    """What was under way goes back in front of what waits, oldest first; nothing is counted twice."""
    queue = make_queue(QueuePolicy("block"))
    for seq in range(1, 6):
        queue.offer(make_entry(seq))
    send_all(queue, 3)
    queue.on_echo(FIRST + 1)
    assert queue.requeue_in_flight() == 200
    assert (queue.depth, queue.in_flight_records) == (400, 0)
    assert send_all(queue) == [2, 3, 4, 5]
    assert queue.statistics().published == 500
    check(queue)


def test_an_echo_for_a_delivery_that_was_requeued_delivers_nothing() -> None:
    """The number belongs to the dead process: only the new delivery of the same batch counts."""
    queue = make_queue(QueuePolicy("block"))
    queue.offer(make_entry(1))
    send_all(queue)
    queue.requeue_in_flight()
    assert queue.on_echo(FIRST + 1) == []
    send_all(queue)
    assert [entry.last_seq for entry in queue.on_echo(FIRST + 2)] == [1]


def test_drop_in_flight_counts_what_nobody_can_vouch_for() -> None:
    """What waits stays; what was under way is dropped under the given reason."""
    queue = make_queue(QueuePolicy("drop_oldest"))
    for seq in range(1, 4):
        queue.offer(make_entry(seq))
    send_all(queue, 2)
    assert queue.drop_in_flight("subscriber_restart") == 200
    assert queue.account(A).dropped == {"subscriber_restart": 200}
    assert send_all(queue) == [3]
    check(queue)


@pytest.mark.parametrize("policy", [QueuePolicy("drop_oldest"), QueuePolicy("latest"), QueuePolicy("block")])
def test_drop_all_empties_the_queue(policy: QueuePolicy) -> None:
    """Waiting or under way, all of it is counted as dropped and nothing is left."""
    queue = make_queue(policy)
    queue.offer(make_entry(1))
    send_all(queue)
    queue.offer(make_entry(2))
    queue.offer(make_entry(3, stream=B, records=9))
    assert queue.drop_all("subscriber_left") == 209
    assert (queue.depth, queue.in_flight_records, queue.can_send) == (0, 0, False)
    assert queue.account(B).dropped == {"subscriber_left": 9}
    check(queue)


# ---- figures ---------------------------------------------------------------------------------------------


def test_accounts_are_kept_per_stream() -> None:
    """What one stream lost is not on another's account."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    queue.offer(make_entry(1, records=800))
    queue.offer(make_entry(1, records=800, stream=B))
    send_all(queue)
    queue.on_echo(FIRST + 1)
    assert (queue.account(A).published, queue.account(A).dropped) == (800, {"drop_oldest": 800})
    assert (queue.account(B).published, queue.account(B).delivered) == (800, 800)
    check(queue)


def test_statistics_are_frozen_figures() -> None:
    """Depth, in flight, peak and window as they are now; `peak` is the greatest depth ever."""
    queue = make_queue(QueuePolicy("block", 2_000), window=1)
    for seq in (1, 2, 3):
        queue.offer(make_entry(seq))
    send_all(queue)
    figures = queue.statistics()
    assert (figures.depth, figures.in_flight, figures.peak, figures.in_flight_batches) == (200, 100, 300, 1)
    assert (figures.overflow, figures.max_queue, figures.window) == ("block", 2_000, 1)
    with pytest.raises(AttributeError):
        figures.depth = 0  # pyright: ignore[reportAttributeAccessIssue]


def test_latest_has_no_bound_to_show() -> None:
    """`max_queue` 0 means: one batch per stream and kind."""
    assert make_queue(QueuePolicy("latest")).statistics().max_queue == 0


# ---- after a restart of the router -----------------------------------------------------------------------


def _restored(delivered: int, lost: int, base: int = 0) -> SubscriberQueue:
    queue = make_queue(QueuePolicy("drop_oldest"))
    dropped = {ROUTER_RESTART: lost} if lost else {}
    queue.accounts[A] = Account(published=delivered + lost, delivered=delivered, dropped=dropped, base=base)
    return queue


@pytest.mark.parametrize(("received", "left"), [(101, 49), (120, 30), (150, 0)])
def test_what_a_subscriber_received_moves_from_lost_to_delivered(received: int, left: int) -> None:
    """As much as it says, when that fits in what was lost with the router."""
    queue = _restored(delivered=100, lost=50)
    assert queue.resume(A, received) == received - 100
    assert queue.account(A).delivered == received
    assert queue.account(A).dropped == ({ROUTER_RESTART: left} if left else {})
    assert queue.changed == {A}
    check(queue)


@pytest.mark.parametrize("received", [0, 1, 99, 100, 151, 1 << 62])
def test_a_figure_that_contradicts_the_account_is_not_believed(received: int) -> None:
    """Less than was delivered, or more than can have been."""
    queue = _restored(delivered=100, lost=50)
    assert queue.resume(A, received) == 0
    assert (queue.account(A).delivered, queue.account(A).dropped) == (100, {ROUTER_RESTART: 50})
    assert not queue.changed


def test_a_figure_for_a_stream_unknown_or_without_loss_is_not_believed() -> None:
    """And opens no account."""
    queue = _restored(delivered=100, lost=0)
    assert (queue.resume(A, 101), queue.resume(B, 1)) == (0, 0)
    assert list(queue.accounts) == [A]


def test_a_figure_is_believed_once() -> None:
    """The same hello may come twice."""
    queue = _restored(delivered=100, lost=50)
    assert (queue.resume(A, 120), queue.resume(A, 120)) == (20, 0)
    check(queue)


def test_a_new_process_counts_from_where_the_last_one_ended() -> None:
    """What its predecessor was given is no part of what it says it received."""
    queue = _restored(delivered=100, lost=50)
    queue.begin_instance({})
    assert queue.account(A).base == 100
    assert queue.resume(A, 100) == 0
    assert queue.resume(A, 20) == 20
    check(queue)


# ---- the end of a stream ---------------------------------------------------------------------------------


def test_sums_outlive_an_account_that_is_put_away() -> None:
    """Figures of all streams are those of ended ones, too."""
    queue = make_queue(QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    queue.offer(make_entry(1, records=1_000))
    queue.offer(make_entry(2, records=1_000))
    send_all(queue)
    queue.on_echo(FIRST + 1)
    before = queue.statistics()
    queue.put_away(A)
    assert (queue.accounts, queue.changed, queue.statistics()) == ({}, set(), before)


def test_an_account_with_queued_records_is_not_put_away() -> None:
    """Neither waiting nor under way."""
    queue = make_queue(QueuePolicy("drop_oldest"))
    queue.offer(make_entry(1))
    queue.put_away(A)
    send_all(queue)
    queue.put_away(A)
    assert queue.account(A).published == 100
    queue.put_away(B)


def test_the_first_seq_that_waits_is_told_per_stream() -> None:
    """Of any lane; what is under way does not wait."""
    info = make_info()
    key = bytes.fromhex(info.stream)
    queue = make_queue(QueuePolicy("drop_oldest"))
    for first_seq in (11, 21):
        head = make_batch(info, first_seq, step=10).frames[0]
        queue.offer(Entry(key, first_seq + 9, 10, 1, [head], (key, 1), is_vital=first_seq == 21))
    assert queue.first_waiting_seqs() == {key: 11}
    send_all(queue, 1)
    assert queue.first_waiting_seqs() == {key: 21}
