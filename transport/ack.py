"""Who still owes what: unacked batches at the sender, the next expected seq at the receiver. No sockets.

Both ends of the hop from proxy to router use these two classes. ZeroMQ may lose batches when a peer dies, and it
may lose the *oldest* of them; so the receiver takes only the next seq it expects, and the sender goes back to it
(go-back-N). An ack always means: committed, up to here, without a hole.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from runlane.config.errors import WireError
from runlane.transport.wire import Frame


class Batch(NamedTuple):
    """An encoded batch, ready to be sent as often as needed. `frames` are header and bodies."""

    first_seq: int
    last_seq: int
    frames: tuple[Frame, ...]
    size_bytes: int

    @property
    def records(self) -> int:
        """Records in the batch."""
        return self.last_seq - self.first_seq + 1


class AckWindow:
    """Sender's side of one stream: batches in order, sent or not, until they are acked.

    Bounded by `max_bytes`: the owner must not append while `is_full`. It is a window on the stream's journal: what
    lies before its first batch and is not acked must be read there again when a receiver asks for it, see `reset`.
    """

    def __init__(self, max_bytes: int, first_seq: int = 1) -> None:
        """`first_seq` is the seq the first batch will start with."""
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self.rewinds = 0
        self._batches: deque[Batch] = deque()
        self._sent_count = 0
        self._acked_seq: int = first_seq - 1
        self._base_seq: int = first_seq - 1  # before the first batch held
        self._last_seq: int = first_seq - 1

    def append(self, batch: Batch) -> None:
        """Take the batch that follows the last one; raises `ValueError` on a hole."""
        if batch.first_seq != self._last_seq + 1:
            raise ValueError(f"batch starts at seq {batch.first_seq}, the one before ended at {self._last_seq}")
        self._batches.append(batch)
        self._last_seq = batch.last_seq
        self.size_bytes += batch.size_bytes

    def next_unsent(self) -> Batch | None:
        """The batch to send next, if any. Call `mark_sent` once the socket took it."""
        return self._batches[self._sent_count] if self._sent_count < len(self._batches) else None

    def mark_sent(self) -> None:
        """The batch `next_unsent` returned is on its way."""
        self._sent_count += 1

    def on_ack(self, seq: int) -> int:
        """Forget what is committed; returns how many records that were. An old or repeated ack is harmless."""
        before = self._acked_seq
        while self._batches and self._batches[0].last_seq <= seq:
            batch = self._batches.popleft()
            self.size_bytes -= batch.size_bytes
            self._sent_count = max(0, self._sent_count - 1)
            self._base_seq = batch.last_seq
        self._acked_seq = max(before, min(seq, self._base_seq))
        return self._acked_seq - before

    def reset(self, first_seq: int) -> None:
        """Hold nothing, and go on with the batch that begins at `first_seq`. What is acked stays acked."""
        self._batches.clear()
        self.size_bytes = self._sent_count = 0
        self._base_seq = self._last_seq = first_seq - 1

    def on_welcome(self, expected_seq: int, sent_seq: int) -> bool:
        """The receiver had everything before `expected_seq` when we had sent up to `sent_seq`.

        Less than that means batches were lost on the way: go back. Returns whether we did.
        """
        if expected_seq > sent_seq:
            return False
        return self.rewind(expected_seq)

    def rewind(self, expected_seq: int) -> bool:
        """Send again from the batch that holds `expected_seq`; returns whether anything will be resent."""
        keep = 0
        for batch in self._batches:
            if batch.last_seq >= expected_seq:
                break
            keep += 1
        if keep >= self._sent_count:
            return False
        self._sent_count = keep
        self.rewinds += 1
        return True

    @property
    def oldest_seq(self) -> int:
        """The oldest seq not acked; everything before it is committed."""
        return self._acked_seq + 1

    @property
    def base_seq(self) -> int:
        """The seq before the first batch held."""
        return self._base_seq

    @property
    def last_seq(self) -> int:
        """The newest seq appended."""
        return self._last_seq

    @property
    def sent_seq(self) -> int:
        """The newest seq sent since the last rewind."""
        if self._sent_count == 0:
            return self._base_seq
        return self._batches[self._sent_count - 1].last_seq

    @property
    def pending_records(self) -> int:
        """Records appended and not acked."""
        return self._last_seq - self._acked_seq

    @property
    def is_full(self) -> bool:
        """Whether the owner must wait before it appends."""
        return self.size_bytes >= self.max_bytes

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


class Verdict(Enum):
    """What a receiver does with a batch."""

    NEW = "new"
    DUPLICATE = "duplicate"
    GAP = "gap"


class IngressGate:
    """Receiver's side of one stream: lets through each seq once, in order, and knows what comes next."""

    def __init__(self, expected_seq: int) -> None:
        """`expected_seq` is the oldest seq the sender still holds."""
        self.expected_seq = expected_seq
        self.duplicates = 0
        self.gaps = 0
        self._asked_seq = 0

    def accept(self, first_seq: int, last_seq: int) -> Verdict:
        """Judge a batch; NEW moves `expected_seq` past it. Raises `WireError` for one that is half new."""
        if first_seq > self.expected_seq:
            self.gaps += 1
            return Verdict.GAP
        if last_seq < self.expected_seq:
            self.duplicates += 1
            return Verdict.DUPLICATE
        if first_seq < self.expected_seq:  # a source sends a batch again as it was, or breaks the protocol
            raise WireError("overlap", f"batch {first_seq} to {last_seq}, expected {self.expected_seq}")
        self.expected_seq = last_seq + 1
        self._asked_seq = 0
        return Verdict.NEW

    def should_ask(self) -> bool:
        """Whether this gap was not asked for yet. One question is enough: a keep-alive hello asks again."""
        if self._asked_seq == self.expected_seq:
            return False
        self._asked_seq = self.expected_seq
        return True
