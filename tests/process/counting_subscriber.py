"""Subscribers that count by themselves what they are given, and write the counts to a file after each look.

Arguments: the settings file, the report file, the policy as JSON, the number of subscribers, their name (a number is
added when there are several), milliseconds to take for each delivery. SIGTERM: leave in order.
"""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from runlane.config.load import load
from runlane.config.settings import QueuePolicy
from runlane.transport.subscriber import Subscriber


class Counter:
    """One subscriber and its tallies: records by stream and kind, and the newest seq of each stream."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.records: dict[str, int] = {}
        self.kinds: dict[str, int] = {}
        self.newest: dict[str, int] = {}
        self.backwards = 0

    def take(self, timeout_s: float) -> bool:
        """Count one delivery; whether there was one."""
        batches = self.subscriber.poll(timeout_s)
        for batch in batches:
            stream = batch.info.stream
            self.records[stream] = self.records.get(stream, 0) + len(batch)
            self.kinds[batch.kind] = self.kinds.get(batch.kind, 0) + len(batch)
            seqs = batch.columns["seq"].tolist() if batch.kind == "step" else [record.seq for record in batch.records]
            key = f"{stream} {batch.kind}"
            self.backwards += seqs[0] <= self.newest.get(key, 0) or seqs != sorted(set(seqs))
            self.newest[key] = seqs[-1]
        return bool(batches)

    def facts(self) -> dict[str, Any]:
        """What it has seen."""
        return {
            "records": self.records,
            "kinds": self.kinds,
            "newest": max(self.newest.values(), default=0),
            "backwards": self.backwards,
            "is_joined": self.subscriber.is_joined,
        }


def main(config: Path, report: Path, policy: str, count: int, name: str, pause_ms: float) -> None:
    """Take turns until told to end."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    settings = load(config)
    chosen = msgspec.json.decode(policy, type=QueuePolicy)
    names = [name] if count == 1 else [f"{name}{number}" for number in range(count)]
    counters = {known: Counter(Subscriber(known, policy=chosen, settings=settings)) for known in names}
    next_s = 0.0
    while not told:
        for counter in counters.values():
            if counter.take(0.05 / count) and pause_ms:
                time.sleep(pause_ms / 1000)  # a subscriber that is slow
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + 0.1
            _write(report, counters)
    for counter in counters.values():
        counter.subscriber.close()
    _write(report, counters)


def _write(path: Path, counters: dict[str, Counter]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps({name: counter.facts() for name, counter in counters.items()}))
    part.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5], float(sys.argv[6]))
