"""What a frame costs the worker that publishes it and the viewer that reads it, as a ratio to copying its bytes.

The reference of every burst is NumPy's copy of the same frame into as many places in shared memory as the ring has
slots, in turn. How quick a piece of memory is depends on where the system puts it, by a fifth for large frames, so all
is made anew several times. In the same table: the C library's memmove called by ctypes, the cheapest copy that the
interpreter has (a slice of a map assigned to), the ring with checks as on processors that reorder stores, and iceoryx2,
ZeroMQ and multiprocessing.Queue with the same frames.

Bars: publishing and reading at most 1.05 times the copy at 640x480 and 1920x1080, 1.6 times at 84x84; a frame published
and read at most what it costs by iceoryx2, at every size. `--strict` makes anything but bars that are met exit code 1.
"""

import argparse
import contextlib
import json
import sys

from fast_lane_cases import Rig, iceoryx, mp_queue, new_frame, ring, warm, zmq_ipc
from measuring import Burst, Machine, Series, interleave, print_table, verdict

SIZES = {"84x84": (84, 84, 1.6), "640x480": (480, 640, 1.05), "1920x1080": (1080, 1920, 1.05)}
BURST_BYTES = 250_000_000
ROW = ["what", "us", "least", "most", "of a copy"]


def measure(height: int, width: int, bursts: int, rigs: int) -> tuple[dict[str, Series], dict[str, Series]]:
    """Publishing, and reading, of frames of one size, with as many rings one after the other."""
    published: dict[str, Series] = {}
    read: dict[str, Series] = {}
    for number in range(rigs):
        for found, more in zip((published, read), _measure(height, width, bursts, number), strict=True):
            for name, series in more.items():
                known = found.setdefault(name, Series())
                known.measured += series.measured
                known.ratios += series.ratios
    return published, read


def _measure(height: int, width: int, bursts: int, number: int) -> tuple[dict[str, Series], dict[str, Series]]:
    frame = new_frame(height, width)
    count = max(10, min(4_000, BURST_BYTES // frame.nbytes))
    with contextlib.ExitStack() as stack:
        rig = stack.enter_context(ring(frame))
        checked = stack.enter_context(ring(frame, is_checked=True))
        rivals = stack.enter_context(iceoryx(frame))
        writes: dict[str, Burst] = {
            "runlane: publish": rig.publish,
            "map slice assigned": rig.assign,
            "memmove by ctypes": rig.memmove,
            "runlane: publish, checked": checked.publish,
        }
        reads: dict[str, Burst] = {"runlane: read_into": rig.read, "runlane: read_into, checked": checked.read}
        if rivals is not None:
            writes["iceoryx2: loan, copy, send"], reads["iceoryx2: receive, copy"] = rivals
        published = interleave(_warm(writes), bursts, count, _nothing, warm(rig.memcpy), count)
        read = interleave(_warm(reads), bursts, count, _nothing, warm(rig.copy_out), count)
        if not number:
            published |= _others(rig, bursts, count)
    return published, read


def _others(rig: Rig, bursts: int, count: int) -> dict[str, Series]:
    """What needs a process that reads along, and so would disturb the rest."""
    few = max(10, count // 20)
    found: dict[str, Series] = {}
    for name, make in (("ZeroMQ PUSH, ipc", zmq_ipc), ("multiprocessing.Queue", mp_queue)):
        with make(rig.frame) as burst:
            found[name] = interleave({name: burst}, bursts, few, _nothing, rig.memcpy, few)[name]
    return found


def _warm(bursts: dict[str, Burst]) -> dict[str, Burst]:
    return {name: warm(burst) for name, burst in bursts.items()}


def _nothing() -> None:
    """No burst leaves anything to wait for."""


def row(name: str, series: Series) -> list[str]:
    """One line of the table."""
    least, most = min(series.measured), max(series.measured)
    return [name, f"{series.median:.2f}", f"{least:.2f}", f"{most:.2f}", f"{series.ratio:.3f}"]


def main() -> None:
    """Measure, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=3, help="bursts of each case, size and ring")
    parser.add_argument("--rings", type=int, default=10, help="rings of each size, one after the other")
    parser.add_argument("--strict", action="store_true", help="exit 1 unless every bar is met")
    options = parser.parse_args()
    machine = Machine()
    figures: dict[str, float | bool | None] = {}
    is_met = True
    for size, (height, width, bar) in SIZES.items():
        published, read = measure(height, width, options.bursts, options.rings)
        print(f"\n{size}x3, publishing")
        print_table(ROW, [row(name, series) for name, series in published.items()])
        print(f"{size}x3, reading")
        print_table(ROW, [row(name, series) for name, series in read.items()])
        ours, theirs = published["runlane: publish"], published.get("iceoryx2: loan, copy, send")
        reader, their_reader = read["runlane: read_into"], read.get("iceoryx2: receive, copy")
        figures |= {f"publish_ratio_{size}": round(ours.ratio, 3), f"read_ratio_{size}": round(reader.ratio, 3)}
        figures[f"publish_to_assigned_{size}"] = round(ours.ratio / published["map slice assigned"].ratio, 3)
        is_met &= ours.ratio <= bar and reader.ratio <= bar
        if theirs is not None and their_reader is not None:
            figures[f"iceoryx2_ratio_{size}"] = round(theirs.ratio, 3)
            is_met &= ours.median + reader.median <= theirs.median + their_reader.median
    is_quiet = machine.is_quiet
    print(f"\nbars: {verdict(is_met if is_quiet else None)}")
    print(machine.line())
    print(json.dumps({**figures, "is_met": is_met if is_quiet else None, **machine.figures()}))
    if options.strict and not (is_met and is_quiet):
        sys.exit(1)


if __name__ == "__main__":
    main()
