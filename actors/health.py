"""Who reported when, with which figures, and who is late. No socket, no clock of its own."""

from dataclasses import dataclass
from typing import Any

from runlane.transport.messages import Heartbeat


@dataclass(slots=True)
class _Record:
    """One process of one name. `deadline_s` is None once it is no longer watched."""

    pid: int
    deadline_s: float | None
    beat_s: float | None = None
    heartbeat: Heartbeat | None = None


class HealthTable:
    """Last heartbeat per actor. A process has `start_s` for the first and `timeout_s` for each further one."""

    def __init__(self, start_s: float, timeout_s: float) -> None:
        self._start_s = start_s
        self._timeout_s = timeout_s
        self._records: dict[str, _Record] = {}

    def expect(self, name: str, pid: int, now_s: float) -> None:
        """Watch a process that was just started; figures of the one before it are forgotten."""
        self._records[name] = _Record(pid, now_s + self._start_s)

    def record(self, heartbeat: Heartbeat, now_s: float) -> bool:
        """Take a heartbeat; False, and nothing changes, unless it is of a process that is watched."""
        record = self._records.get(heartbeat.name)
        if record is None or record.deadline_s is None or record.pid != heartbeat.pid:
            return False
        record.deadline_s = now_s + self._timeout_s
        record.beat_s = now_s
        record.heartbeat = heartbeat
        return True

    def release(self, name: str) -> None:
        """Watch it no longer: it ended or is about to. Its last figures stay."""
        record = self._records.get(name)
        if record is not None:
            record.deadline_s = None

    def forget(self, name: str) -> None:
        """Drop everything about it."""
        self._records.pop(name, None)

    def late(self, now_s: float) -> list[str]:
        """Names of watched processes whose next heartbeat is overdue."""
        return [
            name
            for name, record in self._records.items()
            if record.deadline_s is not None and now_s >= record.deadline_s
        ]

    def postpone(self, pause_s: float) -> None:
        """The supervisor itself did not run for so long: nobody is late because of that."""
        for record in self._records.values():
            if record.deadline_s is not None:
                record.deadline_s += pause_s

    def next_deadline_s(self) -> float | None:
        """When somebody will be late first."""
        return min((r.deadline_s for r in self._records.values() if r.deadline_s is not None), default=None)

    def age_s(self, name: str, now_s: float) -> float | None:
        """Seconds since the last heartbeat of a watched process; None before the first."""
        record = self._records.get(name)
        if record is None or record.deadline_s is None or record.beat_s is None:
            return None
        return now_s - record.beat_s

    def state(self, name: str) -> str | None:
        """What the process last said of itself."""
        record = self._records.get(name)
        return record.heartbeat.state if record is not None and record.heartbeat is not None else None

    def statistics(self, name: str) -> dict[str, Any]:
        """The figures of its last heartbeat."""
        record = self._records.get(name)
        return record.heartbeat.statistics if record is not None and record.heartbeat is not None else {}
