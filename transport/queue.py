"""SubscriberQueue: what waits for one subscriber, under its QoS policy, counted to the record. No sockets.

Owned by the router alone. Loss is normal for the three lossy policies and impossible under `block`; either
way, for each stream and at every instant: published = delivered + dropped + queued.

Entries that are vital (runs, episodes, logs, drops: rare, and missed dearly) wait in a lane of their own with the
same bound, so that no firehose of steps ever displaces one. Both lanes are sent in the order of arrival.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from runlane.config.errors import WireError
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.transport.wire import Frame, decode_header


@dataclass(slots=True, eq=False)
class Entry:
    """The part of one batch that a subscriber gets. `key` is what `latest` keeps the newest of.

    `records` are those that count; what a `block` subscriber is sent again may hold more. `accepted_s` is when the
    router took it, in seconds of its clock. `vital` is the vital part of an entry that has others, too: when the rest
    has to go, it stays.
    """

    stream: bytes
    last_seq: int
    records: int
    section_bits: int
    frames: list[Frame]
    key: tuple[object, ...]
    size_bytes: int = 0
    is_vital: bool = False
    accepted_s: float = 0.0
    order: int = 0
    vital: "Entry | None" = None


@dataclass(slots=True)
class Account:
    """Records of one stream towards one subscriber: what it asked for of the seqs after `first_seq` to `last_seq`.

    `delivered_seq` is how far it went in order; `base` is what was delivered less what the present process said it had
    been given, as both stood when it joined.
    """

    published: int = 0
    delivered: int = 0
    queued: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    first_seq: int = 0
    last_seq: int = 0
    delivered_seq: int = 0
    base: int = 0

    @property
    def balance(self) -> int:
        """0, or a record was counted twice or not at all."""
        return self.published - self.delivered - self.queued - sum(self.dropped.values())

    def drop(self, records: int, reason: str) -> None:
        """Count queued records as dropped."""
        self.queued -= records
        self.dropped[reason] = self.dropped.get(reason, 0) + records

    def add(self, other: "Account") -> None:
        """Add another account's sums to these."""
        self.published += other.published
        self.delivered += other.delivered
        self.queued += other.queued
        for reason, records in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + records


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
    credits: int


# Large observations fill memory long before they fill a queue of records. Beyond this the same rule applies.
MAX_QUEUE_BYTES = 64 << 20
# As many streams or environments `latest` keeps the newest of; beyond, those first heard of give way.
MAX_KEYS = 65_536
# What was in a router's lossy queues when it died, as far as its subscriber does not say otherwise.
ROUTER_RESTART = "router_restart"
# What was under way to a process that is gone, or seemed to be.
SUBSCRIBER_RESTART = "subscriber_restart"
_ON_THE_WAY = (ROUTER_RESTART, SUBSCRIBER_RESTART)


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
        self.changed: set[bytes] = set()  # streams whose accounts have changed since somebody last looked
        self.is_block = policy.overflow == "block"
        self.is_latest = policy.overflow == "latest"
        self._max_records = policy.max_records
        self._max_age_s = None if policy.max_age_ms is None else policy.max_age_ms / 1000
        self._waiting: deque[Entry] = deque()
        self._vital: deque[Entry] = deque()
        self._vital_depth = 0
        self._vital_bytes = 0
        self._newest: dict[tuple[object, ...], Entry] = {}
        self._under_way: deque[tuple[int, Entry]] = deque()
        self._number = first_number
        self._order = 0
        self._closed = Account()  # sums of accounts that were put away

    # ---- in ----

    def offer(self, entry: Entry) -> int:
        """Take the entry, making room as the policy says; returns how many records that dropped.

        Under `block` the router must not offer while `is_full`.
        """
        account = self.account(entry.stream)
        account.published += entry.records
        account.queued += entry.records
        self.changed.add(entry.stream)
        self._order += 1
        entry.order = self._order
        dropped = self._replace(entry) if self.is_latest else self._enqueue(entry)
        if self.depth > self.peak:
            self.peak = self.depth
        return dropped

    def _replace(self, entry: Entry) -> int:
        before = self._newest.get(entry.key)
        self._newest[entry.key] = entry
        self._hold(entry)
        dropped = self._drop(before, "superseded") if before is not None else 0
        while len(self._newest) > MAX_KEYS or (self.size_bytes > MAX_QUEUE_BYTES and len(self._newest) > 1):
            dropped += self._drop(self._newest.pop(next(iter(self._newest))), "drop_oldest")
        return dropped

    def _enqueue(self, entry: Entry) -> int:
        if self.is_block:
            self._waiting.append(entry)
            self._hold(entry)
            return 0
        lane = self._vital if entry.is_vital else self._waiting
        dropped = 0
        if self.policy.overflow == "drop_newest" and not self._has_room_for(entry, lane):
            self._hold(entry)
            return self._give_up(entry, "drop_newest")
        while lane and not self._has_room_for(entry, lane):
            dropped += self._give_up(lane.popleft(), "drop_oldest")
        lane.append(entry)
        self._hold(entry)
        return dropped

    def _has_room_for(self, entry: Entry, lane: deque[Entry]) -> bool:
        depth, size_bytes = self._vital_depth, self._vital_bytes
        if not entry.is_vital:
            depth, size_bytes = self.depth - depth, self.size_bytes - size_bytes
        fits = not lane or size_bytes + entry.size_bytes <= MAX_QUEUE_BYTES
        return fits and depth + entry.records <= self._max_records

    def _hold(self, entry: Entry) -> None:
        self.depth += entry.records
        self.size_bytes += entry.size_bytes
        if entry.is_vital:
            self._vital_depth += entry.records
            self._vital_bytes += entry.size_bytes

    def _let_go(self, entry: Entry) -> None:
        self.depth -= entry.records
        self.size_bytes -= entry.size_bytes
        if entry.is_vital:
            self._vital_depth -= entry.records
            self._vital_bytes -= entry.size_bytes

    def _drop(self, entry: Entry, reason: str) -> int:
        """Count an entry that is in `depth` as dropped."""
        self._let_go(entry)
        self.accounts[entry.stream].drop(entry.records, reason)
        self.changed.add(entry.stream)
        return entry.records

    def _give_up(self, entry: Entry, reason: str) -> int:
        """Drop an entry for want of room, but for its vital part: that goes on in its own lane, at its own place."""
        vital = entry.vital
        if vital is None:
            return self._drop(entry, reason)
        self._let_go(entry)
        dropped = entry.records - vital.records
        self.accounts[entry.stream].drop(dropped, reason)
        self.changed.add(entry.stream)
        vital.is_vital, vital.order = True, entry.order
        lane = self._vital
        while not self._has_room_for(vital, lane):
            if self.policy.overflow == "drop_newest" or lane[0].order > vital.order:
                self._hold(vital)
                return dropped + self._drop(vital, reason)
            dropped += self._drop(lane.popleft(), reason)
        at = next((index for index, known in enumerate(lane) if known.order > vital.order), len(lane))
        lane.insert(at, vital)
        self._hold(vital)
        return dropped

    def expire(self, now_s: float) -> int:
        """Drop what has waited for longer than `max_age_ms`; returns those records."""
        if self._max_age_s is None:
            return 0
        since_s = now_s - self._max_age_s
        dropped = 0
        for lane in (self._vital, self._waiting):
            while lane and lane[0].accepted_s < since_s:
                dropped += self._drop(lane.popleft(), "stale")
        for entry in [entry for entry in self._newest.values() if entry.accepted_s < since_s]:
            del self._newest[entry.key]
            dropped += self._drop(entry, "stale")
        return dropped

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
        return len(self._under_way) < self.window and bool(self._waiting or self._vital or self._newest)

    @property
    def is_due(self) -> bool:
        """Whether there is anything to send or to let go of."""
        return self.depth > 0 or bool(self._waiting)

    def _lane(self) -> deque[Entry]:
        """The lane whose first entry came first."""
        if not self._vital or (self._waiting and self._waiting[0].order < self._vital[0].order):
            return self._waiting
        return self._vital

    def peek(self) -> Entry:
        """The entry to send next; only while `can_send`."""
        return next(iter(self._newest.values())) if self.is_latest else self._lane()[0]

    @property
    def next_number(self) -> int:
        """Number the next delivery gets."""
        return self._number + 1

    def mark_sent(self) -> None:
        """The socket took the entry that `peek` returned, under `next_number`."""
        if self.is_latest:
            entry = self.peek()
            del self._newest[entry.key]
        else:
            entry = self._lane().popleft()
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
            account = self.accounts[entry.stream]
            account.queued -= entry.records
            account.delivered += entry.records
            if entry.last_seq > account.delivered_seq:
                account.delivered_seq = entry.last_seq
            self.changed.add(entry.stream)
            done.append(entry)
        return done

    @property
    def in_flight_batches(self) -> int:
        """Deliveries sent and not echoed."""
        return len(self._under_way)

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
        entries: Iterable[Entry] = [*self._waiting, *self._vital, *self._newest.values()]
        records += sum(self._drop(entry, reason) for entry in entries)
        self._waiting.clear()
        self._vital.clear()
        self._newest.clear()
        return records

    def resume(self, stream: bytes, received: int) -> int:
        """Believe a subscriber how many records of a stream its present process was given.

        What was counted as dropped on the way to it, with a router or a connection that broke, because nobody could
        say, moves to delivered; returns how many that are. A figure that contradicts the account is not believed.
        """
        account = self.accounts.get(stream)
        if account is None:
            return 0
        moved = rest = account.base + received - account.delivered
        if not 0 < moved <= sum(account.dropped.get(reason, 0) for reason in _ON_THE_WAY):
            return 0
        account.delivered += moved
        for reason in _ON_THE_WAY:
            taken = min(rest, account.dropped.get(reason, 0))
            rest -= taken
            if taken and taken == account.dropped[reason]:
                del account.dropped[reason]
            elif taken:
                account.dropped[reason] -= taken
        self.changed.add(stream)
        return moved

    def begin_instance(self, received: Mapping[bytes, int]) -> None:
        """Another process takes this place, which was given so much already: what it is given counts from here."""
        for stream, account in self.accounts.items():
            account.base = account.delivered - received.get(stream, 0)
            self.changed.add(stream)

    # ---- figures ----

    def account(self, stream: bytes) -> Account:
        """The account of one stream, opened at first use."""
        account = self.accounts.get(stream)
        if account is None:
            account = self.accounts[stream] = Account()
        return account

    def put_away(self, stream: bytes) -> None:
        """Forget the account of a stream that has ended and of which nothing is queued; the sums stay."""
        account = self.accounts.get(stream)
        if account is None or account.queued:
            return
        del self.accounts[stream]
        self.changed.discard(stream)
        self._closed.add(account)

    def held(self, stream: bytes) -> int:
        """Records of a stream that are in the queue or under way, counted one by one: what `queued` must equal."""
        waiting: Iterable[Entry] = [*self._waiting, *self._vital, *self._newest.values()]
        entries = [*waiting, *(entry for _, entry in self._under_way)]
        return sum(entry.records for entry in entries if entry.stream == stream)

    def first_waiting_seqs(self) -> dict[bytes, int]:
        """First seq of the oldest batch that waits, for each stream of which one does."""
        found: dict[bytes, int] = {}
        for entry in (*self._waiting, *self._vital, *self._newest.values()):
            first_seq = decode_header(entry.frames[0]).first_seq
            found[entry.stream] = min(first_seq, found.get(entry.stream, first_seq))
        return found

    def statistics(self) -> QueueStatistics:
        """Frozen figures over all streams."""
        total = Account()
        for account in (self._closed, *self.accounts.values()):
            total.add(account)
        return QueueStatistics(
            overflow=self.policy.overflow,
            max_queue=0 if self.is_latest else self.policy.max_records,
            depth=self.depth,
            in_flight=self.in_flight_records,
            peak=self.peak,
            published=total.published,
            delivered=total.delivered,
            dropped=total.dropped,
            in_flight_batches=len(self._under_way),
            window=self.window,
            credits=self.window - len(self._under_way),
        )
