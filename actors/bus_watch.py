"""BusWatch: says in the log, and not too often, when a subscriber loses records, is about to, or takes nothing."""

from runlane.actors.egress import Egress
from runlane.actors.run_bus import RunBus
from runlane.config import log_ids
from runlane.transport.log import log_event

OVERFLOW_LOG_S = 10.0
# A queue this full will soon drop; told once, until it is calm again.
DEPTH_SHARE, CALM_SHARE = 0.8, 0.5


class BusWatch:
    """What was said of whom. Time is an argument."""

    def __init__(self, bus: RunBus, patience_s: float) -> None:
        """A subscriber that has taken nothing for `patience_s` is stalled."""
        self._bus = bus
        self._patience_s = patience_s
        self._overflow_s: dict[str, float] = {}
        self._deep: set[str] = set()
        self._stalled: set[str] = set()

    def overflowed(self, name: str, now_s: float) -> None:
        """A policy dropped records."""
        if now_s >= self._overflow_s.get(name, 0.0):
            self._overflow_s[name] = now_s + OVERFLOW_LOG_S
            queue = self._bus.subscribers[name].queue.statistics()
            log_event(log_ids.RUNBUS_OVERFLOW, subscriber=name, depth=queue.depth, dropped=sum(queue.dropped.values()))

    def look(self, egress: Egress, now_s: float) -> None:
        """Once when it stops taking, once when its queue is about to drop."""
        name, queue = egress.subscriber.name, egress.subscriber.queue
        if not egress.is_stalled(now_s, self._patience_s):
            self._stalled.discard(name)
        elif name not in self._stalled:
            self._stalled.add(name)
            log_event(log_ids.RUNBUS_SUBSCRIBER_STALLED, subscriber=name, depth=queue.depth)
        if queue.is_block or queue.is_latest or queue.depth <= CALM_SHARE * queue.policy.max_records:
            self._deep.discard(name)
        elif name not in self._deep and queue.depth >= DEPTH_SHARE * queue.policy.max_records:
            self._deep.add(name)
            log_event(log_ids.RUNBUS_QUEUE_DEPTH, subscriber=name, depth=queue.depth)

    def state(self, egress: Egress | None, now_s: float) -> str:
        """What a subscriber's process does: `live`, `stalled` when it takes nothing, `away` when there is none."""
        if egress is None or not egress.subscriber.is_live:
            return "away"
        return "stalled" if egress.is_stalled(now_s, self._patience_s) else "live"

    def forget(self, name: str) -> None:
        """A subscriber left."""
        self._overflow_s.pop(name, None)
        self._deep.discard(name)
        self._stalled.discard(name)
