"""What the processes of bench_bus share: the board on which receivers count, and the orders the source gets.

A board is a small file that the source and one crowd of receivers map, words of 8 bytes, native order:

     0            1            2 + 2 i        3 + 2 i                  2 + 2 n
    +------------+------------+--------------+--------------+--------+--------------------------+
    | offset_ns  | unused     | records of i | batches of i |  ...   | latencies of receiver 0  |
    +------------+------------+--------------+--------------+--------+--------------------------+

Each word has one writer: the first the rig, before anybody else has the file, the others a receiver. The source
reads the counts to stay a bounded way ahead, and to know when all has arrived, whatever stands between.

A batch is stamped in its header's `closed_ns` with `now_ns`: the monotonic clock, which all processes of a Linux
machine share, plus an offset that makes it the time of day which that field holds. So nothing on the way sees an
odd figure, and no step of the machine's clock can enter a latency.
"""

import mmap
import time
from pathlib import Path
from typing import Self

import msgspec

WORD = 8
SAMPLES = 1 << 14
_COUNTS = 2


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Rig → source: send so many batches to the receivers of a board. Without an interval as fast as they take them.

    With nothing arriving for `patience_s` the source gives up and says so.
    """

    way: str
    board: str
    receivers: int
    batches: int
    records: int
    interval_s: float = 0.0
    patience_s: float = 5.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Source → rig: seconds until the last record that arrived, and records that never did, over all receivers.

    `late_us` is how long after its time a batch was made, as the 99th percentile: the source's own share.
    """

    elapsed_s: float
    lost: int
    late_us: float
    rewinds: int


class Board:
    """One crowd's counts. `with` closes it."""

    def __init__(self, path: Path, receivers: int, *, is_new: bool = False) -> None:
        """Map the file; `is_new` makes it."""
        self.receivers = receivers
        self._samples = _COUNTS + 2 * receivers
        size = WORD * (self._samples + SAMPLES)
        if is_new:
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._words = memoryview(self._map).cast("q")
        if is_new:
            self._words[0] = time.time_ns() - time.monotonic_ns()
        self._offset_ns = self._words[0]

    def now_ns(self) -> int:
        """Time of day that never steps, the same in every process with this board."""
        return time.monotonic_ns() + self._offset_ns

    def take(self, receiver: int, records: int, closed_ns: int) -> None:
        """Count a batch that has arrived. Only the receiver itself."""
        at = _COUNTS + 2 * receiver
        if receiver == 0:
            self._words[self._samples + self._words[at + 1] % SAMPLES] = self.now_ns() - closed_ns
        self._words[at + 1] += 1
        self._words[at] += records  # last: who sees the records may read the latency

    def records(self) -> list[int]:
        """Records each receiver has, ever."""
        return self._words[_COUNTS : self._samples : 2].tolist()

    def batches(self) -> int:
        """Batches that receiver 0 has, ever."""
        return self._words[_COUNTS + 1]

    def latencies_us(self, since: int) -> list[float]:
        """Of receiver 0, of the batches after its first `since`, as far as they are kept."""
        first = max(since, self.batches() - SAMPLES)
        return [self._words[self._samples + at % SAMPLES] / 1_000 for at in range(first, self.batches())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._words.release()
        self._map.close()
