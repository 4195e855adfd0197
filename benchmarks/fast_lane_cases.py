"""What `bench_fast_lane.py` measures: publishing and reading a frame, by the ring and by what else could carry it.

Each case makes a burst: a function that handles so many frames and returns microseconds per frame.
"""

import contextlib
import ctypes
import importlib
import itertools
import mmap
import multiprocessing
import multiprocessing.queues
import os
import secrets
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from measuring import Burst

from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.ring_files import make_file, ring_directories
from runlane.transport.ring_layout import Hud, RingInfo

SLOTS = 4
HUD = Hud(7, 1_790_000_000_000_000_000, 5, 3 + (11 << 32), 0, 0, 1.0, 11.0, 93.5, 1_234.5)
Frame = Any


def new_frame(height: int, width: int) -> Frame:
    """Noise of shape (height, width, 3), the same each time."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def _shared_memory(size: int) -> tuple[mmap.mmap, mmap.mmap]:
    """Memory of the kind a ring has: a file in shared memory with all its blocks, here without a name.

    Mapped twice, since who reads has a mapping of its own.
    """
    path = ring_directories(Path("/nowhere"))[0] / f"bench-{secrets.token_hex(4)}"
    fd = make_file(path, size)
    path.unlink()
    try:
        return mmap.mmap(fd, size), mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)


def warm(burst: Burst) -> Burst:
    """The same after each slot was touched once: what stood between must not make this one's memory cold."""

    def after_a_round(count: int) -> float:
        burst(SLOTS)
        return burst(count)

    return after_a_round


class Rig:
    """One size of frames: a ring, and as much plain memory as it has, both written to before anything is measured."""

    def __init__(self, frame: Frame, directory: Path, *, is_checked: bool = False) -> None:
        """`directory` takes the place of the run directory."""
        self.frame = frame
        self._memory, seen = _shared_memory(SLOTS * frame.nbytes)
        places = range(0, SLOTS * frame.nbytes, frame.nbytes)
        self.arrays = [
            np.frombuffer(self._memory, np.uint8, frame.nbytes, place).reshape(frame.shape) for place in places
        ]
        self.seen = [np.frombuffer(seen, np.uint8, frame.nbytes, place).reshape(frame.shape) for place in places]
        self._shared, _ = _shared_memory(SLOTS * frame.nbytes)
        self._slices = [slice(place, place + frame.nbytes) for place in places]
        config = FastLaneConfig(SLOTS, is_checked=is_checked)
        self.writer = FastLaneWriter(directory, RingInfo(run="bench", worker="bench"), config)
        for number in range(2 * SLOTS):
            self.writer.publish(frame, HUD)
            np.copyto(self.arrays[number % SLOTS], frame)
            self._shared[self._slices[number % SLOTS]] = frame.data.cast("B")
        self.reader = FastLaneReader(self.writer.path)
        self.target = np.zeros_like(frame)
        assert self.reader.read_into(self.target) == HUD
        assert np.array_equal(self.target, frame)

    def close(self) -> None:
        """Remove the ring."""
        self.reader.close()
        self.writer.close()

    # ---- publishing

    def memcpy(self, count: int) -> float:
        """NumPy's copy into as many arrays as the ring has slots, one after the other."""
        copy, frame = np.copyto, self.frame
        started_s = time.perf_counter()
        for _, target in zip(range(count), itertools.cycle(self.arrays)):
            copy(target, frame)
        return (time.perf_counter() - started_s) / count * 1e6

    def memmove(self, count: int) -> float:
        """The C library's memmove, called by ctypes."""
        copy, source, size = ctypes.memmove, self.frame.ctypes.data, self.frame.nbytes
        addresses = [array.ctypes.data for array in self.arrays]
        started_s = time.perf_counter()
        for _, target in zip(range(count), itertools.cycle(addresses)):
            copy(target, source, size)
        return (time.perf_counter() - started_s) / count * 1e6

    def assign(self, count: int) -> float:
        """A slice of a map assigned to: the cheapest copy this interpreter has."""
        memory, frame = self._shared, self.frame
        started_s = time.perf_counter()
        for _, place in zip(range(count), itertools.cycle(self._slices)):
            memory[place] = frame
        return (time.perf_counter() - started_s) / count * 1e6

    def publish(self, count: int) -> float:
        """Frame and HUD into the ring."""
        publish, frame, hud = self.writer.publish, self.frame, HUD
        started_s = time.perf_counter()
        for _ in range(count):
            publish(frame, hud)
        return (time.perf_counter() - started_s) / count * 1e6

    # ---- reading: each after a frame was written, which is not timed

    def copy_out(self, count: int) -> float:
        """NumPy's copy of what was just written, out of a second mapping of it."""
        copy, frame, target, clock = np.copyto, self.frame, self.target, time.perf_counter
        passed_s = 0.0
        for _, place, source in zip(range(count), itertools.cycle(self.arrays), itertools.cycle(self.seen)):
            copy(place, frame)
            started_s = clock()
            copy(target, source)
            passed_s += clock() - started_s
        return passed_s / count * 1e6

    def read(self, count: int) -> float:
        """The newest frame and its HUD out of the ring, checked."""
        publish, frame, target, clock = self.writer.publish, self.frame, self.target, time.perf_counter
        read_into = self.reader.read_into
        passed_s = 0.0
        for _ in range(count):
            publish(frame, HUD)
            started_s = clock()
            hud = read_into(target)
            passed_s += clock() - started_s
            assert hud is not None
        return passed_s / count * 1e6


@contextlib.contextmanager
def ring(frame: Frame, *, is_checked: bool = False) -> Generator[Rig]:
    """A rig that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rl-") as directory:
        rig = Rig(frame, Path(directory), is_checked=is_checked)
        try:
            yield rig
        finally:
            rig.close()


# ---- others --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def iceoryx(frame: Frame) -> Generator[tuple[Burst, Burst] | None]:
    """iceoryx2 with safe overflow and a subscriber that keeps as many frames as the ring: publishing and reading.

    None when it is not installed.
    """
    try:
        library: Any = importlib.import_module("iceoryx2")
    except ImportError:
        yield None
        return
    library.set_log_level(library.LogLevel.Error)
    node = library.NodeBuilder.new().create(library.ServiceType.Ipc)
    builder = node.service_builder(library.ServiceName.new(f"runlane/bench/{frame.nbytes}/{time.time_ns()}"))
    slices = builder.publish_subscribe(library.Slice[ctypes.c_uint8]).enable_safe_overflow(True)
    service = slices.subscriber_max_buffer_size(SLOTS).history_size(0).open_or_create()
    publisher = service.publisher_builder().initial_max_slice_len(frame.nbytes).create()
    subscriber = service.subscriber_builder().create()
    source, size = frame.ctypes.data, frame.nbytes
    target = np.zeros_like(frame)

    def send() -> None:
        sample = publisher.loan_slice_uninit(size)
        ctypes.memmove(sample.payload().as_ptr(), source, size)
        sample.assume_init().send()

    def take() -> None:
        sample = subscriber.receive()
        ctypes.memmove(target.ctypes.data, sample.payload().as_ptr(), size)
        sample.delete()

    def publish(count: int) -> float:
        started_s = time.perf_counter()
        for _ in range(count):
            send()
        return (time.perf_counter() - started_s) / count * 1e6

    def read(count: int) -> float:
        passed_s = 0.0
        while subscriber.has_samples():
            take()
        for _ in range(count):
            send()
            started_s = time.perf_counter()
            take()
            passed_s += time.perf_counter() - started_s
        return passed_s / count * 1e6

    for _ in range(8):
        send()
    take()
    assert np.array_equal(target, frame)
    yield publish, read


@contextlib.contextmanager
def zmq_ipc(frame: Frame) -> Generator[Burst]:
    """PUSH over a unix socket to a process that takes every frame."""
    with tempfile.TemporaryDirectory(prefix="rl-") as directory, zmq.Context() as context:
        endpoint = f"ipc://{directory}/f"
        socket = context.socket(zmq.PUSH)
        socket.set_hwm(SLOTS)
        socket.bind(endpoint)
        child = multiprocessing.get_context("spawn").Process(target=_take_zmq, args=(endpoint,), daemon=True)
        child.start()

        def publish(count: int) -> float:
            started_s = time.perf_counter()
            for _ in range(count):
                socket.send(frame, copy=True)
            return (time.perf_counter() - started_s) / count * 1e6

        publish(8)
        try:
            yield publish
        finally:
            socket.send(b"")
            child.join(10)
            socket.close(0)


def _take_zmq(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.set_hwm(SLOTS)
        socket.connect(endpoint)
        while socket.recv(copy=False).buffer.nbytes:
            pass


@contextlib.contextmanager
def mp_queue(frame: Frame) -> Generator[Burst]:
    """multiprocessing.Queue, which pickles in a thread of its own, to a process that takes every frame."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.queues.Queue[Any] = context.Queue(SLOTS)
    child = context.Process(target=_take_queue, args=(queue,), daemon=True)
    child.start()

    def publish(count: int) -> float:
        started_s = time.perf_counter()
        for _ in range(count):
            queue.put(frame)
        return (time.perf_counter() - started_s) / count * 1e6

    publish(8)
    try:
        yield publish
    finally:
        queue.put(None)
        child.join(10)
        queue.close()
        queue.join_thread()


def _take_queue(queue: "multiprocessing.queues.Queue[Any]") -> None:
    while queue.get() is not None:
        pass
