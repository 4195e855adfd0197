"""What a `Status` says of processes, queues, journals and the store, as typed figures. No Qt, no clock.

The supervisor passes on what the actors say of themselves, of which any may be of an older version or not have begun:
a figure that is not there, or is no number, is None or 0, and never an error.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from runlane.config.names import DB_WRITER, GUI, ROUTER, SUPERVISOR
from runlane.transport.messages import ChildStatus, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFigures:
    """One process of the graph. `cpu_percent` is of one core; it and `rss_bytes` are None where nobody could look."""

    name: str
    kind: str
    state: str
    pid: int
    restarts: int = 0
    heartbeat_age_s: float | None = None
    exit_code: int | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """One subscriber's queue in the router, in records unless said otherwise."""

    name: str
    overflow: str = ""
    max_queue: int = 0
    state: str = "away"
    depth: int = 0
    in_flight: int = 0
    peak: int = 0
    published: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    credits: int | None = None
    window: int | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None

    @property
    def total_dropped(self) -> int:
        """Records dropped, whatever the reason."""
        return sum(self.dropped.values())

    @property
    def balance(self) -> int:
        """What is missing from published = delivered + dropped + depth + in flight: 0, or the account is open."""
        return self.published - self.delivered - self.total_dropped - self.depth - self.in_flight

    @property
    def share(self) -> float:
        """How full it is, 0 to 1."""
        return self.depth / self.max_queue if self.max_queue else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFigures:
    """One worker's records between its journal and the store, as its proxy says."""

    worker: str
    run: str
    records_in: int = 0
    backlog_records: int = 0
    in_flight_bytes: int = 0
    rewinds: int = 0
    damaged: int = 0
    is_stalled: bool = False
    modes: tuple[str, ...] = ()  # Telemetry Modes of its workers, each once, sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFigures:
    """The DB writer's own figures; None before it gave any."""

    rows_committed: int | None = None
    last_commit_s: float | None = None
    pending_rows: int | None = None
    database_bytes: int | None = None
    wal_bytes: int | None = None
    failed_attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFigures:
    """A whole graph at one moment."""

    state: str = "absent"
    pid: int = 0
    processes: tuple[ProcessFigures, ...] = ()
    queues: tuple[QueueFigures, ...] = ()
    journals: tuple[JournalFigures, ...] = ()
    store: StoreFigures = StoreFigures()
    records_per_s: float | None = None
    is_blocked: bool = False
    blocked_by: tuple[str, ...] = ()

    def queue(self, name: str) -> QueueFigures | None:
        """The queue of one subscriber."""
        return next((queue for queue in self.queues if queue.name == name), None)


ABSENT = GraphFigures()


def graph_figures(status: Status | None) -> GraphFigures:
    """Everything a status says; `ABSENT` for none."""
    if status is None:
        return ABSENT
    router = _statistics(status, ROUTER)
    supervisor = ProcessFigures(name=SUPERVISOR, kind=SUPERVISOR, state=status.state, pid=status.pid)
    return GraphFigures(
        state=status.state,
        pid=status.pid,
        processes=(supervisor, *map(_process, status.children)),
        queues=tuple(_queues(router)),
        journals=tuple(_journal(child) for child in status.children if _is_serving(child)),
        store=_store(_statistics(status, DB_WRITER)),
        records_per_s=number(router.get("records_per_s")),
        is_blocked=bool(router.get("is_blocked")),
        blocked_by=tuple(map(str, cast("list[Any]", router.get("blocked_by") or []))),
    )


def is_window(name: str) -> bool:
    """Whether a subscriber of this name is a window: `gui`, `gui-2` and so on."""
    head, _, tail = name.partition("-")
    return head == GUI and (not tail or tail.isdigit())


def number(value: Any) -> float | None:
    """A figure that is one."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int:
    found = number(value)
    return 0 if found is None else int(found)


def _maybe(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _map(value: Any) -> dict[str, Any]:
    try:
        return msgspec.convert(value, dict[str, Any])
    except msgspec.ValidationError:
        return {}


def _statistics(status: Status, name: str) -> dict[str, Any]:
    return next((child.statistics for child in status.children if child.name == name), dict[str, Any]())


def _is_serving(child: ChildStatus) -> bool:
    """Whether it is a proxy that has reported and has not ended: the figures of one that has are its last."""
    return child.kind == "proxy" and bool(child.statistics) and child.state != "ended"


def _process(child: ChildStatus) -> ProcessFigures:
    return ProcessFigures(
        name=child.name,
        kind=child.kind,
        state=child.state,
        pid=child.pid,
        restarts=child.restarts,
        heartbeat_age_s=child.heartbeat_age_s,
        exit_code=child.exit_code,
    )


def _queues(router: dict[str, Any]) -> list[QueueFigures]:
    return [_queue(name, _map(figures)) for name, figures in _map(router.get("subscribers")).items()]


def _queue(name: str, figures: dict[str, Any]) -> QueueFigures:
    by_reason = _map(figures.get("dropped"))
    return QueueFigures(
        name=name,
        overflow=str(figures.get("overflow", "")),
        max_queue=_whole(figures.get("max_queue")),
        state=str(figures.get("state") or ("live" if figures.get("is_live") else "away")),
        depth=_whole(figures.get("depth")),
        in_flight=_whole(figures.get("in_flight")),
        peak=_whole(figures.get("peak")),
        published=_whole(figures.get("published")),
        delivered=_whole(figures.get("delivered")),
        dropped={str(reason): _whole(records) for reason, records in by_reason.items() if _whole(records)},
        credits=_maybe(figures.get("credits")),
        window=_maybe(figures.get("window")),
        latency_p50_ms=number(figures.get("latency_p50_ms")),
        latency_p99_ms=number(figures.get("latency_p99_ms")),
    )


def _journal(child: ChildStatus) -> JournalFigures:
    figures = child.statistics
    return JournalFigures(
        worker=str(figures.get("worker", child.name)),
        run=str(figures.get("run", "")),
        records_in=_whole(figures.get("records_in")),
        backlog_records=_whole(figures.get("unacked_records")),
        in_flight_bytes=_whole(figures.get("unacked_bytes")),
        rewinds=_whole(figures.get("rewinds")),
        damaged=_whole(figures.get("damaged_journals")),
        is_stalled=bool(figures.get("is_stalled")),
        modes=_modes(figures),
    )


def _modes(figures: dict[str, Any]) -> tuple[str, ...]:
    """A proxy that serves several workers says each one's."""
    try:
        told = msgspec.convert(figures.get("workers") or [], list[dict[str, Any]])
    except msgspec.ValidationError:
        told = []
    modes = {str(worker.get("telemetry_mode") or "") for worker in (told or [figures])}
    return tuple(sorted(modes - {""}))


def _store(figures: dict[str, Any]) -> StoreFigures:
    return StoreFigures(
        rows_committed=_maybe(figures.get("rows_committed")),
        last_commit_s=number(figures.get("commit_s")),
        pending_rows=_maybe(figures.get("pending_rows")),
        database_bytes=_maybe(figures.get("database_bytes")),
        wal_bytes=_maybe(figures.get("wal_bytes")),
        failed_attempts=_whole(figures.get("failed_attempts")),
    )
