"""The recovery, moved by hand: drains what nobody drains, tells how it ended, and ends when there is nothing left."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_journal import FakeJournal, flip, record_seqs

from runlane.actors.orphans import OrphanWatch, journals_dir
from runlane.actors.recovery import IDLE_S, RecoveryActor, journal_of_segment
from runlane.actors.relay import Relay
from runlane.config.errors import EndpointError, JournalError
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import Settings
from runlane.transport.columns import decode_records
from runlane.transport.endpoint import RoleLock, endpoint_of, make_run_dir
from runlane.transport.journal_layout import READER_ROLE
from runlane.transport.records import DropRecord, Record, RunRecord
from runlane.transport.testing import FakeClock, FakeReceiver, make_info, until
from runlane.transport.wire import STEP


class RecoveryRig:
    """The actor in this thread, a router that acks, and journals of dead workers."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self.settings = settings
        self.clock = clock
        make_run_dir(settings)
        self.router = FakeReceiver(settings, endpoint_of(settings, INGRESS_SOCKET))
        self.journals: list[FakeJournal] = []
        self.actor: RecoveryActor | None = None
        self.done: list[str] = []

    def journal(self, *, is_dead: bool = True, segments: int = 2) -> FakeJournal:
        """One with ten records a segment."""
        journal = FakeJournal(journals_dir(self.settings), make_info("w"))
        self.journals.append(journal)
        for number in range(segments):
            if number:
                journal.rotate()
            journal.steps(9)
            journal.log("tenth")
        if is_dead:
            journal.close()
        return journal

    def start(self, sources: list[Path] | None = None) -> RecoveryActor:
        """The process begins."""
        self.actor = RecoveryActor(self.settings, sources, self._on_done, self.clock)
        self.actor.on_start()
        return self.actor

    def _on_done(self, relay: Relay) -> None:
        self.done.append(relay.info.stream)

    def turn(self) -> None:
        """A little time passes; everybody does what is due."""
        assert self.actor is not None
        self.clock.move(0.05)
        self.actor.do_work(0.005)
        self.router.turn()

    def drain(self, sources: list[Path] | None = None) -> RecoveryActor:
        """From its start until it is finished."""
        actor = self.start(sources)
        until(lambda: actor.is_finished, self.turn)
        self.stop()
        return actor

    def stop(self) -> None:
        """The process ends."""
        if self.actor is not None:
            self.actor.on_close()
            self.actor = None

    def seqs(self, journal: FakeJournal) -> list[int]:
        """What the router has of a stream."""
        batches = self.router.batches.get(journal.info.stream, [])
        return [seq for header, bodies in batches for seq in record_seqs(header, list(bodies))]

    def told(self) -> list[Record]:
        """What the recovery said itself."""
        return [
            record
            for stream, info in self.router.infos.items()
            if info.worker == "proxy-w"
            for header, bodies in self.router.batches[stream]
            for section, body in zip(header.sections, bodies, strict=True)
            if section.kind != STEP
            for record in decode_records(body, section)
        ]

    def close(self) -> None:
        """Everything."""
        self.stop()
        self.router.close()
        for journal in self.journals:
            journal.close()


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RecoveryRig]:
    """No recovery yet."""
    rig = RecoveryRig(settings, clock)
    yield rig
    rig.close()


def _left(rig: RecoveryRig) -> list[str]:
    parent = journals_dir(rig.settings)
    return sorted(path.name for path in parent.iterdir())


# ---- what is drained -------------------------------------------------------------------------------------


def test_every_orphan_is_stored_and_removed(rig: RecoveryRig) -> None:
    """All records of each, its worker told as killed, its files gone."""
    journals = [rig.journal() for _ in range(3)]
    rig.drain()
    for journal in journals:
        assert rig.seqs(journal) == list(range(1, 21))
    ends = [record for record in rig.told() if isinstance(record, RunRecord)]
    assert {record.facts["stream"] for record in ends} == {journal.info.stream for journal in journals}
    assert {(record.state, record.facts["reason"]) for record in ends} == {("killed", "lease")}
    assert sorted(rig.done) == sorted(journal.info.stream for journal in journals)
    assert _left(rig) == []
    assert rig.router.ended >= {journal.info.stream for journal in journals}


def test_a_stream_that_was_closed_is_not_called_killed(rig: RecoveryRig) -> None:
    """It has said itself how it ended."""
    journal = rig.journal(is_dead=False)
    journal.finish()
    journal.close()
    rig.drain()
    assert rig.seqs(journal) == list(range(1, 21))
    assert rig.told() == []


def test_untold_drops_are_told(rig: RecoveryRig) -> None:
    """Those its worker was killed with."""
    journal = rig.journal(is_dead=False)
    journal.head.count_untold("step", 77)
    journal.close()
    rig.drain()
    drops = [record for record in rig.told() if isinstance(record, DropRecord)]
    assert [(record.kind, record.reason, record.records) for record in drops] == [("step", "untold", 77)]


def test_a_living_workers_journal_is_drained_as_long_as_it_lives(rig: RecoveryRig) -> None:
    """What it records meanwhile, too; the recovery does not end before it."""
    journal = rig.journal(is_dead=False)
    actor = rig.start()
    until(lambda: len(rig.seqs(journal)) == 20, rig.turn)
    journal.steps(5)
    until(lambda: len(rig.seqs(journal)) == 25, rig.turn)
    rig.clock.move(10 * IDLE_S)
    rig.turn()
    assert not actor.is_finished
    journal.close()
    until(lambda: actor.is_finished, rig.turn)
    assert _left(rig) == []


def test_what_comes_later_is_drained_as_well(rig: RecoveryRig) -> None:
    """Until there has been nothing for a while."""
    first = rig.journal()
    actor = rig.start()
    until(lambda: len(rig.seqs(first)) == 20, rig.turn)
    second = rig.journal()
    until(lambda: actor.is_finished, rig.turn)
    assert rig.seqs(second) == list(range(1, 21))


def test_a_journal_with_a_reader_is_left_to_it(rig: RecoveryRig) -> None:
    """A proxy that came back; once that has let go, it is taken up."""
    journal = rig.journal()
    with RoleLock(journal.directory, READER_ROLE):
        actor = rig.start()
        for _ in range(20):
            rig.turn()
        assert rig.seqs(journal) == []
        assert actor.statistics()["streams"] == 0
    until(lambda: actor.is_finished, rig.turn)
    assert rig.seqs(journal) == list(range(1, 21))


def test_a_graph_has_one_recovery(rig: RecoveryRig) -> None:
    """A second one is refused; one that is given its journals may work beside it."""
    rig.start()
    second = RecoveryActor(rig.settings, None, None, rig.clock)
    with pytest.raises(EndpointError):
        second.on_start()
    second.on_close()
    given = RecoveryActor(rig.settings, [], None, rig.clock)
    given.on_start()
    given.on_close()


def test_an_interrupted_recovery_is_gone_on_with(rig: RecoveryRig) -> None:
    """What was acked is not sent again; the journal is whole until all of it is."""
    journal = rig.journal()
    rig.router.is_acking = False
    rig.start()
    until(lambda: len(rig.seqs(journal)) == 20, rig.turn)
    rig.stop()
    assert len(list(journal.directory.glob("*.seg"))) == 2
    rig.router.is_acking = True
    rig.drain()
    assert rig.seqs(journal) == list(range(1, 21))
    assert _left(rig) == []


# ---- damage ----------------------------------------------------------------------------------------------


def _drops(rig: RecoveryRig) -> list[tuple[str, int]]:
    return [(record.reason, record.records) for record in rig.told() if isinstance(record, DropRecord)]


def test_a_damaged_journal_is_stored_up_to_the_damage_counted_and_set_aside(rig: RecoveryRig) -> None:
    """And not tried again: the watch of the supervisor finds nothing more to recover."""
    journal = rig.journal()
    data = journal.segments[1].read_bytes()
    flip(journal.segments[1], data.index(b"tenth"))
    actor = rig.drain()
    assert rig.seqs(journal) == list(range(1, 20))
    assert _drops(rig) == [("journal_damaged", 1)]
    assert len(actor.damaged) == 1
    assert _left(rig) == [f"{journal.info.stream}.damaged"]
    assert not OrphanWatch(rig.settings).look(100.0)


def test_a_journal_whose_first_segment_is_unreadable_is_counted_and_set_aside(rig: RecoveryRig) -> None:
    """A later one says whose it is; seqs have no holes, so what lies in that one cannot be sent either."""
    journal = rig.journal()
    flip(journal.segments[0], 20)
    rig.drain()
    assert rig.seqs(journal) == []
    assert _drops(rig) == [("journal_damaged", 20)]
    assert _left(rig) == [f"{journal.info.stream}.damaged"]


def test_a_journal_whose_acked_segments_are_unreadable_loses_nothing(rig: RecoveryRig) -> None:
    """They had a moment to live."""
    journal = rig.journal(is_dead=False)
    journal.head.acked = 10
    journal.close()
    flip(journal.segments[0], 20)
    rig.drain()
    assert rig.seqs(journal) == list(range(11, 21))
    assert _drops(rig) == []
    assert _left(rig) == []


def test_a_journal_of_which_nothing_can_be_read_is_set_aside(rig: RecoveryRig) -> None:
    """Nobody knows whose it was; it is said once and not tried for ever."""
    journal = rig.journal()
    for path in journal.segments:
        flip(path, 20)
    actor = rig.drain()
    assert len(actor.damaged) == 1
    assert "damaged" in actor.damaged[0]
    assert _left(rig) == [f"{journal.info.stream}.damaged"]
    assert not OrphanWatch(rig.settings).look(100.0)


def test_a_journal_without_a_head_is_stored_all_the_same(rig: RecoveryRig) -> None:
    """The head is made anew; what was acked is sent again and stored once."""
    journal = rig.journal()
    (journal.directory / "head").unlink()
    rig.drain()
    assert rig.seqs(journal) == list(range(1, 21))
    assert _left(rig) == []


# ---- those that are given --------------------------------------------------------------------------------


def test_only_the_journals_that_are_given_are_drained(rig: RecoveryRig) -> None:
    """It is finished with the last of them, at once."""
    given, other = rig.journal(), rig.journal()
    rig.drain([given.directory])
    assert rig.seqs(given) == list(range(1, 21))
    assert rig.seqs(other) == []
    assert _left(rig) == [other.info.stream]


def test_a_single_segment_becomes_a_journal_of_its_own(rig: RecoveryRig, short_dir: Path) -> None:
    """Copied: the file it was made of stays as it is, wherever it lies."""
    journal = rig.journal(segments=3)
    segment = journal.segments[1]
    data = segment.read_bytes()
    kept = short_dir / "kept.seg"
    kept.write_bytes(data)
    copy = journal_of_segment(kept, short_dir)
    rig.drain([copy])
    assert rig.seqs(journal) == list(range(11, 21))
    assert (kept.read_bytes(), segment.read_bytes()) == (data, data)
    assert not copy.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "0 bytes"), (b"PNG" * 100, "no segment of a runlane journal"), (bytes(4096), "no segment of a runlane")],
)
def test_a_file_that_is_no_segment_is_refused_in_words(short_dir: Path, data: bytes, message: str) -> None:
    """With its path."""
    path = short_dir / "x.seg"
    path.write_bytes(data)
    with pytest.raises(JournalError, match=message) as caught:
        journal_of_segment(path, short_dir)
    assert str(path) in str(caught.value)
    assert sorted(found.name for found in short_dir.iterdir()) == ["x.seg"]
