"""A worker's fast lane as a process of its own, to be killed: lane_process.py RUN_DIR RUN WORKER NUMBER.

Frames of one colour (NUMBER, 0, 0), 60 a second while somebody watches, until it is killed or its parent is gone.
"""

import os
import sys
import time
from pathlib import Path

from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_layout import Hud, RingInfo

WIDTH, HEIGHT = 16, 12


def main() -> None:
    """As the first lines say."""
    run_dir, run, worker, number = sys.argv[1:]
    parent = os.getppid()
    writer = FastLaneWriter(Path(run_dir), RingInfo(run=run, worker=worker))
    frame = memoryview(bytes((int(number), 0, 0)) * (WIDTH * HEIGHT)).cast("B", (HEIGHT, WIDTH, 3))
    while os.getppid() == parent:
        now_ns = time.monotonic_ns()
        if writer.wanted(now_ns) is not None:
            writer.publish(frame, Hud(step_seq=int(number), mono_ns=now_ns, place=1, last_reward=float(number)))
        time.sleep(1 / 60)


if __name__ == "__main__":
    main()
