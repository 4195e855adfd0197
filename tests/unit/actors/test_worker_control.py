"""What is asked of a running worker through its proxy: answered when it is so, refused with a reason when it is not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from unit.actors.proxy_rig import JournalWorker, ProxyRig

from runlane.actors.worker_control import HELLO_S, SWITCH_S
from runlane.actors.worker_signal import START_SLACK_S, signal_worker
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.endpoint import run_dir_of
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.journal_layout import HEAD_FILE
from runlane.transport.messages import (
    Refused,
    SetTelemetryMode,
    StopWorker,
    StreamInfo,
    StreamMode,
    TelemetryModeSet,
    WorkerSignalled,
)
from runlane.transport.ring_layout import RingInfo
from runlane.transport.testing import FakeClock, make_info, until

DUAL, DURABLE = TelemetryMode.DUAL_PATH, TelemetryMode.DURABLE_ONLY
ASKED = SetTelemetryMode(run="run", worker="w", mode=DURABLE, request=5)
DONE = TelemetryModeSet(run="run", worker="w", mode=DURABLE, streams=1, request=5)


@pytest.fixture
def rig(settings: Settings, clock: FakeClock) -> Iterator[ProxyRig]:
    """A proxy, and no router."""
    rig = ProxyRig(settings, clock)
    yield rig
    rig.close()


def say(worker: JournalWorker, mode: TelemetryMode) -> None:
    """The worker's word on its mode."""
    worker.socket.say(StreamMode(stream=worker.info.stream, mode=mode))


def heard(worker: JournalWorker) -> list[TelemetryMode]:
    """The modes a worker was asked for."""
    return [message.mode for message in worker.socket.heard if isinstance(message, StreamMode)]


def joined(rig: ProxyRig, mode: TelemetryMode = DUAL) -> JournalWorker:
    """A worker that the proxy knows, with its mode."""
    worker = rig.worker()
    say(worker, mode)
    until(lambda: any(each["telemetry_mode"] for each in rig.proxy.statistics()["workers"]), rig.turn)
    return worker


# ---- modes -----------------------------------------------------------------------------------------------


def test_a_mode_is_answered_when_every_stream_of_the_worker_is_in_it(rig: ProxyRig) -> None:
    """Not before; other workers' streams have no part in it."""
    one, two = joined(rig), joined(rig)
    until(lambda: rig.figure("streams") == 2, rig.turn)
    rig.proxy.on_message(ASKED)
    until(lambda: bool(heard(one) and heard(two)), rig.turn)
    say(one, DURABLE)
    rig.settle(4)
    assert not rig.proxy.answers
    say(two, DURABLE)
    until(lambda: bool(rig.proxy.answers), rig.turn)
    assert list(rig.proxy.answers) == [msgspec.structs.replace(DONE, streams=2)]
    assert set(heard(one) + heard(two)) == {DURABLE}
    assert rig.proxy.statistics()["telemetry_mode"] == "durable_only"


def test_a_mode_in_force_is_answered_at_once(rig: ProxyRig) -> None:
    """Nothing is asked of the worker; the same question again, as by a new proxy's heartbeat, has the same answer."""
    worker = joined(rig, DURABLE)
    rig.proxy.on_message(ASKED)
    rig.proxy.on_message(ASKED)
    assert list(rig.proxy.answers) == [DONE, DONE]
    assert heard(worker) == []


def test_a_worker_is_asked_again_until_it_answers_and_then_refused(rig: ProxyRig) -> None:
    """The reason says how many streams are late, and what may be the matter."""
    worker = joined(rig)
    rig.proxy.on_message(ASKED)
    until(lambda: len(heard(worker)) > 3, rig.turn)
    rig.clock.move(SWITCH_S)
    rig.turn()
    [answer] = rig.proxy.answers
    assert isinstance(answer, Refused)
    assert answer.request == 5
    assert "1 of 1 streams of worker w" in answer.reason
    told = len(heard(worker))
    rig.settle()
    assert len(heard(worker)) == told


def test_a_new_proxy_waits_for_its_worker_to_say_hello(rig: ProxyRig) -> None:
    """The question may come first."""
    rig.proxy.on_message(ASKED)
    rig.settle(4)
    assert not rig.proxy.answers
    worker = joined(rig)
    until(lambda: bool(heard(worker)), rig.turn)
    say(worker, DURABLE)
    until(lambda: bool(rig.proxy.answers), rig.turn)
    assert list(rig.proxy.answers) == [DONE]


def test_a_newer_question_takes_the_place_of_the_one_before(rig: ProxyRig) -> None:
    """Which is refused: two persons have to know."""
    worker = joined(rig)
    rig.proxy.on_message(ASKED)
    rig.proxy.on_message(SetTelemetryMode(run="run", worker="w", mode=DUAL, request=6))
    answers = list(rig.proxy.answers)
    assert [answer.request for answer in answers if isinstance(answer, Refused)] == [5]
    assert [answer.request for answer in answers if isinstance(answer, TelemetryModeSet)] == [6]
    assert heard(worker) == []


def test_a_stream_that_opens_later_follows_the_others(rig: ProxyRig) -> None:
    """A sub-environment that begins in the mode of the settings is told the worker's."""
    worker = joined(rig, DURABLE)
    rig.proxy.on_message(ASKED)
    later = joined(rig)
    until(lambda: heard(later) == [DURABLE], rig.turn)
    assert heard(worker) == []


def test_a_worker_without_a_stream_is_refused_with_the_reason(rig: ProxyRig) -> None:
    """One that has not attached; one that only shows, as its ring says."""
    rig.proxy.on_message(ASKED)
    rig.clock.move(HELLO_S)
    rig.turn()
    ring = FastLaneWriter(run_dir_of(rig.settings), RingInfo(run="run", worker="w"), FastLaneConfig())
    rig.proxy.on_message(ASKED)
    rig.clock.move(HELLO_S)
    rig.turn()
    ring.close()
    reasons = [answer.reason for answer in rig.proxy.answers if isinstance(answer, Refused)]
    assert len(reasons) == 2
    assert "has no open stream here" in reasons[0]
    assert "was started with fast_lane.only" in reasons[1]
    assert "cannot become durable" in reasons[1]


# ---- signals ---------------------------------------------------------------------------------------------


# Opens the files that it is given, says so, and waits for a signal.
HOLDING = "import sys; files = [open(path) for path in sys.argv[1:]]; print(flush=True); input()"
Hold = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that holds these files open, as a worker does the heads of its journals."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*paths: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", HOLDING, *map(str, paths)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL))
        assert started[-1].stdout is not None
        started[-1].stdout.readline()
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A journal's head, as far as a signal is concerned."""
    path = tmp_path / "head"
    path.touch()
    return path


@pytest.fixture
def sleeper(hold: Hold, head: Path) -> "subprocess.Popen[bytes]":
    """A process that holds `head` open, and ends on a signal."""
    return hold(head)


def info_of(pid: int, host: str = "") -> StreamInfo:
    """A stream that this process opened just now."""
    info = make_info("w", pid)
    return msgspec.structs.replace(info, host=host or os.uname().nodename, started_ns=time.time_ns())


def introduce(rig: ProxyRig, worker: JournalWorker, pid: int) -> None:
    """The worker says that it is this process."""
    worker.info = msgspec.structs.replace(worker.info, pid=pid, started_ns=time.time_ns())
    worker.hello()
    until(lambda: rig.figure("streams") == 1, rig.turn)
    rig.settle(3)


@pytest.mark.parametrize("is_kill", [False, True])
def test_a_worker_is_signalled_once_however_often_it_is_asked_for(rig: ProxyRig, hold: Hold, is_kill: bool) -> None:
    """A question that comes twice is answered twice."""
    worker = rig.worker()
    sleeper = hold(worker.directory / HEAD_FILE)
    introduce(rig, worker, sleeper.pid)
    question = StopWorker(run="run", worker="w", is_kill=is_kill, request=9)
    rig.proxy.on_message(question)
    rig.proxy.on_message(question)
    name = "SIGKILL" if is_kill else "SIGINT"
    expected = WorkerSignalled(run="run", worker="w", signal=name, pids=[sleeper.pid], request=9)
    assert list(rig.proxy.answers) == [expected, expected]
    assert sleeper.wait(10) in (-signal.SIGKILL if is_kill else -signal.SIGINT, 1)


def test_a_worker_that_has_died_is_not_signalled(rig: ProxyRig) -> None:
    """Its journal's lock is free, so its pid may be anybody's."""
    worker = joined(rig)
    worker.die()
    rig.proxy.on_message(StopWorker(run="run", worker="w", request=9))
    [answer] = rig.proxy.answers
    assert isinstance(answer, Refused)
    assert "has no open stream here" in answer.reason


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can see who has a file open")
def test_a_pid_of_another_pid_namespace_is_never_hit(rig: ProxyRig, hold: Hold, head: Path) -> None:
    """Host, start time and the journal's lock fit; the process has another journal's head open, and not this one's."""
    worker, other = rig.worker(), hold(head)
    introduce(rig, worker, other.pid)
    rig.proxy.on_message(StopWorker(run="run", worker="w", is_kill=True, request=9))
    [answer] = rig.proxy.answers
    assert isinstance(answer, Refused)
    end = f": pid {other.pid} of another pid namespace or process; stop it where it runs"
    assert answer.reason == f"worker w of run run was not signalled{end}"
    assert other.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can see who has a file open")
def test_to_have_the_journal_open_as_its_reader_is_no_proof(head: Path) -> None:
    """A worker in a container may have the very pid that its proxy has here."""
    with head.open():
        pids, why = signal_worker([(info_of(os.getpid()), head)], signal.SIGKILL)
    assert (pids, "another pid namespace" in why) == ([], True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can see who has a file open")
def test_streams_of_one_process_are_signalled_once_and_a_foreign_one_does_not_save_them(
    hold: Hold, tmp_path: Path
) -> None:
    """Each stream is proved by its own journal's head; a process that holds none of them is left alone."""
    heads = [tmp_path / name for name in ("first", "second", "third")]
    for path in heads:
        path.touch()
    worker, stranger = hold(*heads[:2]), hold()
    streams = [(info_of(pid), path) for pid, path in zip((worker.pid, worker.pid, stranger.pid), heads, strict=True)]
    assert signal_worker(streams, signal.SIGKILL)[0] == [worker.pid]
    assert worker.wait(10) == -signal.SIGKILL
    assert stranger.poll() is None


def test_a_pid_that_began_after_the_stream_is_never_hit(sleeper: "subprocess.Popen[bytes]", head: Path) -> None:
    """It was given to another process."""
    info = info_of(sleeper.pid)
    earlier = msgspec.structs.replace(info, started_ns=info.started_ns - int((START_SLACK_S + 3600) * 1e9))
    assert signal_worker([(earlier, head)], signal.SIGKILL) == (
        [],
        f"process {sleeper.pid} is not the one that opened the stream: it began later",
    )
    assert psutil.pid_exists(sleeper.pid)
    assert sleeper.poll() is None


def test_a_process_of_another_host_or_that_has_ended_is_never_hit(
    sleeper: "subprocess.Popen[bytes]", head: Path
) -> None:
    """The pid means nothing here."""
    pids, why = signal_worker([(info_of(sleeper.pid, "elsewhere"), head)], signal.SIGKILL)
    assert (pids, "runs on host elsewhere" in why) == ([], True)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    pids, why = signal_worker([(info_of(sleeper.pid), head)], signal.SIGINT)
    assert (pids, "has ended" in why) == ([], True)


def test_sigint_goes_to_the_outermost_process_and_sigkill_to_all(head: Path) -> None:
    """Ours would end its sub-environments itself."""
    code = (
        "import subprocess, sys; file = open(sys.argv[1]);"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, stdout=file);"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(head)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        streams = [(info_of(child), head), (info_of(parent.pid), head)]
        assert signal_worker(streams, signal.Signals.SIGCONT)[0] == [parent.pid]
        assert signal_worker(streams, signal.SIGKILL)[0] == sorted([parent.pid, child])
