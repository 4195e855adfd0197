"""Accountant: keeps what the bus accounts for safe from a kill, and tells it to who stores it. Owned by the router."""

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from runlane.actors.bus_memory import BusMemory
from runlane.actors.bus_reporter import BusReporter, bus_metrics
from runlane.actors.egress import Egress
from runlane.actors.run_bus import RunBus, Subscriber
from runlane.config.settings import RouterSettings
from runlane.transport.clock import Clock
from runlane.transport.messages import Accounts, GraphMetrics

# Closed streams whose accounts are still told to who asks.
KEPT_CLOSED = 256
# And for how long at least, in seconds.
KEPT_S = 60.0
# Subscribers that left whose accounts are still told to who asks.
KEPT_NAMES = 256
# For the last accounts of all, at the ordered end.
LAST_WORDS_S = 0.2


class Accountant:
    """Accounts in the ledger once a turn, to `block` subscribers every `report_s`; figures every `metrics_s`."""

    def __init__(self, bus: RunBus, settings: RouterSettings, clock: Clock, router_id: str) -> None:
        """No file is touched before `open`."""
        self.records_per_s = 0.0
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._reporter = BusReporter(bus, router_id, clock.wall_ns)
        self._memory: BusMemory | None = None
        self._next_report_s = self._next_metrics_s = 0.0
        self._rate_at = (clock.monotonic_s(), 0)
        self._closed: dict[bytes, float] = {}  # since when

    def open(self, directory: Path) -> list[Subscriber]:
        """Take up what a router that died left there; returns the subscribers it had."""
        self._memory = BusMemory(directory, self._bus)
        found = self._memory.restore(self._clock.wall_ns())
        now_s = self._clock.monotonic_s()
        self._closed = dict.fromkeys(self._bus.runs, now_s)  # until they are opened again
        return found

    def remember(self, also: Iterable[tuple[str, bytes]] = ()) -> None:
        """Note what has changed, so that it survives us."""
        changed = self._bus.take_changed().union(also)
        if changed and self._memory is not None:
            self._memory.note(changed)
            self._reporter.note(changed)

    def stream_opened(self, stream: bytes) -> None:
        """It is written again."""
        self._closed.pop(stream, None)

    def stream_closed(self, stream: bytes) -> None:
        """Its source said goodbye; its accounts are kept for a while."""
        self._closed[stream] = self._clock.monotonic_s()

    def joined(self, subscriber: Subscriber) -> None:
        """A subscriber has a process. One that stores accounts is told all of them."""
        if subscriber.is_block:
            self._reporter.begin(subscriber.name)
        if self._memory is not None:
            self._memory.note_subscribers()

    def left(self, name: str) -> None:
        """Its process is gone."""
        self._reporter.end(name)
        self.remember((name, stream) for stream in self._bus.past.get(name, ()))
        if self._memory is not None:
            self._memory.note_subscribers()

    def answer(self, name: str) -> Iterator[Accounts]:
        """The accounts of one subscriber, or with an empty name of all."""
        return self._reporter.answer(name)

    def report(self, ways: Mapping[str, Egress]) -> None:
        """Tell accounts and figures when it is time. Never waits: what a full pipe does not take is due again."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_report_s:
            return
        self._next_report_s = now_s + self._settings.report_s
        since_s, records = self._rate_at
        if now_s > since_s:
            self.records_per_s = (self._bus.records_in - records) / (now_s - since_s)
            self._rate_at = (now_s, self._bus.records_in)
        is_due = now_s >= self._next_metrics_s
        if is_due:
            self._next_metrics_s = now_s + self._settings.metrics_s
        self._tell(ways, with_metrics=is_due)
        self._put_away()
        self._forget_names()

    def _tell(self, ways: Mapping[str, Egress], *, with_metrics: bool, until_s: float = 0.0) -> None:
        metrics: GraphMetrics | None = None
        for name, egress in ways.items():
            if not (egress.subscriber.is_block and egress.subscriber.is_live):
                continue
            self._reporter.tell(name, partial(egress.insist, until_s=until_s))
            if with_metrics:
                if metrics is None:
                    values = bus_metrics(self._bus, self.records_per_s, self._clock.monotonic_s())
                    metrics = GraphMetrics(t_ns=self._clock.wall_ns(), values=values)
                egress.send_control(metrics)

    def _put_away(self) -> None:
        """Let go of accounts of streams that ended long ago, once everybody knows them."""
        old_s = self._clock.monotonic_s() - KEPT_S
        names = [*self._bus.subscribers, *self._bus.past]
        for stream in list(self._closed)[: max(0, len(self._closed) - KEPT_CLOSED)]:
            if self._closed[stream] > old_s:  # it may be opened again, as all are after a restart of ours
                break
            if all(self._reporter.is_told(name, stream) for name in names):
                self._bus.put_away(stream)
                if stream not in self._bus.runs:  # else somebody still waits for some of it
                    del self._closed[stream]
                for name in names:
                    if self._memory is not None and self._bus.account_of(name, stream) is None:
                        self._memory.forget(name, stream)

    def _forget_names(self) -> None:
        """Let go of accounts of subscribers that left long ago, likewise."""
        for name in list(self._bus.past)[: max(0, len(self._bus.past) - KEPT_NAMES)]:
            streams = list(self._bus.past[name])
            if all(self._reporter.is_told(name, stream) for stream in streams):
                self._bus.forget_name(name)
                if self._memory is not None:
                    for stream in streams:
                        self._memory.forget(name, stream)

    def close(self, ways: Mapping[str, Egress]) -> None:
        """The router ends in order: what lossy queues still hold is lost, and everybody is told the final sums."""
        for subscriber in self._bus.subscribers.values():
            if not subscriber.is_block:
                subscriber.queue.drop_all("router_stopped")
        self.remember()
        until_s = time.monotonic() + LAST_WORDS_S
        self._tell(ways, with_metrics=True, until_s=until_s)
        for name, egress in ways.items():
            for accounts in self.answer(name):
                egress.insist(accounts, until_s)
        if self._memory is not None:
            self._memory.close()
            self._memory = None
