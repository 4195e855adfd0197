"""When the database gives rows up, and which: by number of runs, by age and by size, as `[retention]` says.

The order is the order of what is missed least. Too many runs: the oldest go as a whole. Too old: a run's `classes`
go. Too large: `classes` go first, one after the other, each from the oldest run to the newest; then whole runs,
the oldest first. A run that has not ended is never touched, whatever the limit.

Removing is cut into pieces that take a few milliseconds. They run while no record waits; a writer that is never idle
does one now and then, because a database that only grows would stop it in the end.
"""

import contextlib
from collections.abc import Iterator, Sequence

from runlane.actors.removal import CLASSES, FOREVER, Moment, Removal
from runlane.actors.store import Store
from runlane.actors.store_file import store_errors
from runlane.config import log_ids
from runlane.config.errors import StoreError
from runlane.config.settings import RetentionSettings
from runlane.transport.clock import Clock
from runlane.transport.log import log_event

PIECE_S = 0.010  # what a piece shall take, its commit included
MIN_PIECE_ROWS = 64
MAX_PIECE_ROWS = 4_096
BUSY_S = 0.2  # between two pieces while records wait
CHECK_S = 5.0  # between two looks at the limits when nothing is to be done
CHECK_SHARE = 200  # a look may take one part in so many of the time
DAY_NS = 86_400 * 1_000_000_000


class Retention:
    """Keeps a store within its limits, one bounded piece per call. Deletes nothing by itself: the store does."""

    def __init__(self, store: Store, settings: RetentionSettings, clock: Clock) -> None:
        self.removed_rows = 0
        self._store = store
        self._settings = settings
        self._clock = clock
        self._current: Removal | None = None
        self._current_rows = 0
        self._piece_rows = 4 * MIN_PIECE_ROWS
        self._due_s = clock.monotonic_s()
        self._is_over_budget = False

    @property
    def has_work(self) -> bool:
        """Whether a removal is under way, so that an idle writer need not wait."""
        return self._current is not None

    def do_work(self, *, is_idle: bool) -> None:
        """Look at the limits, or remove one piece, if it is time. Never raises: records go on being stored."""
        is_time = self._clock.monotonic_s() >= self._due_s or (is_idle and self.has_work)
        if not (self._settings.is_on and is_time):
            return
        try:
            with store_errors(self._store.path):
                if self._current is None:
                    self._look()
                else:
                    self._remove(self._current)
        except StoreError as error:
            self._current = None
            self._due_s = self._clock.monotonic_s() + CHECK_S
            log_event(log_ids.DURABLE_PRUNE_FAILED, error=str(error))

    # ---- deciding ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        started_s = self._clock.monotonic_s()
        self._current = next(self._wanted(), None)
        self._current_rows = 0
        took_s = self._clock.monotonic_s() - started_s
        self._due_s = started_s + (0.0 if self.has_work else max(CHECK_S, CHECK_SHARE * took_s))

    def _wanted(self) -> Iterator[Removal]:
        """What is to be removed next comes first; the rest is not looked for."""
        removals, limits = self._store.removals, self._settings
        begun = removals.begun()
        if begun is not None:
            yield begun
        if limits.max_runs is not None:
            yield from self._first(CLASSES, "max_runs", removals.newest_ended(limits.max_runs))
        if limits.max_age_days is not None:
            old_ns = self._clock.wall_ns() - int(limits.max_age_days * DAY_NS)
            yield from self._first(limits.classes, "max_age_days", (old_ns, FOREVER[1]))
        if limits.max_bytes is not None and self._is_too_large(limits.max_bytes):
            yield from self._first(limits.classes, "max_bytes", FOREVER)
            yield from self._first(CLASSES, "max_bytes", removals.oldest_ended())
            self._say_over_budget(limits.max_bytes)

    def _first(self, classes: Sequence[str], reason: str, until: Moment | None) -> Iterator[Removal]:
        if until is not None:
            for record_class in classes:
                found = self._store.removals.next_of(record_class, reason, until)
                if found is not None:
                    yield found

    def _is_too_large(self, max_bytes: int) -> bool:
        is_too_large = self._store.removals.used_bytes() > max_bytes
        self._is_over_budget = self._is_over_budget and is_too_large
        return is_too_large

    def _say_over_budget(self, max_bytes: int) -> None:
        if not self._is_over_budget:
            self._is_over_budget = True
            log_event(log_ids.DURABLE_OVER_BUDGET, bytes=self._store.removals.used_bytes(), max_bytes=max_bytes)

    # ---- doing ------------------------------------------------------------------------------------------

    def _remove(self, removal: Removal) -> None:
        started_s = self._clock.monotonic_s()
        rows, is_done = self._store.remove(removal, self._piece_rows, self._clock.wall_ns())
        now_s = self._clock.monotonic_s()
        self._pace(now_s - started_s)
        self._due_s = now_s + BUSY_S
        self.removed_rows += rows
        self._current_rows += rows
        if is_done:
            if self._current_rows:
                _, _, record_class, reason, _ = removal
                rows = self._current_rows
                log_event(log_ids.DURABLE_PRUNED, run=removal.run, record_class=record_class, rows=rows, reason=reason)
            self._current = None

    def _pace(self, took_s: float) -> None:
        """Rows differ a thousandfold in size, so the next piece is measured by the last one's time."""
        with contextlib.suppress(ZeroDivisionError):
            factor = min(2.0, max(0.25, PIECE_S / took_s))
            self._piece_rows = min(MAX_PIECE_ROWS, max(MIN_PIECE_ROWS, int(self._piece_rows * factor)))
