"""BusMemory: a successor knows the accounts and the subscribers; files that cannot be are complained about once."""

import logging
from pathlib import Path

import pytest

from runlane.actors.bus_memory import SUBSCRIBERS_FILE, BusMemory
from runlane.actors.ledger import FILE
from runlane.actors.run_bus import RunBus, Subscriber
from runlane.config.settings import QueuePolicy, Selection
from runlane.transport.queue import ROUTER_RESTART
from runlane.transport.testing import make_batch, make_info
from runlane.transport.wire import decode_header

LOSSY = QueuePolicy("drop_oldest", 2_000, max_age_ms=500)
PICKY = Selection(["episode", "step"], ["ppo-*"], ["eval"], 3)


class Life:
    """One router's bus and its memory. A next life begins without the end of this one, unless it is said."""

    def __init__(self, directory: Path, *declared: str) -> None:
        self.bus = RunBus()
        for name in declared:
            self.bus.add_subscriber(name, QueuePolicy("block"), Selection(), 64, 0, is_declared=True)
        self.memory = BusMemory(directory, self.bus)
        self.found = {subscriber.name: subscriber for subscriber in self.memory.restore(7_000)}

    def join(self, name: str, policy: QueuePolicy = LOSSY, selection: Selection | None = None) -> Subscriber:
        """A process takes a place."""
        subscriber = self.bus.subscribers.get(name)
        if subscriber is None:
            subscriber = self.bus.add_subscriber(name, policy, selection or Selection(), 5, 0)
        subscriber.instance = f"{name}-1"
        self.memory.note_subscribers()
        return subscriber

    def publish(self, steps: int) -> bytes:
        """Some steps of a new stream, noted as at the end of a turn."""
        info = make_info()
        key = bytes.fromhex(info.stream)
        self.bus.open_stream(key, info, b"peer", 1)
        frames = make_batch(info, 1, step=steps).frames
        self.bus.publish(decode_header(frames[0]), frames[0], frames[1:])
        self.note()
        return key

    def note(self) -> None:
        """Once a turn."""
        self.memory.note(self.bus.take_changed())


def _complaints(caplog: pytest.LogCaptureFixture) -> int:
    return sum(text.startswith("RUNBUS_NO_MEMORY") for text in caplog.messages)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:  # pyright: ignore[reportUnusedFunction]
    caplog.set_level(logging.INFO, "runlane")


def test_a_first_router_has_nothing_to_take_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And says nothing."""
    assert Life(tmp_path).found == {}
    assert caplog.messages == []


def test_subscribers_come_back_as_they_were(tmp_path: Path) -> None:
    """Policy, selection, window and instance; deliveries begin at the number of the new router."""
    Life(tmp_path).join("gui", LOSSY, PICKY)
    (known,) = Life(tmp_path).found.values()
    assert (known.name, known.instance, known.selection) == ("gui", "gui-1", PICKY)
    assert (known.queue.policy, known.queue.window, known.queue.next_number) == (LOSSY, 5, 7_001)
    assert (known.is_declared, known.is_live) == (False, False)


def test_one_that_left_does_not_come_back(tmp_path: Path) -> None:
    """The file is that of the last change."""
    life = Life(tmp_path)
    life.join("gui")
    life.join("other")
    life.bus.remove_subscriber("gui", "subscriber_left")
    life.memory.note_subscribers()
    assert list(Life(tmp_path).found) == ["other"]


def test_a_declared_one_is_known_again_by_its_instance(tmp_path: Path) -> None:
    """Its queue is that of the settings; only one that had a process is among those found."""
    Life(tmp_path, "db_writer", "idle").join("db_writer")
    life = Life(tmp_path, "db_writer", "idle")
    assert list(life.found) == ["db_writer"]
    assert life.bus.subscribers["db_writer"].instance == "db_writer-1"
    assert life.bus.subscribers["db_writer"].is_declared
    assert life.bus.subscribers["db_writer"].queue.window == 64


def test_accounts_come_back_by_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A lossy queue's records are lost and counted; a `block` one's will come again; both are closed."""
    life = Life(tmp_path, "db_writer")
    life.join("gui")
    key = life.publish(steps=10)
    after = Life(tmp_path, "db_writer")
    durable, lossy = (after.bus.account_of(name, key) for name in ("db_writer", "gui"))
    assert durable is not None
    assert lossy is not None
    assert (durable.published, durable.dropped, durable.balance) == (0, {}, 0)
    assert (lossy.published, lossy.dropped, lossy.balance) == (10, {ROUTER_RESTART: 10}, 0)
    assert after.bus.runs == {key: "run"}
    assert "RUNBUS_RESTORED accounts=2 dropped=10" in caplog.messages


def test_what_was_restored_is_noted_at_once(tmp_path: Path) -> None:
    """A router killed right after its start leaves what it took up, and loses no record twice."""
    life = Life(tmp_path)
    life.join("gui")
    key = life.publish(steps=10)
    for _ in range(3):
        account = Life(tmp_path).bus.account_of("gui", key)
        assert account is not None
        assert (account.published, account.dropped) == (10, {ROUTER_RESTART: 10})


def test_accounts_of_who_left_are_kept_as_well(tmp_path: Path) -> None:
    """Under the name, for whoever asks, and for the name that comes back."""
    life = Life(tmp_path)
    life.join("gui")
    key = life.publish(steps=10)
    life.bus.remove_subscriber("gui", "subscriber_left")
    life.memory.note({("gui", key)})
    life.memory.note_subscribers()
    after = Life(tmp_path)
    assert (after.found, after.bus.past["gui"][key].dropped) == ({}, {"subscriber_left": 10})


def test_a_forgotten_account_is_not_taken_up(tmp_path: Path) -> None:
    """It was put away."""
    life = Life(tmp_path)
    life.join("gui")
    key = life.publish(steps=10)
    life.memory.forget("gui", key)
    assert Life(tmp_path).bus.account_of("gui", key) is None


def test_an_ordered_end_leaves_no_file(tmp_path: Path) -> None:
    """There is nothing that a later router could need."""
    life = Life(tmp_path)
    life.join("gui")
    life.publish(steps=10)
    life.memory.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"{}", b'[{"name": "gui"}]', b"[1]", b"\xff\xfe"],
    ids=["empty", "garbage", "map", "half", "number", "bytes"],
)
def test_a_damaged_list_of_subscribers_is_complained_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Once; accounts are taken up all the same, and the next change writes it anew."""
    life = Life(tmp_path)
    life.join("gui")
    key = life.publish(steps=10)
    (tmp_path / SUBSCRIBERS_FILE).write_bytes(content)
    after = Life(tmp_path)
    assert (after.found, _complaints(caplog)) == ({}, 1)
    assert after.bus.account_of("gui", key) is not None
    after.join("new")
    assert list(Life(tmp_path).found) == ["new"]


def test_an_impossible_policy_in_the_list_is_no_end_of_the_router(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As an older or newer version may have left it."""
    Life(tmp_path).join("gui")
    path = tmp_path / SUBSCRIBERS_FILE
    path.write_bytes(path.read_bytes().replace(b"2000", b"1"))
    assert (Life(tmp_path).found, _complaints(caplog)) == ({}, 1)


def test_a_router_without_a_place_for_files_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its accounts would not survive it: said once, whatever is tried after that."""
    life = Life(tmp_path / "nowhere")
    life.join("gui")
    key = life.publish(steps=10)
    life.memory.forget("gui", key)
    life.memory.close()
    assert life.bus.account_of("gui", key) is not None
    assert _complaints(caplog) == 1


def test_a_damaged_ledger_costs_the_accounts_alone(tmp_path: Path) -> None:
    """Subscribers are known by their own file."""
    life = Life(tmp_path)
    life.join("gui")
    key = life.publish(steps=10)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).write_bytes(b"garbage" * 1_000)
    after = Life(tmp_path)
    assert list(after.found) == ["gui"]
    assert after.bus.account_of("gui", key) is None
