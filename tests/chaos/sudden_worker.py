"""A worker that ends at a moment of its own choice, as a test asks for it.

    python -m chaos.sudden_worker DIRECTORY HOW

exit       `os._exit(0)`, right after the last call has returned
kill       SIGKILL to itself, at the same place
fork-exit  a forked child records and ends like `exit`; its parent records on, waits for it, and closes
fork-kill  a forked child records and ends like `kill`; likewise
linger     like `kill`, and a forked child that records nothing lives on, with all its parent had open
threads    SIGKILL to itself while several threads record, each of which counts in a file of its own what returned
attach     many forked children attach, each killed a little later: before, in and after `attach()`
large      SIGKILL from another process while a call writes a row of 4 MB: each time a little later in that call,
           from its beginning to a little after its end
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from threading import Thread
from typing import NoReturn

import numpy as np
from chaos.oracle_lines import SUFFIX, Kind
from chaos.oracle_worker import Recorder, start_recorder
from chaos.trajectory import Call, Trajectory

from runlane.workers import WorkerSession

CALLS = 777
THREADS = 4
ATTACHES = 80
ATTACH_S = 0.04  # `attach()` and the first records take less
MARKS = ".marks"
RELEASE = "release"
LARGE_FLOATS = 1 << 20
WARM = 3  # the large call that is hit; the one before it is timed
LARGE_KILLS = 8


def calls_of(seed: str) -> Iterator[Call]:
    """The calls of one stream, from its beginning."""
    return Trajectory(random.Random(seed)).calls()  # noqa: S311  dice, no secret


def record(recorder: Recorder, calls: Iterator[Call], most: int = CALLS) -> None:
    """The next calls, as fast as they go."""
    for call in islice(calls, most):
        recorder.make(call)


def end(how: str) -> NoReturn:
    """End without a word to anybody: nothing of Python's own end runs."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def fork(recorder: Recorder, directory: Path, how: str) -> None:
    """A child that records into a stream of its own, and ends; the parent goes on meanwhile."""
    calls = calls_of("parent")
    record(recorder, calls)
    pid = os.fork()
    if pid == 0:
        record(Recorder(recorder.lane, directory, is_forked=True), calls_of("child"))
        end(how)
    record(recorder, calls)
    os.waitpid(pid, 0)
    recorder.close()


def linger(directory: Path) -> None:
    """Fork a child that stays until the test lets it go."""
    if os.fork() == 0:
        while not (directory / RELEASE).exists():
            time.sleep(0.05)
        os._exit(0)


def count_in_thread(lane: WorkerSession, directory: Path, thread: int) -> None:
    """Numbers from 1 on, as steps, metrics and lines of text; one byte in a file for each that returned."""
    fd = os.open(directory / f"{lane.info.stream}.{thread}{MARKS}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in count(1):
        if number % 3 == 0:
            lane.metric(f"thread {thread}", 1.0, number)
        elif number % 3 == 1:
            lane.log(str(number), f"thread {thread}")
        else:
            lane.step(number, env_index=thread)
        os.write(fd, b".")


def die_among_threads(recorder: Recorder, directory: Path) -> None:
    """Switch often, so that calls of different threads meet."""
    sys.setswitchinterval(1e-5)
    for thread in range(THREADS):
        Thread(target=count_in_thread, args=(recorder.lane, directory, thread), daemon=True).start()
    while sum(path.stat().st_size for path in directory.glob(f"*{MARKS}")) < THREADS * 10 * CALLS:
        time.sleep(0.01)
    end("kill")


def die_while_attaching(directory: Path) -> None:
    """The parent has no session; its imports make its children quick."""
    for number in range(ATTACHES):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write_end, b"x")
            record(start_recorder(directory), calls_of(f"child {number}"), 1_000_000)
        os.read(read_end, 1)
        time.sleep(number * ATTACH_S / ATTACHES)  # which moment: the subject of the test
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read_end)
        os.close(write_end)


def die_in_a_large_row(directory: Path, incarnation: int) -> None:
    """The killer is forked first of all, and told by a pipe when the call begins."""
    read_end, write_end = os.pipe()
    victim = os.getpid()
    if os.fork() == 0:
        os.close(write_end)
        call_s = float(os.read(read_end, 32) or 0.0)
        if call_s:
            time.sleep(call_s * 1.3 * incarnation / LARGE_KILLS)  # which moment of the call: the subject of the test
            os.kill(victim, signal.SIGKILL)
        os._exit(0)
    recorder = start_recorder(directory)
    record(recorder, calls_of(f"before {incarnation}"), 50)
    observation = np.frombuffer(random.Random(incarnation).randbytes(4 * LARGE_FLOATS), "<f4")  # noqa: S311
    rest = (0, 0, 0, 0, 0.5, 1, observation.tobytes())
    call = Call("step", (1, 0.5), {"observation": observation, "env_index": 9}, [])
    for number in range(1, 100):  # the killer comes long before the last one
        if number == WARM:
            os.write(write_end, f"{recorder.call_s:.9f}".encode())
        recorder.make(call._replace(expected=[(Kind.STEP, ((9, 1, number, *rest),))]))


def main(directory: Path, how: str) -> None:
    """Attach, record, end."""
    incarnation = len(list(directory.glob(f"*{SUFFIX}")))
    if how == "large" and incarnation >= LARGE_KILLS:
        return
    if how == "attach":
        die_while_attaching(directory)
        return
    if how == "large":
        die_in_a_large_row(directory, incarnation)
    recorder = start_recorder(directory)
    if how == "threads":
        die_among_threads(recorder, directory)
    if how.startswith("fork-"):
        fork(recorder, directory, how.removeprefix("fork-"))
    else:
        if how == "linger":
            linger(directory)
        record(recorder, calls_of(how))
        end("exit" if how == "exit" else "kill")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
