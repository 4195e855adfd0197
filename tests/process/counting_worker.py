"""A worker that counts by itself what it records, and writes the counts to a file at the end.

Arguments: the report file, the number of steps, and how many of them per second (0: as fast as it can).
"""

import json
import signal
import sys
import time
from pathlib import Path

from runlane.workers import attach

EPISODE_STEPS = 50


def main(report: Path, steps: int, rate: float) -> None:
    """Record until done or interrupted; then say what was recorded."""
    told: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: told.append(number))
    lane = attach(worker=None)
    done = episodes = 0
    started_s = time.monotonic()
    while done < steps and not told:
        done += 1
        is_last = done % EPISODE_STEPS == 0
        lane.step(done % 2, 1.0, terminated=is_last)
        episodes += is_last
        if done % 1000 == 0:
            lane.metric("progress", done / steps)
        if rate and done % 100 == 0:
            time.sleep(max(0.0, started_s + done / rate - time.monotonic()))
        if done % 10_000 == 0:
            _write(report.with_suffix(".progress"), {"steps": done})
    is_committed = lane.close("stopped" if told else "finished")
    _write(report, {"steps": done, "episodes": episodes, "is_committed": is_committed, **lane.statistics()})


def _write(path: Path, facts: dict[str, object]) -> None:
    """Write the whole file or none."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(facts))
    part.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
