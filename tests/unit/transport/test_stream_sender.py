"""StreamSender: hello first, batches in order, back when told, goodbye after the last ack. Time is an argument."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest

from runlane.transport.ack import AckWindow
from runlane.transport.messages import (
    StepField,
    StepSchema,
    StreamAck,
    StreamBye,
    StreamHello,
    StreamInfo,
    StreamNack,
    StreamWelcome,
    SubscriberBye,
)
from runlane.transport.stream_sender import ANSWER_S, KEEPALIVE_S, StreamSender
from runlane.transport.testing import FakeSend, make_batch, make_info
from runlane.transport.wire import BatchHeader, Frame


@dataclass
class Rig:
    """A sender, its window and its in-memory socket."""

    info: StreamInfo
    window: AckWindow
    send: FakeSend
    sender: StreamSender

    def fill(self, batches: int, records: int = 2) -> None:
        """Append so many batches."""
        for _ in range(batches):
            self.window.append(make_batch(self.info, self.window.last_seq + 1, step=records))

    def welcome(self, expected_seq: int, sent_seq: int) -> StreamWelcome:
        """The receiver's answer to a hello."""
        return StreamWelcome(stream=self.info.stream, receiver="r", expected_seq=expected_seq, sent_seq=sent_seq)

    def said(self) -> list[str]:
        """What was sent since: `hello`, `bye`, or the first seq of a batch."""
        return [
            str(message.first_seq) if isinstance(message, BatchHeader) else type(message).__name__
            for message in self.send.take()
        ]


@pytest.fixture
def rig() -> Rig:
    """A sender of a new stream with nothing to send."""
    info, window, send = make_info(), AckWindow(1 << 20), FakeSend()
    return Rig(info, window, send, StreamSender(info, window, send))


def test_the_first_word_is_hello_then_batches_in_order(rig: Rig) -> None:
    """Nobody waits for the welcome: what is there goes out behind the hello."""
    rig.fill(3)
    assert rig.sender.pump(0.0) == 3
    assert rig.said() == ["StreamHello", "1", "3", "5"]
    assert rig.sender.pump(0.1) == 0
    assert rig.said() == []


def test_the_hello_says_what_is_held_and_what_was_sent(rig: Rig) -> None:
    """`oldest_seq` is the oldest unacked seq, `sent_seq` the newest sent before this hello."""
    rig.fill(3)
    rig.sender.pump(0.0)
    rig.sender.on_message(StreamAck(stream=rig.info.stream, seq=2), 0.0)
    rig.send.take()
    rig.sender.pump(ANSWER_S)
    assert rig.send.take() == [StreamHello(info=rig.info, oldest_seq=3, sent_seq=6, high_seq=6)]


def test_without_a_peer_nothing_is_marked_sent(rig: Rig) -> None:
    """A socket that refuses leaves everything with the sender, the hello too."""
    rig.fill(2)
    rig.send.room = 0
    assert rig.sender.pump(0.0) == 0
    assert rig.window.sent_seq == 0
    rig.send.room = 100
    assert rig.sender.pump(0.0) == 2
    assert rig.said() == ["StreamHello", "1", "3"]


def test_a_full_socket_stops_between_two_batches(rig: Rig) -> None:
    """What the socket did not take goes out at the next turn, in order."""
    rig.fill(3)
    rig.send.room = 2
    assert rig.sender.pump(0.0) == 1
    rig.send.room = 100
    assert rig.sender.pump(0.0) == 2
    assert rig.said() == ["StreamHello", "1", "3", "5"]


def test_an_unanswered_hello_is_repeated_after_a_while(rig: Rig) -> None:
    """Not sooner than ANSWER_S: a receiver under backpressure reads late."""
    rig.sender.pump(0.0)
    rig.sender.pump(ANSWER_S - 0.01)
    assert rig.said() == ["StreamHello"]
    rig.sender.pump(ANSWER_S)
    assert rig.said() == ["StreamHello"]


def test_an_answered_hello_is_repeated_as_keep_alive(rig: Rig) -> None:
    """KEEPALIVE_S after the welcome the next one goes out, which finds batches lost on the way."""
    rig.sender.pump(0.0)
    rig.sender.on_message(rig.welcome(1, 0), 0.2)
    rig.said()
    rig.sender.pump(0.2 + KEEPALIVE_S - 0.01)
    assert rig.said() == []
    rig.sender.pump(0.2 + KEEPALIVE_S)
    assert rig.said() == ["StreamHello"]
    assert rig.sender.receiver == "r"


def test_a_keep_alive_finds_a_lost_tail(rig: Rig) -> None:
    """Nothing follows a lost last batch that could show the hole: the welcome does."""
    rig.fill(3)
    rig.sender.pump(0.0)
    rig.sender.pump(ANSWER_S)
    rig.said()
    assert rig.sender.on_message(rig.welcome(expected_seq=5, sent_seq=6), 1.0) is True
    assert rig.sender.pump(1.0) == 1
    assert rig.said() == ["5"]


def test_a_new_receiver_gets_everything_unacked(rig: Rig) -> None:
    """`expected_seq` of a receiver that knows nothing is our oldest; all of it goes out again."""
    rig.fill(3)
    rig.sender.pump(0.0)
    rig.sender.on_message(StreamAck(stream=rig.info.stream, seq=2), 0.0)
    rig.said()
    assert rig.sender.on_message(rig.welcome(expected_seq=3, sent_seq=6), 0.0) is True
    rig.sender.pump(0.0)
    assert rig.said() == ["3", "5"]


def test_a_nack_goes_back_to_the_hole(rig: Rig) -> None:
    """From the batch that holds the seq, each once."""
    rig.fill(3)
    rig.sender.pump(0.0)
    rig.said()
    assert rig.sender.on_message(StreamNack(stream=rig.info.stream, expected_seq=3), 0.0) is True
    rig.sender.pump(0.0)
    assert rig.said() == ["3", "5"]


def test_a_nack_of_a_stranger_is_answered_with_hello(rig: Rig) -> None:
    """Seq 0 means it does not know us: introduce at once; nothing is resent before it said what it expects."""
    rig.fill(1)
    rig.sender.pump(0.0)
    rig.said()
    assert rig.sender.on_message(StreamNack(stream=rig.info.stream, expected_seq=0), 0.1) is False
    rig.sender.pump(0.1)
    assert rig.said() == ["StreamHello"]


def test_a_grown_schema_is_told_before_the_batch_that_needs_it(rig: Rig) -> None:
    """New rows cannot be read without it, so the hello goes first."""
    rig.sender.pump(0.0)
    rig.said()
    grown = [*rig.info.schemas, StepSchema(schema_id=1, fields=[StepField("seq", "<u8")])]
    rig.sender.info = msgspec.structs.replace(rig.info, schemas=grown)
    rig.fill(1)
    rig.sender.pump(0.1)
    first, second = rig.send.take()
    assert isinstance(first, StreamHello)
    assert len(first.info.schemas) == 2
    assert isinstance(second, BatchHeader)


def test_a_schema_that_grows_while_hello_is_said_is_told_next(rig: Rig) -> None:
    """The training thread announces at any moment: what the hello did not hold was not told."""
    grown = [*rig.info.schemas, StepSchema(schema_id=1, fields=[StepField("seq", "<u8")])]

    def send(frames: Sequence[Frame]) -> bool:
        rig.sender.info = msgspec.structs.replace(rig.info, schemas=grown)
        return rig.send(frames)

    rig.sender = StreamSender(rig.info, rig.window, send)
    rig.sender.pump(0.0)
    rig.fill(1)
    rig.sender.pump(0.0)
    hellos = [message for message in rig.send.said if isinstance(message, StreamHello)]
    assert [len(hello.info.schemas) for hello in hellos] == [1, 2]
    assert isinstance(rig.send.said[-1], BatchHeader)


def test_goodbye_waits_for_the_last_ack_and_is_said_once(rig: Rig) -> None:
    """While anything is unacked the stream is not over."""
    rig.fill(1)
    rig.sender.pump(0.0)
    rig.said()
    assert rig.sender.say_bye() is False
    rig.sender.on_message(StreamAck(stream=rig.info.stream, seq=2), 0.0)
    assert rig.sender.say_bye() is True
    assert rig.sender.say_bye() is True
    assert rig.send.take() == [StreamBye(stream=rig.info.stream)]


def test_a_goodbye_that_could_not_leave_is_tried_again(rig: Rig) -> None:
    """True is only said once the socket took it."""
    rig.send.room = 0
    assert rig.sender.say_bye() is False
    rig.send.room = 1
    assert rig.sender.say_bye() is True


def test_a_message_that_is_not_for_a_sender_changes_nothing(rig: Rig) -> None:
    """Anything but welcome, ack and nack is passed over."""
    rig.fill(1)
    rig.sender.pump(0.0)
    assert rig.sender.on_message(SubscriberBye(name="n", instance="i"), 0.0) is False
    assert rig.window.pending_records == 2
