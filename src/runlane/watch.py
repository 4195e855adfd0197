"""`runlane watch`: the newest frame of a worker in this terminal, as long as one looks; in a pipe a line a second.

While it runs it holds a lease, so the worker renders for it. It shows the newest frame there is when the terminal has
taken the one before: a slow terminal sees fewer frames, and nobody waits for it.
"""

import contextlib
import fcntl
import logging
import os
import select
import signal
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from PIL import Image

from runlane.config.errors import FastLaneError
from runlane.config.settings import Settings
from runlane.gui.terminal_frame import (
    KITTY_CLEAR,
    RESET,
    SYNC_OFF,
    SYNC_ON,
    Graphics,
    TerminalSize,
    ViewFigures,
    absence,
    check_tile,
    graphic,
    graphics_of,
    half_blocks,
    hud_fields,
    hud_lines,
    image_of,
    is_truecolor,
    plain_hud,
    text_lines,
)
from runlane.transport.endpoint import run_dir_of
from runlane.transport.lane_follower import LaneFollower
from runlane.transport.ring_files import find_rings, newest_ring
from runlane.transport.ring_layout import Geometry, Hud, RingInfo

LOOK_NS = 250_000_000
POLL_S = 0.01
KEEP_S = 0.1
STALL_S = 0.2  # a terminal that takes nothing is asked again so often, and our lease kept meanwhile
LEAVE_S = 0.5
PLAIN_RATE_HZ = 2.0  # more than the line a second, so that each line has a frame of its own
DEFAULT_SIZE = 80, 24
NO_FIGURES = ViewFigures()

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
# First whatever sequence was cut off in its middle is given up, by CAN and by the end of a string.
_LEAVE = f"\x18\x1b\\{SYNC_OFF}{RESET}\x1b[?7h\x1b[?25h\x1b[?1049l"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to watch and until when. Empty names mean whichever is there, newest first; None: no end."""

    run: str = ""
    worker: str = ""
    fps: float = 15.0
    tile: int = 0
    graphics: str = "auto"
    frames: int | None = None
    seconds: float | None = None


# ---- what there is to see --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """What is to be shown at one moment. `hud` and `pixels` are of one frame; `words` say why none comes."""

    info: RingInfo | None = None
    hud: Hud | None = None
    geometry: Geometry | None = None
    pixels: bytearray | None = None
    figures: ViewFigures = NO_FIGURES
    words: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The HUD; empty before the first frame."""
        return {} if self.info is None or self.hud is None else hud_fields(self.info, self.hud, self.figures)

    @property
    def image(self) -> Image.Image | None:
        """The frame as a picture."""
        return None if self.pixels is None or self.geometry is None else image_of(self.pixels, self.geometry)


class Watched:
    """The lane of the newest worker that fits the wish; when it has ended, of the next one. Never waits.

    Frames from before `since_ns` (monotonic) are passed over.
    """

    def __init__(self, run_dir: Path, wanted: Wanted, rate_hz: float, since_ns: int = 0) -> None:
        self._run_dir, self._wanted, self._rate_hz, self._since_ns = run_dir, wanted, rate_hz, since_ns
        self._lane: LaneFollower | None = None
        self._info: RingInfo | None = None
        self._next_look_ns = 0
        self._view = View()
        self._words = ""

    def poll(self, now_ns: int) -> bool:
        """Keep the lease, find a worker if need be, and say whether there is a frame to read."""
        lane = self._lane
        has_news = lane is not None and lane.poll(now_ns)
        if (lane is None or lane.info is None) and now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_NS
            self._look(now_ns)
        return has_news

    def keep(self) -> None:
        """Keep the lease while something else takes long."""
        self.poll(time.monotonic_ns())

    def read(self) -> bool:
        """Read the newest frame; False when there is none after all."""
        lane = self._lane
        try:
            found = None if lane is None else lane.read()
        except FastLaneError:  # frames have changed their size in this very moment
            return False
        if lane is None or found is None:
            return False
        hud, pixels = found
        geometry = lane.geometry
        if geometry is None or geometry.frame_bytes != len(pixels) or hud.mono_ns < self._since_ns:
            return False
        self._view = View(lane.info, hud, geometry, pixels)
        return True

    def view(self, now_ns: int) -> View:
        """What to show now."""
        lane, last = self._lane, self._view
        reader = None if lane is None else lane.reader
        age_ms = None if last.hud is None else (now_ns - last.hud.mono_ns) / 1e6
        if lane is None or reader is None:
            figures = ViewFigures(0.0, age_ms, last.figures.lapped, last.figures.torn)
        else:
            figures = ViewFigures(lane.fps, age_ms, reader.lapped, reader.torn)
        self._view = View(last.info, last.hud, last.geometry, last.pixels, figures, self._words_now(lane, last))
        return self._view

    def _words_now(self, lane: LaneFollower | None, last: View) -> str:
        info = None if lane is None else lane.info
        if info is None:
            return self._words
        if last.info == info:
            return ""
        return (
            f"worker {info.worker} of run {info.run_name or info.run} is there, and its first frame comes with its "
            'next step; none comes if its environment was not made with render_mode="rgb_array"'
        )

    def _look(self, now_ns: int) -> None:
        if self._info is not None and self._lane is not None:
            name = self._info.run_name or self._info.run
            self._words = f"worker {self._info.worker} of run {name} has ended; waiting for the next"
            self.close()
        rings = find_rings(self._run_dir)
        ring = newest_ring(rings, self._wanted.run, self._wanted.worker)
        if ring is None:
            if self._info is None:
                self._words = absence(rings, self._wanted.run, self._wanted.worker)
            return
        info = ring.info
        check_tile(info, self._wanted.tile)
        self._info = info
        self._lane = LaneFollower(self._run_dir, info.run, info.worker, rate_hz=self._rate_hz, viewer="watch")
        self._lane.promote(self._wanted.tile)
        self._lane.poll(now_ns)

    def close(self) -> None:
        """Give the lease back."""
        if self._lane is not None:
            self._lane.close()
            self._lane = None


# ---- where it goes ---------------------------------------------------------------------------------------


class Bell:
    """Signals and keys: wakes whoever waits, and remembers what was asked for. For the main thread."""

    def __init__(self) -> None:
        self.is_over = self.is_suspended = False
        self._keys: int | None = None
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH):
            self._before[number] = signal.signal(number, self._ring)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _ring(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.is_suspended |= number == signal.SIGTSTP
        self.is_over |= number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def listen(self, keys: int | None) -> None:
        """From now on `q` on this terminal ends it, too; None: on none."""
        self._keys = keys

    def wait(self, seconds: float, writable: int | None = None) -> None:
        """Until a signal, a key, the terminal's readiness, or so long."""
        if self.is_over:
            return
        asked = [self._read_fd] if self._keys is None else [self._read_fd, self._keys]
        ready, _, _ = select.select(asked, [] if writable is None else [writable], [], seconds)
        if self._read_fd in ready:
            os.read(self._read_fd, 512)
        if self._keys is not None and self._keys in ready:
            self._read_keys(self._keys)

    def _read_keys(self, keys: int) -> None:
        try:
            typed = os.read(keys, 512)
        except OSError:  # the terminal is gone
            self.is_over = True
            return
        self.is_over |= b"q" in typed.lower()
        if not typed:
            self._keys = None


class Screen(Protocol):
    """Where a view goes: every `period_s` at most, and where no frame is news then, after `patience_s` more."""

    period_s: float
    patience_s: float

    def show(self, view: View) -> None:
        """Show it, however long that takes."""
        ...

    def suspend(self) -> None:
        """Stop, as Ctrl-Z asks, and go on later."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PlainLines:
    """A line a second, without any escape code: for a pipe, a log, or a terminal that knows no cursor."""

    def __init__(self, wanted: Wanted) -> None:
        self.period_s = max(1.0, 1 / wanted.fps)
        self.patience_s = 0.5
        self._words = ""

    def show(self, view: View) -> None:
        """Print the HUD; what is no HUD once."""
        if view.words and view.words != self._words:
            self._print(view.words)
        elif view.fields and not view.words:
            self._print(plain_hud(view.fields))
        self._words = view.words

    @staticmethod
    def _print(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def suspend(self) -> None:
        """Nothing is to be put in order."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class TerminalScreen:
    """The terminal's other screen, which gives the first one back at the end, however it comes.

    Writes by a descriptor of its own that never blocks, so that a terminal which takes nothing (Ctrl-S, a dead
    connection) holds up neither the lease nor the end.
    """

    patience_s = 0.25

    def __init__(
        self, wanted: Wanted, bell: Bell, meanwhile: Callable[[], object], environment: Mapping[str, str]
    ) -> None:
        self.period_s = 1 / wanted.fps
        self._bell, self._meanwhile = bell, meanwhile
        self._graphics: Graphics = graphics_of(environment, wanted.graphics)
        self._truecolor = is_truecolor(environment)
        self._fd = _own_descriptor(sys.stdout.fileno())
        self._keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._mode: list[Any] | None = None
        self._layout: object = None
        self._size: TerminalSize | None = None
        self._hud_rows = 0
        self._lines: dict[int, str] = {}
        self._drawn: bytearray | None = None
        self._clear = ""

    def __enter__(self) -> Self:
        self._take()
        return self

    def _take(self) -> None:
        if self._keys is not None:
            self._mode = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)
            self._bell.listen(self._keys)
        self._layout = None
        self._write(_ENTER)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._fd)

    def _leave(self) -> None:
        clear = KITTY_CLEAR if self._graphics == "kitty" else ""
        left = (_LEAVE.replace(SYNC_OFF, clear + SYNC_OFF)).encode()
        end_s = time.monotonic() + LEAVE_S
        try:
            while left and time.monotonic() < end_s:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:
                    select.select([], [self._fd], [], max(0.0, end_s - time.monotonic()))
            if self._keys is not None and self._mode is not None:
                termios.tcsetattr(self._keys, termios.TCSANOW, self._mode)
        except (OSError, termios.error):  # there is no terminal any more
            return

    def suspend(self) -> None:
        """Give the terminal back, stop, and take it again."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    # ---- drawing ----

    def show(self, view: View) -> None:
        """Draw what differs from what is there, in the terminal's present size."""
        size = terminal_size(self._fd)
        words = [*hud_lines(view.fields, size.columns), *text_lines(view.words, size.columns)][: size.rows]
        self._hud_rows = max(self._hud_rows if size == self._size else 0, len(words))
        self._size = size
        box = size._replace(rows=size.rows - self._hud_rows)
        image = view.image if box.rows > 0 else None
        self._begin((size, self._hud_rows, None if image is None else image.size))
        picture, below = "", 0
        if image is not None and self._graphics == "blocks":
            cells = half_blocks(image, box.columns, box.rows, truecolor=self._truecolor)
            picture, below = "".join(self._line(row, text) for row, text in enumerate(cells)), len(cells)
        elif image is not None:
            below = box.rows
            if view.pixels is not self._drawn:
                picture = f"\x1b[H{graphic(self._graphics, image, box)}"
        self._drawn = view.pixels
        words += [" " * size.columns] * (self._hud_rows - len(words))
        changed = picture + "".join(self._line(below + row, text) for row, text in enumerate(words))
        if changed:
            self._write(f"{SYNC_ON}{self._clear}{changed}{SYNC_OFF}")
        self._clear = ""

    def _begin(self, layout: object) -> None:
        """Forget what is there, where everything gets another place."""
        if layout != self._layout:
            self._layout, self._drawn = layout, None
            self._lines.clear()
            self._clear = f"{KITTY_CLEAR if self._graphics == 'kitty' else ''}\x1b[2J"

    def _line(self, row: int, text: str) -> str:
        """What sets a row (from 0) to this text; nothing if it is there already."""
        if self._lines.get(row) == text:
            return ""
        self._lines[row] = text
        return f"\x1b[{row + 1}H{text}"

    def _write(self, text: str) -> None:
        """Write all of it, however slow the terminal; what is left once it is over is not missed."""
        left = text.encode("utf-8", "replace")
        while left and not self._bell.is_over:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                self._bell.wait(STALL_S, self._fd)
                self._meanwhile()
            except OSError:  # the terminal is gone
                self._bell.is_over = True


def _own_descriptor(terminal: int) -> int:
    """The same terminal, opened anew: not to block is a matter of an open file, and that one is the shell's, too."""
    try:
        return os.open(os.ttyname(terminal), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return os.dup(terminal)


def terminal_size(terminal: int) -> TerminalSize:
    """Size of the terminal now."""
    try:
        rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        rows = columns = width = height = 0
    columns, rows = columns or DEFAULT_SIZE[0], rows or DEFAULT_SIZE[1]
    if width < columns or height < rows:
        return TerminalSize(columns, rows)
    return TerminalSize(columns, rows, width // columns, height // rows)


# ---- the loop --------------------------------------------------------------------------------------------


def watch(settings: Settings, wanted: Wanted, environment: Mapping[str, str]) -> None:
    """Show frames until it is over. Raises `FastLaneError` when not one was seen in the time that was given."""
    logging.getLogger("runlane").addHandler(logging.NullHandler())  # a warning would stand in the middle of the picture
    is_plain = not sys.stdout.isatty() or environment.get("TERM", "dumb") == "dumb"
    rate_hz = min(wanted.fps, PLAIN_RATE_HZ) if is_plain else wanted.fps
    since_ns = time.monotonic_ns() if is_plain else 0  # an old picture is better than none, an old line is not
    with Bell() as bell, contextlib.closing(Watched(run_dir_of(settings), wanted, rate_hz, since_ns)) as watched:
        screen = PlainLines(wanted) if is_plain else TerminalScreen(wanted, bell, watched.keep, environment)
        with screen:
            frames = show_all(wanted, watched, screen, bell)
        if not frames and not bell.is_over:
            words = watched.view(time.monotonic_ns()).words or "none was whole"
            raise FastLaneError(f"no frame within {wanted.seconds or 0:g} s: {words}")


def show_all(wanted: Wanted, watched: Watched, screen: Screen, bell: Bell) -> int:
    """Show until somebody or a limit ends it; returns how many frames were shown."""
    period_ns, patience_ns = int(screen.period_s * 1e9), int(screen.patience_s * 1e9)
    due_ns = started_ns = now_ns = time.monotonic_ns()
    frames = 0
    while not bell.is_over and frames != wanted.frames:
        if wanted.seconds is not None and now_ns - started_ns >= wanted.seconds * 1e9:
            break
        has_news = watched.poll(now_ns)
        if now_ns >= due_ns + (0 if has_news else patience_ns):
            frames += has_news and watched.read()
            screen.show(watched.view(time.monotonic_ns()))
            due_ns = now_ns + period_ns
        bell.wait(min(KEEP_S, max(POLL_S, (due_ns - time.monotonic_ns()) / 1e9)))
        if bell.is_suspended:
            bell.is_suspended = False
            screen.suspend()
        now_ns = time.monotonic_ns()
    return frames
