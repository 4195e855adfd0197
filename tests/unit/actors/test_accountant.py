"""Accountant: what changed is safe before it is told, told when it is due, and put away once everybody knows it."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from runlane.actors import accountant as module
from runlane.actors.accountant import Accountant
from runlane.actors.egress import Egress
from runlane.actors.ledger import FILE, Ledger
from runlane.actors.run_bus import RunBus, Subscriber
from runlane.config.settings import QueuePolicy, RouterSettings, Selection
from runlane.transport.messages import Accounts, ControlMessage, GraphMetrics, SubscriberAccount
from runlane.transport.testing import FakeClock, make_batch, make_info
from runlane.transport.wire import decode_header

SETTINGS = RouterSettings(report_s=1.0, metrics_s=10.0)
BLOCK, LOSSY = QueuePolicy("block"), QueuePolicy("drop_oldest")


class FakeWay:
    """The part of an `Egress` that an accountant knows: takes messages while there is `room`."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.room = 1 << 30
        self.said: list[ControlMessage] = []

    def insist(self, message: ControlMessage, until_s: float) -> bool:
        """It has room, or none for ever."""
        return self.subscriber.is_live and until_s >= 0 and self.send_control(message)

    def send_control(self, message: ControlMessage) -> bool:
        """Take it, or not."""
        if self.room <= 0:
            return False
        self.room -= 1
        self.said.append(message)
        return True

    def take(self) -> dict[str, SubscriberAccount]:
        """Accounts told since the last call, by subscriber."""
        said, self.said = self.said, []
        messages = [message for message in said if isinstance(message, Accounts)]
        return {account.subscriber: account for message in messages for account in message.accounts}


class Bench:
    """An accountant and its bus, without sockets."""

    def __init__(self, directory: Path, clock: FakeClock) -> None:
        self.directory = directory
        self.clock = clock
        self.bus = RunBus()
        self.accountant = Accountant(self.bus, SETTINGS, clock, "router")
        self.accountant.open(directory)
        self.ways: dict[str, FakeWay] = {}
        self.info = make_info()
        self.next_seq = 1
        self.open(self.key)

    @property
    def key(self) -> bytes:
        """The stream's."""
        return bytes.fromhex(self.info.stream)

    def open(self, key: bytes) -> None:
        """A stream's hello."""
        self.bus.open_stream(key, msgspec.structs.replace(self.info, stream=key.hex()), b"peer", 1)
        self.accountant.stream_opened(key)

    def join(self, name: str, policy: QueuePolicy) -> FakeWay:
        """A live subscriber."""
        subscriber = self.bus.add_subscriber(name, policy, Selection(), 100, 0)
        subscriber.is_live = True
        self.accountant.joined(subscriber)
        self.ways[name] = FakeWay(subscriber)
        return self.ways[name]

    def publish(self, steps: int = 10) -> None:
        """Some steps."""
        frames = make_batch(self.info, self.next_seq, step=steps).frames
        self.bus.publish(decode_header(frames[0]), frames[0], frames[1:])
        self.next_seq += steps

    @property
    def egress(self) -> dict[str, Egress]:
        """The ways, under the type they stand for."""
        return cast("dict[str, Egress]", self.ways)

    def turn(self, after_s: float = 0.0) -> None:
        """What the router does once a turn."""
        self.clock.move(after_s)
        self.accountant.remember()
        self.accountant.report(self.egress)

    def kept(self) -> dict[tuple[str, bytes], int]:
        """What a successor would read: published by account."""
        ledger = Ledger(self.directory / FILE)
        found = {(saved.subscriber, saved.stream): saved.account.published for saved in ledger.read()}
        ledger.close(is_over=False)
        return found


@pytest.fixture
def bench(tmp_path: Path, clock: FakeClock) -> Iterator[Bench]:
    """With one stream, and nobody subscribed."""
    bench = Bench(tmp_path, clock)
    yield bench
    bench.accountant.close({})


def test_what_changed_is_safe_after_the_turn(bench: Bench) -> None:
    """Whoever is told of it, and before anybody is."""
    bench.join("gui", LOSSY)
    bench.publish()
    assert bench.kept() == {}
    bench.accountant.remember()
    assert bench.kept() == {("gui", bench.key): 10}


def test_who_stores_accounts_is_told_all_of_them_and_then_changes(bench: Bench) -> None:
    """Every `report_s`, and only what has changed since."""
    bench.join("gui", LOSSY)
    bench.publish()
    keeper = bench.join("keeper", BLOCK)
    bench.turn()
    assert sorted(keeper.take()) == ["gui", "keeper"]
    bench.turn(0.9)
    bench.publish(5)
    bench.turn()
    assert keeper.take() == {}
    bench.turn(0.1)
    assert {name: account.published for name, account in keeper.take().items()} == {"gui": 15, "keeper": 5}
    bench.turn(1.0)
    assert keeper.said == []


def test_a_lossy_subscriber_is_told_nothing_unasked(bench: Bench) -> None:
    """Nor is a `block` one that is not connected."""
    gui, keeper = bench.join("gui", LOSSY), bench.join("keeper", BLOCK)
    keeper.subscriber.is_live = False
    bench.publish()
    bench.turn(1.0)
    assert gui.said == keeper.said == []


def test_what_a_full_pipe_does_not_take_is_due_again(bench: Bench) -> None:
    """As it is then: an account takes the place of the one before."""
    keeper = bench.join("keeper", BLOCK)
    bench.publish()
    keeper.room = 0
    bench.turn(1.0)
    bench.publish()
    keeper.room = 100
    bench.turn(1.0)
    (account,) = keeper.take().values()
    assert (account.published, account.queued, account.last_seq) == (20, 20, 20)


def test_many_accounts_go_in_parts_that_fit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """None twice and none left out; the parts of an answer say which is the last."""
    monkeypatch.setattr("runlane.actors.bus_reporter.ACCOUNTS_PER_MESSAGE", 3)
    for number in range(6):
        bench.join(f"gui-{number}", LOSSY)
    keeper = bench.join("keeper", BLOCK)
    bench.turn(1.0)
    sizes = [len(message.accounts) for message in keeper.said if isinstance(message, Accounts)]
    assert (sorted(sizes), len(keeper.take())) == ([1, 3, 3], 7)
    parts = list(bench.accountant.answer(""))
    assert [(len(part.accounts), part.is_last) for part in parts] == [(3, False), (3, False), (1, True)]


def test_an_answer_about_nobody_is_empty_and_whole(bench: Bench) -> None:
    """So whoever asked does not wait."""
    (answer,) = bench.accountant.answer("nobody")
    assert (answer.accounts, answer.is_last, answer.router) == ([], True, "router")


def test_figures_go_every_metrics_s(bench: Bench) -> None:
    """To those that keep accounts, with the rate of the last interval."""
    keeper = bench.join("keeper", BLOCK)
    bench.turn()
    bench.publish(30)
    keeper.said.clear()
    bench.turn(9.9)
    assert not any(isinstance(message, GraphMetrics) for message in keeper.said)
    bench.turn(1.0)
    (metrics,) = [message for message in keeper.said if isinstance(message, GraphMetrics)]
    assert metrics.values["router"]["records_in"] == 30
    assert metrics.values["subscriber keeper"]["depth"] == 30
    assert metrics.t_ns == bench.clock.wall_ns()


def test_the_rate_is_that_of_the_last_report(bench: Bench) -> None:
    """Records of the bus per second."""
    bench.turn()
    bench.publish(30)
    bench.turn(2.0)
    assert bench.accountant.records_per_s == 15
    bench.turn(1.0)
    assert bench.accountant.records_per_s == 0


def test_who_left_is_told_of_and_kept(bench: Bench) -> None:
    """What waited for it is on its last account."""
    bench.join("gui", LOSSY)
    keeper = bench.join("keeper", BLOCK)
    bench.publish()
    bench.turn(1.0)
    keeper.take()
    bench.accountant.remember()
    bench.bus.remove_subscriber("gui", "subscriber_left")
    del bench.ways["gui"]
    bench.accountant.left("gui")
    bench.turn(1.0)
    assert keeper.take()["gui"].dropped == {"subscriber_left": 10}
    assert ("gui", bench.key) in bench.kept()


def _close_streams(bench: Bench, count: int) -> None:
    for number in range(count):
        key = number.to_bytes(16, "big")
        bench.open(key)
        bench.bus.close_stream(key)
        bench.accountant.stream_closed(key)


def test_accounts_of_ended_streams_are_put_away_once_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of them are kept; the places of the others are free, in memory and in the file."""
    monkeypatch.setattr(module, "KEPT_CLOSED", 2)
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    bench.join("gui", LOSSY)
    keeper = bench.join("keeper", BLOCK)
    bench.publish()
    bench.turn()
    _close_streams(bench, 5)
    for subscriber in bench.bus.subscribers.values():
        subscriber.queue.changed |= set(subscriber.queue.accounts)
    keeper.room = 0
    bench.turn(1.0)
    assert len(bench.kept()) == 2 * 6
    keeper.room = 1_000
    bench.turn(1.0)
    kept = {bench.key, *((number).to_bytes(16, "big") for number in (3, 4))}
    assert set(bench.bus.subscribers["gui"].queue.accounts) == kept
    assert {stream for _, stream in bench.kept()} == kept


def test_an_ended_stream_that_somebody_waits_for_is_put_away_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has got the rest, and not never."""
    monkeypatch.setattr(module, "KEPT_CLOSED", 0)
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    gui = bench.join("gui", LOSSY).subscriber
    bench.publish()
    bench.bus.close_stream(bench.key)
    bench.accountant.stream_closed(bench.key)
    bench.turn(1.0)
    assert bench.key in gui.queue.accounts
    gui.queue.mark_sent()
    bench.bus.on_echo(gui, 1)
    bench.turn(1.0)
    assert gui.queue.accounts == {}
    assert bench.kept() == {}
    assert gui.queue.statistics().delivered == 10


def test_a_stream_that_is_written_again_is_not_put_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A goodbye is no end for good."""
    monkeypatch.setattr(module, "KEPT_CLOSED", 0)
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    gui = bench.join("gui", LOSSY).subscriber
    bench.bus.close_stream(bench.key)
    bench.accountant.stream_closed(bench.key)
    bench.open(bench.key)
    bench.turn(1.0)
    assert bench.key in gui.queue.accounts


def test_the_end_is_told_to_everybody(bench: Bench) -> None:
    """Lossy queues are emptied into their accounts first; then no file is left."""
    gui, keeper = bench.join("gui", LOSSY), bench.join("keeper", BLOCK)
    away = bench.join("away", LOSSY)
    away.subscriber.is_live = False
    bench.publish()
    bench.accountant.close(bench.egress)
    assert gui.take()["gui"].dropped == {"router_stopped": 10}
    told = keeper.take()
    assert (told["away"].dropped, told["keeper"].queued) == ({"router_stopped": 10}, 10)
    assert away.said == []
    assert list(bench.directory.iterdir()) == []
