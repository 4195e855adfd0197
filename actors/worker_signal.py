"""Signals to the processes of a worker that somebody else has started. Never to a pid that has another owner by now.

A journal's lock says that the process that wrote it lives, its start time that the pid means this process still, and
the head of the journal among the files it has open (Linux only) that the pid is of our pid namespace: a container may
share host name and data directory with us, and count its processes from 1. psutil looks once more in the moment of
the signal.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from runlane.config.errors import SpoolError
from runlane.config.names import SPOOL_DIR
from runlane.transport.messages import StreamInfo
from runlane.transport.spool import HEAD_SUFFIX, process_started, read_info

# The system knows a process's start to the second; a stream is opened by a process that runs by then.
START_SLACK_S = 2.0


def signal_worker(streams: Iterable[tuple[StreamInfo, Path]], signum: signal.Signals) -> tuple[list[int], str]:
    """Signal the processes of these streams, whose writers live; returns their pids, and else why there are none.

    Beside each stream the head file of its journal, which only its own process holds open: a fork makes one of its own.
    Of a stream that a bridge writes its program is meant. SIGINT goes to the outermost of them, which ends its own
    children as it does on Ctrl-C; SIGKILL to all.
    """
    found: dict[int, psutil.Process] = {}
    problem = "it has ended"
    for info, head in streams:
        process, why_not = _process_of(info, head)
        if process is not None:
            process = _program_of(info, head) or process
        if process is None:
            problem = why_not
        else:
            found[process.pid] = process
    if signum is not signal.SIGKILL:
        found = {pid: process for pid, process in found.items() if not _is_below(process, found)}
    reached: list[int] = []
    for pid, process in found.items():
        try:
            process.send_signal(signum)
            reached.append(pid)
        except psutil.AccessDenied:
            problem = f"process {pid} belongs to another user; signal it as that user"
        except psutil.NoSuchProcess:
            problem = f"process {pid} has ended"
    return sorted(reached), problem


def _process_of(info: StreamInfo, head: Path) -> tuple[psutil.Process | None, str]:
    if info.host != socket.gethostname():
        return None, f"it runs on host {info.host}, and its proxy on {socket.gethostname()}; signal it there"
    try:
        process = psutil.Process(info.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None, f"process {info.pid} has ended"
        if process.create_time() > info.started_ns / 1e9 + START_SLACK_S:
            return None, f"process {info.pid} is not the one that opened the stream: it began later"
        if sys.platform == "linux" and not _has_open(info.pid, head):
            return None, f"pid {info.pid} of another pid namespace or process; stop it where it runs"
    except (psutil.Error, OSError) as error:
        return None, f"process {info.pid} cannot be looked at: {error}"
    return process, ""


def _program_of(info: StreamInfo, head: Path) -> psutil.Process | None:
    """The program of another language whose bridge writes this stream."""
    for link in (head.parents[2] / SPOOL_DIR).glob(f"*/{info.stream}{HEAD_SUFFIX}"):
        with contextlib.suppress(SpoolError, psutil.Error):
            program = read_info(link.parent)
            if program.pid and process_started(program.pid) == program.started:
                return psutil.Process(program.pid)
    return None


def _has_open(pid: int, path: Path) -> bool:
    """Whether another process than this, which reads the journal itself, has the file open.

    Compared by inode: the name may be another where that process runs. Raises `OSError` when it may not be looked at.
    """
    if pid == os.getpid():
        return False
    wanted = path.stat()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.path.samestat(descriptor.stat(), wanted):
                return True
    return False


def _is_below(process: psutil.Process, others: dict[int, psutil.Process]) -> bool:
    try:
        return any(parent.pid in others for parent in process.parents())
    except psutil.Error:
        return False
