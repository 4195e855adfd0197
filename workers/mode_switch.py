"""ModeSwitch: the telemetry mode one stream is in, and the one it was asked to be in.

The flusher's thread hears what is wanted; the switch itself is made in a turn of the session, by the training thread
at its next call, or by the flusher where training makes none. Then no record is half under one mode, half under the
other. A step pays nothing for it: while a switch waits, and while records are not kept, the journal is `hold`, and
every call looks.
"""

from collections.abc import Callable

from runlane.config.names import KINDS
from runlane.config.telemetry_mode import TelemetryMode
from runlane.workers.journal_writer import JournalWriter

# What `fast_lane_only` does not keep: all but how runs go, and what was lost.
UNKEPT_KINDS = frozenset(KINDS) - {"run", "drop"}
UNKEPT_REASON = TelemetryMode.FAST_LANE_ONLY.value


class ModeSwitch:
    """`wanted` is written by the flusher's thread, `in_force` by whoever has the session's turn."""

    def __init__(self, journal: JournalWriter, in_force: TelemetryMode, take_turn: Callable[[], None]) -> None:
        """`take_turn` makes the switch if nobody else has the turn; it never waits for one."""
        self.wanted = self.in_force = in_force
        self.is_kept = in_force is not TelemetryMode.FAST_LANE_ONLY  # whether records are kept
        self.is_skipping = not self.is_kept  # and whether, for the time being, that is all a step need know
        self._journal = journal
        self._take_turn = take_turn
        if not self.is_kept:
            journal.hold()

    @property
    def is_due(self) -> bool:
        """Whether another mode is wanted than is in force."""
        return self.wanted is not self.in_force

    def want(self, mode: TelemetryMode) -> None:
        """Be in this mode from the next call on. For the flusher's thread."""
        self.wanted = mode
        self.is_skipping = not (self.is_kept or self.is_due)
        self.look()

    def look(self) -> None:
        """Have the switch made that waits. For the flusher's thread; again until it is made."""
        if self.is_due:
            self.is_skipping = False  # before the hold, as `take` may be under way
            self._journal.hold()
            self._take_turn()

    def take(self, mode: TelemetryMode) -> None:
        """This mode is in force. For who has the turn."""
        self.in_force = mode
        self.is_kept = mode is not TelemetryMode.FAST_LANE_ONLY
        self._journal.is_held = self.is_skipping = not self.is_kept
        if self.is_due:  # asked again in this very moment
            self.is_skipping = False
            self._journal.hold()
