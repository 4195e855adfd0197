"""What the tests of SubscriberQueue share: entries of each sort, and the check that every record is somewhere."""

from runlane.config.settings import QueuePolicy
from runlane.transport.queue import Entry, SubscriberQueue

A, B = b"a" * 16, b"b" * 16
FIRST = 1_000


def make_entry(last_seq: int, records: int = 100, stream: bytes = A, kind: int = 1) -> Entry:
    """A batch with nothing in it but what the queue counts."""
    return Entry(stream, last_seq, records, 1, [b"head"], (stream, kind))


def make_vital(last_seq: int, records: int = 1, stream: bytes = A) -> Entry:
    """An entry of rare records."""
    entry = make_entry(last_seq, records, stream, kind=2)
    entry.is_vital = True
    return entry


def make_mixed(last_seq: int, records: int = 100, vital: int = 1, stream: bytes = A) -> Entry:
    """An entry of `records`, so many of them vital."""
    entry = make_entry(last_seq, records, stream)
    entry.vital = make_entry(last_seq, vital, stream, kind=2)
    return entry


def at(entry: Entry, accepted_s: float) -> Entry:
    """Accepted at that time."""
    entry.accepted_s = accepted_s
    return entry


def sized(entry: Entry, size_bytes: int) -> Entry:
    """Of that size."""
    entry.size_bytes = size_bytes
    return entry


def make_queue(policy: QueuePolicy, window: int = 100) -> SubscriberQueue:
    """A queue with a window that nothing fills, unless it is said."""
    return SubscriberQueue(policy, window, FIRST)


def send_all(queue: SubscriberQueue, count: int = 1_000) -> list[int]:
    """Send what the window allows; returns the last seqs."""
    sent: list[int] = []
    while len(sent) < count and queue.can_send:
        sent.append(queue.peek().last_seq)
        queue.mark_sent()
    return sent


def check(queue: SubscriberQueue) -> None:
    """published = delivered + dropped + queued, in total and for each stream."""
    total = queue.statistics()
    assert total.published == total.delivered + sum(total.dropped.values()) + total.depth + total.in_flight
    assert sum(account.queued for account in queue.accounts.values()) == queue.depth + queue.in_flight_records
    for stream, account in queue.accounts.items():
        assert (account.queued, account.balance) == (queue.held(stream), 0)
