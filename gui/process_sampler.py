"""ProcessSampler: CPU and memory of processes on this host, as the system tells. For a background thread. No Qt."""

from collections.abc import Iterable
from typing import NamedTuple

import psutil

MAX_PROCESSES = 256


class ProcessSample(NamedTuple):
    """Percent of one core since the sample before (None in the first), and resident bytes."""

    cpu_percent: float | None
    rss_bytes: int


class ProcessSampler:
    """One thread at a time may use it: CPU time is told between two samples of the same process."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def sample_processes(self, pids: Iterable[int]) -> dict[int, ProcessSample]:
        """Figures by pid. A process that is gone, or is not to be looked at, is not among them."""
        wanted = list(dict.fromkeys(pid for pid in pids if pid > 0))[:MAX_PROCESSES]
        self._known = {pid: process for pid, process in self._known.items() if pid in wanted and process.is_running()}
        found: dict[int, ProcessSample] = {}
        for pid in wanted:
            try:
                found[pid] = self._sample(pid)
            except psutil.Error:
                self._known.pop(pid, None)
        return found

    def _sample(self, pid: int) -> ProcessSample:
        process = self._known.get(pid)
        is_first = process is None
        if process is None:
            process = self._known[pid] = psutil.Process(pid)
        with process.oneshot():
            cpu_percent = process.cpu_percent(None)
            return ProcessSample(None if is_first else cpu_percent, process.memory_info().rss)
