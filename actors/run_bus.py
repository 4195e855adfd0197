"""RunBus: which subscriber gets which part of which batch, and how far every stream is committed. No sockets.

Owned by the router. A batch's bodies go through as they came: a subscriber gets whole sections or none, unless it
asked for less than all rows, or a batch comes that a router before this one had given it in part (`slicing.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from runlane.actors.bus_batch import VITAL, BusBatch
from runlane.actors.latency import Latency
from runlane.config.errors import WireError
from runlane.config.settings import QueuePolicy, Selection
from runlane.transport.ack import IngressGate, Verdict
from runlane.transport.messages import StreamInfo
from runlane.transport.queue import Account, SubscriberQueue
from runlane.transport.slicing import Part, after_seq, by_env, every_nth
from runlane.transport.wire import KIND_NUMBER, STEP, BatchHeader, Frame, Section

KEPT_INFOS = 1024
_NO_KINDS: frozenset[int] = frozenset()


@dataclass(slots=True)
class Subscriber:
    """One consumer: its queue, what it wants, and what it has been told.

    `is_declared` subscribers stand in the settings: their queue exists before and after any process of theirs,
    so nothing meant for the durable path is ever acked without it.
    """

    name: str
    queue: SubscriberQueue
    selection: Selection
    is_declared: bool
    instance: str = ""
    last_instance: str = ""  # of the process before, which may only have been asleep
    is_live: bool = False
    committed: dict[bytes, int] = field(default_factory=dict[bytes, int])
    told_infos: dict[bytes, StreamInfo] = field(default_factory=dict[bytes, StreamInfo])
    latency: Latency = field(default_factory=Latency)
    starts: dict[bytes, int] = field(default_factory=dict[bytes, int])  # what it is sent of a stream begins after that
    kinds: frozenset[int] = field(init=False)
    _wanted: dict[bytes, bool] = field(default_factory=dict[bytes, bool])
    _passed: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def __post_init__(self) -> None:
        """Kinds as numbers."""
        self.kinds = frozenset(KIND_NUMBER[kind] for kind in self.selection.kinds)

    @property
    def is_block(self) -> bool:
        """Whether it loses nothing and its echo is an ack."""
        return self.queue.is_block

    def wants(self, info: StreamInfo, stream: bytes) -> bool:
        """Whether a stream is of a run and a worker it asked for."""
        answer = self._wanted.get(stream)
        if answer is None:
            answer = self._wanted[stream] = self.selection.takes(info.run, info.run_name, info.worker)
        return answer

    def count_rows(self, stream: bytes, rows: int) -> int:
        """Step rows of a stream that came before these."""
        passed = self._passed.get(stream, 0)
        self._passed[stream] = passed + rows
        return passed

    def forget(self, stream: bytes) -> None:
        """A stream was closed."""
        self.committed.pop(stream, None)
        self.starts.pop(stream, None)
        self.told_infos.pop(stream, None)  # a queue that still holds some of it is told again
        self._wanted.pop(stream, None)
        self._passed.pop(stream, None)


@dataclass(slots=True)
class Stream:
    """One open stream at the router: who it is, where its proxy answers, what comes next, what is acked."""

    info: StreamInfo
    gate: IngressGate
    peer: bytes
    acked_seq: int
    high_seq: int = 0  # the newest record its source has made, as far as it told


def is_same_source(known: StreamInfo, other: StreamInfo) -> bool:
    """Whether two infos are of one writing process, whichever proxy speaks for it."""
    return (known.host, known.pid, known.started_ns) == (other.host, other.pid, other.started_ns)


class RunBus:
    """The fan-out. Accepts batches in order, offers them to every subscriber, computes acks."""

    def __init__(self) -> None:
        """Start with no stream and no subscriber."""
        self.streams: dict[bytes, Stream] = {}
        # Also of closed streams: a lossy queue may still hold their records, unreadable without the schema.
        self.infos: dict[bytes, StreamInfo] = {}
        self.subscribers: dict[str, Subscriber] = {}
        # Accounts of who is not there now: those who left, and those a router before this one had.
        self.past: dict[str, dict[bytes, Account]] = {}
        self.past_instances: dict[str, str] = {}
        self.runs: dict[bytes, str] = {}  # of every stream that has an account
        self._block_queues: list[SubscriberQueue] = []
        self.records_in = 0
        self.batches_in = 0
        self.duplicates = 0

    # ---- subscribers ----

    def add_subscriber(
        self,
        name: str,
        policy: QueuePolicy,
        selection: Selection,
        window: int,
        first_number: int,
        *,
        is_declared: bool = False,
    ) -> Subscriber:
        """Give a consumer its own queue. It owes nothing of what was accepted before; its accounts go on."""
        subscriber = Subscriber(name, SubscriberQueue(policy, window, first_number), selection, is_declared)
        subscriber.queue.accounts.update(self.past.pop(name, {}))
        subscriber.queue.changed.update(subscriber.queue.accounts)
        subscriber.last_instance = self.past_instances.pop(name, "")
        for key, stream in self.streams.items():
            subscriber.committed[key] = stream.gate.expected_seq - 1
            self._open_account(subscriber, key, stream.gate.expected_seq - 1)
        self.subscribers[name] = subscriber
        self._note_block_queues()
        return subscriber

    def remove_subscriber(self, name: str, reason: str) -> int:
        """Forget a consumer but for its accounts; what waited for it counts as dropped. Returns those records."""
        subscriber = self.subscribers.pop(name)
        queue = subscriber.queue
        self._note_block_queues()
        dropped = queue.drop_all(reason)
        self.past[name] = queue.accounts
        self.past_instances[name] = subscriber.instance or subscriber.last_instance
        return dropped

    def begin(self, subscriber: Subscriber) -> dict[str, int]:
        """A process takes a place: the newest seq of each open stream that it will not be sent."""
        queue = subscriber.queue
        waiting = queue.first_waiting_seqs()
        for key in self.streams:
            first_seq = waiting.get(key)
            subscriber.starts[key] = queue.account(key).last_seq if first_seq is None else first_seq - 1
        return {key.hex(): subscriber.starts[key] for key in self.streams}

    def account_of(self, name: str, stream: bytes) -> Account | None:
        """One account, whether its subscriber is there or was."""
        subscriber = self.subscribers.get(name)
        return (self.past.get(name, {}) if subscriber is None else subscriber.queue.accounts).get(stream)

    def _note_block_queues(self) -> None:
        self._block_queues = [known.queue for known in self.subscribers.values() if known.is_block]

    def restore(self, name: str, stream: bytes, run: str, account: Account) -> None:
        """Take up an account of the router before this one."""
        self.runs[stream] = run
        subscriber = self.subscribers.get(name)
        accounts = self.past.setdefault(name, {}) if subscriber is None else subscriber.queue.accounts
        accounts[stream] = account
        if subscriber is not None:
            subscriber.queue.changed.add(stream)

    def put_away(self, stream: bytes) -> None:
        """Forget the accounts of a stream that has ended; who still waits for some of it keeps its own."""
        for subscriber in self.subscribers.values():
            subscriber.queue.put_away(stream)
        for name, accounts in list(self.past.items()):
            accounts.pop(stream, None)
            if not accounts:
                del self.past[name]
                self.past_instances.pop(name, None)
        if not any(stream in subscriber.queue.accounts for subscriber in self.subscribers.values()):
            self.runs.pop(stream, None)

    def forget_name(self, name: str) -> None:
        """Forget the accounts of a subscriber that left."""
        self.past.pop(name, None)
        self.past_instances.pop(name, None)

    def take_changed(self) -> set[tuple[str, bytes]]:
        """Accounts that have changed since this was last asked."""
        changed: set[tuple[str, bytes]] = set()
        for name, subscriber in self.subscribers.items():
            if subscriber.queue.changed:
                changed |= {(name, stream) for stream in subscriber.queue.changed}
                subscriber.queue.changed.clear()
        return changed

    def _open_account(self, subscriber: Subscriber, key: bytes, seq: int) -> None:
        """Where the account of a stream begins, if it is new; else what came in its absence is none of its."""
        account = subscriber.queue.accounts.get(key)
        if account is None:
            account = subscriber.queue.account(key)
            account.first_seq = account.last_seq = seq
        account.last_seq = max(account.last_seq, seq)
        account.delivered_seq = max(account.delivered_seq, seq)  # what came in its absence will not come again
        subscriber.starts[key] = account.last_seq

    # ---- streams ----

    def open_stream(self, key: bytes, info: StreamInfo, peer: bytes, oldest_seq: int) -> Stream:
        """A hello: open the stream, or take a known one's newer info and address."""
        stream = self.streams.get(key)
        if stream is None:
            stream = Stream(info, IngressGate(oldest_seq), peer, oldest_seq - 1)
            self.streams[key] = stream
            for subscriber in self.subscribers.values():
                subscriber.committed[key] = oldest_seq - 1
                self._open_account(subscriber, key, oldest_seq - 1)
        self.runs[key] = info.run
        stream.info = self.infos[key] = info.with_schemas_of(self.infos.get(key))
        stream.peer = peer
        return stream

    def close_stream(self, key: bytes) -> None:
        """A goodbye after the last ack. Lossy queues may still hold records of it; accounts stay."""
        self.streams.pop(key, None)
        while len(self.infos) > KEPT_INFOS + len(self.streams):
            self.infos.pop(next(known for known in self.infos if known not in self.streams))
        for subscriber in self.subscribers.values():
            subscriber.forget(key)

    # ---- batches ----

    def publish(
        self, header: BatchHeader, head: Frame, bodies: Sequence[Frame], now_s: float = 0.0
    ) -> tuple[Verdict, list[str]]:
        """Accept a batch of an open stream and fan it out; names the subscribers that dropped records.

        Raises `WireError` for a body that a subscriber wants a part of and that cannot be parted; it is accepted
        then, and is delivered to the others.
        """
        stream = self.streams[header.stream]
        verdict = stream.gate.accept(header.first_seq, header.last_seq)
        overflowed: list[str] = []
        if verdict is Verdict.NEW:
            self.records_in += header.records
            self.batches_in += 1
            refused: WireError | None = None
            batch = BusBatch(header, head, bodies, now_s)
            for subscriber in self.subscribers.values():
                try:
                    if self._offer(subscriber, stream.info, batch):
                        overflowed.append(subscriber.name)
                except WireError as error:
                    refused = error
            if refused is not None:
                raise refused
        elif verdict is Verdict.DUPLICATE:
            self.duplicates += 1
        return verdict, overflowed

    def _offer(self, subscriber: Subscriber, info: StreamInfo, batch: BusBatch) -> int:
        header, last_seq, queue = batch.header, batch.last_seq, subscriber.queue
        key = header.stream
        account = queue.accounts.get(key) or queue.account(key)
        known_seq = account.last_seq
        if last_seq > known_seq:
            account.last_seq = last_seq
            queue.changed.add(key)
        share = batch.share(subscriber.kinds if subscriber.wants(info, key) else _NO_KINDS)
        if queue.is_block:
            # A block subscriber gets even an empty delivery: its echo is what moves the ack past this batch.
            entry = batch.entry(share)
            try:
                if header.first_seq <= known_seq:
                    entry.records = batch.records_after(share.wanted, known_seq)
            except WireError:  # unreadable, but how many can be new is known
                entry.records = max(0, min(entry.records, last_seq - known_seq))
                raise
            finally:  # whatever is in it: an ack must not pass over a batch that it was never sent
                queue.offer(entry)
            return 0
        if not share.wanted or last_seq <= known_seq:
            return 0
        if header.first_seq <= known_seq or queue.is_latest or subscriber.selection.decimate > 1:
            return self._offer_pieces(subscriber, info, batch, share.wanted, known_seq)
        entry = batch.entry(share)
        if share.vital:
            if len(share.vital) == len(share.wanted):
                entry.is_vital = True
            else:
                entry.vital = batch.entry(batch.share(subscriber.kinds & VITAL))
        return queue.offer(entry)

    def _offer_pieces(
        self, subscriber: Subscriber, info: StreamInfo, batch: BusBatch, wanted: Sequence[int], known_seq: int
    ) -> int:
        """The longer way: less than whole sections, or an entry for each of them.

        What cannot be parted is counted as dropped, and raised as the `WireError` it is at the end.
        """
        header, dropped = batch.header, 0
        n = subscriber.selection.decimate
        is_by_env = subscriber.queue.policy.key == "env"
        refused: WireError | None = None
        for index in wanted:
            whole = header.sections[index], batch.bodies[index]
            try:
                part: Part | None = after_seq(*whole, known_seq) if header.first_seq <= known_seq else whole
                if part is not None and n > 1 and part[0].kind == STEP:
                    passed = subscriber.count_rows(header.stream, part[0].records)
                    part = every_nth(part[0], part[1], passed, n)
                pieces = [] if part is None else self._pieces(part, info, is_by_env=is_by_env)
            except WireError as error:
                refused = error
                account = subscriber.queue.account(header.stream)
                account.published += whole[0].records
                account.queued += whole[0].records
                account.drop(whole[0].records, "unreadable")
                continue
            for env, section, body in pieces:
                if body is batch.bodies[index]:
                    entry = batch.entry(batch.share(frozenset((section.kind,))))
                else:
                    entry = batch.part_entry(section, body, known_seq)
                entry.key = (header.stream, section.kind, env)
                entry.is_vital = section.kind in VITAL
                dropped += subscriber.queue.offer(entry)
        if refused is not None:
            raise refused
        return dropped

    @staticmethod
    def _pieces(part: Part, info: StreamInfo, *, is_by_env: bool) -> list[tuple[int, Section, Frame]]:
        section, body = part
        if is_by_env and section.kind == STEP:
            return by_env(section, body, info.schema(section.schema_id))
        return [(0, section, body)]

    @property
    def is_blocked(self) -> bool:
        """Whether some `block` queue has no room for another batch, so that ingress must wait."""
        return any(queue.is_full for queue in self._block_queues)

    def holds_any(self, *, is_block: bool) -> bool:
        """Whether anything waits for, or is under way to, a `block` subscriber, or a lossy one that is there."""
        return any(
            subscriber.is_block is is_block
            and (subscriber.queue.depth or subscriber.queue.in_flight_records)
            and (is_block or subscriber.is_live)
            for subscriber in self.subscribers.values()
        )

    @property
    def blocked_by(self) -> list[str]:
        """Which `block` subscribers ingress waits for."""
        return [name for name, subscriber in self.subscribers.items() if subscriber.queue.is_full]

    # ---- acks ----

    def on_echo(self, subscriber: Subscriber, number: int, now_s: float = 0.0) -> set[bytes]:
        """A subscriber consumed (or committed) up to `number`; returns the streams whose ack may move."""
        moved: set[bytes] = set()
        for entry in subscriber.queue.on_echo(number):
            subscriber.latency.add(now_s - entry.accepted_s, now_s)
            if subscriber.is_block and entry.stream in subscriber.committed:
                subscriber.committed[entry.stream] = entry.last_seq
                moved.add(entry.stream)
        return moved

    def acked_seq(self, key: bytes) -> int:
        """How far every `block` subscriber has committed a stream; with none, how far it was accepted."""
        stream = self.streams[key]
        committed = [subscriber.committed[key] for subscriber in self.subscribers.values() if subscriber.is_block]
        return min(committed, default=stream.gate.expected_seq - 1)

    # ---- figures ----

    def overflow_stats(self) -> dict[str, dict[str, int]]:
        """Dropped records per subscriber and reason."""
        return {name: subscriber.queue.statistics().dropped for name, subscriber in self.subscribers.items()}

    def queue_sizes(self) -> dict[str, int]:
        """Records waiting or under way, per subscriber."""
        return {
            name: subscriber.queue.depth + subscriber.queue.in_flight_records
            for name, subscriber in self.subscribers.items()
        }

    def statistics(self) -> dict[str, Any]:
        """Plain figures for the heartbeat."""
        return {
            "records_in": self.records_in,
            "batches_in": self.batches_in,
            "duplicates": self.duplicates,
            "streams": len(self.streams),
            "is_blocked": self.is_blocked,
            "blocked_by": self.blocked_by,
            "subscribers": {
                name: {**msgspec.to_builtins(subscriber.queue.statistics()), "is_live": subscriber.is_live}
                for name, subscriber in self.subscribers.items()
            },
        }
