"""A subscriber of your own: a process that joins a live graph by name. Try it beside `runlane demo`."""

from runlane.config.settings import QueuePolicy
from runlane.transport.subscriber import Subscriber

with Subscriber("printer", kinds=["episode"], policy=QueuePolicy("drop_oldest", 1024)) as subscriber:
    for batch in subscriber:
        for episode in batch.records:
            print(batch.info.worker, episode, flush=True)
