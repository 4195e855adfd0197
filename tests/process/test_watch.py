"""`runlane watch` and `snapshot` as a user runs them, in a pipe and in a terminal, on a ring of known frames."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from process.conftest import Processes

from runlane.config.settings import Settings
from runlane.transport.fast_lane_writer import FastLaneWriter
from runlane.transport.lease import Wanted
from runlane.transport.ring_files import graph_prefix, ring_directories
from runlane.transport.ring_layout import Hud, RingInfo

Pixels = NDArray[np.uint8]

ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
COLUMNS, ROWS = 60, 20
FRAME: Pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
INFO = RingInfo(run="01abc", worker="w", run_name="walk")


class Stage:
    """A worker of the test's own: it publishes a frame whenever somebody wants one."""

    def __init__(self, run_dir: Path, info: RingInfo = INFO) -> None:
        run_dir.mkdir(mode=0o700, exist_ok=True)
        self.writer = FastLaneWriter(run_dir, info)
        self.frame: Pixels = FRAME
        self.tile = self.env_index = 0

    def wanted(self) -> Wanted | None:
        """What viewers ask for now."""
        return self.writer.wanted(time.monotonic_ns())

    def publish(self) -> None:
        """The next frame; its number stands everywhere in its HUD."""
        number = self.writer.frames + 1
        place, now_ns = number + (number << 32), time.monotonic_ns()
        self.writer.publish(
            self.frame, Hud(number, time.time_ns(), now_ns, place, self.env_index, self.tile, 0.5, number, 21.5, 512.0)
        )

    def play(self) -> None:
        """One step of the training loop."""
        if self.wanted() is not None:
            self.publish()


class Terminal:
    """The other end of a pseudo terminal, and all that was written into it."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        self.resize(COLUMNS, ROWS)
        self.mode = termios.tcgetattr(self.slave)
        self.text = b""

    def resize(self, columns: int, rows: int) -> None:
        """As when somebody pulls at the window."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> bytes:
        """All so far."""
        while True:
            try:
                self.text += os.read(self.master, 65536)
            except OSError:  # nothing more now
                return self.text

    def is_restored(self) -> bool:
        """Whether it is as it was before: the first screen, a cursor, and its line discipline."""
        return self.read().startswith(ENTER) and self.text.endswith(LEAVE) and self._mode_now() == self.mode

    def _mode_now(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def stage(run_dir: Path) -> Iterator[Stage]:
    """A worker, `w` of run `01abc`, called `walk`."""
    found = Stage(run_dir)
    yield found
    found.writer.close()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of 60 x 20 cells."""
    found = Terminal()
    yield found
    found.close()


class Viewer:
    """Starts the commands, with the settings of the test."""

    def __init__(self, processes: Processes, settings: Settings) -> None:
        self._processes = processes
        self._sets = [
            "--set",
            f"data_dir={settings.data_dir}",
            "--set",
            f"transport.run_dir={settings.transport.run_dir}",
        ]

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """In a pipe."""
        command = (sys.executable, "-m", "runlane", *words, *self._sets)
        return self._processes.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def on(self, terminal: Terminal, *words: str, colours: str = "truecolor") -> "subprocess.Popen[bytes]":
        """In a terminal, which becomes the controlling one of its session."""
        name = os.ttyname(terminal.slave)
        return self._processes.start(
            "sh", "-c", f'exec "$0" "$@" <{name} >{name}', sys.executable, "-m", "runlane", *words, *self._sets,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": colours, "TMUX": "", "KITTY_WINDOW_ID": ""},
        )  # fmt: skip

    def until_end(self, viewer: "subprocess.Popen[bytes]", stage: Stage | None = None) -> str:
        """Play until it has ended; returns what it printed into its pipe."""

        def is_over() -> bool:
            if stage is not None:
                stage.play()
            return viewer.poll() is not None

        self._processes.until(is_over, "the viewer ends")
        return "" if viewer.stdout is None else viewer.stdout.read().decode()


@pytest.fixture
def viewer(processes: Processes, settings: Settings) -> Viewer:
    """Runs `runlane watch` and `runlane snapshot`."""
    return Viewer(processes, settings)


def _shared_memory(run_dir: Path) -> set[str]:
    """Names of this graph: others of this host come and go."""
    return {path.name for path in ring_directories(run_dir)[0].glob(f"{graph_prefix(run_dir)}*")}


# ---- watch in a pipe -------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_for_each_frame(viewer: Viewer, stage: Stage) -> None:
    """The HUD as key=value, of three frames in order, none from before, and without an escape code."""
    stage.publish()
    process = viewer.start("watch", "walk", "--frames", "3")
    words = "worker w of run walk is there, and its first frame comes"  # on a slow machine, before the first one
    lines = [line for line in viewer.until_end(process, stage).splitlines() if not line.startswith(words)]
    assert process.returncode == 0
    assert len(lines) >= 3  # a line that is due and has no new frame says how old the last one is
    numbers: list[int] = []
    for line in lines:
        fields = dict(field.split("=") for field in line.split())
        assert (fields["run"], fields["name"], fields["worker"]) == ("01abc", "walk", "w")
        assert fields["episode"] == fields["step"] == fields["episode_return"]
        assert (fields["last_reward"], fields["rolling_return"], fields["step_rate_hz"]) == ("0.5", "21.5", "512")
        assert {"fps", "age_ms", "lapped", "torn"} < fields.keys()
        numbers.append(int(fields["step"]))
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 3
    assert numbers[0] > 1


def test_a_pipe_is_told_of_an_end_and_of_a_beginning(
    viewer: Viewer, processes: Processes, stage: Stage, run_dir: Path
) -> None:
    """The viewer stays while one worker ends and the next one comes."""
    process = viewer.start("watch", "--frames", "2", "--seconds", "20")
    processes.until(lambda: stage.wanted() is not None, "a lease is there")
    stage.publish()
    processes.until(lambda: (wanted := stage.wanted()) is not None and wanted.seen, "the first frame was seen")
    stage.writer.close()
    assert process.stdout is not None
    first, second = (process.stdout.readline().decode() for _ in range(2))
    while "has ended" not in second:
        second = process.stdout.readline().decode()
    following = Stage(run_dir, RingInfo(run="02def", worker="v"))
    try:
        rest = viewer.until_end(process, following)
    finally:
        following.writer.close()
    assert "run=01abc" in first
    assert second == "worker w of run walk has ended; waiting for the next\n"
    assert "run=02def worker=v" in rest
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_ordinary_end(
    viewer: Viewer, processes: Processes, stage: Stage, number: signal.Signals
) -> None:
    """Exit code 0, no traceback, and the lease given back."""
    process = viewer.start("watch")
    processes.until(lambda: stage.wanted() is not None, "a lease is there")
    process.send_signal(number)
    assert "Traceback" not in viewer.until_end(process)
    assert process.returncode == 0
    assert stage.wanted() is None


@pytest.mark.parametrize("words", [("watch", "--seconds", "0.3"), ("snapshot", "x.png", "--timeout", "0.3")])
def test_nobody_there_is_one_line_with_the_remedy(viewer: Viewer, run_dir: Path, words: tuple[str, ...]) -> None:
    """Exit code 1, and no file."""
    process = viewer.start(*words)
    lines = viewer.until_end(process).splitlines()
    assert process.returncode == 1
    assert lines[-1].startswith("runlane: no ")
    assert 'render_mode="rgb_array"' in lines[-1]
    assert len(lines) == 1
    assert not Path("x.png").exists()
    assert not run_dir.exists()


def test_another_run_there_is_named(viewer: Viewer, stage: Stage) -> None:
    """So that a slip of the pen is seen at once."""
    process = viewer.start("snapshot", "wlak", "x.png", "--timeout", "0.3")
    assert "no worker of run wlak shows frames yet; these do: walk/w" in viewer.until_end(process, stage)
    assert process.returncode == 1


# ---- watch in a terminal ---------------------------------------------------------------------------------


def test_a_terminal_shows_the_frame_and_its_hud(viewer: Viewer, stage: Stage, terminal: Terminal) -> None:
    """Two pixels a cell, as great as fits, with the words below; then the terminal is as before."""
    process = viewer.on(terminal, "watch", "latest", "--frames", "3")
    viewer.until_end(process, stage)
    assert process.returncode == 0
    assert terminal.is_restored()
    text = terminal.read().decode()
    half = "\x1b[48;2;255;0;0m" + " " * 15 + "\x1b[48;2;0;255;0m" + " " * 14 + "\x1b[38;2;0;255;0m█"
    assert f"\x1b[1H{half}" in text
    shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)
    for word in ("run 01abc", "worker w", "last_reward 0.5", "rolling_return 21.5", "step_rate_hz 512", "torn 0"):
        assert word in shown
    assert text.count("\x1b[?2026h") == text.count("\x1b[?2026l") - 1 >= 3  # the last one is that of the end


def test_only_what_has_changed_is_written_again(viewer: Viewer, stage: Stage, terminal: Terminal) -> None:
    """A picture that stands still is written once, its HUD with each frame."""
    process = viewer.on(terminal, "watch", "--frames", "5", colours="")
    viewer.until_end(process, stage)
    text = terminal.read().decode()
    assert text.count("\x1b[1H\x1b[48;5;196m") == 1
    assert len(re.findall("episode [0-9]+", text)) == 5


def test_a_frame_or_a_terminal_of_another_size_is_drawn_anew(
    viewer: Viewer, processes: Processes, stage: Stage, terminal: Terminal
) -> None:
    """Whatever changes while one looks."""
    process = viewer.on(terminal, "watch")

    def shows(pattern: bytes) -> bool:
        stage.play()
        return re.search(pattern, terminal.read(), re.DOTALL) is not None

    processes.until(lambda: shows(b"48;2;255;0;0m {15}\x1b"), "the frame")
    stage.frame = np.full((4, 2, 3), 7, np.uint8)
    processes.until(lambda: shows(b"2J.*48;2;7;7;7m {14}\x1b"), "the smaller frame")
    terminal.resize(40, 10)
    processes.until(lambda: shows(b"2J.*48;2;7;7;7m {1,13}\x1b"), "the smaller terminal")
    process.terminate()
    viewer.until_end(process)
    assert process.returncode == 0
    assert terminal.is_restored()


@pytest.mark.parametrize("typed", [b"q", b"\x03"])
def test_a_key_ends_it(viewer: Viewer, processes: Processes, stage: Stage, terminal: Terminal, typed: bytes) -> None:
    """`q`, or Ctrl-C, which the terminal makes a signal of."""
    process = viewer.on(terminal, "watch")
    processes.until(lambda: stage.wanted() is not None and ENTER in terminal.read(), "it watches")
    os.write(terminal.master, typed)
    viewer.until_end(process, stage)
    assert process.returncode == 0
    assert terminal.is_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(
    viewer: Viewer, processes: Processes, stage: Stage, terminal: Terminal, number: signal.Signals
) -> None:
    """And is an ordinary end here, too."""
    process = viewer.on(terminal, "watch")
    processes.until(lambda: stage.wanted() is not None and ENTER in terminal.read(), "it watches")
    process.send_signal(number)
    viewer.until_end(process, stage)
    assert process.returncode == 0
    assert terminal.is_restored()


def test_a_terminal_that_takes_nothing_holds_up_nothing(
    viewer: Viewer, processes: Processes, stage: Stage, terminal: Terminal
) -> None:
    """The lease is kept, so that the next frame is a new one; and a signal ends it in the middle of a frame."""
    stage.frame = np.random.default_rng(3).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    terminal.resize(250, 80)
    process = viewer.on(terminal, "watch")
    processes.until(lambda: stage.wanted() is not None, "a lease is there")
    stage.publish()
    processes.until(lambda: (wanted := stage.wanted()) is not None and wanted.seen, "the frame was seen")
    since_s = time.monotonic()
    processes.until(lambda: time.monotonic() > since_s + 2 or stage.wanted() is None, "two leases' time has passed")
    assert stage.wanted() is not None
    process.terminate()
    viewer.until_end(process)
    assert process.returncode == 0


def test_a_killed_viewer_leaves_nothing(viewer: Viewer, processes: Processes, stage: Stage, run_dir: Path) -> None:
    """No name in shared memory, and a lease that ends by itself."""
    stage.publish()
    before = _shared_memory(run_dir)
    process = viewer.start("watch")
    processes.until(lambda: (wanted := stage.wanted()) is not None and wanted.seen, "it has read the frame")
    process.kill()
    process.wait()
    processes.until(lambda: stage.wanted() is None, "the lease has ended", 2.0)
    assert _shared_memory(run_dir) == before


# ---- snapshot --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_snapshot_is_the_frame(viewer: Viewer, stage: Stage, short_dir: Path, channels: int) -> None:
    """Every pixel of it, with what is transparent; and the line says whose it is."""
    stage.frame = np.random.default_rng(channels).integers(0, 255, (40, 60, channels)).astype(np.uint8)
    out = short_dir / "shot.png"
    process = viewer.start("snapshot", "walk", str(out))
    line = viewer.until_end(process, stage).strip()
    assert process.returncode == 0
    assert np.array_equal(np.asarray(Image.open(out)).reshape(stage.frame.shape), stage.frame)
    found = re.fullmatch(
        re.escape(f"{out} 60x40 run=01abc name=walk worker=w ")
        + r"episode=(\d+) step=(\d+) last_reward=0.5 episode_return=(\d+) "
        r"rolling_return=21.5 step_rate_hz=512 seq=(\d+)",
        line,
    )
    assert found is not None
    assert len(set(found.groups())) == 1
    assert sorted(path.name for path in short_dir.iterdir()) == ["run", "shot.png"]


def test_a_snapshot_is_of_now(viewer: Viewer, stage: Stage, short_dir: Path) -> None:
    """Not the frame that lay there from before: one that was made for it."""
    stage.publish()
    stage.frame = np.full((2, 2, 3), 99, np.uint8)
    process = viewer.start("snapshot", str(short_dir / "shot.png"), "--scale", "3")
    assert "seq=1\n" not in viewer.until_end(process, stage)
    assert process.returncode == 0
    assert np.asarray(Image.open(short_dir / "shot.png")).tolist() == np.full((6, 6, 3), 99).tolist()
    old = viewer.start("snapshot", str(short_dir / "old.png"), "--timeout", "0.3")
    assert "showed no frame within 0.3 s" in viewer.until_end(old)
    assert old.returncode == 1
    assert not (short_dir / "old.png").exists()


def test_a_tile_is_waited_for(viewer: Viewer, processes: Processes, run_dir: Path, short_dir: Path) -> None:
    """The grid that the worker showed before it came to the wish is not the picture that was asked for."""
    stage = Stage(run_dir, RingInfo(run="01abc", worker="w", env_count=4))
    try:
        stage.tile = 4
        process = viewer.start("snapshot", str(short_dir / "shot.png"), "--tile", "3")
        processes.until(lambda: (wanted := stage.wanted()) is not None and wanted.tile == 3, "it asks for the tile")
        stage.publish()
        processes.until(lambda: (wanted := stage.wanted()) is not None and wanted.seen == 1, "the grid was seen")
        stage.tile, stage.env_index = 0, 2
        line = viewer.until_end(process, stage)
        assert process.returncode == 0
        assert "env_index=2" in line
        beyond = viewer.start("snapshot", str(short_dir / "shot.png"), "--tile", "5")
        assert "worker w has 4 environments: choose --tile 1 to 4" in viewer.until_end(beyond)
        assert beyond.returncode == 1
    finally:
        stage.writer.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["walk"], "walk does not end with .png: say `runlane snapshot [RUN] OUT.png`"),
        (["no/such/place.png"], "No such file or directory"),
        (["x.png", "--scale", "64"], "choose a smaller --scale"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_line(viewer: Viewer, stage: Stage, words: list[str], expected: str) -> None:
    """Exit code 1, no traceback."""
    stage.frame = np.zeros((200, 300, 3), np.uint8)
    process = viewer.start("snapshot", *words)
    lines = viewer.until_end(process, stage).splitlines()
    assert process.returncode == 1
    assert len(lines) == 1
    assert expected in lines[0]
    assert not Path("x.png").exists()
