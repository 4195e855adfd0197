"""One call at a time, without a lock: threads wait for each other, a call inside a call is refused, nothing is torn."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

import pytest
from unit.workers.session_rig import SMALL, SessionRig

from runlane.config.settings import JournalSettings
from runlane.transport.records import DropRecord, EpisodeRecord, LogRecord, MetricRecord
from runlane.workers import stream_writer
from runlane.workers.flusher import Flusher
from runlane.workers.session import WorkerSession


@pytest.fixture
def _hasty() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Threads that are switched at almost every instruction where it is allowed."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _together(*targets: Callable[[], None]) -> None:
    start = threading.Barrier(len(targets))

    def run(target: Callable[[], None]) -> None:
        start.wait()
        target()

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---- threads ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_hasty")
def test_every_call_of_every_thread_is_recorded_once(rig: SessionRig) -> None:  # noqa: C901  six small threads
    """Steps, vector steps, metrics, logs, hand-made episodes from six threads: none refused, none twice, no gap."""
    session = rig.session()
    count = 400

    def steps(env_index: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(count):
                session.step(number, 1.0, number % 50 == 49, env_index=env_index)

        return run

    def vectors() -> None:
        for _ in range(count):
            session.step_vector([1, 2], [1.0, 2.0], [False, False], [False, False])

    def metrics() -> None:
        for number in range(count):
            session.metrics({"a": number, "b": number})

    def logs() -> None:
        for number in range(count):
            session.log(str(number))

    def episodes() -> None:
        for number in range(count):
            session.episode(float(number), 1, env_index=99)

    _together(steps(0), steps(1), vectors, metrics, logs, episodes)
    assert session.close() is True
    assert (session.faults, session.dropped) == (0, {})
    rows = [row for row in rig.steps() if not isinstance(row.get("env_index", []), list)]
    for env_index in (0, 1):
        assert [row["action"] for row in rows if row["env_index"] == env_index] == list(range(count))
    assert len(rig.steps()) == 3 * count
    for name in ("a", "b"):
        assert [r.value for r in rig.records(MetricRecord) if r.name == name] == list(range(count))
    assert [record.text for record in rig.records(LogRecord)] == [str(number) for number in range(count)]
    by_hand = [record.episode_return for record in rig.records(EpisodeRecord) if record.env_index == 99]
    assert by_hand == list(range(count))
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))
    assert session.env_steps == 4 * count


@pytest.mark.usefixtures("_hasty")
def test_a_session_may_be_closed_while_others_record(rig: SessionRig) -> None:
    """What was recorded is a prefix without a gap that ends with the run; what comes later is a fault."""
    session = rig.session()
    recorded = threading.Event()

    def train() -> None:
        for number in range(3_000):
            session.step(number, 1.0)
            if number == 500:
                recorded.set()

    def close() -> None:
        recorded.wait()
        assert session.close("stopped") is True

    _together(train, close)
    actions = [row["action"] for row in rig.steps()]
    assert actions == list(range(len(actions)))
    assert len(actions) > 500
    assert session.faults == 3_000 - len(actions)
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.usefixtures("_hasty")
def test_threads_at_the_quota_wait_for_each_other_and_for_room(rig: SessionRig) -> None:
    """One waits for an ack inside its turn, the others for that turn; nothing is lost and none is refused."""
    session = rig.connected(journal=SMALL, overflow="block")

    def steps(env_index: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(4_000):
                session.step(number, 1.0, env_index=env_index)

        return run

    def logs() -> None:
        for _ in range(1_000):
            session.log("x" * 100)

    _together(steps(0), steps(1), logs)
    assert session.close() is True
    assert (session.faults, session.dropped) == (0, {})
    assert (len(rig.steps()), len(rig.records(LogRecord))) == (8_000, 1_000)


# ---- signal handlers -------------------------------------------------------------------------------------


class Storm:
    """One signal after another, as long as the `with` lasts, at wherever the main thread is; never one in another."""

    def __init__(self, handler: Callable[[], None], interval_s: float = 0.0003) -> None:
        self._handler = handler
        self._interval_s = interval_s
        self._is_over = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGALRM, self._on_signal)
        self._arm()
        return self

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._interval_s)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        try:
            self._handler()
        finally:
            if not self._is_over:
                self._arm()

    def __exit__(self, *_: object) -> None:
        self._is_over = True  # a signal that comes from here on arms nothing: the next one would end the process
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def test_a_call_inside_a_call_is_refused_and_counted(rig: SessionRig) -> None:
    """A signal handler that records while the session is recording: no deadlock, no torn row, an exact drop record."""
    session = rig.session()
    given = {"step": 0, "log": 0}
    end_s = time.monotonic() + 0.4

    def record() -> None:
        given["log"] += 1
        session.log("from the handler")

    with Storm(record):
        while time.monotonic() < end_s or given["log"] < 200:
            session.step(given["step"], 1.0, given["step"] % 7 == 6)
            given["step"] += 1
    assert session.close() is True
    logs = len(rig.records(LogRecord))
    assert logs > 0
    assert 0 < session.faults == session.dropped["log"] == given["log"] - logs
    assert _told(rig) == {("log", "reentrant"): session.dropped["log"]}
    assert [row["action"] for row in rig.steps()] == list(range(given["step"]))
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))


def _told(rig: SessionRig) -> dict[tuple[str, str], int]:
    told: dict[tuple[str, str], int] = {}
    for record in rig.records(DropRecord):
        told[record.kind, record.reason] = told.get((record.kind, record.reason), 0) + record.records
    return told


def test_a_handler_waits_for_another_threads_turn(rig: SessionRig) -> None:
    """That one goes on while the handler waits, so nothing is refused that another thread is in the way of.

    Nor does the handler wait for long, though the other thread does nothing but record: it lets no thread run in its
    turn, where all they could do is wait.
    """
    session = rig.session(journal=JournalSettings())
    given = {"log": 0}
    is_over = threading.Event()

    def train() -> None:
        number = 0
        while not is_over.is_set():
            session.step(number, 1.0)
            number += 1

    def record() -> None:
        given["log"] += 1
        session.log("from the handler")

    thread = threading.Thread(target=train)
    thread.start()
    pause = threading.Event()
    with Storm(record, 0.001):
        while given["log"] < 100:
            pause.wait(0.01)
    is_over.set()
    thread.join()
    assert session.close() is True
    assert (session.faults, session.dropped) == (0, {})
    assert len(rig.records(LogRecord)) == given["log"]


class Interrupted(KeyboardInterrupt):
    """What Ctrl-C raises, told apart from a person's."""


class Interrupter:
    """Raises at most once each time it is armed, so that only the call under test is interrupted."""

    def __init__(self) -> None:
        self.is_armed = False
        self.count = 0

    def __call__(self) -> None:
        if self.is_armed:
            self.is_armed = False
            self.count += 1
            raise Interrupted


def _interrupted(session: WorkerSession, kind: str, seconds: float) -> tuple[list[int], int]:
    """Record under interrupts; returns the numbers whose call returned, and the last number that was tried."""
    returned: list[int] = []
    number = 0
    interrupter = Interrupter()
    end_s = time.monotonic() + seconds
    with Storm(interrupter, 0.0003):
        while time.monotonic() < end_s or interrupter.count < 100:
            number += 1
            try:
                interrupter.is_armed = True
                _record(session, kind, number)
                interrupter.is_armed = False
                returned.append(number)
            except Interrupted:
                pass
    return returned, number


# A signal that comes inside a garbage collector's callback (hypothesis has one) is told as unraisable, and harmless.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["step", "vector", "metric", "mixed"])
def test_an_interrupt_at_any_point_loses_no_returned_record(rig: SessionRig, kind: str) -> None:
    """Every call that returned is in the journal once; the one that was cut short is in it once or not at all."""
    session = rig.session(journal=SMALL)
    returned, last = _interrupted(session, kind, 0.6)
    assert session.close() is True
    recorded = _numbers(rig, kind)
    assert recorded == sorted(set(recorded))
    assert set(returned) <= set(recorded) <= set(range(1, last + 1))
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))
    assert (session.faults, session.dropped) == (0, {})


def _record(session: WorkerSession, kind: str, number: int) -> None:
    if kind == "vector":
        session.step_vector([number], [1.0], [number % 9 == 0], [False])
    elif kind == "metric":
        session.metric("m", number)
    elif kind == "step":
        session.step(number, 1.0, number % 9 == 0)
    else:
        session.step([float(number)] * (1 + number % 3), 1.0, observation=[0] * (100 * (number % 5)) or None)


def _numbers(rig: SessionRig, kind: str) -> list[int]:
    if kind == "metric":
        return [int(record.value) for record in rig.records(MetricRecord)]
    return [int(row["action"] if kind == "step" else row["action"][0]) for row in rig.steps()]


assert SMALL.segment_bytes == 1 << 16  # so small that rotations are met by interrupts, too


def test_a_storm_of_batches_wakes_the_sender_once_in_a_while(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies there goes out in one frame at the next wake."""
    wakes: list[Flusher] = []

    def wake(flusher: Flusher) -> None:
        wakes.append(flusher)

    monkeypatch.setattr(Flusher, "wake", wake)
    monkeypatch.setattr(stream_writer, "WAKE_S", 3_600.0)
    session = rig.session(batch_records=10)
    for number in range(100):
        session.step(number)
    assert len(wakes) == 1
