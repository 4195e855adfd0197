"""Starting a graph, and starting a command as a worker of it: what `runlane run` and `runlane demo` share."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from runlane.actors.git_state import launch_facts
from runlane.actors.topology import settings_environment
from runlane.attach_dir import UNHOOKED, AttachDir
from runlane.config import names
from runlane.config.errors import GraphError
from runlane.config.settings import Settings, check_name
from runlane.foreign import adopt_spools
from runlane.transport.endpoint import data_dir_of, run_dir_of
from runlane.transport.graph_client import NOT_RUNNING, GraphClient
from runlane.transport.identity import new_run_id
from runlane.transport.messages import Status, WorkerStart, WorkerStarted
from runlane.workers.foreground import passing_signals_on, shell_code
from runlane.workers.foreign_program import check_source, run_foreign
from runlane.workers.secret import masked_arguments

START_S = 20.0
DRAIN_S = 10.0
STOP_S = 5.0
GIVE_UP_RESTARTS = 3
SHOWN_COMMAND = 500
HOOKED_PATIENCE = 6


class CommandError(GraphError):
    """The command to run cannot be started; found out before a graph is."""

    exit_code = 127

    def __init__(self, command: str, problem: str = "no such command, or not executable") -> None:
        """Name the command and what to look at."""
        super().__init__(f"{command}: {problem}; check its path, its first line and your environment")


class GraphProcess:
    """A graph of our own: `runlane up` as a process, logging to a file.

    It has a lifeline to this process, or it stays until its last worker has ended.
    """

    def __init__(self, settings_arguments: list[str], settings: Settings) -> None:
        """`settings_arguments` are the --config and --set options that gave `settings`."""
        self.settings = settings
        self._arguments = settings_arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline_write = -1

    def start(self, *, until_idle: bool = False, no_workers: bool = False, with_gui: bool = False) -> Status:
        """Start and wait until every child is up; raises `GraphError` with the end of the log."""
        wanted = {"--until-idle": until_idle, "--no-workers": no_workers, "--gui": with_gui}
        flags = [flag for flag, is_wanted in wanted.items() if is_wanted]
        log = data_dir_of(self.settings) / names.LOG_DIR / "supervisor.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        lifeline_read, self._lifeline_write = os.pipe()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if not until_idle:
            environment |= {names.ENV_LIFELINE: str(lifeline_read), names.ENV_PARENT: str(os.getpid())}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runlane", "up", *flags, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[] if until_idle else [lifeline_read],
                start_new_session=True,
            )
        os.close(lifeline_read)
        return self._wait_until_up(log)

    def _wait_until_up(self, log: Path) -> Status:
        assert self._process is not None  # noqa: S101  start() set it
        deadline_s = time.monotonic() + START_S
        with GraphClient(self.settings) as client:
            while time.monotonic() < deadline_s:
                status = client.status(0.5)
                if status is not None and status.pid == self._process.pid and status.state == "running":
                    return status
                failing = [child for child in status.children if child.restarts >= GIVE_UP_RESTARTS] if status else []
                if failing:
                    self.stop()
                    causes = "\n".join(tail(log.with_name(f"{child.name}.log"), 3) for child in failing)
                    raise GraphError(f"the graph does not start: {', '.join(c.name for c in failing)} fails:\n{causes}")
                time.sleep(0.02)  # a question to a supervisor not yet there is answered at once
                if self._process.poll() is not None:
                    raise GraphError(f"the graph did not start (exit code {self._process.returncode}):\n{tail(log)}")
        self.stop()
        raise GraphError(f"the graph was not up within {START_S} s:\n{tail(log)}")

    def stop(self) -> int:
        """The ordered stop; returns the supervisor's exit code."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def has_ended(self, timeout_s: float) -> bool:
        """Whether the graph is gone, after waiting at most `timeout_s` for it."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self.wait()
        return True

    def wait(self) -> int:
        """Wait for a stop that is under way; returns the supervisor's exit code."""
        if self._process is None:
            return 0
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its children see their lifeline close
            code = self._process.wait()
        os.close(self._lifeline_write)
        self._process = None
        return code


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log file."""
    try:
        return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return f"(no log in {path})"


def run_command(
    command: list[str],
    settings: Settings,
    settings_arguments: list[str],
    run_name: str,
    worker: str,
    resume: str = "",
    jsonl: str = "",
    *,
    is_hooking: bool = True,
) -> tuple[int, str, bool]:
    """Run a command as a worker of the running graph, or of one started for it. `resume` is a run to go on with.

    With `is_hooking` every Python below the command records the environments it steps, though nobody edited it. With
    `jsonl` the command is a program of any language that writes JSON lines to this source.

    Returns the command's exit code, the run's id, and whether everything was committed when this returns.
    """
    check_name(worker, "worker")
    if shutil.which(command[0]) is None:
        raise CommandError(command[0])
    if jsonl:
        check_source(jsonl)
    with GraphClient(settings) as client:
        run = resume or new_run_id(time.time_ns())
        graph, started = _join_graph(
            client, settings_arguments, settings, WorkerStart(worker=worker, run=run, run_name=run_name)
        )
        if graph is None:  # one of our own does it by itself
            adopt_spools(settings, settings_arguments)
        code, is_drained = 1, False
        variables = settings_environment(settings, settings_arguments)
        if resume:
            variables[names.ENV_RESUMED] = "1"
        try:
            environment = _environment(command, started, run_name, variables, str(run_dir_of(settings)))
            if jsonl:
                code = _run_foreign(jsonl, command, environment, settings, is_resumed=bool(resume))
            else:
                with AttachDir(settings, is_hooking=is_hooking) as attach_dir:
                    watch = HookWatch(client, attach_dir, started, command, settings.attach.unhooked_s)
                    code = _run_foreground(command, environment | attach_dir.variables(), watch)
        finally:
            is_drained = client.worker_exited(started.worker, started.run, code, DRAIN_S)
        while graph is not None and not graph.has_ended(0.1) and not _has_other_workers(client):
            pass  # it stops by itself; or another command uses it now, and it will stop after that one
    return code, started.run, is_drained


def _join_graph(
    client: GraphClient, settings_arguments: list[str], settings: Settings, wanted: WorkerStart
) -> tuple[GraphProcess | None, WorkerStarted]:
    """Get a proxy from the graph that is there, or from one started now: that one is returned, too.

    Another command may start or end a graph at the same moment; then look again.
    """
    deadline_s = time.monotonic() + START_S
    graph: GraphProcess | None = None
    while True:
        status = client.status()
        try:
            if status is None:
                graph = GraphProcess(settings_arguments, settings)
                graph.start(until_idle=True)
            if status is None or status.state == "running":
                return graph, client.start_worker(wanted.worker, wanted.run, wanted.run_name)
        except GraphError:
            if (client.status() is None and status is None) or time.monotonic() > deadline_s:
                raise
            graph = None
        if time.monotonic() > deadline_s:
            raise GraphError(f"the graph of {settings.data_dir} neither starts nor stops; look at its logs")
        time.sleep(0.05)  # it is starting, or stopping after its last worker


def _has_other_workers(client: GraphClient) -> bool:
    """Whether another command uses the graph we started; it will stop after that one's worker."""
    status = client.status()
    return status is not None and any(
        child.kind in ("worker", "proxy") and child.exit_code is None for child in status.children
    )


class HookWatch:
    """Says loudly, in the terminal and in the run, that nothing of a command is recorded."""

    def __init__(
        self, client: GraphClient, attach_dir: AttachDir, started: WorkerStarted, command: list[str], patience_s: float
    ) -> None:
        self.patience_s = patience_s
        self._client, self._attach_dir, self._started = client, attach_dir, started
        self._command = shlex.join(masked_arguments(command))[:SHOWN_COMMAND]

    def look(self, waited_s: float) -> float | None:
        """Look, when the command has run for so long; returns how long to wait before the next look, if there is one.

        Where a library is hooked, its first environment may be some imports and a compilation away.
        """
        if self._attach_dir.is_attached():
            return None
        if self._attach_dir.is_hooked() and waited_s < self.patience_s * HOOKED_PATIENCE:
            return self.patience_s * HOOKED_PATIENCE - waited_s
        self._tell(waited_s)
        return None

    def _tell(self, waited_s: float) -> None:
        text = UNHOOKED.format(when=f"after {waited_s:g} s", command=self._command)
        sys.stderr.write("runlane: " + text.replace("\n", "\n         ") + "\n")
        sys.stderr.flush()
        self._client.note_worker(self._started.worker, self._started.run, text, "warning")


def _environment(
    command: list[str], started: WorkerStarted, run_name: str, settings_variables: dict[str, str], run_dir: str
) -> dict[str, str]:
    """What tells the command whose worker it is."""
    return {
        **{name: value for name, value in os.environ.items() if name not in (names.ENV_RESUMED, names.ENV_FACTS)},
        **settings_variables,
        names.ENV_RUN: started.run,
        names.ENV_RUN_NAME: run_name,
        names.ENV_WORKER_NAME: started.worker,
        names.ENV_PROXY: started.endpoint,
        names.ENV_COMMAND: shlex.join(command),
        names.ENV_RUN_DIR: run_dir,
        **launch_facts(),
    }


def _run_foreign(
    jsonl: str, command: list[str], environment: dict[str, str], settings: Settings, *, is_resumed: bool
) -> int:
    try:
        return run_foreign(jsonl, command, environment, settings, is_resumed=is_resumed)
    except OSError as error:
        raise CommandError(command[0], error.strerror or "cannot be started") from None


def _run_foreground(command: list[str], environment: dict[str, str], watch: HookWatch) -> int:
    """Run in our own process group, so that the terminal's Ctrl-C reaches the command, and wait for it."""
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:  # found, and yet no program: a script without its first line, another machine's
        raise CommandError(command[0], error.strerror or "cannot be started") from None
    with passing_signals_on(process):
        return shell_code(_wait(process, watch))


def _wait(process: "subprocess.Popen[bytes]", watch: HookWatch) -> int:
    waited_s, next_s = 0.0, watch.patience_s
    while True:
        try:
            return process.wait(next_s)
        except subprocess.TimeoutExpired:
            waited_s += next_s
            wanted_s = watch.look(waited_s)
            if wanted_s is None:
                return process.wait()
            next_s = wanted_s


def stop_graph(settings: Settings) -> None:
    """Ask the running graph for its ordered stop and wait for it; raises `GraphError` when none runs or it stays."""
    deadline_s = time.monotonic() + START_S
    with GraphClient(settings) as client:
        if not client.stop():
            raise GraphError(NOT_RUNNING.format(settings.data_dir))
        while client.status(0.5) is not None:
            if time.monotonic() > deadline_s:
                raise GraphError(f"the graph of {settings.data_dir} did not stop within {START_S} s; see its logs")
            time.sleep(0.05)  # between two looks at the lock that a supervisor holds while it lives
