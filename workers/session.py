"""WorkerSession: the one object a training loop holds. Its calls return at once and never raise.

When a call has returned, its record is in the journal and survives `kill -9`. Knows steps, episodes and metrics;
how their records become a stream is `StreamWriter`'s part.
"""

import atexit
import os
import struct
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any
from zlib import adler32

import msgspec
import numpy as np

from runlane.config.settings import Settings
from runlane.transport.identity import new_stream_id
from runlane.transport.messages import StreamInfo
from runlane.transport.records import (
    HUMAN,
    IS_RESET,
    TERMINATED,
    TRUNCATED,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Outcome,
    RunRecord,
    RunState,
)
from runlane.workers.episode_tracker import ONE_STEP, VectorTracker
from runlane.workers.plain_values import MAX_FACTS_BYTES, MAX_NAME_CHARACTERS, number_of, plain_map, short_text
from runlane.workers.row_writer import RowWriter
from runlane.workers.secret import masked
from runlane.workers.stream_writer import NoRoomError, holds_turns

STOPPED_SHARE = 0.6
_time_ns = time.time_ns
_TAIL = struct.Struct("<IB")  # env_index and flags
_TAILS = [_TAIL.pack(0, flags) for flags in range(4)]  # TERMINATED and TRUNCATED
_NO_FLAGS = _TAILS[0]
_UNLIKE = (TypeError, ValueError, AttributeError, struct.error)
_SESSIONS: "weakref.WeakSet[WorkerSession]" = weakref.WeakSet()
_ENDED = TERMINATED | TRUNCATED


class WorkerSession(RowWriter):
    """One stream of records, from this process to its proxy. Safe to call from several threads."""

    is_attached = True

    def __init__(self, info: StreamInfo, endpoint: str, settings: Settings, facts: dict[str, Any]) -> None:
        """`facts` become the run's command, config, host and versions. Use `attach()` instead of this."""
        self._failure = ""
        self._before_close: dict[Callable[[], object], None] = {}
        self._facts = facts
        super().__init__(info, endpoint, settings)
        self._add("run", self._running_record)
        _SESSIONS.add(self)
        atexit.register(self._at_exit)
        self._end_with_multiprocessing()

    # ---- what a training loop calls ----------------------------------------------------------------------

    def step(  # noqa: C901  the hot path: one flat function, no calls it can do without
        self,
        action: Any = None,
        reward: float = 0.0,
        terminated: bool = False,
        truncated: bool = False,
        # No `*` here, though the rest is meant to be named: keyword-only arguments cost every call 0.07 µs.
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
        while self._busy:
            if self._wait_turn("step"):
                return
        self._busy = True  # no call between this and the look before it: see `stream_writer.py`
        try:
            journal = self._journal
            if not (info or env_index or is_reset or is_human) and (offset := journal.offset) < journal.stop_offset:
                try:
                    if type(reward) is not float:
                        reward = float(reward)  # the sum of float32 rewards would drift
                    tracker = self._tracker
                    place = tracker.place + ONE_STEP
                    seq = journal.seq + 1
                    tail = _NO_FLAGS
                    if terminated or truncated:
                        tail = _TAILS[(TERMINATED if terminated else 0) | (TRUNCATED if truncated else 0)]
                    clock, pack, prefix, put, view, size, dtype, observation_bytes = journal.row_kit
                    if observation is None:
                        row = pack(prefix, seq, clock(), place, tail, reward, action)
                    elif observation.dtype is dtype:
                        values = observation.tobytes()
                        if len(values) != observation_bytes:
                            raise ValueError
                        row = pack(prefix, seq, clock(), place, tail, reward, action, values)
                    else:
                        raise TypeError
                    put(view, offset, adler32(row), row)
                    journal.offset = offset + size  # no call from here on: see `journal_writer.py`
                    journal.seq = seq
                    tracker.place = place
                    tracker.episode_return += reward
                except _UNLIKE:  # a row unlike the last
                    pass
                else:
                    if tail is not _NO_FLAGS:
                        self._end_episode(tracker, 0, "terminated" if terminated else "truncated", None)
                    return
            self._step(action, reward, terminated, truncated, observation, info, env_index, is_reset, is_human)
        except NoRoomError:
            return
        except Exception as error:
            self._note_no_step()
            self._fault("step", error)
        finally:
            self._busy = False

    def _step(
        self,
        action: Any,
        reward: Any,
        terminated: bool,
        truncated: bool,
        observation: Any,
        info: Mapping[str, Any] | None,
        env_index: int,
        is_reset: bool,
        is_human: bool,
    ) -> None:
        """A step that is unlike the last one, or has to look for room."""
        outcome: Outcome = "terminated" if terminated else "truncated"
        reward = number_of(reward)
        if self._switch.is_skipping and not (self._is_closed or self._is_forked):
            self._step_unkept(reward, outcome, terminated or truncated, info, env_index, is_reset)
            return
        before_seq = self._shown.step_seq(self._journal.seq)
        try:
            journal = self._look("step", self._journal.record_bytes)
            tracker = self._track(env_index)
            flags = (TERMINATED if terminated else 0) | (TRUNCATED if truncated else 0)
            flags |= (HUMAN if is_human else 0) | (IS_RESET if is_reset else 0)
            place = tracker.episode if is_reset else tracker.place + ONE_STEP
            t_ns = _time_ns()
            row = self._row((t_ns, place, _TAIL.pack(env_index, flags), reward), action, observation)
        except NoRoomError:  # the row is lost, and counted; the episode still has to be right
            self._shown.note_row(env_index, before_seq, 0)
            if info and not self._switch.is_kept:
                self._skip("info")
            if not is_reset:
                self._count_step(reward, outcome, terminated or truncated, env_index)
            return
        journal.row_kit[3](journal.view, journal.offset, adler32(row), row)
        seq = journal.seq + 1
        journal.offset, journal.seq = journal.offset + journal.record_bytes, seq
        self._shown.note_row(env_index, before_seq, seq)
        if is_reset:
            self._reset_rows += 1
        else:
            tracker.place = place
            tracker.episode_return += reward
            if not tracker.started_ns:
                tracker.started_ns = t_ns
            if terminated or truncated:
                self._end_episode(tracker, env_index, outcome, None)
        if info:
            self._append_info(seq, env_index, info)

    def _step_unkept(
        self, reward: float, outcome: Outcome, is_last: bool, info: Any, env_index: int, is_reset: bool
    ) -> None:
        """A step that the mode does not keep, and nothing else to look for."""
        if env_index:
            self._shown.note_row(env_index, self._shown.step_seq(self._journal.seq), 0)
        self._skip("step")
        if info:
            self._skip("info")
        if not is_reset:
            self._count_step(reward, outcome, is_last, env_index)

    def _count_step(self, reward: float, outcome: Outcome, is_last: bool, env_index: int) -> None:
        """A step without a row: its episode still has to be right."""
        if not self._switch.is_kept:
            self._unkept_steps += 1
        tracker = self._track(env_index) if env_index else self._tracker
        tracker.place += ONE_STEP
        tracker.episode_return += reward
        if not tracker.started_ns:
            tracker.started_ns = _time_ns()
        if is_last:
            self._end_episode(tracker, env_index, outcome, None)

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
        while self._busy:
            if self._wait_turn("step"):
                return
        self._busy = True
        try:
            values = np.asarray(rewards, np.float64).reshape(-1)
            if self._is_forked:
                self._check_open()
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
            self._note_no_step()
            self._fault("step_vector", error)
        finally:
            self._busy = False

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
        while self._busy:
            if self._wait_turn("episode"):
                return
        self._busy = True
        try:
            if self._is_forked:  # the running episode is the parent's
                if episode_return is None:
                    return
                self._check_open()
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
        finally:
            self._busy = False

    def abandon_vector_episodes(self, is_abandoned: Any = None) -> None:
        """End running episodes of a vector environment that is reset by hand; all, or those of a mask of n."""
        while self._busy:
            if self._wait_turn("episode"):
                return
        self._busy = True
        try:
            vector = self._vector
            if vector is None or self._is_forked:
                return
            for index in vector.begun(is_abandoned):
                self._end_vector_episode(vector, index, "abandoned")
        except NoRoomError:
            return
        except Exception as error:
            self._fault("abandon_vector_episodes", error)
        finally:
            self._busy = False

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

    def note_facts(self, **facts: Any) -> None:
        """Tell the run what is known only now: a `config`, the `env`, any name. The newest of each name stands."""
        try:
            told = masked(plain_map(facts, MAX_FACTS_BYTES))
            self._facts = self._facts | told  # a forked child tells them, too
            self._add("run", lambda seq: RunRecord(seq, _time_ns(), "running", told))
        except Exception as error:
            self._fault("note_facts", error)

    def before_close(self, call: Callable[[], object]) -> None:
        """Have `call` called once as the session is closed, before the end is recorded, at interpreter exit too."""
        self._before_close[call] = None

    def take_back(self, call: Callable[[], object]) -> None:
        """Undo `before_close`."""
        self._before_close.pop(call, None)

    def beside(self, worker: str) -> "WorkerSession":
        """Another stream of the same run, for another worker. Use `attach_beside()` instead of this."""
        changes = {"stream": new_stream_id(), "worker": worker, "pid": os.getpid(), "started_ns": _time_ns()}
        info = msgspec.structs.replace(self.info, **changes, schemas=[], forked_from="")
        return WorkerSession(info, self._endpoint, self._settings, self._facts)

    def close(self, state: RunState = "finished") -> bool:
        """Send everything and wait for the last ack at most `session.close_s`; True when all is committed.

        What is not committed by then stays in the journal, for the proxy or `runlane recover` to store: nothing is
        lost. A run that was "stopped" waits only for a part of `supervisor.worker_grace_s`: somebody wants us gone.
        Called at interpreter exit when the script does not. Calling it again does nothing.
        """
        self.lane.close()
        if self._is_closed or self._is_forked:
            return True
        wait_s = self._settings.session.close_s
        if state == "stopped":
            wait_s = min(wait_s, STOPPED_SHARE * self._settings.supervisor.worker_grace_s)
        deadline_s = self._wait_until_s = time.monotonic() + wait_s
        while self._before_close:
            try:
                self._before_close.popitem()[0]()
            except Exception as error:
                self._fault("close", error)
        for index in list(self._trackers):
            self.episode(outcome="abandoned", env_index=index)
        self.abandon_vector_episodes()
        facts = {"env_steps": self.env_steps, "faults": self.faults, "error": self._failure}
        self._add("run", lambda seq: RunRecord(seq, _time_ns(), state, facts))
        while self._busy:
            if self._wait_turn("run"):
                return False
        self._busy = True
        try:
            if self._is_closed:  # another thread was quicker
                return True
            is_drained = self._end(deadline_s)
        finally:
            self._busy = False
        atexit.unregister(self._at_exit)
        return is_drained

    def statistics(self) -> dict[str, Any]:
        """Figures of this session: records given a seq, committed, dropped, faults."""
        return {
            "stream": self.info.stream,
            "records": self._journal.seq,
            "acked": self._journal.acked_seq,
            "env_steps": self.env_steps,
            "dropped": dict(self.dropped),
            "faults": self.faults,
            "telemetry_mode": self.telemetry_mode.value,
        }

    # ---- records, in a turn

    def _append_info(self, step_seq: int, env_index: int, info: Mapping[str, Any]) -> None:
        facts = plain_map(info)
        self._append("info", lambda seq: InfoRecord(seq, step_seq, env_index, facts))

    # ---- ends --------------------------------------------------------------------------------------------

    def _running_record(self, seq: int) -> RunRecord:
        return RunRecord(seq, _time_ns(), "running", {**self._facts, "telemetry_mode": self.telemetry_mode.value})

    def _reopen(self) -> None:
        """A forked child is a stream of its own, which says so."""
        super()._reopen()
        self._append("run", self._running_record)
        self._end_with_multiprocessing()

    def _end_with_multiprocessing(self) -> None:
        """A process that multiprocessing has started ends without `atexit`."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and sys.modules["multiprocessing"].parent_process() is not None:
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


holds_turns(__file__)
os.register_at_fork(after_in_child=_after_fork_in_child)
