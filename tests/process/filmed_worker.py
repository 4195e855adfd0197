"""A worker that records steps and shows each as a frame that says which it is: until it is interrupted.

Three episodes of twenty steps, then one without an end. The left half of a frame is ten times as bright as the step,
the right half fifty times as the episode.
"""

import signal
import time

import numpy as np

from runlane.config.load import load
from runlane.transport.endpoint import run_dir_of
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_layout import Hud, RingInfo
from runlane.workers import attach

STEP_S = 0.02
EPISODE_STEPS = 20
EPISODES = 3


def main() -> None:
    """Step, show, wait."""
    told: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: told.append(number))
    lane = attach()
    stream = lane.statistics()["stream"]
    writer = FastLaneWriter(run_dir_of(load()), RingInfo(run="told", worker="filmed", stream=stream))
    frame = np.zeros((37, 48, 3), np.uint8)
    episode, step = 1, 0
    while not told:
        step += 1
        seq = lane.statistics()["records"] + 1
        is_last = step == EPISODE_STEPS and episode <= EPISODES
        lane.step(step, 1.0, terminated=is_last)
        frame[:, :24], frame[:, 24:] = step * 10 % 250, episode * 50
        place = episode + (step << 32)
        writer.publish(frame, Hud(seq, time.time_ns(), time.monotonic_ns(), place, episode_return=float(step)))
        if is_last:
            episode, step = episode + 1, 0
        time.sleep(STEP_S)
    writer.close()
    lane.close("stopped")


if __name__ == "__main__":
    main()
