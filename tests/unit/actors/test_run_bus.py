"""RunBus: every subscriber gets what it asked for under its own policy; an ack is what all `block` ones committed."""

import msgspec
import pytest

from runlane.actors.run_bus import KEPT_INFOS, RunBus, Subscriber
from runlane.config.names import KINDS
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy, Selection
from runlane.transport.ack import Verdict
from runlane.transport.messages import StepSchema, StreamInfo
from runlane.transport.testing import SEQ_ONLY, make_batch, make_info, seqs_of
from runlane.transport.wire import decode_header

BLOCK = QueuePolicy("block")
POLICIES = {
    "block": BLOCK,
    "drop_oldest": QueuePolicy("drop_oldest", MAX_BATCH_RECORDS),
    "drop_newest": QueuePolicy("drop_newest", MAX_BATCH_RECORDS),
    "latest": QueuePolicy("latest"),
}


class Bench:
    """A bus with one open stream, and hands to move it."""

    def __init__(self) -> None:
        self.bus = RunBus()
        self.info = make_info()
        self.key = bytes.fromhex(self.info.stream)
        self.bus.open_stream(self.key, self.info, b"peer", 1)
        self.next_seq = 1

    def join(self, name: str, policy: QueuePolicy = BLOCK, kinds: tuple[str, ...] = KINDS) -> Subscriber:
        """Add a subscriber with a window nothing fills."""
        return self.bus.add_subscriber(name, policy, Selection(list(kinds)), 1_000, 0)

    def publish(self, info: StreamInfo | None = None, first_seq: int | None = None, **records: int) -> list[str]:
        """Publish the next batch, which must be new; returns who dropped something."""
        batch = make_batch(info or self.info, first_seq or self.next_seq, **records)
        verdict, overflowed = self.bus.publish(decode_header(batch.frames[0]), batch.frames[0], batch.frames[1:])
        assert verdict is Verdict.NEW
        if info is None:
            self.next_seq = batch.last_seq + 1
        return overflowed

    @property
    def acked_seq(self) -> int:
        """How far the stream is committed."""
        return self.bus.acked_seq(self.key)


def _send(subscriber: Subscriber) -> list[list[int]]:
    """Send all that waits; returns the seqs of each delivery."""
    sent: list[list[int]] = []
    while subscriber.queue.can_send:
        sent.append(seqs_of(*subscriber.queue.peek().frames[1:]))
        subscriber.queue.mark_sent()
    return sent


def _commit(bench: Bench, subscriber: Subscriber) -> set[bytes]:
    """Send all that waits and echo it."""
    _send(subscriber)
    return bench.bus.on_echo(subscriber, subscriber.queue.next_number - 1)


@pytest.fixture
def bench() -> Bench:
    """A bus with one open stream."""
    return Bench()


# ---- fan-out ---------------------------------------------------------------------------------------------


def test_every_subscriber_gets_every_batch(bench: Bench) -> None:
    """Two is a count, not a limit: the third and the fourth get the same records."""
    subscribers = [bench.join(name, QueuePolicy("drop_oldest")) for name in "abcd"]
    bench.publish(step=2, log=1)
    bench.publish(step=1)
    assert [_send(subscriber) for subscriber in subscribers] == [[[1, 2, 3], [4]]] * 4


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest", "block"])
def test_a_third_subscriber_lives_by_its_own_policy(policy: str, bench: Bench) -> None:
    """It drops, or blocks, for itself alone: the durable path and the fast path get everything."""
    durable = bench.join("db_writer")
    fast = bench.join("gui", QueuePolicy("drop_oldest"))
    third = bench.join("third", POLICIES[policy])
    overflowed: list[list[str]] = [bench.publish(step=400) for _ in range(4)]
    whole = [list(range(first, first + 400)) for first in (1, 401, 801, 1201)]
    kept = {"block": whole, "drop_oldest": whole[2:], "drop_newest": whole[:2], "latest": whole[3:]}
    assert _send(third) == kept[policy]
    assert _send(durable) == _send(fast) == whole
    dropped = 400 * (4 - len(kept[policy]))
    assert sum(bench.bus.overflow_stats()["third"].values()) == dropped
    assert sum(map(len, overflowed)) == dropped // 400
    assert {name for names in overflowed for name in names} <= {"third"}


def test_a_lossy_subscriber_gets_only_the_kinds_it_wants(bench: Bench) -> None:
    """Whole sections or none; a batch without any of them is no delivery at all."""
    picky = bench.join("picky", QueuePolicy("drop_oldest"), ("episode", "metric"))
    bench.publish(step=5)
    bench.publish(step=2, episode=1, log=1, metric=3)
    assert _send(picky) == [[8, 10, 11, 12]]
    assert picky.queue.account(bench.key).published == 4


def test_a_delivery_says_which_sections_follow(bench: Bench) -> None:
    """Bit i is section i of the source's own header, which is passed on untouched."""
    picky = bench.join("picky", QueuePolicy("drop_oldest"), ("episode", "metric"))
    batch = make_batch(bench.info, 1, step=2, episode=1, log=1, metric=3)
    bench.bus.publish(decode_header(batch.frames[0]), batch.frames[0], batch.frames[1:])
    entry = picky.queue.peek()
    assert entry.section_bits == 0b1010
    assert entry.frames == [batch.frames[0], batch.frames[2], batch.frames[4]]


def test_latest_keeps_the_newest_of_each_kind(bench: Bench) -> None:
    """A flood of steps does not push out the one episode."""
    latest = bench.join("latest", QueuePolicy("latest"))
    bench.publish(step=2, episode=1)
    bench.publish(step=3)
    assert sorted(_send(latest)) == [[3], [4, 5, 6]]
    assert bench.bus.overflow_stats()["latest"] == {"superseded": 2}


# ---- order -----------------------------------------------------------------------------------------------


def test_a_duplicate_and_a_gap_reach_nobody(bench: Bench) -> None:
    """Each seq is fanned out once, in order; duplicates are counted."""
    subscriber = bench.join("a")
    first, second, third = (make_batch(bench.info, seq, step=2) for seq in (1, 3, 5))
    verdicts = [
        bench.bus.publish(decode_header(batch.frames[0]), batch.frames[0], batch.frames[1:])[0]
        for batch in (first, third, first, second, third)
    ]
    assert verdicts == [Verdict.NEW, Verdict.GAP, Verdict.DUPLICATE, Verdict.NEW, Verdict.NEW]
    assert _send(subscriber) == [[1, 2], [3, 4], [5, 6]]
    assert (bench.bus.records_in, bench.bus.batches_in, bench.bus.duplicates) == (6, 3, 1)


def test_a_known_stream_keeps_its_place_when_it_says_hello_again(bench: Bench) -> None:
    """A new address and new schemas are taken; what was accepted is not accepted again."""
    bench.publish(step=3)
    grown = msgspec.structs.replace(bench.info, schemas=[SEQ_ONLY, StepSchema(schema_id=1, fields=SEQ_ONLY.fields)])
    stream = bench.bus.open_stream(bench.key, grown, b"elsewhere", 1)
    assert (stream.gate.expected_seq, stream.peer) == (4, b"elsewhere")
    assert bench.bus.infos[bench.key] == grown


# ---- acks ------------------------------------------------------------------------------------------------


def test_a_stream_loses_no_schema_by_a_later_hello(bench: Bench) -> None:
    """A proxy that begins anew has read less of the journal than what is queued here already needs."""
    info = make_info(schemas=[SEQ_ONLY, msgspec.structs.replace(SEQ_ONLY, schema_id=1)])
    key = bytes.fromhex(info.stream)
    bench.bus.open_stream(key, info, b"proxy", 1)
    later = msgspec.structs.replace(info, schemas=info.schemas[:1], run_name="later")
    stream = bench.bus.open_stream(key, later, b"another", 1)
    assert (stream.info.schemas, stream.info.run_name) == (info.schemas, "later")
    assert bench.bus.infos[key] == stream.info


def test_an_ack_is_the_least_of_what_block_subscribers_committed(bench: Bench) -> None:
    """The slowest of them decides; a lossy one has no say."""
    first, second = bench.join("first"), bench.join("second")
    bench.join("gui", QueuePolicy("drop_oldest"))
    bench.publish(step=10)
    bench.publish(step=10)
    assert bench.acked_seq == 0
    assert _commit(bench, first) == {bench.key}
    assert bench.acked_seq == 0
    _send(second)
    bench.bus.on_echo(second, 1)
    assert bench.acked_seq == 10
    bench.bus.on_echo(second, 2)
    assert bench.acked_seq == 20


def test_without_a_block_subscriber_accepting_is_committing(bench: Bench) -> None:
    """There is nobody to wait for."""
    bench.join("gui", QueuePolicy("drop_oldest"))
    bench.publish(step=10)
    assert bench.acked_seq == 10


def test_an_ack_moves_past_batches_a_block_subscriber_has_no_use_for(bench: Bench) -> None:
    """It gets an empty delivery, whose echo is the ack."""
    episodes = bench.join("episodes", BLOCK, ("episode",))
    bench.publish(step=10)
    assert bench.acked_seq == 0
    assert _send(episodes) == [[]]
    bench.bus.on_echo(episodes, 1)
    assert bench.acked_seq == 10


def test_a_lossy_echo_moves_no_ack(bench: Bench) -> None:
    """It says consumed, not committed."""
    bench.join("db_writer")
    gui = bench.join("gui", QueuePolicy("drop_oldest"))
    bench.publish(step=10)
    assert _commit(bench, gui) == set()
    assert bench.acked_seq == 0


def test_a_late_joiner_owes_nothing_of_what_was_before(bench: Bench) -> None:
    """Neither does it get it, nor does the ack fall back."""
    early = bench.join("early")
    bench.publish(step=10)
    _commit(bench, early)
    late = bench.join("late")
    assert bench.acked_seq == 10
    assert _send(late) == []
    bench.publish(step=5)
    _commit(bench, early)
    assert bench.acked_seq == 10
    _commit(bench, late)
    assert bench.acked_seq == 15


def test_a_block_subscriber_that_leaves_holds_nobody_up(bench: Bench) -> None:
    """What waited for it is counted as dropped, and the ack is that of the others."""
    stays, leaves = bench.join("stays"), bench.join("leaves")
    bench.publish(step=10)
    _commit(bench, stays)
    queue = leaves.queue
    assert bench.bus.remove_subscriber("leaves", "subscriber_left") == 10
    assert bench.acked_seq == 10
    assert queue.statistics().dropped == {"subscriber_left": 10}


def test_streams_are_acked_each_for_itself(bench: Bench) -> None:
    """One stream's commit says nothing of another's."""
    other = make_info("other")
    other_key = bytes.fromhex(other.stream)
    subscriber = bench.join("a")
    bench.bus.open_stream(other_key, other, b"peer", 1)
    bench.publish(step=10)
    bench.publish(info=other, first_seq=1, step=4)
    _send(subscriber)
    assert bench.bus.on_echo(subscriber, 1) == {bench.key}
    assert (bench.acked_seq, bench.bus.acked_seq(other_key)) == (10, 0)
    assert bench.bus.on_echo(subscriber, 2) == {other_key}
    assert bench.bus.acked_seq(other_key) == 4


def test_a_stream_that_begins_late_is_acked_from_there(bench: Bench) -> None:
    """A restarted router hears the oldest unacked seq; everything before it is committed already."""
    info = make_info()
    key = bytes.fromhex(info.stream)
    subscriber = bench.join("a")
    bench.bus.open_stream(key, info, b"peer", 51)
    assert bench.bus.acked_seq(key) == 50
    bench.publish(info=info, first_seq=51, step=2)
    assert bench.bus.acked_seq(key) == 50
    _commit(bench, subscriber)
    assert bench.bus.acked_seq(key) == 52


# ---- backpressure and the end of streams -----------------------------------------------------------------


def test_one_full_block_queue_blocks_the_bus(bench: Bench) -> None:
    """A lossy one that overflows does not; room in the full one frees ingress again."""
    full = bench.join("full", QueuePolicy("block", MAX_BATCH_RECORDS))
    bench.join("gui", QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    assert not bench.bus.is_blocked
    bench.publish(step=1)
    assert bench.bus.is_blocked
    _commit(bench, full)
    assert not bench.bus.is_blocked


def test_a_block_queue_of_empty_deliveries_is_bounded_too(bench: Bench) -> None:
    """A `block` subscriber that wants episodes only, and stopped, must stop ingress before memory is full."""
    bench.join("episodes", QueuePolicy("block", MAX_BATCH_RECORDS), ("episode",))
    for _ in range(2_000):
        if bench.bus.is_blocked:
            return
        bench.publish(step=1)
    pytest.fail("2,000 batches wait for a subscriber with the smallest max_queue")


def test_a_closed_streams_records_stay_readable_for_who_is_slow(bench: Bench) -> None:
    """A lossy queue may still hold them, so the schema is kept; the account is kept too."""
    gui = bench.join("gui", QueuePolicy("drop_oldest"))
    bench.publish(step=3)
    bench.bus.close_stream(bench.key)
    assert bench.key not in bench.bus.streams
    assert bench.bus.infos[bench.key] == bench.info
    assert _send(gui) == [[1, 2, 3]]
    assert gui.queue.account(bench.key).published == 3


def test_kept_infos_are_bounded(bench: Bench) -> None:
    """A graph that runs for months forgets the oldest closed streams, never an open one."""
    keys: list[bytes] = []
    for _ in range(KEPT_INFOS + 5):
        info = make_info()
        keys.append(bytes.fromhex(info.stream))
        bench.bus.open_stream(keys[-1], info, b"peer", 1)
        bench.bus.close_stream(keys[-1])
    assert len(bench.bus.infos) == KEPT_INFOS + 1
    assert bench.key in bench.bus.infos
    assert keys[0] not in bench.bus.infos
    assert keys[-1] in bench.bus.infos


def test_an_echo_for_a_stream_that_is_closed_is_harmless(bench: Bench) -> None:
    """A second router life of the stream, or a lossy reader, may echo after the goodbye."""
    subscriber = bench.join("a")
    bench.publish(step=1)
    _send(subscriber)
    bench.bus.close_stream(bench.key)
    assert bench.bus.on_echo(subscriber, 1) == set()


# ---- figures ---------------------------------------------------------------------------------------------


def test_figures_are_plain_and_per_subscriber(bench: Bench) -> None:
    """What the heartbeat carries: numbers, texts and maps, with depth and in-flight apart."""
    subscriber = bench.join("a")
    bench.publish(step=3)
    bench.publish(step=4)
    subscriber.queue.mark_sent()
    figures = bench.bus.statistics()
    assert (figures["records_in"], figures["streams"], figures["is_blocked"]) == (7, 1, False)
    assert figures["subscribers"]["a"]["depth"] == 4
    assert figures["subscribers"]["a"]["in_flight"] == 3
    assert figures["subscribers"]["a"]["is_live"] is False
    assert bench.bus.queue_sizes() == {"a": 7}
    assert msgspec.to_builtins(figures) == figures
