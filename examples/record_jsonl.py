"""Everything into a file, one JSON object a line: first what the database has, then what comes.

Try it beside `runlane demo`: python examples/record_jsonl.py demo.jsonl
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from runlane.transport.record_batch import RecordBatch
from runlane.transport.subscriber import Subscriber


def objects(batch: RecordBatch) -> list[dict[str, Any]]:
    """The records of a batch as plain dictionaries."""
    if batch.kind == "step":
        return [dict(zip(batch.columns.dtype.names or (), row, strict=True)) for row in batch.columns.tolist()]
    return [msgspec.structs.asdict(record) for record in batch.records]


if len(sys.argv) != 2:
    sys.exit("usage: python examples/record_jsonl.py FILE")

with Path(sys.argv[1]).open("wb") as file, Subscriber("jsonl", history=True) as subscriber:
    for batch in subscriber:
        who = {"kind": batch.kind, "stream": batch.info.stream, "worker": batch.info.worker}
        lines = [
            msgspec.json.encode({**who, **found}, enc_hook=lambda value: value.tolist()) for found in objects(batch)
        ]
        file.write(b"\n".join(lines) + b"\n")
        file.flush()
