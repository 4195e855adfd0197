"""Writers and readers of a ring as processes of their own, without numpy; what each did it says on its stdout.

ring_process.py write RUN_DIR SLOTS SECONDS CHECKED   a ring at full speed, its frames of changing size
ring_process.py read RUN_DIR FRAMES CLOSES            verify frames until the writer has ended, or FRAMES of them
ring_process.py nursery RUN_DIR FD                    per line that comes a child: `writer`, `reader` or `maker`
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from runlane.config.errors import FastLaneError
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.ring_files import find_rings, is_same_file
from runlane.transport.ring_layout import Hud, RingInfo

INFO = RingInfo(run="run", worker="worker")
SMALL = (84, 84, 3)
LARGE = (400, 600, 3)
RESIZE_S = 0.1
DEADLINE_S = 20.0


def pattern(number: int, size: int) -> bytes:
    """The pixels of a frame: its number, scattered over 8 bytes and repeated."""
    scattered = number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return scattered.to_bytes(8, "little") * (size // 8)


def hud_of(number: int, t_ns: int) -> Hud:
    """The HUD of a frame: every field says its number."""
    low = number & 0xFFFFFFFF
    return Hud(number, t_ns, t_ns + 1, number << 32, low, low ^ 1, number / 3, -number, number * 0.5, number + 0.25)


def say(**facts: object) -> None:
    """One line for the test, whole."""
    os.write(1, (json.dumps(facts) + "\n").encode())


def publish(writer: FastLaneWriter, shape: tuple[int, int, int]) -> None:
    """The next frame of a ring."""
    number = writer.frames + 1
    pixels = memoryview(pattern(number, shape[0] * shape[1] * shape[2])).cast("B", shape)
    writer.publish(pixels, hud_of(number, time.monotonic_ns()))


def write(run_dir: Path, slots: int, seconds: float, is_checked: bool) -> None:
    """Full speed, and another size every 0.1 or 0.3 s, once both readers are there."""
    writer = FastLaneWriter(run_dir, INFO, FastLaneConfig(slots, is_checked))
    end_s = time.monotonic() + DEADLINE_S
    while (asked := writer.wanted(time.monotonic_ns())) is None or asked.viewers < 2:
        assert time.monotonic() < end_s, "no readers"
        time.sleep(0.001)
    start_s = time.monotonic()
    while (passed_s := time.monotonic() - start_s) < seconds:
        shape = LARGE if int(passed_s / RESIZE_S) % 4 == 3 else SMALL
        for _ in range(20):
            publish(writer, shape)
    say(published=writer.frames, generations=writer.metrics().generation)
    writer.close()


def attached(run_dir: Path) -> FastLaneReader:
    """A reader of the ring that is there, or comes."""
    end_s = time.monotonic() + DEADLINE_S
    while True:
        for ring in find_rings(run_dir):
            return FastLaneReader(ring.path)
        assert time.monotonic() < end_s, "no ring"
        time.sleep(0.001)


def verify(hud: Hud, pixels: bytearray) -> bool:
    """Whether every pixel and every field is of one frame."""
    return hud == hud_of(hud.step_seq, hud.t_ns) and bytes(pixels) == pattern(hud.step_seq, len(pixels))


def read(run_dir: Path, most: int, *, closes: bool) -> None:
    """Every frame that can be had, each verified."""
    try:
        reader = attached(run_dir)
    except FastLaneError as error:
        say(error=str(error))
        return
    wrong = first = last = resized = 0
    buffer = bytearray()
    while reader.frames < most:
        reader.watch(time.monotonic_ns(), 60.0)
        try:
            hud = reader.read_into(buffer)
        except FastLaneError:
            resized += 1
            buffer = bytearray(reader.geometry.frame_bytes if reader.geometry else 0)
            continue
        if hud is not None:
            wrong += not verify(hud, buffer) or hud.step_seq <= last
            first, last = first or hud.step_seq, hud.step_seq
        elif not reader.is_writer_alive:
            break
    figures = reader.metrics(time.monotonic_ns())
    say(
        read=figures.frames,
        lapped=figures.lapped,
        torn=figures.torn,
        wrong=wrong,
        resized=resized,
        missing=last - first + 1 - figures.frames - figures.lapped,
    )
    if closes:
        reader.close()


# ---- children that are made to be killed -----------------------------------------------------------------


def nursed_writer(run_dir: Path, is_orphan: Callable[[], bool]) -> None:
    """A ring at full speed, until it is killed."""
    writer = FastLaneWriter(run_dir, INFO)
    say(pid=os.getpid(), ring=writer.path.name)
    while not is_orphan():
        publish(writer, SMALL if writer.frames % 64 < 32 else (6, 8, 3))


def nursed_reader(run_dir: Path, is_orphan: Callable[[], bool]) -> None:
    """Watches and reads until it is killed."""
    reader = attached(run_dir)
    reader.watch(time.monotonic_ns(), 60.0)
    says = True
    while not is_orphan():
        reader.watch(time.monotonic_ns(), 60.0)
        found = reader.read()
        if found is not None and says:
            assert verify(*found)
            say(pid=os.getpid(), ring=reader.path.name)
            says = False


def nursed_maker(run_dir: Path, is_orphan: Callable[[], bool]) -> None:
    """A hundred rings, one after the other; says how many lost a file while their maker lived."""
    lost = 0
    for _ in range(100):
        writer = FastLaneWriter(run_dir, INFO)
        publish(writer, (6, 8, 3))
        reader = FastLaneReader(writer.path)
        lost += reader.read() is None or not is_same_file(reader._fd, writer.path)  # pyright: ignore[reportPrivateUsage]
        reader.close()
        writer.close()
        if is_orphan():
            return
    say(pid=os.getpid(), lost=lost)


NURSED = {"writer": nursed_writer, "reader": nursed_reader, "maker": nursed_maker}


def nursery(run_dir: Path, orders: int) -> None:
    """Fork what each line asks for; `reap PID` waits for one that was killed."""
    own = os.getpid()
    for line in open(orders, encoding="ascii"):  # noqa: SIM115  a pipe, open until the end
        word, _, pid = line.strip().partition(" ")
        if word == "reap":
            os.waitpid(int(pid), 0)
            say(dead=int(pid))
        elif os.fork() == 0:
            NURSED[word](run_dir, lambda: os.getppid() != own)
            os._exit(0)


def main() -> None:
    """As the first argument says."""
    role, run_dir, *rest = sys.argv[1:]
    if role == "write":
        write(Path(run_dir), int(rest[0]), float(rest[1]), rest[2] == "checked")
    elif role == "read":
        read(Path(run_dir), int(rest[0]), closes=rest[1] == "closes")
    else:
        nursery(Path(run_dir), int(rest[0]))


if __name__ == "__main__":
    main()
