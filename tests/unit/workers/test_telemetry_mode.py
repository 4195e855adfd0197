"""The telemetry mode of a session: switched while it records, with every record kept or counted, none half way."""

# Turns are taken by hand:
# pyright: reportPrivateUsage=false

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from unit.workers.session_rig import SMALL, SessionRig

from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.messages import StreamMode
from runlane.transport.records import DropRecord, EpisodeRecord, Record, RunRecord
from runlane.transport.wire import encode_control
from runlane.workers import stream_writer
from runlane.workers.fast_lane import NEVER_NS
from runlane.workers.journal_writer import JournalWriter
from runlane.workers.session import WorkerSession

DUAL, DURABLE, SHOWN = TelemetryMode.DUAL_PATH, TelemetryMode.DURABLE_ONLY, TelemetryMode.FAST_LANE_ONLY


def ask(rig: SessionRig, session: WorkerSession, mode: TelemetryMode) -> None:
    """Ask as a proxy does; training may be doing anything meanwhile."""
    rig.proxy.send_to_all(encode_control(StreamMode(stream=session.info.stream, mode=mode)))


def switch(rig: SessionRig, session: WorkerSession, mode: TelemetryMode) -> None:
    """Ask, and wait for the worker's word; training makes no call meanwhile."""
    ask(rig, session, mode)
    rig.wait(lambda: rig.proxy.modes.get(session.info.stream) is mode)


def told(rig: SessionRig) -> dict[str, int]:
    """What drop records say was not kept, by kind."""
    found: dict[str, int] = {}
    for record in rig.records(DropRecord):
        assert record.reason == "fast_lane_only"
        found[record.kind] = found.get(record.kind, 0) + record.records
    return found


def modes(rig: SessionRig) -> list[tuple[str, int | None]]:
    """Every mode the stream says it was in, and since which step."""
    facts = [record.facts for record in rig.records(RunRecord) if "telemetry_mode" in record.facts]
    return [(fact["telemetry_mode"], fact.get("env_steps")) for fact in facts]


def test_what_is_not_kept_is_counted_by_kind_and_told_before_the_next_switch(rig: SessionRig) -> None:
    """Steps, infos, episodes, metrics, log lines: given = recorded + told; seqs have no gap; runs are recorded."""
    session = rig.connected()
    session.step(0, 1.0)
    switch(rig, session, SHOWN)
    for number in range(100):
        session.step(number, 1.0, number % 10 == 9, info={"n": number} if number % 4 == 0 else None)
    session.metrics({"a": 1.0, "b": 2.0})
    session.log("text")
    session.step_vector([0, 1], [1.0, 1.0], [True, False], [False, False])
    expected = {"step": 101, "info": 25, "episode": 11, "metric": 2, "log": 1}
    assert session.dropped == expected
    switch(rig, session, DUAL)
    session.step(1, 1.0)
    assert session.close() is True
    assert told(rig) == expected
    assert len(rig.steps()) == 2
    assert rig.seqs() == list(range(1, len(rig.seqs()) + 1))
    assert modes(rig) == [("dual_path", None), ("fast_lane_only", 1), ("dual_path", 103)]
    assert rig.records(RunRecord)[-1].facts["env_steps"] == 104
    assert session.faults == 0


def test_training_that_never_pauses_takes_the_mode_up_at_its_next_call(rig: SessionRig) -> None:
    """The fast way of step() gives way: nothing of a storm of steps is lost or counted twice."""
    session = rig.connected()
    is_over = threading.Event()

    def train() -> None:
        while not is_over.is_set():
            session.step(1, 1.0)

    thread = threading.Thread(target=train)
    thread.start()
    for mode in (SHOWN, DUAL, SHOWN, DURABLE):
        switch(rig, session, mode)
    is_over.set()
    thread.join()
    steps = session.env_steps
    assert session.close() is True
    assert told(rig)["step"] == session.dropped["step"] > 0
    assert len(rig.steps()) + session.dropped["step"] == steps
    assert [mode for mode, _ in modes(rig)] == [DUAL, SHOWN, DUAL, SHOWN, DURABLE]


def test_an_episode_goes_on_through_a_switch(rig: SessionRig) -> None:
    """Its number, length and return hold, its first steps kept or not, and it began when its first step was made."""
    session = rig.connected(telemetry_mode=SHOWN)
    session.step(0, 1.0, terminated=True)
    began_ns = time.time_ns()
    for _ in range(3):
        session.step(0, 2.0)
    switch(rig, session, DUAL)
    session.step(0, 2.0, truncated=True)
    ended_ns = time.time_ns()
    assert session.close() is True
    [episode] = rig.records(EpisodeRecord)
    assert (episode.episode, episode.length, episode.episode_return) == (2, 4, 8.0)
    assert 0.0 < episode.duration_s <= (ended_ns - began_ns) / 1e9
    [row] = rig.steps()
    assert (row["episode"], row["step"]) == (2, 4)


def test_a_worker_may_begin_in_a_mode_and_says_so(rig: SessionRig) -> None:
    """`session.telemetry_mode` is in its first record, in its figures, and told to the proxy without being asked."""
    session = rig.connected(telemetry_mode=SHOWN)
    rig.wait(lambda: rig.proxy.modes.get(session.info.stream) is SHOWN)
    session.step(0, 1.0)
    assert session.statistics()["telemetry_mode"] == "fast_lane_only"
    assert session.close() is True
    assert modes(rig) == [("fast_lane_only", None)]
    assert told(rig) == {"step": 1, "episode": 1}  # the episode that close() ends


def test_the_count_of_what_is_not_kept_grows_in_the_stream(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told now and then while it grows, so the worker does not pass for stalled."""
    monkeypatch.setattr(stream_writer, "TELL_UNKEPT_S", 0.0)
    session = rig.connected(telemetry_mode=SHOWN)
    for _ in range(5):
        session.step(0, 1.0)
    assert [record.records for record in rig.records(DropRecord)] == [1, 1, 1, 1, 1]


def test_what_is_not_told_stands_where_a_kill_cannot_lose_it(rig: SessionRig) -> None:
    """In the journal's head, by kind, from the moment the call returns."""
    session = rig.connected(telemetry_mode=SHOWN)
    session.step(0, 1.0)  # told at once, for it is the first
    for _ in range(7):
        session.step(0, 1.0)
    session.metric("a", 1.0)
    untold = rig.head().untold(session.statistics()["records"])
    assert (untold.get("step"), untold.get("metric")) == (7, 1)


def test_asking_for_the_mode_in_force_records_nothing(rig: SessionRig) -> None:
    """Also when another was wanted in between and not taken up."""
    session = rig.connected()
    rig.wait(lambda: rig.proxy.modes.get(session.info.stream) is DUAL)
    switch(rig, session, DUAL)
    session.step(0, 1.0)
    assert session.close() is True
    assert len(modes(rig)) == 1


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_mode_wanted_while_another_is_recorded_waits_for_the_next_turn(
    rig: SessionRig, monkeypatch: pytest.MonkeyPatch, is_idle: bool
) -> None:
    """What is recorded, what is in force and the lane agree, whoever makes the switch; then the wish is taken up."""
    session = rig.connected()
    session.step(0, 1.0)
    mode_switch, append, wishes = session._switch, JournalWriter.append, [SHOWN]

    def append_and_be_asked(journal: JournalWriter, kind: str, make: Callable[[int], Record]) -> int:
        needed = append(journal, kind, make)
        if kind == "run" and wishes:
            mode_switch.want(wishes.pop())  # as the flusher's thread may at any moment
        return needed

    monkeypatch.setattr(JournalWriter, "append", append_and_be_asked)
    monkeypatch.setattr(mode_switch, "_take_turn", lambda: None)  # the real flusher switches nothing
    mode_switch.want(DURABLE)
    if is_idle:
        session._take_mode_if_idle()
    else:
        session._look("log", 0)
    assert modes(rig) == [("dual_path", None), ("durable_only", 1)]
    assert (session.telemetry_mode, mode_switch.is_kept) == (DURABLE, True)
    assert session.lane.is_due(time.monotonic_ns()) is False
    assert session.lane.next_ns == NEVER_NS
    assert (mode_switch.wanted, mode_switch.is_due, session._journal.is_held) == (SHOWN, True, True)
    session.step(0, 1.0)
    assert session.telemetry_mode is SHOWN
    assert modes(rig)[2:] == [("fast_lane_only", 1)]
    assert session.faults == 0


def test_a_journal_without_room_keeps_its_mode_until_there_is_some(rig: SessionRig) -> None:
    """A switch is told in the stream or is not made; the drops before it keep their own reason."""
    rig.proxy.is_acking = False
    session = rig.connected(journal=SMALL, overflow="drop_newest")
    while not session.dropped.get("step", 0) > 10:
        session.step(0, 1.0)
    ask(rig, session, SHOWN)
    rig.wait(lambda: session._switch.is_due)
    session.step(0, 1.0)
    assert session.telemetry_mode is DUAL
    full = session.dropped["step"]
    rig.proxy.is_acking = True
    rig.wait(lambda: session.telemetry_mode is SHOWN)
    session.step(0, 1.0)
    assert session.close() is True
    by_reason: dict[str, int] = {}
    for record in rig.records(DropRecord):
        if record.kind == "step":
            by_reason[record.reason] = by_reason.get(record.reason, 0) + record.records
    assert by_reason == {"journal_full": full, "fast_lane_only": 1}


def test_the_lane_is_off_in_durable_only_and_on_again_after(rig: SessionRig) -> None:
    """Not looked at again after one look, whoever watches; due at once when the mode has UI again."""
    session = rig.connected()
    switch(rig, session, DURABLE)
    assert session.lane.is_due(time.monotonic_ns()) is False
    assert session.lane.next_ns == NEVER_NS
    switch(rig, session, SHOWN)
    assert session.lane.next_ns == 0
    session.lane.is_due(time.monotonic_ns())
    assert 0 < session.lane.next_ns < NEVER_NS


def test_a_frame_of_a_step_that_is_not_kept_names_no_row(rig: SessionRig) -> None:
    """Its HUD has episode, step and return, and step_seq 0."""
    session = rig.connected()
    session.step(0, 1.0)
    row_seq = session.standing(0).step_seq
    switch(rig, session, SHOWN)
    assert session.standing(0).step_seq == row_seq
    session.step(0, 1.0)
    assert (session.standing(0).step_seq, session.standing(0).episode_return) == (0, 2.0)
    switch(rig, session, DUAL)
    assert session.standing(0).step_seq == 0
    session.step(0, 1.0)
    assert session.standing(0).step_seq == session.statistics()["records"]


def test_vector_steps_that_are_not_kept_are_one_record_each_and_all_their_environments_count(rig: SessionRig) -> None:
    """Resets count for nothing in either mode."""
    session = rig.connected(telemetry_mode=SHOWN)
    for _ in range(3):
        session.step_vector(np.zeros(4), np.ones(4), np.zeros(4, bool), np.zeros(4, bool))
    session.step_vector(
        np.zeros(4), np.ones(4), np.zeros(4, bool), np.zeros(4, bool), is_reset=np.array([True, False, False, False])
    )
    assert (session.env_steps, session.dropped["step"]) == (15, 4)
    switch(rig, session, DUAL)
    session.step_vector(np.zeros(4), np.ones(4), np.ones(4, bool), np.zeros(4, bool))
    assert session.close() is True
    assert session.env_steps == 19
    assert [record.length for record in rig.records(EpisodeRecord)] == [4, 5, 5, 5]
