"""What the health page and its card ask in the background: processes, figures of the store, log files.

Whoever is on screen calls `ask_health` on every tick; the model says when something is due, so it is asked once.
"""

import time
from collections.abc import Sequence
from typing import Any

from runlane.config.names import DB_WRITER, LOG_DIR
from runlane.gui.health_model import HealthModel
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.store_source import StoreSource
from runlane.gui.trace import WINDOW_S
from runlane.transport.endpoint import data_dir_of

# Along the key (t_ns, source, name): a range of five minutes, and never the whole table.
_FIGURES = """
SELECT source, name, value, t_ns FROM graph_metrics
 WHERE t_ns > ? AND (name IN ('commit_p50_s', 'commit_p99_s', 'records_per_s')
                     OR (name = 'depth' AND source IN (?, ?)))
 ORDER BY t_ns LIMIT 5000
"""
_GAPS = "SELECT coalesce(sum(records), 0) FROM drops WHERE noted_by = 'db_writer'"

StoreFigureRows = tuple[Sequence[Sequence[Any]], int]


def ask_health(controller: LiveTelemetryController, now_s: float) -> None:
    """Ask what is due. Answers reach the model on a later tick."""
    model = controller.health
    # A graph over TCP may be on another host, also through a tunnel: its pids are somebody else's here.
    status = controller.status
    model.is_local = status is None or status.data_dir == str(data_dir_of(controller.settings))
    if model.is_due("sample", now_s):
        pids = model.pids()
        controller.ask_store("health.sample", lambda: model.sampler.sample_processes(pids), model.set_samples)
    if model.is_due("figures", now_s):
        window = f"subscriber {model.window_name}"
        store = controller.store
        controller.ask_store(
            "health.figures", lambda: _figures(store, window), lambda found: _take_figures(model, found)
        )


def ask_log(controller: LiveTelemetryController) -> None:
    """Read on in the log files."""
    model = controller.health.log
    directory = data_dir_of(controller.settings) / LOG_DIR
    controller.ask_store("health.log", lambda: model.tail.read(directory), model.add_lines)


def _figures(store: StoreSource, window: str) -> StoreFigureRows:
    since_ns = time.time_ns() - int(WINDOW_S * 1e9)
    _, rows = store.query(_FIGURES, (since_ns, f"subscriber {DB_WRITER}", window))
    _, ((gaps,),) = store.query(_GAPS)
    return rows, int(gaps)


def _take_figures(model: HealthModel, found: StoreFigureRows) -> None:
    rows, gaps = found
    model.set_store_figures(rows, gaps, time.monotonic(), time.time_ns())
