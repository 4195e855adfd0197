"""A ring against a single frame: whatever happens in whatever order, a reader gets the newest one or nothing."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.ring_files import find_rings, sweep_rings
from runlane.transport.ring_layout import Geometry, Hud, RingInfo

INFO = RingInfo(run="run", worker="worker")
SIZES = [Geometry(1, 1, 1), Geometry(3, 2, 1), Geometry(5, 4, 3), Geometry(5, 4, 4), Geometry(30, 20, 3)]
READERS = 2


@dataclass
class Seen:
    """What the model knows of one reader: `first` and `last` are the numbers of frames it read, 0 for none."""

    reader: FastLaneReader
    first: int = 0
    last: int = 0
    frames: int = 0
    generation: int = 0  # that it has mapped


class RingMachine(RuleBasedStateMachine):
    """One ring after the other, of one worker; two readers, which come and go."""

    @initialize(slots=st.integers(1, 9), is_checked=st.booleans())
    def begin(self, slots: int, is_checked: bool) -> None:
        """A worker without a frame yet."""
        self.directory = TemporaryDirectory(prefix="rl-")
        self.run_dir = Path(self.directory.name)
        self.config = FastLaneConfig(slots, is_checked)
        self.readers: dict[int, Seen] = {}
        self.step = 0
        self.new_writer()

    def new_writer(self) -> None:
        """A new ring: the model of it is its newest frame."""
        self.writer: FastLaneWriter | None = FastLaneWriter(self.run_dir, INFO, self.config, [self.run_dir])
        self.newest: tuple[Hud, bytes] | None = None
        self.published = self.generation = self.bytes = 0
        self.size: Geometry | None = None

    # ---- the worker ----

    @precondition(lambda self: self.writer is not None)
    @rule(size=st.sampled_from(SIZES), count=st.integers(1, 12), seed=st.binary(min_size=1, max_size=7))
    def publish(self, size: Geometry, count: int, seed: bytes) -> None:
        """Frames of one size."""
        assert self.writer is not None
        self.generation += size.shape != (None if self.size is None else self.size.shape)
        self.size = size
        for _ in range(count):
            self.step += 1
            pixels = ((seed + self.step.to_bytes(4, "little")) * size.frame_bytes)[: size.frame_bytes]
            hud = Hud(step_seq=self.step, mono_ns=self.step, last_reward=self.step / 7)
            self.writer.publish(memoryview(pixels).cast("B", size.shape), hud)
            self.newest = hud, pixels
            self.published += 1
            self.bytes += size.frame_bytes

    @precondition(lambda self: self.writer is not None)
    @rule(is_killed=st.booleans())
    def end(self, is_killed: bool) -> None:
        """In order, or not; then a sweep comes by."""
        assert self.writer is not None
        name = self.writer.path.name
        if is_killed:
            self.writer.forget()
            assert sweep_rings(self.run_dir) == [name]
        else:
            self.writer.close()
            assert sweep_rings(self.run_dir) == []
        self.writer = None

    @precondition(lambda self: self.writer is None)
    @rule()
    def begin_anew(self) -> None:
        """Readers of the ring before let go of it."""
        for which in list(self.readers):
            self.leave(which)
        self.new_writer()

    # ---- readers ----

    @precondition(lambda self: self.writer is not None)
    @rule(which=st.integers(0, READERS - 1))
    def attach(self, which: int) -> None:
        """By what can be found."""
        if which not in self.readers:
            [found] = find_rings(self.run_dir)
            self.readers[which] = Seen(FastLaneReader(found.path, [self.run_dir]))

    @rule(which=st.integers(0, READERS - 1))
    def leave(self, which: int) -> None:
        """The ring stays as it is."""
        if which in self.readers:
            self.readers.pop(which).reader.close()

    @rule(which=st.integers(0, READERS - 1))
    def read(self, which: int) -> None:
        """The newest frame with its own HUD, once; of a ring that is gone, only what is mapped already."""
        if which not in self.readers:
            return
        seen = self.readers[which]
        found = seen.reader.read()
        can_map = self.writer is not None or seen.generation == self.generation
        if self.newest is None or seen.last == self.published or not can_map:
            assert found is None
            return
        assert found == self.newest
        assert seen.reader.geometry == self.size
        seen.generation = self.generation
        seen.first = seen.first or self.published
        seen.last = self.published
        seen.frames += 1

    # ---- what holds at every step ----

    @invariant()
    def every_frame_is_read_or_lapped(self) -> None:
        """frames + lapped = all from the first one read to the last; nothing is torn when nobody is in between."""
        for seen in self.readers.values():
            figures = seen.reader.metrics(0)
            assert figures.frames == seen.frames
            assert figures.frames + figures.lapped == (seen.last - seen.first + 1 if seen.first else 0)
            assert figures.lag_frames == (self.published - seen.last if seen.last else 0)
            assert figures.torn == 0
            assert seen.reader.is_writer_alive == (self.writer is not None)

    @invariant()
    def the_files_are_those_of_the_living(self) -> None:
        """A head and the newest generation's slots, or nothing."""
        names = sorted(path.name for path in self.run_dir.iterdir())
        if self.writer is None:
            assert names == []
            return
        head = self.writer.path.name
        assert names == [head, f"{head}.{self.generation}"][: 1 + bool(self.generation)]
        figures = self.writer.metrics()
        assert (figures.frames, figures.bytes, figures.generation) == (self.published, self.bytes, self.generation)

    def teardown(self) -> None:
        """Nobody is left."""
        if hasattr(self, "directory"):
            for seen in self.readers.values():
                seen.reader.close()
            if self.writer is not None:
                self.writer.close()
            self.directory.cleanup()


TestRingModel = RingMachine.TestCase
TestRingModel.settings = settings(max_examples=100, stateful_step_count=40)
