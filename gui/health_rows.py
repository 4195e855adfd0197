"""Rows of the health page's tables: figures as text, with their states. No Qt."""

from collections.abc import Iterable
from typing import NamedTuple

from runlane.gui.health_figures import JournalFigures, ProcessFigures, QueueFigures
from runlane.gui.health_model import HealthModel
from runlane.gui.run_text import size_text

LATE_HEARTBEAT_S = 2.0
NOTHING = "\u2013"
_GOOD = {"running", "live", "finished", "done"}
_IDLE = {"stopped", "away", "waiting", "starting", "joining", "ended"}
THIN = "\u202f"


class Text(NamedTuple):
    """A cell: text, its state in the style sheet, and what more there is to say."""

    text: str
    state: str = ""
    tip: str = ""


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands."""
    return NOTHING if value is None else f"{value:,.0f}".replace(",", THIN)


def milliseconds(value: float | None) -> str:
    """Some three figures."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def state_of(word: str) -> str:
    """The colour of a state."""
    return "good" if word in _GOOD else "idle" if word in _IDLE else "warn"


def process_rows(processes: Iterable[ProcessFigures]) -> list[tuple[Text, ...]]:
    """name, kind, state, pid, CPU, memory, restarts, heartbeat."""
    return [_process_row(process) for process in processes]


def _process_row(process: ProcessFigures) -> tuple[Text, ...]:
    age_s = process.heartbeat_age_s
    is_down = process.state in ("ended", "restarting") and process.exit_code is not None
    state = f"{process.state} ({process.exit_code})" if is_down else process.state
    cpu = NOTHING if process.cpu_percent is None else f"{process.cpu_percent:.0f} %"
    memory = NOTHING if process.rss_bytes is None else size_text(process.rss_bytes)
    return (
        Text(process.name),
        Text(process.kind.replace("_", " "), "idle"),
        Text(state, "bad" if is_down and process.exit_code else state_of(process.state)),
        Text(str(process.pid) if process.pid else NOTHING),
        Text(cpu, "" if process.cpu_percent is None or process.cpu_percent < 95 else "warn"),
        Text(memory),
        Text(str(process.restarts), "warn" if process.restarts else ""),
        Text(NOTHING if age_s is None else f"{age_s:.1f} s", "warn" if (age_s or 0) > LATE_HEARTBEAT_S else ""),
    )


def queue_rows(queues: Iterable[QueueFigures]) -> list[tuple[Text, ...]]:
    """name, policy, state, account, credits, depth, in flight, peak, published, delivered, latencies, dropped."""
    return [_queue_row(queue) for queue in queues]


def _queue_row(queue: QueueFigures) -> tuple[Text, ...]:
    by_reason = [(reason.replace("_", " "), records) for reason, records in queue.dropped.items()]
    reasons = ", ".join(f"{reason} {count(records)}" for reason, records in by_reason)
    in_short = by_reason[0][0] if len(by_reason) == 1 else f"({reasons})"
    by_window = NOTHING if queue.credits is None else f"{queue.credits}" + (f" / {queue.window}" * bool(queue.window))
    policy = f"{queue.overflow.replace('_', ' ')} {count(queue.max_queue)}".strip()
    depth_state = "bad" if queue.share >= 0.9 else "warn" if queue.share >= 0.5 else ""
    return (
        Text(queue.name, "", policy),
        Text(policy, "idle"),
        Text(queue.state, state_of(queue.state)),
        Text("✓ closed", "good") if not queue.balance else Text(f"✗ {count(queue.balance)}", "bad"),
        Text(by_window, "warn" if queue.credits == 0 else ""),
        Text(count(queue.depth), depth_state, f"{queue.share:.1%} of {count(queue.max_queue)}"),
        Text(count(queue.in_flight)),
        Text(count(queue.peak)),
        Text(count(queue.published)),
        Text(count(queue.delivered)),
        Text(f"{milliseconds(queue.latency_p50_ms)} / {milliseconds(queue.latency_p99_ms)}"),
        Text(f"{count(queue.total_dropped)} {in_short}" if reasons else "0", "warn" if reasons else "", reasons),
    )


def journal_rows(journals: Iterable[JournalFigures], names: dict[str, str]) -> list[tuple[Text, ...]]:
    """worker, run, state, records, backlog, in flight, rewinds, damaged. `names` are of runs, by id."""
    return [
        (
            Text(journal.worker),
            Text(names.get(journal.run) or journal.run[:10], "", journal.run),
            Text("stalled", "warn") if journal.is_stalled else Text("running", "good"),
            Text(count(journal.records_in)),
            Text(count(journal.backlog_records), "warn" if journal.backlog_records > 100_000 else ""),
            Text(size_text(journal.in_flight_bytes)),
            Text(count(journal.rewinds), "warn" if journal.rewinds else ""),
            Text(count(journal.damaged), "bad" if journal.damaged else ""),
        )
        for journal in journals
    ]


def store_figures(model: HealthModel) -> list[tuple[str, str, str, str]]:
    """Caption, value, note and state of each figure of the store."""
    store = model.graph.store
    last = None if store.last_commit_s is None else 1000 * store.last_commit_s
    unit = "ms"
    commit = milliseconds(model.commit_p99_ms)
    return [
        ("rows committed", count(store.rows_committed), f"{count(store.pending_rows)} pending", ""),
        ("commit p99", commit if commit == NOTHING else f"{commit} {unit}", f"last {milliseconds(last)} {unit}", ""),
        ("database", size_text(model.database_bytes), f"WAL {size_text(model.wal_bytes)}", ""),
        (
            "records missing",
            count(model.store_gaps),
            "holes the DB writer noted",
            "bad" if model.store_gaps else "good",
        ),
    ]
