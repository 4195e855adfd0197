"""The telemetry page under load: how late the event loop is, what it costs, and whether memory stays flat.

Real encoded batches are put into the mailbox of the controller's reader by a thread, as its own thread does, and come
to the models and the page by the controller's own tick. `flood_cases` is for bench_gui; run alone it prints a table:

    QT_QPA_PLATFORM=offscreen python benchmarks/gui_telemetry_cases.py [SECONDS]
"""

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
from measuring import Machine, percentile, print_table, verdict
from PySide6.QtCore import QElapsedTimer, QEventLoop, Qt, QTimer
from PySide6.QtWidgets import QApplication

from runlane.config.settings import Settings
from runlane.gui import theme
from runlane.gui.bus_reader import BusReader
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.telemetry_view import TelemetryView
from runlane.gui.tokens import DARK
from runlane.transport.record_batch import RecordBatch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from telemetry_batches import BatchSource

RATES = (1_000, 10_000, 100_000)
PERIOD_S = 0.02  # a worker sends so often
MAX_BATCH = 256
WARM_S = 1.5
AIM_P99_MS = 15.0


@dataclass(frozen=True, slots=True)
class Flood:
    """One rate. `late_ms` is how much later than it should a 1 ms timer fired: how long the loop was busy."""

    rate: int
    received_per_s: float
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float
    busy_p99_ms: float  # the same by the CPU time of the window's thread, which other programs do not lengthen
    busy_max_ms: float
    cpu_share: float
    feeder_share: float
    rss_mb: tuple[float, ...]


class FloodReader(BusReader):
    """The reader with its bus replaced: its thread makes batches at a rate, and waits when the mailbox is full."""

    def __init__(self, settings: Settings, rate: int, sources: Sequence[BatchSource]) -> None:
        super().__init__(settings)
        self.cpu_s = 0.0
        self._rate = rate
        self._sources = sources

    def _run(self) -> None:
        next_s, owed = time.monotonic(), 0.0
        while not self._is_stopping:
            owed += self._rate * PERIOD_S
            share = int(owed) // len(self._sources)
            owed -= share * len(self._sources)
            for source in self._sources:
                self._put(_batches(source, share))
            self.cpu_s = time.thread_time()
            next_s = max(next_s + PERIOD_S, time.monotonic() - 1.0)
            time.sleep(max(0.0, next_s - time.monotonic()))


def _batches(source: BatchSource, records: int) -> list[RecordBatch]:
    """So many records: steps, an episode for every hundred, and a metric."""
    found: list[RecordBatch] = []
    source.t_ns = time.time_ns()
    while records > 0:
        count = min(records, MAX_BATCH)
        before = source.made
        found.append(source.steps(count))
        ended = source.made // 100 - before // 100
        found += [source.episodes([float(source.made % 977)], first=source.made // 100) for _ in range(ended)]
        records -= count
    if source.made % 1_000 < 50:
        found.append(source.metric("loss/policy", 1.0 / (1 + source.made), source.made))
    return found


class NoStore:
    """A database without a run."""

    def runs(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def curve(self, run: str, points: int) -> dict[str, Any]:
        """Nothing."""
        return {"run": run, "asked": points, "points": []}

    def query(self, sql: str, bindings: Sequence[object] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """No rows."""
        return (sql, str(bindings)), []

    def size(self) -> tuple[int, int]:
        """Empty."""
        return 0, 0


class LateWatch:
    """A 1 ms timer that notes how late it fires."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.busy_ms: list[float] = []
        self._cpu_s = 0.0
        self._clock = QElapsedTimer()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(1)
        self._timer.timeout.connect(self._on_timer)

    def start(self) -> None:
        """Begin."""
        self._clock.start()
        self._cpu_s = time.thread_time()
        self._timer.start()

    def stop(self) -> None:
        """End."""
        self._timer.stop()

    def _on_timer(self) -> None:
        self.late_ms.append(max(0.0, self._clock.nsecsElapsed() / 1e6 - 1.0))
        self._clock.restart()
        before_s, self._cpu_s = self._cpu_s, time.thread_time()
        self.busy_ms.append((self._cpu_s - before_s) * 1e3)


def application() -> QApplication:
    """The one there is, or one that looks like ours."""
    found = QApplication.instance()
    if isinstance(found, QApplication):
        return found
    made = QApplication([])
    made.setStyle("Fusion")
    made.setFont(theme.load_fonts())
    made.setPalette(theme.palette_of(DARK))
    made.setStyleSheet(theme.style_sheet(DARK))
    return made


def flood(rate: int, seconds: float, sources: int = 4, data_dir: Path | None = None) -> Flood:
    """The page at 1280 by 720 with four runs drawn over each other, at so many records a second."""
    application()
    settings = msgspec.structs.replace(Settings(), data_dir=str(data_dir or Path("/nonexistent")))
    controller = LiveTelemetryController(settings, NoStore())
    view = TelemetryView(controller, DARK)
    view.resize(1280, 720)
    view.show()
    made = [BatchSource(f"run-{number}", run_name=f"ppo-s{number}") for number in range(sources)]
    reader = FloodReader(settings, rate, made)
    _start(controller, reader)
    view.set_active(True)
    for source in made:
        view.overlay(source.info.run, is_shown=True)
    _spin(WARM_S)
    watch, process, memory = LateWatch(), psutil.Process(), list[float]()
    received, cpu_s, feeder_s, start_s = (
        controller.telemetry.received,
        time.process_time(),
        reader.cpu_s,
        time.monotonic(),
    )
    watch.start()
    for _ in range(6):
        _spin(seconds / 6)
        memory.append(process.memory_info().rss / 1e6)
    watch.stop()
    elapsed_s, feeder_s = time.monotonic() - start_s, reader.cpu_s - feeder_s
    cpu_s = time.process_time() - cpu_s - feeder_s
    received = controller.telemetry.received - received
    view.cleanup()
    controller.stop()
    view.close()
    view.deleteLater()
    _spin(0.05)
    return Flood(
        rate,
        received / elapsed_s,
        percentile(watch.late_ms, 50),
        percentile(watch.late_ms, 99),
        max(watch.late_ms),
        percentile(watch.busy_ms, 99),
        max(watch.busy_ms),
        cpu_s / elapsed_s,
        feeder_s / elapsed_s,
        tuple(memory),
    )


def _start(controller: LiveTelemetryController, reader: BusReader) -> None:
    """As `LiveTelemetryController.start`, with our reader in place of the bus's."""
    made, name = controller, "_bus"
    reader.start()
    setattr(made, name, reader)
    timer = controller.findChild(QTimer)
    if isinstance(timer, QTimer):
        timer.start()


def _spin(seconds: float) -> None:
    loop = QEventLoop()  # not the application's own: its end closes every window
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()


def flood_cases(seconds: float = 10.0, rates: Sequence[int] = RATES) -> list[Flood]:
    """Every rate in turn."""
    return [flood(rate, seconds) for rate in rates]


def main(seconds: float) -> None:
    """Print what was measured."""
    machine = Machine()
    floods = flood_cases(seconds)
    rows = [
        [
            f"{found.rate:,}/s",
            f"{found.received_per_s:,.0f}",
            f"{found.late_p50_ms:.2f}",
            f"{found.late_p99_ms:.1f}",
            f"{found.late_max_ms:.1f}",
            f"{found.busy_p99_ms:.1f}",
            f"{found.busy_max_ms:.1f}",
            f"{100 * found.cpu_share:.0f} %",
            " ".join(f"{value:.0f}" for value in found.rss_mb),
        ]
        for found in floods
    ]
    print_table(
        [
            "offered",
            "taken/s",
            "late p50 ms",
            "p99",
            "max",
            "own CPU p99 ms",
            "max",
            "CPU of a core",
            "RSS MB over time",
        ],
        rows,
    )
    is_met = floods[-1].late_p99_ms <= AIM_P99_MS if machine.is_quiet else None
    print(f"aim: late p99 at most {AIM_P99_MS:.0f} ms at {floods[-1].rate:,}/s: {verdict(is_met)}")
    print(machine.line())
    print(f"threads left: {threading.active_count() - 1}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
