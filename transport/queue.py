"""SubscriberQueue: what waits for one subscriber, under its QoS policy, counted to the record. No sockets.

Owned by the router alone. Loss is normal for the three lossy policies and impossible under `block`; either
way, for each stream and at every instant: published = delivered + dropped + queued.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from runlane.config.errors import WireError
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.transport.wire import Frame


@dataclass(slots=True, eq=False)
class Entry:
    """The part of one batch that a subscriber gets. `key` is what `latest` keeps the newest of."""

    stream: bytes
    last_seq: int
    records: int
    section_bits: int
    frames: list[Frame]
    key: tuple[bytes, int]
    size_bytes: int = 0


@dataclass(slots=True)
class Account:
    """Records of one stream towards one subscriber. `queued` follows; nothing else is stored."""

    published: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def queued(self) -> int:
        """Records waiting or under way: what is neither delivered nor dropped."""
        return self.published - self.delivered - sum(self.dropped.values())


class QueueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Frozen figures of one subscriber's queue, in records unless said otherwise."""

    overflow: str
    max_queue: int
    depth: int
    in_flight: int
    peak: int
    published: int
    delivered: int
    dropped: dict[str, int]
    in_flight_batches: int
    window: int


# Large observations fill memory long before they fill a queue of records. Beyond this the same rule applies.
MAX_QUEUE_BYTES = 64 << 20


class SubscriberQueue:
    """One subscriber's bounded queue and the batches under way to it."""

    def __init__(self, policy: QueuePolicy, window: int, first_number: int) -> None:
        """`window` bounds the batches under way; delivery numbers start after `first_number` and only rise."""
        self.policy = policy
        self.window = window
        self.depth = 0
        self.size_bytes = 0
        self.peak = 0
        self.in_flight_records = 0
        self.accounts: dict[bytes, Account] = {}
        self.is_block = policy.overflow == "block"
        self.is_latest = policy.overflow == "latest"
        self._max_records = policy.max_records
        self._waiting: deque[Entry] = deque()
        self._newest: dict[tuple[bytes, int], Entry] = {}
        self._under_way: deque[tuple[int, Entry]] = deque()
        self._number = first_number

    # ---- in ----

    def offer(self, entry: Entry) -> int:
        """Take the entry, making room as the policy says; returns how many records that dropped.

        Under `block` the router must not offer while `is_full`.
        """
        account = self.account(entry.stream)
        account.published += entry.records
        dropped = self._replace(entry) if self.is_latest else self._enqueue(entry)
        self.peak = max(self.peak, self.depth)
        return dropped

    def _replace(self, entry: Entry) -> int:
        before = self._newest.get(entry.key)
        self._newest[entry.key] = entry
        self._hold(entry)
        return self._drop(before, "superseded") if before is not None else 0

    def _enqueue(self, entry: Entry) -> int:
        dropped = 0
        if not self.is_block:
            if self.policy.overflow == "drop_newest" and not self._has_room_for(entry):
                self._hold(entry)
                return self._drop(entry, "drop_newest")
            while self.policy.overflow == "drop_oldest" and self._waiting and not self._has_room_for(entry):
                dropped += self._drop(self._waiting.popleft(), "drop_oldest")
        self._waiting.append(entry)
        self._hold(entry)
        return dropped

    def _has_room_for(self, entry: Entry) -> bool:
        fits = not self._waiting or self.size_bytes + entry.size_bytes <= MAX_QUEUE_BYTES
        return fits and self.depth + entry.records <= self._max_records

    def _hold(self, entry: Entry) -> None:
        self.depth += entry.records
        self.size_bytes += entry.size_bytes

    def _let_go(self, entry: Entry) -> None:
        self.depth -= entry.records
        self.size_bytes -= entry.size_bytes

    def _drop(self, entry: Entry, reason: str) -> int:
        """Count an entry that is in `depth` as dropped."""
        self._let_go(entry)
        dropped = self.accounts[entry.stream].dropped
        dropped[reason] = dropped.get(reason, 0) + entry.records
        return entry.records

    @property
    def is_full(self) -> bool:
        """Whether a `block` queue has no room for one more full batch. Never true for a lossy policy.

        Entries count, too: one that a filter left empty has no records, and still waits in memory.
        """
        return self.is_block and (
            self.depth + MAX_BATCH_RECORDS > self._max_records
            or len(self._waiting) >= self._max_records
            or self.size_bytes >= MAX_QUEUE_BYTES
        )

    # ---- out ----

    @property
    def can_send(self) -> bool:
        """Whether something waits and the window has room."""
        return len(self._under_way) < self.window and bool(self._newest if self.is_latest else self._waiting)

    def peek(self) -> Entry:
        """The entry to send next; only while `can_send`."""
        return next(iter(self._newest.values())) if self.is_latest else self._waiting[0]

    @property
    def next_number(self) -> int:
        """Number the next delivery gets."""
        return self._number + 1

    def mark_sent(self) -> None:
        """The socket took the entry that `peek` returned, under `next_number`."""
        entry = self.peek()
        if self.is_latest:
            del self._newest[entry.key]
        else:
            self._waiting.popleft()
        self._number += 1
        self._let_go(entry)
        self.in_flight_records += entry.records
        self._under_way.append((self._number, entry))

    def on_echo(self, number: int) -> list[Entry]:
        """Everything up to `number` is consumed or committed: returns those entries, now delivered.

        Raises `WireError` for a number never sent. An old echo is harmless.
        """
        if number > self._number:
            raise WireError("echo", f"number {number}, the newest delivery is {self._number}")
        done: list[Entry] = []
        while self._under_way and self._under_way[0][0] <= number:
            entry = self._under_way.popleft()[1]
            self.in_flight_records -= entry.records
            self.accounts[entry.stream].delivered += entry.records
            done.append(entry)
        return done

    # ---- a subscriber that went away ----

    def requeue_in_flight(self) -> int:
        """Put what was under way back in front, in order; returns its records. For `block`."""
        records = self.in_flight_records
        for _, entry in reversed(self._under_way):
            self._waiting.appendleft(entry)
            self._hold(entry)
        self._under_way.clear()
        self.in_flight_records = 0
        return records

    def drop_in_flight(self, reason: str) -> int:
        """Count what was under way as dropped: nobody can say whether it was read."""
        records = self.in_flight_records
        for _, entry in self._under_way:
            self._hold(entry)
            self._drop(entry, reason)
        self._under_way.clear()
        self.in_flight_records = 0
        return records

    def drop_all(self, reason: str) -> int:
        """Count everything that waits or is under way as dropped."""
        records = self.drop_in_flight(reason)
        entries: Iterable[Entry] = [*self._waiting, *self._newest.values()]
        records += sum(self._drop(entry, reason) for entry in entries)
        self._waiting.clear()
        self._newest.clear()
        return records

    # ---- figures ----

    def account(self, stream: bytes) -> Account:
        """The account of one stream, opened at first use."""
        account = self.accounts.get(stream)
        if account is None:
            account = self.accounts[stream] = Account()
        return account

    def statistics(self) -> QueueStatistics:
        """Frozen figures over all streams."""
        dropped: dict[str, int] = {}
        for account in self.accounts.values():
            for reason, records in account.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + records
        return QueueStatistics(
            overflow=self.policy.overflow,
            max_queue=0 if self.is_latest else self.policy.max_records,
            depth=self.depth,
            in_flight=self.in_flight_records,
            peak=self.peak,
            published=sum(account.published for account in self.accounts.values()),
            delivered=sum(account.delivered for account in self.accounts.values()),
            dropped=dropped,
            in_flight_batches=len(self._under_way),
            window=self.window,
        )
