"""The worker of bench_memory: records steps at an even rate for a time, closes, prints how many, as JSON."""

import json
import sys
import time

import numpy as np

from runlane.workers import attach

EPISODE_STEPS = 200
TICK_S = 0.01
FRAME = np.zeros((210, 160, 3), np.uint8)


def main(rate: int, seconds: float) -> None:
    """Record `rate` steps a second, in ticks of 10 ms. A tick that comes late is made up for."""
    lane = attach()
    if not lane.is_attached:
        sys.exit("no proxy: start this through bench_memory.py")
    print("attached", flush=True)
    started_s = time.perf_counter()
    steps = 0
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        for number in range(steps + 1, int(elapsed_s * rate) + 1):
            lane.step(number & 1, 1.0, number % EPISODE_STEPS == 0, False)
            steps = number
        lane.frame(FRAME)  # shown only while somebody watches
        time.sleep(TICK_S)  # the rate is the point
    elapsed_s = time.perf_counter() - started_s
    is_committed = lane.close()
    print(json.dumps({"steps": steps, "seconds": elapsed_s, "is_committed": is_committed}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
