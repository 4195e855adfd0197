"""Signals to the processes of a worker that somebody else has started. Never to a pid that has another owner by now.

A journal's lock says that the process that wrote it lives, its start time that the pid means this process still;
psutil looks once more in the moment of the signal.
"""

import signal
import socket
from collections.abc import Iterable

import psutil

from runlane.transport.messages import StreamInfo

# The system knows a process's start to the second; a stream is opened by a process that runs by then.
START_SLACK_S = 2.0


def signal_worker(streams: Iterable[StreamInfo], signum: signal.Signals) -> tuple[list[int], str]:
    """Signal the processes of these streams, whose writers live; returns their pids, and else why there are none.

    SIGINT goes to the outermost of them, which ends its own children as it does on Ctrl-C; SIGKILL to all.
    """
    found: dict[int, psutil.Process] = {}
    problem = "it has ended"
    for info in streams:
        process, why_not = _process_of(info)
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


def _process_of(info: StreamInfo) -> tuple[psutil.Process | None, str]:
    if info.host != socket.gethostname():
        return None, f"it runs on host {info.host}, and its proxy on {socket.gethostname()}; signal it there"
    try:
        process = psutil.Process(info.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None, f"process {info.pid} has ended"
        if process.create_time() > info.started_ns / 1e9 + START_SLACK_S:
            return None, f"process {info.pid} is not the one that opened the stream: it began later"
    except psutil.Error as error:
        return None, f"process {info.pid} cannot be looked at: {error}"
    return process, ""


def _is_below(process: psutil.Process, others: dict[int, psutil.Process]) -> bool:
    try:
        return any(parent.pid in others for parent in process.parents())
    except psutil.Error:
        return False
