"""When the database gives rows up, and which: by number of runs, by age and by size, as `[retention]` says;
and before all that, the runs that a person deletes.

The order is the order of what is missed least. Too many runs: the oldest go as a whole. Too old: a run's `classes`
go. Too large: `classes` go first, one after the other, each from the oldest run to the newest; then whole runs,
the oldest first. A run that has not ended is never touched, whatever the limit.

Removing is cut into pieces that take a few milliseconds. They run while no record waits; a writer that is never idle
does one now and then, because a database that only grows would stop it in the end.
"""

from collections import deque
from collections.abc import Iterator

from runlane.actors.removal import CLASSES, DELETED, FOREVER_NS, Removal
from runlane.actors.run_videos import RunVideos
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
MAX_PIECE_FILES = 128
BUSY_S = 0.2  # between two pieces while records wait
CHECK_S = 5.0  # between two looks at the limits when nothing is to be done
AT_ONCE = 100  # runs that one look may find
CHECK_SHARE = 200  # a look may take one part in so many of the time
DAY_NS = 86_400 * 1_000_000_000


class Retention:
    """Keeps a store within its limits, one bounded piece per call. Deletes nothing by itself: the store does."""

    def __init__(
        self, store: Store, settings: RetentionSettings, clock: Clock, videos: RunVideos | None = None
    ) -> None:
        """With `videos`, those of a run that is deleted go, too."""
        self.removed_rows = 0
        self._store = store
        self._settings = settings
        self._clock = clock
        self._videos = videos
        self._wanted: deque[Removal] = deque()  # at most AT_ONCE runs' worth; the first is under way
        self._rows_of_first = 0
        self._is_going = False
        self._piece_rows = 4 * MIN_PIECE_ROWS
        self._due_s = clock.monotonic_s()
        self._is_over_budget = False

    @property
    def has_work(self) -> bool:
        """Whether a removal is under way, or was until now, so that an idle writer need not wait."""
        return self._is_going

    def do_work(self, *, is_idle: bool) -> None:
        """Look at the limits, or remove one piece, if it is time. Never raises: records go on being stored."""
        is_time = self._clock.monotonic_s() >= self._due_s or (is_idle and self.has_work)
        if not is_time:
            return
        try:
            with store_errors(self._store.path):
                if self._wanted:
                    self._remove(self._wanted[0])
                else:
                    self._look()
        except StoreError as error:
            self._wanted.clear()
            self._rows_of_first, self._is_going = 0, False
            self._due_s = self._clock.monotonic_s() + CHECK_S
            log_event(log_ids.DURABLE_PRUNE_FAILED, error=str(error))

    def delete(self, run: str) -> None:
        """Begin to remove all of an ended or lost run, before what limits want gone. Noted, so it survives a kill.

        Raises `StoreError` when it cannot be noted; then nothing goes.
        """
        self._store.begin_deletion(run, self._clock.wall_ns())
        under_way = [removal for removal in self._wanted if removal.run == self._wanted[0].run]
        with store_errors(self._store.path):
            wanted = [found for found in self._store.removals.deletions(AT_ONCE) if found not in under_way]
        self._wanted = deque([*under_way, *wanted])  # what limits want is asked anew: now they may want less
        self._due_s, self._is_going = self._clock.monotonic_s(), True

    # ---- deciding ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        started_s = self._clock.monotonic_s()
        self._wanted.extend(next((found for found in self._rules() if found), ()))
        took_s = self._clock.monotonic_s() - started_s
        self._is_going = bool(self._wanted)
        self._due_s = started_s + (0.0 if self._is_going else max(CHECK_S, CHECK_SHARE * took_s))

    def _rules(self) -> Iterator[list[Removal]]:
        """What each rule wants gone; a rule is asked when those before it want nothing."""
        removals, limits = self._store.removals, self._settings
        yield removals.deletions(AT_ONCE)
        if not limits.is_on:
            return
        yield removals.begun(AT_ONCE)
        if limits.max_runs is not None:
            yield removals.of_runs("max_runs", limits.max_runs, AT_ONCE)
        if limits.max_age_days is not None:
            old_ns = self._clock.wall_ns() - int(limits.max_age_days * DAY_NS)
            for record_class in limits.classes:
                yield removals.of_class(record_class, "max_age_days", old_ns, AT_ONCE)
        if self._is_too_large():
            for record_class in limits.classes:
                yield removals.of_class(record_class, "max_bytes", FOREVER_NS, AT_ONCE)
            yield removals.of_runs("max_bytes", 0, 1)
            self._say_over_budget()

    def _is_too_large(self) -> bool:
        limit = self._settings.max_bytes
        is_too_large = limit is not None and self._store.removals.used_bytes() > limit
        self._is_over_budget = self._is_over_budget and is_too_large
        return is_too_large

    def _say_over_budget(self) -> None:
        if not self._is_over_budget:
            self._is_over_budget = True
            used = self._store.removals.used_bytes()
            log_event(log_ids.DURABLE_OVER_BUDGET, bytes=used, max_bytes=self._settings.max_bytes)

    # ---- doing ------------------------------------------------------------------------------------------

    def _remove(self, removal: Removal) -> None:
        started_s = self._clock.monotonic_s()
        if removal.reason == DELETED and removal.record_class == CLASSES[-1] and not self._has_no_videos(removal.run):
            self._due_s = self._clock.monotonic_s() + BUSY_S
            return
        rows, is_done = self._store.remove(removal, self._piece_rows, self._clock.wall_ns())
        now_s = self._clock.monotonic_s()
        self._pace(now_s - started_s)
        self._due_s = now_s + BUSY_S
        self.removed_rows += rows
        self._rows_of_first += rows
        if is_done:
            self._finish(removal)

    def _has_no_videos(self, run: str) -> bool:
        """Remove some videos of a run: before its last rows, so that a kill in between leaves none."""
        return self._videos is None or self._videos.remove(self._store.deletions.streams(run), MAX_PIECE_FILES)

    def _finish(self, removal: Removal) -> None:
        rows, self._rows_of_first = self._rows_of_first, 0
        if rows:
            run, _, record_class, reason = removal
            log_event(log_ids.DURABLE_PRUNED, run=run, record_class=record_class, rows=rows, reason=reason)
        self._wanted.popleft()
        # A class of a run is taken out whole, and a run is: what was begun is finished, and then there is room.
        is_begun = bool(self._wanted) and self._wanted[0].run == removal.run
        if removal.reason == "max_bytes" and not is_begun and not self._is_too_large():
            self._wanted.clear()

    def _pace(self, took_s: float) -> None:
        """Rows differ a thousandfold in size, so the next piece is measured by the last one's time."""
        factor = min(2.0, max(0.25, PIECE_S / took_s)) if took_s > 0 else 2.0
        self._piece_rows = min(MAX_PIECE_ROWS, max(MIN_PIECE_ROWS, int(self._piece_rows * factor)))
