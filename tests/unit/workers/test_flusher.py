"""The flusher sends what the journal holds, and what it sends may be lost: nothing waits for it, nothing misses it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.workers.session_rig import SMALL, SessionRig, seqs_of, steps_of

from runlane.config.names import SUPERVISOR
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock
from runlane.transport.testing import make_info
from runlane.workers.flusher import ABANDONED_S, LOOK_S, MAX_BEHIND_BATCHES, Flusher
from runlane.workers.journal_writer import JournalWriter


def _steps(rig: SessionRig, count: int) -> None:
    for number in range(count):
        rig.sessions[0].step(number, 1.0, number % 100 == 99)


# ---- what is sent ----------------------------------------------------------------------------------------


def test_what_is_sent_is_what_is_recorded(rig: SessionRig) -> None:
    """Byte for byte the same rows and records, in order, in packed frames of one or more batches."""
    session = rig.connected()
    for number in range(40):
        session.step(number, 1.0, number % 10 == 9, info={"n": number})
        session.metric("m", number)
        rig.wait(lambda: rig.received() > 0 and rig.sent()[-1][0].last_seq == session.statistics()["records"])
    assert session.close() is True
    sent, info = rig.sent(), rig.info()
    first_seq = sent[0][0].first_seq
    assert seqs_of(info, sent) == rig.seqs()[first_seq - 1 :]
    assert first_seq <= 2
    assert [row for row in steps_of(info, rig.batches()) if row["seq"] >= first_seq] == steps_of(info, sent)
    assert 0 < rig.proxy.frames <= len(sent)


def test_a_stream_is_announced_with_its_journal(rig: SessionRig) -> None:
    """Where it lies, and every layout before its first row."""
    session = rig.connected()
    session.step(1, 1.0)
    rig.wait(lambda: len(rig.proxy.infos[session.info.stream].schemas) == 1)
    assert rig.proxy.journals[session.info.stream] == rig.journal()


def test_what_was_sent_to_nobody_is_not_missed(rig: SessionRig) -> None:
    """Without a proxy frames are refused by the socket; later ones arrive, and the journal has all."""
    session = rig.connected()
    rig.stop_proxy()
    _steps(rig, 3_000)
    rig.start_proxy()
    rig.wait(lambda: session.info.stream in rig.proxy.infos)
    session.log("after")
    rig.wait(lambda: rig.received() > 0)
    assert session.close() is True
    assert len(rig.steps()) == 3_000
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))
    assert (session.faults, session.dropped) == (0, {})


def test_nothing_waits_for_a_proxy_that_does_not_read(rig: SessionRig) -> None:
    """It is connected, and its buffers are full: training goes on, the journal has all, close() is not late."""
    session = rig.connected(journal=None, close_s=0.2)
    rig.is_reading.clear()
    for number in range(200):
        session.step(number, 1.0, observation=[float(number)] * 5_000)
    assert (session.faults, session.dropped) == (0, {})
    assert session.close() is False
    rig.is_reading.set()
    assert len(rig.steps()) == 200


def test_a_worker_far_ahead_sends_nothing(rig: SessionRig) -> None:
    """The proxy reads the journal then, at no cost to training; once it has caught up batches come live again."""
    rig.proxy.is_acking = False
    session = rig.connected(batch_records=1)
    _steps(rig, MAX_BEHIND_BATCHES + 10)
    rig.wait(lambda: rig.head().published == session.statistics()["records"])
    newest = session.statistics()["records"]  # what was sent of these may still be under way
    _steps(rig, 10)
    rig.wait(lambda: rig.head().published == session.statistics()["records"])
    assert all(header.last_seq <= newest for header, *_ in rig.sent())
    before = rig.received()
    rig.proxy.is_acking = True
    rig.wait(lambda: session.statistics()["acked"] == session.statistics()["records"])
    session.log("caught up")
    rig.wait(lambda: rig.received() > before and rig.sent()[-1][0].last_seq == session.statistics()["records"])


def test_segments_deleted_under_the_flusher_do_not_disturb_it(rig: SessionRig) -> None:
    """A proxy that was quicker has removed what is committed: it goes on with what is new."""
    session = rig.connected()
    for _ in range(6):
        _steps(rig, 1_000)
        rig.wait(lambda: session.statistics()["acked"] == session.statistics()["records"])
        for path in sorted(rig.journal().glob("*.seg"))[:-2]:
            path.unlink()
    session.log("last")
    rig.wait(lambda: rig.received() > 0 and rig.sent()[-1][0].last_seq == session.statistics()["records"])
    assert (session.faults, session.dropped) == (0, {})


def test_a_wake_after_the_end_touches_nothing(rig: SessionRig) -> None:
    """No descriptor is written to, whose number may be a checkpoint's by then."""
    session = rig.session()
    flusher = session._flusher  # pyright: ignore[reportPrivateUsage]
    assert session.close() is True
    assert flusher.has_ended
    flusher.wake()
    flusher.wake()


# ---- whether anybody is there ----------------------------------------------------------------------------


@pytest.fixture
def flusher(settings: Settings, short_dir: Path) -> Iterator[Flusher]:
    """One whose thread is not started: nothing but the question whether somebody could make room."""
    info = make_info("w", schemas=[])
    journal = JournalWriter(short_dir / info.stream, info, SMALL, 256)
    yield Flusher(journal, f"ipc://{short_dir / 'proxy-w.ipc'}", settings)
    journal.close()


def test_a_graph_is_given_up_after_a_while(flusher: Flusher) -> None:
    """Neither proxy nor supervisor for `ABANDONED_S`: a restart takes them away for a moment only."""
    assert not flusher.is_abandoned(100.0)
    assert not flusher.is_abandoned(100.0 + ABANDONED_S)
    assert flusher.is_abandoned(100.01 + ABANDONED_S)


@pytest.mark.parametrize("role", ["proxy-w", SUPERVISOR])
def test_one_of_proxy_and_supervisor_is_enough(flusher: Flusher, short_dir: Path, role: str) -> None:
    """The proxy makes room itself, the supervisor makes the proxy; whoever comes back begins the patience anew."""
    assert not flusher.is_abandoned(100.0)
    with RoleLock(short_dir, role):
        assert not flusher.is_abandoned(200.0)
    assert not flusher.is_abandoned(200.0 + LOOK_S)
    assert not flusher.is_abandoned(200.0 + LOOK_S + ABANDONED_S)
    assert flusher.is_abandoned(200.01 + LOOK_S + ABANDONED_S)


def test_a_session_whose_graph_is_gone_drops_rather_than_waits(
    rig: SessionRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`block` waits for room that somebody could make; with nobody left training goes on, and the drops are counted."""
    monkeypatch.setattr("runlane.workers.flusher.ABANDONED_S", 0.05)
    monkeypatch.setattr("runlane.workers.flusher.LOOK_S", 0.01)
    session = rig.connected(journal=SMALL, overflow="block", close_s=0.05)
    rig.proxy.is_acking = False
    thread = threading.Thread(target=_steps, args=(rig, 10_000))
    thread.start()
    rig.wait(lambda: "WORKER_BLOCKED" in caplog.text)
    assert thread.is_alive()
    rig.stop_proxy()
    thread.join()
    assert session.dropped["step"] > 0
    assert len(rig.steps()) + session.dropped["step"] == 10_000
    rig.start_proxy()
