"""The rota says whose turn it is and how long the thread rests: the test is the clock, and the thread."""

from collections.abc import Iterator

import pytest

from runlane.workers.rota import CLOSING_S, LONGEST_REST_S, Rota


class Counting:
    """A member that counts its turns. Closing, it ends with the turn after `looks` more."""

    def __init__(self, interval_s: float = 0.02, looks: int = 0) -> None:
        self.interval_s = interval_s
        self.is_closing = False
        self.has_more = False
        self.count = 0
        self.has_ended = False
        self._looks = looks

    def turns(self) -> Iterator[bool]:
        while True:
            self.count += 1
            if self.is_closing:
                if not self._looks:
                    return
                self._looks -= 1
            yield self.has_more

    def end(self) -> None:
        self.has_ended = True


class Failing(Counting):
    """A member whose second turn fails."""

    def turns(self) -> Iterator[bool]:
        yield False
        raise OSError("no such thing")


def _begun(*members: Counting) -> Rota:
    """A rota after its first round, at 0 s; the next one is due after the shortest interval."""
    rota = Rota("test", rest=64.0)
    for member in members:
        rota.add(member)
    rota.turn(0.0, is_woken=True)
    assert rota.wait_s(0.0, 1.0) == min(member.interval_s for member in members)
    return rota


# ---- how long it rests -----------------------------------------------------------------------------------


def test_cheap_turns_follow_each_other_by_the_interval() -> None:
    """Of the member that has the shortest one."""
    rota = _begun(Counting(0.05), Counting(0.02))
    rota.turn(0.02, is_woken=False)
    assert rota.wait_s(0.02, 1.0 + 0.0001) == pytest.approx(0.02)


def test_dear_turns_make_the_rest_longer() -> None:
    """By the CPU time that passed since the rest before it, however many members have caused it."""
    rota = _begun(Counting(), Counting())
    rota.turn(0.02, is_woken=False)
    assert rota.wait_s(0.03, 1.001) == pytest.approx(0.064)
    rota.turn(0.094, is_woken=False)
    assert rota.wait_s(0.1, 1.003) == pytest.approx(0.128)


def test_a_rest_has_an_end() -> None:
    """However dear the turns were; and one that was asked to be longer is as long as asked."""
    quick, slow = _begun(Counting()), _begun(Counting(interval_s=3.0))
    for rota in (quick, slow):
        rota.turn(5.0, is_woken=False)
    assert quick.wait_s(5.0, 2.0) == LONGEST_REST_S
    assert slow.wait_s(5.0, 2.0) == 3.0


def test_a_round_that_took_long_is_a_rest_in_itself() -> None:
    """It waited for the interpreter: the rest ends as if it had begun with the round, but is no shorter than asked."""
    rota = _begun(Counting())
    rota.turn(1.0, is_woken=False)
    assert rota.wait_s(1.2, 2.0) == pytest.approx(LONGEST_REST_S - 0.2)
    rota.turn(2.0, is_woken=False)
    assert rota.wait_s(2.6, 3.0) == pytest.approx(0.02)


def test_a_thread_without_rest_keeps_its_interval() -> None:
    """Whatever its turns cost: the disk is no interpreter."""
    rota = Rota("test", rest=0.0)
    rota.add(Counting(interval_s=0.05))
    for now_s in (0.0, 0.05):
        rota.turn(now_s, is_woken=False)
        assert rota.wait_s(now_s, 10 * now_s) == pytest.approx(0.05)


def test_who_wakes_it_cuts_the_rest_short() -> None:
    """Everybody has a turn, and the rest begins anew."""
    first, second = Counting(), Counting()
    rota = _begun(first, second)
    rota.turn(0.001, is_woken=True)
    assert (first.count, second.count) == (2, 2)
    assert rota.wait_s(0.001, 1.001) == pytest.approx(0.064)


def test_nobody_has_a_turn_before_it_is_due() -> None:
    """A look at the clock too early waits for what is left."""
    member = Counting()
    rota = _begun(member)
    rota.turn(0.015, is_woken=False)
    assert member.count == 1
    assert rota.wait_s(0.015, 1.0) == pytest.approx(0.005)


def test_who_has_more_to_do_is_not_made_to_rest() -> None:
    """What did not go into one turn goes into the next one, after the interval."""
    member = Counting()
    rota = _begun(member)
    member.has_more = True
    rota.turn(0.02, is_woken=False)
    assert rota.wait_s(0.02, 1.1) == pytest.approx(0.02)
    member.has_more = False
    rota.turn(0.04, is_woken=False)
    assert rota.wait_s(0.04, 1.101) == pytest.approx(0.064)


# ---- ends ------------------------------------------------------------------------------------------------


def test_who_is_closing_comes_first() -> None:
    """A session waits for it; the others' turns may be long."""
    order: list[str] = []

    class Told(Counting):
        def turns(self) -> Iterator[bool]:
            while True:
                order.append("closing" if self.is_closing else "other")
                yield False

    other, closing = Told(), Told()
    rota = _begun(other, closing)
    order.clear()
    closing.is_closing = True
    rota.turn(0.02, is_woken=False)
    assert order == ["closing", "other"]


def test_who_is_closing_has_turns_in_quick_succession_and_alone() -> None:
    """The others keep their pace."""
    closing, other = Counting(looks=2), Counting()
    rota = _begun(closing, other)
    closing.is_closing = True
    for now_s in (0.001, 0.003):
        rota.turn(now_s, is_woken=False)
        assert rota.wait_s(now_s, 1.0) == CLOSING_S
    assert not closing.has_ended
    rota.turn(0.005, is_woken=False)
    assert rota.wait_s(0.005, 1.0) == pytest.approx(0.015)
    assert (closing.count, closing.has_ended) == (4, True)
    assert (other.count, other.has_ended) == (1, False)
    rota.turn(0.02, is_woken=False)
    assert (closing.count, other.count) == (4, 2)


def test_the_last_one_leaves_nobody() -> None:
    """Then the thread may end."""
    member = Counting()
    rota = _begun(member)
    member.is_closing = True
    assert not rota.is_empty
    rota.turn(0.0, is_woken=False)
    assert rota.is_empty
    assert rota.wait_s(0.0, 1.0) >= 0.0


def test_one_that_fails_leaves_the_others_going(caplog: pytest.LogCaptureFixture) -> None:
    """It is told, has ended, and has no turn again."""
    failing, other = Failing(), Counting()
    rota = _begun(failing, other)
    for now_s in (1.0, 2.0, 3.0):
        rota.turn(now_s, is_woken=False)
        rota.wait_s(now_s, 1.0)
    assert (failing.has_ended, other.has_ended, other.count) == (True, False, 4)
    assert caplog.text.count("WORKER_FAULT where=test error='OSError: no such thing'") == 1


def test_nobody_is_left_waiting_by_a_thread_that_gives_up() -> None:
    """All that are left have ended."""
    members = [Counting(), Counting()]
    rota = _begun(*members)
    rota.close()
    assert rota.is_empty
    assert all(member.has_ended for member in members)
