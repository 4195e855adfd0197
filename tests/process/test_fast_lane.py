"""The fast lane between processes: nothing torn at full speed, and whatever is killed, the others go on."""

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process.conftest import DEADLINE_S, Processes, small_file_system
from process.ring_process import INFO, LARGE, SMALL, pattern, publish, verify

from runlane.config.errors import FastLaneError
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.lane_follower import LOOK_NS, LaneFollower
from runlane.transport.ring_files import SHARED_MEMORY, find_rings, graph_prefix, ring_directories, sweep_rings

HELPER = str(Path(__file__).parent / "ring_process.py")
STRESS_S = float(os.environ.get("RING_STRESS_S", "2"))
KILLS = int(os.environ.get("RING_KILLS", "100"))
FRAMES = 1 << 40  # more than there are


@pytest.fixture
def run_dir(short_dir: Path) -> Iterator[Path]:
    """A run directory; rings of it that are left fail the test."""
    yield short_dir
    assert names(short_dir) == []


def names(run_dir: Path) -> list[str]:
    """Files of the graph's rings, wherever they are."""
    prefix = graph_prefix(run_dir)
    directories = ring_directories(run_dir)
    return sorted(path.name for directory in directories for path in directory.glob(f"{prefix}*"))


class Party:
    """A helper process, and what it says."""

    def __init__(
        self,
        processes: Processes,
        *arguments: object,
        pass_fds: tuple[int, ...] = (),
        program: tuple[str, ...] = (sys.executable, HELPER),
    ) -> None:
        command = (*program, *(str(argument) for argument in arguments))
        self._out, told = os.pipe()
        self.process = processes.start(*command, stdout=told, pass_fds=pass_fds)
        os.close(told)
        self._heard = b""

    @property
    def has_said(self) -> bool:
        """Whether there is something to hear."""
        return bool(self._heard or select.select([self._out], [], [], 0)[0])

    def hear(self, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Its next line; fails when there is none, or not in time."""
        end_s = time.monotonic() + deadline_s
        while b"\n" not in self._heard:
            assert select.select([self._out], [], [], max(0.0, end_s - time.monotonic()))[0], "it says nothing"
            more = os.read(self._out, 4096)
            assert more, "it has ended"
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """It ends by itself, without an error."""
        assert self.process.wait(DEADLINE_S) == 0
        os.close(self._out)


class Nursery(Party):
    """Forks children that are made to be killed: a process with all its imports would live no longer than it starts."""

    def __init__(self, processes: Processes, run_dir: Path) -> None:
        orders, self._orders = os.pipe()
        super().__init__(processes, "nursery", run_dir, orders, pass_fds=(orders,))
        os.close(orders)

    def order(self, word: str) -> None:
        """A child; it says when it is there."""
        os.write(self._orders, f"{word}\n".encode())

    def kill(self, pid: int) -> None:
        """`kill -9`, and wait until the kernel has closed what was open."""
        os.kill(pid, signal.SIGKILL)
        self.order(f"reap {pid}")
        assert self.hear() == {"dead": pid}

    def end(self) -> None:
        """No more orders."""
        os.close(self._orders)
        super().end()


# ---- full speed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checked", ["plain", "checked"])
@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.timeout(60 + 4 * STRESS_S)
def test_nothing_is_torn_at_full_speed(processes: Processes, run_dir: Path, slots: int, checked: str) -> None:
    """A writer and two readers on all processors: every frame is of one number, with its HUD, and none comes twice."""
    seconds = STRESS_S if checked == "plain" else STRESS_S / 4
    writer = Party(processes, "write", run_dir, slots, seconds, checked)
    readers = [Party(processes, "read", run_dir, FRAMES, "closes") for _ in range(2)]
    said = writer.hear(seconds + DEADLINE_S)
    print(f"\nslots={slots} {checked} {said}")
    for reader in readers:
        figures = reader.hear()
        print(f"    {figures}")
        assert (figures["wrong"], figures["missing"]) == (0, 0)
        assert figures["read"] + figures["lapped"] <= said["published"]
        assert figures["read"] > 0
        reader.end()
    assert said["generations"] > 1
    writer.end()


# ---- whoever is killed -----------------------------------------------------------------------------------


@pytest.mark.timeout(60 + KILLS // 2)
def test_a_killed_writer_is_followed_by_the_next_one(processes: Processes, run_dir: Path) -> None:
    """Killed anywhere, also half way through a frame: never taken for alive, its names swept, the next one found."""
    nursery = Nursery(processes, run_dir)
    follower = LaneFollower(run_dir, rate_hz=0.0)
    chance = random.Random(1)  # noqa: S311  dice
    now_ns = time.monotonic_ns()
    started_s = time.monotonic()
    for number in range(KILLS):
        nursery.order("writer")
        child = nursery.hear()
        frames, most = 0, chance.randrange(1, 5)
        end_s = time.monotonic() + DEADLINE_S
        while frames < most:
            now_ns += LOOK_NS
            follower.poll(now_ns)
            found = follower.read()
            if found is not None:
                assert verify(*found)
                assert follower.reader is not None
                frames += follower.reader.path.name == child["ring"]  # the last frame of the one before is seen, too
            assert time.monotonic() < end_s, f"no frame of writer {number}"
        assert follower.reader is not None
        assert sweep_rings(run_dir) == []
        nursery.kill(child["pid"])
        assert not follower.reader.is_writer_alive
        assert find_rings(run_dir) == []
        assert sweep_rings(run_dir) == [child["ring"]]
        assert names(run_dir) == []
        assert follower.reconnects == number
    print(f"\n{KILLS} writers killed in {time.monotonic() - started_s:.1f} s")
    for _ in range(2):
        now_ns += LOOK_NS
        follower.poll(now_ns)
    assert follower.reader is None
    nursery.end()


@pytest.mark.timeout(60 + KILLS // 2)
def test_a_killed_reader_takes_nothing_with_it(processes: Processes, run_dir: Path) -> None:
    """The writer goes on, nobody is rendered for a second later, and there is room for the next viewers."""
    nursery = Nursery(processes, run_dir)
    writer = FastLaneWriter(run_dir, INFO)
    started_s = time.monotonic()
    for _ in range(KILLS):
        nursery.order("reader")
        end_s = time.monotonic() + DEADLINE_S
        while not nursery.has_said:
            publish(writer, SMALL)
            assert time.monotonic() < end_s, "no reader reads"
        child = nursery.hear()
        assert child["ring"] == writer.path.name
        assert writer.wanted(time.monotonic_ns()) is not None
        nursery.kill(child["pid"])
        assert writer.wanted(time.monotonic_ns() + 1_000_000_000) is None
        publish(writer, SMALL)
    print(f"\n{KILLS} readers killed in {time.monotonic() - started_s:.1f} s")
    assert names(run_dir) == [writer.path.name, f"{writer.path.name}.1"]
    reader = FastLaneReader(writer.path)
    found = reader.read()
    assert found is not None
    assert found[0].step_seq == writer.frames
    assert verify(*found)
    reader.close()
    processes.until(lambda: writer.wanted(time.monotonic_ns()) is None, "the last lease is over", 1.0)
    writer.close()
    nursery.end()


def test_a_sweep_never_takes_a_living_ring(processes: Processes, run_dir: Path) -> None:
    """Rings are made and closed as fast as they can be, while somebody sweeps all the time."""
    nursery = Nursery(processes, run_dir)
    for _ in range(2):
        nursery.order("maker")
    done: list[dict[str, Any]] = []
    sweeps = 0
    end_s = time.monotonic() + DEADLINE_S
    while len(done) < 2:
        sweep_rings(run_dir)
        sweeps += 1
        if nursery.has_said:
            done.append(nursery.hear())
        assert time.monotonic() < end_s
    assert [found["lost"] for found in done] == [0, 0]
    assert sweeps > 1
    nursery.end()


# ---- whoever ends ----------------------------------------------------------------------------------------


def test_readers_that_end_never_remove_the_ring(processes: Processes, run_dir: Path) -> None:
    """Whether they close it or just end: it is there for the next one."""
    writer = FastLaneWriter(run_dir, INFO)
    readers = [Party(processes, "read", run_dir, 3, how) for how in ("closes", "leaves")]
    ends_s = time.monotonic() + DEADLINE_S
    while any(reader.process.poll() is None for reader in readers):
        assert time.monotonic() < ends_s, "the readers end"
        publish(writer, SMALL)
    for reader in readers:
        assert reader.hear()["wrong"] == 0
        reader.end()
    assert names(run_dir) == [writer.path.name, f"{writer.path.name}.1"]
    last = FastLaneReader(writer.path)
    assert last.is_writer_alive
    assert last.read() is not None
    last.close()
    writer.close()


# ---- files that are not as they should be ----------------------------------------------------------------


def test_a_ring_of_another_user_is_one_clear_error(run_dir: Path) -> None:
    """Nor is it found, or swept, whoever made it."""
    if os.geteuid():
        pytest.skip("only root may give files away")
    writer = FastLaneWriter(run_dir, INFO)
    publish(writer, SMALL)
    os.chown(writer.path, 12_345, 12_345)
    with pytest.raises(FastLaneError, match=f"ring {writer.path.name} cannot be opened: no file of this user"):
        FastLaneReader(writer.path)
    assert find_rings(run_dir) == []
    writer.forget()
    assert sweep_rings(run_dir) == []
    os.chown(writer.path, os.getuid(), os.getgid())
    assert sweep_rings(run_dir) == [writer.path.name]


@pytest.mark.parametrize("kind", ["head", "slots", "short slots"])
def test_a_damaged_ring_is_one_clear_error(run_dir: Path, kind: str) -> None:
    """In a reader that was not there when it was whole. Sweeping it needs none of its contents."""
    writer = FastLaneWriter(run_dir, INFO)
    publish(writer, SMALL)
    slots = writer.path.with_name(f"{writer.path.name}.1")
    if kind == "short slots":
        os.truncate(slots, 8192)
    else:
        with (writer.path if kind == "head" else slots).open("r+b") as file:
            file.write(b"\xff" * 64)
    with pytest.raises(FastLaneError, match=f"no {kind}|contradicts itself"):
        read_once(writer.path)
    if kind == "short slots":
        writer.forget()
        assert sweep_rings(run_dir) == [writer.path.name]
    writer.close()


def read_once(head: Path) -> None:
    """Attach and read."""
    reader = FastLaneReader(head)
    try:
        reader.read()
    finally:
        reader.close()


def test_a_full_memory_is_a_smaller_ring_and_never_a_signal(short_dir: Path) -> None:
    """Where there is room for one slot and not for four, there is one; where there is none, one clear error."""
    with small_file_system(short_dir / "memory", 1) as memory:
        writer = FastLaneWriter(short_dir, INFO, directories=[memory])
        for shape, slots in [(SMALL, 4), (LARGE, 1), (SMALL, 4)]:
            for _ in range(10):
                publish(writer, shape)
            assert writer.metrics().slots == slots
            reader = FastLaneReader(writer.path, [memory])
            found = reader.read()
            assert found is not None
            assert verify(*found)
            reader.close()
        with pytest.raises(FastLaneError, match=r"no room for one frame of 3000000 bytes in .*No space left"):
            publish(writer, (1000, 1000, 3))
        publish(writer, SMALL)
        assert sorted(path.name for path in memory.iterdir()) == [writer.path.name, f"{writer.path.name}.4"]
        writer.close()
        assert list(memory.iterdir()) == []
    assert pattern(1, 16) != pattern(2, 16)
    assert SHARED_MEMORY not in memory.parents
