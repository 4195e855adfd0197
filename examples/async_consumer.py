"""A subscriber in an event loop, beside another task. Try it beside `runlane demo`."""

import asyncio
from collections import Counter

from runlane.transport.subscriber import Subscriber

counts: Counter[str] = Counter()


async def report() -> None:
    """What has come, once a second."""
    while True:
        await asyncio.sleep(1)
        print(dict(counts), flush=True)


async def main() -> None:
    """Count until the graph stops."""
    with Subscriber("counts") as subscriber:
        reporting = asyncio.create_task(report())
        async for batch in subscriber:
            counts[batch.kind] += len(batch)
        reporting.cancel()
    print("total", dict(counts))


asyncio.run(main())
