"""Figures of a live graph for Prometheus: records by kind, steps per second, drops by reason.

Try it beside `runlane demo`: pip install "runlane[prometheus]"; python examples/prometheus_exporter.py 9464
"""

import sys
import time
from collections import Counter

import prometheus_client as prometheus

from runlane.transport.subscriber import Subscriber

RECORDS = prometheus.Counter("runlane_records", "Records received.", ["worker", "kind"])
FPS = prometheus.Gauge("runlane_fps", "Step rows per second.", ["worker"])
DROPPED = prometheus.Gauge("runlane_dropped_records", "Records this exporter did not get.", ["reason"])

server, _ = prometheus.start_http_server(int(sys.argv[1]) if len(sys.argv) > 1 else 9464, "127.0.0.1")
print(f"http://127.0.0.1:{server.server_port}/metrics", flush=True)
with Subscriber("prometheus") as subscriber:
    rows: Counter[str] = Counter()
    since_s = time.monotonic()
    while not subscriber.is_over:
        for batch in subscriber.poll(0.2):
            RECORDS.labels(batch.info.worker, batch.kind).inc(len(batch))
            rows[batch.info.worker] += len(batch) * (batch.kind == "step")
        if (passed_s := time.monotonic() - since_s) >= 1:
            for worker in rows:
                FPS.labels(worker).set(rows[worker] / passed_s)
            subscriber.accounts(timeout_s=0.2)
            for reason, records in subscriber.dropped.items():
                DROPPED.labels(reason).set(records)
            rows, since_s = Counter(dict.fromkeys(rows, 0)), time.monotonic()
server.shutdown()
