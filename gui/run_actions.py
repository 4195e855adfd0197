"""RunActions: stop, kill and delete a run, and switch what its workers tell. Asked of the graph, in its thread.

Nothing waits here: `said` tells what came of it, as one line. One object for all views of a controller (`actions_of`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from PySide6.QtCore import QObject, QTimer, Signal

from runlane.config.errors import GraphError
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.run_model import RunModel
from runlane.gui.run_text import count_text
from runlane.transport.endpoint import data_dir_of

DELETE_POLL_MS = 400
OBJECT_NAME = "runlane-run-actions"
NO_WORKER = "the graph knows no living worker of this run, so it cannot be told; was it started by another graph?"


class RunClient(Protocol):
    """What is asked of a `GraphClient` here. Each raises `GraphError` with the reason of a refusal."""

    def stop_worker(self, run: str, worker: str, *, is_kill: bool = False) -> Any:
        """Signal the worker's processes; the answer has `pids`."""
        ...

    def delete_run(self, run: str) -> Any:
        """Delete, or go on deleting; the answer has `state`, None without a graph."""
        ...

    def set_telemetry_mode(self, run: str, worker: str, mode: TelemetryMode) -> Any:
        """Switch all streams of a worker; answers once they have."""
        ...


class Asker(Protocol):
    """What is asked of the controller."""

    settings: Settings
    runs: RunModel

    def ask_graph(
        self,
        key: str,
        call: Callable[[Any], Any],
        done: Callable[[Any], object],
        failed: Callable[[str], object] | None = None,
    ) -> bool:
        """As `LiveTelemetryController.ask_graph`."""
        ...


class RunActions(QObject):
    """What a person may do to a run. Its parent is the controller."""

    said = Signal(str, str, str)
    """Run, one line, and its state: good, warn, bad, or empty while it is under way."""
    deleted = Signal(str)

    def __init__(self, controller: Asker, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(OBJECT_NAME)
        self._controller = controller

    @property
    def data_dir(self) -> Path:
        """Where the graph keeps what it stores."""
        return data_dir_of(self._controller.settings)

    def stop(self, run: str) -> None:
        """Ask every worker of a run to end: SIGINT, as Ctrl-C in its terminal."""
        self._signal(run, is_kill=False)

    def kill(self, run: str) -> None:
        """End every worker of a run at once: SIGKILL. What they logged is kept."""
        self._signal(run, is_kill=True)

    def delete(self, run: str) -> None:
        """Delete an ended run from the database, with its videos."""
        self._say(run, "deleting…", "")

        def done(answer: Any) -> None:
            state = getattr(answer, "state", "")
            if answer is None:
                self._say(run, "no graph is running, and only its DB writer may delete; start one with: runlane up")
            elif state == "removing":
                rows = sum(getattr(answer, "rows", {}).values())
                self._say(run, f"deleting… {count_text(rows)} rows removed", "")
                QTimer.singleShot(DELETE_POLL_MS, self, ask)
            else:
                self._say(run, "deleted", "good")
                self.deleted.emit(run)

        def ask() -> None:
            self._ask(f"delete {run}", run, lambda client: client.delete_run(run), done)

        ask()

    def set_mode(
        self, run: str, mode: TelemetryMode, done: Callable[[Any], object], failed: Callable[[str], object]
    ) -> None:
        """Switch every living worker of a run. `done` or `failed`, once, with the last answer or all refusals."""
        workers = self._workers(run)
        if not workers:
            failed(NO_WORKER)
            return

        def call(client: RunClient) -> Any:
            return _each(workers, lambda worker: client.set_telemetry_mode(run, worker, mode))[-1]

        if not self._controller.ask_graph(f"mode {run}", call, done, failed):
            failed("the window is not connected to a graph")

    # ---- inside ----

    def _workers(self, run: str) -> tuple[str, ...]:
        entry = self._controller.runs.entry(run)
        return () if entry is None else entry.worker_names

    def _signal(self, run: str, *, is_kill: bool) -> None:
        verb = "kill" if is_kill else "stop"
        workers = self._workers(run)
        if not workers:
            self._say(run, NO_WORKER)
            return
        self._say(run, "killing…" if is_kill else "stopping…", "")

        def call(client: RunClient) -> list[int]:
            answers = _each(workers, lambda worker: client.stop_worker(run, worker, is_kill=is_kill))
            return [pid for answer in answers for pid in cast("list[int]", getattr(answer, "pids", None) or [])]

        def done(pids: list[int]) -> None:
            who = f"process {', '.join(map(str, pids))}" if pids else "it has no process now, and gets no new one"
            word = ("killed: " if is_kill else "asked to stop: ") if pids else ""
            self._say(run, f"{word}{who}", "good")

        self._ask(f"{verb} {run}", run, call, done)

    def _ask(self, key: str, run: str, call: Callable[[Any], Any], done: Callable[[Any], object]) -> None:
        if not self._controller.ask_graph(key, call, done, lambda problem: self._say(run, problem)):
            self._say(run, "the window is not connected to a graph; try again in a moment")

    def _say(self, run: str, text: str, state: str = "bad") -> None:
        self.said.emit(run, " ".join(text.split()), state)


def _each(workers: Sequence[str], ask: Callable[[str], Any]) -> list[Any]:
    """Ask about every worker, also after a refusal; raises one `GraphError` that tells of all that refused."""
    answers: list[Any] = []
    refusals: list[str] = []
    for worker in workers:
        try:
            answers.append(ask(worker))
        except GraphError as error:
            refusals.append(str(error) if len(workers) == 1 else f"{worker}: {error}")
    if refusals:
        told = f"{len(answers)} of {len(workers)} workers were told"
        raise GraphError("; ".join(refusals if len(workers) == 1 else [*refusals, told]))
    return answers


def actions_of(controller: QObject) -> RunActions:
    """The one `RunActions` of a controller, which all views share, so that each shows what another was told to do."""
    found = controller.findChild(RunActions, OBJECT_NAME)
    if isinstance(found, RunActions):
        return found
    return RunActions(cast("Asker", controller), controller)
