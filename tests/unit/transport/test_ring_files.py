"""Names and files of rings: made whole or not at all, found while their makers live, swept when they do not."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.transport.lane_rig import INFO, fill, names, open_files, path_of

from runlane.config.errors import FastLaneError
from runlane.transport import ring_files
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.ring_files import (
    find_rings,
    graph_prefix,
    is_locked,
    make_file,
    make_head,
    new_name,
    open_head,
    open_slots,
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


# ---- making ----------------------------------------------------------------------------------------------


def test_names_are_never_used_twice(run_dir: Path) -> None:
    """All of a graph begin alike, and those of two graphs do not."""
    found = {new_name(run_dir) for _ in range(1_000)}
    assert len(found) == 1_000
    assert all(name.startswith(graph_prefix(run_dir)) for name in found)
    assert graph_prefix(run_dir) != graph_prefix(run_dir.with_name("other"))


def test_a_file_is_its_owners_alone_and_has_all_its_blocks(tmp_path: Path) -> None:
    """0600 under any umask that takes less away, closed in programs that are started, and no hole."""
    before = os.umask(0)
    try:
        fd = make_file(tmp_path / "file", 8192)
    finally:
        os.umask(before)
    found = os.fstat(fd)
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o600, 8192)
    assert found.st_blocks * 512 >= 8192
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)


def test_a_file_that_is_there_is_never_taken(tmp_path: Path) -> None:
    """Nor is one made where a link points to."""
    (tmp_path / "file").write_bytes(b"theirs")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            make_file(tmp_path / name, 10)
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_without_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither name nor descriptor; also when a sweep was quicker to remove it."""
    fill(monkeypatch, lambda _, __: False)
    before = open_files()
    with pytest.raises(OSError, match="No space left"):
        make_file(tmp_path / "file", 10)

    def swept(_: int, __: int, ___: int) -> None:
        (tmp_path / "file").unlink()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", swept)
    with pytest.raises(OSError, match="full"):
        make_file(tmp_path / "file", 10)
    assert (names(tmp_path), open_files()) == ([], before)


def test_a_head_lies_in_shared_memory_and_is_locked(memory: Path, run_dir: Path) -> None:
    """As long as its maker has it open; another name where a name is taken."""
    fd, path = make_head(run_dir, ring_directories(run_dir))
    assert (path.parent, path.stat().st_size) == (memory, HEAD_BYTES)
    other = open_head(path)
    assert is_locked(other)
    assert is_locked(other)
    os.close(fd)
    assert not is_locked(other)
    os.close(other)


def test_a_taken_name_is_left_alone(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one tried."""
    (run_dir / "taken").write_bytes(b"theirs")
    offered = ["free", "taken"]

    def offer(_: Path) -> str:
        return offered.pop()

    monkeypatch.setattr(ring_files, "new_name", offer)
    fd, path = make_head(run_dir, [run_dir])
    os.close(fd)
    assert (path.name, (run_dir / "taken").read_bytes()) == ("free", b"theirs")


def test_without_shared_memory_all_lies_in_the_run_directory(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a system that has none."""
    monkeypatch.setattr(ring_files, "SHARED_MEMORY", tmp_path / "none")
    writer = FastLaneWriter(run_dir, INFO)
    writer.publish(FRAME)
    assert names(run_dir) == [writer.path.name, f"{writer.path.name}.1"]
    assert [ring.path for ring in find_rings(run_dir)] == [writer.path]
    writer.close()
    assert names(run_dir) == []


def test_a_full_memory_falls_to_the_run_directory(memory: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head without room there lies in the run directory, and so do all its slots, though room was made meanwhile."""
    fill(monkeypatch, lambda path, size: memory not in path.parents or size != HEAD_BYTES)
    writer = FastLaneWriter(run_dir, INFO)
    writer.publish(FRAME)
    assert (names(memory), names(run_dir)) == ([], [writer.path.name, f"{writer.path.name}.1"])
    writer.close()


def test_slots_without_room_fall_to_the_run_directory(
    memory: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, before there are fewer; a reader who knows the run directory finds them; closing leaves none."""
    fill(monkeypatch, lambda path, size: memory not in path.parents or size == HEAD_BYTES)
    writer = FastLaneWriter(run_dir, INFO)
    writer.publish(FRAME)
    assert (names(memory), names(run_dir)) == ([writer.path.name], [f"{writer.path.name}.1"])
    assert writer.metrics().slots == 4
    assert writer.notes == [f"no room for 4 slots of 48 bytes in {memory}: No space left on device"]
    reader = FastLaneReader(writer.path, ring_directories(run_dir))
    found = reader.read()
    assert found is not None
    assert found[1] == FRAME.tobytes()
    reader.close()
    assert sweep_rings(run_dir) == []
    writer.close()
    assert (names(memory), names(run_dir)) == ([], [])


@pytest.mark.parametrize(("slots", "room", "expected"), [(4, 2, 2), (4, 1, 1), (3, 2, 2), (2, 1, 1), (64, 3, 2)])
def test_where_there_is_no_room_at_all_there_are_fewer_slots(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, slots: int, room: int, expected: int
) -> None:
    """A ring of two or one, rather than none."""
    fill(monkeypatch, lambda _, size: size <= HEAD_BYTES + room * 192)
    writer = FastLaneWriter(run_dir, INFO, FastLaneConfig(slots), [run_dir])
    writer.publish(FRAME)
    assert writer.metrics().slots == expected
    writer.close()


def test_no_room_for_one_frame_is_one_clear_error(memory: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how many bytes, and where; nothing is left of the attempts, however many there are; then it goes on."""
    rooms = [HEAD_BYTES]
    asked = fill(monkeypatch, lambda _, size: size <= rooms[0])
    writer = FastLaneWriter(run_dir, INFO)
    before = open_files()
    for _ in range(3):
        with pytest.raises(FastLaneError, match=rf"no room for one frame of 48 bytes in {run_dir}: No space .*free"):
            writer.publish(FRAME)
    assert len(writer.notes) == 6
    assert len(asked) == 1 + 3 * 6
    assert (names(memory), names(run_dir), open_files()) == ([writer.path.name], [], before)
    assert (writer.metrics().frames, writer.metrics().slots) == (0, 0)
    rooms[0] = 1 << 20
    writer.publish(FRAME)
    assert (writer.metrics().frames, writer.metrics().slots, writer.notes) == (1, 4, [])
    writer.close()


def test_no_room_for_a_head_is_one_clear_error(memory: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is a run directory that is not there."""
    fill(monkeypatch, lambda _, __: False)
    before = open_files()
    with pytest.raises(FastLaneError, match=r"no ring can be made: .*No space left on device; free some space there"):
        FastLaneWriter(run_dir, INFO)
    assert (names(memory), names(run_dir), open_files()) == ([], [], before)
    with pytest.raises(FastLaneError, match=r"no ring can be made: .*No such file"):
        FastLaneWriter(run_dir, INFO, directories=[run_dir / "none"])


def test_a_file_system_without_locks_is_passed_over(
    memory: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could say whether such a ring's maker lives. Neither name nor descriptor is left there."""
    lock = fcntl.flock

    def refusing(fd: int, kind: int) -> None:
        if memory in path_of(fd).parents:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        lock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", refusing)
    before = open_files()
    fd, path = make_head(run_dir, ring_directories(run_dir))
    assert (path.parent, names(memory)) == (run_dir, [])
    os.close(fd)
    with pytest.raises(FastLaneError, match=r"no ring can be made: .*No locks available"):
        make_head(run_dir, [memory])
    assert (names(memory), open_files()) == ([], before)


# ---- finding ---------------------------------------------------------------------------------------------


def test_rings_are_found_oldest_first(
    memory: Path, run_dir: Path, writer: FastLaneWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In shared memory and in the run directory; those of another graph, and what is no ring, are not."""
    fill(monkeypatch, lambda path, _: memory not in path.parents)
    second = FastLaneWriter(run_dir, INFO)
    monkeypatch.undo()
    monkeypatch.setattr(ring_files, "SHARED_MEMORY", memory)
    other = FastLaneWriter(run_dir.with_name("other"), INFO)
    (memory / new_name(run_dir)).write_bytes(bytes(HEAD_BYTES))
    (memory / new_name(run_dir)).mkdir()
    (memory / new_name(run_dir)).symlink_to(writer.path)
    (memory / f"{graph_prefix(run_dir)}short").write_bytes(b"")
    assert [ring.path for ring in find_rings(run_dir)] == [writer.path, second.path]
    assert second.path.parent == run_dir
    assert find_rings(run_dir)[0].info == INFO
    assert find_rings(run_dir)[0].header.pid == os.getpid()
    second.close()
    other.close()


def test_a_ring_whose_maker_is_gone_is_not_found(writer: FastLaneWriter, run_dir: Path) -> None:
    """However it went: the files are still there."""
    assert len(find_rings(run_dir)) == 1
    writer.forget()
    assert find_rings(run_dir) == []
    assert writer.path.exists()
    assert sweep_rings(run_dir) == [writer.path.name]


def test_a_ring_that_is_being_closed_is_not_found(writer: FastLaneWriter, run_dir: Path) -> None:
    """Its maker has the lock until the end."""
    seen: list[int] = []

    def looking(head: Path, directories: object) -> None:
        seen.append(len(find_rings(run_dir)))
        remove_ring(head, ring_directories(run_dir))
        assert directories == ring_directories(run_dir)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runlane.transport.fast_lane_writer.remove_ring", looking)
        writer.close()
    assert seen == [0]


def test_no_run_directory_has_no_rings(run_dir: Path, memory: Path) -> None:
    """Also for a sweep."""
    assert names(memory) == []
    assert (find_rings(run_dir / "none"), sweep_rings(run_dir / "none")) == ([], [])


@pytest.mark.parametrize("kind", ["directory", "pipe", "link", "short", "theirs", "gone"])
def test_what_is_no_head_of_ours_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one clear error, at once, and without keeping it open."""
    path = tmp_path / "rl-0000000000-00000000"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path)
    elif kind != "gone":
        path.write_bytes(bytes(HEAD_BYTES - (kind == "short")))
    if kind == "theirs":
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
    before = open_files()
    with pytest.raises(FastLaneError, match=f"{path.name}"):
        open_head(path)
    assert open_files() == before


def test_slots_of_somebody_else_are_passed_over(
    memory: Path, run_dir: Path, writer: FastLaneWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can make a file in shared memory, also of a name that we shall need: the next directory has ours."""
    theirs = memory / f"{writer.path.name}.2"
    theirs.write_bytes(b"theirs")
    owner = theirs.stat()
    status = os.fstat

    def foreign(fd: int) -> os.stat_result:
        found = status(fd)
        is_theirs = (found.st_dev, found.st_ino) == (owner.st_dev, owner.st_ino)
        return os.stat_result((*found[:4], 12_345, *found[5:])) if is_theirs else found

    monkeypatch.setattr(os, "fstat", foreign)
    writer.publish(FRAME[:3])
    fd = open_slots(writer.path, 2, ring_directories(run_dir))
    assert path_of(fd) == run_dir / theirs.name
    os.close(fd)
    with pytest.raises(FastLaneError, match="has no slots of generation 2 any more"):
        open_slots(writer.path, 2, [memory])
