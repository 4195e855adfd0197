"""Relay: what of a journal may be deleted, when it is over, and what is said of one that is damaged."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_journal import flip
from unit.actors.relay_rig import RelayRig, seq_range

from runlane.actors.relay import ALIVE_LOOK_S, DAMAGED_SUFFIX, LIVE_PATIENCE_S, REMOVE_S, Relay
from runlane.config.errors import EndpointError, JournalError
from runlane.config.names import LOCK_SUFFIX
from runlane.config.settings import Settings
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import READER_ROLE, SEGMENT_HEADER_BYTES
from runlane.transport.messages import StreamBye, StreamHello, StreamWelcome
from runlane.transport.testing import FakeClock, make_info


@pytest.fixture
def rig(short_dir: Path, settings: Settings, clock: FakeClock) -> Iterator[RelayRig]:
    """A journal with nothing in it."""
    rig = RelayRig(short_dir / "journals", settings, clock)
    yield rig
    rig.close()


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
    assert rig.turn(rig.welcome(1)) == seq_range(1, 10)
    rig.journal.close()
    assert rig.turn(seconds=2 * ALIVE_LOOK_S) == seq_range(11, 17)
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
    assert rig.turn(rig.welcome(1)) == seq_range(1, 10)
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
    assert rig.turn(rig.welcome(4, 10, "older")) == seq_range(4, 10)


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
    assert rig.turn(rig.welcome(1)) == seq_range(1, 14)
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
    assert rig.turn(rig.welcome(16)) == seq_range(16, 20)
    rig.turn(rig.ack(20))
    assert (relay.is_done, relay.damage) == (True, None)


def test_damage_that_a_later_router_does_not_need_is_forgotten(rig: RelayRig) -> None:
    """Met first, and then a router comes that has more: nothing is lost, so nothing is told."""
    relay = _damage(rig)
    rig.turn(rig.welcome(1))
    assert relay.damage is not None
    assert rig.turn(rig.welcome(16, 14, "second")) == seq_range(16, 20)
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


def test_a_disk_that_was_full_from_the_start_is_no_damage(rig: RelayRig) -> None:
    """A head and no segment: the worker said hello, dropped all it was given and died; its counts are told."""
    rig.journal.close()
    info = make_info("w")
    directory = rig.journal.directory.parent / info.stream
    directory.mkdir()
    head = JournalHead.make(directory, bytes.fromhex(info.stream), 1)
    head.count_untold("step", 1_000)
    relay = rig.relay = Relay(directory, info, rig.settings, rig.send, rig.clock)
    welcome = StreamWelcome(stream=info.stream, receiver="router", expected_seq=1, sent_seq=0)
    assert rig.turn(welcome) == []
    assert not relay.is_done
    head.close()
    rig.turn(seconds=2 * ALIVE_LOOK_S)
    rig.turn()
    assert (relay.is_done, relay.damage, relay.untold_drops()) == (True, None, {"step": 1_000})


def test_a_journal_that_lost_its_first_segment_says_whose_it_is_by_the_next(rig: RelayRig) -> None:
    """So the loss can be counted in its run; it begins where nothing can be read."""
    rig.journal.steps(10)
    rig.journal.rotate()
    rig.journal.steps(10)
    flip(rig.journal.segments[0], 20)
    rig.journal.close()
    relay = rig.start()
    assert relay.info == rig.journal.info
    assert rig.turn(rig.welcome(1)) == []
    assert relay.damage is not None
    assert (relay.damage.seq, relay.damage.last_seq) == (1, 20)


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
    assert rig.turn(rig.welcome(acked + 1)) == seq_range(acked + 1, 300)


@pytest.mark.parametrize("name", ["head", "00000001.seg"])
def test_what_cannot_be_read_at_all_is_refused_and_let_go(rig: RelayRig, name: str) -> None:
    """`JournalError`; the next one who tries finds no lock."""
    rig.journal.steps(3)
    flip(rig.journal.directory / name, 1)
    for _ in range(2):
        with pytest.raises(JournalError, match=rig.journal.info.stream):
            rig.start()
