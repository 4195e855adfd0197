"""InterpreterProbe: asks an interpreter what it can import, in a process of its own. QtCore alone; it never waits.

What a worker needs is looked for and not imported: an import of torch takes seconds, and may do anything.
"""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal

from runlane.config.names import ENV_PREFIX
from runlane.gui.launch_plan import interpreter_path
from runlane.gui.worker_option import OptionValue
from runlane.gui.worker_type import WorkerType

PROBE_MS = 20_000
OURS = "runlane.workers"
LEAST_VERSION = (3, 11)  # of an interpreter that runs our own modules
MAX_OUTPUT = 4_000

# Python 3.6 has to understand it: Coach's interpreter is asked, too.
_SCRIPT = """
import importlib.util, json, sys
def is_missing(name):
    try:
        return importlib.util.find_spec(name) is None
    except Exception:
        return True
missing = [name for name in sys.argv[1:] if is_missing(name)]
print(json.dumps({"version": list(sys.version_info[:3]), "missing": missing}))
"""


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What an interpreter said; `problem` is why it said nothing. `python` is its path."""

    python: str
    version: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """Why a kind of worker cannot be started, and the command that mends it; both empty when it can."""

    reason: str = ""
    remedy: str = ""

    @property
    def is_met(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.reason


def modules_of(kind: WorkerType) -> tuple[str, ...]:
    """What its interpreter has to find. Another program's interpreter needs nothing of ours."""
    return kind.packages if kind.python_flag else (OURS, *kind.packages)


def probe_command(python: str, kind: WorkerType) -> list[str]:
    """The very question, as a command line."""
    return [python, "-c", _SCRIPT, *modules_of(kind)]


def parse_answer(python: str, output: str) -> ProbeAnswer:
    """What the script printed; a site hook may have printed before it."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
        version, missing = tuple(map(int, found["version"])), tuple(map(str, found["missing"]))
    except (ValueError, LookupError, TypeError):
        return ProbeAnswer(python, problem="does not answer as Python does")
    return ProbeAnswer(python, version, missing)


def need_of(kind: WorkerType, answer: ProbeAnswer) -> Need:
    """What an interpreter lacks to run a kind of worker."""
    if answer.problem:
        return Need(f"{answer.python} {answer.problem}", "")
    is_ours = not kind.python_flag
    if is_ours and answer.version < LEAST_VERSION:
        wanted = ".".join(map(str, LEAST_VERSION))
        version = ".".join(map(str, answer.version))
        return Need(f"{answer.python} is Python {version}, and runlane needs {wanted} or newer", "")
    if not answer.missing:
        return Need()
    lacking = ["runlane" if name == OURS else name for name in answer.missing]
    return Need(f"this Python has no {', '.join(lacking)}", _remedy(kind, answer))


def _remedy(kind: WorkerType, answer: ProbeAnswer) -> str:
    """One command. The window's own environment is left alone where a kind pins what others have, too."""
    if kind.is_apart and answer.python == interpreter_path(""):
        own = f".venvs/{kind.key}"
        make = shlex.join([answer.python, "-m", "venv", own])
        return f"{make} && {shlex.join([f'{own}/bin/python', '-m', 'pip', 'install', 'runlane', *kind.pip])}"
    packages = ["runlane"] if OURS in answer.missing else []
    packages += kind.pip if set(answer.missing) - {OURS} else []
    return shlex.join([answer.python, "-m", "pip", "install", *packages])


def program_need(
    kind: WorkerType,
    values: Mapping[str, OptionValue],
    which: Callable[[str], object] = shutil.which,
    environment: Mapping[str, str] = os.environ,
) -> Need:
    """What a kind of worker lacks of programs that are no Python. `values` are the options by key."""
    groups = () if str(values.get(kind.program_option, "")).strip() else kind.programs  # or somebody said where it is
    if kind.display_program and not environment.get("DISPLAY"):
        groups = (*groups, (kind.display_program,))
    lacking = [group[0] for group in groups if not any(which(name) for name in group)]
    if not lacking:
        return Need()
    return Need(f"there is no {' and no '.join(lacking)} on the PATH", shlex.join(["apt-get", "install", *kind.apt]))


class InterpreterProbe(QObject):
    """One question at a time; a newer one ends the older. `answered` carries a `ProbeAnswer`. In one thread."""

    answered = Signal(object)

    def __init__(self, parent: QObject | None = None, *, timeout_ms: int = PROBE_MS) -> None:
        """Nothing is asked yet."""
        super().__init__(parent)
        self._process: QProcess | None = None
        self._python = ""
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(timeout_ms)
        self._timer.timeout.connect(self._on_late)

    @property
    def is_asking(self) -> bool:
        """Whether an answer is still to come."""
        return self._process is not None

    def ask(self, text: str, modules: tuple[str, ...]) -> None:
        """Ask the interpreter that a text in the field `Python` means."""
        self.cancel()
        python = interpreter_path(text)
        if python is None:
            self.answered.emit(ProbeAnswer(text.strip(), problem="is no program"))
            return
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        for name in environment.keys():  # noqa: SIM118  Qt's, not a dict's
            if name.startswith(ENV_PREFIX):
                environment.remove(name)  # what a supervisor told this window is not meant for it
        process.setProcessEnvironment(environment)
        process.setStandardInputFile(QProcess.nullDevice())
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._process, self._python = process, python
        self._timer.start()
        process.start(python, ["-c", _SCRIPT, *modules])

    def cancel(self) -> None:
        """Forget the question; its process ends. Idempotent."""
        self._timer.stop()
        process, self._process = self._process, None
        if process is None:
            return
        process.finished.disconnect(self._on_finished)
        process.errorOccurred.disconnect(self._on_error)
        process.finished.connect(process.deleteLater)
        process.kill()
        if process.state() == QProcess.ProcessState.NotRunning:
            process.deleteLater()

    def close(self) -> None:
        """As `cancel`, and wait until the process is gone."""
        process = self._process
        self.cancel()
        if process is not None:
            process.waitForFinished(1_000)

    def _on_finished(self, code: int, _status: QProcess.ExitStatus) -> None:
        process = self._process
        if process is None:
            return
        output = bytes(process.readAllStandardOutput().data())[-MAX_OUTPUT:].decode("utf-8", "replace")
        if code == 0:
            self._tell(parse_answer(self._python, output))
        else:
            self._tell(ProbeAnswer(self._python, problem=f"ends with exit code {code} when it is asked what it has"))

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._tell(ProbeAnswer(self._python, problem="cannot be started"))

    def _on_late(self) -> None:
        python = self._python
        self.cancel()
        self.answered.emit(ProbeAnswer(python, problem="does not answer"))

    def _tell(self, answer: ProbeAnswer) -> None:
        process, self._process = self._process, None
        self._timer.stop()
        if process is not None:
            process.deleteLater()
        self.answered.emit(answer)
