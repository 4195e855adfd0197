"""`runlane mode` and `runlane kill`: find running workers by what a person calls them, and ask the graph for each."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from runlane.config.errors import GraphError
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.endpoint import run_dir_of
from runlane.transport.graph_client import NOT_RUNNING, GraphClient
from runlane.transport.messages import ChildStatus, Status
from runlane.transport.ring_files import find_rings

LATEST = "latest"


class RunningWorker(NamedTuple):
    """A worker that may be asked for something. `started_ns` is 0 for one that has not opened a stream."""

    run: str
    worker: str
    run_name: str = ""
    started_ns: int = 0


def switch(settings: Settings, run: str, worker: str, mode: TelemetryMode) -> Iterator[str]:
    """Switch the workers meant, and say for each what is in force. Raises `GraphError` at the end for the others."""
    with GraphClient(settings) as client:

        def ask(each: RunningWorker) -> str:
            done = client.set_telemetry_mode(each.run, each.worker, mode)
            return f"{done.mode.label}, streams={done.streams}"

        yield from _ask_each(find_workers(settings, client, run, worker), ask)


def end_workers(settings: Settings, run: str, worker: str, *, is_now: bool) -> Iterator[str]:
    """Signal the workers meant, and say for each what got the signal. Raises `GraphError` at the end for the others."""
    with GraphClient(settings) as client:

        def ask(each: RunningWorker) -> str:
            done = client.stop_worker(each.run, each.worker, is_kill=is_now)
            pids = ", ".join(str(pid) for pid in done.pids) or "no process, and it is not started again"
            return f"{done.signal} to {pids}"

        yield from _ask_each(find_workers(settings, client, run, worker), ask)


def _ask_each(workers: list[RunningWorker], ask: Callable[[RunningWorker], str]) -> Iterator[str]:
    """A line for each that does what is asked; the reasons of the others are raised once every one was asked."""
    refusals: list[str] = []
    for each in workers:
        try:
            done = ask(each)
        except GraphError as error:
            if len(workers) == 1:
                raise
            refusals.append(f"{each.worker}: {error}")
        else:
            yield f"run {each.run} worker {each.worker}: {done}"
    if refusals:
        told = len(workers) - len(refusals)
        raise GraphError(f"{'; '.join(refusals)}; {told} of {len(workers)} workers were told")


def find_workers(settings: Settings, client: GraphClient, run: str, worker: str) -> list[RunningWorker]:
    """Workers of one run, given by its id, the beginning of it, its name or `latest`; raises `GraphError` for none.

    Where runs of one name, or with one beginning, are running side by side, only the whole id will do.
    """
    status = client.status()
    if status is None:
        raise GraphError(NOT_RUNNING.format(settings.data_dir))
    known = _distinct([*running_workers(status), *_unrecorded(settings)])
    fitting = [each for each in known if run == each.run] or [
        each for each in known if run in (LATEST, each.run_name) or each.run.startswith(run)
    ]
    if run == LATEST and fitting:
        newest = max(fitting, key=lambda each: (each.started_ns, each.run))
        fitting = [each for each in fitting if each.run == newest.run]
    runs = sorted({each.run for each in fitting})
    if len(runs) > 1:
        raise GraphError(f"RUN = {run!r} may be any of {', '.join(runs)}; give more of the id")
    found = [each for each in fitting if not worker or each.worker == worker]
    if not found:
        there = ", ".join(f"{each.run} {each.worker}" for each in known) or "none"
        wanted = f"RUN = {run!r}" + (f", --worker = {worker!r}" if worker else "")
        raise GraphError(f"{wanted}: no such worker is running; running are (run, worker): {there}")
    return found


def running_workers(status: Status) -> list[RunningWorker]:
    """Every worker that a proxy serves: those with an open stream, and what a proxy was started for."""
    found: list[RunningWorker] = []
    for child in status.children:
        if child.kind == "proxy" and child.state != "ended":
            found += _workers_of(child)
    return found


def _workers_of(proxy: ChildStatus) -> list[RunningWorker]:
    figures = proxy.statistics
    streaming: list[dict[str, Any]] = figures.get("workers", [])
    found = [
        RunningWorker(str(each["run"]), str(each["worker"]), str(each["run_name"]), int(each["started_ns"]))
        for each in streaming
    ]
    own = RunningWorker(str(figures.get("run", "")), str(figures.get("worker", "")), str(figures.get("run_name", "")))
    return found or ([own] if own.run else [])


def _distinct(workers: list[RunningWorker]) -> list[RunningWorker]:
    """Each once, the first of them: a worker that only shows has a proxy, too, under `runlane run`."""
    return list({(each.run, each.worker): each for each in reversed(workers)}.values())[::-1]


def _unrecorded(settings: Settings) -> list[RunningWorker]:
    """Workers that only show: the graph knows why it cannot ask them anything, and says so."""
    rings = find_rings(run_dir_of(settings))
    infos = [(ring.info, ring.header.created_ns) for ring in rings if not ring.info.stream]
    return [RunningWorker(info.run, info.worker, info.run_name, created_ns) for info, created_ns in infos]
