"""RunBus: filters, decimation, parts of batches, and accounts of names that leave, come back, or outlive a router."""

import struct

import pytest

from runlane.actors.run_bus import RunBus, Subscriber
from runlane.config.errors import WireError
from runlane.config.names import KINDS
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy, Selection
from runlane.transport.messages import StepField, StepSchema, StreamInfo
from runlane.transport.queue import Account, Entry
from runlane.transport.testing import make_batch, make_info, seqs_of
from runlane.transport.wire import (
    KIND_NUMBER,
    STEP,
    Frame,
    Section,
    decode_header,
    encode_header,
    pack,
    unpack,
)

BLOCK = QueuePolicy("block")
OLDEST = QueuePolicy("drop_oldest")
PER_ENV = StepSchema(schema_id=0, fields=[StepField("seq", "<u8"), StepField("env_index", "<u4")])
LOG = KIND_NUMBER["log"]


class Bench:
    """A bus, and hands to move it."""

    def __init__(self) -> None:
        self.bus = RunBus()

    def open(self, info: StreamInfo | None = None, oldest_seq: int = 1) -> StreamInfo:
        """Open a stream."""
        info = info or make_info()
        self.bus.open_stream(key_of(info), info, b"peer", oldest_seq)
        return info

    def join(self, name: str = "a", policy: QueuePolicy = OLDEST, selection: Selection | None = None) -> Subscriber:
        """Add a subscriber with a window nothing fills."""
        return self.bus.add_subscriber(name, policy, selection or Selection(), 1_000, 0)

    def steps(self, info: StreamInfo, first_seq: int, count: int) -> None:
        """Publish so many steps."""
        self.frames(*make_batch(info, first_seq, step=count).frames)

    def mixed(self, info: StreamInfo, first_seq: int, steps: int, logs: int) -> None:
        """Publish steps and then log records, as the wire has them."""
        seqs = range(first_seq, first_seq + steps)
        rows = struct.pack(f"<{steps}Q", *seqs)
        body = pack([[seq, "said"] for seq in range(first_seq + steps, first_seq + steps + logs)])
        sections = [Section(STEP, 0, steps, len(rows)), Section(LOG, 0, logs, len(body))]
        self.frames(encode_header(key_of(info), first_seq, steps + logs, 0, sections), rows, body)

    def frames(self, head: Frame, *bodies: Frame) -> None:
        """Publish any batch."""
        self.bus.publish(decode_header(head), head, bodies)

    def crash(self) -> RunBus:
        """A successor, with the accounts this one had; nobody has joined it yet."""
        before, self.bus = self.bus, RunBus()
        for name, subscriber in before.subscribers.items():
            for stream, account in subscriber.queue.accounts.items():
                account.queued = 0
                self.bus.restore(name, stream, "run", account)
        return self.bus


def key_of(info: StreamInfo) -> bytes:
    return bytes.fromhex(info.stream)


def _entries(subscriber: Subscriber) -> list[Entry]:
    """Send all that waits."""
    found: list[Entry] = []
    while subscriber.queue.can_send:
        found.append(subscriber.queue.peek())
        subscriber.queue.mark_sent()
    return found


def _seqs(subscriber: Subscriber) -> list[int]:
    """Seqs of all step rows that wait, in the order of deliveries."""
    return [seq for entry in _entries(subscriber) for seq in seqs_of(*entry.frames[1:])]


def _take(bench: Bench, subscriber: Subscriber) -> list[int]:
    """The same, and echo them."""
    seqs = _seqs(subscriber)
    bench.bus.on_echo(subscriber, subscriber.queue.next_number - 1)
    return seqs


def _check(bench: Bench) -> None:
    for subscriber in bench.bus.subscribers.values():
        for stream, account in subscriber.queue.accounts.items():
            assert (account.balance, account.queued) == (0, subscriber.queue.held(stream))


@pytest.fixture
def bench() -> Bench:
    """A bus with nothing."""
    return Bench()


# ---- filters ---------------------------------------------------------------------------------------------


def _named(worker: str, run: str = "run", run_name: str = "") -> StreamInfo:
    info = make_info(worker)
    return StreamInfo(
        stream=info.stream,
        run=run,
        run_name=run_name,
        worker=worker,
        host="host",
        pid=1,
        started_ns=1,
        schemas=info.schemas,
    )


@pytest.mark.parametrize(
    ("runs", "workers", "expected"),
    [
        ([], [], [1, 2, 3]),
        (["ppo-*"], [], [1, 2]),
        (["0a"], [], [1]),
        (["0a", "0c"], [], [1, 3]),
        (["PPO-*"], [], []),
        ([], ["eval*"], [2, 3]),
        (["ppo-?"], ["eval*"], [2]),
        (["*"], ["nobody"], []),
        (["[!p]*"], ["eval-1"], [2, 3]),
    ],
)
def test_runs_and_workers_are_chosen_by_pattern(
    bench: Bench, runs: list[str], workers: list[str], expected: list[int]
) -> None:
    """A run by its id or its name; the rest is no delivery, and no loss either."""
    subscriber = bench.join(selection=Selection(list(KINDS), runs, workers))
    infos = [_named("train", "0a", "ppo-1"), _named("eval-1", "0b", "ppo-2"), _named("eval-1", "0c", "sac")]
    for number, info in enumerate(infos, start=1):
        bench.open(info, number)
        bench.steps(info, number, 1)
    assert _seqs(subscriber) == expected
    assert subscriber.queue.statistics().published == len(expected)
    assert subscriber.queue.statistics().dropped == {}


def test_a_filtered_block_subscriber_still_moves_the_ack(bench: Bench) -> None:
    """It is sent empty deliveries of what it did not ask for: none of its records, and an echo all the same."""
    subscriber = bench.join("db", BLOCK, Selection(list(KINDS), ["other"]))
    info = bench.open()
    bench.steps(info, 1, 5)
    (entry,) = _entries(subscriber)
    assert (entry.records, len(entry.frames), entry.section_bits) == (0, 1, 0)
    assert bench.bus.acked_seq(key_of(info)) == 0
    bench.bus.on_echo(subscriber, 1)
    assert bench.bus.acked_seq(key_of(info)) == 5
    assert subscriber.queue.account(key_of(info)).published == 0


# ---- every n-th step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 64])
@pytest.mark.parametrize("sizes", [[1] * 40, [7] * 9, [64, 1, 64, 3], [10, 20, 30]], ids=str)
def test_decimation_counts_over_the_borders_of_batches(bench: Bench, n: int, sizes: list[int]) -> None:
    """Exactly every n-th step of a stream, the first one included; the account is of those alone."""
    subscriber = bench.join(selection=Selection(decimate=n))
    info = bench.open()
    seq = 1
    for size in sizes:
        bench.steps(info, seq, size)
        seq += size
    expected = list(range(1, seq, n))
    assert _take(bench, subscriber) == expected
    account = subscriber.queue.account(key_of(info))
    assert (account.published, account.delivered, account.last_seq) == (len(expected), len(expected), seq - 1)
    _check(bench)


def test_decimation_counts_each_stream_for_itself_and_steps_alone(bench: Bench) -> None:
    """Every record of another kind is sent, whatever its place."""
    subscriber = bench.join(selection=Selection(decimate=4))
    first, second = bench.open(), bench.open()
    bench.mixed(first, 1, steps=3, logs=2)
    bench.steps(second, 1, 3)
    bench.mixed(first, 6, steps=3, logs=1)
    sent = _entries(subscriber)
    steps = [(entry.stream, seqs_of(entry.frames[1])) for entry in sent if entry.key[1] == STEP]
    logs = [record[0] for entry in sent if entry.key[1] == LOG for record in unpack(entry.frames[1])]
    assert steps == [(key_of(first), [1]), (key_of(second), [1]), (key_of(first), [7])]
    assert logs == [4, 5, 9]


# ---- latest per environment ------------------------------------------------------------------------------


def _env_batch(info: StreamInfo, first_seq: int, envs: list[int]) -> tuple[bytes, bytes]:
    rows = b"".join(struct.pack("<QI", first_seq + index, env) for index, env in enumerate(envs))
    section = Section(STEP, 0, len(envs), len(rows))
    return encode_header(key_of(info), first_seq, len(envs), 0, [section]), rows


def _env_rows(subscriber: Subscriber) -> list[tuple[int, int]]:
    return sorted(
        (seq, env) for entry in _entries(subscriber) for seq, env in struct.iter_unpack("<QI", bytes(entry.frames[1]))
    )


@pytest.mark.parametrize(("key", "kept"), [("env", [(3, 7), (5, 1), (6, 2)]), ("stream", [(4, 2), (5, 1), (6, 2)])])
def test_latest_keeps_the_newest_of_each_environment(bench: Bench, key: str, kept: list[tuple[int, int]]) -> None:
    """With key `env` an environment that is rarely heard of stays in sight; with `stream` the newest batch does."""
    subscriber = bench.join(policy=QueuePolicy("latest", key="env" if key == "env" else "stream"))
    info = bench.open(make_info(schemas=[PER_ENV]))
    bench.frames(*_env_batch(info, 1, [1, 2, 7]))
    bench.frames(*_env_batch(info, 4, [2, 1, 2]))
    rows = _env_rows(subscriber)
    assert [row for row in rows if row in kept] == kept
    account = subscriber.queue.account(key_of(info))
    assert (account.published, account.dropped) == (6, {"superseded": 6 - len(rows)})
    _check(bench)


# ---- batches that a router before this one had offered in part -------------------------------------------


def _restarted(bench: Bench, policy: QueuePolicy) -> tuple[StreamInfo, Subscriber]:
    """Seven records were offered and echoed; then another router, and the stream is sent again from seq 1."""
    info, subscriber = bench.open(), bench.join(policy=policy)
    bench.steps(info, 1, 7)
    _take(bench, subscriber)
    bench.crash()
    subscriber = bench.join(policy=policy)
    bench.open(info)
    return info, subscriber


def test_a_lossy_subscriber_is_not_given_a_record_twice(bench: Bench) -> None:
    """A batch cut elsewhere than before is trimmed to what is new, and counted once."""
    info, subscriber = _restarted(bench, OLDEST)
    bench.steps(info, 1, 5)
    bench.steps(info, 6, 5)
    bench.steps(info, 11, 2)
    assert _take(bench, subscriber) == [8, 9, 10, 11, 12]
    account = subscriber.queue.account(key_of(info))
    assert (account.published, account.delivered, account.dropped) == (12, 12, {})


def test_every_section_of_a_batch_is_trimmed(bench: Bench) -> None:
    """A section that was offered whole is gone, another begins later, each by the seqs in it."""
    info, subscriber = _restarted(bench, OLDEST)
    bench.mixed(info, 1, steps=6, logs=3)
    (entry,) = _entries(subscriber)
    assert [record[0] for record in unpack(entry.frames[1])] == [8, 9]
    assert (entry.records, entry.is_vital, decode_header(entry.frames[0]).records) == (2, True, 2)
    _check(bench)


def test_a_process_that_joins_before_a_trimmed_batch_left_is_told_where_it_begins(bench: Bench) -> None:
    """Not at the batch's own first seq: what was cut off will not come."""
    info, subscriber = _restarted(bench, OLDEST)
    bench.steps(info, 1, 10)
    assert bench.bus.begin(subscriber) == {info.stream: 7}


def test_a_block_subscriber_is_sent_it_whole_and_it_is_counted_once(bench: Bench) -> None:
    """It passes over what it has, so only new records count, while the ack covers all of the batch."""
    info, subscriber = _restarted(bench, BLOCK)
    bench.steps(info, 1, 5)
    bench.steps(info, 6, 5)
    assert [entry.records for entry in _entries(subscriber)] == [0, 3]
    bench.bus.on_echo(subscriber, 2)
    assert bench.bus.acked_seq(key_of(info)) == 10
    account = subscriber.queue.account(key_of(info))
    assert (account.published, account.delivered, account.delivered_seq) == (10, 10, 10)


# ---- bodies that cannot be parted ------------------------------------------------------------------------


def _odd_batch(info: StreamInfo, first_seq: int, records: int) -> tuple[bytes, bytes]:
    """Its body is no whole number of rows."""
    body = bytes(8 * records + 1)
    return encode_header(key_of(info), first_seq, records, 0, [Section(STEP, 0, records, len(body))]), body


def test_a_body_that_cannot_be_parted_reaches_everybody_else(bench: Bench) -> None:
    """The one that wanted a part is told to the caller; who joined before or after it gets the batch."""
    info = bench.open()
    early = bench.join("early", BLOCK)
    bench.join("part", selection=Selection(decimate=2))
    late = bench.join("late", BLOCK)
    with pytest.raises(WireError):
        bench.frames(*_odd_batch(info, 1, 3))
    assert [entry.records for subscriber in (early, late) for entry in _entries(subscriber)] == [3, 3]
    assert (bench.bus.records_in, bench.bus.streams[key_of(info)].gate.expected_seq) == (3, 4)
    _check(bench)


def test_a_block_subscriber_gets_a_body_that_cannot_be_trimmed(bench: Bench) -> None:
    """Or its next echo would ack a batch it never saw."""
    info, subscriber = _restarted(bench, BLOCK)
    with pytest.raises(WireError):
        bench.frames(*_odd_batch(info, 1, 10))
    assert len(_entries(subscriber)) == 1
    _check(bench)


# ---- accounts of who leaves and comes back ---------------------------------------------------------------


def test_a_name_that_comes_back_goes_on_with_its_account(bench: Bench) -> None:
    """What waited is counted as lost; what came in its absence is none of its."""
    info, first = bench.open(), bench.join()
    bench.steps(info, 1, 10)
    _take(bench, first)
    bench.steps(info, 11, 5)
    assert bench.bus.remove_subscriber("a", "subscriber_left") == 5
    bench.steps(info, 16, 100)
    second = bench.join()
    bench.steps(info, 116, 4)
    assert _take(bench, second) == [116, 117, 118, 119]
    account = second.queue.account(key_of(info))
    assert (account.published, account.delivered, account.dropped) == (19, 14, {"subscriber_left": 5})
    assert (account.first_seq, account.last_seq) == (0, 119)


def test_the_account_of_who_left_can_be_asked_for(bench: Bench) -> None:
    """Until its stream is put away."""
    info = bench.open()
    bench.join()
    bench.steps(info, 1, 10)
    bench.bus.remove_subscriber("a", "subscriber_left")
    account = bench.bus.account_of("a", key_of(info))
    assert account is not None
    assert (account.published, account.dropped) == (10, {"subscriber_left": 10})
    bench.bus.put_away(key_of(info))
    assert bench.bus.account_of("a", key_of(info)) is None
    assert key_of(info) not in bench.bus.runs


def test_an_account_with_queued_records_outlives_its_stream(bench: Bench) -> None:
    """Who still waits for some of it keeps its own, and the run it is told under."""
    info, slow, quick = bench.open(), bench.join("slow"), bench.join("quick")
    bench.steps(info, 1, 10)
    _take(bench, quick)
    bench.bus.close_stream(key_of(info))
    bench.bus.put_away(key_of(info))
    assert bench.bus.account_of("quick", key_of(info)) is None
    assert bench.bus.account_of("slow", key_of(info)) is slow.queue.account(key_of(info))
    assert bench.bus.runs[key_of(info)] == info.run


def test_an_account_begins_where_its_subscriber_joined(bench: Bench) -> None:
    """Of a stream that is open already, and of one that opens later from the middle."""
    old = bench.open()
    bench.steps(old, 1, 10)
    queue = bench.join().queue
    new = bench.open(oldest_seq=51)
    accounts = [queue.account(key_of(info)) for info in (old, new)]
    assert [(account.first_seq, account.last_seq) for account in accounts] == [(10, 10), (50, 50)]


def test_changed_accounts_are_told_once(bench: Bench) -> None:
    """Each with its subscriber; those of others are not among them."""
    info, key = bench.open(), Selection(["episode"])
    bench.join()
    bench.join("episodes", selection=key)
    bench.bus.take_changed()
    bench.steps(info, 1, 1)
    assert bench.bus.take_changed() == {("a", key_of(info)), ("episodes", key_of(info))}
    assert bench.bus.take_changed() == set()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_restored_account_belongs_to_its_name(bench: Bench, is_there: bool) -> None:
    """Whether its subscriber is there already or joins later."""
    info = make_info()
    account = Account(published=9, delivered=9, last_seq=9)
    if is_there:
        bench.join()
    bench.bus.restore("a", key_of(info), "run-9", account)
    if not is_there:
        bench.join()
    assert bench.bus.account_of("a", key_of(info)) is account
    assert bench.bus.runs == {key_of(info): "run-9"}
    assert bench.bus.subscribers["a"].queue.account(key_of(info)) is account


# ---- where deliveries begin ------------------------------------------------------------------------------


def test_watermarks_say_what_will_not_be_delivered(bench: Bench) -> None:
    """The newest seq before what waits; of a stream of which nothing waits, the newest of all."""
    idle, busy = bench.open(), bench.open()
    subscriber = bench.join(policy=QueuePolicy("drop_oldest", MAX_BATCH_RECORDS))
    for info in (idle, busy):
        bench.steps(info, 1, 600)
    bench.steps(busy, 601, 400)
    assert bench.bus.begin(subscriber) == {idle.stream: 600, busy.stream: 0}
    bench.steps(busy, 1_001, 600)
    assert bench.bus.begin(subscriber) == {idle.stream: 600, busy.stream: 600}
