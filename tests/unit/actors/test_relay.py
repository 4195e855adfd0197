"""Relay: whatever router answers what, in whatever order, each record goes out in order and none is forgotten."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from unit.actors.relay_rig import SMALL_WINDOW, RelayRig, seq_range

from runlane.actors.relay import LIVE_PATIENCE_S
from runlane.config.settings import Settings
from runlane.transport.messages import StepField, StepSchema, StreamHello, StreamRefused
from runlane.transport.testing import FakeClock


@pytest.fixture
def rig(short_dir: Path, settings: Settings, clock: FakeClock) -> Iterator[RelayRig]:
    """A journal with nothing in it."""
    rig = RelayRig(short_dir / "journals", settings, clock)
    yield rig
    rig.close()


# ---- on the way ------------------------------------------------------------------------------------------


def test_nothing_goes_out_before_the_router_says_what_it_expects(rig: RelayRig) -> None:
    """The hello tells the oldest seq that is not committed; then all follows from the journal."""
    rig.journal.steps(5)
    rig.start()
    assert rig.turn() == []
    assert rig.turn(rig.welcome(1)) == seq_range(1, 5)


def test_live_batches_are_not_read_again(rig: RelayRig) -> None:
    """They go on at once; only what did not come is waited for a moment, and read."""
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.journal.steps(6)
    relay.on_live(rig.live(1, 4))
    relay.advance(rig.clock.monotonic_s())
    assert rig.seqs() == seq_range(1, 4)
    assert rig.turn(seconds=LIVE_PATIENCE_S / 2) == []
    assert rig.turn(seconds=LIVE_PATIENCE_S) == [5, 6]


@pytest.mark.parametrize("first_seq", [1, 3, 5, 8])
def test_a_live_batch_that_does_not_follow_is_filled_up_from_the_journal(rig: RelayRig, first_seq: int) -> None:
    """Repeated, overlapping or ahead: each seq goes out once, in order."""
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.journal.steps(10)
    relay.on_live(rig.live(1, 4))
    relay.on_live(rig.live(first_seq, 11 - first_seq))
    assert rig.turn() == seq_range(1, 10)


def test_more_live_batches_than_the_window_holds_are_passed_over(rig: RelayRig) -> None:
    """Nobody acks: memory is bounded, and the journal has them all."""
    relay = rig.start()
    rig.turn(rig.welcome(1))
    for _ in range(400):
        rig.journal.steps(250)
        relay.on_live(rig.live(rig.journal.seq - 249, 250))
        relay.advance(rig.clock.monotonic_s())
    assert relay.window.size_bytes < SMALL_WINDOW.outbox_bytes + (8 << 10)
    assert relay._live_bytes <= SMALL_WINDOW.outbox_bytes  # pyright: ignore[reportPrivateUsage]
    out = rig.seqs()
    while out[-1] < rig.journal.seq:
        out += rig.turn(rig.ack(out[-1]))
    assert out == seq_range(1, 100_000)


def test_a_full_socket_is_waited_for(rig: RelayRig) -> None:
    """What it did not take stays in the window."""
    rig.journal.steps(5)
    rig.start()
    rig.send.room = 1
    assert rig.turn(rig.welcome(1)) == []
    rig.send.room = 100
    assert rig.turn() == seq_range(1, 5)


def test_new_schemas_are_announced_before_their_rows(rig: RelayRig) -> None:
    """From the worker's hello, or from the journal where that never came."""
    relay = rig.start()
    rig.turn(rig.welcome(1))
    second = StepSchema(schema_id=1, fields=[StepField("seq", "<u8"), StepField("action", "<i8")])
    relay.on_hello(msgspec.structs.replace(rig.journal.info, schemas=[*rig.journal.info.schemas, second]))
    rig.journal.steps(1)
    rig.turn()
    said = [message for message in rig.send.take() if isinstance(message, StreamHello)]
    relay.on_hello(rig.journal.info)  # older news
    assert len(relay.info.schemas) == 2
    assert said == []  # it was said before the batch, within the turn above


# ---- routers that come and go ----------------------------------------------------------------------------


def test_a_new_router_gets_all_that_is_not_acked(rig: RelayRig) -> None:
    """What the window still holds goes out again as it was, what it does not is read from the journal."""
    rig.journal.steps(300)
    relay = rig.start()
    assert rig.turn(rig.welcome(1)) == seq_range(1, 300)
    rig.turn(rig.ack(relay.window.base_seq))
    assert rig.turn(rig.welcome(1, 300, "second")) == seq_range(1, 300)
    rig.turn(rig.ack(300))
    rig.journal.steps(10)
    assert rig.turn() == seq_range(301, 310)
    assert rig.turn(rig.welcome(301, 310, "third")) == seq_range(301, 310)


def test_a_router_that_forgot_what_it_had_acked_gets_it_from_the_journal(rig: RelayRig) -> None:
    """Its database is older than the ack: the segment is still there, so is the record."""
    rig.journal.steps(20)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.turn(rig.ack(20))
    assert relay.head.acked == 20
    assert rig.turn(rig.welcome(5, 20, "older")) == seq_range(5, 20)
    assert relay.head.acked == 20
    rig.journal.steps(5)
    assert rig.turn() == seq_range(21, 25)
    rig.turn(rig.ack(25))
    assert relay.head.acked == 25


def test_a_router_that_has_more_than_was_acked_gets_only_the_rest(rig: RelayRig) -> None:
    """The former proxy had sent it; no batch overlaps what the router has."""
    rig.journal.steps(300)
    first = rig.start()
    rig.turn(rig.welcome(1))
    rig.turn(rig.ack(100))
    assert first.head.acked <= 100
    second = rig.restart()
    rig.turn()
    assert rig.turn(rig.welcome(231, 0, "same")) == seq_range(231, 300)
    rig.turn(rig.ack(300))
    assert (second.head.acked, second.pending_records) == (300, 0)


def test_a_router_that_has_more_than_is_published_waits_with_us(rig: RelayRig) -> None:
    """After a power cut the journal may lack what the router has: then the new seqs begin behind it, or none come."""
    rig.journal.steps(10)
    rig.start()
    assert rig.turn(rig.welcome(31)) == []
    rig.journal.steps(30)
    assert rig.turn() == seq_range(31, 40)


@pytest.mark.parametrize("hole", [1, 90, 257, 300])
def test_a_nack_goes_back_to_the_hole(rig: RelayRig, hole: int) -> None:
    """Wherever it lies, and no batch is sent from its middle."""
    rig.journal.steps(300)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    begins = {batch.first_seq for batch in relay.window}
    again = rig.turn(rig.nack(hole))
    assert again == seq_range(max(begin for begin in begins if begin <= hole), 300)
    assert rig.turn(rig.nack(hole)) == again


def test_a_router_that_knows_nothing_is_told_hello(rig: RelayRig) -> None:
    """A nack of seq 0; what it expects it says in its welcome."""
    rig.journal.steps(4)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.send.take()
    relay.on_message(rig.nack(0), rig.clock.monotonic_s())
    relay.advance(rig.clock.monotonic_s())
    hello, *_ = rig.send.take()
    assert isinstance(hello, StreamHello)
    assert (hello.oldest_seq, hello.sent_seq) == (1, 4)
    assert rig.turn(rig.welcome(1, 4)) == seq_range(1, 4)


def test_a_refused_stream_says_nothing_more_and_keeps_its_journal(rig: RelayRig) -> None:
    """Another living source writes it: not one record of it is sent from here."""
    rig.journal.steps(4)
    relay = rig.start()
    rig.turn()
    refused = StreamRefused(stream=rig.journal.info.stream, reason="another")
    assert rig.turn(refused, rig.welcome(1)) == []
    assert not relay.is_done
    assert rig.journal.segments[0].exists()


def test_acks_of_old_are_harmless(rig: RelayRig) -> None:
    """Repeated, or beyond what was sent: never more than was there."""
    rig.journal.steps(10)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    for seq in (10, 3, 10, 999):
        rig.turn(rig.ack(seq))
        assert relay.head.acked == 10
    assert relay.pending_records == 0
