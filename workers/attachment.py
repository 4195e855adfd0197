"""attach(): the session of this process. Finds the proxy it was started with, or asks a running graph for one."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from runlane.config import log_ids, names
from runlane.config.errors import GraphError, RunlaneError
from runlane.config.load import load
from runlane.config.settings import Settings, check_name
from runlane.transport.endpoint import endpoint_of, is_endpoint_alive, run_dir_of
from runlane.transport.identity import host_name, new_run_id, new_stream_id
from runlane.transport.log import log_event, show_fast_lane_log
from runlane.transport.messages import StreamInfo, WorkerStarted
from runlane.transport.ring_layout import RingInfo
from runlane.workers.run_facts import facts_at_start
from runlane.workers.session import WorkerSession
from runlane.workers.slot import note_attached
from runlane.workers.stream_writer import has_global_lock
from runlane.workers.unrecorded import DetachedSession, ShownSession

ASK_S = 5.0
MAX_RUN_NAME = 200  # as `StreamInfo.run_name`


Session = WorkerSession | DetachedSession  # or a `ShownSession`, which is one


def attach(
    name: str | None = None,
    *,
    worker: str | None = None,
    config: Any = None,
    resume: str | None = None,
    resumed_step: int | None = None,
    settings: Settings | None = None,
) -> Session:
    """Connect this process to its run and return the session to record with.

    Under `runlane run` or a supervisor the environment says where; otherwise the graph running for the current
    directory is asked for a proxy. With neither, one warning is printed and the session does nothing: telemetry
    never stops training. `name` is the run's readable name; `config` its hyper-parameters, a mapping or an object
    like `argparse.Namespace`. Called again, as for each sub-environment, it opens another stream of the same run.

    `resume` is the id of the run that is continued, as after loading a checkpoint made at `resumed_step`: the new
    stream is the worker's next incarnation in that run, with `resumed_from`. Steps may begin anywhere: nothing is
    refused because it went backwards.
    """
    if os.environ.get(names.ENV_DISABLED) == "1":
        return DetachedSession()
    if not has_global_lock():
        log_event(log_ids.WORKER_DETACHED, reason="free-threaded Python is not supported; use the standard build")
        return DetachedSession()
    if os.environ.get(names.ENV_FASTLANE) == "1":
        show_fast_lane_log()
    try:
        settings = settings or load()
        if settings.fast_lane.only:
            shown = _open_shown(settings, name, worker, resume)
            note_attached()
            return shown
        session = _open(settings, name, worker, config, resume, resumed_step)
    except (RunlaneError, OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
        log_event(log_ids.WORKER_DETACHED, reason=str(error))
        return DetachedSession()
    note_attached()
    info = session.info
    log_event(log_ids.WORKER_ATTACHED, run=info.run, worker=info.worker, stream=info.stream)
    return session


def attach_beside(first: Session, worker: str) -> Session:
    """Another stream of the run of `first`, for a worker beside it: as for the next agent of one environment.

    As little as `attach` does it stop training: where no stream can be opened, the session does nothing.
    """
    try:
        check_name(worker, "worker")
        session = first.beside(worker)
    except (RunlaneError, OSError, RuntimeError) as error:
        log_event(log_ids.WORKER_DETACHED, reason=str(error))
        return DetachedSession()
    if isinstance(session, WorkerSession):
        info = session.info
        log_event(log_ids.WORKER_ATTACHED, run=info.run, worker=info.worker, stream=info.stream)
    return session


def _open(
    settings: Settings,
    name: str | None,
    worker: str | None,
    config: Any,
    resume: str | None,
    resumed_step: int | None,
) -> WorkerSession:
    """The session, once there is somebody to record to; raises `RunlaneError`, or what the system says."""
    started = _from_environment(worker, resume) or _ask_once(settings, worker, name, resume)
    info = StreamInfo(
        stream=new_stream_id(),
        run=started.run,
        worker=started.worker,
        host=host_name(),
        pid=os.getpid(),
        started_ns=time.time_ns(),
        run_name=_run_name(name, resume),
        is_resumed=resume is not None or os.environ.get(names.ENV_RESUMED) == "1",
        resumed_step=None if resumed_step is None else max(0, int(resumed_step)),
    )
    return WorkerSession(info, started.endpoint, settings, facts_at_start(config))


def _open_shown(settings: Settings, name: str | None, worker: str | None, resume: str | None) -> ShownSession:
    """A session that only shows. No graph is asked: viewers find the ring by the run directory's name."""
    chosen = worker or os.environ.get(names.ENV_WORKER_NAME) or script_name()
    check_name(chosen, "worker")
    info = RingInfo(
        run=resume or os.environ.get(names.ENV_RUN) or new_run_id(time.time_ns()),
        worker=chosen,
        run_name=_run_name(name, resume),
        host=host_name(),
    )
    session = ShownSession(info, run_dir_of(settings), settings.fast_lane)
    log_event(log_ids.WORKER_UNRECORDED, run=info.run, worker=info.worker)
    return session


def _run_name(name: str | None, resume: str | None) -> str:
    return _readable(os.environ.get(names.ENV_RUN_NAME) or name or ("" if resume else script_name()))


def script_name() -> str:
    """A plain name for this script: its file name without ending, or `python`."""
    stem = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else ""
    plain = "".join(mark if mark.isascii() and (mark.isalnum() or mark in "_-") else "-" for mark in stem)
    return plain.strip("-")[:24] or "python"


def _readable(name: str) -> str:
    """Any text as a run name that no receiver refuses: no lone surrogates, and not without end."""
    return name.encode("utf-8", "backslashreplace").decode()[:MAX_RUN_NAME]


def _from_environment(worker: str | None, resume: str | None) -> WorkerStarted | None:
    endpoint, run = os.environ.get(names.ENV_PROXY), os.environ.get(names.ENV_RUN)
    if not endpoint or not run:
        return None
    chosen = worker or os.environ.get(names.ENV_WORKER_NAME) or script_name()
    check_name(chosen, "worker")
    return WorkerStarted(worker=chosen, run=resume or run, endpoint=endpoint)


# By process (a forked child asks for itself), graph, run and worker.
_answers: dict[tuple[int, str, str, str], WorkerStarted] = {}


def _ask_once(settings: Settings, worker: str | None, name: str | None, resume: str | None) -> WorkerStarted:
    """One proxy and one run per process, while that proxy lives: not one for each sub-environment."""
    graph = endpoint_of(settings, names.SUPERVISOR_SOCKET)
    run = resume or os.environ.get(names.ENV_RUN, "")
    key = (os.getpid(), graph, run, worker or "")
    known = _answers.get(key)
    if known is not None and is_endpoint_alive(known.endpoint):
        return known
    started = _answers[key] = _ask(settings, worker, name, run)
    return started


def _ask(settings: Settings, worker: str | None, name: str | None, run: str) -> WorkerStarted:
    """Ask the supervisor of a running graph for a proxy; raises `RunlaneError` saying how to start one."""
    chosen = worker or script_name()
    check_name(chosen, "worker")
    run = run or new_run_id(time.time_ns())
    from runlane.transport.graph_client import GraphClient  # who was started with a proxy asks nobody

    try:
        with GraphClient(settings) as client:
            return client.start_worker(chosen, run, _readable(name or ""), ASK_S)
    except GraphError as error:
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        started = sys.argv[0] if spec is None else f"-m {spec.name.removesuffix('.__main__')}"
        raise GraphError(f"{error}. Or start this script with: runlane run -- python {started}") from None
