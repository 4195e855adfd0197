"""Who removes rings: a sweep takes what dead makers left, and never what is a living one's."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.transport.lane_rig import INFO, fill, names, open_files, path_of

from runlane.transport import ring_files
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.ring_files import (
    find_rings,
    is_locked,
    is_same_file,
    make_head,
    metrics_path,
    new_name,
    open_head,
    remove_ring,
    ring_directories,
    sweep_rings,
)
from runlane.transport.ring_layout import HEAD_BYTES

FRAME = memoryview(bytes(range(48))).cast("B", (4, 4, 3))


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shared memory of this test alone."""
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(ring_files, "SHARED_MEMORY", memory)
    return memory


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The run directory of a graph."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    return run_dir


@pytest.fixture
def writer(memory: Path, run_dir: Path) -> Iterator[FastLaneWriter]:
    """A living maker that has shown a frame."""
    assert memory.is_dir()
    writer = FastLaneWriter(run_dir, INFO)
    writer.publish(FRAME)
    yield writer
    writer.close()


# ---- sweeping --------------------------------------------------------------------------------------------


def dead_ring(run_dir: Path) -> str:
    """What a maker leaves that was killed."""
    writer = FastLaneWriter(run_dir, INFO)
    writer.publish(FRAME)
    writer.forget()
    return writer.path.name


def test_a_sweep_removes_the_dead_and_not_the_living(memory: Path, run_dir: Path, writer: FastLaneWriter) -> None:
    """Head, slots and figures; it names the rings it removed, and the next one has nothing to do."""
    dead = dead_ring(run_dir)
    for name in (dead, writer.path.name):
        metrics_path(run_dir, "run.with.dots", name).write_text("{}")
    partial = metrics_path(run_dir, "run", dead)
    partial.with_name(f".{partial.name}").write_text("{")
    (run_dir / "fastlane-notes.json").write_text("mine")
    assert sweep_rings(run_dir) == [dead]
    assert names(memory) == [writer.path.name, f"{writer.path.name}.1"]
    kept = [metrics_path(run_dir, "run.with.dots", writer.path.name).name, "fastlane-notes.json"]
    assert names(run_dir) == sorted(kept)
    assert sweep_rings(run_dir) == []


def test_a_sweep_leaves_other_graphs_alone(memory: Path, run_dir: Path) -> None:
    """Unless it is told to take all."""
    other = run_dir.with_name("other")
    dead = dead_ring(other)
    assert sweep_rings(run_dir) == []
    assert names(memory) == [dead, f"{dead}.1"]
    assert sweep_rings(run_dir, "rl-") == [dead]
    assert names(memory) == []


def test_a_sweep_of_all_graphs_spares_a_living_ring_wherever_its_head_is(
    memory: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose head found no room in shared memory and lies in a run directory that we do not know."""
    other = run_dir.with_name("other")
    other.mkdir()
    fill(monkeypatch, lambda path, size: memory not in path.parents or size != HEAD_BYTES)
    writer = FastLaneWriter(other, INFO)
    writer.publish(FRAME)
    assert sweep_rings(run_dir, "rl-") == []
    reader = FastLaneReader(writer.path)
    assert reader.read() is not None
    reader.close()
    writer.close()


def test_a_sweep_removes_slots_without_a_head(memory: Path, run_dir: Path) -> None:
    """Somebody was killed while he removed a ring by hand."""
    name = new_name(run_dir)
    for directory in (memory, run_dir):
        (directory / f"{name}.3").write_bytes(b"")
    (memory / f"{name}.x").write_bytes(b"")
    assert sweep_rings(run_dir) == [name]
    assert (names(memory), names(run_dir)) == ([f"{name}.x"], [])


@pytest.mark.parametrize("size", [0, 100, HEAD_BYTES])
def test_a_sweep_removes_what_a_maker_left_that_died_while_it_made_a_head(
    memory: Path, run_dir: Path, size: int
) -> None:
    """Before it had its blocks, or its contents."""
    name = new_name(run_dir)
    (memory / name).write_bytes(bytes(size))
    assert sweep_rings(run_dir) == [name]
    assert names(memory) == []


def test_a_sweep_spares_what_is_no_ring(memory: Path, run_dir: Path) -> None:
    """Other names, and files of the right name that are no plain files."""
    for name in ("rl-", "rl-0000000000-0000000g", "psm_1234", f"{new_name(run_dir)}.12345678", f"{new_name(run_dir)}x"):
        (memory / name).write_bytes(b"")
    (memory / new_name(run_dir)).mkdir()
    before = names(memory)
    assert sweep_rings(run_dir, "rl-") == []
    assert names(memory) == before


def test_what_cannot_be_removed_does_not_stop_a_sweep_or_a_maker(
    memory: Path, run_dir: Path, writer: FastLaneWriter
) -> None:
    """Whoever owns it: the rest goes, and nobody sees an error."""
    dead = dead_ring(run_dir)
    for name in (dead, writer.path.name):
        (memory / f"{name}.7").mkdir()
    assert sweep_rings(run_dir) == [dead]
    writer.close()
    assert names(memory) == sorted([f"{dead}.7", f"{writer.path.name}.7"])


def test_looking_whether_a_maker_lives_is_not_misled_by_a_sweep(memory: Path, run_dir: Path) -> None:
    """A ring that is being swept is not alive, though the sweep holds a lock on it, and two sweeps do no harm."""
    dead = dead_ring(run_dir)
    fd = open_head(memory / dead)
    seen: list[object] = []

    def looking(head: Path, directories: object) -> None:
        seen.extend([is_locked(fd), find_rings(run_dir), directories])
        remove_ring(head, ring_directories(run_dir))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_files, "remove_ring", looking)
        assert sweep_rings(run_dir) == [dead]
    assert seen[:2] == [False, []]
    assert not is_same_file(fd, memory / dead)
    os.close(fd)


@pytest.mark.parametrize("moment", ["made", "allocated", "locked by the sweep"])
def test_a_maker_that_a_sweep_comes_before_takes_another_name(
    memory: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Between the making of a head and its lock it looks like a dead one's: nothing of it is left."""
    before = open_files()
    allocate, lock = os.posix_fallocate, fcntl.flock
    swept: list[list[str]] = []
    held: list[int] = []

    def allocating(fd: int, offset: int, size: int) -> None:
        if not swept and moment == "made":
            swept.append(sweep_rings(run_dir))
        allocate(fd, offset, size)

    def locking(fd: int, kind: int) -> None:
        if kind & fcntl.LOCK_EX and not swept:
            path = path_of(fd)
            swept.append([path.name])
            if moment == "allocated":
                assert sweep_rings(run_dir) == swept[0]
            else:
                held.append(os.open(path, os.O_RDWR))
                lock(held[0], fcntl.LOCK_SH)
        lock(fd, kind)

    monkeypatch.setattr(os, "posix_fallocate", allocating)
    monkeypatch.setattr(fcntl, "flock", locking)
    fd, path = make_head(run_dir, ring_directories(run_dir))
    assert len(swept) == len(swept[0]) == 1
    assert names(memory) == [path.name] != swept[0]
    for other in [fd, *held]:
        os.close(other)
    assert open_files() == before


def test_a_head_that_lost_its_name_is_nobodys(memory: Path, run_dir: Path) -> None:
    """Also where another file has it now."""
    fd, path = make_head(run_dir, [memory])
    assert is_same_file(fd, path)
    path.rename(memory / "away")
    assert not is_same_file(fd, path)
    path.write_bytes(b"")
    assert not is_same_file(fd, path)
    with contextlib.suppress(OSError):
        os.close(fd)
