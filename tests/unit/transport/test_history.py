"""History: what a late joiner reads from a database that the DB writer's own store made, before it goes on live."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from unit.transport.fake_router import FakeRouter

from runlane.actors.store import Store
from runlane.config.names import KINDS
from runlane.config.settings import DbWriterSettings, Selection, Settings
from runlane.transport.columns import step_dtype
from runlane.transport.endpoint import database_of
from runlane.transport.history import LOOK_S, PATIENCE_S, History, HistoryBatch
from runlane.transport.messages import StepField, StepSchema, StreamInfo, StreamOpened, SubscriberHello
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import (
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Record,
    RunRecord,
)
from runlane.transport.subscriber import Subscriber
from runlane.transport.subscriber_link import SubscriberLink
from runlane.transport.testing import FakeClock, make_info, until
from runlane.transport.wire import STEP, Section, encode_delivery_prefix
from runlane.transport.writer import encode_records_batch

PLACE = [StepField("episode", "<u4"), StepField("step", "<u4")]
SCALAR = StepSchema(
    schema_id=3,
    fields=[
        StepField("seq", "<u8"),
        StepField("t_ns", "<i8"),
        *PLACE,
        StepField("env_index", "<u4"),
        StepField("flags", "|u1"),
        StepField("reward", "<f8"),
        StepField("action", "<i8"),
        StepField("observation", "<f4", 2),
    ],
)
VECTOR = StepSchema(
    schema_id=4,
    env_count=2,
    fields=[
        StepField("seq", "<u8"),
        StepField("t_ns", "<i8"),
        StepField("flags", "|u1", 2),
        StepField("reward", "<f8", 2),
        StepField("action", "<i8", 2),
        StepField("observation", "<f4", 6),
    ],
)
NO_OBSERVATION = StepSchema(schema_id=5, fields=SCALAR.fields[:-1])


class Written:
    """A database, filled through the DB writer's own store."""

    def __init__(self, settings: Settings) -> None:
        self.store = Store(database_of(settings), DbWriterSettings(synchronous="NORMAL"))

    def write(self, info: StreamInfo, last_seq: int, *contents: "Record | tuple[StepSchema, Any]") -> None:
        """One transaction: records, or step rows with their schema, and how far the stream is stored now."""
        self.store.begin()
        stream_no = self.store.open_stream(info)
        for content in contents:
            if isinstance(content, tuple):
                schema, rows = content
                body = rows.tobytes()
                section = Section(STEP, schema.schema_id, len(rows), len(body))
                self.store.insert_steps(stream_no, schema, body, section)
            else:
                self.store.insert_records(stream_no, type(content).__name__.removesuffix("Record").lower(), [content])
        self.store.advance(stream_no, last_seq)
        self.store.commit()


class FakeLink:
    """What history needs of a link: it is welcomed, it waits, and time passes meanwhile."""

    def __init__(self, clock: FakeClock, **watermarks: int) -> None:
        self.clock = clock
        self.epoch = 1
        self.watermarks: dict[str, int] = watermarks
        self.waited_s: list[float] = []

    def wait(self, timeout_s: float, *, for_data: bool) -> None:
        """Time passes."""
        assert not for_data
        self.waited_s.append(timeout_s)
        self.clock.move(timeout_s)


@pytest.fixture
def written(settings: Settings) -> Iterator[Written]:
    """An empty database."""
    written = Written(settings)
    with closing(written.store):
        yield written


@pytest.fixture
def make(settings: Settings) -> Iterator[Callable[..., History]]:
    """Makes histories and closes them."""
    made: list[History] = []

    def make(link: FakeLink, **selection: Any) -> History:
        made.append(History(settings, Selection(**selection), cast("SubscriberLink", link)))
        return made[-1]

    yield make
    for history in made:
        history.close()


def steps(schema: StepSchema, *rows: dict[str, Any]) -> tuple[StepSchema, Any]:
    """Step rows with some columns given and the others 0."""
    columns = np.zeros(len(rows), step_dtype(schema))
    for index, row in enumerate(rows):
        for name, value in row.items():
            columns[name][index] = value
    return schema, columns


def read(history: History) -> list[HistoryBatch]:
    """All of it."""
    found: list[HistoryBatch] = []
    until(lambda: history.is_done, lambda: found.extend(history.poll(0.0, lambda: False)))
    return found


def seqs(batches: "list[HistoryBatch] | list[RecordBatch]") -> list[int]:
    """Seqs of all records, in the order they were handed out."""
    found: list[int] = []
    for batch in batches:
        found += batch.columns["seq"].tolist() if batch.kind == "step" else [record.seq for record in batch.records]
    return found


def log(seq: int) -> LogRecord:
    """A line that says its seq."""
    return LogRecord(seq, 5, "info", str(seq))


def test_every_kind_comes_back_as_it_was_live(written: Written, make: Callable[..., History], clock: FakeClock) -> None:
    """The same structs, the same info, NaN and infinity included; in batches that say they are history."""
    info = make_info(schemas=[SCALAR])
    records: list[Record] = [
        EpisodeRecord(2, 6, 1, 3, math.inf, 9, "truncated", 0.5, {"score": [1, None]}),
        EpisodeRecord(3, 6, 1, 4, 2.5, 9, "terminated", 0.5),
        MetricRecord(4, 7, "loss", -0.25, 100),
        LogRecord(5, 8, "warning", "odd"),
        RunRecord(6, 9, "running", {"command": "x"}),
        DropRecord(7, 10, "step", "journal_full", 12),
        InfoRecord(8, 1, 0, {"lives": 3}),
    ]
    written.write(info, 8, steps(SCALAR, {"seq": 1}), *records)
    batches = read(make(FakeLink(clock, **{info.stream: 8})))
    assert [batch.kind for batch in batches] == list(KINDS)
    assert all(batch.is_history and batch.info.run == info.run for batch in batches)
    assert all(batch.info.worker == info.worker and len(batch) == batch.header.records for batch in batches)
    found = sorted((record for batch in batches[1:] for record in batch.records), key=lambda record: record.seq)
    assert found == records


def test_a_nan_comes_back_as_one(written: Written, make: Callable[..., History], clock: FakeClock) -> None:
    """The database has no NaN: NULL where a float belongs is one."""
    info = make_info(schemas=[SCALAR])
    episode = EpisodeRecord(2, 6, 0, 1, math.nan, 9, "terminated", 1.0)
    written.write(
        info, 3, steps(SCALAR, {"seq": 1, "reward": math.nan}), episode, MetricRecord(3, 7, "loss", math.nan, 1)
    )
    step, episodes, metrics = read(make(FakeLink(clock, **{info.stream: 3})))
    assert math.isnan(step.columns["reward"][0])
    for record in (*episodes.records, *metrics.records):
        assert isinstance(record, EpisodeRecord | MetricRecord)
        assert math.isnan(record.episode_return if isinstance(record, EpisodeRecord) else record.value)


@pytest.mark.parametrize(
    "rows",
    [
        steps(
            SCALAR,
            {"seq": 1, "t_ns": 9, "episode": 2, "step": 3, "env_index": 1, "flags": 5, "reward": 0.5, "action": -7},
            {"seq": 2, "reward": -math.inf, "observation": (1.5, 2.5)},
        ),
        steps(
            VECTOR,
            {"seq": 1, "t_ns": 9, "flags": (1, 4), "reward": (0.5, math.inf), "action": (3, -4)},
            {"seq": 2, "observation": (1, 2, 3, 4, 5, 6)},
        ),
    ],
)
def test_step_rows_come_back_in_their_own_layout(
    written: Written, make: Callable[..., History], clock: FakeClock, rows: tuple[StepSchema, Any]
) -> None:
    """The structured array is equal byte for byte, a vector step one row again."""
    info = make_info(schemas=[rows[0]])
    written.write(info, 2, rows)
    [batch] = read(make(FakeLink(clock, **{info.stream: 2})))
    assert batch.columns.dtype == rows[1].dtype
    assert batch.columns.tobytes() == rows[1].tobytes()


def test_each_row_finds_the_layout_it_fits(written: Written, make: Callable[..., History], clock: FakeClock) -> None:
    """A stream may change its layout on the way; the batches change with it."""
    info = make_info(schemas=[SCALAR, NO_OBSERVATION])
    written.write(info, 3, steps(SCALAR, {"seq": 1}), steps(NO_OBSERVATION, {"seq": 2}), steps(SCALAR, {"seq": 3}))
    batches = read(make(FakeLink(clock, **{info.stream: 3})))
    assert [batch.section.schema_id for batch in batches] == [3, 5, 3]
    assert seqs(batches) == [1, 2, 3]


def test_history_ends_at_the_watermark(written: Written, make: Callable[..., History], clock: FakeClock) -> None:
    """What is stored beyond it comes live; of a stream without one, all that is stored is history."""
    known, other = make_info("known"), make_info("other")
    written.write(known, 9, *(log(seq) for seq in range(1, 10)))
    written.write(other, 2, log(1), log(2))
    assert seqs(read(make(FakeLink(clock, **{known.stream: 6})))) == [1, 2, 3, 4, 5, 6, 1, 2]


def test_it_waits_until_the_database_is_so_far(
    written: Written, make: Callable[..., History], clock: FakeClock
) -> None:
    """The DB writer is a subscriber, too, and may be behind; what is ready meanwhile is read first."""
    late, ready = make_info("late"), make_info("ready")
    written.write(late, 1, log(1))
    written.write(ready, 1, log(1))
    link = FakeLink(clock, **{late.stream: 2, ready.stream: 1})
    history = make(link)
    assert [batch.info.worker for batch in history.poll(1.0, lambda: False)] == ["ready"]
    assert history.poll(1.0, lambda: False) == []
    assert max(link.waited_s) <= LOOK_S
    assert not history.is_done
    written.write(late, 2, log(2))
    assert seqs(read(history)) == [1, 2]
    assert history.missing == {}


def test_it_does_not_wait_for_ever_and_says_what_is_missing(
    written: Written, make: Callable[..., History], clock: FakeClock
) -> None:
    """After PATIENCE_S without progress it takes what there is."""
    info = make_info()
    written.write(info, 3, *(log(seq) for seq in (1, 2, 3)))
    history = make(FakeLink(clock, **{info.stream: 10, "f" * 32: 4}))
    found = history.poll(PATIENCE_S + 1, lambda: False)
    assert seqs([*found, *read(history)]) == [1, 2, 3]
    assert history.missing == {info.stream: 7, "f" * 32: 4}


def test_without_a_database_there_is_no_history(make: Callable[..., History], clock: FakeClock) -> None:
    """At once when the router knows of no records either; after PATIENCE_S when it does."""
    assert read(make(FakeLink(clock))) == []
    behind = make(FakeLink(clock, **{"f" * 32: 4}))
    assert behind.poll(PATIENCE_S / 2, lambda: False) == []
    assert not behind.is_done
    assert behind.poll(PATIENCE_S, lambda: False) == []
    assert (behind.is_done, behind.missing) == (True, {"f" * 32: 4})


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        ({"kinds": ["step"]}, [1, 2, 3, 4, 5, 1]),
        ({"kinds": ["log"]}, [6, 2]),
        ({"kinds": ["step"], "decimate": 2}, [1, 3, 5, 1]),
        ({"kinds": ["log"], "decimate": 2}, [6, 2]),
        ({"workers": ["b*"]}, [1, 2]),
        ({"runs": ["ppo-?"]}, [1, 2]),
        ({"runs": ["run"], "kinds": ["log"]}, [6]),
        ({"runs": ["nothing"]}, []),
    ],
)
def test_the_filters_of_the_live_part_hold_for_history(
    written: Written, make: Callable[..., History], clock: FakeClock, selection: dict[str, Any], found: list[int]
) -> None:
    """Kinds, runs by id or name, workers, and every n-th step row."""
    one = make_info("a", schemas=[SCALAR])
    two = msgspec.structs.replace(make_info("b", schemas=[SCALAR]), run="run2", run_name="ppo-7")
    written.write(one, 6, steps(SCALAR, *({"seq": seq} for seq in range(1, 6))), log(6))
    written.write(two, 2, steps(SCALAR, {"seq": 1}), log(2))
    assert seqs(read(make(FakeLink(clock), **selection))) == found


def test_long_streams_come_in_pieces(written: Written, make: Callable[..., History], clock: FakeClock) -> None:
    """No piece holds more than a few thousand rows, and decimation goes on over their ends."""
    info = make_info(schemas=[SCALAR])
    written.write(info, 10_000, steps(SCALAR, *({"seq": seq} for seq in range(1, 10_001))))
    batches = read(make(FakeLink(clock), decimate=3))
    assert len(batches) == 3
    assert seqs(batches) == list(range(1, 10_001, 3))


def test_a_cancelled_wait_ends(written: Written, make: Callable[..., History], clock: FakeClock) -> None:
    """A thread that waits for the database can be told to stop."""
    info = make_info()
    written.write(info, 1, log(1))
    link = FakeLink(clock, **{info.stream: 5})
    assert make(link).poll(3_600, lambda: True) == []
    assert len(link.waited_s) == 1


def test_a_new_router_while_history_is_read_moves_its_end(
    written: Written, make: Callable[..., History], clock: FakeClock
) -> None:
    """What the old router would have delivered is read instead, and nothing twice."""
    info = make_info()
    written.write(info, 4, *(log(seq) for seq in range(1, 5)))
    link = FakeLink(clock, **{info.stream: 2})
    history = make(link)
    found = history.poll(0.0, lambda: False)
    link.epoch, link.watermarks = 2, {info.stream: 4}
    assert seqs([*found, *read(history)]) == [1, 2, 3, 4]


# ---- with a subscriber and a router ----------------------------------------------------------------------


class Joined:
    """A subscriber that reads history, and a router moved by hand."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.settings = settings
        self.router = FakeRouter(settings, name="mine")
        self.subscriber = Subscriber("mine", history=True, kinds=["log"], settings=settings, **options)
        self.batches: list[RecordBatch] = []

    def turn(self) -> None:
        """Both do what is due."""
        self.batches += self.subscriber.poll(0.005)
        self.router.turn()

    def join(self, serial: int = 1, **watermarks: int) -> None:
        """Let it in, at a new router if `serial` says so."""
        if serial > 1:
            self.router.close()
            self.router = FakeRouter(self.settings, serial, "mine")
        until(lambda: self.router.is_heard(SubscriberHello), self.turn)
        self.router.welcome(watermarks=watermarks)
        until(lambda: self.router.is_subscribed, self.turn)

    def deliver(self, info: StreamInfo, number: int, first_seq: int, count: int = 1) -> None:
        """As a router does: announce, then deliver real records."""
        records: list[Record] = [log(seq) for seq in range(first_seq, first_seq + count)]
        frames = encode_records_batch(info.stream, first_seq, 0, {"log": records})
        self.router.announce(StreamOpened(info=info))
        self.router.send(encode_delivery_prefix(number, 1), *map(bytes, frames))

    def close(self) -> None:
        """Both ends."""
        self.subscriber.close()
        self.router.close()


@pytest.fixture
def joined(settings: Settings) -> Iterator[Joined]:
    """Not yet let in."""
    joined = Joined(settings)
    yield joined
    joined.close()


def test_history_and_live_meet_without_gap_or_overlap(written: Written, joined: Joined) -> None:
    """First what is stored up to the watermark, then what is delivered, which waited meanwhile."""
    info = make_info()
    written.write(info, 3, *(log(seq) for seq in (1, 2, 3)))
    joined.join(**{info.stream: 3})
    joined.deliver(info, 1, 4, count=2)
    until(lambda: len(seqs(joined.batches)) == 5, joined.turn)
    assert seqs(joined.batches) == [1, 2, 3, 4, 5]
    assert [batch.is_history for batch in joined.batches] == [True, False]
    assert joined.subscriber.history_missing == {}


def test_what_is_delivered_again_is_not_handed_out_again(written: Written, joined: Joined) -> None:
    """A stream without a watermark may be delivered from before what is stored: only the rest is news."""
    info = make_info()
    written.write(info, 3, *(log(seq) for seq in (1, 2, 3)))
    joined.join()
    joined.deliver(info, 1, 2, count=4)
    until(lambda: len(seqs(joined.batches)) == 5, joined.turn)
    assert seqs(joined.batches) == [1, 2, 3, 4, 5]


def test_after_a_router_restart_it_goes_on_live(written: Written, joined: Joined) -> None:
    """History is not read again, and what the new router sends again is left out; the counts tell of all of it."""
    info = make_info()
    written.write(info, 2, log(1), log(2))
    joined.join(**{info.stream: 2})
    joined.deliver(info, 1, 3)
    until(lambda: len(seqs(joined.batches)) == 3, joined.turn)
    joined.router.announce_bye()
    joined.join(serial=2)
    [hello] = [message for message in joined.router.heard if isinstance(message, SubscriberHello)]
    assert hello.received == {info.stream: 1}
    joined.deliver(info, 1, 3, count=2)
    until(lambda: len(seqs(joined.batches)) == 4, joined.turn)
    assert seqs(joined.batches) == [1, 2, 3, 4]
