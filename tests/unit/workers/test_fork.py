"""A forked child is a stream of its own: the parent's journal is never touched by it, and the parent's end is seen."""

import os
import subprocess
import sys
from typing import Any

import psutil
from unit.workers.session_rig import SessionRig

from runlane.config import names
from runlane.transport.endpoint import data_dir_of
from runlane.transport.records import LogRecord, RunRecord

BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
from runlane.workers import attach
session = attach()
assert session.is_attached
for number in range(100):
    session.step(number, 1.0)
journal = Path(os.environ["RUNLANE_DATA_DIR"]) / "journals" / session.info.stream

def segments():
    return {path.name: path.read_bytes() for path in sorted(journal.glob("*.seg"))}

def child(work):
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            code = work() or 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def _start(rig: SessionRig, script: str, **pipes: Any) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        f"{names.ENV_PREFIX}DATA_DIR": str(data_dir_of(rig.settings)),
        f"{names.ENV_PREFIX}JOURNAL__SEGMENT_BYTES": str(1 << 16),
        names.ENV_PROXY: rig.endpoint,
        names.ENV_RUN: "run-1",
        names.ENV_WORKER_NAME: "w",
    }
    command = [sys.executable, "-W", "error", "-c", BEGIN + script]
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def _run(rig: SessionRig, script: str, warning: str = "") -> None:
    process = _start(rig, script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=40)
    assert (process.returncode, output, warning in errors, len(errors.splitlines())) == (0, "", True, bool(warning))


def _texts(rig: SessionRig, stream: str) -> list[str]:
    return [record.text for record in rig.records(LogRecord, stream)]


def _by_text(rig: SessionRig) -> dict[str, str]:
    """Streams by the text of their last log line."""
    return {(_texts(rig, stream) or [""])[-1]: stream for stream in rig.streams()}


def test_a_child_never_writes_into_its_parents_journal(rig: SessionRig) -> None:
    """However much it records, by whatever call, and though it closes: not one byte of the parent's changes."""
    _run(
        rig,
        """
def work():
    for number in range(3_000):
        session.step(number, 2.0, number % 10 == 9, info={"n": number})
        session.metric("m", 1.0)
    session.step_vector([1, 2], [1.0, 1.0], [False, False], [False, False])
    session.step([1.0, 2.0], 1.0)
    session.log("child")
    return 0 if session.close() and not session.faults else 7

before = segments()
child(work)
assert segments() == before
session.log("parent")
session.close()
""",
    )
    streams = _by_text(rig)
    parent, child = streams["parent"], streams["child"]
    assert (rig.info(parent).forked_from, rig.info(child).forked_from) == ("", parent)
    assert [row["action"] for row in rig.steps(parent)] == list(range(100))
    for stream in (parent, child):
        seqs = rig.seqs(stream)
        assert seqs == list(range(1, len(seqs) + 1))


def test_a_child_begins_its_own_episodes(rig: SessionRig) -> None:
    """The parent's running one is the parent's; the child's first row is step 1 of episode 1, in schema 0."""
    _run(
        rig,
        """
def work():
    session.episode(outcome="abandoned")
    session.abandon_vector_episodes()
    session.step(7, 2.0)
    session.log("child")
    return 0 if session.close() else 7

child(work)
session.step(100, 1.0, True)
session.log("parent")
session.close()
""",
    )
    streams = _by_text(rig)
    row, *others = rig.steps(streams["child"])
    assert (row["episode"], row["step"], row["action"], others) == (1, 1, 7, [])
    assert [schema.schema_id for schema in rig.info(streams["child"]).schemas] == [0]
    assert [record.state for record in rig.records(RunRecord, streams["child"])] == ["running", "finished"]
    assert rig.steps(streams["parent"])[-1]["step"] == 101


def test_a_grandchild_is_its_parents_child(rig: SessionRig) -> None:
    """Each fork names the stream it was forked from."""
    _run(
        rig,
        """
def grandchild():
    session.log("grandchild")
    return 0 if session.close() else 7

def work():
    session.log("child")
    child(grandchild)
    return 0 if session.close() else 7

child(work)
session.log("parent")
session.close()
""",
    )
    streams = _by_text(rig)
    assert rig.info(streams["grandchild"]).forked_from == streams["child"]
    assert rig.info(streams["child"]).forked_from == streams["parent"]


def test_a_child_that_records_nothing_has_no_journal(rig: SessionRig) -> None:
    """A data loader's worker: neither a stream nor a thread comes of it, also when the session was closed before."""
    _run(
        rig,
        """
def work():
    session.close()
    session.frame(None)
    return 0 if threading.active_count() == 1 else 8

def late():
    session.step(1, 1.0)
    session.log("late")
    return 0 if session.faults == 2 and threading.active_count() == 1 else 8

child(work)
session.close()
child(late)
""",
        warning="the session is closed",
    )
    (stream,) = rig.streams()
    assert [record.state for record in rig.records(RunRecord, stream)] == ["running", "finished"]


def test_a_fork_in_the_middle_of_another_threads_call_is_no_deadlock(rig: SessionRig) -> None:
    """That call is the parent's; the child's first record takes its own turn."""
    _run(
        rig,
        """
is_over = threading.Event()

def train():
    number = 0
    while not is_over.is_set():
        session.step([float(number)] * (1 + number % 3), 1.0)
        number += 1

def work():
    session.log("child")
    return 0 if session.close() else 7

thread = threading.Thread(target=train)
thread.start()
for _ in range(8):
    child(work)
is_over.set()
thread.join()
session.log("parent")
assert session.close() and not session.faults
""",
    )
    parent = _by_text(rig)["parent"]
    children = [stream for stream in rig.streams() if stream != parent]
    assert [_texts(rig, stream) for stream in children] == [["child"]] * 8
    assert {rig.info(stream).forked_from for stream in children} == {parent}
    seqs = rig.seqs(parent)
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_child_has_threads_of_its_own_for_all_its_streams(rig: SessionRig) -> None:
    """One of each kind, begun with its first record, wherever its parent's were at the fork; both end well."""
    _run(
        rig,
        """
from runlane.workers.attachment import attach_beside
sessions = [session, *(attach_beside(session, f"w{number}") for number in range(3))]

def names():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("runlane-"))

def work():
    assert names() == []
    for other in sessions:
        other.log("child")
    assert names() == ["runlane-flusher", "runlane-sync"], names()
    closed = [other.close() for other in sessions]
    return 0 if all(closed) and not any(other.faults for other in sessions) else 7

for turn in range(5):
    for other in sessions:
        other.log("parent")
    child(work)
assert names() == ["runlane-flusher", "runlane-sync"], names()
for other in sessions:
    assert other.close() and not other.faults
child(lambda: len(names()))
""",
    )
    texts = [_texts(rig, stream) for stream in rig.streams()]
    assert sorted(texts) == [["child"]] * 20 + [["parent"] * 5] * 4


def test_the_parents_death_is_seen_though_the_child_lives(rig: SessionRig) -> None:
    """Recording or silent, a child does not keep its parent's journal alive, nor the parent's exit the child's."""
    process = _start(
        rig,
        """
pid = os.fork()
if pid == 0:
    session.log("child")
    print(os.getpid(), flush=True)
    sys.stdin.read()
    session.close()
    os._exit(0)
silent = os.fork()
if silent == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
session.log("parent")
os.waitpid(pid, 0)
""",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(2)]
    rig.wait(lambda: len(rig.proxy.journals) == 2 and set(_by_text(rig)) == {"parent", "child"})
    streams = _by_text(rig)
    heads = {name: rig.head(streams[name]) for name in ("parent", "child")}
    assert [heads[name].is_writer_alive for name in ("parent", "child")] == [True, True]
    process.kill()
    process.wait(10)
    assert all(psutil.pid_exists(pid) for pid in pids)
    assert [heads[name].is_writer_alive for name in ("parent", "child")] == [False, True]
    process.stdin.close()  # the end of their input: both end
    rig.wait(lambda: not heads["child"].is_writer_alive and not any(map(psutil.pid_exists, pids)))
    process.stdout.close()


def test_a_process_pools_children_close_their_streams(rig: SessionRig) -> None:
    """`multiprocessing` ends children without `atexit`; what they recorded is closed all the same."""
    _run(
        rig,
        """
import multiprocessing

def work(number):
    session.log(f"child {number}")

context = multiprocessing.get_context("fork")
processes = [context.Process(target=work, args=(number,)) for number in range(3)]
for process in processes:
    process.start()
for process in processes:
    process.join()
    assert process.exitcode == 0
session.log("parent")
session.close()
""",
    )
    streams = _by_text(rig)
    for number in range(3):
        stream = streams[f"child {number}"]
        assert [record.state for record in rig.records(RunRecord, stream)] == ["running", "finished"]
        assert rig.head(stream).closed == rig.seqs(stream)[-1]


def test_a_childs_pictures_are_of_its_own_stream(rig: SessionRig) -> None:
    """Its ring is made when it has become one, by its first step; the parent's is as it was."""
    _run(
        rig,
        """
import numpy as np
from runlane.config.load import load
from runlane.transport.endpoint import run_dir_of
from runlane.transport.ring_files import find_rings
from gymnasium.vector import SyncVectorEnv
import gymnasium
from runlane.workers import wrap
make = lambda: gymnasium.make("CartPole-v1", render_mode="rgb_array")
env = wrap(SyncVectorEnv([make, make]), session=session)
env.reset(seed=1)
env.step(np.zeros(2, int))
parent = session.info.stream
streams = lambda: sorted(ring.info.stream for ring in find_rings(run_dir_of(load())))
assert streams() == [parent], streams()

def work():
    env.step(np.zeros(2, int))
    env.step(np.zeros(2, int))
    found = streams()
    session.close()
    return 0 if found == sorted([parent, session.info.stream]) and session.info.stream != parent else 8

child(work)
assert streams() == [parent], streams()
session.close()
assert streams() == []
""",
    )
