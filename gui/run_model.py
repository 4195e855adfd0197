"""RunModel: every run, newest first, from the store once a second and from the fast path in between.

What the store counts and what the fast path counted are never added: each is a part of the truth, so the larger one is
shown, and no count runs backwards or doubles. Only rows that changed are told; a reset comes with the first load and
with changes of many rows at once. QtCore alone.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractListModel, QByteArray, QModelIndex, QObject, QPersistentModelIndex, Qt

from runlane.config.errors import WireError
from runlane.config.names import PROXY_PREFIX
from runlane.gui.run_entry import RunEntry
from runlane.gui.run_live import RunLive
from runlane.transport.messages import Status
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import ALIVE

MAX_RUNS = 20_000  # older ones are not listed
KEPT_LIVE = 256  # runs seen on the bus of which the figures are kept
MOST_STRUCTURAL = 64  # inserted and removed rows at once; more is a reset
MIXED_MODE = "mixed"  # the Telemetry Mode of a run whose workers are in different ones
LIVE_WORD_S = 3.0  # for so long the fast path's word about a state outweighs the store's, which is later
TELL_S = 0.25  # changes by the fast path are told so often
UNSTORED_S = 30.0  # a silent run that the store never knew is forgotten after this

Index = QModelIndex | QPersistentModelIndex
_NO_INDEX = QModelIndex()


class RunRole(IntEnum):
    """Roles of the model; `roleNames` gives them in lower case. ENTRY is the whole `RunEntry`."""

    ENTRY = Qt.ItemDataRole.UserRole + 1
    RUN = Qt.ItemDataRole.UserRole + 2
    NAME = Qt.ItemDataRole.UserRole + 3
    STATE = Qt.ItemDataRole.UserRole + 4
    STEPS = Qt.ItemDataRole.UserRole + 5
    EPISODES = Qt.ItemDataRole.UserRole + 6
    MEAN_RETURN = Qt.ItemDataRole.UserRole + 7
    STEP_RATE_HZ = Qt.ItemDataRole.UserRole + 8
    PROGRESS = Qt.ItemDataRole.UserRole + 9


class RunModel(QAbstractListModel):
    """One thread, the window's, owns it. `clock` is monotonic seconds."""

    def __init__(self, parent: QObject | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Empty until the store or the bus tells of a run."""
        super().__init__(parent)
        self.rejected = 0  # records in batches that could not be read
        self._clock = clock
        self._entries: list[RunEntry] = []
        self._rows: dict[str, int] = {}
        self._stored: dict[str, dict[str, Any]] = {}
        self._live: OrderedDict[str, RunLive] = OrderedDict()
        self._alive: set[str] = set()
        self._curves: dict[str, tuple[float, ...]] = {}
        self._warnings: dict[str, str] = {}
        self._changed: set[str] = set()
        self._working: dict[str, tuple[tuple[str, ...], str]] = {}
        self._next_color = 0
        self._has_rows = False  # whether the store has answered
        self._next_tell_s = 0.0

    # ---- what the controller and the views ask ----

    def entry(self, run: str) -> RunEntry | None:
        """A run by its whole id."""
        row = self._rows.get(run)
        return None if row is None else self._entries[row]

    def entries(self) -> list[RunEntry]:
        """All of them, newest first."""
        return list(self._entries)

    def alive(self) -> set[str]:
        """Ids of runs that are running or stalled."""
        return set(self._alive)

    def newest(self) -> str:
        """Id of the newest run; empty without any."""
        return self._entries[0].run if self._entries else ""

    def find(self, text: str) -> str:
        """Id of the run with this id, this beginning of an id if only one has it, or this name (the newest one)."""
        if not text or text in self._rows:
            return text
        named = next((entry.run for entry in self._entries if entry.name == text), "")
        begun = [entry.run for entry in self._entries if entry.run.startswith(text)]
        return begun[0] if len(begun) == 1 else named

    def row_of(self, run: str) -> int:
        """Row of a run, -1 for an unknown one."""
        return self._rows.get(run, -1)

    def at(self, row: int) -> RunEntry:
        """The run of a row."""
        return self._entries[row]

    def has_whole_curve(self, run: str) -> bool:
        """Whether the fast path saw every episode of a run, so that the store need not be asked for its returns."""
        live, entry = self._live.get(run), self.entry(run)
        return live is not None and entry is not None and live.episodes >= entry.episodes

    def counts(self) -> Counter[str]:
        """How many runs are in each state."""
        return Counter(entry.state for entry in self._entries)

    def without_facts(self, most: int) -> list[str]:
        """Runs of which config and host are not known yet, newest first, for `set_facts`."""
        found: list[str] = []
        for entry in self._entries:
            if not entry.has_facts and entry.run in self._stored:
                found.append(entry.run)
                if len(found) == most:
                    break
        return found

    # ---- the store ----

    def set_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Every run as the store lists it (fields of `runlane runs --json`), newest first."""
        now_s = self._clock()
        kept = rows[:MAX_RUNS]
        stored = {row["run"]: row for row in kept}
        self._forget(stored, now_s)
        new = [row["run"] for row in kept if row["run"] not in self._rows]
        self._insert(new, stored)
        if not self._has_rows and rows:
            self._has_rows = True
            for color, entry in enumerate(reversed(self._entries)):  # whatever the bus told of before
                entry.color_index = color
        known, self._stored = self._stored, stored
        self._changed |= {run for run, row in stored.items() if known.get(run) != row}.difference(new)
        self._changed |= self._alive
        self._changed |= {run for run, live in self._live.items() if now_s - live.seen_s < 2 * LIVE_WORD_S}
        self._refresh(now_s)

    def set_facts(self, facts: dict[str, dict[str, Any]]) -> None:
        """Facts of some runs, by id; `run_entry.facts_of` makes them from the table `runs`."""
        for run, found in facts.items():
            entry = self.entry(run)
            if entry is not None:
                entry.set_facts(found)
                self._changed.add(run)
        self._refresh(self._clock())

    def set_warnings(self, warnings: dict[str, str]) -> None:
        """What the store has of runs of which nothing was recorded, by id."""
        self._warnings |= warnings
        self._changed |= warnings.keys()
        self._refresh(self._clock())

    def set_curve(self, run: str, curve: dict[str, Any]) -> None:
        """Returns of a run over all its episodes: fields of `runlane curve --json`. Its sparkline and best return."""
        entry = self.entry(run)
        if entry is None:
            return
        points = curve["points"]
        means = tuple(point["mean_return"] for point in points if point["mean_return"] is not None)
        best = [point["max_return"] for point in points if point["max_return"] is not None]
        self._curves[run] = means
        if best:
            entry.best_return = max(best) if entry.best_return is None else max(entry.best_return, *best)
        self._changed.add(run)
        self._refresh(self._clock())

    # ---- the fast path and the graph ----

    def add(self, batches: Iterable[RecordBatch], now_s: float) -> None:
        """Take in what the bus brought at `now_s`. A batch that cannot be read is counted, and watching goes on."""
        for batch in batches:
            info = batch.info
            live = self._live.get(info.run)
            if live is None:
                if info.worker.startswith(PROXY_PREFIX) and batch.kind != "log":
                    continue  # a proxy's word about a worker that was not seen: the store tells the rest
                live = self._live[info.run] = RunLive(info, now_s)
                if len(self._live) > KEPT_LIVE:
                    self._live.popitem(last=False)
            try:
                live.add(batch, now_s)
            except WireError:
                self.rejected += len(batch)
                continue
            self._live.move_to_end(info.run)
            if info.run not in self._rows:
                self._insert([info.run], {})
            self._entries[self._rows[info.run]].set_name(info.run_name)
            self._changed.add(info.run)
        if now_s >= self._next_tell_s and self._changed:
            self._next_tell_s = now_s + TELL_S
            self._refresh(now_s)

    def set_status(self, status: Status | None) -> None:
        """Which workers the graph knows alive, and in which Telemetry Mode; None: no graph answers."""
        workers: dict[str, tuple[str, ...]] = {}
        modes: dict[str, set[str]] = {}
        for child in status.children if status is not None else []:
            if child.kind != "proxy" or child.exit_code is not None:
                continue
            # A proxy serves several workers where a script has several; an idle one tells only whose it is.
            for told in child.statistics.get("workers") or [child.statistics]:
                run, worker = told.get("run"), told.get("worker")
                if run and worker:
                    workers[run] = (*workers.get(run, ()), worker)
                    modes.setdefault(run, set()).add(told.get("telemetry_mode") or "")
        found = {run: (names, _common_mode(modes[run] - {""})) for run, names in workers.items()}
        if found != self._working:
            self._changed |= found.keys() | self._working.keys()
            self._working = found
            self._refresh(self._clock())

    # ---- rows ----

    def rowCount(self, parent: Index = _NO_INDEX) -> int:  # noqa: N802  Qt's name
        """How many runs."""
        return 0 if parent.isValid() else len(self._entries)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """One value of a row."""
        if not index.isValid() or index.row() >= len(self._entries):
            return None
        entry = self._entries[index.row()]
        if role == RunRole.ENTRY:
            return entry
        if role in (Qt.ItemDataRole.DisplayRole, RunRole.NAME):
            return entry.title
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{entry.title}, {entry.state}, {entry.subtitle}"
        name = _ATTRIBUTES.get(role)
        return None if name is None else getattr(entry, name)

    def roleNames(self) -> dict[int, QByteArray]:  # noqa: N802  Qt's name
        """Names of the roles, for QML."""
        return {int(role): QByteArray(role.name.lower().encode()) for role in RunRole}

    # ---- inside ----

    def _forget(self, stored: dict[str, dict[str, Any]], now_s: float) -> None:
        """Take out runs that the store has deleted, and silent ones that it never knew."""
        gone = [entry.run for entry in self._entries if self._is_gone(entry.run, stored, now_s)]
        if not gone:
            return
        leaving = set(gone)
        rows = [self._rows[run] for run in gone]
        if len(rows) > MOST_STRUCTURAL:
            self.beginResetModel()
            self._entries = [entry for entry in self._entries if entry.run not in leaving]
            self._number()
            self.endResetModel()
        else:
            for row in sorted(rows, reverse=True):
                self.beginRemoveRows(QModelIndex(), row, row)
                del self._entries[row]
                self.endRemoveRows()
            self._number()
        for run in gone:
            self._live.pop(run, None)
            self._curves.pop(run, None)
            self._warnings.pop(run, None)
            self._alive.discard(run)
            self._changed.discard(run)

    def _is_gone(self, run: str, stored: dict[str, dict[str, Any]], now_s: float) -> bool:
        if run in stored:
            return False
        live = self._live.get(run)
        return run in self._stored or live is None or now_s - live.seen_s > UNSTORED_S

    def _insert(self, runs: list[str], stored: dict[str, dict[str, Any]]) -> None:
        """Make entries, oldest first, so that a run keeps its colour however many come after it."""
        if not runs:
            return
        made: list[RunEntry] = []
        for run in reversed(runs):
            live, row = self._live.get(run), stored.get(run)
            entry = RunEntry(run, color_index=self._next_color)
            if row is not None:
                _fill_stored(entry, row)
            elif live is not None:
                entry.started_ns = live.started_ns
            made.append(entry)
            self._next_color += 1
            if live is not None or run in self._working or entry.state in ALIVE:
                self._changed.add(run)  # all else of it stands in its row
        if len(made) > MOST_STRUCTURAL:
            self.beginResetModel()
            self._entries = sorted([*self._entries, *made], key=_age, reverse=True)
            self._number()
            self.endResetModel()
            return
        for entry in made:
            place = next((at for at, other in enumerate(self._entries) if _age(other) < _age(entry)), len(self._rows))
            self.beginInsertRows(QModelIndex(), place, place)
            self._entries.insert(place, entry)
            self._number()
            self.endInsertRows()

    def _number(self) -> None:
        self._rows = {entry.run: row for row, entry in enumerate(self._entries)}

    def _refresh(self, now_s: float) -> None:
        """Work the changed entries out anew, and tell of them, neighbours together."""
        rows: list[int] = []
        for run in self._changed:
            row = self._rows.get(run)
            if row is None:
                continue
            entry = self._entries[row]
            self._fill(entry, now_s)
            (self._alive.add if entry.state in ALIVE else self._alive.discard)(run)
            rows.append(row)
        self._changed.clear()
        rows.sort()
        first = 0
        for place in range(1, len(rows) + 1):
            if place == len(rows) or rows[place] != rows[place - 1] + 1:
                self.dataChanged.emit(self.index(rows[first]), self.index(rows[place - 1]))
                first = place

    def _fill(self, entry: RunEntry, now_s: float) -> None:
        row, live = self._stored.get(entry.run), self._live.get(entry.run)
        if row is not None:
            _fill_stored(entry, row)
        if live is not None:
            self._fill_live(entry, live, now_s, is_stored=row is not None)
        names, entry.telemetry_mode = self._working.get(entry.run, ((), ""))
        entry.worker_names = names
        curve = self._curves.get(entry.run, ())
        is_whole = live is not None and live.episodes >= entry.episodes
        entry.sparkline = tuple(live.curve.values) if live is not None and (is_whole or not curve) else curve
        if entry.state not in ALIVE:
            entry.step_rate_hz = 0.0
        told = live.warning if live is not None else ""
        entry.warning = "" if entry.steps or entry.episodes else told or self._warnings.get(entry.run, "")
        entry.estimate()

    def _fill_live(self, entry: RunEntry, live: RunLive, now_s: float, *, is_stored: bool) -> None:
        entry.steps, entry.episodes = max(entry.steps, live.steps), max(entry.episodes, live.episodes)
        entry.workers = max(entry.workers, live.workers)
        entry.host = entry.host or live.host
        entry.envs = live.envs or entry.envs
        entry.last_reward = live.last_reward if live.last_reward is not None else entry.last_reward
        if live.best is not None:
            entry.best_return = live.best if entry.best_return is None else max(entry.best_return, live.best)
        is_newest = len(live.recent) == live.recent.maxlen or live.episodes >= entry.episodes
        if live.recent and (is_newest or entry.mean_return is None):
            entry.mean_return = live.mean_return
        if live.state and (not is_stored or now_s - live.told_s < LIVE_WORD_S):
            entry.state = live.state
        entry.step_rate_hz = live.rate.per_s(now_s)
        if live.facts:
            entry.set_facts(live.facts)
            live.facts = {}


def _fill_stored(entry: RunEntry, row: dict[str, Any]) -> None:
    entry.set_name(row["name"])
    entry.state = row["state"]
    entry.started_ns, entry.ended_ns, entry.seen_ns = row["started_ns"], row["ended_ns"], row["seen_ns"]
    entry.steps, entry.episodes = max(entry.steps, row["steps"]), max(entry.episodes, row["episodes"])
    entry.workers, entry.drops = max(entry.workers, row["workers"]), row["drops"]
    entry.mean_return = row["mean_return"]


def _common_mode(modes: set[str]) -> str:
    """The mode of a whole run; empty where no worker has told its own."""
    return MIXED_MODE if len(modes) > 1 else next(iter(modes), "")


def _age(entry: RunEntry) -> tuple[int, str]:
    return entry.started_ns, entry.run


_ATTRIBUTES: dict[int, str] = {
    RunRole.RUN: "run",
    RunRole.STATE: "state",
    RunRole.STEPS: "steps",
    RunRole.EPISODES: "episodes",
    RunRole.MEAN_RETURN: "mean_return",
    RunRole.STEP_RATE_HZ: "step_rate_hz",
    RunRole.PROGRESS: "progress",
}
