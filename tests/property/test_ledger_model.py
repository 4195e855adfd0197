"""Ledger against a dictionary: after a crash at any moment each account is as it was last written, and none is new."""

import contextlib
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runlane.actors.ledger import FIRST_SLOTS, REASONS, SLOT_BYTES, Ledger, Saved, restore
from runlane.transport.queue import ROUTER_RESTART, Account

NAMES = ["gui", "db_writer", "n" * 64]
STREAMS = [bytes([number]) * 16 for number in range(4)]
RUNS = ["", "run", "r" * 64]
ANY_REASON: list[str] = list(REASONS)
WORDS = st.integers(0, 1 << 40)
Key = tuple[str, bytes]


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """Any account that is closed."""
    delivered, queued = draw(WORDS), draw(WORDS)
    dropped: dict[str, int] = draw(st.dictionaries(st.sampled_from(ANY_REASON), st.integers(1, 1 << 40), max_size=4))
    first, last, delivered_seq, base = draw(st.tuples(WORDS, WORDS, WORDS, WORDS))
    published = delivered + queued + sum(dropped.values())
    return Account(published, delivered, queued, dropped, first, last, delivered_seq, base)


def _copy(account: Account) -> Account:
    return replace(account, dropped=dict(account.dropped))


class LedgerMachine(RuleBasedStateMachine):
    """Routers that write, forget, and are killed, one after the other."""

    @initialize()
    def begin(self) -> None:
        """A router where none was before."""
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "router.ledger"
        self.dead: list[Ledger] = []
        self.ledger = Ledger(self.path)
        self.model: dict[Key, tuple[str, Account]] = {}

    @rule(name=st.sampled_from(NAMES), stream=st.sampled_from(STREAMS), run=st.sampled_from(RUNS), account=accounts())
    def write(self, name: str, stream: bytes, run: str, account: Account) -> None:
        """An account has changed. The run of a stream never does."""
        known_run, _ = self.model.get((name, stream), (run, account))
        self.ledger.write(name, stream, known_run, account)
        self.model[name, stream] = known_run, _copy(account)

    @rule(turn=st.dictionaries(st.sampled_from(STREAMS), accounts(), max_size=4), cut=st.integers(0, 4))
    def killed_in_a_turn(self, turn: dict[bytes, Account], cut: int) -> None:
        """Of the accounts that changed in it some are written, and the others are as before."""
        for stream, account in list(turn.items())[:cut]:
            self.write("gui", stream, "run", account)
        self.killed()

    @rule(name=st.sampled_from(NAMES), stream=st.sampled_from(STREAMS))
    def forget(self, name: str, stream: bytes) -> None:
        """An account is put away, if there is one."""
        self.ledger.forget(name, stream)
        self.model.pop((name, stream), None)

    @rule(number=st.integers(0, 1 << 60))
    def come_and_go(self, number: int) -> None:
        """Somebody has its place for a moment."""
        stream = number.to_bytes(16, "big")
        self.ledger.write("other", stream, "run", Account(published=1, queued=1))
        self.ledger.forget("other", stream)

    @rule()
    def killed(self) -> None:
        """A successor opens the file that nobody closed, and takes up what is there."""
        self.dead.append(self.ledger)
        self.ledger = Ledger(self.path)
        assert {(saved.subscriber, saved.stream): (saved.run, saved.account) for saved in self.ledger.read()} == (
            self.model
        )

    @rule(blocks=st.sets(st.sampled_from(NAMES)))
    def killed_and_restored(self, blocks: set[str]) -> None:
        """The successor makes each account true for itself: closed, and with the sums that are certain."""
        self.dead.append(self.ledger)
        self.ledger = Ledger(self.path)
        for saved in self.ledger.read():
            before = self.model[saved.subscriber, saved.stream][1]
            _check_restored(saved, before, is_block=saved.subscriber in blocks)
            self.ledger.write(saved.subscriber, saved.stream, saved.run, saved.account)
            self.model[saved.subscriber, saved.stream] = saved.run, _copy(saved.account)

    @invariant()
    def the_file_does_not_grow(self) -> None:
        """Places are used again, by whichever router."""
        assert self.path.stat().st_size == (1 + FIRST_SLOTS) * SLOT_BYTES

    def teardown(self) -> None:
        """Also of the dead."""
        if hasattr(self, "ledger"):
            for ledger in (*self.dead, self.ledger):
                ledger.close(is_over=False)
            self.directory.cleanup()


def _check_restored(saved: Saved, before: Account, *, is_block: bool) -> None:
    """What is delivered stays so; what was queued will come again under `block`, and is lost otherwise."""
    account = saved.account
    lost = restore(account, is_block=is_block)
    assert (account.queued, account.balance, account.delivered) == (0, 0, before.delivered)
    assert lost == (0 if is_block else before.queued)
    assert account.published == before.published - (before.queued if is_block else 0)
    others = {reason: count for reason, count in before.dropped.items() if reason != ROUTER_RESTART}
    assert {reason: count for reason, count in account.dropped.items() if reason != ROUTER_RESTART} == others
    assert account.dropped.get(ROUTER_RESTART, 0) == before.dropped.get(ROUTER_RESTART, 0) + lost


TestLedgerModel = LedgerMachine.TestCase
TestLedgerModel.settings = settings(max_examples=100, stateful_step_count=30)


# ---- growth and damage -----------------------------------------------------------------------------------


@contextmanager
def _path() -> Generator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "router.ledger"


@contextmanager
def _opened(path: Path) -> Generator[Ledger]:
    with contextlib.ExitStack() as stack:
        ledger = Ledger(path)
        stack.callback(ledger.close, is_over=False)
        yield ledger


def _sums(ledger: Ledger) -> dict[bytes, int]:
    return {saved.stream: saved.account.published for saved in ledger.read()}


@settings(max_examples=20)
@given(count=st.integers(1, 3 * FIRST_SLOTS), gone=st.sets(st.integers(0, 3 * FIRST_SLOTS), max_size=50))
def test_any_number_of_accounts_comes_back(count: int, gone: set[int]) -> None:
    """Through growth, with holes in it, and with as many again in the holes."""
    with _path() as path, _opened(path) as ledger:
        expected: dict[bytes, int] = {}
        for number in range(count):
            expected[number.to_bytes(16, "big")] = number
            ledger.write("gui", number.to_bytes(16, "big"), "run", Account(published=number, queued=number))
        for number in gone:
            ledger.forget("gui", number.to_bytes(16, "big"))
            expected.pop(number.to_bytes(16, "big"), None)
        size = path.stat().st_size
        for number in range(1 << 20, (1 << 20) + count - len(expected)):
            expected[number.to_bytes(16, "big")] = number
            ledger.write("gui", number.to_bytes(16, "big"), "run", Account(published=number, queued=number))
        assert path.stat().st_size == size
        with _opened(path) as successor:
            assert _sums(successor) == expected


@example(written=0, spots=[], size=SLOT_BYTES)  # a head and no room at all
@settings(max_examples=200)
@given(
    written=st.integers(0, 5),
    spots=st.lists(st.tuples(st.integers(0, 6 * SLOT_BYTES), st.binary(min_size=1, max_size=200)), max_size=4),
    size=st.none() | st.integers(0, 8 * SLOT_BYTES),
)
def test_damage_of_any_sort_costs_accounts_and_never_the_router(
    written: int, spots: list[tuple[int, bytes]], size: int | None
) -> None:
    """What is taken up can be told and written again, whatever is in the file."""
    with _path() as path:
        with _opened(path) as ledger:
            for number in range(written):
                ledger.write("gui", number.to_bytes(16, "big"), "run", Account(published=9, delivered=4, queued=5))
        content = bytearray(path.read_bytes())
        for at, data in spots:
            content[at : at + len(data)] = data
        path.write_bytes(content[:size])
        with _opened(path) as successor:
            for saved in successor.read():
                restore(saved.account, is_block=len(saved.subscriber) % 2 == 0)
                assert saved.account.balance == 0
                successor.write(saved.subscriber, saved.stream, saved.run, saved.account)
            successor.write("new", b"n" * 16, "run", Account(published=1, queued=1))
            assert successor.is_complete
        with _opened(path) as last:
            assert ("new", 1) in {(saved.subscriber, saved.account.published) for saved in last.read()}
