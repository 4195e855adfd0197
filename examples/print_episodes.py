"""Every episode as it ends, in five lines. Try it beside `runlane demo`."""

from runlane.transport.subscriber import Subscriber

with Subscriber("episodes", kinds=["episode"]) as subscriber:
    for batch in subscriber:
        for record in batch.records:
            print(batch.info.worker, record, flush=True)
