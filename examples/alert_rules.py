"""Four alerts: a NaN reward, a silent worker, half the speed, records dropped. Each is told once, as it begins.

Try it beside `runlane demo`: python examples/alert_rules.py 30   (seconds of silence that are too many)
"""

import sys
import time

import numpy as np

from runlane.transport.subscriber import Subscriber

silence_s = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
seen_s: dict[str, float] = {}
rows: dict[str, int] = {}
best_fps: dict[str, float] = {}
on: set[str] = set()


def alert(text: str, is_on: object) -> None:
    """Tell it when it begins, and again only after it has ended."""
    if is_on and text not in on:
        print("ALERT", text, flush=True)
    (on.add if is_on else on.discard)(text)


with Subscriber("alerts", kinds=["step"]) as subscriber:
    since_s, dropped = time.monotonic(), 0
    while not subscriber.is_over:
        for batch in subscriber.poll(0.2):
            seen_s[batch.info.worker] = time.monotonic()
            rows[batch.info.worker] = rows.get(batch.info.worker, 0) + len(batch)
            alert(f"{batch.info.worker}: reward is NaN", np.isnan(batch.columns["reward"]).any())
        if (passed_s := time.monotonic() - since_s) >= 1:
            for worker, last_s in seen_s.items():
                fps, rows[worker] = rows[worker] / passed_s, 0
                alert(f"{worker}: no step for {silence_s:g} s", time.monotonic() - last_s > silence_s)
                alert(f"{worker}: below half its best speed", fps < best_fps.get(worker, 0) / 2)
                best_fps[worker] = max(fps, best_fps.get(worker, 0))
            subscriber.accounts(timeout_s=0.2)
            before, dropped = dropped, sum(subscriber.dropped.values())
            alert("records are dropped", dropped > before)
            since_s = time.monotonic()
