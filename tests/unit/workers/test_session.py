"""WorkerSession: every record gets the next seq, every episode its own numbers, and nothing ever raises."""

import math
import threading
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from unit.workers.session_rig import SessionRig

from runlane.config.settings import MAX_BATCH_RECORDS, JournalSettings
from runlane.transport.journal_reader import MAX_BATCH_BYTES
from runlane.transport.records import (
    HUMAN,
    IS_RESET,
    TERMINATED,
    TRUNCATED,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    RunRecord,
)
from runlane.workers import stream_writer
from runlane.workers.flusher import Flusher


def _episodes(rig: SessionRig) -> list[tuple[int, int, float, int, str]]:
    """(env_index, episode, return, length, outcome) of every episode."""
    return [
        (record.env_index, record.episode, record.episode_return, record.length, record.outcome)
        for record in rig.records(EpisodeRecord)
    ]


# ---- seqs ------------------------------------------------------------------------------------------------


def test_seqs_rise_from_one_without_a_gap_whatever_is_called(rig: SessionRig) -> None:
    """Steps, vector steps, metrics, logs, infos, layouts that change: one stream, one count."""
    session = rig.session()
    for number in range(700):
        session.step(number, 1.0, number % 50 == 49, info={"n": number} if number % 7 == 0 else None)
        if number % 90 == 0:
            session.metrics({"a": 1.0, "b": 2.0})
            session.log("text")
            session.step(np.zeros(3), 0.5)
            session.step_vector(np.arange(4), np.ones(4), [False, True, False, False], np.zeros(4, bool))
    assert session.close() is True
    assert session.faults == 0
    seqs = rig.seqs()
    assert seqs == list(range(1, len(seqs) + 1))
    assert session.statistics()["records"] == session.statistics()["acked"] == len(seqs)


def test_a_run_begins_and_ends_with_its_state(rig: SessionRig) -> None:
    """The first record says running, with the facts; the last how it ended, with the counts."""
    session = rig.session()
    session.step(1, 1.0)
    session.step(1, 1.0, is_reset=True)
    session.close("stopped")
    first, last = rig.records(RunRecord)
    assert (first.seq, first.state, first.facts) == (
        1,
        "running",
        {"command": "test", "telemetry_mode": "dual_path"},
    )
    assert (last.seq, last.state) == (rig.seqs()[-1], "stopped")
    assert last.facts == {"env_steps": 1, "faults": 0, "error": ""}


def test_a_goodbye_follows_the_last_ack(rig: SessionRig) -> None:
    """After close() the receiver is told that nothing more comes."""
    session = rig.connected()
    session.step(1, 1.0)
    assert session.close() is True
    rig.wait(lambda: rig.proxy.ended == {session.info.stream})
    assert rig.sent()[-1][0].last_seq == rig.seqs()[-1] == 4


def test_a_batch_is_sent_when_it_is_old_though_nothing_is_called(rig: SessionRig) -> None:
    """Nothing waits longer than a tick while training computes."""
    session = rig.connected(batch_age_ms=1.0)
    session.step(1, 1.0)
    rig.wait(lambda: rig.received() > 0 and rig.sent()[-1][0].last_seq == 2)


def test_no_batch_holds_more_than_its_limit(rig: SessionRig) -> None:
    """It counts records of all kinds together, over the socket and for who reads the journal."""
    session = rig.connected()
    for number in range(1_201):
        session.step(number, 1.0, number % 3 == 0)
        session.metric("a", 1.0)
    session.close()
    rig.wait(lambda: rig.sent()[-1][0].last_seq == 2 + 2_402 + 401)
    assert max(header.records for header, _ in rig.sent()) <= MAX_BATCH_RECORDS
    assert max(header.records for header, _ in rig.batches()) == MAX_BATCH_RECORDS
    assert len(rig.seqs()) == 2 + 2_402 + 401


def test_every_so_many_records_the_sender_is_woken(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `batch_records` of any kinds, less those it has taken by itself: long before they would fill a batch."""
    woken_at: list[int] = []

    def wake(_: Flusher) -> None:
        woken_at.append(session.statistics()["records"])

    monkeypatch.setattr(stream_writer, "WAKE_S", 0.0)
    session = rig.session(batch_records=10, batch_age_ms=10_000)
    head = rig.head()
    session._flusher.wake()  # pyright: ignore[reportPrivateUsage]
    rig.wait(lambda: head.published == 1)  # the next turn is ten seconds away
    monkeypatch.setattr(Flusher, "wake", wake)
    for number in range(16):
        session.step(number, 1.0)
        session.metric("a", 1.0)
    assert woken_at == [12, 22, 32]  # ten are full at 11, which a step sees after the record that stood before it
    woken_at.clear()
    head.published = 35
    for number in range(16):
        session.metric("a", number)
    assert woken_at == [45]


def test_several_threads_share_one_stream(rig: SessionRig) -> None:
    """Each env_index from its own thread: every call gets one seq, every episode its own sum."""
    session = rig.session()

    def train(env_index: int) -> None:
        for number in range(500):
            session.step(number, float(env_index), number % 100 == 99, env_index=env_index)

    threads = [threading.Thread(target=train, args=(env_index,)) for env_index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.close() is True
    assert rig.seqs() == list(range(1, 2 + 4 * 500 + 4 * 5 + 1))
    expected = [(env, episode, 100.0 * env, 100, "terminated") for env in range(4) for episode in range(1, 6)]
    assert sorted(_episodes(rig)) == expected


# ---- rows ------------------------------------------------------------------------------------------------


def test_a_row_holds_what_the_step_was(rig: SessionRig) -> None:
    """Episode and step count from 1; flags, reward, action and env_index are those given."""
    session = rig.session()
    session.step(3, 0.5)
    session.step(4, -1.0, truncated=True)
    session.step(5, 2.0, is_human=True)
    session.step(0, 0.0, is_reset=True)
    session.step(1, 1.0, True, True, env_index=7)
    session.close()
    rows = [(r["episode"], r["step"], r["env_index"], r["flags"], r["reward"], r["action"]) for r in rig.steps()]
    assert rows == [
        (1, 1, 0, 0, 0.5, 3),
        (1, 2, 0, TRUNCATED, -1.0, 4),
        (2, 1, 0, HUMAN, 2.0, 5),
        (2, 0, 0, IS_RESET, 0.0, 0),
        (1, 1, 7, TERMINATED | TRUNCATED, 1.0, 1),
    ]
    times = [row["t_ns"] for row in rig.steps()]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (True, 1),
        (7, 7),
        (0.25, 0.25),
        (np.int32(-3), -3),
        (np.uint8(200), 200),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1),
        (np.array(5), 5),
        (np.array([0.1, 0.2], np.float32), [np.float32(0.1), np.float32(0.2)]),
        (np.array([[1, 2], [3, 4]], np.int16), [1, 2, 3, 4]),
        (np.array([True, False]), [1, 0]),
        ([1, 2, 3], [1, 2, 3]),
        ((0.5,), [0.5]),
        (np.arange(6)[::2], [0, 2, 4]),
        (np.array([1, 2], ">i4"), [1, 2]),
    ],
)
def test_an_action_of_any_numeric_kind_survives(rig: SessionRig, action: Any, expected: Any) -> None:
    """Scalars stay scalars, arrays keep every value in C order."""
    session = rig.session()
    session.step(action, 1.0)
    session.step(action, 1.0)
    session.close()
    assert session.faults == 0
    assert [row["action"] for row in rig.steps()] == [expected, expected]


@pytest.mark.parametrize("reward", [1, 1.5, True, np.float32(1.5), np.float64(1.5), np.int64(3), np.array(2.5)])
def test_a_reward_of_any_numeric_kind_survives(rig: SessionRig, reward: Any) -> None:
    """In the row and in the episode."""
    session = rig.session()
    session.step(0, reward, True)
    session.close()
    assert session.faults == 0
    assert rig.steps()[0]["reward"] == float(reward)
    assert _episodes(rig)[0][2] == float(reward)


def test_a_return_is_the_sum_of_the_rewards_that_were_stored(rig: SessionRig) -> None:
    """Also of float32 rewards, whose own sum would drift."""
    session = rig.session()
    reward: Any = np.float32(0.1)
    for number in range(1_000):
        session.step(0, reward, number == 999)
    session.close()
    assert _episodes(rig)[0][2] == math.fsum([float(np.float32(0.1))] * 1_000) == pytest.approx(100.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_no_numbers_survive(rig: SessionRig, value: float) -> None:
    """A diverged reward is news: it is in the row and in the return."""
    session = rig.session()
    session.step(0, value, True)
    session.close()
    np.testing.assert_equal([rig.steps()[0]["reward"], _episodes(rig)[0][2]], [value, value])


def test_observations_are_stored_beside_the_action(rig: SessionRig) -> None:
    """Any shape, as its values in C order and its own dtype."""
    session = rig.session()
    session.step(1, 1.0, observation=np.arange(6, dtype=np.uint8).reshape(2, 3))
    session.step(2, 1.0, observation=np.ones((2, 3), np.uint8))
    session.close()
    assert [row["observation"] for row in rig.steps()] == [[0, 1, 2, 3, 4, 5], [1] * 6]
    (schema,) = rig.info().schemas
    assert [(field.name, field.code, field.count) for field in schema.fields[-2:]] == [
        ("action", "<i8", 0),
        ("observation", "|u1", 6),
    ]


def test_a_row_unlike_the_last_opens_a_new_schema(rig: SessionRig) -> None:
    """A batch holds rows of one layout; the reader is told each before it needs it."""
    session = rig.session()
    session.step(1, 1.0)
    session.step(np.zeros(2), 1.0)
    session.step(None, 1.0)
    session.step(None, 1.0, observation=0.5)
    session.close()
    assert session.faults == 0
    assert [schema.schema_id for schema in rig.info().schemas] == [0, 1, 2, 3]
    assert [set(row) & {"action", "observation"} for row in rig.steps()] == [
        {"action"},
        {"action"},
        set(),
        {"observation"},
    ]


def test_a_layout_that_returns_is_not_a_new_schema(rig: SessionRig) -> None:
    """Two agents that take turns need two schemas, not one per step."""
    session = rig.session()
    for _ in range(20):
        session.step(np.zeros(2), 1.0)
        session.step(np.zeros(3), 1.0)
    session.close()
    assert len(rig.info().schemas) == 2


def test_large_rows_make_smaller_batches(rig: SessionRig) -> None:
    """However many are logged at once, and however large a segment is, no body is larger than a receiver takes."""
    session = rig.session(journal=JournalSettings(segment_bytes=64 << 20, sync_ms=0))
    frame = np.zeros((210, 160, 3), np.uint8)
    for number in range(250):
        session.step(number, 1.0, observation=frame)
    session.close()
    assert session.faults == 0
    assert len(rig.steps()) == 250
    for batches in (rig.batches(), rig.sent()):
        assert max(len(body) for _, bodies in batches for body in bodies) <= MAX_BATCH_BYTES


def test_a_large_observation_can_be_announced(rig: SessionRig) -> None:
    """A step of a few megabytes is slow, and no reason for the receiver to refuse the stream."""
    session = rig.session()
    session.step(1, 1.0, observation=np.zeros(2_000_000, np.uint8))
    assert session.close() is True
    assert len(rig.steps()[0]["observation"]) == 2_000_000


# ---- episodes --------------------------------------------------------------------------------------------


def test_an_episode_is_recorded_where_it_ends(rig: SessionRig) -> None:
    """Return, length and outcome of each; the next one begins at step 1."""
    session = rig.session()
    for episode in (3, 1, 2):
        for number in range(episode):
            session.step(0, 1.0, number == episode - 1 and episode != 2, number == episode - 1 and episode == 2)
    session.step(0, 5.0)
    session.close()
    assert _episodes(rig) == [
        (0, 1, 3.0, 3, "terminated"),
        (0, 2, 1.0, 1, "terminated"),
        (0, 3, 2.0, 2, "truncated"),
        (0, 4, 5.0, 1, "abandoned"),
    ]


def test_terminated_counts_before_truncated(rig: SessionRig) -> None:
    """Both at once: the task ended, whatever the clock says."""
    session = rig.session()
    session.step(0, 1.0, True, True)
    session.close()
    assert _episodes(rig) == [(0, 1, 1.0, 1, "terminated")]


def test_an_episode_can_be_ended_by_hand(rig: SessionRig) -> None:
    """Given up, or logged as a whole without steps; without either there is nothing to record."""
    session = rig.session()
    session.episode()
    session.step(0, 1.0)
    session.episode(outcome="abandoned", info={"why": "bored"})
    session.episode(12.5, 40, env_index=3)
    session.close()
    assert _episodes(rig) == [(0, 1, 1.0, 1, "abandoned"), (3, 1, 12.5, 40, "terminated")]
    assert rig.records(EpisodeRecord)[0].info == {"why": "bored"}


@pytest.mark.parametrize("is_vector", [False, True])
def test_an_episode_lasts_from_its_first_step_to_its_end(
    rig: SessionRig, monkeypatch: pytest.MonkeyPatch, is_vector: bool
) -> None:
    """In seconds of the worker's clock; the next episode begins with its own first step."""
    now_ns = [0]
    for module in ("session", "episode_writer", "row_writer"):
        monkeypatch.setattr(f"runlane.workers.{module}._time_ns", lambda: now_ns[0])
    session = rig.session()
    for second, is_end in ((10, False), (12, False), (15, True), (100, False), (101, True)):
        now_ns[0] = second * 1_000_000_000
        if is_vector:
            session.step_vector([0], [1.0], [is_end], [False])
        else:
            session.step(0, 1.0, is_end)
    session.close()
    assert [record.duration_s for record in rig.records(EpisodeRecord)] == [5.0, 1.0]


def test_a_reset_row_ends_nothing_and_counts_for_nothing(rig: SessionRig) -> None:
    """Some environments repeat the end on the reset step: no second episode comes of it."""
    session = rig.session()
    session.step(0, 1.0, True)
    session.step(0, 9.0, True, is_reset=True)
    session.step(0, 2.0, True)
    session.step_vector([0], [1.0], [True], [False])
    session.step_vector([0], [9.0], [True], [False], is_reset=[True])
    session.step_vector([0], [2.0], [True], [False])
    session.close()
    assert _episodes(rig) == [(0, 1, 1.0, 1, "terminated"), (0, 2, 2.0, 1, "terminated")] * 2
    assert session.env_steps == 4


# ---- vectors ---------------------------------------------------------------------------------------------


def test_a_vector_step_is_one_row(rig: SessionRig) -> None:
    """One seq for n environments; each column holds n values."""
    session = rig.session()
    session.step_vector(
        np.array([[0.1, 0.2], [0.3, 0.4]]), [1.0, 2.0], [False, True], [False, False], observations=np.eye(2)
    )
    session.step_vector(np.zeros((2, 2)), [3.0, 4.0], [False, False], [True, False], observations=np.eye(2))
    session.close()
    first, second = rig.steps()
    assert (first["episode"], first["step"], first["flags"]) == ([1, 1], [1, 1], [0, TERMINATED])
    assert (second["episode"], second["step"], second["flags"]) == ([1, 2], [2, 1], [TRUNCATED, 0])
    assert (first["reward"], first["action"]) == ([1.0, 2.0], [0.1, 0.2, 0.3, 0.4])
    assert rig.info().schemas[0].env_count == 2
    assert _episodes(rig) == [
        (1, 1, 2.0, 1, "terminated"),
        (0, 1, 4.0, 2, "truncated"),
        (1, 2, 4.0, 1, "abandoned"),
    ]
    assert session.env_steps == 4


def test_reset_environments_of_a_vector_step_count_for_nothing(rig: SessionRig) -> None:
    """Their column has step 0, and neither reward nor length is added."""
    session = rig.session()
    session.step_vector([0, 0], [1.0, 1.0], [True, False], [False, False])
    session.step_vector([0, 0], [7.0, 1.0], [False, False], [False, False], is_reset=[True, False])
    session.step_vector([0, 0], [1.0, 1.0], [True, True], [False, False])
    session.close()
    assert [row["step"] for row in rig.steps()] == [[1, 1], [0, 2], [1, 3]]
    assert [row["flags"] for row in rig.steps()][1] == [IS_RESET, 0]
    assert sorted(_episodes(rig)) == [
        (0, 1, 1.0, 1, "terminated"),
        (0, 2, 1.0, 1, "terminated"),
        (1, 1, 3.0, 3, "terminated"),
    ]
    assert session.env_steps == 5


def test_vector_episodes_can_be_abandoned_by_mask(rig: SessionRig) -> None:
    """Those that are running; the others have nothing to give up."""
    session = rig.session()
    session.abandon_vector_episodes()
    session.step_vector([0, 0, 0], [1.0, 2.0, 3.0], [False, True, False], [False] * 3)
    session.abandon_vector_episodes([True, True, False])
    session.close()
    assert [(env, outcome) for env, _, _, _, outcome in _episodes(rig)] == [
        (1, "terminated"),
        (0, "abandoned"),
        (2, "abandoned"),
    ]


# ---- metrics, logs, infos --------------------------------------------------------------------------------


def test_metrics_survive_whatever_they_are(rig: SessionRig) -> None:
    """NaN, infinities and NumPy scalars; the step is the one given, or the env steps so far."""
    session = rig.session()
    session.step(0, 1.0)
    session.step(0, 1.0)
    session.metrics({"nan": math.nan, "inf": math.inf, "low": -math.inf})
    session.metric("numpy", np.float32(0.5), step=np.int64(77))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.close()
    assert session.faults == 0
    found = [(record.name, record.value, record.step) for record in rig.records(MetricRecord)]
    np.testing.assert_equal(
        found, [("nan", math.nan, 2), ("inf", math.inf, 2), ("low", -math.inf, 2), ("numpy", 0.5, 77)]
    )


def test_a_log_line_survives_whatever_it_is(rig: SessionRig) -> None:
    """Odd text is escaped, anything else is its text."""
    session = rig.session()
    session.log("ünï\n\0", level="warning")
    session.log("bad\udcff")
    session.log(ValueError("x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.close()
    assert [(record.level, record.text) for record in rig.records(LogRecord)] == [
        ("warning", "ünï\n\0"),
        ("info", r"bad\udcff"),
        ("info", "x"),
    ]


class Odd:
    """What no format holds."""

    def __str__(self) -> str:
        return "odd"


def test_an_info_map_is_kept_beside_its_step(rig: SessionRig) -> None:
    """Linked by seq; keys become text, values what MessagePack can hold; an empty one is no record."""
    session = rig.session()
    info: dict[Any, Any] = {
        1: np.float32(0.5),
        "array": np.arange(3),
        "nested": {"deep": (1, [np.int64(2), None])},
        "huge": 1 << 70,
        "odd": Odd(),
        "proxy": MappingProxyType({"a": 1}),
        "raw": b"\x00",
        "set": {1},
    }
    session.step(0, 1.0, info=info, env_index=2)
    session.step(0, 1.0, info={})
    session.close()
    (record,) = rig.records(InfoRecord)
    assert (record.step_seq, record.env_index) == (rig.steps()[0]["seq"], 2)
    assert record.info == {
        "1": 0.5,
        "array": [0, 1, 2],
        "nested": {"deep": [1, [2, None]]},
        "huge": str(1 << 70),
        "odd": "odd",
        "proxy": {"a": 1},
        "raw": b"\x00",
        "set": [1],
    }


def test_an_info_map_of_any_depth_stops_nothing(rig: SessionRig) -> None:
    """It is kept as deep as every reader can follow; the step and what comes after are recorded as always."""
    deep: dict[str, Any] = {}
    for _ in range(2_000):
        deep = {"deeper": deep}
    session = rig.session()
    session.step(0, 1.0, info=deep)
    session.step(1, 1.0)
    assert session.close() is True
    assert session.faults == 0
    assert [row["action"] for row in rig.steps()] == [0, 1]
    assert set(rig.records(InfoRecord)[0].info) == {"deeper"}
