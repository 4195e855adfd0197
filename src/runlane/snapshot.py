"""`runlane snapshot`: one frame of a worker as a PNG, whole or not at all."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from runlane.config.errors import FastLaneError
from runlane.config.settings import Settings
from runlane.gui.terminal_frame import absence, check_tile, hud_fields, image_of, plain_hud
from runlane.transport.endpoint import run_dir_of
from runlane.transport.lane_follower import LaneFollower
from runlane.transport.ring_files import find_rings, newest_ring
from runlane.transport.ring_layout import Geometry, Hud, RingInfo

RATE_HZ = 30.0
POLL_S = 0.01
MAX_PIXELS = 1 << 26
SUFFIX = ".png"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose frame, for how long to wait, and how to write it. Empty names mean whichever is there, newest first."""

    out: Path
    run: str = ""
    worker: str = ""
    tile: int = 0
    scale: int = 1
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a name that is hardly that of a picture: a forgotten OUT would be the run's."""
        if self.out.suffix.lower() != SUFFIX:
            raise FastLaneError(f"{self.out} does not end with {SUFFIX}: say `runlane snapshot [RUN] OUT{SUFFIX}`")


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame, and whose it is."""

    info: RingInfo
    geometry: Geometry
    hud: Hud
    pixels: bytearray


def snapshot(settings: Settings, wanted: Wanted) -> str:
    """Write the picture; returns the line that says what is in it. Raises `FastLaneError` when nobody shows one."""
    shot = take(run_dir_of(settings), wanted)
    width, height = write_png(shot, wanted.out, wanted.scale)
    fields = hud_fields(shot.info, shot.hud) | {"seq": str(shot.hud.step_seq)}
    return f"{wanted.out} {width}x{height} {plain_hud(fields)}"


def take(
    run_dir: Path,
    wanted: Wanted,
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Shot:
    """The first frame that was made for us; else, when time is over, the newest if it is no older than the timeout."""
    end_ns = clock() + int(wanted.timeout_s * 1e9)
    taker = _Taker(run_dir, wanted)
    with contextlib.closing(taker):
        while (now_ns := clock()) < end_ns:
            if taker.look(now_ns):
                break
            sleep(POLL_S)
        return taker.best(now_ns)


class _Taker:
    """Holds the lease while we wait."""

    def __init__(self, run_dir: Path, wanted: Wanted) -> None:
        self._run_dir, self._wanted = run_dir, wanted
        self._lane: LaneFollower | None = None
        self._leased_ns = 0
        self._newest: Shot | None = None
        self._info: RingInfo | None = None

    def look(self, now_ns: int) -> bool:
        """Whether the frame is there."""
        lane = self._lane
        if lane is None or (not lane.poll(now_ns) and lane.info is None):
            self._attach(now_ns)
            return False
        shot = self._read(lane)
        if shot is None:
            return False
        self._newest = shot
        return shot.hud.mono_ns >= self._leased_ns

    def best(self, now_ns: int) -> Shot:
        """The newest frame, if it is fit to be shown."""
        shot, timeout_s = self._newest, self._wanted.timeout_s
        if shot is not None and now_ns - shot.hud.mono_ns <= timeout_s * 1e9:
            return shot
        if self._info is None:
            raise FastLaneError(absence(find_rings(self._run_dir), self._wanted.run, self._wanted.worker))
        alone = f" of environment {self._wanted.tile} alone" if self._wanted.tile else ""
        raise FastLaneError(
            f"worker {self._info.worker} of run {self._info.run} showed no frame{alone} within {timeout_s:g} s: does "
            'it step, and was its environment made with render_mode="rgb_array"? A longer --timeout waits for it'
        )

    def _attach(self, now_ns: int) -> None:
        ring = newest_ring(find_rings(self._run_dir), self._wanted.run, self._wanted.worker)
        if ring is None:
            return
        info = ring.info
        check_tile(info, self._wanted.tile)
        self.close()
        self._info, self._leased_ns = info, now_ns
        self._lane = LaneFollower(self._run_dir, info.run, info.worker, rate_hz=RATE_HZ, viewer="snapshot")
        self._lane.promote(self._wanted.tile)
        self._lane.poll(now_ns)

    def _read(self, lane: LaneFollower) -> Shot | None:
        try:
            found = lane.read()
        except FastLaneError:  # frames have changed their size in this very moment
            return None
        info, geometry = lane.info, lane.geometry
        if found is None or info is None or geometry is None or geometry.frame_bytes != len(found[1]):
            return None
        hud, pixels = found
        if self._wanted.tile and info.env_count > 1 and (hud.tile or hud.env_index != self._wanted.tile - 1):
            return None  # the worker has not come to our wish yet
        return Shot(info, geometry, hud, pixels)

    def close(self) -> None:
        if self._lane is not None:
            self._lane.close()


def write_png(shot: Shot, out: Path, scale: int) -> tuple[int, int]:
    """Write the frame, each pixel `scale` times a side; returns the size. Nobody ever sees half of the file."""
    width, height = shot.geometry.width * scale, shot.geometry.height * scale
    if width * height > MAX_PIXELS:
        raise FastLaneError(f"a picture of {width} x {height} pixels is too large: choose a smaller --scale")
    image = image_of(shot.pixels, shot.geometry)
    if scale > 1:
        image = image.resize((width, height), Image.Resampling.NEAREST)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        image.save(partial, "PNG")
        partial.replace(out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return width, height
