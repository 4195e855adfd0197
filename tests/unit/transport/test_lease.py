"""Leases: a word is enough to be rendered for, silence is enough to be forgotten, and nobody waits for anybody."""

import random
from collections.abc import Iterator

import pytest

from runlane.transport.lease import LEASE_NS, MARK_S, MAX_RATE_HZ, Lease, Wanted, wanted
from runlane.transport.ring_layout import HEAD_BYTES, INFO_OFFSET, LEASE, LEASE_WORDS, LEASES

NOW_NS = 5_000_000_000_000
MARK_NS = int(MARK_S * 1e9)


@pytest.fixture
def words() -> Iterator[memoryview]:
    """The words of a head nobody has marked yet."""
    with memoryview(bytearray(HEAD_BYTES)).cast("Q") as words:
        yield words


def until(words: memoryview, line: int) -> int:
    """Until when a line's mark holds."""
    found: int = words[LEASE + LEASE_WORDS * line + 1]
    return found


def used_lines(words: memoryview) -> list[int]:
    """Lines with a mark of any age."""
    return [line for line in range(LEASES) if until(words, line)]


# ---- one viewer ------------------------------------------------------------------------------------------


def test_nobody_watches_a_new_ring(words: memoryview) -> None:
    """Nor is anything wanted of it, at any time."""
    assert wanted(words, 0) is None
    assert wanted(words, NOW_NS) is None


def test_a_mark_says_what_is_wanted(words: memoryview) -> None:
    """How often, of which environment, and how far the viewer is."""
    Lease(words).mark(NOW_NS, 12.5, tile=3, seen=7)
    assert wanted(words, NOW_NS) == Wanted(rate_hz=12.5, tile=3, seen=7, viewers=1)


def test_a_mark_holds_for_less_than_a_second(words: memoryview) -> None:
    """So a viewer that died is forgotten within one, and one that is late by less than half is not."""
    Lease(words).mark(NOW_NS, 30.0)
    assert wanted(words, NOW_NS + LEASE_NS - 1) is not None
    assert wanted(words, NOW_NS + LEASE_NS) is None
    assert MARK_NS + 400_000_000 <= LEASE_NS < 1_000_000_000


def test_a_mark_is_made_twice_a_second_however_often_it_is_asked_for(words: memoryview) -> None:
    """What is asked meanwhile stands in the next one, or in that of `ask_anew` at once."""
    lease = Lease(words)
    lease.mark(NOW_NS, 30.0)
    lease.mark(NOW_NS + MARK_NS - 1, 10.0, tile=2)
    assert wanted(words, NOW_NS) == Wanted(30.0, 0, 0, 1)
    lease.mark(NOW_NS + MARK_NS, 10.0, tile=2)
    assert wanted(words, NOW_NS + MARK_NS) == Wanted(10.0, 2, 0, 1)
    lease.ask_anew()
    lease.mark(NOW_NS + MARK_NS + 1, 5.0)
    assert wanted(words, NOW_NS + MARK_NS + 1) == Wanted(5.0, 0, 0, 1)
    assert len(used_lines(words)) == 1


def test_a_viewer_that_lets_go_is_forgotten_at_once(words: memoryview) -> None:
    """And may watch again; letting go twice, or of nothing, is harmless."""
    lease = Lease(words)
    lease.release()
    lease.mark(NOW_NS, 30.0)
    lease.release()
    lease.release()
    assert wanted(words, NOW_NS) is None
    lease.mark(NOW_NS + 1, 30.0)
    assert wanted(words, NOW_NS + 1) is not None


@pytest.mark.parametrize(
    ("asked", "expected"), [(0.5, 0.5), (29.97, 29.97), (0.001, 0.001), (1e9, MAX_RATE_HZ), (float("inf"), MAX_RATE_HZ)]
)
def test_a_rate_is_kept_to_the_thousandth_of_a_hertz(words: memoryview, asked: float, expected: float) -> None:
    """Up to a thousand frames a second."""
    Lease(words).mark(NOW_NS, asked)
    found = wanted(words, NOW_NS)
    assert found is not None
    assert found.rate_hz == expected


def test_a_rate_of_nothing_asks_for_nothing(words: memoryview) -> None:
    """The viewer only looks on."""
    Lease(words).mark(NOW_NS, 0.0)
    assert wanted(words, NOW_NS) is None


def test_a_mark_made_after_the_worker_looked_at_its_clock_counts(words: memoryview) -> None:
    """A worker may be interrupted between its clock and the leases: it must not take its viewer for a liar."""
    Lease(words).mark(NOW_NS + 20_000_000, 30.0)
    assert wanted(words, NOW_NS) is not None


@pytest.mark.parametrize("until_ns", [NOW_NS + 10 * LEASE_NS, 1 << 63, (1 << 64) - 1, NOW_NS, 1, 0])
def test_garbage_is_no_lease(words: memoryview, until_ns: int) -> None:
    """Neither what holds too long nor what is over; and its line is free to take."""
    for line in range(LEASES):
        start = LEASE + LEASE_WORDS * line
        words[start : start + 5] = memoryview(bytes.fromhex("ff" * 40)).cast("Q")
        words[start + 1] = until_ns
    assert wanted(words, NOW_NS) is None
    Lease(words, viewer=1).mark(NOW_NS, 30.0)
    assert wanted(words, NOW_NS) == Wanted(30.0, 0, 0, 1)


def test_leases_stay_in_their_lines() -> None:
    """Whatever viewers do, no other byte of the head changes."""
    head = bytearray(b"\xaa" * HEAD_BYTES)
    with memoryview(head).cast("Q") as words:
        for viewer in range(100):
            Lease(words, viewer + 1).mark(NOW_NS + viewer, 1000.0, tile=64, seen=1 << 40)
    first, end = LEASE * 8, INFO_OFFSET
    assert (head[:first] + head[end:]).count(0xAA) == HEAD_BYTES - (end - first)


# ---- several ---------------------------------------------------------------------------------------------


def test_the_highest_rate_and_the_slowest_viewer_count(words: memoryview) -> None:
    """And the environment that somebody names."""
    for viewer, (rate_hz, tile, seen) in enumerate([(10.0, 0, 100), (60.0, 2, 50), (1.0, 0, 70)], start=1):
        Lease(words, viewer).mark(NOW_NS, rate_hz, tile=tile, seen=seen)
    assert wanted(words, NOW_NS) == Wanted(60.0, 2, 50, 3)


def test_a_viewer_that_has_read_nothing_yet_is_the_slowest(words: memoryview) -> None:
    """Its number is 0."""
    Lease(words, 1).mark(NOW_NS, 1.0, seen=50)
    Lease(words, 2).mark(NOW_NS, 1.0)
    assert wanted(words, NOW_NS) == Wanted(1.0, 0, 0, 2)


def test_eight_viewers_have_a_line_each(words: memoryview) -> None:
    """Whatever their ids; and keep it."""
    leases = [Lease(words) for _ in range(LEASES)]
    for now_ns in (NOW_NS, NOW_NS + MARK_NS, NOW_NS + 2 * MARK_NS):
        for lease in leases:
            lease.mark(now_ns, 30.0)
        assert used_lines(words) == list(range(LEASES))
        assert wanted(words, now_ns) == Wanted(30.0, 0, 0, LEASES)
    assert {until(words, line) for line in range(LEASES)} == {NOW_NS + 2 * MARK_NS + LEASE_NS}


def test_a_ninth_viewer_is_rendered_for_all_the_same(words: memoryview) -> None:
    """It shares a line with somebody, who goes on, too; and has one alone as soon as one is free."""
    leases = [Lease(words, viewer) for viewer in range(1, LEASES + 2)]
    for now_ns in range(NOW_NS, NOW_NS + 10 * MARK_NS, MARK_NS):
        for lease in leases:
            lease.mark(now_ns, 30.0)
        assert wanted(words, now_ns) == Wanted(30.0, 0, 0, LEASES)
    leases[3].release()
    now_ns = NOW_NS + 10 * MARK_NS
    for _ in range(4):
        now_ns += MARK_NS
        for lease in leases[:3] + leases[4:]:
            lease.mark(now_ns, 30.0)
    viewers = {words[LEASE + LEASE_WORDS * line] for line in range(LEASES)}
    assert viewers == {lease.viewer for lease in leases} - {leases[3].viewer}


def test_a_viewer_takes_the_line_of_a_dead_one(words: memoryview) -> None:
    """After a thousand viewers that were killed there is room for eight."""
    for number in range(1_000):
        Lease(words).mark(NOW_NS + number * LEASE_NS, 30.0)
    now_ns = NOW_NS + 1_000 * LEASE_NS
    assert wanted(words, now_ns) is None
    for viewer in range(LEASES):
        Lease(words, viewer + 1).mark(now_ns, 30.0)
    assert wanted(words, now_ns) == Wanted(30.0, 0, 0, LEASES)


def test_two_viewers_that_took_one_line_part_at_the_next_mark(words: memoryview) -> None:
    """They looked at the same moment: the line is the second one's, and serves both until then."""
    first, second = Lease(words, 8), Lease(words, 16)
    first.mark(NOW_NS, 30.0)
    [line] = used_lines(words)
    start = LEASE + LEASE_WORDS * line
    words[start + 1] = 0  # the second one looked before the first one's mark
    second.mark(NOW_NS, 10.0)
    assert (used_lines(words), words[start]) == ([line], 16)
    first.release()  # a line that is another's now is not taken from it
    assert wanted(words, NOW_NS) == Wanted(10.0, 0, 0, 1)
    for lease in (first, second):
        lease.mark(NOW_NS + MARK_NS, 30.0)
    assert wanted(words, NOW_NS + MARK_NS) == Wanted(30.0, 0, 0, 2)


def test_viewers_that_come_and_go_at_random_are_counted_right(words: memoryview) -> None:
    """As long as eight at most are there, each is counted, whoever sat where before."""
    chance = random.Random(1)  # noqa: S311  dice
    watching: dict[int, Lease] = {}
    now_ns = NOW_NS
    for viewer in range(1, 500):
        now_ns += chance.randrange(MARK_NS)
        if len(watching) == LEASES or (watching and chance.random() < 0.4):
            watching.pop(chance.choice(list(watching))).release()
        else:
            watching[viewer] = Lease(words, viewer)
        for lease in watching.values():
            lease.ask_anew()
            lease.mark(now_ns, 30.0)
        found = wanted(words, now_ns)
        assert (0 if found is None else found.viewers) == len(watching)


def test_a_viewer_without_an_id_has_one_of_its_own(words: memoryview) -> None:
    """Never 0, which is nobody's."""
    ids = {Lease(words).viewer for _ in range(100)}
    assert len(ids) == 100
    assert all(0 < viewer < 1 << 64 for viewer in ids)
