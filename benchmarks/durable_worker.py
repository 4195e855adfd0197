"""The worker of bench_durable: records steps as fast as it can, waits for the last ack, prints its times as JSON."""

import json
import sys
import time

from runlane.workers import attach

EPISODE_STEPS = 200


def main(steps: int) -> None:
    """Record `steps` scalar steps in episodes of 200, close, print seconds until returned and until committed."""
    lane = attach()
    if not lane.is_attached:
        sys.exit("no proxy: start this through bench_durable.py")
    started_s = time.perf_counter()
    for number in range(1, steps + 1):
        lane.step(number & 1, 1.0, number % EPISODE_STEPS == 0, False)
    returned_s = time.perf_counter() - started_s
    is_committed = lane.close()
    committed_s = time.perf_counter() - started_s
    print(json.dumps({"returned_s": returned_s, "committed_s": committed_s, "is_committed": is_committed}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
