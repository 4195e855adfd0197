"""WorkerSession: the one object a training loop holds. Its calls return at once and never raise.

A record gets its seq under one lock and goes into the batch being filled. A full batch, or one as old as
`batch_age_ms`, goes to the outbox. When the outbox is full the chosen rule applies: `block` waits,
`drop_newest` gives the record no seq and counts it in a `drop` record.
"""

import atexit
import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import numpy as np

from runlane.config import log_ids
from runlane.config.settings import Settings
from runlane.transport.identity import new_stream_id
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import (
    HUMAN,
    IS_RESET,
    TERMINATED,
    TRUNCATED,
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Outcome,
    Record,
    RunRecord,
    RunState,
)
from runlane.transport.wire import MAX_BODY_BYTES
from runlane.workers.batch_builder import BatchBuilder
from runlane.workers.episode_tracker import EpisodeTracker, VectorTracker
from runlane.workers.outbox import Outbox
from runlane.workers.plain_values import plain_map
from runlane.workers.step_layout import StepLayout, VectorLayout

_time_ns = time.time_ns
_SESSIONS: "weakref.WeakSet[WorkerSession]" = weakref.WeakSet()
_ENDED = TERMINATED | TRUNCATED


class _NoRoom(Exception):  # noqa: N818  control flow inside this file, never seen outside
    """The outbox is full and the rule is not to wait: the record gets no seq, and was counted."""


class WorkerSession:
    """One stream of records, from this process to its proxy. Safe to call from several threads."""

    is_attached = True

    def __init__(self, info: StreamInfo, endpoint: str, settings: Settings, facts: dict[str, Any]) -> None:
        """`facts` become the run's command, config, host and versions. Use `attach()` instead of this."""
        self.faults = 0
        self.dropped: dict[str, int] = {}
        self._settings = settings
        self._endpoint = endpoint
        self._failure = ""
        self._is_closed = False
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._open(info)
        self._add("run", lambda seq: RunRecord(seq, _time_ns(), "running", facts))
        _SESSIONS.add(self)
        atexit.register(self._at_exit)

    def _open(self, info: StreamInfo) -> None:
        """Start a stream with nothing in it."""
        self.info = info
        self._reset_rows = 0
        self._vector_steps = 0
        self._tracker = EpisodeTracker()
        self._trackers: dict[int, EpisodeTracker] = {0: self._tracker}
        self._vector: VectorTracker | None = None
        self._unreported: dict[str, int] = {}
        self._is_forked = False
        self._wait_until_s = float("inf")
        self._is_wait_logged = False
        self._batch = BatchBuilder(self._settings.session.batch_records)
        self._outbox = Outbox(info, self._endpoint, self._settings, self._seal_old, self._on_room)
        self._outbox.start()

    # ---- what a training loop calls ----------------------------------------------------------------------

    def step(  # noqa: C901  the hot path: one flat function, no calls it can do without
        self,
        action: Any = None,
        reward: float = 0.0,
        terminated: bool = False,
        truncated: bool = False,
        *,
        observation: Any = None,
        info: Mapping[str, Any] | None = None,
        env_index: int = 0,
        is_reset: bool = False,
        is_human: bool = False,
    ) -> None:
        """Record one environment step.

        `action` and `observation` are numbers or numeric arrays (one dtype and size per run of rows; a change
        opens a new schema). `terminated` or `truncated` ends the episode and writes its record. `is_reset`
        marks the row an autoreset makes: it has step 0 and counts for nothing.
        """
        try:
            with self._lock:
                batch = self._batch
                if batch.seq >= batch.full_seq:
                    batch = self._make_room("step")
                tracker = self._tracker if env_index == 0 else self._track(env_index)
                number = tracker.step + 1
                flags = 0
                if terminated:
                    flags = TERMINATED
                if truncated:
                    flags |= TRUNCATED
                if is_human:
                    flags |= HUMAN
                if is_reset:
                    flags |= IS_RESET
                    number = 0
                t_ns = _time_ns()
                seq = batch.seq + 1
                is_packed = False
                if observation is None and batch.is_plain:
                    try:
                        batch.pack_into(
                            batch.buffer,
                            batch.offset,
                            seq,
                            t_ns,
                            tracker.episode,
                            number,
                            env_index,
                            flags,
                            reward,
                            action,
                        )
                        is_packed = True
                    except (TypeError, struct.error):  # a row unlike the last
                        pass
                if not is_packed:
                    self._write_row((seq, t_ns, tracker.episode, number, env_index, flags, reward), action, observation)
                batch.offset += batch.layout.row_bytes  # type: ignore[union-attr]
                batch.seq = seq
                if number:
                    tracker.step = number
                    tracker.episode_return += float(reward)  # the sum of float32 rewards would drift
                    if number == 1:
                        tracker.started_ns = t_ns
                else:
                    self._reset_rows += 1
                if flags & _ENDED and number:
                    self._end_episode(tracker, env_index, "terminated" if terminated else "truncated", None)
                if info:
                    facts = plain_map(info)
                    self._append("info", lambda own: InfoRecord(own, seq, env_index, facts))
        except _NoRoom:
            return
        except Exception as error:
            self._fault("step", error)

    def step_vector(
        self,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        *,
        observations: Any = None,
        is_reset: Any = None,
    ) -> None:
        """Record one step of n environments as one row; the first axis of every argument is the environment.

        `is_reset` marks environments whose step only reset them (NEXT_STEP autoreset).
        """
        try:
            with self._lock:
                values = np.asarray(rewards, np.float64).reshape(-1)
                if self._vector is None or self._vector.env_count != values.size:
                    self._vector = VectorTracker(values.size)
                resets = None if is_reset is None else np.asarray(is_reset, bool)
                flags = self._vector.flags(terminated, truncated, resets)
                self._write_vector_row(self._vector, values, flags, resets, [actions, observations])
                for index in np.flatnonzero(flags & _ENDED):
                    outcome: Outcome = "terminated" if flags[index] & TERMINATED else "truncated"
                    self._end_vector_episode(self._vector, int(index), outcome)
        except _NoRoom:
            return
        except Exception as error:
            self._fault("step_vector", error)

    def episode(
        self,
        episode_return: float | None = None,
        length: int | None = None,
        *,
        outcome: Outcome = "terminated",
        info: Mapping[str, Any] | None = None,
        env_index: int = 0,
    ) -> None:
        """End the running episode by hand. `step()` does it when `terminated` or `truncated` is set.

        For loops that give up an episode early (`outcome="abandoned"`), or that log whole episodes only: then
        give `episode_return` and `length`. Without steps and without a return there is nothing to record.
        """
        try:
            with self._lock:
                tracker = self._track(env_index)
                if tracker.step == 0 and episode_return is None:
                    return
                if episode_return is not None:
                    tracker.episode_return = float(episode_return)
                if length is not None:
                    tracker.step = int(length)
                self._end_episode(tracker, env_index, outcome, plain_map(info) if info else None)
        except _NoRoom:
            return
        except Exception as error:
            self._fault("episode", error)

    def abandon_vector_episodes(self, is_abandoned: Any = None) -> None:
        """End running episodes of a vector environment that is reset by hand; all, or those of a mask of n."""
        try:
            with self._lock:
                vector = self._vector
                if vector is None:
                    return
                running = vector.step > 0
                for index in np.flatnonzero(running if is_abandoned is None else running & np.asarray(is_abandoned)):
                    self._end_vector_episode(vector, int(index), "abandoned")
        except _NoRoom:
            return
        except Exception as error:
            self._fault("abandon_vector_episodes", error)

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Record one named scalar. `step` defaults to the environment steps recorded so far."""
        self.metrics({name: value}, step)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record several named scalars of one moment."""
        try:
            at = self.env_steps if step is None else step
            for name, value in values.items():
                self._metric(name, value, at)
        except Exception as error:
            self._fault("metric", error)

    def _metric(self, name: str, value: float, step: int) -> None:
        self._add("metric", lambda seq: MetricRecord(seq, _time_ns(), str(name), float(value), int(step)))

    def log(self, text: str, level: str = "info") -> None:
        """Record one line of text."""
        self._add("log", lambda seq: LogRecord(seq, _time_ns(), str(level), str(text)))

    def frame(self, frame: Any) -> None:
        """Reserved for the fast lane: accepted and ignored in this version."""

    def close(self, state: RunState = "finished") -> bool:
        """Send everything and wait for the last ack at most `session.close_s`; True when all is committed.

        Called at interpreter exit when the script does not. Calling it again does nothing.
        """
        with self._lock:
            if self._is_closed or self._is_forked:
                return True
            deadline_s = self._wait_until_s = time.monotonic() + self._settings.session.close_s
        for index in list(self._trackers):
            self.episode(outcome="abandoned", env_index=index)
        self.abandon_vector_episodes()
        facts = {"env_steps": self.env_steps, "faults": self.faults, "error": self._failure}
        self._add("run", lambda seq: RunRecord(seq, _time_ns(), state, facts))
        with self._lock:
            self._is_closed = True
            self._seal()
            self._report_drops()
            self._seal()
            self._batch.end()
        is_drained = self._outbox.close(deadline_s)
        if not is_drained:
            log_event(log_ids.WORKER_UNDRAINED, worker=self.info.worker, records=self._outbox.pending_records)
        atexit.unregister(self._at_exit)
        return is_drained

    @property
    def env_steps(self) -> int:
        """Environment steps recorded so far, without resets."""
        batch = self._batch
        return batch.taken_rows + batch.rows - self._reset_rows + self._vector_steps

    def statistics(self) -> dict[str, Any]:
        """Figures of this session: records given a seq, committed, dropped, faults."""
        return {
            "stream": self.info.stream,
            "records": self._batch.seq,
            "acked": self._outbox.window.oldest_seq - 1,
            "env_steps": self.env_steps,
            "dropped": dict(self.dropped),
            "faults": self.faults,
        }

    # ---- records; the lock is held in all of these but `_add` ---------------------------------------------

    def _track(self, env_index: int) -> EpisodeTracker:
        tracker = self._trackers.get(env_index)
        if tracker is None:
            tracker = self._trackers[env_index] = EpisodeTracker()
        return tracker

    def _add(self, kind: str, make: Callable[[int], Record]) -> None:
        try:
            with self._lock:
                self._append(kind, make)
        except _NoRoom:
            return
        except Exception as error:
            self._fault(kind, error)

    def _append(self, kind: str, make: Callable[[int], Record]) -> None:
        batch = self._batch
        if batch.is_full:
            batch = self._make_room(kind)
        batch.append(kind, make)

    def _end_episode(
        self, tracker: EpisodeTracker, env_index: int, outcome: Outcome, info: dict[str, Any] | None
    ) -> None:
        now_ns = _time_ns()
        duration_s = (now_ns - tracker.started_ns) / 1e9 if tracker.started_ns else 0.0
        episode, length, total = tracker.episode, tracker.step, float(tracker.episode_return)
        tracker.begin_next()
        self._append(
            "episode",
            lambda seq: EpisodeRecord(seq, now_ns, env_index, episode, total, length, outcome, duration_s, info),
        )

    def _end_vector_episode(self, vector: VectorTracker, index: int, outcome: Outcome) -> None:
        running = EpisodeTracker(
            int(vector.episode[index]),
            int(vector.step[index]),
            float(vector.episode_return[index]),
            int(vector.started_ns[index]),
        )
        vector.begin_next(index)
        self._end_episode(running, index, outcome, None)

    def _write_row(self, fixed: tuple[Any, ...], action: Any, observation: Any) -> None:
        """Pack a row the general way, in a new layout if it does not fit the one in use."""
        if not self._batch.write_row(fixed, action, observation):
            layout = StepLayout(len(self._batch.schemas), action, observation)
            layout.pack(bytearray(layout.row_bytes), 0, fixed, action, observation)  # raises if no layout can hold it
            self._use(layout)
            self._batch.write_row(fixed, action, observation)

    def _write_vector_row(
        self, vector: VectorTracker, rewards: Any, flags: Any, is_reset: Any, optional: list[Any]
    ) -> None:
        batch = self._make_room("step") if self._batch.is_full else self._batch
        t_ns = _time_ns()
        vector.count(rewards, is_reset, t_ns)
        columns = [vector.episode, vector.step, flags, rewards]
        fixed = (batch.seq + 1, t_ns)
        if not batch.write_vector_row(fixed, columns, optional, vector.env_count):
            layout = VectorLayout(len(batch.schemas), vector.env_count, *optional)
            layout.pack_into(bytearray(layout.row_bytes), 0, *fixed, columns, optional)  # as in `_write_row`
            self._use(layout)
            batch.write_vector_row(fixed, columns, optional, vector.env_count)
        batch.keep_row(batch.layout.row_bytes)  # type: ignore[union-attr]
        # `env_steps` counts this row as one step; the rest of its environments are added here.
        self._vector_steps += vector.env_count - 1 - (0 if is_reset is None else int(is_reset.sum()))

    # ---- batches; the lock is held ------------------------------------------------------------------------

    def _use(self, layout: StepLayout | VectorLayout) -> None:
        """Write rows in a new layout from here on: a batch holds rows of one layout."""
        if layout.row_bytes > MAX_BODY_BYTES:
            raise ValueError(f"one step of {layout.row_bytes} bytes, a frame holds {MAX_BODY_BYTES}")
        self._seal()
        if self._batch.use(layout):
            self.info = msgspec.structs.replace(self.info, schemas=list(self._batch.schemas))
            self._outbox.announce(self.info)

    def _make_room(self, kind: str) -> BatchBuilder:
        """The batch is full, or not ours: seal it, wait, or give up the record. Returns the one to fill."""
        if self._is_forked:
            self._reopen()
        if self._outbox.is_full:
            self._wait_for_room(kind)
        if self._is_closed:
            raise RuntimeError("the session is closed")
        self._seal()
        self._report_drops()
        return self._batch

    def _wait_for_room(self, kind: str) -> None:
        is_block = self._settings.session.overflow == "block"
        if is_block and not self._is_wait_logged:
            self._is_wait_logged = True
            log_event(log_ids.WORKER_BLOCKED, worker=self.info.worker, bytes=self._outbox.held_bytes)
        while self._outbox.is_full and time.monotonic() < self._wait_until_s:
            if not is_block or self._outbox.has_ended:  # nobody is left who could make room
                break
            self._room.wait(0.1)
        if self._outbox.is_full:
            if not self.dropped:
                log_event(log_ids.WORKER_DROPPED, worker=self.info.worker, kind=kind)
            self.dropped[kind] = self.dropped.get(kind, 0) + 1
            self._unreported[kind] = self._unreported.get(kind, 0) + 1
            raise _NoRoom

    def _report_drops(self) -> None:
        """Tell of what was dropped, now that there is room in an empty batch."""
        while self._unreported:
            kind, records = self._unreported.popitem()
            self._batch.append("drop", partial(_drop_record, kind, records))

    def _seal(self) -> None:
        """Hand the batch over, whatever it holds."""
        is_full = self._batch.is_full
        sealed = self._batch.take()
        if sealed is not None:
            self._outbox.put(sealed, is_urgent=is_full)

    # ---- called by the outbox thread ----------------------------------------------------------------------

    def _seal_old(self) -> None:
        """Nothing waits longer than one tick, also while training calls nothing for seconds."""
        if self._batch.count and not self._outbox.is_full:
            with self._lock:
                self._seal()

    def _on_room(self) -> None:
        with self._lock:
            self._room.notify_all()

    # ---- ends --------------------------------------------------------------------------------------------

    def _fault(self, where: str, error: Exception) -> None:
        self.faults += 1
        if self.faults == 1:
            log_event(log_ids.WORKER_FAULT, where=where, error=f"{type(error).__name__}: {error}", count=1)

    def _at_exit(self) -> None:
        """The script ended without `close()`: say how, as far as the interpreter knows."""
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("stopped")
        else:
            self._failure = f"{type(error).__name__}: {error}"
            self.close("failed")

    def _mark_forked(self) -> None:
        """In a forked child: the lock may be held by a thread that is not here, the socket is the parent's."""
        self._is_forked = True
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._batch = BatchBuilder(0)  # full at once, so the first record comes to `_make_room`

    def _reopen(self) -> None:
        """A forked child that records becomes a stream of its own."""
        self._open(
            msgspec.structs.replace(
                self.info, stream=new_stream_id(), pid=os.getpid(), started_ns=_time_ns(), schemas=[]
            )
        )


def _drop_record(kind: str, records: int, seq: int) -> DropRecord:
    return DropRecord(seq, _time_ns(), kind, "outbox_full", records)


def _after_fork_in_child() -> None:
    for session in list(_SESSIONS):
        session._mark_forked()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the class's own hook


os.register_at_fork(after_in_child=_after_fork_in_child)
