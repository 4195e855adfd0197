"""All streams of a process are served by one thread of each kind, which is there as long as it is needed."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from unit.workers.session_rig import SessionRig

from runlane.config.settings import JournalSettings
from runlane.transport.records import LogRecord
from runlane.transport.testing import until
from runlane.workers.session import WorkerSession
from runlane.workers.shared_thread import SharedThread

KINDS = ("runlane-flusher", "runlane-sync")


def _threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def _wait(is_met: Callable[[], bool]) -> None:
    pause = threading.Event()
    until(is_met, lambda: pause.wait(0.002))


# ---- the thread itself -----------------------------------------------------------------------------------


class Stream:
    """A member that knows the thread of each of its turns."""

    def __init__(self, interval_s: float = 0.001) -> None:
        self.interval_s = interval_s
        self.is_closing = False
        self.threads: set[int] = set()
        self.count = 0
        self.ended = threading.Event()

    def turns(self) -> Iterator[bool]:
        while not self.is_closing:
            self.threads.add(threading.get_ident())
            self.count += 1
            yield False

    def end(self) -> None:
        self.ended.set()


def _close(thread: SharedThread, *streams: Stream) -> None:
    for stream in streams:
        stream.is_closing = True
    thread.wake()
    assert all(stream.ended.wait(10) for stream in streams)


def test_a_thread_begins_with_the_first_and_ends_with_the_last() -> None:
    """And so again, with another one."""
    shared = SharedThread("test")
    for _ in range(3):
        streams = [Stream() for _ in range(4)]
        for stream in streams:
            shared.serve(stream)
        _wait(lambda: all(stream.count > 1 for stream in streams))  # noqa: B023  called in this very turn
        assert len({ident for stream in streams for ident in stream.threads}) == 1
        _close(shared, *streams[:3])
        before = streams[3].count
        _wait(lambda: streams[3].count > before)  # noqa: B023
        _close(shared, streams[3])
        _wait(lambda: not _threads("runlane-test"))


def test_no_start_is_lost_however_close_to_an_end() -> None:
    """Many threads begin and close streams; each of them is served, and ends."""
    shared = SharedThread("test")

    def work() -> None:
        for _ in range(100):
            stream = Stream()
            shared.serve(stream)
            _close(shared, stream)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    _wait(lambda: not _threads("runlane-test"))


def test_who_joins_a_thread_that_sleeps_wakes_it() -> None:
    """Its first turn does not wait for the others' interval, nor does its end."""
    shared = SharedThread("test")
    sleeper, other = Stream(interval_s=3_600.0), Stream(interval_s=3_600.0)
    shared.serve(sleeper)
    _wait(lambda: sleeper.count == 1)
    shared.serve(other)
    _wait(lambda: other.count == 1)
    _close(shared, other)
    _close(shared, sleeper)


def test_a_wake_without_a_thread_does_nothing() -> None:
    """Nobody is there, or not any more."""
    shared = SharedThread("test")
    shared.wake()
    shared.wake()
    assert not _threads("runlane-test")


def test_a_thread_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked for it is told; the next one does not serve what was refused."""
    shared = SharedThread("test")
    refused, served = Stream(), Stream()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            shared.serve(refused)
    shared.serve(served)
    _wait(lambda: served.count > 0)
    _close(shared, served)
    assert refused.count == 0


# ---- sessions --------------------------------------------------------------------------------------------


def _steps(session: WorkerSession, count: int) -> None:
    for number in range(count):
        session.step(number, 1.0)


def _is_acked(session: WorkerSession) -> bool:
    figures = session.statistics()
    return bool(figures["acked"] == figures["records"])


def test_four_sessions_share_their_threads(rig: SessionRig) -> None:
    """One sends and one forces to disk, for all of them; each stream arrives whole, and the threads end with them."""
    sessions = [rig.connected() for _ in range(4)]
    _wait(lambda: [len(_threads(kind)) for kind in KINDS] == [1, 1])
    for session in sessions:
        _steps(session, 500)
    rig.wait(lambda: all(_is_acked(session) for session in sessions))
    assert [len(_threads(kind)) for kind in KINDS] == [1, 1]
    assert all(session.close() for session in sessions)
    rig.wait(lambda: not any(_threads(kind) for kind in KINDS))
    assert [len(rig.steps(session.info.stream)) for session in sessions] == [500] * 4


def test_one_stream_that_fails_stops_no_other(rig: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    """One has an endpoint that cannot be; those before and after it go on, in the same thread."""
    before = rig.connected()
    failed = rig.session(endpoint="nonsense", close_s=0.05)
    after = rig.connected()
    rig.wait(lambda: "WORKER_FAULT where=flusher" in caplog.text)
    for session in (before, failed, after):
        _steps(session, 300)
    assert failed.close() is False
    assert [before.close(), after.close()] == [True, True]
    assert [len(rig.steps(session.info.stream)) for session in (before, failed, after)] == [300] * 3


def test_one_is_closed_while_others_record(rig: SessionRig) -> None:
    """Its last ack is waited for; the others' records arrive meanwhile, and those of one that comes later."""
    closing, staying = rig.connected(), rig.connected()
    is_over = threading.Event()

    def train() -> None:
        while not is_over.wait(0.001):  # as quick as training: nobody deletes here what is stored
            _steps(staying, 10)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for session in (closing, *(rig.connected() for _ in range(3))):
            _steps(session, 100)
            assert session.close() is True
            acked = staying.statistics()["acked"]
            rig.wait(lambda: staying.statistics()["acked"] > acked)  # noqa: B023
    finally:
        is_over.set()
        thread.join()
    assert staying.close() is True
    assert (staying.faults, staying.dropped) == (0, {})


def test_one_that_waits_for_its_acks_in_vain_holds_up_no_other(rig: SessionRig) -> None:
    """Nobody is at its endpoint; it gives up at its own deadline, while the others are served as before."""
    alone = rig.session(endpoint=rig.endpoint.replace("proxy", "nobody"), close_s=0.5)
    served = rig.connected()
    thread = threading.Thread(target=alone.close)
    thread.start()
    for number in range(5):
        served.log(str(number))
        rig.wait(lambda: _is_acked(served))
    thread.join()
    assert served.close() is True
    assert len(rig.records(LogRecord, served.info.stream)) == 5


def test_several_are_closed_at_once(rig: SessionRig) -> None:
    """Each by a thread of its own, all to the last ack."""
    sessions = [rig.connected() for _ in range(4)]
    for session in sessions:
        _steps(session, 100)
    results: list[bool] = []

    def close(session: WorkerSession) -> None:
        results.append(session.close())

    threads = [threading.Thread(target=close, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_a_session_after_the_last_one_has_a_thread_again(rig: SessionRig) -> None:
    """However soon it comes: while the thread before it is still ending, or when it is gone."""
    for number in range(10):
        session = rig.connected()
        _steps(session, 10)
        assert session.close() is True
        if number % 2:
            rig.wait(lambda: not any(_threads(kind) for kind in KINDS))


def test_the_end_of_a_journal_is_forced_to_disk_at_once(rig: SessionRig) -> None:
    """Not only when the interval is over, which is a minute here."""
    minute = JournalSettings(sync_ms=60_000.0)
    for session in [rig.connected(journal=minute) for _ in range(2)]:
        sync = session._sync  # pyright: ignore[reportPrivateUsage]
        before = sync.syncs
        _steps(session, 100)
        assert session.close() is True
        assert sync.syncs > before


def test_a_stream_that_is_quicker_than_the_disk_holds_up_no_other(
    rig: SessionRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While each of its segments is forced to disk it fills another one, and the other's close returns all the same."""
    quick, closing = rig.connected(), rig.connected()
    is_over, has_begun = threading.Event(), threading.Event()
    force = os.fdatasync

    def force_slowly(fd: int) -> None:
        if quick._journal.retired:  # pyright: ignore[reportPrivateUsage]
            has_begun.set()
        if not is_over.is_set():
            _steps(quick, 3_000)
        force(fd)

    _steps(closing, 10)
    _wait(lambda: closing._sync.syncs > 0)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(os, "fdatasync", force_slowly)
    _steps(quick, 3_000)
    assert has_begun.wait(10)
    thread = threading.Thread(target=closing.close)
    thread.start()
    thread.join(20)
    held_up = thread.is_alive()
    is_over.set()
    thread.join()
    assert not held_up
