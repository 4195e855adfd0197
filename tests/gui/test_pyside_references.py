"""PySide6 6.12.0 drops a reference to None on every void call on Python 3.11, and aborts after some 5,000."""

import sys

import pytest
from PySide6.QtCore import QObject, QPoint, QTimer, Signal
from PySide6.QtWidgets import QWidget

CALLS = 20_000
SLACK = 500


class Teller(QObject):
    """Has a signal."""

    told = Signal(int)


def references() -> tuple[int, int]:
    """Of None and True; immortal ones, from Python 3.12 on, stay as they are."""
    return sys.getrefcount(None), sys.getrefcount(True)


@pytest.mark.usefixtures("qapp")
def test_void_calls_keep_the_references_of_none_and_true() -> None:
    """Setters, slots and signals, many times over."""
    widget, timer, teller = QWidget(), QTimer(), Teller()
    heard: list[int] = []
    teller.told.connect(heard.append)
    before = references()
    for number in range(CALLS):
        widget.setEnabled(True)
        widget.move(QPoint(number % 7, 1))
        widget.update()
        timer.setInterval(number)
        teller.told.emit(number)
        assert widget.isEnabled() is True
    after = references()
    assert len(heard) == CALLS
    assert all(abs(now - then) < SLACK for now, then in zip(after, before, strict=True)), (before, after)
