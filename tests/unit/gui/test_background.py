"""Background: slow questions leave the window's thread, and their answers come back on its tick."""

import threading
from collections.abc import Iterator

import pytest

from runlane.config.errors import StoreError
from runlane.gui.background import MAX_WAITING, Background

DEADLINE_S = 10.0


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background("background-under-test")
    yield made
    assert made.close(DEADLINE_S)


class Gate:
    """A question that is answered when the test says so."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.opened.wait(DEADLINE_S)
        return threading.current_thread().name


def _drain_until(background: Background, found: list[object], count: int) -> None:
    """Drain as the tick does, until so many answers came."""
    done = threading.Event()
    background.ask("last", lambda: None, lambda _: done.set())
    for _ in range(1000):
        background.drain()
        if len(found) >= count:
            return
        done.wait(0.01)
    raise AssertionError(f"{len(found)} of {count} answers came")


def test_an_answer_is_made_in_the_thread_and_handed_out_by_drain(background: Background) -> None:
    """Nothing is called back from the thread itself."""
    gate, found = Gate(), list[object]()
    assert background.ask("who", gate, lambda name: found.extend([name, threading.current_thread().name]))
    assert gate.begun.wait(DEADLINE_S)
    assert background.is_pending("who")
    gate.opened.set()
    _drain_until(background, found, 2)
    assert found == ["background-under-test", threading.current_thread().name]


def test_of_questions_with_one_key_only_the_newest_waits(background: Background) -> None:
    """A page that asks twice a second does not pile up questions behind a slow disk."""
    gate, found = Gate(), list[object]()
    background.ask("first", gate, found.append)
    assert gate.begun.wait(DEADLINE_S)
    for number in range(10):
        background.ask("rows", lambda number=number: number, found.append)
    gate.opened.set()
    _drain_until(background, found, 2)
    assert found == ["background-under-test", 9]


def test_an_error_is_one_line_for_whoever_asked(background: Background) -> None:
    """Ours as it reads, a stranger's with its type; the thread goes on."""
    found = list[object]()

    def fail(error: Exception) -> None:
        raise error

    background.ask("ours", lambda: fail(StoreError("no database; run `runlane demo`")), found.append, found.append)
    background.ask("foreign", lambda: fail(KeyError("x")), found.append, found.append)
    background.ask("untold", lambda: fail(KeyError("y")), found.append)
    background.ask("well", lambda: 1, found.append)
    _drain_until(background, found, 3)
    assert found == ["no database; run `runlane demo`", "KeyError: 'x'", 1]


def test_what_finds_no_room_is_refused_and_counted(background: Background) -> None:
    """Bounded, as every queue here."""
    gate = Gate()
    background.ask("first", gate, lambda _: None)
    assert gate.begun.wait(DEADLINE_S)
    assert all(background.ask(f"{number}", lambda: None, lambda _: None) for number in range(MAX_WAITING))
    assert not background.ask("one too many", lambda: None, lambda _: None)
    assert background.ask("0", lambda: None, lambda _: None)  # takes the place of its like
    assert background.refused == 1
    gate.opened.set()


def test_close_ends_after_the_question_in_hand_and_asks_no_other() -> None:
    """A window that closes waits for one question at most."""
    background, gate, asked = Background("closing"), Gate(), list[int]()
    background.ask("first", gate, lambda _: None)
    assert gate.begun.wait(DEADLINE_S)
    background.ask("second", lambda: asked.append(1), lambda _: None)
    assert not background.close(0.0)
    gate.opened.set()
    assert background.close(DEADLINE_S)
    assert asked == []
    assert not background.ask("third", lambda: asked.append(1), lambda _: None)
