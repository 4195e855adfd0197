"""SubscriberQueue against a list: whatever happens in whatever order, no record is anywhere twice, or nowhere."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane.config.errors import WireError
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.transport.queue import Entry, SubscriberQueue

LIMIT = 2_400  # a few full batches, and not a whole number of them
POLICIES = {
    "block": QueuePolicy("block", LIMIT),
    "drop_oldest": QueuePolicy("drop_oldest", LIMIT),
    "drop_newest": QueuePolicy("drop_newest", LIMIT),
    "latest": QueuePolicy("latest"),
}
STREAMS = [bytes([number]) * 16 for number in range(3)]


@dataclass
class Model:
    """The queue as plain lists of (id, records, stream, kind), and tables of what became of each record."""

    waiting: list[Entry] = field(default_factory=list[Entry])
    under_way: list[tuple[int, Entry]] = field(default_factory=list[tuple[int, Entry]])
    published: dict[bytes, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    delivered: dict[bytes, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    dropped: dict[bytes, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    peak: int = 0

    @property
    def depth(self) -> int:
        """Records waiting."""
        return sum(entry.records for entry in self.waiting)

    def offer(self, entry: Entry, overflow: str) -> int:
        """Apply the policy the slow way; returns what it dropped."""
        self.published[entry.stream] += entry.records
        victims: list[Entry] = []
        if overflow == "latest":
            places = [index for index, known in enumerate(self.waiting) if known.key == entry.key]
            if places:
                victims.append(self.waiting[places[0]])
                self.waiting[places[0]] = entry
            else:
                self.waiting.append(entry)
        elif overflow == "drop_newest" and self.depth + entry.records > LIMIT:
            victims.append(entry)
        else:
            while overflow == "drop_oldest" and self.waiting and self.depth + entry.records > LIMIT:
                victims.append(self.waiting.pop(0))
            self.waiting.append(entry)
        self.peak = max(self.peak, self.depth)
        return self.drop(victims)

    def drop(self, entries: list[Entry]) -> int:
        """Count entries as dropped."""
        for entry in entries:
            self.dropped[entry.stream] += entry.records
        return sum(entry.records for entry in entries)


class QueueMachine(RuleBasedStateMachine):
    """Offers, sends, echoes and deaths in any order, on the queue and on the model."""

    overflow: str
    queue: SubscriberQueue
    model: Model
    window: int
    number: int
    count: int

    @initialize(overflow=st.sampled_from(sorted(POLICIES)), window=st.integers(1, 5), first=st.integers(0, 1 << 60))
    def begin(self, overflow: str, window: int, first: int) -> None:
        """A queue of one policy."""
        self.overflow = overflow
        self.window = window
        self.number = first
        self.count = 0
        self.queue = SubscriberQueue(POLICIES[overflow], window, first)
        self.model = Model()

    @rule(
        stream=st.sampled_from(STREAMS),
        records=st.integers(0, MAX_BATCH_RECORDS) | st.just(MAX_BATCH_RECORDS),
        kind=st.integers(1, 2),
    )
    def offer(self, stream: bytes, records: int, kind: int) -> None:
        """A batch comes, unless a full `block` queue holds it back, as the router does."""
        if self.queue.is_full:
            return
        self.count += 1
        entry = Entry(stream, self.count, records, 1, [b"head"], (stream, kind))
        assert self.queue.offer(entry) == self.model.offer(entry, self.overflow)

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

    @precondition(lambda self: self.overflow == "block")
    @rule()
    def restart_of_a_block_subscriber(self) -> None:
        """What was under way goes back in front."""
        records = sum(entry.records for _, entry in self.model.under_way)
        self.model.waiting[:0] = [entry for _, entry in self.model.under_way]
        self.model.under_way.clear()
        assert self.queue.requeue_in_flight() == records

    @precondition(lambda self: self.overflow != "block")
    @rule()
    def restart_of_a_lossy_subscriber(self) -> None:
        """Nobody can say whether it was read."""
        lost = self.model.drop([entry for _, entry in self.model.under_way])
        self.model.under_way.clear()
        assert self.queue.drop_in_flight("subscriber_restart") == lost

    @rule()
    def leave(self) -> None:
        """It gives up its place."""
        lost = self.model.drop([entry for _, entry in self.model.under_way] + self.model.waiting)
        self.model.under_way.clear()
        self.model.waiting.clear()
        assert self.queue.drop_all("subscriber_left") == lost

    @invariant()
    def accounts_are_closed(self) -> None:
        """published = delivered + dropped + queued, in records, for every stream and in total."""
        queued = dict.fromkeys(STREAMS, 0)
        for entry in (*self.model.waiting, *(entry for _, entry in self.model.under_way)):
            queued[entry.stream] += entry.records
        for stream in STREAMS:
            account = self.queue.account(stream)
            dropped = sum(account.dropped.values())
            assert account.published == account.delivered + dropped + queued[stream]
            assert (account.published, account.delivered, dropped, account.queued) == (
                self.model.published[stream],
                self.model.delivered[stream],
                self.model.dropped[stream],
                queued[stream],
            )

    @invariant()
    def figures_are_those_of_the_model(self) -> None:
        """Depth, in flight, peak; and depth stays bounded."""
        figures: Any = self.queue.statistics()
        assert figures.depth == self.queue.depth == self.model.depth
        assert figures.in_flight == sum(entry.records for _, entry in self.model.under_way)
        assert figures.in_flight_batches == len(self.model.under_way) <= self.window
        assert self.queue.next_number == self.number + 1
        assert (
            figures.published == figures.delivered + sum(figures.dropped.values()) + figures.depth + figures.in_flight
        )
        if self.overflow in ("drop_oldest", "drop_newest"):
            assert self.queue.depth <= LIMIT
        if self.overflow == "block":
            assert not self.model.dropped or sum(self.model.dropped.values()) == figures.dropped.get(
                "subscriber_left", 0
            )


TestQueueModel = QueueMachine.TestCase
TestQueueModel.settings = settings(max_examples=150, stateful_step_count=40)
