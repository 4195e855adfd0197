"""BridgeSession: a session whose records all come from lines, but for those the bridge itself asks for.

A bridge that is killed has its successor find out which line's record was the last one. So nothing may slip in
between: a switch of the telemetry mode waits until the bridge stands between two lines, and nothing is ever dropped
for want of room: the spool keeps what the journal cannot take yet.
"""

import atexit
import os
import time
from typing import Any

from runlane.config import log_ids
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import RunRecord, RunState
from runlane.workers.episode_tracker import EpisodeTracker
from runlane.workers.journal_writer import JournalFullError
from runlane.workers.jsonl_place import BridgeState, RunningEpisode
from runlane.workers.session import WorkerSession
from runlane.workers.stream_writer import TELL_S

ABANDONED_CODE = 75  # EX_TEMPFAIL: start me again


class BridgeSession(WorkerSession):
    """One stream of a bridge. For one thread; it is closed by the bridge or not at all."""

    def __init__(
        self, info: StreamInfo, endpoint: str, settings: Settings, facts: dict[str, Any], state: BridgeState
    ) -> None:
        """Go on where `state` says the bridge before was."""
        self._is_between_lines = False
        super().__init__(info, endpoint, settings, facts)
        atexit.unregister(self._at_exit)  # a bridge that fails is as good as killed: its successor goes on
        self._unkept_steps: int = state.env_steps
        for index, running in state.trackers.items():
            self._trackers[index] = EpisodeTracker(
                running.episode, running.step, running.episode_return, running.started_ns
            )
        self._tracker = self._trackers.setdefault(0, self._tracker)

    @property
    def seq(self) -> int:
        """Newest record."""
        return self._journal.seq

    @property
    def journal_directory(self) -> str:
        """Where the journal lies."""
        return str(self._journal.directory)

    @property
    def is_kept(self) -> bool:
        """Whether the mode in force keeps records."""
        return self._switch.is_kept

    @property
    def is_switch_due(self) -> bool:
        """Whether another telemetry mode is asked for."""
        return self._switch.is_due

    def running(self) -> dict[int, RunningEpisode]:
        """The running episodes, as a successor needs them."""
        return {
            index: RunningEpisode(tracker.episode, tracker.step, tracker.episode_return, tracker.started_ns)
            for index, tracker in self._trackers.items()
        }

    def running_step(self, env_index: int) -> int:
        """Steps of an environment's running episode."""
        return self._track(env_index).step

    def tell_facts(self, facts: dict[str, Any]) -> None:
        """More facts of the run, from the program itself."""
        self._add("run", lambda seq: RunRecord(seq, time.time_ns(), "running", facts))

    def end(self, state: RunState, error: str) -> bool:
        """Close, and say what became of the program; True when all is committed."""
        self._failure = error
        return self.close(state)

    def switch_mode(self) -> None:
        """Make the switch that is due. To be called between two lines."""
        self._is_between_lines = True
        try:
            super()._take_mode_if_idle()
        finally:
            self._is_between_lines = False

    def _take_mode(self, mode: TelemetryMode) -> None:
        if self._is_between_lines:
            super()._take_mode(mode)

    def _take_mode_if_idle(self) -> None:
        """The flusher's thread never switches: the bridge may be in the middle of a line."""

    def _should_wait(self, full: JournalFullError) -> bool:
        """Wait for room as long as anybody could make some, for what the disk lacks, too; then end as if killed."""
        now_s = time.monotonic()
        if now_s > self._wait_until_s:  # `close` is under way, and all lines are recorded
            return False
        if now_s >= self._tell_wait_s:
            self._tell_wait_s = now_s + TELL_S
            log_event(log_ids.WORKER_BLOCKED, worker=self.info.worker, quota_bytes=self._settings.journal.quota_bytes)
        if self._flusher.has_ended or self._flusher.is_abandoned(now_s):
            log_event(log_ids.JSONL_ABANDONED, worker=self.info.worker, reason=str(full))
            os._exit(ABANDONED_CODE)
        return True
