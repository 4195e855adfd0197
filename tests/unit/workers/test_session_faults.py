"""Telemetry never reaches into training: what cannot be recorded is counted, what does not fit waits or is counted."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from unit.workers.session_rig import SMALL, SessionRig

from runlane.config.settings import JournalSettings, Settings
from runlane.transport.journal_head import JournalHead
from runlane.transport.messages import StreamAck
from runlane.transport.records import DropRecord, EpisodeRecord, LogRecord, MetricRecord, RunRecord
from runlane.transport.testing import make_info
from runlane.transport.wire import encode_control
from runlane.workers.session import WorkerSession


class Hostile:
    """Raises wherever it is touched."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


calls: list[tuple[str, Callable[[WorkerSession], object]]] = [
    ("action text", lambda session: session.step("left", 1.0)),
    ("action dict", lambda session: session.step({"move": 1}, 1.0)),
    ("action object", lambda session: session.step(Hostile(), 1.0)),
    ("action huge", lambda session: session.step(1 << 64, 1.0)),
    ("action complex", lambda session: session.step(1j, 1.0)),
    ("action ragged", lambda session: session.step([[1], [1, 2]], 1.0)),
    ("action empty", lambda session: session.step([], 1.0)),
    ("action long double", lambda session: session.step(np.zeros(2, np.longdouble), 1.0)),
    ("reward none", lambda session: session.step(0, None)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("reward text", lambda session: session.step(0, "good")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("reward array", lambda session: session.step(0, np.ones(2))),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("reward hostile", lambda session: session.step(0, Hostile())),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("terminated hostile", lambda session: session.step(0, 1.0, Hostile())),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("terminated array", lambda session: session.step(0, 1.0, np.zeros(2))),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("env_index negative", lambda session: session.step(0, 1.0, env_index=-1)),
    ("env_index list", lambda session: session.step(0, 1.0, env_index=[0])),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("observation text", lambda session: session.step(0, 1.0, observation="wall ahead")),
    ("observation too large", lambda session: session.step(0, 1.0, observation=np.zeros(17 << 20, np.uint8))),
    ("vector lengths", lambda session: session.step_vector([0, 0], [1.0, 1.0], [False] * 3, [False] * 3)),
    ("vector flags short", lambda session: session.step_vector([0] * 3, [1.0] * 3, [True, True], [False, False])),
    ("vector actions", lambda session: session.step_vector([0], [1.0, 1.0], [False] * 2, [False] * 2)),
    ("vector none", lambda session: session.step_vector(None, [1.0, 1.0], object(), [False] * 3)),
    ("vector text", lambda session: session.step_vector(["a", "b"], ["c", "d"], [False] * 2, [False] * 2)),
    ("episode return", lambda session: session.episode("high")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("metric text", lambda session: session.metric("loss", "high")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("metric hostile", lambda session: session.metric("loss", Hostile())),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("metric step", lambda session: session.metric("loss", 1.0, "later")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("metrics none", lambda session: session.metrics(None)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("log hostile", lambda session: session.log(Hostile())),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("info hostile", lambda session: session.step(0, 1.0, info={"a": Hostile()})),
    ("info text", lambda session: session.step(0, 1.0, info="text")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("mask", lambda session: session.abandon_vector_episodes([True, False, True])),
]


@pytest.mark.parametrize(("name", "call"), calls, ids=[name for name, _ in calls])
def test_no_argument_raises_into_training(
    rig: SessionRig, name: str, call: Callable[[WorkerSession], object], caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted as a fault, warned of once, and what comes after is recorded."""
    session = rig.session()
    session.step_vector([0, 0], [1.0, 1.0], [False, False], [False, False])
    with caplog.at_level(logging.WARNING, "runlane"):
        call(session)
        call(session)
    assert session.faults == 2, name
    assert [record.getMessage().split()[0] for record in caplog.records] == ["WORKER_FAULT"]
    session.step(5, 1.0)
    assert session.close() is True
    assert rig.steps()[-1]["action"] == 5
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))
    assert rig.records(RunRecord)[-1].facts["faults"] == 2


def test_what_cannot_be_packed_opens_no_schema(rig: SessionRig) -> None:
    """A loop that logs a bad reward for hours must not grow the stream's announcement."""
    session = rig.session()
    for _ in range(50):
        session.step(0, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session.step_vector([0, 1], ["a", "b"], [False] * 2, [False] * 2)
    session.step(0, 1.0)
    session.close()
    assert len(rig.info().schemas) == 1


def test_rows_of_ever_new_shapes_end_somewhere(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond MAX_SCHEMAS they are faults: an announcement too large to be taken would stop the whole stream."""
    monkeypatch.setattr("runlane.workers.journal_writer.MAX_SCHEMAS", 5)
    session = rig.session()
    for size in range(1, 11):
        session.step(np.zeros(size, np.uint8), 1.0)
    session.step(np.zeros(2, np.uint8), 1.0)
    assert session.close() is True
    assert session.faults == 5
    assert [len(row["action"]) for row in rig.steps()] == [1, 2, 3, 4, 5, 2]


def test_a_step_outlives_its_action(rig: SessionRig) -> None:
    """An environment with text actions still has rewards and episodes to record."""
    session = rig.session()
    for number in range(3):
        session.step("left", 1.0, number == 2)
    session.close()
    assert [(record.length, record.episode_return) for record in rig.records(EpisodeRecord)] == [(3, 3.0)]


def test_no_record_makes_a_body_that_a_receiver_refuses(rig: SessionRig) -> None:
    """A log of 17 MiB must not stop every record behind it."""
    session = rig.session()
    session.log("x" * (17 << 20))
    session.close()
    assert max(len(body) for _, bodies in rig.batches() for body in bodies) <= 16 << 20


# ---- closed ----------------------------------------------------------------------------------------------


def test_a_call_after_close_is_a_fault(rig: SessionRig) -> None:
    """It cannot be recorded any more, so it is not taken as if it were."""
    session = rig.session()
    session.close()
    session.step(0, 1.0)
    session.step_vector([0], [1.0], [False], [False])
    session.metric("a", 1.0)
    session.log("late")
    assert session.faults == 4
    assert session.statistics()["records"] == len(rig.seqs()) == 2


def test_closing_twice_is_harmless(rig: SessionRig) -> None:
    """The second time has nothing to do."""
    session = rig.session()
    assert session.close("failed") is True
    assert session.close() is True
    assert [record.state for record in rig.records(RunRecord)] == ["running", "failed"]


def _session(
    settings: Settings, endpoint: str, journal: JournalSettings | None = None, **changes: Any
) -> WorkerSession:
    chosen = msgspec.structs.replace(
        settings,
        session=msgspec.structs.replace(settings.session, **changes),
        journal=journal or settings.journal,
    )
    return WorkerSession(make_info("w", schemas=[]), endpoint, chosen, {})


def test_close_without_a_proxy_ends_at_its_deadline(
    settings: Settings, short_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """False, and how many records are left is said, and where they are kept."""
    session = _session(settings, f"ipc://{short_dir}/nobody.ipc", close_s=0.05)
    session.step(0, 1.0)
    assert session.close() is False
    assert f"WORKER_UNDRAINED worker=w records=4 journal={short_dir}" in caplog.text


@pytest.mark.parametrize("endpoint", ["nonsense", "", "tcp://nowhere"])
def test_an_endpoint_that_cannot_be_stops_nobody(
    settings: Settings, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the rule is to wait for room, nobody waits for a sender that is gone: records are dropped, counted."""
    session = _session(settings, endpoint, SMALL, close_s=0.05)
    _fill(session)
    assert session.dropped["step"] > 0
    assert session.close() is False
    assert "WORKER_FAULT where=flusher" in caplog.text


def test_a_session_survives_garbage_from_its_proxy(rig: SessionRig) -> None:
    """Counted by nobody's loss: what is recorded next arrives."""
    session = rig.connected()
    for frame in (b"garbage", b"RL\x02C\x80", b"RL\x01C\xc1"):
        rig.proxy.send_to_all(frame)
    session.step(0, 1.0)
    rig.wait(lambda: rig.received() > 0 and rig.sent()[-1][0].last_seq == 2)
    assert session.close() is True
    assert len(rig.steps()) == 1


def test_only_the_journals_head_acks(rig: SessionRig) -> None:
    """A word over the socket frees nothing, whichever stream it names: who drains the journal writes into it."""
    rig.proxy.is_acking = False
    session = rig.connected()
    session.step(0, 1.0)
    for stream in (make_info().stream, session.info.stream):
        rig.proxy.send_to_all(encode_control(StreamAck(stream=stream, seq=1_000)))
    rig.proxy.ack(session.info.stream, 1)
    rig.wait(lambda: session.statistics()["acked"] > 0)
    assert session.statistics()["acked"] == 1


# ---- full ------------------------------------------------------------------------------------------------


def _fill(session: WorkerSession, steps: int = 20_000) -> None:
    for number in range(steps):
        session.step(number, 1.0)


def test_drop_newest_counts_exactly_what_it_drops(rig: SessionRig) -> None:
    """Given = recorded + dropped, by kind; what was dropped has no seq, and a `drop` record says how much."""
    rig.proxy.is_acking = False
    session = rig.connected(journal=SMALL, overflow="drop_newest")
    _fill(session)
    session.metric("lost", 1.0)
    assert session.dropped["step"] > 0
    dropped = dict(session.dropped)
    rig.proxy.is_acking = True
    rig.wait(lambda: session.statistics()["acked"] == session.statistics()["records"])
    session.metric("kept", 1.0)
    assert session.close() is True
    assert session.dropped == dropped
    told: dict[str, int] = {}
    for record in rig.records(DropRecord):
        assert record.reason == "journal_full"
        told[record.kind] = told.get(record.kind, 0) + record.records
    assert told == dropped
    assert len(rig.steps()) + dropped["step"] == 20_000
    assert [record.name for record in rig.records(MetricRecord)] == ["kept"]
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))


def test_drops_are_told_even_when_the_session_ends_full(rig: SessionRig) -> None:
    """close() writes the last `drop` records though there was no room for others; the rest stands in the head."""
    rig.proxy.is_acking = False
    session = rig.connected(journal=SMALL, overflow="drop_newest", close_s=0.05)
    _fill(session)
    dropped = session.dropped["step"]
    session.close()
    told = sum(record.records for record in rig.records(DropRecord) if record.kind == "step")
    head = JournalHead.open(rig.journal())
    untold = head.untold(rig.seqs()[-1])
    head.close()
    assert told + untold.get("step", 0) == dropped
    assert untold.get("run", 0) + len(rig.records(RunRecord)) == 2


def test_block_waits_for_room_and_loses_nothing(rig: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    """The training thread stands still while the journal is full, and goes on with the acks."""
    rig.proxy.is_acking = False
    session = rig.connected(journal=SMALL, overflow="block")
    thread = threading.Thread(target=_fill, args=(session,))
    thread.start()
    rig.wait(lambda: "WORKER_BLOCKED" in caplog.text)
    stuck = session.statistics()["records"]
    assert thread.is_alive()
    assert session.statistics()["records"] == stuck < 20_000
    rig.proxy.is_acking = True
    thread.join()
    assert session.close() is True
    assert [row["action"] for row in rig.steps()] == list(range(20_000))
    assert session.dropped == {}


def test_a_blocked_training_thread_is_freed_by_close(rig: SessionRig) -> None:
    """A session that ends without acks lets go of every thread at its deadline."""
    rig.proxy.is_acking = False
    session = rig.connected(journal=SMALL, overflow="block", close_s=0.1)
    thread = threading.Thread(target=_fill, args=(session,))
    thread.start()
    rig.wait(lambda: session.statistics()["records"] > 2_000)
    assert session.close() is False
    thread.join()


class Env:
    """Steps of one environment, or of three that end together, into a session that drops what finds no room."""

    def __init__(self, rig: SessionRig, *, is_vector: bool) -> None:
        self.is_vector = is_vector
        self.session = rig.connected(journal=SMALL, overflow="drop_newest")

    def step(self, *, is_last: bool) -> None:
        """One step of every environment."""
        if self.is_vector:
            self.session.step_vector([0, 0, 0], [1.0] * 3, [is_last] * 3, [False] * 3)
        else:
            self.session.step(0, 1.0, is_last)

    def fill(self, rig: SessionRig) -> int:
        """Steps until the first is dropped, with nothing acked; returns how many there were."""
        rig.proxy.is_acking = False
        steps = 0
        while not self.session.dropped:
            self.step(is_last=False)
            steps += 1
        return steps

    def make_room(self, rig: SessionRig) -> None:
        """Acks come again."""
        rig.proxy.is_acking = True
        rig.wait(lambda: self.session.statistics()["acked"] == self.session.statistics()["records"])


@pytest.mark.parametrize("is_vector", [False, True])
def test_an_episode_is_right_though_some_of_its_steps_were_dropped(rig: SessionRig, is_vector: bool) -> None:
    """Its return and length are what happened, whatever of it found room."""
    env = Env(rig, is_vector=is_vector)
    steps = env.fill(rig)
    env.make_room(rig)
    env.step(is_last=True)
    assert env.session.close() is True
    ended = [(record.length, record.episode_return) for record in rig.records(EpisodeRecord)]
    assert ended == [(steps + 1, steps + 1.0)] * (3 if is_vector else 1)


def test_a_dropped_step_of_a_new_shape_counts_in_its_episode(rig: SessionRig) -> None:
    """A row whose announcement finds no room is lost like any other: counted, and the episode is right."""
    env = Env(rig, is_vector=False)
    steps = env.fill(rig)
    dropped = env.session.dropped["step"]
    for size in range(1, 4):
        env.session.step([0.5] * size * 3_000, 1.0)
    assert env.session.dropped["step"] == dropped + 3
    env.make_room(rig)
    env.step(is_last=True)
    assert env.session.close() is True
    ended = [(record.length, record.episode_return) for record in rig.records(EpisodeRecord)]
    assert ended == [(steps + 4, steps + 4.0)]


@pytest.mark.parametrize("is_vector", [False, True])
def test_an_episode_whose_end_was_dropped_is_over(rig: SessionRig, is_vector: bool) -> None:
    """The next one is not added to it, in any environment; the lost record is counted."""
    env = Env(rig, is_vector=is_vector)
    env.fill(rig)
    env.step(is_last=True)
    env.make_room(rig)
    for number in range(4):
        env.step(is_last=number == 3)
    assert env.session.close() is True
    environments = 3 if is_vector else 1
    ended = [(record.episode, record.length, record.episode_return) for record in rig.records(EpisodeRecord)]
    assert ended == [(2, 4, 4.0)] * environments
    assert env.session.dropped["episode"] == environments


def test_records_of_all_kinds_share_one_order(rig: SessionRig) -> None:
    """Within a batch they lie by kind; their seqs say how they came."""
    session = rig.session()
    session.log("a")
    session.metric("b", 1.0)
    session.log("c")
    session.close()
    assert [record.seq for record in rig.records(LogRecord)] == [2, 4]
