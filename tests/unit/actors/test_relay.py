"""Relay: whatever router answers what, in whatever order, each record goes out in order and none is forgotten."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fake_journal import FakeJournal, flip

from runlane.actors.relay import ALIVE_LOOK_S, DAMAGED_SUFFIX, LIVE_PATIENCE_S, REMOVE_S, Relay
from runlane.config.errors import EndpointError, JournalError
from runlane.config.names import LOCK_SUFFIX
from runlane.config.settings import ProxySettings, Settings
from runlane.transport.ack import Batch
from runlane.transport.journal_layout import READER_ROLE, SEGMENT_HEADER_BYTES
from runlane.transport.messages import (
    ControlMessage,
    StepField,
    StepSchema,
    StreamAck,
    StreamBye,
    StreamHello,
    StreamNack,
    StreamRefused,
    StreamWelcome,
)
from runlane.transport.testing import FakeClock, FakeSend, make_batch, make_info
from runlane.transport.wire import BatchHeader

SMALL_WINDOW = ProxySettings(outbox_bytes=1 << 18)


class RelayRig:
    """A journal, the relay that drains it, and the test in the router's place."""

    def __init__(self, home: Path, settings: Settings, clock: FakeClock) -> None:
        self.settings = msgspec.structs.replace(settings, proxy=SMALL_WINDOW)
        self.clock = clock
        self.journal = FakeJournal(home, make_info("w"))
        self.send = FakeSend()
        self.relay: Relay | None = None

    def start(self) -> Relay:
        """A proxy process begins to drain the journal."""
        self.relay = Relay(self.journal.directory, None, self.settings, self.send, self.clock)
        return self.relay

    def restart(self) -> Relay:
        """It ends, and another begins."""
        assert self.relay is not None
        self.relay.close()
        return self.start()

    def turn(self, *messages: ControlMessage, seconds: float = LIVE_PATIENCE_S + 0.01) -> list[int]:
        """The router says this, time passes; returns the seqs that went out."""
        assert self.relay is not None
        for message in messages:
            self.relay.on_message(message, self.clock.monotonic_s())
        self.relay.advance(self.clock.monotonic_s())
        self.clock.move(seconds)
        self.relay.advance(self.clock.monotonic_s())
        return self.seqs()

    def seqs(self) -> list[int]:
        """Seqs of the batches that went out since the last look, in order."""
        said = [header for header in self.send.take() if isinstance(header, BatchHeader)]
        return [seq for header in said for seq in range(header.first_seq, header.last_seq + 1)]

    def welcome(self, expected_seq: int, sent_seq: int = 0, router: str = "router") -> StreamWelcome:
        """The router has everything before this."""
        return StreamWelcome(
            stream=self.journal.info.stream, receiver=router, expected_seq=expected_seq, sent_seq=sent_seq
        )

    def ack(self, seq: int) -> StreamAck:
        """All up to this is committed."""
        return StreamAck(stream=self.journal.info.stream, seq=seq)

    def nack(self, seq: int) -> StreamNack:
        """A hole before this."""
        return StreamNack(stream=self.journal.info.stream, expected_seq=seq)

    def live(self, first_seq: int, count: int) -> Batch:
        """A batch as the worker sends it."""
        return make_batch(self.journal.info, first_seq, step=count)

    def close(self) -> None:
        """Everything."""
        if self.relay is not None:
            self.relay.close()
        self.journal.close()


@pytest.fixture
def rig(short_dir: Path, settings: Settings, clock: FakeClock) -> Iterator[RelayRig]:
    """A journal with nothing in it."""
    rig = RelayRig(short_dir / "journals", settings, clock)
    yield rig
    rig.close()


def _range(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


# ---- on the way ------------------------------------------------------------------------------------------


def test_nothing_goes_out_before_the_router_says_what_it_expects(rig: RelayRig) -> None:
    """The hello tells the oldest seq that is not committed; then all follows from the journal."""
    rig.journal.steps(5)
    rig.start()
    assert rig.turn() == []
    assert rig.turn(rig.welcome(1)) == _range(1, 5)


def test_live_batches_are_not_read_again(rig: RelayRig) -> None:
    """They go on at once; only what did not come is waited for a moment, and read."""
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.journal.steps(6)
    relay.on_live(rig.live(1, 4))
    relay.advance(rig.clock.monotonic_s())
    assert rig.seqs() == _range(1, 4)
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
    assert rig.turn() == _range(1, 10)


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
    assert out == _range(1, 100_000)


def test_a_full_socket_is_waited_for(rig: RelayRig) -> None:
    """What it did not take stays in the window."""
    rig.journal.steps(5)
    rig.start()
    rig.send.room = 1
    assert rig.turn(rig.welcome(1)) == []
    rig.send.room = 100
    assert rig.turn() == _range(1, 5)


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
    assert rig.turn(rig.welcome(1)) == _range(1, 300)
    rig.turn(rig.ack(relay.window.base_seq))
    assert rig.turn(rig.welcome(1, 300, "second")) == _range(1, 300)
    rig.turn(rig.ack(300))
    rig.journal.steps(10)
    assert rig.turn() == _range(301, 310)
    assert rig.turn(rig.welcome(301, 310, "third")) == _range(301, 310)


def test_a_router_that_forgot_what_it_had_acked_gets_it_from_the_journal(rig: RelayRig) -> None:
    """Its database is older than the ack: the segment is still there, so is the record."""
    rig.journal.steps(20)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.turn(rig.ack(20))
    assert relay.head.acked == 20
    assert rig.turn(rig.welcome(5, 20, "older")) == _range(5, 20)
    assert relay.head.acked == 20
    rig.journal.steps(5)
    assert rig.turn() == _range(21, 25)
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
    assert rig.turn(rig.welcome(231, 0, "same")) == _range(231, 300)
    rig.turn(rig.ack(300))
    assert (second.head.acked, second.pending_records) == (300, 0)


def test_a_router_that_has_more_than_is_published_waits_with_us(rig: RelayRig) -> None:
    """After a power cut the journal may lack what the router has: then the new seqs begin behind it, or none come."""
    rig.journal.steps(10)
    rig.start()
    assert rig.turn(rig.welcome(31)) == []
    rig.journal.steps(30)
    assert rig.turn() == _range(31, 40)


@pytest.mark.parametrize("hole", [1, 90, 257, 300])
def test_a_nack_goes_back_to_the_hole(rig: RelayRig, hole: int) -> None:
    """Wherever it lies, and no batch is sent from its middle."""
    rig.journal.steps(300)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    begins = {batch.first_seq for batch in relay.window}
    again = rig.turn(rig.nack(hole))
    assert again == _range(max(begin for begin in begins if begin <= hole), 300)
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
    assert rig.turn(rig.welcome(1, 4)) == _range(1, 4)


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


# ---- what may be deleted ---------------------------------------------------------------------------------


def test_a_segment_goes_only_when_its_every_record_is_acked(rig: RelayRig) -> None:
    """And when there is a later one: the newest stays until the end."""
    for _ in range(3):
        rig.journal.steps(10)
        rig.journal.rotate()
    rig.start()
    rig.turn(rig.welcome(1), seconds=1.0)

    def left() -> list[int]:
        return [number for number, path in enumerate(rig.journal.segments, 1) if path.exists()]

    for seq, expected in ((9, [1, 2, 3, 4]), (10, [2, 3, 4]), (29, [3, 4]), (30, [4])):
        relay = rig.relay
        assert relay is not None
        relay.window.reset(seq + 1)  # as if batches had ended there
        relay.window._acked_seq = seq - 1  # pyright: ignore[reportPrivateUsage]
        rig.turn(rig.ack(seq), seconds=2 * REMOVE_S)
        assert left() == expected


def test_a_segment_whose_successor_is_unreadable_stays(rig: RelayRig) -> None:
    """What is not known to be committed is not deleted."""
    rig.journal.steps(10)
    rig.journal.rotate()
    rig.journal.steps(10)
    rig.start()
    rig.turn(rig.welcome(1))
    flip(rig.journal.segments[1], 33)
    rig.turn(rig.ack(20), seconds=2 * REMOVE_S)
    assert all(path.exists() for path in rig.journal.segments)


# ---- the end ---------------------------------------------------------------------------------------------


def test_a_dead_workers_journal_is_read_to_its_last_whole_record(
    rig: RelayRig, caplog: pytest.LogCaptureFixture
) -> None:
    """Published or not; the record that the kill cut short is said in the log and is nobody's loss."""
    rig.journal.steps(10)
    rig.journal.steps(7, is_published=False)
    rig.journal.tear()
    relay = rig.start()
    assert rig.turn(rig.welcome(1)) == _range(1, 10)
    rig.journal.close()
    assert rig.turn(seconds=2 * ALIVE_LOOK_S) == _range(11, 17)
    assert relay.dead_since_s is not None
    rig.turn(rig.ack(17))
    assert relay.is_done
    assert relay.damage is None
    with caplog.at_level("INFO", "runlane"):
        rig.turn()
    relay.finish()
    rig.relay = None
    assert not rig.journal.directory.exists()


def test_a_closed_stream_is_done_with_its_last_ack(rig: RelayRig) -> None:
    """Whether its worker lives or not; the journal is removed whole."""
    rig.journal.steps(10)
    rig.journal.finish()
    relay = rig.start()
    assert rig.turn(rig.welcome(1)) == _range(1, 10)
    assert relay.is_closed
    assert not relay.is_done
    rig.turn(rig.ack(10))
    assert relay.is_done
    relay.finish()
    rig.relay = None
    assert not rig.journal.directory.exists()


def test_a_router_that_goes_back_undoes_the_end(rig: RelayRig) -> None:
    """All was read and acked, and a router comes that has less: it gets it before the journal goes."""
    rig.journal.steps(10)
    rig.journal.finish()
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.turn(rig.ack(10))
    assert relay.is_done
    assert rig.turn(rig.welcome(4, 10, "older")) == _range(4, 10)


def _damage(rig: RelayRig) -> Relay:
    rig.journal.steps(10)
    rig.journal.rotate()
    rig.journal.steps(10)
    info_bytes = rig.journal.segments[1].read_bytes().index((11).to_bytes(8, "little"), SEGMENT_HEADER_BYTES + 4)
    flip(rig.journal.segments[1], info_bytes + 20 * 4)  # in record 15
    rig.journal.close()
    return rig.start()


def test_damage_is_counted_and_the_files_are_kept(rig: RelayRig) -> None:
    """Everything before it is sent; the journal is set aside under another name, and is nobody's any more."""
    relay = _damage(rig)
    assert rig.turn(rig.welcome(1)) == _range(1, 14)
    assert relay.damage is not None
    assert (relay.damage.seq, relay.damage.last_seq) == (15, 20)
    assert not relay.is_done
    rig.turn(rig.ack(14))
    assert relay.is_done
    names = sorted(path.name for path in rig.journal.directory.iterdir())
    relay.finish()
    rig.relay = None
    kept = rig.journal.directory.with_name(rig.journal.directory.name + DAMAGED_SUFFIX)
    assert not rig.journal.directory.exists()
    assert {path.name for path in kept.iterdir()} >= set(names) - {READER_ROLE + LOCK_SUFFIX, "00000001.seg"}


def test_damage_before_what_a_router_needs_is_no_loss(rig: RelayRig) -> None:
    """It has those records already: the rest is read from behind them, and the journal is as good as whole."""
    relay = _damage(rig)
    assert rig.turn(rig.welcome(16)) == _range(16, 20)
    rig.turn(rig.ack(20))
    assert (relay.is_done, relay.damage) == (True, None)


def test_damage_that_a_later_router_does_not_need_is_forgotten(rig: RelayRig) -> None:
    """Met first, and then a router comes that has more: nothing is lost, so nothing is told."""
    relay = _damage(rig)
    rig.turn(rig.welcome(1))
    assert relay.damage is not None
    assert rig.turn(rig.welcome(16, 14, "second")) == _range(16, 20)
    rig.turn(rig.ack(20))
    assert (relay.is_done, relay.damage) == (True, None)


def test_records_that_are_committed_and_deleted_are_not_called_damage(rig: RelayRig) -> None:
    """A router asks for what is acked and gone: the stream is introduced anew from where the journal begins."""
    rig.journal.steps(10)
    rig.journal.rotate()
    rig.journal.steps(10)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    rig.turn(rig.ack(20), seconds=2 * REMOVE_S)
    assert not rig.journal.segments[0].exists()
    rig.send.take()
    relay.on_message(rig.welcome(4, 20, "older"), rig.clock.monotonic_s())
    rig.clock.move(1.0)
    for _ in range(3):
        relay.advance(rig.clock.monotonic_s())
        rig.clock.move(LIVE_PATIENCE_S)
    said = [message for message in rig.send.take() if isinstance(message, StreamBye | StreamHello)]
    hello = said[[type(message) for message in said].index(StreamBye) + 1]
    assert isinstance(hello, StreamHello)
    assert hello.oldest_seq == 21
    rig.journal.steps(2)
    assert rig.turn(rig.welcome(21, 20, "older")) == [21, 22]
    assert relay.damage is None


def test_untold_drops_are_those_no_record_up_to_the_last_tells(rig: RelayRig) -> None:
    """Told by a record that is in the journal, or still only in its head."""
    rig.journal.steps(3)
    rig.journal.head.count_untold("step", 7)
    rig.journal.head.count_untold("metric", 2)
    rig.journal.head.begin_to_tell("metric", 3)
    relay = rig.start()
    rig.turn(rig.welcome(1))
    assert relay.untold_drops() == {"step": 7}


# ---- whose journal ---------------------------------------------------------------------------------------


def test_a_journal_has_one_reader(rig: RelayRig) -> None:
    """A second one is refused and changes nothing; when the first lets go it goes on from the last ack."""
    rig.journal.steps(300)
    first = rig.start()
    with pytest.raises(EndpointError):
        Relay(rig.journal.directory, None, rig.settings, rig.send, rig.clock)
    rig.turn(rig.welcome(1))
    rig.turn(rig.ack(first.window.last_seq - 10))
    acked = first.head.acked
    second = rig.restart()
    assert second.window.oldest_seq == acked + 1
    assert rig.turn(rig.welcome(acked + 1)) == _range(acked + 1, 300)


@pytest.mark.parametrize("name", ["head", "00000001.seg"])
def test_what_cannot_be_read_at_all_is_refused_and_let_go(rig: RelayRig, name: str) -> None:
    """`JournalError`; the next one who tries finds no lock."""
    rig.journal.steps(3)
    flip(rig.journal.directory / name, 1)
    for _ in range(2):
        with pytest.raises(JournalError, match=rig.journal.info.stream):
            rig.start()
