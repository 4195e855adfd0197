"""AckWindow, StreamSender and IngressGate over a link that loses, repeats and forgets: all arrives once, in order."""

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runlane.transport.ack import AckWindow, IngressGate, Verdict
from runlane.transport.messages import ControlMessage, StreamAck, StreamBye, StreamHello, StreamNack, StreamWelcome
from runlane.transport.stream_sender import StreamSender
from runlane.transport.testing import make_batch, make_info
from runlane.transport.wire import BatchHeader, Frame, decode_control, decode_header, is_control

Message = ControlMessage | BatchHeader


class Link:
    """Two directions of a socket that may lose anything that is on its way, the oldest or the newest."""

    def __init__(self) -> None:
        self.down: deque[Message] = deque()
        self.up: deque[ControlMessage] = deque()
        self.room = 8

    def send(self, frames: Sequence[Frame]) -> bool:
        """As a socket does: refuse when its window is full."""
        if len(self.down) >= self.room:
            return False
        self.down.append(decode_control(frames[0]) if is_control(frames[0]) else decode_header(frames[0]))
        return True


class Receiver:
    """The router's half, as small as it can be: a gate, and commits when it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate: IngressGate | None = None
        self.accepted: list[tuple[int, int]] = []
        self.committed_seq = 0

    def hear(self, message: Message, key: str) -> list[ControlMessage]:
        """Take one message; returns the answers."""
        if isinstance(message, BatchHeader):
            return self._batch(message, key)
        if not isinstance(message, StreamHello):
            return []
        if self.gate is None:
            self.gate = IngressGate(message.oldest_seq)
            self.committed_seq = message.oldest_seq - 1
        welcome = StreamWelcome(
            stream=key, receiver=self.name, expected_seq=self.gate.expected_seq, sent_seq=message.sent_seq
        )
        return [welcome, StreamAck(stream=key, seq=self.committed_seq)]

    def _batch(self, header: BatchHeader, key: str) -> list[ControlMessage]:
        if self.gate is None:
            return [StreamNack(stream=key, expected_seq=0)]
        verdict = self.gate.accept(header.first_seq, header.last_seq)
        if verdict is Verdict.NEW:
            self.accepted.append((header.first_seq, header.last_seq))
        elif verdict is Verdict.GAP and self.gate.should_ask():
            return [StreamNack(stream=key, expected_seq=self.gate.expected_seq)]
        return []

    def commit(self, key: str) -> list[ControlMessage]:
        """Everything accepted is on disk now."""
        if self.gate is None:
            return []
        self.committed_seq = self.gate.expected_seq - 1
        return [StreamAck(stream=key, seq=self.committed_seq)]


class AckMachine(RuleBasedStateMachine):
    """One stream, one sender, one receiver after another, and a link that does its worst."""

    def __init__(self) -> None:
        super().__init__()
        self.info = make_info()
        self.link = Link()
        self.window = AckWindow(1 << 20)
        self.sender = StreamSender(self.info, self.window, self.link.send)
        self.receiver = Receiver("first")
        self.now_s = 0.0
        self.stored: set[int] = set()

    @rule(records=st.integers(1, 3))
    def append(self, records: int) -> None:
        """The source has a new batch."""
        self.window.append(make_batch(self.info, self.window.last_seq + 1, step=records))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.6, 1.1]))
    def pump(self, seconds: float) -> None:
        """Time passes, and the sender says what is due."""
        self.now_s += seconds
        self.sender.pump(self.now_s)

    @rule(count=st.integers(1, 8))
    def carry_down(self, count: int) -> None:
        """Some of what was sent arrives."""
        for _ in range(min(count, len(self.link.down))):
            self.link.up.extend(self.receiver.hear(self.link.down.popleft(), self.info.stream))

    @rule(count=st.integers(1, 8))
    def carry_up(self, count: int) -> None:
        """Some of the answers arrive."""
        for _ in range(min(count, len(self.link.up))):
            self.sender.on_message(self.link.up.popleft(), self.now_s)

    @rule()
    def commit(self) -> None:
        """The durable path stores all it was given, then acks."""
        for first_seq, last_seq in self.receiver.accepted:
            self.stored.update(range(first_seq, last_seq + 1))
        self.link.up.extend(self.receiver.commit(self.info.stream))

    @rule(places=st.sets(st.integers(0, 7)))
    def lose_down(self, places: set[int]) -> None:
        """Messages vanish on the way down, any of them."""
        self.link.down = deque(message for place, message in enumerate(self.link.down) if place not in places)

    @rule(places=st.sets(st.integers(0, 7)))
    def lose_up(self, places: set[int]) -> None:
        """Answers vanish on the way up."""
        self.link.up = deque(message for place, message in enumerate(self.link.up) if place not in places)

    @rule(place=st.integers(0, 7))
    def repeat_down(self, place: int) -> None:
        """A message arrives twice."""
        if place < len(self.link.down):
            self.link.down.append(self.link.down[place])

    @rule()
    def restart_receiver(self) -> None:
        """It forgets everything it had not committed, and all that is on the way is lost."""
        self.link.down.clear()
        self.link.up.clear()
        self.receiver = Receiver("next")

    @invariant()
    def accepted_is_a_run_without_hole_or_repeat(self) -> None:
        """One receiver accepts each seq at most once, in order."""
        for (_, before), (after, _) in zip(self.receiver.accepted, self.receiver.accepted[1:], strict=False):
            assert after == before + 1

    @invariant()
    def nothing_acked_is_missing(self) -> None:
        """Everything the sender forgot is stored: a prefix without a gap."""
        assert self.stored >= set(range(1, self.window.oldest_seq))

    @invariant()
    def nothing_unacked_is_forgotten(self) -> None:
        """The window holds exactly what was appended and not acked, and its figures agree."""
        held = [(batch.first_seq, batch.last_seq) for batch in self.window]
        assert sum(last - first + 1 for first, last in held) == self.window.pending_records
        assert self.window.size_bytes == sum(batch.size_bytes for batch in self.window)
        if held:
            assert (held[0][0], held[-1][1]) == (self.window.oldest_seq, self.window.last_seq)

    def teardown(self) -> None:
        """Once the link behaves, everything arrives, is committed and acked, and the goodbye is last."""
        for _ in range(10 * (len(self.window) + 10)):
            self.pump(0.6)
            self.carry_down(100)
            self.commit()
            self.carry_up(100)
            if self.sender.say_bye():
                break
        assert self.window.pending_records == 0
        assert self.stored == set(range(1, self.window.last_seq + 1))
        assert isinstance(self.link.down[-1], StreamBye)


TestAckModel = AckMachine.TestCase
TestAckModel.settings = settings(max_examples=150, stateful_step_count=50)


class WindowMachine(RuleBasedStateMachine):
    """A window on a longer stream, against a list: it may be set to any place, also behind what is acked."""

    def __init__(self) -> None:
        super().__init__()
        self.info = make_info()
        self.window = AckWindow(1 << 20, first_seq=11)
        self.held: list[tuple[int, int]] = []
        self.sent = 0
        self.acked = self.base = self.last = 10

    @rule(records=st.integers(1, 3))
    def append(self, records: int) -> None:
        """The batch that follows; no other is taken."""
        batch = make_batch(self.info, self.last + 1, step=records)
        with pytest.raises(ValueError, match="the one before ended"):
            self.window.append(make_batch(self.info, self.last + 2, step=1))
        self.window.append(batch)
        self.last = batch.last_seq
        self.held.append((batch.first_seq, batch.last_seq))

    @rule()
    def send(self) -> None:
        """The oldest that is not sent, if any."""
        batch = self.window.next_unsent()
        assert (batch is None) == (self.sent == len(self.held))
        if batch is not None:
            assert (batch.first_seq, batch.last_seq) == self.held[self.sent]
            self.window.mark_sent()
            self.sent += 1

    @rule(offset=st.integers(-12, 3))
    def ack(self, offset: int) -> None:
        """Of any seq: whole batches go, and never more counts as acked than was held."""
        seq = self.last + offset
        before = self.acked
        while self.held and self.held[0][1] <= seq:
            self.base = self.held.pop(0)[1]
            self.sent = max(0, self.sent - 1)
        self.acked = max(self.acked, min(seq, self.base))
        assert self.window.on_ack(seq) == self.acked - before

    @rule(offset=st.integers(-15, 15))
    def reset(self, offset: int) -> None:
        """The receiver is somewhere else: hold nothing, go on there; what is acked stays acked."""
        self.base = self.last = max(0, self.last + offset)
        self.held.clear()
        self.sent = 0
        self.window.reset(self.base + 1)

    @rule(offset=st.integers(-8, 3))
    def rewind(self, offset: int) -> None:
        """Back to the batch that holds a seq, never forward."""
        expected = self.last + offset
        keep = sum(1 for _, last in self.held if last < expected)
        assert self.window.rewind(expected) is (keep < self.sent)
        self.sent = min(self.sent, keep)

    @invariant()
    def it_is_what_the_list_is(self) -> None:
        """In every figure."""
        assert [(batch.first_seq, batch.last_seq) for batch in self.window] == self.held
        sent_seq = self.held[self.sent - 1][1] if self.sent else self.base
        figures = (self.window.oldest_seq, self.window.base_seq, self.window.last_seq, self.window.sent_seq)
        assert figures == (self.acked + 1, self.base, self.last, sent_seq)
        assert self.window.size_bytes == sum(batch.size_bytes for batch in self.window)
        assert self.window.pending_records == self.last - self.acked


TestWindowModel = WindowMachine.TestCase
TestWindowModel.settings = settings(max_examples=150, stateful_step_count=40)


@given(order=st.permutations(range(6)), sizes=st.lists(st.integers(1, 4), min_size=6, max_size=6))
def test_a_gate_accepts_a_run_whatever_the_order(order: list[int], sizes: list[int]) -> None:
    """Batches in any order, each offered again and again: the new ones are the run, in order, each once."""
    firsts = [1 + sum(sizes[:index]) for index in range(6)]
    gate = IngressGate(1)
    accepted: list[int] = []
    for _ in range(6):
        for index in order:
            if gate.accept(firsts[index], firsts[index] + sizes[index] - 1) is Verdict.NEW:
                accepted.append(index)  # noqa: PERF401  the call has an effect
    assert accepted == [0, 1, 2, 3, 4, 5]
    assert gate.expected_seq == 1 + sum(sizes)
