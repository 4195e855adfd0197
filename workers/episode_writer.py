"""EpisodeWriter: a stream that knows its environments' episodes, ends them, and shows where each stands.

What the session records step by step and what a viewer is shown of it meet here, so that both say the same.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

from runlane.config import log_ids
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.endpoint import run_dir_of
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import EpisodeRecord, Outcome, Record, RunRecord
from runlane.transport.ring_layout import RingInfo
from runlane.workers.episode_tracker import EpisodeTracker, VectorTracker
from runlane.workers.fast_lane import FastLane, NoFastLane
from runlane.workers.journal_writer import DROP_BYTES, JournalFullError
from runlane.workers.shown_step import ShownStep, Standing
from runlane.workers.stream_writer import SMALL_BYTES, NoRoomError, StreamWriter, holds_turns

_time_ns = time.time_ns
# What a switch of the mode takes: a drop record of each kind, and its own.
SWITCH_BYTES = 8 * DROP_BYTES + SMALL_BYTES


class EpisodeWriter(StreamWriter):
    """A stream, the running episodes of its environments, and its fast lane (`lane`)."""

    def __init__(self, info: StreamInfo, endpoint: str, settings: Settings) -> None:
        """As `StreamWriter`; the ring is made at the first look of the fast lane."""
        self.env_count = 1
        self.fast_lane_settings = settings.fast_lane
        self.lane: FastLane | NoFastLane = NoFastLane()
        super().__init__(info, endpoint, settings)
        if settings.fast_lane.enabled:
            self.lane = FastLane(self, run_dir_of(settings), settings.fast_lane)
        self.lane.set_mode(self.telemetry_mode)

    def _open(self, info: StreamInfo) -> None:
        """Start a stream with nothing in it."""
        self._reset_rows: int = 0
        self._vector_steps: int = 0
        self._unkept_steps: int = 0
        self._tracker = EpisodeTracker()
        self._trackers: dict[int, EpisodeTracker] = {0: self._tracker}
        self._vector: VectorTracker | None = None
        self._shown = ShownStep(self._settings.fast_lane.return_window)
        super()._open(info)
        self._journal.set_clock(self._note_start)

    # ---- what is shown ----

    def frame(self, frame: Any, *, reward: float = math.nan, env_index: int = 0) -> None:
        """Show a picture of the newest step to whoever is watching; without a viewer nothing happens.

        `frame` is an array (height, width[, channels]), or better a function that returns one, as `env.render`: it
        is called only when a viewer wants a frame now. To be called after `step()`, in the environment's thread.
        """
        if self.can_show:
            self.lane.offer(frame, reward=reward, env_index=env_index)

    @property
    def can_show(self) -> bool:
        """Whether there is something of ours to show: a forked child that records nothing shows nothing."""
        return not (self._is_closed or self._is_forked)

    @property
    def env_steps(self) -> int:
        """Environment steps so far, without resets: those recorded, and those that the mode does not keep."""
        journal = self._journal
        return journal.seq - journal.other_records - self._reset_rows + self._vector_steps + self._unkept_steps

    def standing(self, env_index: int) -> Standing:
        """Where an environment stands after the newest step. Waits for its turn: a record may be half noted."""
        while self._busy:
            if self._wait_turn(""):
                return Standing(0, 0, 0.0)
        self._busy = True
        try:
            return self._standing(env_index)
        finally:
            self._busy = False

    def _standing(self, env_index: int) -> Standing:
        vector = self._vector
        if vector is not None and env_index < vector.env_count:
            step_seq = self._shown.step_seq(self._journal.seq)
            return self._shown.standing(env_index, step_seq, *vector.running(env_index))
        step_seq = self._shown.row_seq(env_index, self._journal.seq)
        tracker = self._track(env_index)
        return self._shown.standing(env_index, step_seq, tracker.place, tracker.episode_return)

    def rolling_return(self) -> float:
        """Mean return of the newest episodes, as many as `fast_lane.return_window`; 0 before the first."""
        return self._shown.mean_return()

    def ring_info(self) -> RingInfo:
        """What our ring says of itself."""
        info = self.info
        return RingInfo(
            run=info.run,
            worker=info.worker,
            stream=info.stream,
            run_name=info.run_name,
            host=info.host,
            env_count=self.env_count,
        )

    # ---- the telemetry mode, in a turn ----

    def _take_mode(self, mode: TelemetryMode) -> None:
        """Switch: tell what is untold, record the switch, then turn the lane. An interrupt has it done again.

        Where the journal has no room to say so nothing is switched, and it is tried again.
        """
        journal = self._journal
        if not journal.seq or not self._try_room(SWITCH_BYTES):
            return
        step_seq = self._shown.step_seq(journal.seq)
        try:
            self._count_refused()
            journal.tell_drops(self._untold)
            facts = {"telemetry_mode": mode.value, "env_steps": self.env_steps}
            journal.append("run", lambda seq: RunRecord(seq, _time_ns(), "running", facts))
        finally:
            self._shown.note_behind(journal.seq, step_seq)
        super()._take_mode(mode)
        self.lane.set_mode(mode)
        log_event(log_ids.WORKER_MODE, worker=self.info.worker, mode=mode.value, env_steps=facts["env_steps"])

    def _skip(self, kind: str) -> None:
        super()._skip(kind)
        if kind == "step":
            self._note_no_step()

    # ---- episodes, in a turn ----

    def _track(self, env_index: int) -> EpisodeTracker:
        tracker = self._trackers.get(env_index)
        if tracker is None:
            tracker = self._trackers[env_index] = EpisodeTracker()
        return tracker

    def _end_episode(
        self, tracker: EpisodeTracker, env_index: int, outcome: Outcome, info: dict[str, Any] | None
    ) -> None:
        now_ns = _time_ns()
        duration_s = (now_ns - tracker.started_ns) / 1e9 if tracker.started_ns else 0.0
        episode, length, total = tracker.episode, tracker.step, float(tracker.episode_return)
        step_seq = self._shown.step_seq(self._journal.seq)
        self._shown.note_end(env_index, Standing(step_seq, tracker.place, total))
        tracker.begin_next()
        try:
            self._append(
                "episode",
                lambda seq: EpisodeRecord(seq, now_ns, env_index, episode, total, length, outcome, duration_s, info),
            )
        finally:
            self._journal.set_clock(self._note_start)

    def _note_start(self) -> int:
        """The clock of an episode's first step, which notes when it was."""
        now_ns = _time_ns()
        if not self._tracker.started_ns:
            self._tracker.started_ns = now_ns
        self._journal.set_clock(_time_ns)
        return now_ns

    def _end_vector_episode(self, vector: VectorTracker, index: int, outcome: Outcome) -> None:
        running = EpisodeTracker(
            int(vector.episode[index]),
            int(vector.step[index]),
            float(vector.episode_return[index]),
            int(vector.started_ns[index]),
        )
        vector.begin_next(index)
        with contextlib.suppress(NoRoomError):  # counted; the other environments' episodes have a right to be tried
            self._end_episode(running, index, outcome, None)

    def _append(self, kind: str, make: Callable[[int], Record]) -> None:
        """As `StreamWriter`, and note which step it stands behind."""
        step_seq = self._shown.step_seq(self._journal.seq)
        try:
            super()._append(kind, make)
        finally:  # also when drops were told, and then there was no room
            self._shown.note_behind(self._journal.seq, step_seq)

    def _note_no_step(self) -> None:
        """A step was made and has no row: no frame may pass for one of the row before."""
        self._shown.note_behind(self._journal.seq, 0)

    def _drop(self, kind: str, full: JournalFullError) -> None:
        super()._drop(kind, full)
        if kind == "step":
            self._note_no_step()


holds_turns(__file__)
