"""EngineLane: the fast lane of a session whose pictures an engine draws: a program of another language.

Nothing is rendered here. The session's process looks at the leases for the engine, tells it through two words of the
ring's head what is wanted, and says of it what any worker's fast lane says: the lines of the log, the figures. So an
engine needs no MessagePack, no lock and no lease, and honours the telemetry mode and `fast_lane.max_fps` without
knowing them.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

from runlane.config.settings import FastLaneSettings
from runlane.transport.fast_lane_writer import started_ticks
from runlane.transport.held_ring import RingAsker, engine_of
from runlane.transport.ring_layout import HeadHeader, RingInfo
from runlane.workers.attachment import Session
from runlane.workers.fast_lane import LOOK_NS, NEVER_NS, FastLane, Render, Shown


class EngineLane(FastLane):
    """Asks an engine for frames, by `look`. For one thread."""

    def __init__(self, session: Shown, run_dir: Path, settings: FastLaneSettings, head: Path) -> None:
        """`head` is that of the ring that is held for the engine."""
        super().__init__(session, run_dir, settings)
        self._head = head
        self._engine = 0

    def look(self, now_ns: int) -> None:
        """See who watches, and ask the engine for as much. To be called some ten times a second; never raises."""
        if self._writer is None and not self._has_engine():
            return
        if now_ns >= self.next_ns:
            errors = self.errors
            self.is_due(now_ns)
            if self.errors == errors and self.next_ns != NEVER_NS:
                self.next_ns = min(self.next_ns, now_ns + LOOK_NS)
        asker = self._writer
        if isinstance(asker, RingAsker):
            self.frames = asker.frames
            wanted = self._wanted
            asker.ask(0.0 if wanted is None else min(wanted.rate_hz, self.settings.max_fps), now_ns)

    def _has_engine(self) -> bool:
        """Whether the program has said that it can draw. One that has a ring of its own never does."""
        with contextlib.suppress(OSError):
            self._engine = engine_of(self._head)
        return self._engine > 0

    def _make_writer(self, info: RingInfo) -> RingAsker:
        header = HeadHeader(self._engine, started_ticks(self._engine), time.time_ns())
        return RingAsker(self._head, self.run_dir, header, info)

    def show(
        self,
        render: Render,
        reward: Any = 0.0,
        env_index: int = 0,
        *,
        tiles: int = 0,
    ) -> None:
        """Render nothing: the engine does."""

    def figures(self) -> dict[str, Any]:
        """As of any fast lane. How long the engine draws is not known here."""
        return super().figures() | {"render_ms": None}

    def close(self) -> None:
        """Ask for nothing any more. The ring is removed by who holds it."""
        if isinstance(self._writer, RingAsker):
            self.frames = self._writer.frames
        super().close()


def show_engine(session: Session, head: Path) -> EngineLane | None:
    """Let `session` show what an engine draws into the ring of `head`, in place of what it draws itself.

    None where it shows nothing. Call `look` of what is returned; the session closes it.
    """
    lane = session.lane
    if not isinstance(lane, FastLane):
        return None
    engine_lane = session.lane = EngineLane(session, lane.run_dir, lane.settings, head)
    engine_lane.set_mode(session.telemetry_mode)
    return engine_lane
