"""Background: a thread that asks slow things for the window, one at a time; answers are fetched by the window's tick.

SQLite, a supervisor that does not answer, a disk that thinks: none of it may hold the event loop. No Qt.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runlane.config.errors import RunlaneError

MAX_WAITING = 64

Call = Callable[[], Any]
Done = Callable[[Any], object]
Failed = Callable[[str], object]


@dataclass(slots=True)
class _Question:
    """`error` is what went wrong, as one line; empty when `answer` is one."""

    key: str
    call: Call
    done: Done
    failed: Failed | None
    answer: Any = None
    error: str = ""


class Background:
    """One thread, bounded: of questions with one key only the newest waits. Made and drained by one other thread."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self.refused = 0  # questions that found no room
        self._waiting: dict[str, _Question] = {}
        self._answered: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._condition = threading.Condition()
        self._is_closing = False
        self._busy = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, key: str, call: Call, done: Done, failed: Failed | None = None) -> bool:
        """Run `call` in the thread; `drain` then hands its result to `done`, or the text of its error to `failed`.

        A question with the same key that has not begun is replaced. False when there is no room.
        """
        with self._condition:
            if self._is_closing or (len(self._waiting) >= MAX_WAITING and key not in self._waiting):
                self.refused += 1
                return False
            self._waiting.pop(key, None)
            self._waiting[key] = _Question(key, call, done, failed)
            self._condition.notify()
        return True

    def is_pending(self, key: str) -> bool:
        """Whether a question with this key waits or is being answered."""
        with self._condition:
            return key in self._waiting or self._busy == key

    def drain(self) -> int:
        """Hand out the answers that are there; returns their count. In the owner's thread."""
        count = 0
        while not self._answered.empty():
            question = self._answered.get_nowait()
            count += 1
            if not question.error:
                question.done(question.answer)
            elif question.failed is not None:
                question.failed(question.error)
        return count

    def close(self, timeout_s: float = 2.0) -> bool:
        """End after the question in hand; what still waits is not asked. False: that question takes its time."""
        with self._condition:
            self._is_closing = True
            self._waiting.clear()
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = ""
                while not self._waiting and not self._is_closing:
                    self._condition.wait()
                if self._is_closing:
                    return
                key = next(iter(self._waiting))
                question = self._waiting.pop(key)
                self._busy = key
            try:
                question.answer = question.call()
            except RunlaneError as error:
                question.error = str(error) or type(error).__name__
            except Exception as error:  # a window lives on, whatever a question ran into
                question.error = f"{type(error).__name__}: {error}"
            self._answered.put(question)
