"""Runs one actor in this process: signals, lifeline, heartbeat, drain, exit code.

0        the actor finished, or drained after its supervisor was gone
128 + n  it was stopped by signal n, drained or, after a second signal, at once
1        its drain deadline came first; it has logged what it left
70       an error nobody foresaw, with its traceback on standard error
else     the exit code of the `RunlaneError` that ended it, logged in one line
"""

import contextlib
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, MutableMapping
from types import FrameType

from runlane.actors.actor import Actor
from runlane.actors.lifeline import Lifeline
from runlane.actors.reporter import Reporter
from runlane.config import log_ids
from runlane.config.errors import RunlaneError
from runlane.config.names import ENV_CHILD
from runlane.config.settings import Settings
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import run_dir_of, sweep_run_dir
from runlane.transport.log import configure_log, log_event
from runlane.transport.messages import ControlMessage, SetTelemetryMode, StopWorker, WorkerExited, WorkerNote

UNFORESEEN = 70
UNDRAINED = 1

# How long a signal, a closed lifeline or a message may stay unseen; how long while draining.
WORK_S = 0.05
DRAIN_WORK_S = 0.01
# A message sent before a signal may arrive after it. An actor that takes messages waits so long for one; an
# orphan, whom nobody will tell that its worker ended, uses its whole drain time: the worker is ending just now.
SETTLE_S = 0.05
# Without a supervisor nobody kills who takes too long, and all shall be gone within 5 s.
ORPHAN_DRAIN_S = 3.5


class _Impatience(BaseException):
    """A second signal: end at once. No `except Exception` of an actor may hold it up."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


def run_actor(
    actor: Actor,
    settings: Settings,
    *,
    drain_s: float,
    clock: Clock | None = None,
    environment: MutableMapping[str, str] | None = None,
) -> int:
    """Run `actor` until it is finished or told to stop, and return the process's exit code. Main thread only.

    Told to stop, it has `drain_s` to become drained, an orphan at most `ORPHAN_DRAIN_S`. An actor with an
    attribute `is_finished` ends by itself once that is true; one with a method `on_message` gets what the
    supervisor sends, and one with a queue `answers` has them sent to it. `on_close` is always called. Under a
    supervisor (`RUNLANE_CHILD`) the first heartbeat, right after `on_start`, means: ready.
    """
    configure_log(actor.name, settings.log_level)
    runner = _Runner(actor, settings, drain_s, clock or SystemClock())
    try:
        code = runner.run(os.environ if environment is None else environment)
        log_event(log_ids.ACTOR_STOPPED, code=code)
    except _Impatience as impatience:
        code = 128 + impatience.signum
        log_event(log_ids.ACTOR_STOPPED, code=code, reason="second signal")
    except RunlaneError as error:
        code = error.exit_code
        log_event(log_ids.ACTOR_FAILED, error=error)
    except Exception as error:  # the last resort of a process
        code = UNFORESEEN
        log_event(log_ids.ACTOR_FAILED, error=f"{type(error).__name__}: {error}")
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sweep_run_dir(run_dir_of(settings))
    return code


class _Runner:
    """One run of one actor."""

    def __init__(self, actor: Actor, settings: Settings, drain_s: float, clock: Clock) -> None:
        self._actor = actor
        self._settings = settings
        self._drain_s = drain_s
        self._clock = clock
        self._on_message: Callable[[ControlMessage], None] | None = getattr(actor, "on_message", None)
        self._answers: deque[ControlMessage] = getattr(actor, "answers", deque())
        self._last_exit: WorkerExited | None = None
        self._reporter: Reporter | None = None
        self._signum = 0
        self._is_orphaned = False
        self._stop_s: float | None = None
        self._look_s = 0.0

    def run(self, environment: MutableMapping[str, str]) -> int:
        """Everything between the first and the last line of the log."""
        self._lifeline = Lifeline.from_environment(environment)
        before = {signum: signal.signal(signum, self._on_signal) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            child = environment.get(ENV_CHILD)
            self._reporter = Reporter(self._settings, child, os.getpid()) if child else None
            return self._live()
        finally:
            try:
                self._actor.on_close()
            finally:
                if self._reporter is not None:
                    self._reporter.close()
                self._lifeline.close()
                for signum, handler in before.items():
                    signal.signal(signum, handler)

    def _live(self) -> int:
        self._actor.on_start()
        log_event(log_ids.ACTOR_STARTED, pid=os.getpid())
        self._look(self._clock.monotonic_s())
        while not self._is_over(self._clock.monotonic_s()):
            self._actor.do_work(self._work_s())
            now_s = self._clock.monotonic_s()
            if now_s >= self._look_s or self._signum:
                self._look(now_s)
        return self._exit_code()

    def _work_s(self) -> float:
        is_patient = self._stop_s is None and (self._reporter is None or self._reporter.has_reported)
        return WORK_S if is_patient else DRAIN_WORK_S

    def _look(self, now_s: float) -> None:
        """At everything but the actor's own work."""
        self._look_s = now_s + DRAIN_WORK_S
        if not self._is_orphaned and self._lifeline.is_broken():
            self._is_orphaned = True
            self._drain_s = min(self._drain_s, ORPHAN_DRAIN_S)
            log_event(log_ids.ACTOR_ORPHANED)
            self._begin_stop("lifeline", now_s)
        if self._signum:
            self._begin_stop(signal.Signals(self._signum).name, now_s)
        if self._reporter is not None:
            for message in self._reporter.receive():
                self._pass_on(message)
            while self._answers and self._reporter.say(self._answers[0]):
                self._answers.popleft()
            if self._reporter.is_due(now_s):
                state = "running" if self._stop_s is None else "draining"
                self._reporter.beat(state, self._actor.statistics(), now_s)

    def _pass_on(self, message: ControlMessage) -> None:
        """The supervisor repeats itself, in case we are new; the actor hears of each exit once.

        Questions it hears as often as they come: they are numbered.
        """
        if self._on_message is None or message == self._last_exit:
            return
        if isinstance(message, WorkerExited):
            self._last_exit = message
        if isinstance(message, WorkerExited | WorkerNote | SetTelemetryMode | StopWorker):
            self._on_message(message)

    def _begin_stop(self, reason: str, now_s: float) -> None:
        if self._stop_s is None:
            self._stop_s = now_s
            log_event(log_ids.ACTOR_STOPPING, reason=reason)
            self._actor.request_stop()

    def _is_over(self, now_s: float) -> bool:
        if self._is_finished():
            return True
        if self._stop_s is None:
            return False
        stopping_s = now_s - self._stop_s
        is_settled = self._on_message is None or stopping_s >= (self._drain_s if self._is_orphaned else SETTLE_S)
        return (is_settled and self._actor.is_drained()) or stopping_s >= self._drain_s

    def _is_finished(self) -> bool:
        return bool(getattr(self._actor, "is_finished", False))

    def _exit_code(self) -> int:
        if self._is_finished():
            return 0
        if not self._actor.is_drained():
            return UNDRAINED
        return 0 if self._is_orphaned else 128 + self._signum

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        """The first asks. A second one is impatience, unless it is the kernel's word that the parent died."""
        if self._signum and not self._lifeline.is_broken():
            raise _Impatience(signum)
        self._signum = self._signum or signum
