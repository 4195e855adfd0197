"""BusReporter: tells the accounts of the bus, and its figures, to who keeps them. Sockets are the router's.

An account is a snapshot that takes the place of the one before, so one that is told twice, or not at all because
a pipe is full, harms nothing: what has changed since it was last told is told again.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from runlane.actors.run_bus import RunBus, Subscriber
from runlane.transport.messages import Accounts, SubscriberAccount
from runlane.transport.queue import Account

# Keeps a message below `wire.MAX_CONTROL_BYTES`: at most some 400 bytes an account.
ACCOUNTS_PER_MESSAGE = 1_000

_Send = Callable[[Accounts], bool]


class BusReporter:
    """What has changed since each `block` subscriber was last told."""

    def __init__(self, bus: RunBus, router_id: str, wall_ns: Callable[[], int]) -> None:
        """Nobody has been told anything."""
        self._bus = bus
        self._router_id = router_id
        self._wall_ns = wall_ns
        self._due: dict[str, set[tuple[str, bytes]]] = {}

    def note(self, changed: set[tuple[str, bytes]]) -> None:
        """These accounts have changed."""
        for due in self._due.values():
            due.update(changed)

    def begin(self, listener: str) -> None:
        """A subscriber that keeps accounts joined: it is told all of them."""
        self._due[listener] = {(name, stream) for name, stream, _ in self._all()}

    def end(self, listener: str) -> None:
        """It left."""
        self._due.pop(listener, None)

    def tell(self, listener: str, send: _Send) -> None:
        """Tell it what has changed; what its pipe does not take now is due the next time."""
        due = self._due.get(listener)
        while due:
            keys = list(islice(due, ACCOUNTS_PER_MESSAGE))
            accounts = [account for key in keys if (account := self._account(*key)) is not None]
            if accounts and not send(self._message(accounts)):
                return
            due.difference_update(keys)

    def is_told(self, subscriber: str, stream: bytes) -> bool:
        """Whether nobody who keeps accounts still waits for this one."""
        return not any((subscriber, stream) in due for due in self._due.values())

    def answer(self, name: str) -> Iterator[Accounts]:
        """The accounts of one subscriber, or with an empty name of all."""
        found = [self._told(*entry) for entry in self._all() if name in ("", entry[0])]
        for start in range(0, max(1, len(found)), ACCOUNTS_PER_MESSAGE):
            part = found[start : start + ACCOUNTS_PER_MESSAGE]
            yield self._message(part, is_last=start + ACCOUNTS_PER_MESSAGE >= len(found))

    def _message(self, accounts: list[SubscriberAccount], *, is_last: bool = True) -> Accounts:
        return Accounts(router=self._router_id, t_ns=self._wall_ns(), accounts=accounts, is_last=is_last)

    def _all(self) -> Iterator[tuple[str, bytes, Account]]:
        for name, subscriber in self._bus.subscribers.items():
            for stream, account in subscriber.queue.accounts.items():
                yield name, stream, account
        for name, accounts in self._bus.past.items():
            for stream, account in accounts.items():
                yield name, stream, account

    def _account(self, name: str, stream: bytes) -> SubscriberAccount | None:
        account = self._bus.account_of(name, stream)
        return None if account is None else self._told(name, stream, account)

    def _told(self, name: str, stream: bytes, account: Account) -> SubscriberAccount:
        return SubscriberAccount(
            subscriber=name,
            run=self._bus.runs.get(stream, "unknown"),
            stream=stream.hex(),
            published=account.published,
            delivered=account.delivered,
            queued=account.queued,
            dropped=dict(account.dropped),
            first_seq=account.first_seq,
            last_seq=account.last_seq,
        )


def bus_metrics(bus: RunBus, records_per_s: float, now_s: float) -> dict[str, dict[str, float]]:
    """Figures of the bus by source and name, as they are now. Durations in milliseconds, counts in records."""
    found: dict[str, dict[str, float]] = {
        "router": {"records_in": bus.records_in, "records_per_s": records_per_s, "streams": len(bus.streams)}
    }
    for name, subscriber in bus.subscribers.items():
        queue = subscriber.queue.statistics()
        values: dict[str, float] = {
            "depth": queue.depth,
            "peak": queue.peak,
            "in_flight": queue.in_flight,
            "credits": queue.credits,
            "published": queue.published,
            "delivered": queue.delivered,
        }
        values |= {f"dropped_{reason}": records for reason, records in queue.dropped.items()}
        values |= {key: value for key, value in _latencies_ms(subscriber, now_s).items() if value is not None}
        found[f"subscriber {name}"] = values
    for stream in bus.streams.values():
        worker = found.setdefault(f"worker {stream.info.worker}", {"journal_backlog": 0.0})
        worker["journal_backlog"] += max(0, stream.high_seq - stream.acked_seq)
    return found


def subscriber_figures(bus: RunBus, now_s: float) -> dict[str, dict[str, float | None]]:
    """What the heartbeat says of each subscriber's latency, in milliseconds."""
    return {
        name: {key: value and round(value, 3) for key, value in _latencies_ms(subscriber, now_s).items()}
        for name, subscriber in bus.subscribers.items()
    }


def _latencies_ms(subscriber: Subscriber, now_s: float) -> dict[str, float | None]:
    found = {percent: subscriber.latency.percentile_s(percent, now_s) for percent in (50, 99)}
    return {
        f"latency_p{percent}_ms": None if latency_s is None else latency_s * 1000
        for percent, latency_s in found.items()
    }
