"""`runlane demo`: a worker learns with the whole graph around it, watched live; then every count is compared."""

import importlib.util
import os
import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console

from runlane.config import names
from runlane.config.errors import GraphError, SettingsError
from runlane.config.settings import QueuePolicy, Settings
from runlane.demo_summary import Evidence, compare, print_hints, print_summary, print_watch_hint, read_report, stored_of
from runlane.gui.run_view import RunView, accounts_of
from runlane.gui.screen import Screen, screen_for
from runlane.launch import GraphProcess, tail
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import data_dir_of, database_of
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import ChildStatus, Status
from runlane.transport.subscriber import Subscriber
from runlane.window_check import can_open

WORKER_MODULE = "runlane.workers.cartpole"
FAST_PATH = QueuePolicy("drop_oldest", 4096)
KINDS = ["step", "episode", "metric", "log", "run"]

POLL_S = 0.05
STATUS_S = 0.5
LOST_GRAPH_S = 5.0
# After the last proxy ended: the router's figures are a heartbeat old; longer than this nothing is waited for.
SETTLE_MAX_S = 5.0


def run_demo(settings_arguments: list[str], settings: Settings, report: Path | None = None) -> int:
    """Run the demo to its end, print the summary, return the exit code.

    0: every count agrees, nothing was lost, the worker ended well. 1: something differs. 128 + n: stopped by
    signal n, as 130 by Ctrl-C. `report` is where the worker's own counts are kept; else nowhere. Raises
    `GraphError` or `SettingsError` when it cannot begin.
    """
    worker = check_settings(settings)
    console = Console(highlight=False)
    console.print(f"runlane demo: starting the graph; data and logs in {data_dir_of(settings)}", markup=False)
    if settings.fast_lane.enabled:
        print_watch_hint(console, settings_arguments)
    with tempfile.TemporaryDirectory(prefix="runlane-demo-") as scratch, StopSignals() as signals:
        path = report or Path(scratch) / "report.json"
        watch, stop_code = _watch(settings_arguments, settings, screen_for(console), signals, path)
        evidence = Evidence(
            report=read_report(path),
            stored=stored_of(database_of(settings), watch.run),
            accounts=accounts_of(watch.status),
            exit_code=watch.exit_code_of(worker),
            stop_code=stop_code,
            signal=signals.number,
            failure=watch.failure,
        )
    lines = compare(evidence)
    print_summary(console, settings, evidence, lines)
    if evidence.exit_code and not signals.number:
        log = data_dir_of(settings) / names.LOG_DIR / f"{worker}.log"
        console.print(f"\nThe end of {log}:\n{tail(log)}", markup=False, soft_wrap=True)
    print_hints(console, settings_arguments, watch.run)
    if signals.number:
        return 128 + signals.number
    return 0 if all(line.is_equal for line in lines) else 1


def check_settings(settings: Settings) -> str:
    """Name of the one worker to compare; raises when the demo could not end well."""
    if len(settings.workers) != 1:
        raise SettingsError(
            "workers", sorted(settings.workers), "the demo compares the counts of one worker", "use `runlane up`"
        )
    ((worker, declared),) = settings.workers.items()
    if WORKER_MODULE in declared.command and importlib.util.find_spec("gymnasium") is None:
        raise GraphError('the demo trains on Gymnasium, which is not installed: pip install "runlane[demo]"')
    with GraphClient(settings) as client:
        running = client.status()
    if running is not None:
        raise GraphError(
            f"a graph is running for {running.data_dir} already (pid {running.pid}); stop it, "
            "or give the demo a place of its own: runlane demo --set data_dir=DIRECTORY"
        )
    return worker


# ---- watching --------------------------------------------------------------------------------------------


class StopSignals:
    """The first Ctrl-C, SIGTERM or SIGHUP asks (`number`); a second one raises `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.number = 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Watch:
    """Reads the fast path, asks for the status, draws; until the workers and their proxies are gone."""

    def __init__(
        self,
        settings: Settings,
        subscriber: Subscriber,
        client: GraphClient,
        screen: Screen,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.view = RunView(self.clock.monotonic_s())
        self.status: Status | None = None
        self.run = ""
        self.failure = ""
        self._subscriber = subscriber
        self._client = client
        self._screen = screen
        self._settle_s = settings.supervisor.heartbeat_s + STATUS_S
        self._over_since_s: float | None = None
        self._answered_s = self._ask_s = self._draw_s = self.clock.monotonic_s()

    def until_over(self, signals: StopSignals) -> None:
        """Return when all is accounted for, when a signal came, or when the graph failed (`failure`)."""
        while not (signals.number or self.failure or self._is_over(self.clock.monotonic_s())):
            self.view.add(self._subscriber.poll(POLL_S), self.clock.monotonic_s())
            now_s = self.clock.monotonic_s()
            if now_s >= self._ask_s:
                self._ask_s = now_s + STATUS_S
                self._ask(now_s)
            if now_s >= self._draw_s:
                self._draw_s = now_s + self._screen.interval_s
                self.draw()
        if signals.number:  # the accounts of the summary are to be as fresh as they can be
            self._ask(self.clock.monotonic_s())

    def draw(self) -> None:
        """Show the view as it stands."""
        self._screen.show(self.view, self.status, self.clock.monotonic_s())

    def exit_code_of(self, worker: str) -> int | None:
        """How the worker ended; None if it had not."""
        ended = [child for child in self._children("worker") if child.state == "ended"]
        return next((child.exit_code for child in ended if child.name == worker), None)

    def _ask(self, now_s: float) -> None:
        status = self._client.status(STATUS_S)
        if status is not None:
            self.status = status
            self._answered_s = now_s
            runs = [child.statistics.get("run", "") for child in self._children("proxy")]
            self.run = next((run for run in runs if run), self.run)
        if status is not None and status.state == "stopping":
            self.failure = "the graph stopped by itself; see supervisor.log"
        elif now_s - self._answered_s > LOST_GRAPH_S:
            self.failure = "the supervisor does not answer any more; see supervisor.log"

    def _is_over(self, now_s: float) -> bool:
        """Whether every worker and proxy ended, and the router's figures since then show nothing left."""
        workers = self._children("worker")
        if not workers or any(child.state != "ended" for child in (*workers, *self._children("proxy"))):
            self._over_since_s = None
            return False
        self._over_since_s = now_s if self._over_since_s is None else self._over_since_s
        streams = sum(int(child.statistics.get("streams", 0)) for child in self._children("router"))
        is_settled = not streams and not any(account.queued for account in accounts_of(self.status))
        waited_s = now_s - self._over_since_s
        return waited_s >= (self._settle_s if is_settled else SETTLE_MAX_S)

    def _children(self, kind: str) -> list[ChildStatus]:
        return [child for child in self.status.children if child.kind == kind] if self.status is not None else []


def _watch(
    arguments: list[str], settings: Settings, screen: Screen, signals: StopSignals, report: Path
) -> tuple[Watch, int]:
    """Start, watch, stop in order; returns what was watched and the supervisor's exit code."""
    graph = GraphProcess(arguments, settings)
    policy = None if names.TERMINAL in settings.subscribers else FAST_PATH
    try:
        with _environment(names.ENV_WORKER_REPORT, str(report)):
            graph.start(with_gui=can_open(os.environ))
        with (
            Subscriber(names.TERMINAL, kinds=KINDS, policy=policy, settings=settings) as subscriber,
            GraphClient(settings) as client,
            screen,
        ):
            watch = Watch(settings, subscriber, client, screen)
            watch.until_over(signals)
            watch.draw()
    finally:
        stop_code = graph.stop()
    return watch, stop_code


@contextmanager
def _environment(variable: str, value: str) -> Generator[None]:
    """Set for the children started meanwhile."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before
