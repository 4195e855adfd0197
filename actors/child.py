"""One running process of ours: started, watched by its pid, signalled, killed with all it started."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from runlane.actors.git_state import launch_facts
from runlane.actors.guard import descendants_of
from runlane.actors.topology import ChildSpec
from runlane.config import names

REAP_PATIENCE_S = 0.5
REAP_TICK_S = 0.005

# What a supervisor tells its children, never what it was told itself.
_NOT_INHERITED = (
    names.ENV_RUN,
    names.ENV_RUN_NAME,
    names.ENV_WORKER_NAME,
    names.ENV_PROXY,
    names.ENV_COMMAND,
    names.ENV_FACTS,
    names.ENV_RESUMED,
    names.ENV_LIFELINE,
    names.ENV_PARENT,
    names.ENV_CHILD,
)


class Child:
    """A process in a session of its own, on a lifeline. Its pid is ours until `poll` has returned a code.

    Output is appended to `LOG_DIR/NAME.log`: a pipe that nobody reads would stop the child after 64 KiB. The
    write end of the lifeline is close-on-exec and held by this object alone, so it ends with this process.
    """

    def __init__(self, spec: ChildSpec, log_dir: Path) -> None:
        """Start it; raises `OSError` or `ValueError` when that cannot be. Only from the main thread.

        The kernel sends PDEATHSIG when the *thread* that forked ends, so a helper thread would take the
        child down with it (seveas/python-prctl#14).
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"child {spec.name} must be started from the main thread")
        self.name = spec.name
        self.exit_code: int | None = None
        read_end, self._lifeline = os.pipe()
        try:
            self._process = _spawn(spec, log_dir / f"{spec.name}.log", read_end)
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(read_end)
        self.pid = self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the pid is still ours to signal: the process runs, or is a zombie we have not reaped."""
        return self.exit_code is None

    def poll(self) -> int | None:
        """The exit code (minus n after signal n), once the process ended; reaps it, and only it, by its pid.

        Before the pid is given back, whatever is left in its group is killed: only so long is the group's
        number sure to mean that group.
        """
        if self.exit_code is None:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                self._kill_group()
                self.exit_code = self._process.wait()
                os.close(self._lifeline)
        return self.exit_code

    def signal(self, signum: int) -> None:
        """Send a signal to the process itself; it passes on what concerns others."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """SIGKILL to the group and to what left it: a descendant with its own session escapes `killpg`."""
        if self.is_alive:
            escaped = descendants_of(self.pid)
            self._kill_group()
            for pid in escaped:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def reap(self, patience_s: float = REAP_PATIENCE_S) -> int | None:
        """Wait for the end of a process that was killed; None if it hangs in the kernel for longer."""
        deadline_s = time.monotonic() + patience_s
        while self.poll() is None and time.monotonic() < deadline_s:
            time.sleep(REAP_TICK_S)
        return self.exit_code

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _spawn(spec: ChildSpec, log_file: Path, lifeline: int) -> "subprocess.Popen[bytes]":
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    environment |= {
        **spec.environment,
        **(launch_facts() if spec.kind == "worker" else {}),
        names.ENV_LIFELINE: str(lifeline),
        names.ENV_PARENT: str(os.getpid()),
        names.ENV_CHILD: spec.name,
        "PYTHONUNBUFFERED": "1",
    }
    with log_file.open("ab") as log:
        return subprocess.Popen(
            spec.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lifeline,),
            start_new_session=True,
        )
