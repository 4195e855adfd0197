"""Subscriber: the few lines anybody needs to get records, against a router that the test moves by hand."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from unit.actors.router_rig import RouterRig

from runlane.config.errors import SettingsError, WireError
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.ack import Batch
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.records import LogRecord
from runlane.transport.subscriber import RecordBatch, Subscriber
from runlane.transport.testing import FakeClock, make_batch, make_info, until
from runlane.transport.wire import STEP, BatchHeader, Section
from runlane.transport.writer import encode_records_batch


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[RouterRig]:
    """A router without declared subscribers."""
    rig = RouterRig(msgspec.structs.replace(settings, subscribers={}), clock)
    yield rig
    rig.close()


class Hand:
    """A subscriber and the router, taking turns; keeps every batch."""

    def __init__(self, rig: RouterRig, **options: object) -> None:
        self.rig = rig
        self.batches: list[RecordBatch] = []
        self.subscriber = Subscriber("mine", settings=rig.settings, **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def turn(self) -> None:
        """Both do what is due."""
        self.batches += self.subscriber.poll(0.005)
        self.rig.turn()

    def join(self) -> None:
        """Until deliveries begin."""
        known = self.rig.router.bus.subscribers
        until(lambda: "mine" in known and known["mine"].is_live, self.turn)


@pytest.fixture
def hand(rig: RouterRig) -> Iterator[Hand]:
    """A subscriber with the default policy, joined."""
    hand = Hand(rig)
    hand.join()
    yield hand
    hand.subscriber.close()


def _logs(info: StreamInfo, first_seq: int, *texts: str) -> Batch:
    records = [LogRecord(first_seq + index, 5, "info", text) for index, text in enumerate(texts)]
    frames = encode_records_batch(info.stream, first_seq, 0, {"log": records})
    return Batch(first_seq, first_seq + len(texts) - 1, frames, sum(map(len, frames)))


def test_records_come_by_kind_with_who_wrote_them(rig: RouterRig, hand: Hand) -> None:
    """One batch per kind and delivery; records are decoded when asked for, steps are columns."""
    source = rig.source()
    source.send(*_logs(source.info, 1, "a", "b").frames)
    source.send(*make_batch(source.info, 3, step=4).frames)
    until(lambda: len(hand.batches) == 2, hand.turn)
    logs, steps = hand.batches
    assert [(batch.kind, len(batch), batch.info) for batch in hand.batches] == [
        ("log", 2, source.info),
        ("step", 4, source.info),
    ]
    assert logs.records == [LogRecord(1, 5, "info", "a"), LogRecord(2, 5, "info", "b")]
    np.testing.assert_array_equal(steps.columns["seq"], [3, 4, 5, 6])


def test_only_the_wanted_kinds_come(rig: RouterRig) -> None:
    """The router filters, so nothing else crosses the socket."""
    hand = Hand(rig, kinds=["episode"])
    hand.join()
    source = rig.source()
    source.send(*make_batch(source.info, 1, step=4, episode=1, log=2).frames)
    until(lambda: bool(hand.batches), hand.turn)
    assert [(batch.kind, len(batch)) for batch in hand.batches] == [("episode", 1)]
    assert rig.bus_subscriber("mine").queue.statistics().published == 1
    hand.subscriber.close()


def test_polling_again_says_that_the_last_delivery_is_consumed(rig: RouterRig, hand: Hand) -> None:
    """So a slow subscriber is seen to be slow, and an idle one owes nothing."""
    source = rig.source()
    rig.publish(source, 1)
    until(lambda: bool(hand.batches), hand.turn)
    queue = rig.bus_subscriber("mine").queue
    assert queue.statistics().delivered + queue.in_flight_records == 1
    until(lambda: queue.statistics().delivered == 1, hand.turn)
    assert queue.in_flight_records == 0


def test_a_window_of_deliveries_flows_without_stopping(rig: RouterRig) -> None:
    """Echoes go up in time: more deliveries than the window come through, in order."""
    hand = Hand(rig, policy=QueuePolicy("block"), window=4)
    hand.join()
    source = rig.source()
    for seq in range(1, 41):
        source.send(*make_batch(source.info, seq, step=1).frames)
    until(lambda: len(hand.batches) == 40, hand.turn)
    assert [batch.header.first_seq for batch in hand.batches] == list(range(1, 41))
    until(lambda: source.acked_seq == 40, hand.turn)
    hand.subscriber.close()


def test_a_router_may_restart_under_a_subscriber(rig: RouterRig, hand: Hand) -> None:
    """It joins the new one by itself and goes on."""
    rig.publish(rig.source(), 1)
    until(lambda: len(hand.batches) == 1, hand.turn)
    rig.restart()
    hand.join()
    rig.publish(rig.source(), 1)
    until(lambda: len(hand.batches) == 2, hand.turn)


def test_iteration_ends_when_the_graph_does(rig: RouterRig, hand: Hand) -> None:
    """Everything delivered before the goodbye is yielded first."""
    source = rig.source()
    for seq in (1, 2, 3):
        rig.publish(source, seq)
    rig.router.on_close()
    found = [*hand.batches, *hand.subscriber]
    assert [batch.header.first_seq for batch in found] == [1, 2, 3]
    rig.start()


def test_leaving_gives_the_place_back(rig: RouterRig) -> None:
    """Out of the `with` block the router has forgotten it."""
    hand = Hand(rig)
    with hand.subscriber:
        hand.join()
    until(lambda: "mine" not in rig.router.bus.subscribers, rig.turn)


def test_a_bad_name_or_kind_is_refused_before_anything_is_opened(settings: Settings) -> None:
    """SettingsError with what would be right."""
    with pytest.raises(SettingsError, match="is no plain name"):
        Subscriber("a b", settings=settings)
    with pytest.raises(SettingsError, match="no known record kind"):
        Subscriber("mine", kinds=["steps"], settings=settings)


def test_rows_of_a_schema_nobody_announced_cannot_be_read() -> None:
    """WireError, not columns of the wrong layout."""
    info = make_info(schemas=[StepSchema(schema_id=4, fields=[StepField("seq", "<u8")])])
    section = Section(STEP, 5, 1, 8)
    batch = RecordBatch(info, BatchHeader(b"", 1, 1, 0, (section,)), section, bytes(8))
    with pytest.raises(WireError, match="announced no schema 5"):
        _ = batch.columns
