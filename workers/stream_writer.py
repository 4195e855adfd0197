"""StreamWriter: records into one stream's journal, one call at a time, and the rules for a full one.

Also for one that is not to be filled: in the mode `fast_lane_only` records are given up like those for which there
is no room, and counted and told by the same means.

One call at a time without a lock: a lock costs every step a fifth of what the whole step costs. Instead a plain
flag is tested and set by two instructions between which CPython never switches threads nor runs a signal handler
(it does so at calls and at backward jumps only). `attach()` refuses interpreters without the global lock.
"""

import contextlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import msgspec

from runlane.config import log_ids
from runlane.config.names import JOURNAL_DIR
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.endpoint import data_dir_of
from runlane.transport.identity import new_stream_id
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import Record
from runlane.transport.wire import MAX_BODY_BYTES
from runlane.workers.flusher import Flusher
from runlane.workers.journal_sync import JournalSync
from runlane.workers.journal_writer import DROP_BYTES, JournalFullError, JournalWriter
from runlane.workers.mode_switch import UNKEPT_KINDS, UNKEPT_REASON, ModeSwitch
from runlane.workers.step_layout import StepLayout, VectorLayout

PAUSE_S = 0.01
TURN_S = 0.00005
TELL_S = 10.0
# A full batch is sent at once, but a storm of them in fewer, larger frames.
WAKE_S = 0.004
# A record that says what was lost is small, and must not itself be lost for want of a few bytes.
SMALL_BYTES = 512
# How often records that are not kept are told, so that who looks sees the count grow and the worker alive.
TELL_UNKEPT_S = 1.0


class NoRoomError(Exception):
    """The record is given up, for want of room or by the mode: it gets no seq, and was counted. Never leaves here."""


class StreamWriter:
    """One stream's journal, and its part in two threads. Methods with an underscore are for the session in its turn."""

    # What every step reads lies together: between two steps, training takes all the processor's caches for itself.
    __slots__ = ("__dict__", "__weakref__", "_busy", "_journal", "_tracker")

    def __init__(self, info: StreamInfo, endpoint: str, settings: Settings) -> None:
        """Open the stream; its flusher connects to `endpoint`, in the thread of all flushers."""
        self.faults = 0
        self.dropped: dict[str, int] = defaultdict(int)  # so that counting is no call: a handler may count in between
        self._busy = False
        self._settings = settings
        self._endpoint = endpoint
        self._is_closed = False
        self._mode: TelemetryMode = settings.session.telemetry_mode
        self._open(info)

    def _open(self, info: StreamInfo) -> None:
        """Start a stream with nothing in it."""
        self.info = info
        self._untold: dict[str, tuple[int, str]] = {}
        self._refused: dict[str, int] = defaultdict(int)
        self._is_forked = False
        self._wait_until_s = float("inf")
        self._tell_drop_s = self._tell_wait_s = self._next_wake_s = self._next_tell_s = 0.0
        directory = data_dir_of(self._settings) / JOURNAL_DIR / info.stream
        self._journal = JournalWriter(directory, info, self._settings.journal, self._settings.session.batch_records)
        self._switch = ModeSwitch(self._journal, self._mode, self._take_mode_if_idle)
        self._flusher = Flusher(self._journal, self._endpoint, self._settings, self._switch)
        self._sync = JournalSync(self._journal, self._settings.journal.sync_ms / 1000)
        self._flusher.start()
        self._sync.start()

    # ---- turns ----

    def _wait_turn(self, kind: str) -> bool:
        """Another call is under way. True: give up, for it is this thread's own, interrupted by a signal handler.

        The caller looks at the flag again after this, and takes it without a call in between.
        """
        if _is_inside(self):
            if not kind:  # there is nothing to record
                return True
            self.dropped[kind] += 1
            self._refused[kind] += 1  # told in the next turn: the one under way may be telling drops right now
            self._fault(kind, RuntimeError("recorded inside another call of the session, as by a signal handler"))
            return True
        time.sleep(TURN_S)
        return False

    # ---- records ----

    def _add(self, kind: str, make: Callable[[int], Record]) -> None:
        while self._busy:
            if self._wait_turn(kind):
                return
        self._busy = True
        try:
            self._append(kind, make)
        except NoRoomError:
            return
        except Exception as error:
            self._fault(kind, error)
        finally:
            self._busy = False

    def _append(self, kind: str, make: Callable[[int], Record]) -> None:
        journal = self._look(kind, SMALL_BYTES)
        while needed := journal.append(kind, make):
            self._look(kind, needed)

    # ---- room ----

    def _look(self, kind: str, size: int) -> JournalWriter:
        """Everything that is not done at each step: forks, the end, waking the flusher, room for `size` bytes.

        Raises `NoRoomError` when the record has to be given up.
        """
        self._check_open()
        journal = self._journal
        if journal.is_held:
            wanted = self._switch.wanted  # read once: the flusher's thread may write it at any call
            if wanted is not self._switch.in_force:
                self._take_mode(wanted)
            if kind in UNKEPT_KINDS and not self._switch.is_kept:
                self._skip(kind)
                raise NoRoomError
        if journal.seq >= journal.wake_seq:
            self._wake_flusher(journal)
        if not journal.has_room(size):
            self._make_room(kind, size)
        if self._refused:
            self._count_refused()
        if self._untold:
            journal.tell_drops(self._untold)
            if not journal.has_room(size):
                self._make_room(kind, size)
        journal.set_stop()
        return journal

    def _wake_flusher(self, journal: JournalWriter) -> None:
        """A batch is full, unless the flusher has taken a part of it in a turn of its own; then look when it will be.

        Each wake takes the interpreter from training twice.
        """
        published = 0 if journal.head is None else journal.head.published
        journal.wake_seq = published + journal.wake_every
        if journal.wake_seq > journal.seq:
            return
        journal.wake_seq = journal.seq + journal.wake_every
        now_s = time.monotonic()
        if now_s >= self._next_wake_s:
            self._next_wake_s = now_s + WAKE_S
            self._flusher.wake()

    def _check_open(self) -> None:
        """Raise when the session is closed; in a forked child begin a stream of its own."""
        if self._is_closed:
            raise RuntimeError("the session is closed")
        if self._is_forked:
            self._reopen()

    def _make_room(self, kind: str, size: int) -> None:
        while True:
            try:
                self._journal.rotate(size)
            except JournalFullError as full:
                if not self._should_wait(full):
                    self._drop(kind, full)
                    raise NoRoomError from None
                self._flusher.wake()  # what is not published yet will not be acked; and training needs no interpreter
                time.sleep(PAUSE_S)
            else:
                return

    def _should_wait(self, full: JournalFullError) -> bool:
        """At the quota `block` waits, as long as somebody is there who could make room. A full disk never does."""
        now_s = time.monotonic()
        if full.reason != "journal_full" or self._settings.session.overflow != "block" or now_s > self._wait_until_s:
            return False
        if now_s >= self._tell_wait_s:
            self._tell_wait_s = now_s + TELL_S
            quota = self._settings.journal.quota_bytes
            log_event(log_ids.WORKER_BLOCKED, worker=self.info.worker, quota_bytes=quota)
        return not (self._flusher.has_ended or self._flusher.is_abandoned(now_s))

    def _drop(self, kind: str, full: JournalFullError) -> None:
        """Count a record given up: in memory to be told, in the head in case we are killed before."""
        self.dropped[kind] += 1
        self._untold[kind] = (self._untold.get(kind, (0, ""))[0] + 1, full.reason)
        if self._journal.head is not None:
            self._journal.head.count_untold(kind)
        now_s = time.monotonic()
        if now_s >= self._tell_drop_s:
            self._tell_drop_s = now_s + TELL_S
            log_event(
                log_ids.WORKER_DROPPED,
                worker=self.info.worker,
                reason=full.reason,
                detail=full.detail,
                dropped=sum(self.dropped.values()),
            )

    def _skip(self, kind: str) -> None:
        """Count a record that the mode does not keep, as `_drop` does; told now and then, and at the next switch.

        A drop's reason stands for all records of its kind since the last one, so nothing untold outlives a switch.
        """
        self.dropped[kind] += 1
        self._untold[kind] = (self._untold.get(kind, (0, ""))[0] + 1, UNKEPT_REASON)
        if self._journal.head is not None:
            self._journal.head.count_untold(kind)
        now_s = time.monotonic()
        if now_s >= self._next_tell_s:
            self._next_tell_s = now_s + TELL_UNKEPT_S
            if self._refused:
                self._count_refused()
            if self._try_room(DROP_BYTES * len(self._untold)):
                self._journal.tell_drops(self._untold)

    def _try_room(self, size: int) -> bool:
        """Whether there is room for `size` bytes, made if need be. Never waits."""
        with contextlib.suppress(JournalFullError):
            if not self._journal.has_room(size):
                self._journal.rotate(size)
            return True
        return False

    def _count_refused(self) -> None:
        """Note calls that were refused inside another one as drops to be told."""
        refused, self._refused = self._refused, defaultdict(int)
        for kind, records in refused.items():
            is_unkept = kind in UNKEPT_KINDS and not self._switch.is_kept  # refused or not, it would not be kept
            reason = UNKEPT_REASON if is_unkept else "reentrant"
            self._untold[kind] = (self._untold.get(kind, (0, ""))[0] + records, reason)
            if self._journal.head is not None:
                self._journal.head.count_untold(kind, records)

    def _use(self, layout: StepLayout | VectorLayout) -> StepLayout | VectorLayout:
        """Write rows in a new layout from here on, or in the equal one used before."""
        if layout.row_bytes > MAX_BODY_BYTES:
            raise ValueError(f"one step of {layout.row_bytes} bytes, a frame holds {MAX_BODY_BYTES}")
        self._look("step", self._journal.info_bytes(layout) + layout.record_bytes)
        used = self._journal.use(layout)
        self.info = self._journal.info
        return used

    def _end(self, deadline_s: float) -> bool:
        """No record follows: send the rest, watch the acks until the deadline, let the journal go."""
        self._is_closed = True
        self._count_refused()
        journal = self._journal
        if journal.segment is not None and self._untold:
            journal.tell_drops(self._untold)
        if journal.head is not None:
            journal.head.closed = journal.seq
        self._flusher.close(deadline_s)
        self._sync.close()
        left = journal.seq - journal.acked_seq
        if left:
            log_event(log_ids.WORKER_UNDRAINED, worker=self.info.worker, records=left, journal=journal.directory)
        if self._flusher.has_ended:
            journal.close()
        return not left and not self._untold

    # ---- the telemetry mode ----

    @property
    def telemetry_mode(self) -> TelemetryMode:
        """The mode in force."""
        return self._switch.in_force

    def _take_mode(self, mode: TelemetryMode) -> None:
        """Switch to this mode, in a turn. If another is wanted by now, that one stays due."""
        self._mode = mode
        self._switch.take(mode)

    def _take_mode_if_idle(self) -> None:
        """As `_take_mode`, from the flusher's thread, for training that makes no call now. Never waits for a turn."""
        if self._is_closed or self._is_forked or self._busy:
            return
        self._busy = True  # no call between this and the look before it
        try:
            wanted = self._switch.wanted
            if wanted is not self._switch.in_force:  # a turn before ours may have made the switch
                self._take_mode(wanted)
        except Exception as error:
            self._fault("telemetry_mode", error)
        finally:
            self._busy = False

    # ---- faults and forks ----

    def _fault(self, where: str, error: Exception) -> None:
        self.faults += 1
        if self.faults == 1:
            log_event(log_ids.WORKER_FAULT, where=where, error=f"{type(error).__name__}: {error}", count=1)

    def _mark_forked(self) -> None:
        """In a forked child: journal, socket and threads are the parent's, and a call of it may be half done."""
        self._is_forked = True
        self._busy = False
        if self._journal.head is not None:
            self._journal.head.close()  # else the parent's journal would seem alive as long as we are
        self._parents_journal = self._journal  # stays mapped, and is never touched
        # Full at once, so the first record comes to `_look`.
        self._journal = JournalWriter(
            self._journal.directory, self.info, self._settings.journal, self._settings.session.batch_records
        )

    def _reopen(self) -> None:
        """A forked child that records becomes a stream of its own."""
        self._open(
            msgspec.structs.replace(
                self.info,
                stream=new_stream_id(),
                pid=os.getpid(),
                started_ns=time.time_ns(),
                schemas=[],
                forked_from=self.info.stream,
                is_resumed=False,
                resumed_step=None,
            )
        )


def _is_inside(writer: StreamWriter) -> bool:
    """Whether a call of this writer is under way further up in this very thread."""
    frame = sys._getframe(2).f_back  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  beyond the call that waits
    while frame is not None:
        code = frame.f_code
        if code.co_name in _TURNS and code.co_filename in _FILES and frame.f_locals.get("self") is writer:
            return True
        frame = frame.f_back
    return False


# The methods that take a turn, or work in one: `log()` is not inside a call while the `_add` it calls waits.
_TURNS = {
    *("step", "step_vector", "episode", "abandon_vector_episodes", "final_observation", "final_observations"),
    *("standing", "_add", "_end"),
}
_FILES = {__file__}


def holds_turns(file: str) -> None:
    """A module whose methods take turns of a writer, as its base does."""
    _FILES.add(file)


def has_global_lock() -> bool:
    """Whether this interpreter switches threads only where the turns expect it."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
