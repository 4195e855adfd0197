"""RunBus: which subscriber gets which part of which batch, and how far every stream is committed. No sockets.

Owned by the router. A batch's bodies are never touched here: a subscriber gets whole sections or none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from runlane.config.settings import QueuePolicy
from runlane.transport.ack import IngressGate, Verdict
from runlane.transport.messages import StreamInfo
from runlane.transport.queue import Entry, SubscriberQueue
from runlane.transport.wire import KIND_NUMBER, BatchHeader, Frame

KEPT_INFOS = 1024


@dataclass(slots=True)
class Subscriber:
    """One consumer: its queue, what it wants, and what it has been told.

    `is_declared` subscribers stand in the settings: their queue exists before and after any process of theirs,
    so nothing meant for the durable path is ever acked without it.
    """

    name: str
    queue: SubscriberQueue
    kinds: frozenset[int]
    is_declared: bool
    instance: str = ""
    is_live: bool = False
    committed: dict[bytes, int] = field(default_factory=dict[bytes, int])
    told_infos: dict[bytes, StreamInfo] = field(default_factory=dict[bytes, StreamInfo])

    @property
    def is_block(self) -> bool:
        """Whether it loses nothing and its echo is an ack."""
        return self.queue.is_block


@dataclass(slots=True)
class Stream:
    """One open stream at the router: who it is, where its proxy answers, what comes next, what is acked."""

    info: StreamInfo
    gate: IngressGate
    peer: bytes
    acked_seq: int
    is_closing: bool = False


class RunBus:
    """The fan-out. Accepts batches in order, offers them to every subscriber, computes acks."""

    def __init__(self) -> None:
        """Start with no stream and no subscriber."""
        self.streams: dict[bytes, Stream] = {}
        # Also of closed streams: a lossy queue may still hold their records, unreadable without the schema.
        self.infos: dict[bytes, StreamInfo] = {}
        self.subscribers: dict[str, Subscriber] = {}
        self.records_in = 0
        self.batches_in = 0
        self.duplicates = 0

    # ---- subscribers ----

    def add_subscriber(
        self,
        name: str,
        policy: QueuePolicy,
        kinds: Iterable[str],
        window: int,
        first_number: int,
        *,
        is_declared: bool = False,
    ) -> Subscriber:
        """Give a consumer its own queue. It owes nothing of what was accepted before."""
        numbers = frozenset(KIND_NUMBER[kind] for kind in kinds)
        subscriber = Subscriber(name, SubscriberQueue(policy, window, first_number), numbers, is_declared)
        for key, stream in self.streams.items():
            subscriber.committed[key] = stream.gate.expected_seq - 1
        self.subscribers[name] = subscriber
        return subscriber

    def remove_subscriber(self, name: str, reason: str) -> int:
        """Forget a consumer; what waited for it counts as dropped. Returns those records."""
        return self.subscribers.pop(name).queue.drop_all(reason)

    # ---- streams ----

    def open_stream(self, key: bytes, info: StreamInfo, peer: bytes, oldest_seq: int) -> Stream:
        """A hello: open the stream, or take a known one's newer info and address."""
        stream = self.streams.get(key)
        if stream is None:
            stream = Stream(info, IngressGate(oldest_seq), peer, oldest_seq - 1)
            self.streams[key] = stream
            for subscriber in self.subscribers.values():
                subscriber.committed[key] = oldest_seq - 1
        stream.info = self.infos[key] = info.with_schemas_of(self.infos.get(key))
        stream.peer = peer
        return stream

    def close_stream(self, key: bytes) -> None:
        """A goodbye after the last ack. Lossy queues may still hold records of it; accounts stay."""
        self.streams.pop(key, None)
        while len(self.infos) > KEPT_INFOS + len(self.streams):
            self.infos.pop(next(known for known in self.infos if known not in self.streams))
        for subscriber in self.subscribers.values():
            subscriber.committed.pop(key, None)

    # ---- batches ----

    def publish(self, header: BatchHeader, head: Frame, bodies: Sequence[Frame]) -> tuple[Verdict, list[str]]:
        """Accept a batch of an open stream and fan it out; names the subscribers that dropped records."""
        stream = self.streams[header.stream]
        verdict = stream.gate.accept(header.first_seq, header.last_seq)
        overflowed: list[str] = []
        if verdict is Verdict.NEW:
            self.records_in += header.records
            self.batches_in += 1
            for subscriber in self.subscribers.values():
                if self._offer(subscriber, header, head, bodies):
                    overflowed.append(subscriber.name)  # noqa: PERF401  a loop with an effect reads as one
        elif verdict is Verdict.DUPLICATE:
            self.duplicates += 1
        return verdict, overflowed

    def _offer(self, subscriber: Subscriber, header: BatchHeader, head: Frame, bodies: Sequence[Frame]) -> int:
        kinds, queue = subscriber.kinds, subscriber.queue
        wanted = [index for index, section in enumerate(header.sections) if section.kind in kinds]
        if queue.is_latest:
            return sum(queue.offer(_entry(header, head, bodies, [index])) for index in wanted)
        if wanted or queue.is_block:
            # A block subscriber gets even an empty delivery: its echo is what moves the ack past this batch.
            return queue.offer(_entry(header, head, bodies, wanted))
        return 0

    @property
    def is_blocked(self) -> bool:
        """Whether some `block` queue has no room for another batch, so that ingress must wait."""
        return any(subscriber.queue.is_full for subscriber in self.subscribers.values())

    # ---- acks ----

    def on_echo(self, subscriber: Subscriber, number: int) -> set[bytes]:
        """A subscriber consumed (or committed) up to `number`; returns the streams whose ack may move."""
        moved: set[bytes] = set()
        for entry in subscriber.queue.on_echo(number):
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
            "subscribers": {
                name: {**msgspec.to_builtins(subscriber.queue.statistics()), "is_live": subscriber.is_live}
                for name, subscriber in self.subscribers.items()
            },
        }


def _entry(header: BatchHeader, head: Frame, bodies: Sequence[Frame], wanted: Sequence[int]) -> Entry:
    if len(wanted) == len(bodies):  # all of it, as most subscribers get it
        frames = [head, *bodies]
        records = header.records
        section_bits = (1 << len(bodies)) - 1
    else:
        frames = [head, *[bodies[index] for index in wanted]]
        records = sum(header.sections[index].records for index in wanted)
        section_bits = sum(1 << index for index in wanted)
    return Entry(
        stream=header.stream,
        last_seq=header.last_seq,
        records=records,
        section_bits=section_bits,
        frames=frames,
        size_bytes=sum(map(len, frames)),
        key=(header.stream, header.sections[wanted[0]].kind if wanted else 0),
    )
