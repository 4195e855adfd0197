"""WorkerSession: the one object a training loop holds. Its calls return at once and never raise.

Knows steps, episodes and metrics; how their records become a stream is `StreamWriter`'s part.
"""

import atexit
import contextlib
import os
import struct
import sys
import time
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from runlane.config import log_ids
from runlane.config.settings import Settings
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import (
    HUMAN,
    IS_RESET,
    TERMINATED,
    TRUNCATED,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Outcome,
    RunRecord,
    RunState,
)
from runlane.workers.episode_tracker import EpisodeTracker, VectorTracker
from runlane.workers.plain_values import MAX_NAME_CHARACTERS, plain_map, short_text
from runlane.workers.step_layout import StepLayout, VectorLayout, field_of
from runlane.workers.stream_writer import NoRoomError, StreamWriter

_time_ns = time.time_ns
_SESSIONS: "weakref.WeakSet[WorkerSession]" = weakref.WeakSet()
_ENDED = TERMINATED | TRUNCATED


class WorkerSession(StreamWriter):
    """One stream of records, from this process to its proxy. Safe to call from several threads."""

    is_attached = True

    def __init__(self, info: StreamInfo, endpoint: str, settings: Settings, facts: dict[str, Any]) -> None:
        """`facts` become the run's command, config, host and versions. Use `attach()` instead of this."""
        self._failure = ""
        self._facts = facts
        super().__init__(info, endpoint, settings)
        self._add("run", self._running_record)
        _SESSIONS.add(self)
        atexit.register(self._at_exit)

    def _open(self, info: StreamInfo) -> None:
        """Start a stream with nothing in it."""
        self._reset_rows = 0
        self._vector_steps = 0
        self._tracker = EpisodeTracker()
        self._trackers: dict[int, EpisodeTracker] = {0: self._tracker}
        self._vector: VectorTracker | None = None
        super()._open(info)

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
                tracker = self._tracker if env_index == 0 else self._track(env_index)
                if batch.seq >= batch.full_seq:
                    try:
                        batch = self._make_room("step")
                    except NoRoomError:  # the row is lost, and counted; the episode still has to be right
                        if not is_reset:
                            tracker.step += 1
                            tracker.episode_return += float(reward)
                            if terminated or truncated:
                                self._end_episode(tracker, env_index, "terminated" if terminated else "truncated", None)
                        return
                    tracker = self._track(env_index)  # a forked child has just begun anew
                episode, number = tracker.episode, tracker.step + 1
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
                            batch.buffer, batch.offset, seq, t_ns, episode, number, env_index, flags, reward, action
                        )
                        is_packed = True
                    except (TypeError, struct.error):  # a row unlike the last
                        pass
                if not is_packed:
                    self._write_row((seq, t_ns, episode, number, env_index, flags, reward), action, observation)
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
        except NoRoomError:
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
                try:
                    self._write_vector_row(self._vector, values, flags, resets, [actions, observations])
                finally:  # also when the row found no room: the episodes still have to be right
                    ended = flags & _ENDED if resets is None else np.where(resets, 0, flags & _ENDED)
                    for index in np.flatnonzero(ended):
                        outcome: Outcome = "terminated" if flags[index] & TERMINATED else "truncated"
                        self._end_vector_episode(self._vector, int(index), outcome)
        except NoRoomError:
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
        except NoRoomError:
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
        except NoRoomError:
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
        self._add(
            "metric",
            lambda seq: MetricRecord(seq, _time_ns(), short_text(name, MAX_NAME_CHARACTERS), float(value), int(step)),
        )

    def log(self, text: str, level: str = "info") -> None:
        """Record one line of text."""
        self._add(
            "log",
            lambda seq: LogRecord(seq, _time_ns(), short_text(level, MAX_NAME_CHARACTERS), short_text(text)),
        )

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
            self._seal_rest()
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

    # ---- records; the lock is held

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
        with contextlib.suppress(NoRoomError):  # counted; the other environments' episodes have a right to be tried
            self._end_episode(running, index, outcome, None)

    def _write_row(self, fixed: tuple[Any, ...], action: Any, observation: Any) -> None:
        """Pack a row the general way, in a new layout if it does not fit the one in use."""
        if not self._batch.write_row(fixed, action, observation):
            action, observation = self._packable("action", action), self._packable("observation", observation)
            layout = StepLayout(len(self._batch.schemas), action, observation)
            layout.pack(bytearray(layout.row_bytes), 0, fixed, action, observation)  # raises if no layout can hold it
            if not self._batch.write_row(fixed, action, observation):
                self._use(layout)
                self._batch.write_row(fixed, action, observation)

    def _write_vector_row(
        self, vector: VectorTracker, rewards: Any, flags: Any, is_reset: Any, optional: list[Any]
    ) -> None:
        t_ns = _time_ns()
        vector.count(rewards, is_reset, t_ns)
        batch = self._make_room("step") if self._batch.is_full else self._batch
        columns = [vector.episode, vector.step, flags, rewards]
        fixed = (batch.seq + 1, t_ns)
        if not batch.write_vector_row(fixed, columns, optional, vector.env_count):
            optional = [
                self._packable(name, value) for name, value in zip(("action", "observation"), optional, strict=True)
            ]
            layout = VectorLayout(len(batch.schemas), vector.env_count, *optional)
            layout.pack_into(bytearray(layout.row_bytes), 0, *fixed, columns, optional)  # as in `_write_row`
            if not batch.write_vector_row(fixed, columns, optional, vector.env_count):
                self._use(layout)
                batch.write_vector_row(fixed, columns, optional, vector.env_count)
        batch.keep_row(batch.layout.row_bytes)  # type: ignore[union-attr]
        # `env_steps` counts this row as one step; the rest of its environments are added here.
        self._vector_steps += vector.env_count - 1 - (0 if is_reset is None else int(is_reset.sum()))

    def _packable(self, name: str, value: Any) -> Any:
        """The value, or None where it is no number and no array of numbers: the step is kept without it."""
        try:
            field_of(name, value)
        except (TypeError, ValueError) as error:
            self._fault(name, error)
            return None
        return value

    # ---- ends --------------------------------------------------------------------------------------------

    def _running_record(self, seq: int) -> RunRecord:
        return RunRecord(seq, _time_ns(), "running", self._facts)

    def _reopen(self) -> None:
        """A forked child is a stream of its own, which says so. multiprocessing ends children without `atexit`."""
        super()._reopen()
        self._batch.append("run", self._running_record)
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(self, self._at_exit, exitpriority=100)

    def _at_exit(self) -> None:
        """The script ended without `close()`: say how, as far as the interpreter knows."""
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("stopped")
        else:
            self._failure = short_text(f"{type(error).__name__}: {error}")
            self.close("failed")


def _after_fork_in_child() -> None:
    for session in list(_SESSIONS):
        session._mark_forked()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the class's own hook


os.register_at_fork(after_in_child=_after_fork_in_child)
