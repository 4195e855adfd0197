"""Runs one foreign command so that nothing of it outlives the supervisor. Standard library only.

The supervisor starts this file by its path (`python -I -S guard.py GRACE_S COMMAND...`, 10 ms) as the leader of
a session. The guard starts the command in its own process group, so one `killpg` reaches both, and ends with
the command's exit code (128 + n after signal n). It adopts what the command's children leave behind
(PR_SET_CHILD_SUBREAPER), also daemons that left the session, and ends them after the command: a
supervised command has no children of its own that stay.

    supervisor ends, in whatever way     end-of-file on the lifeline → SIGINT, GRACE_S, SIGTERM, SIGKILL
    SIGINT, SIGTERM to the guard         sent on to the whole group, as a terminal's Ctrl-C would be
    the guard itself is killed           the command dies with it (PR_SET_PDEATHSIG)

It must start fast and cannot import runlane under `-I -S`, so it spells three variables again; a test compares
them with `config/names.py`.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

ENV_LIFELINE = "RUNLANE_LIFELINE_FD"
ENV_PARENT = "RUNLANE_PARENT_PID"
ENV_CHILD = "RUNLANE_CHILD"

TERM_GRACE_S = 0.5
KILL_AGAIN_S = 0.1
KILL_PATIENCE_S = 2.0
CANNOT_RUN = 126
NOT_FOUND = 127

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LISTENED = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def set_parent_death_signal(signum: int) -> None:
    """Let the kernel send this process `signum` when the thread that forked it ends. Not inherited by a fork."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


def descendants_of(pid: int) -> list[int]:
    """Pids of all processes below `pid`, in any session, as they are now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  pathlib costs 10 ms here
        parent = _parent_of(entry) if entry.isdigit() else None
        if parent is not None:
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    wanted = [pid]
    while wanted:
        below = children.get(wanted.pop(), [])
        found += below
        wanted += below
    return found


def _parent_of(entry: str) -> int | None:
    """Field 4 of `/proc/PID/stat`. Field 2, the name, is in brackets and may hold spaces and brackets."""
    try:
        with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):  # it ended meanwhile
        return None


class Guard:
    """One command and all that descends from it. Single-threaded, so fork and exec need no shim."""

    def __init__(self, command: list[str], grace_s: float, lifeline: int | None, parent: int | None) -> None:
        """`lifeline` is the descriptor whose end-of-file, `parent` the pid whose end, means: all shall end."""
        self._command = command
        self._grace_s = grace_s
        self._lifeline = lifeline
        self._parent = parent
        self._command_pid = 0
        self._exit_code: int | None = None
        self._was_asked = False
        self._plan: list[tuple[float, int]] = []
        self._give_up_s: float | None = None

    def run(self) -> int:
        """Start the command, stay until nothing of it is left, return its exit code."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signals = self._listen()
        self._command_pid = self._start()
        set_parent_death_signal(signal.SIGHUP)
        poller = select.poll()
        poller.register(signals, select.POLLIN)
        if self._lifeline is not None:
            poller.register(self._lifeline, select.POLLIN)
        if self._parent is not None and os.getppid() != self._parent:
            self._on_orphaned()
        while self._reap() and not self._is_hopeless():
            self._wait(poller, signals)
            self._follow_plan()
        return CANNOT_RUN if self._exit_code is None else self._exit_code

    def _listen(self) -> int:
        """Let signals arrive as bytes in a pipe, so that one poll sees them and the lifeline."""
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for signum in _LISTENED:
            signal.signal(signum, _noted)
        return read_end

    def _start(self) -> int:
        """Fork and exec. Signals wait meanwhile, so that none hits the child while it still runs our code."""
        guard = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _LISTENED)
        pid = os.fork()
        if pid == 0:
            self._become_command(guard)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return pid

    def _become_command(self, guard: int) -> None:
        """In the child: default signals, death with the guard, then the command. Never returns."""
        code = CANNOT_RUN
        try:
            signal.set_wakeup_fd(-1)
            for signum in (*_LISTENED, *_IGNORED_BY_PYTHON):
                signal.signal(signum, signal.SIG_DFL)
            set_parent_death_signal(signal.SIGKILL)
            if os.getppid() == guard:  # else it ended before the line above took effect
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                os.execvp(self._command[0], self._command)  # noqa: S606  no shell is the point
        except OSError as error:
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
            os.write(2, f"{self._command[0]}: {error.strerror}\n".encode(errors="replace"))
        finally:
            os._exit(code)

    def _wait(self, poller: select.poll, signals: int) -> None:
        timeout_ms = None if not self._plan else max(0.0, self._plan[0][0] - time.monotonic()) * 1000 + 1
        for fd, _ in poller.poll(timeout_ms):
            if fd == self._lifeline:
                poller.unregister(fd)
                self._on_orphaned()
            else:
                for signum in os.read(signals, 4096):
                    self._on_signal(signum)

    def _on_signal(self, signum: int) -> None:
        if signum == signal.SIGHUP:
            self._on_orphaned()
        elif signum != signal.SIGCHLD:
            self._was_asked = True
            self._signal_group(signum)

    def _on_orphaned(self) -> None:
        """Nobody enforces a deadline any more, so the guard does. One who was asked already is not asked twice."""
        if self._plan:
            return
        if not self._was_asked:
            self._signal_group(signal.SIGINT)
        self._end_within(self._grace_s)

    def _end_within(self, grace_s: float) -> None:
        term_s = time.monotonic() + grace_s
        self._plan = [(term_s, signal.SIGTERM), (term_s + TERM_GRACE_S, signal.SIGKILL)]

    def _signal_group(self, signum: int) -> None:
        """To everyone in the group but ourselves: what is ignored is not even left pending."""
        signal.signal(signum, signal.SIG_IGN)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(0, signum)
        signal.signal(signum, _noted)

    def _follow_plan(self) -> None:
        now_s = time.monotonic()
        if not self._plan or now_s < self._plan[0][0]:
            return
        signum = self._plan.pop(0)[1]
        for pid in descendants_of(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signum)
        if signum == signal.SIGKILL:  # again, for what was forked while we looked
            self._give_up_s = self._give_up_s or now_s + KILL_PATIENCE_S
            self._plan = [(now_s + KILL_AGAIN_S, signal.SIGKILL)]

    def _is_hopeless(self) -> bool:
        """A process that survives SIGKILL for so long hangs in the kernel."""
        return self._give_up_s is not None and time.monotonic() > self._give_up_s

    def _reap(self) -> bool:
        """Take every child that ended; False once there are none, neither started nor adopted."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._command_pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._exit_code = code if code >= 0 else 128 - code
                    if not self._plan:
                        self._end_within(self._grace_s)
        except ChildProcessError:
            return False


def _noted(_signum: int, _frame: object) -> None:
    """The wakeup descriptor has it."""


def _taken(variable: str) -> int | None:
    """A number from the environment, which the command shall not inherit."""
    text = os.environ.pop(variable, "")
    return int(text) if text.isdigit() else None


def main(arguments: list[str]) -> int:
    """GRACE_S COMMAND..."""
    lifeline, parent = _taken(ENV_LIFELINE), _taken(ENV_PARENT)
    os.environ.pop(ENV_CHILD, None)
    if lifeline is not None:
        os.set_inheritable(lifeline, False)
    return Guard(arguments[1:], float(arguments[0]), lifeline, parent).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
