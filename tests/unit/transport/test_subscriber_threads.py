"""Subscriber from an event loop, in a thread of its own, and with its accounts: against a router moved by hand."""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from unit.transport.fake_router import FakeRouter

from runlane.config.errors import SettingsError, SubscriberRefusedError
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.async_subscriber import THREAD_NAME
from runlane.transport.messages import (
    Accounts,
    AccountsRequest,
    StreamOpened,
    SubscriberAccount,
    SubscriberHello,
    SubscriberRefused,
)
from runlane.transport.record_batch import RecordBatch
from runlane.transport.subscriber import Subscriber
from runlane.transport.subscriber_link import SubscriberLink
from runlane.transport.testing import make_batch, make_info, until
from runlane.transport.wire import Delivery, decode_header

INFO = make_info()
ACCOUNT = SubscriberAccount("mine", "run", INFO.stream, 9, 6, 1, {"drop_oldest": 2}, 0, 9)


class Joined:
    """A subscriber that a router has let in."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.router = FakeRouter(settings, name="mine")
        self.subscriber = Subscriber("mine", settings=settings, **options)
        until(lambda: self.router.is_heard(SubscriberHello), lambda: self.subscriber.poll(0.005), self.router.turn)
        self.router.welcome()
        until(lambda: self.router.is_subscribed, lambda: self.subscriber.poll(0.005), self.router.turn)
        self.router.announce(StreamOpened(info=INFO))

    def deliver(self, *numbers: int) -> None:
        """One record each."""
        for number in numbers:
            self.router.deliver(INFO, number)

    def close(self) -> None:
        """Both ends."""
        self.subscriber.close()
        self.router.close()


@pytest.fixture
def joined(settings: Settings) -> Iterator[Joined]:
    """A subscriber with the defaults."""
    joined = Joined(settings)
    yield joined
    joined.close()


def threads() -> list[str]:
    """Our threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD_NAME]


def first_seqs(batches: list[RecordBatch]) -> list[int]:
    """Where each batch begins."""
    return [batch.header.first_seq for batch in batches]


class Turn:
    """One turn of the event loop, no time."""

    def __await__(self) -> Generator[None]:
        """Let everybody else run."""
        yield


async def turns(router: FakeRouter, is_met: Callable[[], bool]) -> None:
    """Let everybody else run, and the router listen, until the condition is met."""
    async with asyncio.timeout(10):
        while not is_met():
            router.turn()
            await Turn()


# ---- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"kinds": []}, "kinds"),
        ({"kinds": "step"}, "kinds"),
        ({"runs": "ppo"}, "runs"),
        ({"runs": [""]}, "runs"),
        ({"workers": ["w" * 65]}, "workers"),
        ({"workers": ["w"] * 1_001}, "workers"),
        ({"decimate": 0}, "decimate"),
        ({"decimate": 2, "policy": QueuePolicy("block")}, "decimate"),
        ({"window": 0}, "window"),
        ({"window": 1_025}, "window"),
        ({"echo_every": 0}, "echo_every"),
        ({"echo_every": 5, "window": 4}, "echo_every"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_opened(
    settings: Settings, options: dict[str, Any], key: str
) -> None:
    """SettingsError with the name of the argument."""
    with pytest.raises(SettingsError) as caught:
        Subscriber("mine", settings=settings, **options)
    assert caught.value.key == key


def test_what_was_asked_for_is_in_the_hello(settings: Settings) -> None:
    """Kinds, runs, workers, decimation, policy and window."""
    options: dict[str, Any] = {"kinds": ["step"], "runs": ["r*"], "workers": ["w"], "decimate": 3, "window": 9}
    joined = Joined(settings, policy=QueuePolicy("latest"), **options)
    hello = joined.router.heard[0]
    assert isinstance(hello, SubscriberHello)
    assert {name: getattr(hello, name) for name in options} == options
    assert hello.policy == QueuePolicy("latest")
    joined.close()


@pytest.mark.parametrize(
    ("options", "echoes"),
    [
        ({"echo_every": 1}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"echo_every": 4}, [4, 8, 9]),
        ({"window": 12}, [3, 6, 9]),
        ({"window": 2}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_an_echo_goes_out_when_so_many_deliveries_are_unechoed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, options: dict[str, int], echoes: list[int]
) -> None:
    """A quarter of the window by default; in any case before it waits for the next one."""
    subscriber = Subscriber("mine", settings=settings, **options)  # type: ignore[arg-type]
    header = decode_header(make_batch(INFO, 1, log=1).frames[0])
    there = [Delivery(number, header, (b"",)) for number in range(1, 10)]
    told: list[int] = []

    def receive(_link: SubscriberLink) -> Delivery | None:
        return there.pop(0) if there else None

    def echo(_link: SubscriberLink, number: int, _epoch: int) -> None:
        told.append(number)

    monkeypatch.setattr(SubscriberLink, "receive", receive)
    monkeypatch.setattr(SubscriberLink, "echo", echo)
    for _ in range(10):
        subscriber.poll(0.0)
    assert told == echoes
    subscriber.close()


# ---- accounts --------------------------------------------------------------------------------------------


def test_accounts_are_asked_for_and_drops_are_added_up(joined: Joined) -> None:
    """The answer's last part ends the wait."""
    other = SubscriberAccount("mine", "run", "b" * 32, 5, 2, 0, {"drop_oldest": 1, "latest": 2}, 0, 5)
    answered = threading.Event()

    def answer() -> None:
        until(lambda: joined.router.is_heard(AccountsRequest), joined.router.turn)
        joined.router.answer(Accounts(router="r", t_ns=1, accounts=[ACCOUNT], is_last=False))
        joined.router.answer(Accounts(router="r", t_ns=1, accounts=[other]))
        answered.set()

    thread = threading.Thread(target=answer)
    thread.start()
    found = joined.subscriber.accounts(10.0)
    thread.join()
    assert answered.is_set()
    assert found == [ACCOUNT, other]
    assert joined.subscriber.dropped == {"drop_oldest": 3, "latest": 2}


def test_without_an_answer_the_last_known_accounts_are_given(joined: Joined) -> None:
    """After the time given, and without an error."""
    joined.router.announce(Accounts(router="r", t_ns=1, accounts=[ACCOUNT]))
    until(lambda: bool(joined.subscriber.dropped), lambda: joined.subscriber.poll(0.005))
    assert joined.subscriber.accounts(0.0) == [ACCOUNT]


# ---- an event loop ---------------------------------------------------------------------------------------


def test_async_iteration_yields_every_batch_and_ends_with_the_graph(joined: Joined) -> None:
    """What is there at once, what comes later, and nothing after the goodbye."""

    async def consume() -> list[int]:
        found: list[RecordBatch] = []

        async def collect() -> None:
            found.extend([batch async for batch in joined.subscriber])

        joined.deliver(1, 2)
        task = asyncio.create_task(collect())
        await turns(joined.router, lambda: bool(threads()))
        joined.deliver(3)
        joined.router.announce_bye()
        await task
        return first_seqs(found)

    assert asyncio.run(consume()) == [1, 2, 3]
    assert threads() == []


def test_a_cancelled_poll_leaves_no_thread_and_loses_nothing(joined: Joined) -> None:
    """However long it might have waited; the next poll gets what comes."""

    async def cancel() -> list[RecordBatch]:
        task = asyncio.create_task(joined.subscriber.poll_async(3_600))
        await turns(joined.router, lambda: bool(threads()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads() == []
        joined.deliver(1)
        found: list[RecordBatch] = []
        while not found:
            found = await joined.subscriber.poll_async(1.0)
        return found

    assert first_seqs(asyncio.run(cancel())) == [1]


def test_batches_that_came_as_the_wait_was_cancelled_are_kept(joined: Joined) -> None:
    """A timeout that strikes at any moment costs no batch and breaks no order."""

    async def hurry() -> list[int]:
        found: list[int] = []
        sent = 0
        async with asyncio.timeout(30):
            while len(found) < 200:
                while sent < min(200, len(found) + 6):
                    sent += 1
                    joined.deliver(sent)
                joined.router.turn()
                task = asyncio.create_task(joined.subscriber.poll_async(0.01))
                for _ in range(len(found) % 4):
                    await Turn()
                task.cancel()
                batches: list[RecordBatch] = []
                try:
                    batches = await task
                except asyncio.CancelledError:
                    batches = await joined.subscriber.poll_async(0.01)
                found += first_seqs(batches)
        return found

    assert asyncio.run(hurry()) == list(range(1, 201))


def test_two_tasks_cannot_wait_at_once(joined: Joined) -> None:
    """RuntimeError, not two threads on one socket."""

    async def both() -> None:
        task = asyncio.create_task(joined.subscriber.poll_async(3_600))
        await turns(joined.router, lambda: bool(threads()))
        with pytest.raises(RuntimeError, match="awaited by another task"):
            await joined.subscriber.poll_async(0.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(both())


def test_a_refusal_is_raised_where_it_is_awaited(settings: Settings) -> None:
    """As `poll` would raise it."""
    router = FakeRouter(settings, name="mine")
    subscriber = Subscriber("mine", settings=settings)

    async def refused() -> None:
        async def answer() -> None:
            await turns(router, lambda: router.is_heard(SubscriberHello))
            router.answer(SubscriberRefused(name="mine", reason="no"))

        answering = asyncio.create_task(answer())
        async with asyncio.timeout(10):
            while True:
                await subscriber.poll_async(0.01)
                await asyncio.wait([answering], timeout=0)

    with pytest.raises(SubscriberRefusedError, match="no"):
        asyncio.run(refused())
    subscriber.close()
    router.close()


# ---- a thread --------------------------------------------------------------------------------------------


def test_a_started_subscriber_calls_back_in_its_own_thread(joined: Joined) -> None:
    """Batch by batch, until it is stopped; stopping twice is harmless."""
    found: list[tuple[int, str]] = []
    joined.subscriber.start(lambda batch: found.append((batch.header.first_seq, threading.current_thread().name)))
    joined.deliver(1, 2)
    until(lambda: len(found) == 2, joined.router.turn)
    joined.subscriber.stop()
    joined.subscriber.stop()
    assert found == [(1, THREAD_NAME), (2, THREAD_NAME)]
    assert threads() == []
    joined.deliver(3)
    batches: list[RecordBatch] = []
    until(lambda: bool(batches), lambda: batches.extend(joined.subscriber.poll(0.005)))
    assert first_seqs(batches) == [3]


def test_what_the_callback_raises_comes_out_of_stop_and_join(joined: Joined) -> None:
    """Once; the thread ended there and then."""

    def fail(batch: RecordBatch) -> None:
        raise ValueError(f"batch {batch.header.first_seq}")

    joined.deliver(1)
    joined.subscriber.start(fail)
    with pytest.raises(ValueError, match="batch 1"):
        joined.subscriber.join(10)
    joined.subscriber.stop()
    joined.subscriber.start(fail)
    joined.deliver(2)
    until(lambda: not threads(), joined.router.turn)
    with pytest.raises(ValueError, match="batch 2"):
        joined.subscriber.stop()


def test_the_thread_ends_with_the_graph(joined: Joined) -> None:
    """Joining it is waiting for that."""
    found: list[int] = []
    joined.subscriber.start(lambda batch: found.append(batch.header.first_seq))
    assert not joined.subscriber.join(0.0)
    joined.deliver(1)
    joined.router.announce_bye()
    assert joined.subscriber.join(10)
    assert found == [1]


def test_a_callback_may_stop_its_own_thread(joined: Joined) -> None:
    """It ends after this batch."""
    found: list[int] = []

    def once(batch: RecordBatch) -> None:
        found.append(batch.header.first_seq)
        joined.subscriber.stop()

    joined.subscriber.start(once)
    joined.deliver(1, 2)
    assert joined.subscriber.join(10)
    assert found == [1]


def test_nobody_else_polls_a_started_subscriber(joined: Joined) -> None:
    """RuntimeError that says what to do; nor is it started twice."""
    joined.subscriber.start(len)
    for use in (
        lambda: joined.subscriber.poll(0.0),
        joined.subscriber.accounts,
        lambda: joined.subscriber.start(print),
    ):
        with pytest.raises(RuntimeError, match="mine"):
            use()


def test_closing_ends_the_thread_and_raises_what_it_raised(settings: Settings) -> None:
    """And closes every socket all the same."""
    joined = Joined(settings)

    def fail(_batch: RecordBatch) -> None:
        raise ValueError("mine")

    joined.subscriber.start(fail)
    joined.deliver(1)
    until(lambda: not threads(), joined.router.turn)
    with pytest.raises(ValueError, match="mine"):
        joined.subscriber.close()
    joined.router.close()
