"""Record as fast as possible and die by SIGKILL, without any graph: what is left is a journal and a count.

Arguments: the file for the count, and the number of steps to make before it dies; 0 is to wait to be killed.
"""

import os
import signal
import sys
from pathlib import Path

from runlane.workers import attach


def main(report: Path, steps: int) -> None:
    """Steps of episodes of ten, a metric with each hundredth; the count is written before the end."""
    session = attach()
    assert session.is_attached
    for number in range(1, steps + 1):
        session.step(number, 1.0, number % 10 == 0)
        if number % 100 == 0:
            session.metric("hundreds", number / 100)
    report.write_text(f"{session.statistics()['records']} {session.statistics()['stream']}")
    if steps:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
