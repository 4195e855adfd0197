"""SubscriberQueue against a list: whatever happens in whatever order, no record is anywhere twice, or nowhere."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane.config.errors import WireError
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.transport.queue import ROUTER_RESTART, Entry, SubscriberQueue

LIMIT = 2_400  # a few full batches, and not a whole number of them
MAX_AGE_S = 0.5
POLICIES = {
    "block": QueuePolicy("block", LIMIT),
    "drop_oldest": QueuePolicy("drop_oldest", LIMIT, max_age_ms=1_000 * MAX_AGE_S),
    "drop_newest": QueuePolicy("drop_newest", LIMIT, max_age_ms=1_000 * MAX_AGE_S),
    "latest": QueuePolicy("latest", max_age_ms=1_000 * MAX_AGE_S),
}
STREAMS = [bytes([number]) * 16 for number in range(3)]


@dataclass
class Model:
    """One list of what waits, in the order of arrival; a lane is those of its entries that are vital, or are not."""

    waiting: list[Entry] = field(default_factory=list[Entry])
    vital: list[int] = field(default_factory=list[int])  # ids of the waiting entries that are in the vital lane
    under_way: list[tuple[int, Entry]] = field(default_factory=list[tuple[int, Entry]])
    published: Counter[bytes] = field(default_factory=Counter[bytes])
    delivered: Counter[bytes] = field(default_factory=Counter[bytes])
    dropped: Counter[tuple[bytes, str]] = field(default_factory=Counter[tuple[bytes, str]])
    base: Counter[bytes] = field(default_factory=Counter[bytes])
    put_away: Counter[str] = field(default_factory=Counter[str])
    peak: int = 0

    @property
    def depth(self) -> int:
        """Records waiting."""
        return sum(entry.records for entry in self.waiting)

    def lane(self, *, is_vital: bool) -> list[Entry]:
        """What waits in one lane."""
        return [entry for entry in self.waiting if (id(entry) in self.vital) is is_vital]

    def overflows(self, *, is_vital: bool) -> bool:
        """Whether a lane holds more than its bound."""
        return sum(entry.records for entry in self.lane(is_vital=is_vital)) > LIMIT

    def queued(self, stream: bytes) -> int:
        """Records of a stream, wherever they are."""
        entries = (*self.waiting, *(entry for _, entry in self.under_way))
        return sum(entry.records for entry in entries if entry.stream == stream)

    def dropped_of(self, stream: bytes) -> dict[str, int]:
        """By reason, those that are not 0."""
        return {reason: count for (known, reason), count in self.dropped.items() if known == stream and count}

    def offer(self, entry: Entry, overflow: str, *, is_vital: bool) -> int:
        """Put it in, then take out what the policy says until both lanes are within their bounds."""
        before = sum(self.dropped.values())
        self.published[entry.stream] += entry.records
        if overflow == "latest":
            self._replace(entry)
        else:
            self._put(len(self.waiting), entry, is_vital=is_vital)
        while overflow.startswith("drop") and self.overflows(is_vital=is_vital):
            self._give_way(entry if overflow == "drop_newest" else self.lane(is_vital=is_vital)[0], overflow)
        self.peak = max(self.peak, self.depth)
        return sum(self.dropped.values()) - before

    def _put(self, index: int, entry: Entry, *, is_vital: bool) -> None:
        self.waiting.insert(index, entry)
        if is_vital:
            self.vital.append(id(entry))

    def _replace(self, entry: Entry) -> None:
        for index, known in enumerate(self.waiting):
            if known.key == entry.key:
                self.waiting[index] = entry
                self.dropped[known.stream, "superseded"] += known.records
                return
        self.waiting.append(entry)

    def _give_way(self, entry: Entry, overflow: str) -> None:
        """Its vital part stays at its place, if that lane has room; else something gives way there."""
        index = next(index for index, known in enumerate(self.waiting) if known is entry)
        self.drop(entry, overflow)
        if entry.vital is None:
            return
        self.dropped[entry.stream, overflow] -= entry.vital.records
        self._put(index, entry.vital, is_vital=True)
        while self.overflows(is_vital=True):
            self.drop(entry.vital if overflow == "drop_newest" else self.lane(is_vital=True)[0], overflow)

    def drop(self, entry: Entry, reason: str) -> int:
        """Take an entry out, and count it; returns its records."""
        self.waiting = [known for known in self.waiting if known is not entry]
        self.under_way = [(number, known) for number, known in self.under_way if known is not entry]
        self.dropped[entry.stream, reason] += entry.records
        return entry.records

    def forget(self, stream: bytes) -> None:
        """Nothing of a stream is queued, and only the sums stay."""
        self.put_away["published"] += self.published.pop(stream, 0)
        self.put_away["delivered"] += self.delivered.pop(stream, 0)
        self.put_away["dropped"] += sum(self.dropped_of(stream).values())
        self.base.pop(stream, None)
        for reason in self.dropped_of(stream):
            del self.dropped[stream, reason]


class QueueMachine(RuleBasedStateMachine):
    """Offers, sends, echoes, waits and deaths in any order, on the queue and on the model."""

    overflow: str
    queue: SubscriberQueue
    model: Model
    window: int
    number: int
    count: int
    now_s: float

    @initialize(overflow=st.sampled_from(sorted(POLICIES)), window=st.integers(1, 5), first=st.integers(0, 1 << 60))
    def begin(self, overflow: str, window: int, first: int) -> None:
        """A queue of one policy."""
        self.overflow = overflow
        self.window = window
        self.number = first
        self.count = 0
        self.now_s = 100.0
        self.queue = SubscriberQueue(POLICIES[overflow], window, first)
        self.model = Model()
        self.kept: list[Entry] = []  # an id is of one entry only as long as it lives

    # ---- in and out ----

    @rule(
        stream=st.sampled_from(STREAMS),
        records=st.integers(0, MAX_BATCH_RECORDS) | st.just(MAX_BATCH_RECORDS),
        kind=st.integers(1, 2),
        is_vital=st.booleans(),
        vital=st.none() | st.integers(0, MAX_BATCH_RECORDS),
    )
    def offer(self, stream: bytes, records: int, kind: int, is_vital: bool, vital: int | None) -> None:
        """A batch comes, unless a full `block` queue holds it back, as the router does."""
        if self.queue.is_full:
            return
        self.count += 1
        entry = Entry(stream, self.count, records, 1, [b"head"], (stream, kind), accepted_s=self.now_s)
        is_vital = is_vital and self.overflow.startswith("drop")
        if is_vital:
            entry.is_vital = True
        elif vital is not None and self.overflow.startswith("drop"):
            entry.vital = Entry(stream, self.count, min(vital, records), 1, [b"head"], (), accepted_s=self.now_s)
        self.kept.append(entry)
        assert self.queue.offer(entry) == self.model.offer(entry, self.overflow, is_vital=is_vital)

    @rule(most=st.integers(1, 5))
    def send(self, most: int) -> None:
        """The socket takes some, never more than the window holds."""
        for _ in range(most):
            assert self.queue.can_send == (len(self.model.under_way) < self.window and bool(self.model.waiting))
            if not self.queue.can_send:
                return
            entry = self.queue.peek()
            assert entry is self.model.waiting[0]
            self.queue.mark_sent()
            self.number += 1
            self.model.under_way.append((self.number, self.model.waiting.pop(0)))

    @rule(back=st.integers(0, 6))
    def echo(self, back: int) -> None:
        """The subscriber consumed up to a number it was sent, or repeats an old one."""
        number = max(0, self.number - back)
        done = [entry for sent, entry in self.model.under_way if sent <= number]
        self.model.under_way = [(sent, entry) for sent, entry in self.model.under_way if sent > number]
        for entry in done:
            self.model.delivered[entry.stream] += entry.records
        assert self.queue.on_echo(number) == done

    @rule(ahead=st.integers(1, 1 << 60))
    def echo_from_the_future(self, ahead: int) -> None:
        """It claims what was never sent."""
        with pytest.raises(WireError):
            self.queue.on_echo(self.number + ahead)

    @rule(seconds=st.sampled_from([0.1, 0.25, MAX_AGE_S, 2.0]))
    def time_passes(self, seconds: float) -> None:
        """And what has waited for longer than it may is dropped."""
        self.now_s += seconds
        stale = [entry for entry in self.model.waiting if entry.accepted_s < self.now_s - MAX_AGE_S]
        expected = 0 if self.overflow == "block" else sum(self.model.drop(entry, "stale") for entry in stale)
        assert self.queue.expire(self.now_s) == expected

    # ---- deaths ----

    def _lose(self, entries: list[Entry], reason: str) -> int:
        return sum(self.model.drop(entry, reason) for entry in entries)

    @property
    def _under_way(self) -> list[Entry]:
        return [entry for _, entry in self.model.under_way]

    @precondition(lambda self: self.overflow == "block")
    @rule()
    def restart_of_a_block_subscriber(self) -> None:
        """What was under way goes back in front."""
        records = sum(entry.records for entry in self._under_way)
        self.model.waiting[:0] = self._under_way
        self.model.under_way.clear()
        assert self.queue.requeue_in_flight() == records

    @precondition(lambda self: self.overflow != "block")
    @rule()
    def restart_of_a_lossy_subscriber(self) -> None:
        """Nobody can say whether it was read, and another process counts from here."""
        assert self.queue.drop_in_flight("subscriber_restart") == self._lose(self._under_way, "subscriber_restart")
        self.queue.begin_instance({})
        self.model.base = Counter(self.model.delivered)

    @rule()
    def leave(self) -> None:
        """It gives up its place."""
        lost = self._lose([*self._under_way, *self.model.waiting], "subscriber_left")
        assert self.queue.drop_all("subscriber_left") == lost

    @precondition(lambda self: self.overflow != "block")
    @rule(read=st.integers(0, 5), excess=st.integers(1, 1 << 40))
    def restart_of_the_router(self, read: int, excess: int) -> None:
        """All is lost with it, but for what the subscriber had read and says so; nonsense is not believed."""
        had_read = Counter[bytes]()
        for entry in self._under_way[:read]:
            had_read[entry.stream] += entry.records
        lost = self._lose([*self._under_way, *self.model.waiting], ROUTER_RESTART)
        assert self.queue.drop_all(ROUTER_RESTART) == lost
        for stream in STREAMS:
            before = self.model.delivered[stream] - self.model.base[stream]
            all_lost = self.model.dropped[stream, ROUTER_RESTART] + self.model.dropped[stream, "subscriber_restart"]
            assert self.queue.resume(stream, before + all_lost + excess) == 0
            assert self.queue.resume(stream, before - min(before, excess)) == 0
            assert self.queue.resume(stream, before + had_read[stream]) == had_read[stream]
            self.model.delivered[stream] += had_read[stream]
            self.model.dropped[stream, ROUTER_RESTART] -= had_read[stream]

    @rule(stream=st.sampled_from(STREAMS))
    def put_away(self, stream: bytes) -> None:
        """A stream ended long ago: its account goes, unless some of it is queued."""
        self.queue.put_away(stream)
        if not self.model.queued(stream):
            self.model.forget(stream)

    # ---- what holds at every step ----

    @invariant()
    def accounts_are_closed(self) -> None:
        """published = delivered + dropped + queued, for every stream, and `queued` is what can be counted."""
        for stream in STREAMS:
            account = self.queue.account(stream)
            assert account.balance == 0
            assert account.queued == self.queue.held(stream) == self.model.queued(stream)
            assert (account.published, account.delivered, account.base) == (
                self.model.published[stream],
                self.model.delivered[stream],
                self.model.base[stream],
            )
            assert {reason: count for reason, count in account.dropped.items() if count} == self.model.dropped_of(
                stream
            )

    @invariant()
    def figures_are_those_of_the_model(self) -> None:
        """Depth, in flight, peak, and sums that also count what was put away."""
        figures, model = self.queue.statistics(), self.model
        assert figures.depth == self.queue.depth == model.depth
        assert figures.peak == model.peak
        assert figures.in_flight == sum(entry.records for _, entry in model.under_way)
        assert figures.in_flight_batches == len(model.under_way) <= self.window
        assert self.queue.next_number == self.number + 1
        assert figures.published == sum(model.published.values()) + model.put_away["published"]
        assert figures.delivered == sum(model.delivered.values()) + model.put_away["delivered"]
        assert sum(figures.dropped.values()) == sum(model.dropped.values()) + model.put_away["dropped"]

    @invariant()
    def depth_is_bounded(self) -> None:
        """Each lane by the bound of the policy; `block` loses nothing but by leaving."""
        if self.overflow.startswith("drop"):
            assert not self.model.overflows(is_vital=True)
            assert not self.model.overflows(is_vital=False)
        if self.overflow == "block":
            assert set(self.queue.statistics().dropped) <= {"subscriber_left"}


TestQueueModel = QueueMachine.TestCase
TestQueueModel.settings = settings(max_examples=150, stateful_step_count=40)
