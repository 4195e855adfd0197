"""Ledger: accounts are whole after any crash; a file that is damaged or foreign costs accounts, never the router."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runlane.actors import ledger as module
from runlane.actors.ledger import FIRST_SLOTS, REASONS, SLOT_BYTES, Ledger, Saved, restore
from runlane.transport.queue import ROUTER_RESTART, Account

KEY = b"k" * 16
FIRST_SLOT = SLOT_BYTES
USED_AT, COPIES_AT = 8, (192, 352)
COPY_BYTES = 8 * (6 + len(REASONS))

Open = Callable[[], Ledger]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "router.ledger"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Opens the file once more, as a successor does; whoever had it open is as good as killed."""
    ledgers: list[Ledger] = []

    def make() -> Ledger:
        ledgers.append(Ledger(path))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close(is_over=False)


def _account(published: int = 10, delivered: int = 4, queued: int = 3, **dropped: int) -> Account:
    return Account(published, delivered, queued, dropped or {"drop_oldest": 3}, 1, 10, 4, 2)


def _read(ledger: Ledger) -> dict[tuple[str, bytes], Saved]:
    return {(saved.subscriber, saved.stream): saved for saved in ledger.read()}


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


# ---- what is kept ----------------------------------------------------------------------------------------


def test_an_account_comes_back_as_it_was(opened: Open) -> None:
    """Every figure of it, without a close; what was queued is what the rest leaves over."""
    opened().write("gui", KEY, "run-1", _account())
    assert _read(opened()) == {("gui", KEY): Saved("gui", KEY, "run-1", _account())}


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_its_place(opened: Open, reason: str) -> None:
    """And comes back under its name."""
    opened().write("gui", KEY, "run", _account(10, 0, 3, **{reason: 7}))
    assert _read(opened())["gui", KEY].account.dropped == {reason: 7}


def test_a_reason_unknown_to_the_file_is_counted_as_other(opened: Open) -> None:
    """Beside what is there as other already: nothing is lost of the sum."""
    opened().write("gui", KEY, "run", _account(10, 0, 3, bad_luck=2, other=5))
    assert _read(opened())["gui", KEY].account.dropped == {"other": 7}


def test_the_newest_write_counts(opened: Open) -> None:
    """However many came before."""
    ledger = opened()
    for published in range(100, 120):
        ledger.write("gui", KEY, "run", _account(published, 0, published, stale=0))
    assert _read(opened())["gui", KEY].account.published == 119


def test_accounts_are_apart_by_subscriber_and_stream(opened: Open) -> None:
    """Neither alone names one."""
    ledger = opened()
    keys = [(name, _key(number)) for name in ("a", "b") for number in (1, 2)]
    for count, (name, stream) in enumerate(keys):
        ledger.write(name, stream, "run", _account(published=count + 7))
    assert [_read(opened())[key].account.published for key in keys] == [7, 8, 9, 10]


def test_a_successor_goes_on_in_the_same_places(opened: Open, path: Path) -> None:
    """Restart upon restart the file does not grow."""
    for published in range(10, 20):
        ledger = opened()
        assert len(_read(ledger)) == (published > 10)
        ledger.write("gui", KEY, "run", _account(published))
    assert _read(opened())["gui", KEY].account.published == 19
    assert path.stat().st_size == (1 + FIRST_SLOTS) * SLOT_BYTES


def test_names_of_the_greatest_length_fit(opened: Open) -> None:
    """64 bytes each, without a zero behind."""
    opened().write("n" * 64, KEY, "r" * 64, _account())
    (saved,) = opened().read()
    assert (saved.subscriber, saved.run) == ("n" * 64, "r" * 64)


# ---- a crash in the middle -------------------------------------------------------------------------------


def test_a_write_cut_off_anywhere_leaves_the_account_before_it(opened: Open, path: Path) -> None:
    """The copy that is not valid may hold anything: the version is stored last."""
    ledger = opened()
    for published, invalid in ((10, 0), (11, 1), (12, 0)):
        ledger.write("gui", KEY, "run", _account(published))
        with path.open("r+b") as file:
            file.seek(FIRST_SLOT + COPIES_AT[invalid])
            file.write(b"\xff" * COPY_BYTES)
        assert _read(opened())["gui", KEY].account == _account(published, 4, published - 7)


def test_a_new_account_cut_off_before_it_is_whole_is_none(opened: Open, path: Path) -> None:
    """Its slot is not marked as used yet, and is used by the next one."""
    opened().write("gui", KEY, "run", _account())
    with path.open("r+b") as file:
        file.seek(FIRST_SLOT + USED_AT)
        file.write(bytes(8))
    ledger = opened()
    assert _read(ledger) == {}
    ledger.write("other", KEY, "run", _account(99))
    assert list(_read(opened())) == [("other", KEY)]
    assert path.read_bytes()[FIRST_SLOT + USED_AT] == 1


def test_forgotten_accounts_stay_forgotten(opened: Open) -> None:
    """And forgetting one that is not there is harmless."""
    ledger = opened()
    ledger.write("a", KEY, "run", _account())
    ledger.write("b", KEY, "run", _account())
    ledger.forget("a", KEY)
    ledger.forget("a", KEY)
    ledger.forget("c", KEY)
    assert list(_read(opened())) == [("b", KEY)]


# ---- growth ----------------------------------------------------------------------------------------------


def test_the_file_grows_and_keeps_what_it_had(opened: Open, path: Path) -> None:
    """By doubling, as soon as no slot is left."""
    ledger = opened()
    for number in range(2 * FIRST_SLOTS + 1):
        ledger.write("gui", _key(number), "run", _account(published=number + 7))
    assert ledger.is_complete
    assert path.stat().st_size == (1 + 4 * FIRST_SLOTS) * SLOT_BYTES
    found = {stream: saved.account.published for (_, stream), saved in _read(opened()).items()}
    assert found == {_key(number): number + 7 for number in range(2 * FIRST_SLOTS + 1)}


def test_a_forgotten_place_is_used_again(opened: Open, path: Path) -> None:
    """Streams come and go for months in a file that does not grow."""
    ledger = opened()
    for number in range(3 * FIRST_SLOTS):
        ledger.write("gui", _key(number), "run", _account(published=number + 7))
        ledger.forget("gui", _key(max(0, number - 5)))
    assert path.stat().st_size == (1 + FIRST_SLOTS) * SLOT_BYTES
    found = {stream: saved.account.published for (_, stream), saved in _read(opened()).items()}
    assert found == {_key(number): number + 7 for number in range(3 * FIRST_SLOTS - 5, 3 * FIRST_SLOTS)}


def test_a_full_disk_is_said_and_harms_no_account_that_is_there(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account that found no place is not kept; the others are, and go on."""
    ledger = opened()
    for number in range(FIRST_SLOTS):
        ledger.write("gui", _key(number), "run", _account())

    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, f"{fd} {offset} {length}")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        ledger.write("gui", _key(1_000_000), "run", _account())
        assert not ledger.is_complete
        ledger.write("gui", _key(0), "run", _account(published=77))
    found = _read(opened())
    assert len(found) == FIRST_SLOTS
    assert found["gui", _key(0)].account.published == 77


def test_there_is_an_end_to_growth(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on the file, whatever somebody subscribes with."""
    monkeypatch.setattr(module, "MAX_SLOTS", FIRST_SLOTS + 3)
    ledger = opened()
    for number in range(FIRST_SLOTS + 5):
        ledger.write("gui", _key(number), "run", _account())
    assert not ledger.is_complete
    assert len(_read(opened())) == FIRST_SLOTS + 3


# ---- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"RL", b"\x00" * SLOT_BYTES, b"garbage" * 1_000, b"SQLite format 3\x00" + bytes(2 * SLOT_BYTES - 16)],
    ids=["empty", "short", "zeros", "garbage", "foreign"],
)
def test_a_file_that_is_no_ledger_is_made_anew(opened: Open, path: Path, content: bytes) -> None:
    """Nothing is read from it, and accounts are kept from then on."""
    path.write_bytes(content)
    ledger = opened()
    assert _read(ledger) == {}
    ledger.write("gui", KEY, "run", _account())
    assert list(_read(opened())) == [("gui", KEY)]


@pytest.mark.parametrize("size", [1, SLOT_BYTES - 1, SLOT_BYTES + 1, 3 * SLOT_BYTES + 100])
def test_a_ledger_cut_within_a_slot_is_made_anew(opened: Open, path: Path, size: int) -> None:
    """Half an account is none."""
    opened().write("gui", KEY, "run", _account())
    os.truncate(path, size)
    assert _read(opened()) == {}


def test_a_ledger_cut_between_slots_keeps_those_before(opened: Open, path: Path) -> None:
    """They are whole."""
    ledger = opened()
    for number in (1, 2, 3):
        ledger.write("gui", _key(number), "run", _account())
    os.truncate(path, 3 * SLOT_BYTES)
    assert [stream for _, stream in _read(opened())] == [_key(1), _key(2)]


def test_an_account_that_cannot_be_is_not_taken_up(opened: Open, path: Path) -> None:
    """More delivered than published: what a power failure left of a page. Its place is free again."""
    opened().write("gui", KEY, "run", _account(published=1, delivered=50))
    ledger = opened()
    assert _read(ledger) == {}
    ledger.write("gui", KEY, "run", _account())
    assert len(_read(opened())) == 1
    assert path.read_bytes()[2 * SLOT_BYTES + USED_AT] == 0


def test_names_that_are_no_text_are_read_all_the_same(opened: Open, path: Path) -> None:
    """With replacement characters; a successor must not die of them."""
    opened().write("gui", KEY, "run", _account())
    with path.open("r+b") as file:
        file.seek(FIRST_SLOT + 16)
        file.write(b"\xff\xfe")
    (saved,) = opened().read()
    assert saved.account == _account()


def test_a_place_where_no_file_can_be_is_an_error(tmp_path: Path) -> None:
    """An `OSError`, which its owner survives."""
    with pytest.raises(OSError, match="nowhere"):
        Ledger(tmp_path / "nowhere" / "router.ledger")


@pytest.mark.parametrize("is_over", [False, True])
def test_an_ordered_end_removes_the_file(path: Path, is_over: bool) -> None:
    """And only that: else a successor needs it."""
    Ledger(path).close(is_over=is_over)
    assert path.exists() is not is_over


# ---- what a successor makes of an account ----------------------------------------------------------------


def test_what_waited_in_a_lossy_queue_died_with_it() -> None:
    """Counted as lost by the restart, beside what was lost before; the account is closed."""
    account = _account(20, 4, 9, **{"drop_oldest": 5, ROUTER_RESTART: 2})
    assert restore(account, is_block=False) == 9
    assert (account.queued, account.dropped, account.last_seq) == (0, {"drop_oldest": 5, ROUTER_RESTART: 11}, 10)
    assert account.balance == 0


def test_a_lossy_account_with_nothing_queued_lost_nothing() -> None:
    """And gets no reason with a zero."""
    account = _account(7, 4, 0)
    assert restore(account, is_block=False) == 0
    assert account.dropped == {"drop_oldest": 3}


@pytest.mark.parametrize(("delivered_seq", "last_seq"), [(8, 8), (0, 3)])
def test_what_a_block_subscriber_had_not_committed_will_come_again(delivered_seq: int, last_seq: int) -> None:
    """So it is not published yet, and counts when it comes; never before where the account begins."""
    account = Account(
        published=10, delivered=4, queued=6, first_seq=3, last_seq=14, delivered_seq=delivered_seq, base=2
    )
    assert restore(account, is_block=True) == 0
    assert (account.published, account.queued, account.last_seq, account.dropped) == (4, 0, last_seq, {})
    assert account.balance == 0
